r"""Fixed points: find, merge, linearise, classify.

Of a map these are the roots of :math:`F(h) - h`, of a flow those of its drift. An end point counts as fixed
only if :math:`q = |F(h) - h|^2 / 2` is below a tolerance near round-off. A local minimum of q above it is a
*slow* point; it is never listed among the fixed points.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.func import jacrev, vmap

from seqdyn.analysis.common import INPUT, MODE, POINT, START, UNIT, array, attributes, eigenvalues_of
from seqdyn.analysis.conditions import CONDITION
from seqdyn.analysis.jacobians import batch_jacobian, field
from seqdyn.analysis.newton import Roots, find_roots
from seqdyn.analysis.stability import growth_at, kinked, label
from seqdyn.dynamics.arguments import Dynamics, as_input, check_unscheduled, state_set
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.errors import ConvergenceWarning
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["fixed_points"]


@torch.no_grad()
def fixed_points(
    dynamics: Dynamics,
    start: Any,
    *,
    input: Any = None,
    seed: int | None = None,
    tolerance: float | None = None,
    merge_tolerance: float = 1e-4,
    jitter: float = 0.0,
    max_iters: int = 200,
) -> xr.Dataset:
    """Find the fixed points that a search from many states reaches.

    The origin is always searched from too; what is found from there alone has ``basin_count`` 0. Good starts
    are the states of a trajectory, and its last ones: ``simulate(dynamics, h, 500)[:, ::50]``.

    Args:
        dynamics: Map or flow.
        start: Starting states (..., H).
        input: Constant input (X,). A batch (B, X) searches under each of them: then ``start`` runs over B · N
            searches, and the coordinate ``condition`` along ``point`` and ``start`` says which input.
        seed: Seed of the jitter, and of the directions in which a kink is tested.
        tolerance: Largest q of a fixed point; 1e-20 in float64, 1e-10 in float32.
        merge_tolerance: Points closer than this times 1 + |h| are one (chains of such points too).
        jitter: Standard deviation of Gaussian noise that is added to the starts.
        max_iters: Most iterations of a start.

    Returns:
        Along ``point``: ``hidden (point, unit)``, ``speed`` |F(h) - h| (of a flow |f|), ``stable``,
        ``stability`` (stable node, stable focus, saddle, source, marginal; non-smooth stable or non-smooth
        unstable at a kink), ``num_unstable``, ``eigenvalue (point, mode)`` and ``eigenvector (point, unit,
        mode)``, complex, by falling modulus and NaN at a kink, ``growth_rate`` per step, at a kink only,
        ``smooth``, ``basin_count`` (how many starts end there) and ``input_jacobian (point, unit, input)``.
        Along ``start``: ``end_hidden (start, unit)``, ``end_speed``, ``kind`` (fixed, slow, failed),
        ``assigned`` (the point, -1 for none) and ``num_iters``. All is computed at the returned points.

    Raises:
        ValueError: If an argument does not fit the system.
    """
    check_unscheduled(dynamics)
    states = state_set(dynamics, start)
    tolerance = (1e-20 if states.dtype == torch.float64 else 1e-10) if tolerance is None else tolerance
    constant = as_input(dynamics, input, states)
    if constant is not None and constant.ndim > 2:
        raise ValueError(
            "input must be one constant input (X,) or a batch of conditions (B, X), got shape "
            f"{tuple(constant.shape)}."
        )
    conditions = 1 if constant is None or constant.ndim == 1 else len(constant)
    seed = ambient_seed(seed)
    with fork_rng(seed):
        if jitter > 0:
            states = states + jitter * torch.randn_like(states)
        starts = torch.cat([states, states.new_zeros(1, states.shape[1])]).repeat(conditions, 1)
        inputs = _inputs(constant, len(states) + 1)
        roots = _search(dynamics, starts, inputs, tolerance, max_iters)
        own = torch.arange(len(starts), device=starts.device) % (len(states) + 1) < len(states)
        which = torch.arange(conditions, device=starts.device).repeat_interleave(len(states) + 1)
        assigned, best = _merge(roots, which, merge_tolerance)
        along_points = _describe(dynamics, roots.hidden[best], None if inputs is None else inputs[best])
    counts = torch.bincount(assigned[own & (assigned >= 0)], minlength=len(best))
    data = xr.Dataset(
        {
            **along_points,
            "basin_count": (POINT, array(counts)),
            **_ends(roots, own, assigned),
        },
        attrs=attributes(
            states, seed=seed, tolerance=tolerance, merge_tolerance=merge_tolerance, jitter=jitter
        ),
    )
    data.attrs["system"] = "flow" if isinstance(dynamics, FlowDynamics) else "map"
    if constant is not None and constant.ndim > 1:
        data = data.assign_coords(
            condition=(POINT, array(which[best])), start_condition=(START, array(which[own]))
        )
        data["condition_input"] = ((CONDITION + "_number", INPUT), array(constant))
    if len(best) == 0:
        warnings.warn(_nothing(roots, tolerance), ConvergenceWarning, stacklevel=2)
    return data


def _inputs(constant: Tensor | None, repeats: int) -> Tensor | None:
    """One input (N, X) for each search."""
    return None if constant is None else torch.atleast_2d(constant).repeat_interleave(repeats, dim=0)


def _search(
    dynamics: Dynamics, starts: Tensor, inputs: Tensor | None, tolerance: float, max_iters: int
) -> Roots:
    function, flow = field(dynamics), isinstance(dynamics, FlowDynamics)
    identity = torch.eye(starts.shape[1]).to(starts)

    def residual(h: Tensor, rows: Tensor) -> Tensor:
        after = function(h, None if inputs is None else inputs[rows])
        return after if flow else after - h

    def jacobian(h: Tensor, rows: Tensor) -> Tensor:
        matrix = batch_jacobian(dynamics, h, None if inputs is None else inputs[rows])
        return matrix if flow else matrix - identity

    return find_roots(residual, jacobian, starts, tolerance=tolerance, max_iters=max_iters)


def _merge(roots: Roots, which: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Number of the point at which each start ended (N,), -1 for none, and the best start of each point (P,).

    Points are numbered by condition, then by the starts that reach them, most first.
    """
    assigned = torch.full_like(which, -1)
    best: list[int] = []
    for condition in which.unique().tolist():
        rows = (roots.converged & (which == condition)).nonzero().squeeze(1)
        groups = sorted(_linked(roots.hidden[rows], tolerance), key=len, reverse=True)
        for members in groups:
            group = rows[members]
            assigned[group] = len(best)
            best.append(int(group[roots.error[group].argmin()]))
    return assigned, torch.tensor(best, dtype=torch.int64, device=which.device)


def _linked(points: Tensor, tolerance: float) -> list[Tensor]:
    """Single-linkage groups of the points (N, H)."""
    radius = tolerance * (1 + points.norm(dim=1))
    left = torch.arange(len(points), device=points.device)
    groups = []
    # |a|² - 2ab + |b|² is fast, but cannot resolve 1e-4 in float32.
    fast = points.dtype == torch.float64
    mode = "use_mm_for_euclid_dist" if fast else "donot_use_mm_for_euclid_dist"
    while len(left):
        group, front, left = [left[:1]], left[:1], left[1:]
        while len(front) and len(left):
            near = torch.zeros(len(left), dtype=torch.bool, device=points.device)
            for some in front.split(256):  # bounds the matrix of distances
                reach = torch.minimum(radius[some][:, None], radius[left])
                near |= (torch.cdist(points[some], points[left], compute_mode=mode) < reach).any(dim=0)
            front, left = left[near], left[~near]
            group.append(front)
        groups.append(torch.cat(group))
    return groups


def _describe(dynamics: Dynamics, points: Tensor, inputs: Tensor | None) -> dict[str, Any]:
    flow = isinstance(dynamics, FlowDynamics)
    after = field(dynamics)(points, inputs)
    values, vectors = (array(part) for part in eigenvalues_of(batch_jacobian(dynamics, points, inputs)))
    kink = (
        array(kinked(dynamics, points, inputs))
        if isinstance(dynamics, MapDynamics)
        else np.zeros(len(points), dtype=bool)
    )
    band = 1e-6 if points.dtype == torch.float64 else 1e-4
    names, unstable, growth = [], [], np.full(len(points), np.nan)
    for i, at_kink in enumerate(kink):
        name, count = label(values[i], flow=flow, band=band)
        if at_kink:
            u = None if inputs is None else inputs[i]
            growth[i] = growth_at(lambda h, u=u: field(dynamics)(h, u), points[i])  # type: ignore[misc]
            name, count = ("non-smooth stable" if growth[i] < 0 else "non-smooth unstable"), -1
        names.append(name)
        unstable.append(count)
    values[kink], vectors[kink] = np.nan, np.nan
    stable = [name in ("stable node", "stable focus", "non-smooth stable") for name in names]
    found = {
        "hidden": ((POINT, UNIT), array(points)),
        "speed": (POINT, array((after if flow else after - points).norm(dim=1))),
        "stable": (POINT, np.array(stable, dtype=bool)),
        "stability": (POINT, np.array(names, dtype=object)),
        "num_unstable": (POINT, np.array(unstable, dtype=np.int64), {"comment": "-1 at a kink"}),
        "eigenvalue": ((POINT, MODE), values),
        "eigenvector": ((POINT, UNIT, MODE), vectors),
        "growth_rate": (POINT, growth, {"comment": "at a kink only; NaN elsewhere"}),
        "smooth": (POINT, ~kink),
    }
    sensitivity = _input_jacobian(dynamics, points, inputs)
    return found if sensitivity is None else {**found, "input_jacobian": ((POINT, UNIT, INPUT), sensitivity)}


def _input_jacobian(dynamics: Dynamics, points: Tensor, inputs: Tensor | None) -> np.ndarray | None:
    size = 0 if isinstance(dynamics, FlowDynamics) else dynamics.input_size
    if size == 0:
        return None
    function, u = field(dynamics), points.new_zeros(len(points), size) if inputs is None else inputs
    return array(vmap(jacrev(lambda h, u: function(h[None], u[None])[0], argnums=1))(points, u))


def _ends(roots: Roots, own: Tensor, assigned: Tensor) -> dict[str, Any]:
    kind = np.where(array(roots.flat), "slow", "failed").astype(object)
    kind[array(roots.converged)] = "fixed"
    return {
        "end_hidden": ((START, UNIT), array(roots.hidden[own])),
        "end_speed": (START, array((2 * roots.error[own]).sqrt())),
        "kind": (START, kind[array(own)]),
        "assigned": (START, array(assigned[own])),
        "num_iters": (START, array(roots.num_iters[own])),
    }


def _nothing(roots: Roots, tolerance: float) -> str:
    return (
        f"no start reached a fixed point: the smallest q is {float(roots.error.min()):.3g}, the tolerance "
        f"{tolerance:.3g}. Give more starts or raise max_iters; there may be none."
    )
