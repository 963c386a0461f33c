r"""Families of drifts :math:`b_\theta(x, t)`: what a user knows of the dynamics, up to their parameters.

A drift is any ``nn.Module`` with ``forward(x, t)`` that maps states (..., C) and a time, a number or a tensor
that broadcasts against ``x[..., :1]``, to velocities (..., C) in the precision of the states. Its parameters,
float64 here, are what a fit changes. It may also offer, and the ones here do where it is possible,

- ``lower_bounds``: the smallest value of each parameter that has one, by name;
- ``ridge``: the strength of a penalty on its slopes, see :mod:`seqdyn.sde.roughness`;
- ``affine()``: the matrix (C, C) and the offset (C,) of a drift :math:`A x + c`;
- ``solve(x, t, target, weight)``: set the parameters to the weighted least-squares solution in closed form.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor, nn

from seqdyn.sde.affine import Linear, OrnsteinUhlenbeck, QuadraticPotential
from seqdyn.sde.fields import GradientField, MLPDrift, Sum, Time

__all__ = [
    "GradientField",
    "Linear",
    "LotkaVolterra",
    "MLPDrift",
    "OrnsteinUhlenbeck",
    "QuadraticPotential",
    "Repressilator",
    "Rotation",
    "Sum",
    "Vortex",
    "Zero",
]

_POSITIVE = 1e-6  # lower bound of lengths and concentrations, which may not be 0


class Zero(nn.Module):
    """No drift: Brownian motion, the reference of the plain Schrödinger bridge."""

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return torch.zeros_like(x)


class LotkaVolterra(nn.Module):
    r"""Predators and their prey.

    .. math:: b(x, y) = (\alpha x - \beta x y,\; \delta x y - \gamma y)

    Args:
        alpha: Growth rate of the prey x.
        beta: Rate at which a predator eats prey.
        gamma: Death rate of the predators y.
        delta: Growth rate of the predators per prey.

    Raises:
        ValueError: If a parameter is no finite number or below its bound, 0.
    """

    lower_bounds: ClassVar[dict[str, float]] = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "delta": 0.0}

    def __init__(self, alpha: float = 0.0, beta: float = 0.0, gamma: float = 0.0, delta: float = 0.0) -> None:
        super().__init__()
        self.alpha = _parameter(self, "alpha", alpha)
        self.beta = _parameter(self, "beta", beta)
        self.gamma = _parameter(self, "gamma", gamma)
        self.delta = _parameter(self, "delta", delta)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        prey, predators = _split(x, 2, self)
        meetings = prey * predators
        return torch.cat(
            [self.alpha * prey - self.beta * meetings, self.delta * meetings - self.gamma * predators], dim=-1
        )


class Repressilator(nn.Module):
    r"""Three genes, each of which represses the next.

    .. math:: b_i(x) = \frac{\beta}{1 + (x_{i-1} / k)^n} - \gamma x_i, \qquad x_0 = x_3

    Concentrations below 0, which only noise can make, count as 0.

    Args:
        beta: Largest rate of production.
        n: Hill exponent.
        k: Concentration at which production is halved.
        gamma: Rate of decay.

    Raises:
        ValueError: If a parameter is no finite number or below its bound: 0, for k a millionth.
    """

    lower_bounds: ClassVar[dict[str, float]] = {"beta": 0.0, "n": 0.0, "k": _POSITIVE, "gamma": 0.0}

    def __init__(self, beta: float = 0.0, n: float = 1.0, k: float = 1.0, gamma: float = 0.0) -> None:
        super().__init__()
        self.beta = _parameter(self, "beta", beta)
        self.n = _parameter(self, "n", n)
        self.k = _parameter(self, "k", k)
        self.gamma = _parameter(self, "gamma", gamma)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        _split(x, 3, self)
        x = x.clamp(min=1e-8)  # the logarithm of 0 is not finite
        # Hill's formula as a sigmoid of n (log k - log x): no power overflows, nor does its derivative.
        hill = torch.sigmoid(self.n * (self.k.log() - x.roll(1, dims=-1).log()))
        return self.beta * hill - self.gamma * x


class Rotation(nn.Module):
    r"""Rotation about a centre, on ellipses, clockwise for positive rates.

    .. math:: b(x, y) = (r_x\, y + c_x,\; -r_y\, x + c_y)

    The centre is :math:`(c_y / r_y, -c_x / r_x)`. The published family
    :math:`(s e^{-l} (y - y_0), -s (x - x_0))` in other parameters, in which it is linear.

    Args:
        rate_x: r_x, in radians per unit of time for a circle.
        rate_y: r_y.
        offset_x: c_x.
        offset_y: c_y.

    Raises:
        ValueError: If a parameter is no finite number.
    """

    def __init__(
        self, rate_x: float = 0.0, rate_y: float = 0.0, offset_x: float = 0.0, offset_y: float = 0.0
    ) -> None:
        super().__init__()
        self.rate_x = _parameter(self, "rate_x", rate_x)
        self.rate_y = _parameter(self, "rate_y", rate_y)
        self.offset_x = _parameter(self, "offset_x", offset_x)
        self.offset_y = _parameter(self, "offset_y", offset_y)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        first, second = _split(x, 2, self)
        return torch.cat([self.rate_x * second + self.offset_x, self.offset_y - self.rate_y * first], dim=-1)

    def affine(self) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(self.rate_x)
        matrix = torch.stack([torch.stack([zero, self.rate_x]), torch.stack([-self.rate_y, zero])])
        return matrix, torch.stack([self.offset_x, self.offset_y])


class Vortex(nn.Module):
    r"""Lamb-Oseen vortex: rigid rotation in the core, slower and slower outside.

    .. math:: b(x) = \Gamma\, \frac{1 - e^{-r^2}}{r}\, \hat e_\perp, \qquad r = |x - c| / \ell

    with the unit tangent :math:`\hat e_\perp`, counter-clockwise.

    Args:
        circulation: Γ, negative for a clockwise vortex.
        centre_x: First coordinate of c.
        centre_y: Second coordinate of c.
        core: Radius ℓ of the core.

    Raises:
        ValueError: If a parameter is no finite number, or the core below its bound, a millionth.
    """

    lower_bounds: ClassVar[dict[str, float]] = {"core": _POSITIVE}

    def __init__(
        self, circulation: float = 0.0, centre_x: float = 0.0, centre_y: float = 0.0, core: float = 1.0
    ) -> None:
        super().__init__()
        self.circulation = _parameter(self, "circulation", circulation)
        self.centre_x = _parameter(self, "centre_x", centre_x)
        self.centre_y = _parameter(self, "centre_y", centre_y)
        self.core = _parameter(self, "core", core)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        first, second = _split(x, 2, self)
        first, second = (first - self.centre_x) / self.core, (second - self.centre_y) / self.core
        # (1 - exp(-r²)) / r times the tangent (-y, x) / r, which has a limit at the centre.
        square = (first.square() + second.square()).clamp(min=1e-12)
        speed = self.circulation * -torch.expm1(-square) / square
        return torch.cat([-speed * second, speed * first], dim=-1)


def _parameter(drift: nn.Module, name: str, value: float) -> nn.Parameter:
    """A number as a parameter, checked against the drift's lower bound."""
    bound = getattr(drift, "lower_bounds", {}).get(name, -math.inf)
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")
    if value < bound:
        raise ValueError(f"{name} must be at least {bound:g}, got {value!r}.")
    return nn.Parameter(torch.tensor(float(value), dtype=torch.float64))


def _split(x: Tensor, count: int, drift: nn.Module) -> tuple[Tensor, ...]:
    """The coordinates (..., 1) of states (..., C): with a dim, numbers do not raise their precision."""
    if x.shape[-1] != count:
        raise ValueError(
            f"{type(drift).__name__} is a drift of {count} coordinates, but the states have {x.shape[-1]}; "
            "select them with data.sel(feature=[...]), or take another drift."
        )
    return x.split(1, dim=-1)
