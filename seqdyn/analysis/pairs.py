"""Whether larger systems are put together from the same parts: the orbit within each pair of symbols."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes, bin_means
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.jacobians import count_eigenvalues, spectra
from seqdyn.analysis.orbits import shorter_way
from seqdyn.analysis.projection import Plane, fit_plane
from seqdyn.analysis.runs import outputs_of, reference_run, start_chains
from seqdyn.analysis.stays import REGIONS, region_of, stays
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["composition", "jaccard", "procrustes_distance", "profile_distance"]

QUANTITIES = ("speed", "radius", "certainty", "critical", "probability", "occupancy")
COMPARED = ("speed", "radius", "certainty", "critical")  # the same whichever symbol of a pair comes first
_GLOBAL, _PAIR = 4, 3  # principal components of all states, and of a pair, as published
_FEWEST = 50  # points below which a pair has no profile
_KEPT = 2000  # points of a pair that are kept for its picture


@over_conditions
def composition(
    dynamics: MapDynamics | Mapping[str, MapDynamics],
    *,
    min_length: int = 200,
    num_steps: int = 64_000,
    num_chains: int = 32,
    sigma: float = 1.0,
    burn_in: int = 200,
    num_bins: int = 24,
    axes: tuple[int, int] = (1, 3),
    num_jacobians: int = 128,
    num_states: int = 200,
    kick_units: Mapping[str, Sequence[int]] | None = None,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Compare the orbits within pairs of symbols, in one system or across several.

    For each pair the stretches of more than ``min_length`` steps in which only its two symbols are the
    largest output are projected on four principal components of all states, and again on three of their own.
    The phase is the angle about their mean in two of these, counted so that the motion turns forward.
    Untrained systems among ``dynamics`` are the null: pairs of trained ones should be nearer to each other
    than to theirs.

    Args:
        dynamics: A map with a readout, or several by name.
        min_length: See above. Where no stretch is long enough, all steps between the two symbols count, and
            ``relaxed`` is true.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        sigma: Standard deviation of the noise.
        burn_in: Steps of each chain before those that count.
        num_bins: Bins of the phase.
        axes: Numbers of the pair's two components, from one. Paper: 1 and 3.
        num_jacobians: States of a pair at which critical eigenvalues are counted.
        num_states: States of each direction whose residence times are measured.
        kick_units: Units by pair, for their overlap.
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of the noise.

    Returns:
        ``pair_profile (pair, bin, quantity)``: ``speed`` in state space, ``radius`` in the plane,
        ``certainty``, the largest probability of a symbol, ``critical``, number of critical eigenvalue
        pairs, ``probability`` of the second symbol, ``occupancy``; NaN in bins never visited. ``orbit
        (pair, bin, pc)``, the mean position; ``scores (pair, point, pc)``, some of the points and ``symbol
        (pair, point)`` (−1 for padding); ``winding_rate (pair)`` in turns per 1000 steps, ``directedness
        (pair)``; ``num_points``, ``num_stretches``, ``relaxed (pair)``; ``pair_distance (pair, pair_)``,
        see :func:`profile_distance`; ``orbit_distance (pair, pair_)``, see :func:`procrustes_distance`; and,
        if ``kick_units`` are given, ``kick_jaccard (pair, pair_)``. ``region_fraction (direction, region)``,
        shares of the regions of :func:`residence` among the states of a pair with the first symbol of the
        direction, NaN without any. Pairs are named ``"0-2"``, their directions ``"0->2"`` and ``"2->0"``,
        with several systems ``"name: 0-2"``. A pair that hardly occurs is NaN, and attribute ``reason`` says
        so.

    Raises:
        ValueError: If an argument does not fit.
        NonFiniteError: If the activity diverges.
    """
    systems = _named(dynamics)
    check_count(num_bins, "num_bins", least=3)
    check_count(min_length, "min_length", least=2)
    check_count(num_jacobians, "num_jacobians")
    check_count(num_states, "num_states")
    if len(set(axes)) != 2 or not set(axes) <= {1, 2, 3}:
        raise ValueError(f"axes must be two of the components 1, 2 and 3, got {axes!r}; for instance (1, 3).")
    settings = {"sigma": sigma, "input": input}
    seed = ambient_seed(seed)
    pairs: dict[str, _Pair] = {}
    regions: dict[str, np.ndarray] = {}
    with fork_rng(seed):
        for name, system in systems.items():
            start, _ = start_chains(system, None, num_chains, num_steps, least=3)
            run = reference_run(system, start=start, num_steps=num_steps, burn_in=burn_in, **settings)
            runs = run.states
            title = f"{name}: " if name else ""
            for points, count in _pairs(system, runs, min_length):
                a, b = points.symbols
                pairs[f"{title}{a}-{b}"] = _pair(
                    system, points, count, num_bins, axes, num_jacobians, settings
                )
                for first, second in ((a, b), (b, a)):
                    regions[f"{title}{first}->{second}"] = _regions(
                        system, points, first, num_states, settings
                    )
    labels = list(pairs)
    compared = [QUANTITIES.index(name) for name in COMPARED]
    profiles = [pair.profile for pair in pairs.values()]
    data = xr.Dataset(
        {
            "pair_profile": (("pair", "bin", "quantity"), np.stack(profiles)),
            "orbit": (("pair", "bin", "pc"), np.stack([pair.orbit for pair in pairs.values()])),
            "scores": (("pair", "point", "pc"), np.stack([pair.scores for pair in pairs.values()])),
            "symbol": (("pair", "point"), np.stack([pair.symbol for pair in pairs.values()])),
            "winding_rate": ("pair", np.array([pair.winding_rate for pair in pairs.values()])),
            "directedness": ("pair", np.array([pair.directedness for pair in pairs.values()])),
            "num_points": ("pair", np.array([pair.num_points for pair in pairs.values()])),
            "num_stretches": ("pair", np.array([pair.num_stretches for pair in pairs.values()])),
            "relaxed": ("pair", np.array([pair.num_stretches == 0 for pair in pairs.values()])),
            "region_fraction": (("direction", "region"), np.stack(list(regions.values()))),
            "pair_distance": (
                ("pair", "pair_"),
                _matrix([profile[:, compared] for profile in profiles], profile_distance),
            ),
            "orbit_distance": (
                ("pair", "pair_"),
                _matrix([pair.orbit for pair in pairs.values()], _shifted_procrustes),
            ),
        },
        {
            "pair": labels,
            "pair_": labels,
            "quantity": list(QUANTITIES),
            "direction": list(regions),
            "region": list(REGIONS),
        },
        attributes(runs, seed=seed, sigma=sigma, burn_in=burn_in, min_length=min_length, axes=list(axes)),
    )
    if kick_units is not None:
        groups = [set(map(int, kick_units.get(label, ()))) for label in labels]
        data["kick_jaccard"] = (("pair", "pair_"), _matrix(groups, jaccard))
    return _with_reason(data)


def profile_distance(first: np.ndarray, second: np.ndarray) -> float:
    """One less the largest mean correlation of two phase profiles (B, Q) over cyclic shifts, in [0, 2].

    One shift for all quantities. A quantity that is flat or unknown in either set does not count; NaN if none
    is left.
    """
    a, b = _standardised(first), _standardised(second)
    known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    if not known.any():
        return math.nan
    shifted = [(a[:, known] * np.roll(b[:, known], shift, axis=0)).mean() for shift in range(len(b))]
    return float(1 - max(shifted))


def procrustes_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""Distance in [0, 1] of two point sets (N, D) after shift, scaling and rotation (or reflection).

    .. math::
        \sqrt{1 - (\mathrm{tr}\, \Sigma)^2}

    with Σ the singular values of :math:`A^\top B`, A and B centred and of unit norm. Rows with NaN in either
    are left out; NaN with fewer than three rows, or where a set is a single point.
    """
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    if known.sum() < 3:
        return math.nan
    centred = [part[known] - part[known].mean(axis=0) for part in (first, second)]
    sizes = [float(np.linalg.norm(part)) for part in centred]
    if min(sizes) == 0:
        return math.nan
    values = np.linalg.svd(centred[0].T @ centred[1] / (sizes[0] * sizes[1]), compute_uv=False)
    return math.sqrt(max(0.0, 1 - float(values.sum()) ** 2))


def jaccard(first: set[int], second: set[int]) -> float:
    """Size of the intersection over that of the union; NaN for two empty sets."""
    return len(first & second) / len(first | second) if first | second else math.nan


class _Pair(NamedTuple):
    profile: np.ndarray  # (B, Q)
    orbit: np.ndarray  # (B, 3)
    scores: np.ndarray  # (P, 3), padded by NaN
    symbol: np.ndarray  # (P,), padded by -1
    winding_rate: float
    directedness: float
    num_points: int
    num_stretches: int


def _named(dynamics: Any) -> dict[str, MapDynamics]:
    systems = dynamics if isinstance(dynamics, Mapping) else {"": dynamics}
    for name, system in systems.items():
        if not isinstance(system, MapDynamics):
            raise ValueError(
                f"dynamics{f'[{name!r}]' if name else ''} must be a MapDynamics, got "
                f"{type(system).__name__}; use model.dynamics()."
            )
    if not systems:
        raise ValueError("dynamics is an empty mapping; give at least one system.")
    return dict(systems)


def _pairs(dynamics: MapDynamics, runs: Tensor, min_length: int) -> list[tuple[_Points, int]]:
    """Steps of each pair of symbols, and in how many long stretches they lie."""
    prob = outputs_of(dynamics, runs).softmax(dim=-1)
    symbol = prob.argmax(dim=-1)
    everything = fit_plane(runs, min(_GLOBAL, runs.shape[2]))
    scores = everything.scores(runs)
    found = []
    for a, b in itertools.combinations(range(prob.shape[-1]), 2):
        where, count = _stretches(symbol.cpu().numpy(), a, b, min_length)
        chain, time = (torch.as_tensor(part, device=runs.device) for part in np.nonzero(where))
        found.append((_Points(runs, scores, prob, symbol, chain, time, (a, b)), count))
    return found


def _stretches(symbol: np.ndarray, a: int, b: int, min_length: int) -> tuple[np.ndarray, int]:
    """Steps t (N, T − 1) such that t and t + 1 lie in one long stretch of a and b, and how many these are."""
    inside = (symbol == a) | (symbol == b)
    edges = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    chain, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    changes = np.cumsum(np.diff(symbol, axis=1, prepend=symbol[:, :1]) != 0, axis=1)
    both = changes[chain, stop - 1] > changes[chain, start]
    long = (stop - start > min_length) & both
    marks = np.zeros((len(symbol), symbol.shape[1] + 1), dtype=np.int64)
    np.add.at(marks, (chain[long], start[long]), 1)
    np.add.at(marks, (chain[long], stop[long] - 1), -1)
    kept = marks.cumsum(axis=1)[:, :-2] > 0
    if long.any():
        return kept, int(long.sum())
    return (inside[:, 1:] & inside[:, :-1]) & both.any(), 0


class _Points(NamedTuple):
    """Steps (P,) of a pair within runs (N, T, …)."""

    runs: Tensor
    scores: Tensor
    prob: Tensor
    symbol: Tensor
    chain: Tensor
    time: Tensor
    symbols: tuple[int, int]


def _pair(
    dynamics: MapDynamics,
    points: _Points,
    num_stretches: int,
    num_bins: int,
    axes: tuple[int, int],
    num_jacobians: int,
    settings: dict[str, Any],
) -> _Pair:
    chain, time = points.chain, points.time
    size = min(_PAIR, points.scores.shape[2])
    if len(chain) < _FEWEST or size < max(axes):
        return _nothing(num_bins, len(chain), num_stretches)
    here, after = points.scores[chain, time], points.scores[chain, time + 1]
    plane = fit_plane(here, size)
    angle, turn, radius = _turning(plane, here, after, axes)
    index = ((angle + math.pi) / (2 * math.pi) * num_bins).long().clamp(0, num_bins - 1)
    prob = points.prob[chain, time].double()
    speed = (points.runs[chain, time + 1] - points.runs[chain, time]).norm(dim=1).double()
    few = torch.randperm(len(chain), device=chain.device)[:num_jacobians]
    states = points.runs[chain[few], time[few]]
    values = spectra(dynamics, states, Drive(dynamics, states, num_steps=1, **settings)(0))
    critical = torch.as_tensor(count_eigenvalues(values).critical, device=states.device)
    columns = torch.stack([speed, radius, prob.amax(1), prob[:, points.symbols[1]]], dim=1)
    means = bin_means(torch.cat([columns, plane.scores(here)], dim=1), index, num_bins)
    share = torch.bincount(index, minlength=num_bins) / len(index)
    parts = [means[:, :3], bin_means(critical[:, None], index[few], num_bins), means[:, 3:4], share[:, None]]
    orbit = np.full((num_bins, _PAIR), np.nan)
    orbit[:, :size] = means[:, 4:].cpu().numpy()
    kept = slice(0, _KEPT)
    total = float(turn.abs().sum())
    return _Pair(
        torch.cat(parts, dim=1).cpu().numpy(),
        orbit,
        _padded(plane.scores(here)[kept].cpu().numpy()),
        _padded(points.symbol[chain, time][kept].cpu().numpy()[:, None], -1, 1)[:, 0],
        1000 * float(turn.mean()) / (2 * math.pi),
        float(turn.sum()) / total if total > 0 else math.nan,
        len(chain),
        num_stretches,
    )


def _regions(
    dynamics: MapDynamics, points: _Points, symbol: int, num_states: int, settings: dict[str, Any]
) -> np.ndarray:
    """Share of each region among the states of a pair with one of its symbols; NaN without any."""
    chain, time = points.chain, points.time
    here = (points.symbol[chain, time] == symbol).nonzero()[:, 0]
    few = here[torch.randperm(len(here), device=here.device)[:num_states]]
    if len(few) == 0:
        return np.full(len(REGIONS), np.nan)
    states, prob = points.runs[chain[few], time[few]], points.prob[chain[few], time[few]]
    found = stays(dynamics, states, num_runs=20, max_steps=60, **settings)
    steps = found.steps.double().mean(dim=1).cpu().numpy()
    names = region_of(steps, prob.amax(dim=1).cpu().numpy())
    return np.array([(names == region).mean() for region in REGIONS])


def _turning(
    plane: Plane, here: Tensor, after: Tensor, axes: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Angle, turn to the next step and radius (P,) in a pair's plane; turning is positive on average."""
    first, second = axes[0] - 1, axes[1] - 1
    (u, v), (u2, v2) = (plane.scores(part)[:, [first, second]].unbind(1) for part in (here, after))
    angle, then = torch.atan2(v, u), torch.atan2(v2, u2)
    turn = shorter_way(then - angle)
    sign = 1.0 if float(turn.sum()) >= 0 else -1.0
    return sign * angle, sign * turn, torch.hypot(u, v)


def _nothing(num_bins: int, num_points: int, num_stretches: int) -> _Pair:
    empty = np.zeros((0, _PAIR))
    return _Pair(
        np.full((num_bins, len(QUANTITIES)), np.nan),
        np.full((num_bins, _PAIR), np.nan),
        _padded(empty),
        _padded(np.zeros((0, 1), dtype=int), -1, 1)[:, 0],
        math.nan,
        math.nan,
        num_points,
        num_stretches,
    )


def _padded(rows: np.ndarray, value: float = math.nan, columns: int = _PAIR) -> np.ndarray:
    out = np.full((_KEPT, columns), value, dtype=rows.dtype)
    out[: len(rows), : rows.shape[1]] = rows
    return out


def _standardised(profile: np.ndarray) -> np.ndarray:
    spread = profile.std(axis=0, keepdims=True)
    return (profile - profile.mean(axis=0, keepdims=True)) / np.where(spread > 0, spread, np.nan)


def _shifted_procrustes(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest Procrustes distance of two orbits (B, 3) over cyclic shifts of the phase."""
    found = [procrustes_distance(first, np.roll(second, shift, axis=0)) for shift in range(len(second))]
    return min((value for value in found if not math.isnan(value)), default=math.nan)


def _matrix(items: Sequence[Any], distance: Any) -> np.ndarray:
    return np.array([[distance(one, other) for other in items] for one in items])


def _with_reason(data: xr.Dataset) -> xr.Dataset:
    reasons = []
    rare = data["pair"].values[np.isnan(data["winding_rate"].values)].tolist()
    relaxed = data["pair"].values[data["relaxed"].values & ~np.isnan(data["winding_rate"].values)].tolist()
    if rare:
        reasons.append(f"fewer than {_FEWEST} steps, or too few units, for the pairs {rare}")
    if relaxed:
        reasons.append(f"no stretch of {data.attrs['min_length']} steps for {relaxed}: all their steps count")
    return data.assign_attrs(reason="; ".join(reasons)) if reasons else data
