r"""Fit the parameters of a drift to velocities: weighted least squares in the metric of the noise.

.. math:: \min_\theta \sum_n w_n\, |y_n - b_\theta(x_n, t_n)|^2_{S^{-1}}

which is maximum likelihood for paths of the process (Girsanov). A drift with a closed form of its own uses
it; one with few parameters is solved by bounded Gauss-Newton, in one step where it is linear in them; a
network by Adam, of which the best step is taken and which also minds the penalty of a drift that has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor, nn
from torch.func import functional_call, jacfwd

from seqdyn.sde.roughness import has_ridge, penalty
from seqdyn.sde.transition import whitener

__all__ = [
    "FEW",
    "bounds_of",
    "BridgePaths",
    "fit_drift",
    "free_parameters",
    "NetworkFit",
    "get_parameters",
    "sensitivities",
    "set_parameters",
]

FEW = 64  # parameters up to which the full Jacobian is taken
_GAUSS_NEWTON_STEPS = 50  # a small network would go on for thousands
_POINTS = 300  # states at which a penalty is evaluated


class NetworkFit(NamedTuple):
    """How a network is fitted.

    Attributes:
        num_steps: Steps of Adam, each on all points.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
    """

    num_steps: int = 200
    learning_rate: float = 1e-2
    weight_decay: float = 0.0


_DEFAULT = NetworkFit()


class BridgePaths(NamedTuple):
    """Paths of a bridge as data for a regression.

    Attributes:
        states: (P, C).
        times: (P, 1).
        velocities: Drift of the pinned paths there, (P, C).
        weights: Length of the time step, (P,).
    """

    states: Tensor
    times: Tensor
    velocities: Tensor
    weights: Tensor


@runtime_checkable
class _Solvable(Protocol):
    def solve(self, x: Tensor, t: Tensor, target: Tensor, weight: Tensor) -> None: ...


def free_parameters(drift: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters to fit, by name: those with ``requires_grad``."""
    return [(name, p) for name, p in drift.named_parameters() if p.requires_grad]


def get_parameters(drift: nn.Module) -> np.ndarray:
    """All parameters of a drift that are not frozen as one vector."""
    parts = [p.detach().reshape(-1).cpu().double() for _, p in free_parameters(drift)]
    return torch.cat(parts).numpy() if parts else np.zeros(0)


@torch.no_grad()
def set_parameters(drift: nn.Module, values: np.ndarray) -> None:
    """The reverse of :func:`get_parameters`."""
    position = 0
    for _, parameter in free_parameters(drift):
        part = torch.from_numpy(values[position : position + parameter.numel()].copy())
        parameter.copy_(part.reshape(parameter.shape).to(parameter))
        position += parameter.numel()


def bounds_of(drift: nn.Module) -> np.ndarray:
    """Lower bounds of all parameters, in the order of :func:`get_parameters`."""
    lowest = _lower_bounds(drift)
    parts = [np.full(p.numel(), lowest.get(name, -np.inf)) for name, p in free_parameters(drift)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _lower_bounds(drift: nn.Module) -> dict[str, float]:
    """Bounds that the drift or a module in it states, by the full names of the parameters."""
    found: dict[str, float] = {}
    for prefix, module in drift.named_modules():
        for name, bound in getattr(module, "lower_bounds", {}).items():
            found.setdefault(f"{prefix}.{name}" if prefix else name, bound)
    return found


def fit_drift(
    drift: nn.Module,
    x: Tensor,
    t: Tensor,
    target: Tensor,
    weight: Tensor,
    noise: Tensor,
    network: NetworkFit = _DEFAULT,
) -> None:
    """Set the parameters of a drift to fit velocities, starting from where they are.

    Args:
        drift: The drift; changed in place.
        x: States, (N, C).
        t: Times, (N, 1).
        target: Velocities, (N, C).
        weight: Weights, (N,).
        noise: S = σσᵀ, (C, C).
        network: How a drift with many parameters is fitted.
    """
    count = sum(p.numel() for _, p in free_parameters(drift))
    if count == 0:
        return
    if isinstance(drift, _Solvable) and count == sum(p.numel() for p in drift.parameters()):
        drift.solve(x, t, target, weight)
    elif count <= FEW:
        _gauss_newton(drift, x, t, target, weight, noise)
    else:
        _adam(drift, x, t, target, weight, noise, network)


def _gauss_newton(
    drift: nn.Module, x: Tensor, t: Tensor, target: Tensor, weight: Tensor, noise: Tensor
) -> None:
    inverse, _ = whitener(noise)
    scale = (weight / weight.sum()).sqrt()[:, None]
    names, values = zip(*free_parameters(drift), strict=True)
    velocities = _of_parameters(drift, names, [p.shape for p in values], x, t)

    def residuals(flat: Tensor) -> Tensor:
        return (((velocities(flat) - target) @ inverse.mT) * scale).flatten()

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(x)

    lower, start = bounds_of(drift), get_parameters(drift)
    found = least_squares(
        lambda values: residuals(tensor(values)).detach().cpu().numpy(),
        np.maximum(start, lower + 1e-6),
        jac=lambda values: jacfwd(residuals)(tensor(values)).detach().cpu().numpy(),
        bounds=(lower, np.inf),
        x_scale=np.maximum(np.abs(start), 1.0),
        max_nfev=_GAUSS_NEWTON_STEPS,
    )
    set_parameters(drift, found.x)


def sensitivities(drift: nn.Module, x: Tensor, t: Tensor, weight: Tensor, noise: Tensor) -> np.ndarray:
    r"""How much each free parameter of a drift matters: root of its Fisher information for paths.

    .. math:: \Big( \sum_n w_n\, |\partial b_\theta(x_n, t_n) / \partial \theta_i|^2_{S^{-1}} \Big)^{1/2}

    Args:
        drift: The drift.
        x: States, (N, C).
        t: Times, (N, 1).
        weight: Times that are spent near them, (N,).
        noise: S = σσᵀ, (C, C).
    """
    inverse, _ = whitener(noise)
    names, values = zip(*free_parameters(drift), strict=True)
    velocities = _of_parameters(drift, names, [p.shape for p in values], x, t)
    slopes = jacfwd(velocities)(torch.cat([p.detach().reshape(-1) for p in values]))
    squares = torch.einsum("dc,ncp->ndp", inverse, slopes).square().sum(dim=1)
    return (weight @ squares).sqrt().cpu().numpy()


def _of_parameters(
    drift: nn.Module, names: Sequence[str], shapes: Sequence[torch.Size], x: Tensor, t: Tensor
) -> Callable[[Tensor], Tensor]:
    """Velocities (N, C) of a drift as a function of its parameters in one vector."""
    sizes = [shape.numel() for shape in shapes]

    def velocities(flat: Tensor) -> Tensor:
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        return functional_call(drift, dict(zip(names, parts, strict=True)), (x, t))

    return velocities


def _adam(
    drift: nn.Module,
    x: Tensor,
    t: Tensor,
    target: Tensor,
    weight: Tensor,
    noise: Tensor,
    network: NetworkFit,
) -> None:
    inverse, _ = whitener(noise)
    weight = (weight / weight.sum())[:, None]
    optimizer = torch.optim.AdamW(
        [p for _, p in free_parameters(drift)], lr=network.learning_rate, weight_decay=network.weight_decay
    )
    some = slice(None, None, -(-len(x) // _POINTS))
    share, is_penalised = weight[some, 0] / weight[some].sum(), has_ridge(drift)
    best, lowest = get_parameters(drift), math.inf
    with torch.enable_grad():
        for step in range(network.num_steps + 1):
            optimizer.zero_grad()
            loss = (((drift(x, t) - target) @ inverse.mT).square() * weight).sum()
            if is_penalised:
                loss = loss + 2 * penalty(drift, x[some], t[some], share, noise)
            if float(loss.detach()) < lowest:  # Adam has no line search, and ends above where it was at times
                best, lowest = get_parameters(drift), float(loss.detach())
            if step < network.num_steps:
                loss.backward()
                optimizer.step()
    set_parameters(drift, best)
