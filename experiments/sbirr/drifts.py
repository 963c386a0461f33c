"""A family of the experiments' own: what a user would type who knows that her flow has no sources."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StreamFunction"]


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
