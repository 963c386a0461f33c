"""Snapshots as intervals, and drifts that know nothing of what the package offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqdyn.sde.chain import Chain, Reference
from seqdyn.sde.intervals import Intervals, Snapshots, make_intervals
from seqdyn.sde.noise import noise_covariance
from seqdyn.sde.solvers import Linearized, PairSolver


class UserDrift(nn.Module):
    """A x + c as a user would write it: a network among others, with no closed form of its own."""

    def __init__(self, matrix: Any, offset: Any) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.as_tensor(matrix, dtype=torch.float64))
        self.c = nn.Parameter(torch.as_tensor(offset, dtype=torch.float64))

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return x @ self.a.mT + self.c


def intervals_of(
    clouds: Sequence[Tensor], times: Sequence[float], weights: Sequence[Tensor] | None = None
) -> Intervals:
    """Snapshots of one condition."""
    if weights is None:
        weights = [torch.full((len(x),), 1 / len(x), dtype=torch.float64) for x in clouds]
    snapshots = Snapshots(
        list(clouds),
        list(weights),
        [torch.zeros(len(x), dtype=torch.float64) for x in clouds],
        torch.tensor(times, dtype=torch.float64),
        torch.zeros(len(clouds), dtype=torch.int64),
    )
    return make_intervals(snapshots)[0]


def chain_of(
    drift: nn.Module,
    volatility: Any,
    clouds: Sequence[Tensor],
    times: Sequence[float],
    solver: PairSolver | None = None,
    **options: Any,
) -> Chain:
    """Bridge through clouds (N, C)."""
    noise = noise_covariance(volatility, clouds[0].shape[1])
    solver = Linearized(50) if solver is None else solver
    return Chain(Reference(drift, noise, solver), intervals_of(clouds, times), **options)


@pytest.fixture
def make_intervals_of() -> Callable[..., Intervals]:
    return intervals_of


@pytest.fixture
def make_chain() -> Callable[..., Chain]:
    return chain_of


@pytest.fixture
def user_drift() -> type[UserDrift]:
    return UserDrift
