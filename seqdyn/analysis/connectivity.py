r"""Connectivity around two groups of units: who drives them apart, and whether that integrates noise.

For groups G₁ and G₂ and recurrent weights W, :math:`g_{1j}` is the mean weight from unit j onto G₁. Units
that excite one group and inhibit the other, with the most negative :math:`g_{1j} g_{2j}`, form P₁
(for G₁, against G₂) and P₂. Block means of W say how the four sets act on each other; a permutation of the
unit labels says which of them chance would give.

Source: Torre et al. (2025), arXiv 2510.25674; the tests are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.events import check_driven, switches_of
from seqdyn.analysis.jacobians import drive_matrices
from seqdyn.analysis.runs import Run, outputs_of, reference_run
from seqdyn.analysis.signatures import auc
from seqdyn.analysis.units import unit_indices
from seqdyn.dynamics.arguments import as_input
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["populations"]

SETS = ("group 1", "group 2", "population 1", "population 2")
_SOON = 5  # steps ahead that integrated noise is asked to foretell


@over_conditions
def populations(
    dynamics: MapDynamics,
    groups: Sequence[Sequence[int]],
    *,
    num_steps: int,
    seed: int | None = None,
    top_k: int | None = None,
    num_permutations: int = 10_000,
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Find the populations around two groups, test their connections and what they integrate.

    Args:
        dynamics: A map with readout, input and a drive that is linear in both.
        groups: Indices of the units of the two groups, for instance the kick units of two directions.
        num_steps: Steps of all chains together.
        seed: Seed; ``None`` draws one from the ambient stream.
        top_k: Most units of both populations together; 7 of 15 units by default.
        num_permutations: Permutations of the unit labels.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side.
        burn_in: Steps of each chain before those that count.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``unit, neuron_set`` (groups 1 and 2, populations 1 and 2), ``neuron_set_to,
        neuron_set_from, unit_out, chain, time, symbol``. ``population (unit)``: 1, 2 or 0 for neither;
        ``group (unit)`` likewise; ``block_mean (neuron_set_to, neuron_set_from)``, mean weight between
        different units; ``block_p``, two-sided permutation p-value; ``sorted_W (unit_out, unit)``, from unit
        to unit_out, ordered by the set, with ``order (unit)``; ``mean_activity (neuron_set, chain, time)``
        and ``symbol_trace (chain, time)`` of eight chains; ``integration_auc (symbol)``: how well the noise
        summed since the symbol was entered, projected on the populations' input, foretells that it is left
        within 5 steps (above ½: pushed towards group 1, below: towards group 2; ½ says nothing); NaN without
        populations or for a symbol never left.

    Raises:
        ValueError: If there are not two separate groups, or the drive is not linear.
    """
    check_driven(dynamics, sigma=sigma)
    first, second = _checked(groups, dynamics.state_size)
    count = 7 * dynamics.state_size // 15 if top_k is None else check_count(top_k, "top_k")
    seed = ambient_seed(seed)
    with fork_rng(seed), torch.no_grad():
        run = reference_run(
            dynamics,
            num_steps=num_steps,
            num_chains=num_chains,
            burn_in=burn_in,
            sigma=sigma,
            start=start,
            input=input,
        )
    weights, input_weights, _ = drive_matrices(dynamics, run.hidden)
    recurrent = weights.double().cpu().numpy()
    contrast = recurrent[first].mean(axis=0) - recurrent[second].mean(axis=0)
    label = _populations(recurrent, first, second, count)
    sets = [first, second, np.flatnonzero(label == 1), np.flatnonzero(label == 2)]
    means, p_value = _blocks(recurrent, sets, num_permutations, np.random.default_rng(seed % 2**64))
    data = _traces(run, sets)
    rest = np.setdiff1d(np.arange(len(label)), np.concatenate(sets))
    order = np.concatenate([*sets, rest])
    group = np.zeros(len(label), dtype=int)
    group[first], group[second] = 1, 2
    block = ("neuron_set_to", "neuron_set_from")
    data = data.assign(
        population=("unit", label),
        group=("unit", group),
        block_mean=(block, means),
        block_p=(block, p_value),
        sorted_W=(("unit_out", "unit"), recurrent[np.ix_(order, order)]),
        order=("unit", order),
        integration_auc=(
            "symbol",
            _integration(dynamics, run, np.where(label > 0, contrast, 0.0), input_weights, input),
        ),
    ).assign_coords(neuron_set=list(SETS), neuron_set_to=list(SETS), neuron_set_from=list(SETS))
    return data.assign_attrs(attributes(run.hidden, seed=seed, sigma=sigma))


def _populations(recurrent: np.ndarray, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Population of each unit, 1 or 2, 0 for neither; members of the groups are in none."""
    onto_first, onto_second = recurrent[first].mean(axis=0), recurrent[second].mean(axis=0)
    product = onto_first * onto_second
    product[np.concatenate([first, second])] = np.inf
    chosen = np.argsort(product)[:count]
    chosen = chosen[product[chosen] < 0]
    label = np.zeros(len(product), dtype=int)
    label[chosen] = np.where(onto_first[chosen] > 0, 1, 2)
    return label


def _blocks(
    recurrent: np.ndarray, sets: list[np.ndarray], num_permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Block means (to, from) and p-values of their size under shuffled labels; NaN for empty blocks."""
    size = len(recurrent)
    off = recurrent * (1 - np.eye(size))
    member = np.zeros((len(sets), size))
    for row, units in zip(member, sets, strict=True):
        row[units] = 1
    pairs = member @ (1 - np.eye(size)) @ member.T

    def means(labels: np.ndarray) -> np.ndarray:
        total = labels @ off @ labels.T
        return np.divide(total, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)

    found, overall = means(member), off.sum() / (size * (size - 1))
    # The distance from the overall mean: a block of any random labels has that expectation.
    beyond = np.zeros(pairs.shape)
    for _ in range(check_count(num_permutations, "num_permutations")):
        shuffled = means(member[:, rng.permutation(size)])
        beyond += np.abs(shuffled - overall) >= np.abs(found - overall)
    p_value = np.where(pairs > 0, (beyond + 1) / (num_permutations + 1), np.nan)
    return found, p_value


def _traces(run: Run, sets: list[np.ndarray]) -> xr.Dataset:
    assert run.symbol is not None
    hidden = run.hidden[:8].cpu().numpy()
    empty = np.full(hidden.shape[:2], np.nan)
    activity = [hidden[:, :, units].mean(axis=-1) if len(units) else empty for units in sets]
    return xr.Dataset(
        {
            "mean_activity": (("neuron_set", "chain", "time"), np.stack(activity)),
            "symbol_trace": (("chain", "time"), run.symbol[:8].cpu().numpy()),
        }
    )


def _integration(
    dynamics: MapDynamics, run: Run, direction: np.ndarray, weights: Tensor, input: Any
) -> np.ndarray:
    """AUC, for each symbol, of the noise summed since it was entered, for leaving it soon, (K,)."""
    assert run.symbol is not None
    switches, symbol = switches_of(run.symbol), run.symbol.cpu().numpy()
    vector = torch.from_numpy(direction).to(weights) @ weights
    constant = as_input(dynamics, input, run.noise)
    noise = run.noise if constant is None else run.noise - constant
    pushed = (noise @ vector).double().cumsum(dim=1).cpu().numpy()
    total = np.concatenate([np.zeros_like(pushed[:, :1]), pushed], axis=1)  # up to each state
    summed, soon = np.full(symbol.shape, np.nan), np.zeros(symbol.shape)
    whole = np.diff(switches.chain, append=-1) == 0
    for at in np.flatnonzero(whole):
        chain, enter, leave = switches.chain[at], switches.time[at], switches.time[at + 1]
        summed[chain, enter:leave] = total[chain, enter:leave] - total[chain, enter]
        soon[chain, max(enter, leave - _SOON) : leave] = 1
    num_symbols = outputs_of(dynamics, run.hidden[:1, :1]).shape[-1]
    if not direction.any():
        return np.full(num_symbols, np.nan)
    areas = []
    for one in range(num_symbols):
        inside = (symbol == one) & np.isfinite(summed)
        areas.append(auc(summed[inside][:, None], soon[inside], 1 - soon[inside])[0])
    return np.array(areas)


def _checked(groups: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    found = [unit_indices(group, size) for group in groups]
    if len(found) != 2 or not all(map(len, found)):
        raise ValueError("groups must be two lists of unit indices, such as [[3, 8], [5, 12]].")
    both = sorted(set(found[0].tolist()) & set(found[1].tolist()))
    if both:
        raise ValueError(f"no unit may be in both groups, got {both} in both.")
    return found[0], found[1]
