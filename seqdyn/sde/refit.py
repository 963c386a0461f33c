r"""Refit of a reference to the bridge that it is the reference of: the other half of the alternation.

Two steps, neither of which may raise the objective: L, and the penalty of drifts that have one
(:mod:`seqdyn.sde.roughness`). First a regression on paths of the bridge, which are the missing data of an EM
algorithm: robust far from the solution, slow near it. Then a few quasi-Newton steps on the objective itself,
with the bridge solved anew at each: fast near the solution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from seqdyn.errors import NonFiniteError
from seqdyn.sde.chain import Chain, Reference, gradient, is_solved
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.methods import AnyChain
from seqdyn.sde.process import Process
from seqdyn.sde.regression import (
    FEW,
    BridgePaths,
    NetworkFit,
    bounds_of,
    fit_drift,
    free_parameters,
    get_parameters,
    sensitivities,
    set_parameters,
)
from seqdyn.sde.roughness import has_ridge, on_snapshots
from seqdyn.sde.solvers import Affine, PairSolver

__all__ = ["BridgePaths", "Refinement", "can_descend", "descend", "frozen", "refine", "regress"]

_HALVINGS = 4
_EVALUATIONS = 20  # of L, in the quasi-Newton steps of one refinement
_MANY_EVALUATIONS = 50  # for a network, which needs more of them in a row
_FACTOR_SCALE = 0.3  # of the logarithm of the volatility, for the quasi-Newton steps
_POINTS = 200  # states at which the scales of other parameters are found


class Refinement(NamedTuple):
    """How a reference is refined.

    Attributes:
        num_paths: Paths of the bridge drawn in each interval for a regression.
        num_steps: Their time steps.
        network_steps: Steps of Adam, for a drift with many parameters.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
    """

    num_paths: int
    num_steps: int
    network_steps: int
    learning_rate: float
    weight_decay: float


def can_descend(process: Process, solver: PairSolver) -> bool:
    """Whether quasi-Newton steps lead all the way to a minimum: few parameters, or an exact transition."""
    return len(get_parameters(process)) <= FEW or isinstance(solver, Affine)


def refine(
    process: Process, solver: PairSolver, chain: AnyChain, settings: Refinement, *, regression: bool
) -> tuple[AnyChain, float]:
    """Change the parameters of a process so that the bridge is nearer to it; the objective never rises.

    For a chain of half-bridges, which has no gradient, by the regression alone.

    Args:
        process: The process; changed in place.
        solver: How it is solved.
        chain: Its chain.
        settings: How it is refined.
        regression: Whether to begin with a regression on paths.

    Returns:
        The chain of the changed process, and by how much the regression lowered the objective in nats.
    """
    gain = 0.0
    if len(get_parameters(process)) == 0:
        return chain, gain
    if regression:
        network = NetworkFit(settings.network_steps, settings.learning_rate, settings.weight_decay)
        before = _objective(chain)
        chain = regress(process, solver, chain, settings.num_paths, settings.num_steps, network)
        gain = before - _objective(chain)
    if not isinstance(chain, Chain):
        return chain, gain
    evaluations = _EVALUATIONS if can_descend(process, solver) else _MANY_EVALUATIONS
    return descend(process, solver, chain, evaluations), gain


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Keep some parameters as they are within a block."""
    kept = list(parameters)
    for parameter in kept:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in kept:
            parameter.requires_grad_(True)


def regress(
    process: Process,
    solver: PairSolver,
    chain: AnyChain,
    num_paths: int,
    num_steps: int,
    network: NetworkFit,
) -> AnyChain:
    """Fit the drift to paths of the bridge, and solve the bridge anew.

    A step that raises the objective is halved up to four times, then not taken.

    Returns:
        The chain of the new reference; the given one if nothing was found.
    """
    before, value = get_parameters(process), _objective(chain)
    fit_drift(chain.reference.drift, *chain.paths(num_paths, num_steps), chain.reference.noise, network)
    change = get_parameters(process) - before
    if not change.any():
        return chain
    for halving in range(_HALVINGS + 1):
        set_parameters(process, before + change / 2**halving)
        found = _solved(process, solver, chain)
        if found is not None and _objective(found) < value:
            return found
    set_parameters(process, before)
    return chain


def _solved(process: Process, solver: PairSolver, chain: AnyChain) -> AnyChain | None:
    """The chain of a new reference; ``None`` if it has none."""
    try:
        found = chain.again(process.reference(solver))
    except NonFiniteError:
        return None
    return found if found.is_solved else None


@torch.no_grad()
def _objective(chain: AnyChain) -> float:
    """L and the penalty of the drift in nats; the chain is that of the parameters as they are now."""
    return float(chain.value.sum()) + float(_penalty(chain.reference, chain.intervals))


def _penalty(reference: Reference, intervals: Intervals) -> Tensor:
    if not has_ridge(reference.drift):
        return reference.noise.new_zeros(())
    return on_snapshots(reference.drift, reference.noise, intervals)


def descend(process: Process, solver: PairSolver, chain: Chain, max_evaluations: int) -> Chain:
    """Lower the objective by a quasi-Newton method with bounds; never raises it.

    Returns:
        The chain of the new reference; the given one where nothing is to be fitted.
    """
    if not free_parameters(process):
        return chain
    search = _Descent(process, solver, chain)
    minimize(
        search,
        search.start,
        jac=True,
        method="L-BFGS-B",
        bounds=search.bounds,
        options={"maxfun": max_evaluations, "ftol": 1e-10, "gtol": 1e-7},
    )
    set_parameters(process, search.best * search.scale)
    return Chain(process.reference(solver), chain.intervals, start=search.potentials)


class _Descent:
    """Objective and gradient over the parameters in units of their scales; keeps the best point."""

    def __init__(self, process: Process, solver: PairSolver, chain: Chain) -> None:
        values = get_parameters(process)
        self.scale = _scales(process, solver, chain)
        self.start = self.best = values / self.scale
        lowest = bounds_of(process) / self.scale
        self.bounds = [(None if bound == -np.inf else bound, None) for bound in lowest]
        self.value, self.potentials = _objective(chain), chain.coupling.g
        self._process, self._solver, self._intervals = process, solver, chain.intervals
        # Where there is no bridge: high enough to step back from, low enough for the line search to
        # interpolate, which it does not do from infinity.
        self._wall = self.value + 1e4 * (1 + abs(self.value))

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        set_parameters(self._process, point * self.scale)
        parameters = [p for _, p in free_parameters(self._process)]
        try:
            with torch.enable_grad():
                reference = self._process.reference(self._solver, frozen=False)
                more = _penalty(reference, self._intervals)
                extra = torch.autograd.grad(more, parameters, allow_unused=True) if more.requires_grad else []
            value, gradients, coupling = gradient(reference, self._intervals, self.potentials, parameters)
        except NonFiniteError:
            return self._wall, np.zeros_like(point)
        if not is_solved(coupling):
            return self._wall, np.zeros_like(point)
        found = value + float(more.detach())
        if found < self.value:
            self.value, self.best, self.potentials = found, point.copy(), coupling.g
        if extra:
            pairs = zip(gradients, extra, strict=True)
            gradients = [part if one is None else part + one for part, one in pairs]
        slope = torch.cat([part.reshape(-1) for part in gradients]).double().cpu().numpy()
        return found, slope * self.scale


def _scales(process: Process, solver: PairSolver, chain: Chain) -> np.ndarray:
    """For each parameter the change that matters: by about one nat, were it the only one.

    With them the search is the same in all units. A parameter without influence has its size, and so have
    those of a network, which are too many to ask.
    """
    intervals, drift = chain.intervals, chain.reference.drift
    shares = intervals.source_weight * intervals.duration[:, None]
    times = intervals.start[:, None].expand_as(shares)
    x, t, weight = intervals.source.flatten(0, 1), times.reshape(-1, 1), shares.flatten()
    some = slice(None, None, -(-len(x) // _POINTS))
    parts, values = [], get_parameters(process)
    if hasattr(process, "log_factor") and process.log_factor.requires_grad:
        parts.append(np.array([1 / _FACTOR_SCALE]))
    if not can_descend(process, solver):
        parts.append(np.zeros(len(values) - len(parts)))
    elif free_parameters(drift):
        weight = weight[some] * weight.sum() / weight[some].sum()
        parts.append(sensitivities(drift, x[some], t[some], weight, chain.reference.noise))
    matters = np.concatenate(parts)
    is_idle = ~(matters > 0) | ~np.isfinite(matters)
    return np.where(is_idle, np.maximum(np.abs(values), 1.0), 1 / np.where(is_idle, 1.0, matters))
