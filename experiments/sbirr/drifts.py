"""Families of the experiments' own: what a user would type who knows that her flow has no sources."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["EllipticVortex", "StreamFunction"]


class EllipticVortex(nn.Module):
    r"""Lamb-Oseen vortex on ellipses: :class:`seqdyn.sde.drifts.Vortex` in sheared coordinates.

    .. math:: b(x) = M^{-1} v(M (x - c) / \ell), \qquad
        M = \begin{pmatrix} e^s & 0 \\ k & e^{-s} \end{pmatrix}, \quad
        v(z) = \Gamma\, \frac{1 - e^{-|z|^2}}{|z|^2}\, (-z_2, z_1)

    M keeps areas, so that there are no sources; up to a rotation, which v does not feel, it is any such map.

    Args:
        core: Radius ℓ of the core, before it is stretched.
    """

    lower_bounds: ClassVar[dict[str, float]] = {"core": 1e-6}

    def __init__(self, core: float = 1.0) -> None:
        super().__init__()
        self.circulation, self.stretch, self.shear = (_number(0.0) for _ in range(3))
        self.centre = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.core = _number(core)

    def forward(self, x: Tensor, t: float | Tensor) -> Tensor:
        first, second = ((x - self.centre.to(x.dtype)) / self.core).split(1, dim=-1)
        longer = self.stretch.exp()
        first, second = longer * first, self.shear * first + second / longer
        square = (first.square() + second.square()).clamp(min=1e-12)
        speed = self.circulation * -torch.expm1(-square) / square
        across, along = -speed * second, speed * first
        return torch.cat([across / longer, longer * along - self.shear * across], dim=-1)


def _number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


class StreamFunction(nn.Module):
    r"""Flow in the plane without sources, as currents at the surface of the sea nearly are.

    .. math:: b(x, y) = (\partial_y \psi,\; -\partial_x \psi), \qquad
        \psi(x, y) = \sum_{1 \le i + j \le p} c_{ij}\, x^i y^j

    Degree 2 is a linear flow that keeps areas, and contains :class:`seqdyn.sde.drifts.Rotation`.

    Args:
        degree: p.
    """

    places: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        powers = torch.arange(degree + 1)
        total = powers[:, None] + powers
        self.register_buffer("places", ((total > 0) & (total <= degree)).nonzero().mT)
        self.coefficient = nn.Parameter(torch.zeros(self.places.shape[1], dtype=torch.float64))

    def forward(self, x: Tensor, t: float | Tensor) -> Tensor:
        c = x.new_zeros(self.degree + 1, self.degree + 1)
        c = c.index_put(tuple(self.places), self.coefficient.to(x.dtype))
        powers = [torch.ones_like(x), x]
        while len(powers) <= self.degree:
            powers.append(powers[-1] * x)
        slopes = [torch.zeros_like(x)] + [n * power for n, power in enumerate(powers[:-1], start=1)]
        (of_x, of_y), (slope_x, slope_y) = (torch.stack(part, dim=-1).unbind(-2) for part in (powers, slopes))
        return torch.stack([(of_x @ c * slope_y).sum(-1), -(slope_x @ c * of_y).sum(-1)], dim=-1)
