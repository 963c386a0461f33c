r"""What a system does when nothing drives it: where it ends, and how fast it leaves or nears the origin."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import START, array, attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.fixed import fixed_points
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import outputs_of, states_of
from seqdyn.analysis.stability import cone_rates
from seqdyn.dynamics.arguments import Dynamics, as_input, check_map, state_set
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import simulate
from seqdyn.errors import ConvergenceWarning
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["autonomous_dynamics", "growth_rate"]

_REFERENCE_STEPS = 12_800
_OF_POINTS = (
    "hidden", "speed", "stable", "stability", "num_unstable", "eigenvalue", "growth_rate", "smooth",
    "basin_count",
)  # fmt: skip


@over_conditions
@torch.no_grad()
def growth_rate(dynamics: MapDynamics, start: Any, *, num_steps: int = 500, input: Any = None) -> xr.Dataset:
    r"""Growth exponent of the noise-free map,

    .. math::
        \lambda = \frac{1}{T - T_0} \log \frac{\|h_T\|}{\|h_{T_0}\|}, \qquad T_0 = T / 2

    For maps with F(c h) = c F(h), such as rectifier networks without biases, the state is brought back to
    unit length after each step, so that neither decay nor growth leaves the range of the numbers: λ is then
    the rate of the cone map, which decides whether the origin is stable. The spectral radius of the weights
    does not, and the derivative at the origin does not exist.

    Args:
        dynamics: The map.
        start: States (N, H) to start from, or one (H,).
        num_steps: Steps T of each start.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        ``growth_rate (start)``, the change of log ‖h‖ per step, −inf where the activity reached exactly zero;
        ``hitting_time (start)``, the step at which it did, NaN where it did not.

    Raises:
        ValueError: If an argument does not fit the map.
    """
    check_count(num_steps, "num_steps", least=2)
    check_map(dynamics)
    h = state_set(dynamics, start)
    constant = as_input(dynamics, input, h)
    u = None if constant is None else constant.expand(len(h), -1)
    if is_homogeneous(dynamics, h, input):
        rate, hitting = cone_rates(lambda v: dynamics.step(v, u), h, num_steps)
    else:
        rate, hitting = _rates(dynamics, h, u, num_steps)
    return xr.Dataset(
        {"growth_rate": (START, rate), "hitting_time": (START, hitting)},
        attrs=attributes(h, num_steps=num_steps),
    )


def _rates(
    dynamics: MapDynamics, h: Tensor, u: Tensor | None, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Growth rates (N,) of states (N, H) between half of the steps and all, and when they were 0."""
    size = h.norm(dim=1)
    half, hitting = size, torch.where(size == 0, 0.0, torch.nan).to(size)
    for step in range(num_steps):
        h = dynamics.at(step).step(h, u)
        size = h.norm(dim=1)
        hitting = torch.where(hitting.isnan() & (size == 0), step + 1.0, hitting)
        if step + 1 == num_steps // 2:
            half = size
    rate = (size.double().log() - half.double().log()) / (num_steps - num_steps // 2)
    return array(torch.where(size == 0, -torch.inf, rate)), array(hitting)


@over_conditions
def autonomous_dynamics(
    dynamics: Dynamics,
    start: Any = None,
    *,
    num_starts: int = 100,
    num_steps: int = 500,
    sigma: float = 1.0,
    tail: int = 100,
    tolerance: float = 1e-3,
    reference: Any = None,
    input: Any = None,
    step_size: float | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Run a system without noise from states of its driven run, and sort the ends by attractor.

    Two starts share an attractor if the end of either lies on the last ``tail`` states of the other, within
    ``tolerance`` of the spread of the reference run plus twice the distance at which a run itself comes back
    to its end. A fixed point, all phases of a cycle and a torus are thus one attractor each. Ends are not
    averaged: the mean of two attractors is neither.

    Args:
        dynamics: Map or flow.
        start: States (N, H) to start from, or one (H,); drawn at random from the reference run by default.
        num_starts: Number of starts drawn.
        num_steps: Steps T without noise of each start.
        sigma: Noise of the reference run.
        tail: Steps at the end that stand for the attractor; half of all steps, if those are fewer.
        tolerance: See above.
        reference: A :func:`reference_run`, or states (chain, time, unit), to use instead of a fresh run; it
            gives the plane of the scores too.
        input: Constant input (X,), or a batch (B, X) of conditions.
        step_size: Of a flow.
        seed: Seed of reference run and starts.

    Returns:
        ``trajectory_pc (start, time, pc)``, ``symbol (start, time)`` (the largest output, −1 without
        readout or where the activity is infinite), ``end_hidden (start, unit)``, ``attractor_id (start)``
        (−1 where the activity diverged), ``growth_rate (start)`` per step and ``hitting_time (start)`` of
        the origin (see :func:`growth_rate`; NaN for flows), ``attractor_hidden (attractor, unit)``, one
        state of each attractor, ``attractor_kind (attractor)``, ``"fixed"``, ``"cycle"`` or ``"other"``,
        ``period (attractor)`` in steps (1 for a fixed point, NaN for others), ``basin_count (attractor)``,
        and the plane: ``component (pc, unit)``, ``mean (unit)``. Attribute ``num_attractors``. The fixed
        points that :func:`fixed_points` finds from the end points (of a map with a schedule, those of the map
        of the last step) stand along ``point``: ``point_hidden (point, unit)``, ``point_speed``,
        ``point_stable``, ``point_stability``, ``point_num_unstable``, ``point_eigenvalue (point, mode)``,
        complex, ``point_growth_rate``, ``point_smooth`` and ``point_basin_count``; ``end_point (start)`` is
        the number of the one that the search from the end reached, −1 for none.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the driven run diverges.
    """
    check_count(num_steps, "num_steps", least=4)
    check_count(tail, "tail", least=2)
    seed = ambient_seed(seed)
    with fork_rng(seed):
        # A given start needs no drive, for the plane can be fitted to the runs from it.
        driven = None
        if start is None or reference is not None:
            driven = states_of(
                dynamics,
                reference,
                num_steps=_REFERENCE_STEPS,
                sigma=sigma,
                input=input,
                step_size=step_size,
            )
        starts = _drawn(driven, num_starts) if start is None else state_set(dynamics, start)
        runs = simulate(dynamics, starts, num_steps, input=input, step_size=step_size)
    finite = torch.isfinite(runs).flatten(1).all(dim=1)
    known = runs[finite] if driven is None else driven
    plane = fit_plane(known, min(3, dynamics.state_size))
    spread = float((known.double() - plane.mean).flatten(0, -2).square().sum(1).mean().sqrt())
    labels, found = _attractors(runs[finite, -min(tail, num_steps // 2) :].double(), tolerance * spread)
    attractor = np.full(len(starts), -1)
    attractor[finite.cpu().numpy()] = labels
    data = xr.Dataset(
        {
            "trajectory_pc": (("start", "time", "pc"), _finite(plane.scores(runs))),
            "symbol": (("start", "time"), _symbols(dynamics, runs)),
            "end_hidden": (("start", "unit"), runs[:, -1].cpu().numpy()),
            "attractor_id": ("start", attractor),
            "attractor_hidden": (("attractor", "unit"), found.hidden.to(runs.dtype).cpu().numpy()),
            "attractor_kind": ("attractor", found.kind),
            "period": ("attractor", found.period),
            "basin_count": ("attractor", np.bincount(labels, minlength=len(found.kind))),
            "component": (("pc", "unit"), plane.components.cpu().numpy()),
            "mean": ("unit", plane.mean.cpu().numpy()),
        },
        {"time": np.arange(1, num_steps + 1)},
        attributes(runs, seed=seed, sigma=sigma, num_attractors=len(found.kind), tolerance=tolerance),
    )
    data = data.merge(_growth(dynamics, starts, num_steps, input))
    data = data.merge(_points(dynamics, runs[:, -1], finite, num_steps, input, seed))
    if not bool(finite.all()):
        count = int((~finite).sum())
        data.attrs["reason"] = f"{count} of {len(finite)} runs diverged: their scores are NaN where infinite"
    return data


def _drawn(driven: Tensor | None, num_starts: int) -> Tensor:
    assert driven is not None
    states = driven.flatten(0, 1)
    return states[torch.randint(len(states), (check_count(num_starts, "num_starts"),), device=states.device)]


class _Attractors(NamedTuple):
    hidden: Tensor
    kind: np.ndarray
    period: np.ndarray


def _attractors(tails: Tensor, tolerance: float) -> tuple[np.ndarray, _Attractors]:
    """Number the attractors of the last states (N, L, H), and describe each by its first start."""
    if len(tails) == 0:
        empty = np.zeros(0)
        return empty.astype(int), _Attractors(tails.new_zeros(0, tails.shape[2]), empty.astype("<U5"), empty)
    ends = tails[:, -1]
    # For how far an orbit misses its own end: zero for fixed points and cycles.
    back = (tails[:, :-1] - ends[:, None]).norm(dim=2)  # (N, L - 1)
    reach = tolerance + 2 * back.min(dim=1).values
    nearest = torch.stack([torch.cdist(ends, tail).min(dim=1).values for tail in tails])  # (tail, end)
    linked = (nearest <= reach[:, None]) & (nearest.T <= reach[None, :])
    rows, columns = (index.cpu().numpy() for index in linked.nonzero(as_tuple=True))
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(ends), len(ends)))
    count, labels = connected_components(graph, directed=False)
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(count)]
    period = np.array([_period(back[one].flip(0).cpu().numpy(), tolerance) for one in first])
    kind = np.select([period == 1, period > 1], ["fixed", "cycle"], "other")
    return labels, _Attractors(ends[first], kind, period)


def _period(distance: np.ndarray, tolerance: float) -> float:
    """Steps until an orbit is back, from its distances to the end 1, 2, ... steps earlier.

    A slow orbit must have left before it can come back, so that small steps do not make it a fixed point.
    """
    away = distance > tolerance
    if not away.any():
        return 1.0
    back = ~away[away.argmax() :]
    return float(away.argmax() + back.argmax() + 1) if back.any() else np.nan


def _growth(dynamics: Dynamics, starts: Tensor, num_steps: int, input: Any) -> xr.Dataset:
    if isinstance(dynamics, MapDynamics):
        return growth_rate(dynamics, starts, num_steps=num_steps, input=input).drop_attrs()
    nothing = (START, np.full(len(starts), np.nan))
    return xr.Dataset({"growth_rate": nothing, "hitting_time": nothing})


def _points(
    dynamics: Dynamics, ends: Tensor, finite: Tensor, num_steps: int, input: Any, seed: int
) -> xr.Dataset:
    """Fixed points that a search from the ends (N, H) reaches, under names with ``point_``."""
    now = dynamics.at(num_steps - 1) if isinstance(dynamics, MapDynamics) else dynamics
    near = ends[finite] if bool(finite.any()) else torch.zeros_like(ends[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # that there is none can be seen
        points = fixed_points(now, near, input=input, seed=seed)
    assigned = np.full(len(ends), -1)
    if bool(finite.any()):
        assigned[array(finite)] = points["assigned"].values
    kept = {f"point_{name}": points[name].variable for name in _OF_POINTS}
    return xr.Dataset({**kept, "end_point": (START, assigned)})


def _finite(values: Tensor) -> np.ndarray:
    return values.where(torch.isfinite(values), torch.nan).cpu().numpy()


def _symbols(dynamics: Dynamics, runs: Tensor) -> np.ndarray:
    if not isinstance(dynamics, MapDynamics) or dynamics.readout is None:
        return np.full(runs.shape[:2], -1)
    outputs = outputs_of(dynamics, runs)
    return torch.where(torch.isfinite(outputs).all(dim=-1), outputs.argmax(dim=-1), -1).cpu().numpy()
