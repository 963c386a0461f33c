r"""Processes that run from one end of each interval to the other, and their reversal.

A half-bridge is the reference, in its own direction of time, with a correction that was learned for each time
step. Both directions are treated alike: a backward process is a process forward in its own clock, whose
reference drift is :math:`-b(x, T - s)`. What the reversal of time adds to it, :math:`S \nabla \log p`, is
part of the correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqdyn.sde.chain import Reference
from seqdyn.sde.gaussian_process import GaussianProcess, fit_process
from seqdyn.sde.integrate import heun
from seqdyn.sde.solvers import AffineDrift

__all__ = ["HalfBridge", "reversal"]

_ROUNDING = 1e-4  # of a step


class HalfBridge(NamedTuple):
    """A process through K intervals, from one end of each to the other.

    Attributes:
        reference: The reference process, in the forward direction.
        start: Times at which the intervals begin, (K,).
        duration: (K,).
        backward: Whether it runs from the later end to the earlier one.
        learned: The correction in each of m equal time steps, in the order in which they are taken; none for
            the reference alone.
    """

    reference: Reference
    start: Tensor
    duration: Tensor
    backward: bool
    learned: Sequence[GaussianProcess] = ()

    @property
    def drift(self) -> nn.Module:
        """The reference's drift in this process's own direction."""
        return _reversed(self.reference.drift, self) if self.backward else self.reference.drift

    def only(self, index: int) -> HalfBridge:
        """The process in one interval."""
        learned = [part.only(index) for part in self.learned]
        chosen = slice(index, index + 1)
        return self._replace(start=self.start[chosen], duration=self.duration[chosen], learned=learned)

    def correction(self, x: Tensor, fraction: float) -> Tensor:
        """What was learned to add to the reference's drift, at states (K, N, C) and a fraction of the way."""
        if not self.learned:
            return torch.zeros_like(x)
        # A step that begins on the grid but for rounding belongs to the step of the grid that begins there.
        place = int(fraction * len(self.learned) + _ROUNDING)
        return self.learned[min(place, len(self.learned) - 1)].at(x)

    @torch.no_grad()
    def run(self, x: Tensor, grid: Tensor) -> Tensor:
        """Simulate from states (K, N, C) at the first fraction of a grid; states (m + 1, K, N, C) on it.

        The drift acts between two halves of each step's noise, which makes the covariance right to the second
        order, as Heun's method makes the mean.
        """
        scale, drift = torch.linalg.cholesky(self.reference.noise), self.drift
        start, duration = self.start[:, None, None], self.duration[:, None, None]
        states = [x]
        for fraction, after in pairwise(grid.tolist()):
            step = duration * (after - fraction)
            half = (step / 2).sqrt()
            x = x + half * torch.randn_like(x) @ scale.mT
            x = heun(drift, x, start + duration * fraction, step) + step * self.correction(x, fraction)
            x = x + half * torch.randn_like(x) @ scale.mT
            states.append(x)
        return torch.stack(states)

    @torch.no_grad()
    def effort(self, paths: Tensor) -> Tensor:
        r"""Relative entropy (K,) to the reference, :math:`E \int |\sigma^{-1} g|^2 dt / 2`, g the correction.

        Args:
            paths: Its paths on the grid of its steps, (m + 1, K, N, C).
        """
        scale, num_steps = torch.linalg.cholesky(self.reference.noise), len(paths) - 1
        total = torch.zeros_like(self.duration)
        for place, x in enumerate(paths[:-1]):
            push = torch.linalg.solve_triangular(scale, self.correction(x, place / num_steps).mT, upper=False)
            total = total + push.square().sum(dim=1).mean(dim=1)
        return total * self.duration / num_steps / 2


@torch.no_grad()
def reversal(paths: Tensor, half: HalfBridge, num_centres: int, *, refill: bool) -> HalfBridge:
    r"""The process in the other direction of time that has the law of given paths.

    By regression on the reversed paths of the increments beyond the reference, one for each step. With
    ``refill`` everything but the ends of the paths is first drawn anew, from the reference pinned at both
    ends. That changes nothing in law, for the half-bridges of iterative proportional fitting have the pinned
    paths of the reference; but it undoes what earlier regressions got wrong, and it offers the mean of each
    increment given the end, which has the variance :math:`S / (T - s)` instead of :math:`S / h`.

    Args:
        paths: Simulated paths in the process's own direction, (m + 1, K, N, C).
        half: The process that they were drawn from.
        num_centres: Centres of the regression.
        refill: Whether to draw the paths anew between their ends.
    """
    other = half._replace(backward=not half.backward, learned=())
    states, num_steps = paths.flip(0), len(paths) - 1
    grid = torch.linspace(0, 1, num_steps + 1, dtype=paths.dtype, device=paths.device)
    step = other.duration / num_steps
    long = step[:, None, None]
    if refill:
        ends = states[0], states[-1]
        found = half.reference.solver.pinned(
            other.drift, half.reference.noise, *ends, other.start, other.duration, grid
        )
        states = found.states
    times = other.start[:, None, None] + other.duration[:, None, None] * grid[:-1, None, None, None]
    increments = (states[1:] - heun(other.drift, states[:-1], times, long)) / long
    velocities = found.pull / long if refill else increments
    learned = []
    for index in range(num_steps):
        left = num_steps - index if refill else 1  # steps to the point that makes the velocity uncertain
        parts = states[index], velocities[index], increments[index]
        learned.append(fit_process(*parts, half.reference.noise, 1 / (left * step), step, num_centres))
    return other._replace(learned=learned)


def _reversed(drift: nn.Module, half: HalfBridge) -> nn.Module:
    mirror = 2 * half.start + half.duration
    return _ReversedAffine(drift, mirror) if isinstance(drift, AffineDrift) else _Reversed(drift, mirror)


class _Reversed(nn.Module):
    """A drift with time running backward, in intervals whose two ends have given sums of times (K,)."""

    def __init__(self, drift: nn.Module, mirror: Tensor) -> None:
        super().__init__()
        self.drift, self.mirror = drift, mirror[:, None, None]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.drift(x, self.mirror - t)


class _ReversedAffine(_Reversed):
    def affine(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.drift, AffineDrift)
        matrix, offset = self.drift.affine()
        return -matrix, -offset
