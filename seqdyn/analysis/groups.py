"""Whether a group of units causes the transitions, against random groups like it.

Units of a trained network are redundant, and random groups change the rate of transitions too. The claim that
these units cause the transitions therefore needs that removing them lowers the rate by more than removing
nearly any group of the same size and the same mean activity does, under the same noise.

A rate can also fall because a symbol is hardly ever reached any more, or left at once: its own units are
gone. Then that symbol is left *more* often per step spent in it. This is measured on copies that are put
back on the undisturbed states every few steps, so that they visit all symbols. The claim therefore also needs
that, over all directions, switches per step in the symbol left become fewer on the whole, again by more than
without nearly any random group; and that at least half of them go in some direction: units that are special,
but whose removal leaves most of the switches, take part in the transitions and do not cause them.

A group that was chosen for its effect is special by that choice alone. The claim then says what its removal
does, not that the network has kick units: in untrained networks groups chosen by :func:`greedy_group` mostly
pass too. :func:`kick_units` asks for more than an effect.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.events import check_driven
from seqdyn.analysis.runs import reference_run, start_chains
from seqdyn.analysis.screens import (
    Change,
    bootstrap_chains,
    hazards,
    interval,
    reduction,
    screen,
    switch_rate,
)
from seqdyn.analysis.units import Units, unit_indices
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.symbols import SymbolKind
from seqdyn.errors import NonFiniteError
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["CAUSE", "NO_GROUP", "PART", "greedy_group", "group_effect", "matched_groups"]

CAUSE, NO_GROUP = "these units cause the transitions", "no separable kick group"
PART = "these units take part in the transitions"
CRITERIA = ("rank", "interval", "hazard", "size")
_LEAST_RANK = 0.95
_LEAST_EFFECT = 0.5  # of the switches of a direction, to be called their cause
_PROBE_STEPS = 50  # of each chain, for the mean activity of units
_DRAWS = 20  # random groups drawn for each one kept
_MOST_TILT = 2.0  # most preference for active units, per standard deviation of activity


@over_conditions
def group_effect(
    dynamics: MapDynamics,
    units: Units,
    *,
    num_steps: int = 100_000,
    num_random: int = 200,
    seed: int | None = None,
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    symbol: SymbolKind = "argmax",
    restart: int = 40,
    num_resamples: int = 1000,
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Compare removing a group of units with removing random groups like it, under common noise.

    Args:
        dynamics: A map with readout and input.
        units: Indices of the units of the group, or a truth value for each unit. Take care that they were
            chosen under another seed: noise that was used to choose them flatters them.
        num_steps: Steps of all chains together, for every group.
        num_random: Random groups of other units; all there are, if there are fewer.
        seed: Seed; ``None`` draws one from the ambient stream.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side, for every group.
        burn_in: Steps of each chain before those that count, with the units removed.
        symbol: How symbols come from the outputs, ``"argmax"`` or ``"sampled"``.
        restart: Steps after which copies are put back to measure ``hazard_effect``.
        num_resamples: Bootstrap resamples over chains.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``change, criterion, bound, group, group_unit, symbol, symbol_next``. ``change``
        is ``silence`` (activity 0) or ``recurrent`` (recurrent drive 0). ``reference_rate`` (switches per
        step), ``rate``, ``effect`` (relative reduction of the rate), ``rank`` (share of random groups with a
        smaller effect), ``verdict`` (change); ``effect_ci`` (change, bound); ``criterion_met`` (change,
        criterion), on all of which the verdict rests: ``rank`` of at least 95 %, the whole ``interval`` of
        the effect above 0, ``hazard``, the same two of the mean hazard effect, and ``size``, a hazard effect
        of one half or more in some direction, without which the units only take part; ``random_effect``
        (change, group);
        ``random_unit`` (group, group_unit); ``group_activity`` and ``random_activity`` (group), mean absolute
        activity without a change; ``direction_effect`` and ``hazard_effect`` (change, symbol, symbol_next),
        reduction of the switches of each direction per step and, with copies put back, per step spent in the
        symbol left, NaN where there is nothing to compare; ``mean_hazard_effect`` (change), mean of the
        latter over directions, with ``mean_hazard_effect_ci`` (change, bound), ``hazard_rank`` (change) and
        ``random_hazard_effect`` (change, group); ``symbol_share`` (change, symbol) with the group removed.
        The attribute ``verdict`` is that of silencing. Groups without which the activity diverges are NaN;
        such a random group counts against the rank. Attribute ``reason`` where no random group is as active
        as this one.

    Raises:
        ValueError: If the units are none, unknown, repeated or too many, or there is no switch at all.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    chosen = _checked(units, dynamics.state_size)
    check_count(num_random, "num_random")
    check_count(restart, "restart")
    seed = ambient_seed(seed)
    states, length = start_chains(dynamics, start, num_chains, num_steps)
    options: dict[str, Any] = {"sigma": sigma, "symbol": symbol, "input": input}
    with fork_rng(seed), torch.no_grad():
        probe = reference_run(dynamics, num_steps=_PROBE_STEPS * len(states), start=states, **options)
        activity = probe.hidden.abs().mean(dim=(0, 1)).double().cpu().numpy()
        others = matched_groups(activity, chosen, num_random, np.random.default_rng(seed % 2**64))
        hidden = probe.hidden[:, -1]
        sets = _masks([chosen[:0], chosen, *others], hidden)
        found = []
        for change in get_args(Change):
            with fork_rng(seed):  # both kinds of change see the same noise
                options |= {"change": change, "num_steps": length}
                moves = screen(dynamics, sets, hidden, burn_in=burn_in, **options)
                back = screen(dynamics, sets, hidden, restart=restart, **options)
                found.append((moves, back))
    resamples = bootstrap_chains(len(states), num_resamples, seed)
    data = xr.concat([_effects(*moves, resamples) for moves in found], dim="change")
    data = data.assign_coords(change=list(get_args(Change)), bound=["low", "high"], criterion=list(CRITERIA))
    data["random_unit"] = (("group", "group_unit"), np.stack(others))
    data["random_activity"] = ("group", activity[np.stack(others)].mean(axis=1))
    data["group_activity"] = activity[chosen].mean()
    if not data.random_activity.min() <= data.group_activity <= data.random_activity.max():
        data.attrs["reason"] = (
            f"no other group is as active: {float(data.group_activity):.3g} on average, the random ones "
            f"{float(data.random_activity.min()):.3g} to {float(data.random_activity.max()):.3g}, so that "
            "the ranks compare unlike groups"
        )
    attrs = attributes(hidden, seed=seed, sigma=sigma)
    attrs |= {"units": chosen, "num_steps": length * len(states), "num_chains": len(states)}
    return data.assign_attrs(attrs | {"symbol_kind": symbol, "verdict": str(data.verdict.values[0])})


@over_conditions
def greedy_group(
    dynamics: MapDynamics,
    num_units: int,
    *,
    num_steps: int = 20_000,
    seed: int | None = None,
    change: Change = "silence",
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    symbol: SymbolKind = "argmax",
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Add, one by one, the unit whose removal lowers the rate of switches most; and remove each alone.

    This is about the most that a group of that size can do, by whatever mechanism: the usual one is to take
    one symbol out of reach, which is no proof of kicks. Judge the group by :func:`group_effect` under another
    seed, and look at its ``hazard_effect``.

    Args:
        dynamics: A map with readout and input.
        num_units: Units of the group.
        num_steps: Steps of all chains together, for every candidate.
        seed: Seed; ``None`` draws one from the ambient stream.
        change: ``"silence"``, or ``"recurrent"`` for the recurrent drive set to 0.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side, for every candidate.
        burn_in: Steps of each chain before those that count, with the units removed.
        symbol: How symbols come from the outputs.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``order, unit``: ``chosen`` and ``effect`` (order), the units and the relative
        reduction of the rate with all up to them removed, under the noise that chose them;
        ``single_effect (unit)``, each alone. Units without which the activity diverges are NaN and never
        chosen.

    Raises:
        ValueError: If the map has no readout or input, or there are fewer units.
        NonFiniteError: If the activity diverges whichever further unit is removed.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    size = dynamics.state_size
    if check_count(num_units, "num_units") > size:
        raise ValueError(f"num_units={num_units} is more than the {size} units there are.")
    seed = ambient_seed(seed)
    hidden, length = start_chains(dynamics, start, num_chains, num_steps)
    options: dict[str, Any] = {"burn_in": burn_in, "sigma": sigma, "change": change, "symbol": symbol}
    options["input"] = input
    chosen: list[int] = []
    found = []
    with fork_rng(seed), torch.no_grad():
        for _ in range(num_units):
            sets = torch.cat([torch.zeros(1, size), torch.eye(size)]).bool()  # no unit, then one each
            sets[1:, chosen] = True
            moves = screen(dynamics, sets.to(hidden.device), hidden, num_steps=length, **options)
            rate = switch_rate(moves.sum(axis=1))
            effect = reduction(rate[1:], rate[0])
            found.append(effect)
            taken = np.isin(np.arange(size), chosen) | np.isnan(effect)
            if taken.all():
                raise NonFiniteError(
                    f"the activity diverges whichever unit is removed beside {chosen}; take fewer units: "
                    f"num_units={len(chosen)}."
                )
            chosen.append(int(np.where(taken, -np.inf, effect).argmax()))
    data = xr.Dataset(
        {
            "chosen": ("order", chosen),
            "effect": ("order", [effect[unit] for effect, unit in zip(found, chosen, strict=True)]),
            "single_effect": ("unit", found[0]),
        },
        coords={"order": np.arange(1, num_units + 1)},
    )
    return data.assign_attrs(attributes(hidden, seed=seed, sigma=sigma, change=change))


def matched_groups(
    activity: np.ndarray, units: np.ndarray, num_groups: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Random groups of other units, of the same size and of mean activity as close as can be had.

    Where there are few groups at all, all are looked at. Otherwise units are drawn with weights exp(β ·
    activity), β such that groups match on average; it is bounded, so that the groups of an extreme one are
    not always the same. Of several times as many different groups, those with the closest mean activity are
    kept.

    Args:
        activity: Mean activity of each unit, (H,).
        units: The group to match.
        num_groups: Groups to return, or all if there are fewer.
        rng: Source of randomness.
    """
    others = np.setdiff1d(np.arange(len(activity)), units)
    if math.comb(len(others), len(units)) <= _DRAWS * num_groups:
        every = rng.permutation(np.array(list(itertools.combinations(others, len(units)))))
        return _closest(every, activity, units, num_groups)
    spread, target = activity[others].std(), activity[units].mean()
    keys = rng.gumbel(size=(_DRAWS * num_groups, len(others)))

    def draw(tilt: float) -> np.ndarray:
        order = (-keys - tilt * activity[others]).argsort(axis=1)[:, : len(units)]
        return np.unique(np.sort(others[order], axis=1), axis=0)

    low, high = (-_MOST_TILT / spread, _MOST_TILT / spread) if spread > 0 else (0.0, 0.0)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if activity[draw(middle)].mean() < target else (low, middle)
    drawn = draw((low + high) / 2)
    return _closest(drawn, activity, units, num_groups)


def _closest(groups: np.ndarray, activity: np.ndarray, units: np.ndarray, count: int) -> list[np.ndarray]:
    """The groups (G, n) whose mean activity is closest to that of the units."""
    distance = np.abs(activity[groups].mean(axis=1) - activity[units].mean())
    return list(groups[np.argsort(distance, kind="stable")[:count]])


def _effects(moves: np.ndarray, back: np.ndarray, resamples: np.ndarray) -> xr.Dataset:
    """Effects of one kind of change.

    Args:
        moves: Moves (S, N, K, K) with nothing, the group and random groups removed.
        back: The same, put back on undisturbed states every few steps.
        resamples: How often each chain is drawn, (R, N).
    """
    pooled, off = moves.sum(axis=1), 1 - np.eye(moves.shape[-1])
    rate = switch_rate(pooled)
    if rate[0] == 0:
        raise ValueError("the symbol never changes without any intervention; raise num_steps or sigma.")
    effect = reduction(rate, rate[0])
    drawn = switch_rate(np.einsum("rn,snab->srab", resamples, moves[:2]))
    low, high = interval(reduction(drawn[1], drawn[0]))
    hazard = _hazard_effects(back.sum(axis=1))
    overall = _mean_over_directions(hazard, off * pooled[0])
    drawn_hazard = _hazard_effects(np.einsum("rn,snab->srab", resamples, back[:2]))
    hazard_low, hazard_high = interval(_mean_over_directions(drawn_hazard[0], off * pooled[0]))
    rank, hazard_rank = (float((x[1:] < x[0]).mean()) for x in (effect[1:], overall))
    met = [
        rank >= _LEAST_RANK,
        bool(low > 0),
        hazard_rank >= _LEAST_RANK and bool(hazard_low > 0),
        bool((hazard[0] >= _LEAST_EFFECT).any()),
    ]
    return xr.Dataset(
        {
            "reference_rate": rate[0],
            "rate": rate[1],
            "effect": effect[1],
            "effect_ci": ("bound", [low, high]),
            "rank": rank,
            "random_effect": ("group", effect[2:]),
            "direction_effect": (("symbol", "symbol_next"), reduction(off * pooled[1], off * pooled[0])),
            "hazard_effect": (("symbol", "symbol_next"), hazard[0]),
            "mean_hazard_effect": overall[0],
            "mean_hazard_effect_ci": ("bound", [hazard_low, hazard_high]),
            "hazard_rank": hazard_rank,
            "random_hazard_effect": ("group", overall[1:]),
            "symbol_share": ("symbol", pooled[1].sum(axis=1) / pooled[1].sum()),
            "criterion_met": ("criterion", met),
            "verdict": CAUSE if all(met) else PART if all(met[:3]) else NO_GROUP,
        }
    )


def _hazard_effects(moves: np.ndarray) -> np.ndarray:
    """Reduction of the switches of each direction per step in the symbol left, (S - 1, ..., K, K).

    Args:
        moves: Moves (S, ..., K, K), the first ones without any change.
    """
    found = hazards(moves)
    return reduction(found[1:], found[:1])


def _mean_over_directions(effects: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean (...) of the known effects (..., K, K); directions weigh by their switches without any change."""
    known = np.where(np.isfinite(effects), weights, 0.0)
    total = known.sum(axis=(-2, -1))
    mean = (known * np.where(known > 0, effects, 0.0)).sum(axis=(-2, -1))
    return np.divide(mean, total, out=np.full(total.shape, np.nan), where=total > 0)


def _masks(groups: list[np.ndarray], like: Tensor) -> Tensor:
    """Units of each group, (S, H) bool."""
    masks = np.zeros((len(groups), like.shape[-1]), dtype=bool)
    for row, group in zip(masks, groups, strict=True):
        row[group] = True
    return torch.from_numpy(masks).to(like.device)


def _checked(units: Units, size: int) -> np.ndarray:
    found = unit_indices(units, size)
    if len(found) == 0:
        raise ValueError("units names no unit; those of a direction are kicks.is_kick.sel(direction='0->2').")
    if 2 * len(found) > size:
        raise ValueError(
            f"a group of {len(found)} leaves only {size - len(found)} other units, too few for random groups "
            "of its size; choose at most half of the units."
        )
    return np.sort(found)
