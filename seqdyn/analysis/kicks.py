r"""Kick units: which units push the network from one symbol to another, found without any typed-in index.

For each direction a→b with enough switches, a unit is judged by three things that can fail separately.

1. *Cause*: with the unit silenced, under the same noise, by which share do switches a→b per step in a fall?
   All units are tried in one batched roll-out that is put back on the undisturbed states every few steps, so
   that a unit which traps the network in a does not leave b unexamined. What its absence does to the symbol
   reached is its collateral: if b is left more often, the unit belongs to b rather than to the way there.
2. *Foresight*: the area under the curve of its drive, among states of the kick-zone, for a switch to b in
   the next steps.
3. *Transience*: its event-triggered drive rises at the switch above the levels in both symbols.

The score is the product (cause − collateral)₊ (AUC − ½)₊ min(transience, 1)₊; kick units are those above the
largest drop of the sorted scores, among those whose cause is at least ``min_effect`` and above 0 by its
bootstrap interval. There may be none.

Source: Torre et al. (2025), arXiv 2510.25674, for the notion; the procedure is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.events import check_driven, switches_of
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import Run, outputs_of, reference_run
from seqdyn.analysis.screens import Change, bootstrap_chains, hazards, interval, reduction, screen
from seqdyn.analysis.signatures import (
    Direction,
    auc,
    contrast,
    directions_of,
    drives_of,
    triggered_mean,
)
from seqdyn.analysis.stays import Stays, region_of, stays
from seqdyn.dynamics.maps import MapDynamics, drive_of
from seqdyn.dynamics.symbols import SymbolKind
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["kick_units"]

_SOON = 5  # steps within which a switch counts as foreseen
_NEAR = 0.5  # standard deviations from threshold that count as near


@over_conditions
def kick_units(
    dynamics: MapDynamics,
    *,
    num_steps: int,
    seed: int | None = None,
    num_units: int | None = None,
    max_units: int = 10,
    min_effect: float = 0.05,
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    symbol: SymbolKind = "argmax",
    min_dwell: int = 8,
    min_switches: int = 20,
    restart: int = 40,
    num_states: int = 4000,
    num_resamples: int = 1000,
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Find the kick units and the kick-zone of every direction.

    Args:
        dynamics: A map with readout, input and preactivation.
        num_steps: Steps of all chains together, in the reference run and in each unit's silencing.
        seed: Seed; ``None`` draws one from the ambient stream.
        num_units: Size of the group of each direction; by default at the largest drop of the scores. A given
            size takes the first units of the ranking, also those that do not pass (by cause).
        max_units: Largest group that the drop may give.
        min_effect: Least relative reduction of the switches by silencing a kick unit alone.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side, the unit of the bootstrap.
        burn_in: Steps of each chain before those that count.
        symbol: How symbols come from the outputs, ``"argmax"`` or ``"sampled"``.
        min_dwell: Least steps in the symbol on both sides of a switch in the event-triggered mean.
        min_switches: Least switches of a direction that is looked at.
        restart: Steps after which a silenced copy is put back on the undisturbed states.
        num_states: States of the reference run from which residence is measured.
        num_resamples: Bootstrap resamples.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``direction, unit, lag, region_name, bound, sample, pc``. Per (direction, unit):
        ``is_kick``, ``kick_rank`` (1 is first), ``score``, ``causal_effect`` (relative reduction of the
        switches per step in the symbol left, silenced), ``recurrent_effect`` (the same with the recurrent
        drive set to 0), their intervals ``causal_ci`` and ``recurrent_ci`` (…, bound), ``collateral``,
        ``auc``, ``contrast``, ``event_mean_z`` (…, lag); ``region_mean_z (direction, region_name, unit)``.
        Per direction: ``before``, ``after``, ``num_switches``, ``num_events``. Per sample: ``region``,
        ``residence_time``, ``symbol``, ``drive`` (…, unit), ``scores`` (…, pc), and ``kick_zone`` (direction,
        sample): states of the kick-zone at which the kick units are within half a standard deviation of
        threshold. NaN where there was nothing to average, or without the unit the activity diverges.

    Raises:
        ValueError: If the map lacks a readout, an input or a preactivation, or no direction has enough
            switches.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    drive_of(dynamics)
    check_count(min_dwell, "min_dwell", least=6)
    if num_units is not None and check_count(num_units, "num_units") > dynamics.state_size:
        raise ValueError(f"num_units={num_units} is more than the {dynamics.state_size} units there are.")
    seed = ambient_seed(seed)
    options: dict[str, Any] = {"sigma": sigma, "symbol": symbol, "input": input}
    with fork_rng(seed), torch.no_grad():
        run = reference_run(
            dynamics, num_steps=num_steps, num_chains=num_chains, burn_in=burn_in, start=start, **options
        )
        assert run.symbol is not None
        directions = directions_of(switches_of(run.symbol), min_switches)
        if not directions:
            raise ValueError(
                f"no symbol follows another {min_switches} times in {run.symbol[:, 1:].numel()} steps; "
                "raise num_steps, or lower min_switches."
            )
        drive = drives_of(dynamics, run)
        data = _traces(drive, run, directions, min_dwell)
        data = data.merge(_foresight(dynamics, run, drive, directions, num_states, options))
        resamples = bootstrap_chains(len(run.hidden), num_resamples, seed)
        data = data.merge(_causes(dynamics, run, directions, restart, options, resamples))
    data = _ranked(data, num_units, max_units, min_effect)
    attrs = attributes(run.hidden, seed=seed, sigma=sigma)
    attrs |= {
        "num_steps": num_steps,
        "num_chains": len(run.hidden),
        "symbol_kind": symbol,
        "min_dwell": min_dwell,
    }
    return data.assign(kick_zone=_kick_zone(data)).assign_attrs(attrs)


def _traces(drive: Tensor, run: Run, directions: list[Direction], min_dwell: int) -> xr.Dataset:
    """Event-triggered means and their contrast."""
    assert run.symbol is not None
    switches, values = switches_of(run.symbol), drive.cpu().numpy()
    lags = np.arange(-max(20, min_dwell), max(10, min_dwell) + 1)
    spread = values[:, 1:].std(axis=(0, 1))
    spread = np.where(spread > 0, spread, np.nan)
    found = [triggered_mean(values, switches, one, lags, min_dwell) for one in directions]
    counts = [
        int(((switches.before == one.before) & (switches.after == one.after)).sum()) for one in directions
    ]
    return xr.Dataset(
        {
            "event_mean_z": (("direction", "unit", "lag"), np.stack([means for means, _ in found])),
            "contrast": (
                ("direction", "unit"),
                np.stack([contrast(means, lags, spread, min_dwell) for means, _ in found]),
            ),
            "sd_z": ("unit", spread),
            "num_events": ("direction", [count for _, count in found]),
            "num_switches": ("direction", counts),
            "before": ("direction", [one.before for one in directions]),
            "after": ("direction", [one.after for one in directions]),
        },
        coords={"direction": [one.label for one in directions], "lag": lags},
    )


def _foresight(
    dynamics: MapDynamics,
    run: Run,
    drive: Tensor,
    directions: list[Direction],
    num_states: int,
    options: dict[str, Any],
) -> xr.Dataset:
    """Residence of states of the run, drives in its regions, and what they foretell."""
    assert run.symbol is not None
    num_chains, length = run.noise.shape[:2]
    count = min(check_count(num_states, "num_states"), num_chains * length)
    chosen = torch.randperm(num_chains * length, device=run.hidden.device)[:count]
    states, z = run.states.flatten(0, 1)[chosen], drive[:, 1:].flatten(0, 1)[chosen].cpu().numpy()
    plane = fit_plane(states, min(3, dynamics.state_size))
    found = stays(dynamics, states, num_runs=20, max_steps=60, **options)
    confidence = torch.softmax(outputs_of(dynamics, states), dim=-1).amax(dim=-1).cpu().numpy()
    symbol = run.symbol[:, 1:].flatten()[chosen].cpu().numpy()
    time = found.steps.double().mean(dim=1).cpu().numpy()
    region = region_of(time, confidence)
    names = ["cluster", "kick-zone", "transition"]
    means = np.full((len(directions), len(names), z.shape[1]), np.nan)
    areas = np.empty((len(directions), z.shape[1]))
    for at, one in enumerate(directions):
        ends, soon = _shares(found, one.after)
        for where, name in enumerate(names):
            weight = ends * ((symbol == one.before) & (region == name))
            if weight.sum() > 0:
                means[at, where] = weight @ z / weight.sum()
        zone = (symbol == one.before) & (region == "kick-zone")
        areas[at] = auc(z[zone], soon[zone], 1 - soon[zone])
    return xr.Dataset(
        {
            "region_mean_z": (("direction", "region_name", "unit"), means),
            "auc": (("direction", "unit"), areas),
            "residence_time": ("sample", time),
            "region": ("sample", region),
            "symbol": ("sample", symbol),
            "drive": (("sample", "unit"), z),
            "scores": (("sample", "pc"), plane.scores(states).cpu().numpy()),
        },
        coords={"region_name": names},
    )


def _shares(found: Stays, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of each state's runs that reach a symbol first, and of those that do so soon."""
    there = found.reached == after
    soon = there & (found.steps <= _SOON)
    return there.double().mean(dim=1).cpu().numpy(), soon.double().mean(dim=1).cpu().numpy()


def _causes(
    dynamics: MapDynamics,
    run: Run,
    directions: list[Direction],
    restart: int,
    options: dict[str, Any],
    resamples: np.ndarray,
) -> xr.Dataset:
    """Effect of each unit alone on each direction, for both kinds of change."""
    size, device = dynamics.state_size, run.hidden.device
    sets = torch.cat([torch.zeros(1, size, dtype=torch.bool), torch.eye(size, dtype=torch.bool)]).to(device)
    data = xr.Dataset()
    changes: dict[str, Change] = {"causal": "silence", "recurrent": "recurrent"}
    for name, change in changes.items():
        moves = screen(
            dynamics,
            sets,
            run.hidden[:, -1],
            num_steps=run.noise.shape[1],
            restart=check_count(restart, "restart"),
            change=change,
            **options,
        )
        rates = hazards(moves.sum(axis=1))
        drawn = hazards(np.einsum("rn,snab->rsab", resamples, moves))
        effects = _of_directions(reduction(rates[1:], rates[:1]), directions)
        spread = _of_directions(reduction(drawn[:, 1:], drawn[:, :1]), directions)
        data[f"{name}_effect"] = (("direction", "unit"), effects)
        data[f"{name}_ci"] = (
            ("direction", "unit", "bound"),
            np.moveaxis(interval(spread, axis=1), 0, -1),
        )
        if change == "silence":
            leaving = np.nansum(rates, axis=-1)  # by any way, per step in the symbol
            data["collateral"] = (
                ("direction", "unit"),
                np.stack([-reduction(leaving[1:, one.after], leaving[0, one.after]) for one in directions]),
            )
    return data.assign_coords(bound=["low", "high"])


def _of_directions(values: np.ndarray, directions: list[Direction]) -> np.ndarray:
    """Entries (..., S, K, K) of the directions, as (D, ..., S)."""
    return np.stack([values[..., one.before, one.after] for one in directions])


def _ranked(data: xr.Dataset, num_units: int | None, max_units: int, min_effect: float) -> xr.Dataset:
    """Score, rank and group of each direction."""
    cause = data.causal_effect - data.collateral.clip(min=0)
    score = cause.clip(min=0) * (data.auc - 0.5).clip(min=0) * data.contrast.clip(min=0, max=1)
    score = score.fillna(0.0)
    passes = (score > 0) & (data.causal_effect >= min_effect) & (data.causal_ci.sel(bound="low") > 0)
    rank, kick = np.empty(score.shape, dtype=int), np.zeros(score.shape, dtype=bool)
    for at in range(len(score)):
        # Units that pass come first, by score; the others follow in the order of their cause.
        scores = np.where(passes.values[at], score.values[at], 0.0)
        order = np.lexsort((-data.causal_effect.values[at], -scores))  # NaN last
        rank[at, order] = np.arange(1, len(order) + 1)
        size = _group_size(scores[order], max_units)
        kick[at, order[: num_units or size]] = True
    dims = ("direction", "unit")
    return data.assign(score=score, kick_rank=(dims, rank), is_kick=(dims, kick))


def _group_size(scores: np.ndarray, most: int) -> int:
    """Number of sorted scores above their largest drop; 0 where there is no positive one."""
    drops = scores[:most] - np.append(scores[1:], 0.0)[:most]
    return int(drops.argmax()) + 1 if scores[0] > 0 else 0


def _kick_zone(data: xr.Dataset) -> xr.DataArray:
    """States of the kick-zone, in the symbol left, with the kick units near threshold."""
    level = (data.drive / data.sd_z).where(data.is_kick).mean("unit")
    near = abs(level) < _NEAR
    return ((data.region == "kick-zone") & (data.symbol == data.before) & near).transpose(
        "direction", "sample"
    )
