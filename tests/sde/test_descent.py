"""Quasi-Newton steps where some parameters have no divergence: their paths explode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqdyn.errors import NonFiniteError
from seqdyn.sde.chain import Chain
from seqdyn.sde.intervals import Intervals, Snapshots, make_intervals
from seqdyn.sde.process import Process
from seqdyn.sde.refit import descend
from seqdyn.sde.solvers import Linearized


class Cubic(nn.Module):
    """Paths from 1 are at infinity at time 1 from a rate of one half on."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, t: float | Tensor) -> Tensor:
        return self.rate * x**3


def exploding() -> tuple[Process, Intervals]:
    process = Process(Cubic(), 1, log=False, learn_volatility=False)
    process.volatility.fill_(0.5)
    x = [torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64)]
    ones = [torch.ones(1, dtype=torch.float64)] * 2
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    snapshots = Snapshots(x, ones, [torch.zeros(1, dtype=torch.float64)] * 2, times, torch.zeros(2).long())
    return process, make_intervals(snapshots)[0]


def test_a_chain_of_exploding_paths_is_refused() -> None:
    process, intervals = exploding()
    with torch.no_grad():
        process.drift.rate.fill_(1.0)

    with pytest.raises(NonFiniteError, match="no transition density from time 0 to 1"):
        Chain(process.reference(Linearized(30)), intervals)


def test_steps_into_exploding_paths_are_taken_back() -> None:
    process, intervals = exploding()
    chain = Chain(process.reference(Linearized(30)), intervals)
    refused: list[float] = []

    class Watched(Linearized):
        def transitions(self, drift, noise, intervals):  # type: ignore[no-untyped-def]
            found = super().transitions(drift, noise, intervals)
            if not torch.isfinite(found.covariance).all():
                refused.append(drift.rate.item())
            return found

    found = descend(process, Watched(30), chain, 40)

    # From 1 to 3 in a unit of time: 1 - 1/9 = 2 rate, and less of it where noise helps.
    assert refused, "no step went too far: the test shows nothing"
    assert float(found.value.sum()) < float(chain.value.sum())
    assert 0.3 < process.drift.rate.item() < 4 / 9
