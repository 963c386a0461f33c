"""How a pair of snapshots is coupled and joined: linearised for any drift, exactly for an affine one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqdyn.sde.intervals import Intervals
from seqdyn.sde.pinned import PinnedPaths, affine_pinned_paths, pinned_paths
from seqdyn.sde.transition import Transition, affine_transition, linearized

__all__ = ["Affine", "AffineDrift", "Linearized", "PairSolver"]


class PairSolver(Protocol):
    """Transition densities and pinned paths of a drift with noise of covariance S per unit of time.

    Attributes:
        num_steps: Steps in which a state is followed through an interval; 0 if it is not, but moved at once.
    """

    num_steps: int

    def transitions(self, drift: nn.Module, noise: Tensor, intervals: Intervals) -> Transition:
        """Transitions of all sources over their intervals, differentiable in the drift's parameters."""
        ...

    def remaining(
        self, drift: nn.Module, noise: Tensor, x: Tensor, start: float, duration: float
    ) -> Transition:
        """Transitions from states (N, C) at one time."""
        ...

    def pinned(
        self,
        drift: nn.Module,
        noise: Tensor,
        a: Tensor,
        b: Tensor,
        start: Tensor,
        duration: Tensor,
        grid: Tensor,
    ) -> PinnedPaths:
        """Draw paths from a to b (K, N, C) on a grid of fractions, which holds 0 and 1, of durations (K,)."""
        ...

    def refined(self, grid: Tensor) -> Tensor:
        """The grid that the solver needs to give paths at the fractions of another grid."""
        ...


class Linearized:
    """Linear noise approximation and guided proposals, for any drift.

    Args:
        num_steps: Steps in each interval.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def transitions(self, drift: nn.Module, noise: Tensor, intervals: Intervals) -> Transition:
        like = intervals.source[..., :1]
        start, duration = (
            part[:, None, None].expand_as(like) for part in (intervals.start, intervals.duration)
        )
        return linearized(drift, noise, intervals.source, start, duration, self.num_steps)

    def remaining(
        self, drift: nn.Module, noise: Tensor, x: Tensor, start: float, duration: float
    ) -> Transition:
        like = torch.ones_like(x[..., :1])
        return linearized(drift, noise, x, start * like, duration * like, self.num_steps)

    def pinned(
        self,
        drift: nn.Module,
        noise: Tensor,
        a: Tensor,
        b: Tensor,
        start: Tensor,
        duration: Tensor,
        grid: Tensor,
    ) -> PinnedPaths:
        starts, durations = (part[:, None, None].expand_as(a[..., :1]) for part in (start, duration))
        return pinned_paths(drift, noise, a, b, starts, durations, grid)

    def refined(self, grid: Tensor) -> Tensor:
        regular = torch.linspace(0, 1, self.num_steps + 1, dtype=grid.dtype, device=grid.device)
        return torch.cat([grid, regular]).unique()


class Affine:
    """Exact transitions and pinned paths of a drift that offers ``affine()``."""

    num_steps = 0

    def transitions(self, drift: nn.Module, noise: Tensor, intervals: Intervals) -> Transition:
        matrix, offset = affine_of(drift, noise)
        return affine_transition(matrix, offset, noise, intervals.duration).of(intervals.source)

    def remaining(
        self, drift: nn.Module, noise: Tensor, x: Tensor, start: float, duration: float
    ) -> Transition:
        matrix, offset = affine_of(drift, noise)
        return affine_transition(matrix, offset, noise, noise.new_tensor(duration)).of(x)

    def pinned(
        self,
        drift: nn.Module,
        noise: Tensor,
        a: Tensor,
        b: Tensor,
        start: Tensor,
        duration: Tensor,
        grid: Tensor,
    ) -> PinnedPaths:
        matrix, offset = affine_of(drift, noise)
        return affine_pinned_paths(matrix, offset, noise, a, b, duration, grid)

    def refined(self, grid: Tensor) -> Tensor:
        return grid


@runtime_checkable
class AffineDrift(Protocol):
    """A drift A x + c that says so."""

    def affine(self) -> tuple[Tensor, Tensor]:
        """The matrix (C, C) and the offset (C,)."""
        ...


def affine_of(drift: nn.Module, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (C, C) and offset (C,) of an affine drift; zeros for :class:`Zero`, which knows no C."""
    if isinstance(drift, AffineDrift):
        return drift.affine()
    return torch.zeros_like(noise), torch.zeros_like(noise[0])
