r"""How sure a bridge's parameters are: refits to resampled particles, and to simulated ones.

The divergence along σ is least at too large a value for finite clouds: between two samples there is a
distance even where their laws agree, and more noise explains it. Simulating the fitted process at the same
sizes and estimating again shows by how much,

.. math:: \log \hat\sigma_{corrected} = \log \hat\sigma - \mathrm{median}_m (\log \tilde\sigma_m - \log
\hat\sigma) .
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from seqdyn.errors import ConvergenceWarning, NonFiniteError
from seqdyn.sde.chain import Chain
from seqdyn.sde.integrate import simulate
from seqdyn.sde.intervals import Snapshots, make_intervals
from seqdyn.sde.process import Process
from seqdyn.sde.refit import can_descend, descend, frozen
from seqdyn.sde.regression import FEW, get_parameters
from seqdyn.sde.sampling import systematic
from seqdyn.sde.solvers import PairSolver

__all__ = ["Correction", "bootstrap", "corrected", "refitted", "resampled", "simulated", "volatility_ratios"]

_ROUNDS = 8
_EVALUATIONS = 20
_TOLERANCE = 1e-4  # nats


def bootstrap(
    process: Process,
    solver: PairSolver,
    snapshots: Snapshots,
    start: Tensor,
    num_replicates: int,
    level: float,
    progress: bool,
) -> xr.Dataset:
    """Draws of the parameters from the ambient random stream; see ``SchrodingerBridge.bootstrap``."""
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}; 0.9 is usual.")
    if not can_descend(process, solver):
        raise ValueError(
            f"the reference has {len(get_parameters(process))} parameters, more than {FEW}, which snapshots "
            "do not tell one by one; bootstrap a parametric family, or what you predict: fit to resampled "
            "snapshots and compare their marginals."
        )
    estimate = process.named_values()
    values, rested = np.full((num_replicates, len(estimate)), np.nan), np.zeros(num_replicates, dtype=bool)
    is_found = np.zeros(num_replicates, dtype=bool)
    for number in _bar(range(num_replicates), "replicates", progress):
        particles = resampled(snapshots)
        with contextlib.suppress(NonFiniteError):
            found, rested[number] = refitted(process, solver, particles, start)
            values[number], is_found[number] = list(found.named_values().values()), True
    _tell_of_failures(is_found, rested)
    if hasattr(process, "log_factor"):  # the last one; resampled clouds are rougher, and so is their noise
        values[:, -1] *= estimate["volatility"] / np.median(values[is_found, -1])
    lower, upper = np.quantile(values[is_found], [(1 - level) / 2, (1 + level) / 2], axis=0)
    wide = np.array(list(estimate), dtype=object)[upper - lower > np.abs(list(estimate.values())) / 2]
    if len(wide):
        warnings.warn(
            f"{', '.join(wide[:6])} spread over more than half of their values: these snapshots hardly tell "
            "them; more snapshots, or a family with fewer parameters, would.",
            UserWarning,
            stacklevel=3,
        )
    return xr.Dataset(
        {
            "parameter_draw": (("replicate", "parameter"), values),
            "estimate": ("parameter", np.array(list(estimate.values()), dtype=float)),
            "lower": ("parameter", lower),
            "upper": ("parameter", upper),
            "converged": ("replicate", rested),
        },
        {"parameter": np.array(list(estimate), dtype=object)},
    )


def _tell_of_failures(is_found: np.ndarray, rested: np.ndarray) -> None:
    """Warn of replicates that were not found, or did not come to rest.

    Raises:
        NonFiniteError: If there is none but such without a bridge.
    """
    count, lost, restless = len(is_found), int((~is_found).sum()), int((is_found & ~rested).sum())
    if lost == count:
        raise NonFiniteError(
            f"none of {count} resampled data sets has a bridge in finite numbers; raise the volatility, or "
            "take a family with fewer parameters."
        )
    if lost or restless:
        warnings.warn(
            f"of {count} replicates {restless} did not come to rest and {lost} have no bridge (NaN, left out "
            "of the intervals); see converged. A family with fewer parameters, or with ridge=, is steadier.",
            ConvergenceWarning,
            stacklevel=4,
        )


def resampled(snapshots: Snapshots) -> Snapshots:
    """Snapshots of as many particles each, drawn with replacement: the same particles, other weights."""
    weights = []
    for weight in snapshots.weight:
        drawn = torch.multinomial(weight, len(weight), replacement=True)
        weights.append(torch.bincount(drawn, minlength=len(weight)).to(weight) / len(weight))
    return snapshots._replace(weight=weights)


def simulated(process: Process, solver: PairSolver, snapshots: Snapshots, num_steps: int) -> Snapshots:
    """Snapshots at the same times, drawn from a process that starts in the first of each condition.

    Each has as many particles as the weights of the data's are worth. It is simulated from starts of its own,
    so that no particle is seen twice; the first is kept. Nothing multiplies: the process itself does not.
    """
    reference = process.reference(solver)
    clouds, weights, first = [], [], 0
    for number, x in enumerate(snapshots.x):
        if number == 0 or snapshots.condition[number] != snapshots.condition[number - 1]:
            first = number
            clouds.append(x)
            weights.append(snapshots.weight[number])
            continue
        size = _effective_size(x, snapshots.weight[number])
        chosen = snapshots.x[first][systematic(snapshots.weight[first], size)]
        times = [float(snapshots.time[first]), float(snapshots.time[number])]
        step = float(snapshots.time[first + 1] - snapshots.time[first]) / num_steps
        weights.append(x.new_full((size,), 1 / size))
        clouds.append(
            simulate(reference.drift, process.scale().detach(), chosen, times, step_size=step)[:, -1]
        )
    still = [torch.zeros_like(weight) for weight in weights]
    return snapshots._replace(x=clouds, weight=weights, growth=still)


def _effective_size(x: Tensor, weight: Tensor) -> int:
    r"""How many particles of equal weight are worth a cloud: :math:`1 / \sum_i w_i^2`, equal ones joined."""
    _, group = torch.unique(x, dim=0, return_inverse=True)
    mass = torch.zeros_like(weight).index_add(0, group, weight)
    return max(1, round(float(1 / mass.square().sum())))


def refitted(
    process: Process, solver: PairSolver, snapshots: Snapshots, start: Tensor | None
) -> tuple[Process, bool]:
    """A copy of a process, refitted to snapshots from where it is, and whether it came to rest.

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
            return process, True
    return process, False


class Correction(NamedTuple):
    """A volatility whose bias was taken out.

    Attributes:
        chain: The chain of the refitted process.
        ratio: Volatilities estimated from simulations, relative to the truth there, (M,).
        rested: Whether their refits came to rest, (M,).
    """

    chain: Chain
    ratio: np.ndarray
    rested: np.ndarray


def corrected(
    process: Process,
    solver: PairSolver,
    snapshots: Snapshots,
    start: Tensor,
    num_simulations: int,
    num_steps: int,
    progress: bool,
) -> Correction:
    """Divide the volatility of a process by its bias, and refit the drift; the process is changed."""
    ratio, rested = volatility_ratios(process, solver, snapshots, num_simulations, num_steps, progress)
    process.log_factor.sub_(float(np.median(np.log(ratio))))
    chain = Chain(process.reference(solver), make_intervals(snapshots)[0], start=start)
    with frozen([process.log_factor]):
        chain = descend(process, solver, chain, _EVALUATIONS)
    return Correction(chain, ratio, rested)


def volatility_ratios(
    process: Process,
    solver: PairSolver,
    snapshots: Snapshots,
    num_simulations: int,
    num_steps: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Volatilities estimated from simulations of a process relative to its own, and which came to rest."""
    logs, rested = [], []
    truth = float(process.log_factor.detach())
    for _ in _bar(range(num_simulations), "simulations", progress):
        found, rest = refitted(process, solver, simulated(process, solver, snapshots, num_steps), None)
        logs.append(float(found.log_factor.detach()) - truth)
        rested.append(rest)
    return np.exp(logs), np.array(rested)


def _bar(items: Iterable[int], name: str, progress: bool) -> Iterable[int]:
    return tqdm(items, desc=name, leave=False, disable=None if progress else True)
