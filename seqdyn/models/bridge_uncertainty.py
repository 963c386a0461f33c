"""How sure a bridge's parameters are: refits to resampled particles, and to simulated ones."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from seqdyn.sde.chain import Chain
from seqdyn.sde.intervals import Snapshots, make_intervals
from seqdyn.sde.process import Process
from seqdyn.sde.refit import descend
from seqdyn.sde.regression import get_parameters
from seqdyn.sde.solvers import PairSolver

__all__ = ["refitted", "resampled"]

_ROUNDS = 5
_EVALUATIONS = 20
_TOLERANCE = 1e-4  # nats


def resampled(snapshots: Snapshots) -> Snapshots:
    """Snapshots of as many particles each, drawn from them with replacement: the same particles, other
    weights.
    """
    weights = []
    for weight in snapshots.weight:
        drawn = torch.multinomial(weight, len(weight), replacement=True)
        weights.append(torch.bincount(drawn, minlength=len(weight)).to(weight) / len(weight))
    return snapshots._replace(weight=weights)


def refitted(process: Process, solver: PairSolver, snapshots: Snapshots, start: Tensor | None) -> np.ndarray:
    """Parameters of a process refitted to snapshots from where they are; the process is left alone.

    Args:
        process: The process.
        solver: How it is solved.
        snapshots: Snapshots.
        start: Potentials to start from.
    """
    process = copy.deepcopy(process)
    intervals, _ = make_intervals(snapshots)
    chain = Chain(process.reference(solver), intervals, start=start)
    for _ in range(_ROUNDS):
        before = float(chain.value.sum())
        chain = descend(process, solver, chain, _EVALUATIONS)
        if before - float(chain.value.sum()) < _TOLERANCE:
            break
    return get_parameters(process)
