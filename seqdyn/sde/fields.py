r"""Drifts without a formula: networks, and the sum of a formula and a network.

Their last layer is nearly zero at first, so that a fit starts from (nearly) no drift. They are smooth: noise
approximations need the derivative of a drift, which a network of ReLUs has only almost everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from seqdyn._arguments import check_amount, check_count, is_count

__all__ = ["GradientField", "MLPDrift", "Sum", "Time"]

Time = float | Tensor
_START = 1e-3  # of the usual size of the last layer's weights


class GradientField(nn.Module):
    r"""Gradient of a potential that a network represents: particles climb it.

    .. math:: b(x) = + \nabla \psi(x)

    The gradient is written out by the chain rule, forwards through the layers and backwards through their
    transposes, instead of being asked from autograd. So the drift works under ``no_grad`` and
    ``torch.func``, leaves no graph behind, and is differentiable in x and in its parameters to any order.

    As the reference of a bridge it takes half a minute or more for each refinement of a few hundred
    particles; try ``fit(max_epochs=5)`` first, fewer than the default.

    Args:
        num_features: Number of coordinates C.
        hidden_sizes: Sizes of the hidden layers.
        ridge: Strength of the penalty on its slopes, see :mod:`seqdyn.sde.roughness`; 0 for none.

    Raises:
        ValueError: If a size is no whole number of at least 1, or the ridge is negative.
    """

    def __init__(
        self, num_features: int, hidden_sizes: Sequence[int] = (128, 64, 64), ridge: float = 0.0
    ) -> None:
        super().__init__()
        self.ridge = check_amount(ridge, "ridge")
        # A constant in the potential does not change the drift: the last layer has no bias.
        self.hidden, self.last = _layers(
            check_count(num_features, "num_features"), hidden_sizes, 1, bias=False
        )

    def potential(self, x: Tensor) -> Tensor:
        """Evaluate ψ at states (..., C); the result is (...)."""
        return _apply(self.last, _through(self.hidden, x)).squeeze(-1)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        slopes, one = [], x.new_ones(())
        for layer in self.hidden:
            x = _apply(layer, x)
            gate = torch.sigmoid(x)
            x = x * gate
            slopes.append(
                torch.lerp(x, one, gate)
            )  # y + s (1 - y), the derivative of y = x s, s = sigmoid(x)
        gradient = self.last.weight[0].to(x.dtype)
        for layer, slope in zip(reversed(self.hidden), reversed(slopes), strict=True):
            gradient = (gradient * slope) @ layer.weight.to(x.dtype)
        return gradient


class MLPDrift(nn.Module):
    """A free vector field: a network from the state, and if wanted the time, to the velocity.

    A field that is not a gradient is in general not determined by marginals; use it where that is understood.

    As the reference of a bridge it takes half a minute or more for each refinement of a few hundred
    particles; try ``fit(max_epochs=5)`` first, fewer than the default.

    Args:
        num_features: Number of coordinates C.
        hidden_sizes: Sizes of the hidden layers.
        time_input: Whether the drift may depend on time.
        ridge: Strength of the penalty on its slopes, see :mod:`seqdyn.sde.roughness`; 0 for none.

    Raises:
        ValueError: If a size is no whole number of at least 1, or the ridge is negative.
    """

    def __init__(
        self,
        num_features: int,
        hidden_sizes: Sequence[int] = (64, 64),
        time_input: bool = False,
        ridge: float = 0.0,
    ) -> None:
        super().__init__()
        self.ridge = check_amount(ridge, "ridge")
        size = check_count(num_features, "num_features")
        self.time_input = bool(time_input)
        self.hidden, self.last = _layers(size + self.time_input, hidden_sizes, size)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        if self.time_input:
            clock = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand_as(x[..., :1])
            x = torch.cat([x, clock], dim=-1)
        return _apply(self.last, _through(self.hidden, x))


class Sum(nn.Module):
    r"""Sum of drifts, for instance of a formula and of a network for what the formula leaves out.

    .. math:: b(x, t) = \sum_i b_i(x, t)

    Its parameters are those of the terms, with the prefix ``terms.0.``, ``terms.1.``, ...

    Args:
        *terms: Drifts.

    Raises:
        ValueError: If there is none, or one is no ``nn.Module``.
    """

    def __init__(self, *terms: nn.Module) -> None:
        super().__init__()
        if not terms or not all(isinstance(term, nn.Module) for term in terms):
            raise ValueError(
                f"Sum needs drifts, each an nn.Module, got {[type(term).__name__ for term in terms]}; type "
                "for instance Sum(LotkaVolterra(), MLPDrift(2))."
            )
        self.terms = nn.ModuleList(terms)

    @property
    def lower_bounds(self) -> dict[str, float]:
        """Smallest values of the terms' parameters, by name."""
        return {
            f"terms.{index}.{name}": bound
            for index, term in enumerate(self.terms)
            for name, bound in getattr(term, "lower_bounds", {}).items()
        }

    def forward(self, x: Tensor, t: Time) -> Tensor:
        first, *others = self.terms
        total: Tensor = first(x, t)
        for term in others:
            total = total + term(x, t)
        return total


def _layers(
    num_inputs: int, hidden_sizes: Sequence[int], num_outputs: int, *, bias: bool = True
) -> tuple[Sequence[nn.Linear], nn.Linear]:
    sizes = list(hidden_sizes) if isinstance(hidden_sizes, Sequence) else []
    if not sizes or not all(is_count(size) for size in sizes):
        raise ValueError(
            "hidden_sizes must be one or more whole numbers of at least 1, such as (64, 64), got "
            f"{hidden_sizes!r}."
        )
    widths = [num_inputs, *sizes]
    hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))
    last = nn.Linear(widths[-1], num_outputs, bias=bias)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(_START)
    return cast("Sequence[nn.Linear]", hidden.double()), last.double()


def _through(hidden: Sequence[nn.Linear], x: Tensor) -> Tensor:
    for layer in hidden:
        x = silu(_apply(layer, x))
    return x


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer in the precision of the states."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return linear(x, layer.weight.to(x.dtype), bias)
