r"""Families of drifts :math:`b_\theta(x, t)`: what a user knows of the dynamics, up to their parameters.

A drift is any ``nn.Module`` with ``forward(x, t)`` that maps states (..., C) and a time, a number or a tensor
that broadcasts against ``x[..., :1]``, to velocities (..., C). Its parameters are what a fit changes. It may
also offer, and the ones here do where it is possible,

- ``lower_bounds``: the smallest value of each parameter that has one, by name;
- ``affine()``: the matrix (C, C) and the offset (C,) of a drift :math:`A x + c`;
- ``solve(x, t, target, weight)``: set the parameters to the weighted least-squares solution in closed form.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from seqdyn._arguments import check_amount, check_count
from seqdyn.sde.fields import GradientField, MLPDrift, Sum, Time

__all__ = [
    "GradientField",
    "Linear",
    "LotkaVolterra",
    "MLPDrift",
    "Repressilator",
    "Rotation",
    "Sum",
    "Vortex",
    "Zero",
]


def _parameter(value: float, name: str) -> nn.Parameter:
    return nn.Parameter(torch.tensor(float(value), dtype=torch.float64))


class Zero(nn.Module):
    """No drift: Brownian motion, the reference of the plain Schrödinger bridge."""

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return torch.zeros_like(x)

    def affine(self) -> tuple[Tensor, Tensor] | None:
        return None


class Linear(nn.Module):
    r"""Linear drift with an offset, the Ornstein-Uhlenbeck process in several dimensions.

    .. math:: b(x) = A x + c

    Args:
        num_features: Number of coordinates C.
        ridge: Penalty on the squared entries of A and c in a regression, relative to the mean square of the
            coordinates; 0 for none.

    Attributes:
        matrix: A, (C, C), zero at first, in the inverse of the unit of time.
        offset: c, (C,), zero at first.
    """

    def __init__(self, num_features: int, ridge: float = 0.0) -> None:
        super().__init__()
        size = check_count(num_features, "num_features")
        self.ridge = check_amount(ridge, "ridge")
        self.matrix = nn.Parameter(torch.zeros(size, size, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return x @ self.matrix.mT + self.offset

    def affine(self) -> tuple[Tensor, Tensor]:
        return self.matrix, self.offset

    @torch.no_grad()
    def solve(self, x: Tensor, t: Tensor, target: Tensor, weight: Tensor) -> None:
        """Least squares of targets (N, C) on states (N, C) with weights (N,).

        All coordinates have the same regressors, so that their noise, correlated or not, does not matter.
        """
        inputs = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        weighted = inputs * weight[:, None]
        gram = weighted.mT @ inputs
        gram.diagonal().add_(self.ridge * gram.diagonal().mean())
        found = torch.linalg.lstsq(gram, weighted.mT @ target, driver="gelsd").solution
        self.matrix.copy_(found[:-1].mT)
        self.offset.copy_(found[-1])


class LotkaVolterra(nn.Module):
    r"""Predators and their prey.

    .. math:: b(x, y) = (\alpha x - \beta x y,\; \delta x y - \gamma y)

    Args:
        alpha: Growth rate of the prey x.
        beta: Rate at which a predator eats prey.
        gamma: Death rate of the predators y.
        delta: Growth rate of the predators per prey.
    """

    lower_bounds: ClassVar[dict[str, float]] = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "delta": 0.0}

    def __init__(self, alpha: float = 0.0, beta: float = 0.0, gamma: float = 0.0, delta: float = 0.0) -> None:
        super().__init__()
        self.alpha = _parameter(alpha, "alpha")
        self.beta = _parameter(beta, "beta")
        self.gamma = _parameter(gamma, "gamma")
        self.delta = _parameter(delta, "delta")

    def forward(self, x: Tensor, t: Time) -> Tensor:
        prey, predators = x.unbind(-1)
        meetings = prey * predators
        return torch.stack(
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
    """

    lower_bounds: ClassVar[dict[str, float]] = {"beta": 0.0, "n": 0.0, "k": 1e-6, "gamma": 0.0}

    def __init__(self, beta: float = 0.0, n: float = 1.0, k: float = 1.0, gamma: float = 0.0) -> None:
        super().__init__()
        self.beta = _parameter(beta, "beta")
        self.n = _parameter(n, "n")
        self.k = _parameter(k, "k")
        self.gamma = _parameter(gamma, "gamma")

    def forward(self, x: Tensor, t: Time) -> Tensor:
        x = x.clamp(min=1e-8)  # the derivative of 0**n in n is not finite
        return self.beta / (1 + (x.roll(1, dims=-1) / self.k) ** self.n) - self.gamma * x


class Rotation(nn.Module):
    r"""Rotation about a centre, on ellipses.

    .. math:: b(x, y) = (r_x\, y + c_x,\; -r_y\, x + c_y)

    The centre is :math:`(c_y / r_y, -c_x / r_x)`. The published family
    :math:`(s e^{-l} (y - y_0), -s (x - x_0))` in other parameters, in which it is linear.

    Args:
        rate_x: r_x, in radians per unit of time for a circle.
        rate_y: r_y.
        offset_x: c_x.
        offset_y: c_y.
    """

    def __init__(
        self, rate_x: float = 0.0, rate_y: float = 0.0, offset_x: float = 0.0, offset_y: float = 0.0
    ) -> None:
        super().__init__()
        self.rate_x = _parameter(rate_x, "rate_x")
        self.rate_y = _parameter(rate_y, "rate_y")
        self.offset_x = _parameter(offset_x, "offset_x")
        self.offset_y = _parameter(offset_y, "offset_y")

    def forward(self, x: Tensor, t: Time) -> Tensor:
        first, second = x.unbind(-1)
        return torch.stack(
            [self.rate_x * second + self.offset_x, self.offset_y - self.rate_y * first], dim=-1
        )

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
    """

    lower_bounds: ClassVar[dict[str, float]] = {"core": 1e-6}

    def __init__(
        self, circulation: float = 0.0, centre_x: float = 0.0, centre_y: float = 0.0, core: float = 1.0
    ) -> None:
        super().__init__()
        self.circulation = _parameter(circulation, "circulation")
        self.centre_x = _parameter(centre_x, "centre_x")
        self.centre_y = _parameter(centre_y, "centre_y")
        self.core = _parameter(core, "core")

    def forward(self, x: Tensor, t: Time) -> Tensor:
        scaled = (x - torch.stack([self.centre_x, self.centre_y])) / self.core
        square = scaled.square().sum(dim=-1, keepdim=True)
        # (1 - exp(-r²)) / r times the tangent (-y, x) / r, which has a limit at the centre.
        safe = square.clamp(min=1e-12)
        speed = self.circulation * -torch.expm1(-safe) / safe
        return speed * torch.stack([-scaled[..., 1], scaled[..., 0]], dim=-1)
