r"""How long a state keeps its symbol, and where the transitions are.

From each state, several independent noisy continuations run until the symbol changes. The residence time is
the mean number of steps, the switching step counted, runs still going after ``max_steps`` counted as that
many. Along a run the output of the state's own symbol rises and falls: the number of changes of sign of
:math:`\ell_k(h_{t}) - \ell_k(h_{t-1})` says how often it turned.

Regions: ``transition`` below 2 steps, ``kick-zone`` from 2 to 8, ``cluster`` above 8 with a softmax of more
than 0.8 for the symbol; everything else is ``unassigned``.

Source: Torre et al. (2025), arXiv 2510.25674; the region of the rest is ours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.events import check_driven
from seqdyn.analysis.jacobians import count_eigenvalues, spectra
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import outputs_of, readout_of
from seqdyn.dynamics.arguments import as_input, state_set
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive
from seqdyn.dynamics.symbols import SymbolKind, symbols_of
from seqdyn.errors import NonFiniteError
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["REGIONS", "Stays", "region_of", "residence", "stays"]

REGIONS = ("transition", "kick-zone", "cluster", "unassigned")
_BLOCK = 8192  # rows that advance together: their activity fits the cache


class Stays(NamedTuple):
    """What happened on each of R runs from each of S states; all (S, R).

    Attributes:
        steps: Steps until the symbol changed, or ``max_steps``.
        censored: Whether it never changed.
        sign_changes: Turns of the output of the first symbol.
        reached: Symbol after the change; -1 where there was none.
    """

    steps: Tensor
    censored: Tensor
    sign_changes: Tensor
    reached: Tensor


@over_conditions
def residence(
    dynamics: MapDynamics,
    start: Any,
    *,
    num_runs: int = 20,
    max_steps: int = 60,
    sigma: float = 1.0,
    noise: Tensor | None = None,
    symbol: SymbolKind = "argmax",
    jacobians: bool = False,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Measure the residence time of states and sort them into regions.

    Args:
        dynamics: A map with a readout, driven by noise.
        start: States (..., H), for instance of a driven run.
        num_runs: Continuations of each state.
        max_steps: Most steps of a continuation.
        sigma: Standard deviation of the noise on each input.
        noise: Standard normal draws to use, (S, num_runs, max_steps, X), multiplied by ``sigma``; fresh ones
            by default.
        symbol: ``"argmax"`` of the outputs, or ``"sampled"`` from their softmax.
        jacobians: Whether to count the unstable eigenvalues of the noise-free Jacobian at each state, which
            takes milliseconds a state.
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of the noise; ``None`` draws from the ambient stream.

    Returns:
        Dataset with the dims ``sample, unit, pc, region_name``: ``residence_time``, ``residence_sd``,
        ``censored_fraction``, ``sign_changes`` (mean over runs), ``symbol``, ``confidence`` (softmax of the
        symbol), ``region`` and, if asked for, ``n_unstable``, all (sample); ``hidden (sample, unit)`` and
        ``scores (sample, pc)`` on the principal axes of the states; ``region_share``,
        ``region_residence_time``, ``region_sign_changes`` (and ``region_n_unstable``) (region_name), NaN for
        an empty region. Times are in steps.

    Raises:
        ValueError: If the map has no readout or input, or an argument does not fit.
        NonFiniteError: If the activity diverges.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    states = state_set(dynamics, start)
    num_runs, max_steps = check_count(num_runs, "num_runs"), check_count(max_steps, "max_steps")
    wanted = (len(states), num_runs, max_steps, dynamics.input_size)
    noise = None if noise is None else torch.as_tensor(noise)
    if noise is not None and tuple(noise.shape) != wanted:
        raise ValueError(
            f"noise must have shape {wanted} (sample, run, step, input), got {tuple(noise.shape)}."
        )
    seed = ambient_seed(seed)
    with fork_rng(seed), torch.no_grad():
        found = stays(
            dynamics,
            states,
            num_runs=num_runs,
            max_steps=max_steps,
            sigma=sigma,
            noise=noise,
            symbol=symbol,
            input=input,
        )
    data = _dataset(dynamics, states, found)
    if jacobians:
        u = as_input(dynamics, input, states)
        values = spectra(dynamics, states, None if u is None else u.expand(len(states), -1))
        data["n_unstable"] = ("sample", count_eigenvalues(values).unstable)
    attrs = attributes(states, seed=seed, sigma=sigma)
    attrs |= {"num_runs": num_runs, "max_steps": max_steps, "symbol_kind": symbol, "units": "steps"}
    return data.merge(_region_means(data)).assign_attrs(attrs)


def stays(
    dynamics: MapDynamics,
    states: Tensor,
    *,
    num_runs: int,
    max_steps: int,
    sigma: float = 1.0,
    noise: Tensor | None = None,
    symbol: SymbolKind = "argmax",
    input: Any = None,
) -> Stays:
    """Run every state (S, H) until its symbol changes; draws from the ambient stream.

    Runs that have changed leave the batch, so that a step costs what is still going.
    """
    rows = torch.arange(len(states), device=states.device).repeat_interleave(num_runs)
    flat = None if noise is None else noise.to(states).flatten(0, 1)
    blocks = []
    for at, part in zip(range(0, len(rows), _BLOCK), rows.split(_BLOCK), strict=True):
        given = None if flat is None else flat[at : at + _BLOCK]
        h = states[part]
        drive = Drive(dynamics, h, sigma=sigma, noise=given, input=input, num_steps=max_steps)
        blocks.append(_run(dynamics, h, drive, max_steps, symbol))
    return Stays(*(torch.cat(field).view(len(states), num_runs) for field in zip(*blocks, strict=True)))


def region_of(residence_time: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Name of the region of states with these residence times [steps] and softmax of their symbol."""
    inside = [
        residence_time < 2,
        (residence_time >= 2) & (residence_time <= 8),
        (residence_time > 8) & (confidence > 0.8),
    ]
    return np.select(inside, REGIONS[:3], default=REGIONS[3])


def _run(dynamics: MapDynamics, h: Tensor, drive: Drive, max_steps: int, kind: SymbolKind) -> Stays:
    """Runs from rows h (B, H); the four fields of :class:`Stays`, each (B,)."""
    readout = readout_of(dynamics)
    logits = readout(h)
    first = symbols_of(logits, kind)
    out = Stays(
        torch.full_like(first, max_steps),
        torch.ones_like(first, dtype=torch.bool),
        torch.zeros_like(first),
        torch.full_like(first, -1),
    )
    alive = torch.arange(len(h), device=h.device)
    level, sign = logits.gather(1, first[:, None])[:, 0], torch.zeros(len(h), dtype=h.dtype, device=h.device)
    turns = torch.zeros_like(first)
    for step in range(max_steps):
        h = dynamics.step(h, drive(step, alive))
        logits = readout(h)
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteError(
                f"the activity left the finite numbers within {step + 1} steps of the states given: the "
                "system is unstable under this noise."
            )
        now = symbols_of(logits, kind)
        before, level = level, logits.gather(1, first[:, None])[:, 0]
        # A flat step keeps the sign; the first slope sets it.
        slope = (level - before).sign()
        turns = turns + (slope * sign < 0)
        sign = torch.where(slope == 0, sign, slope)
        changed = now != first
        left, stay = changed.nonzero()[:, 0], (~changed).nonzero()[:, 0]
        gone = alive[left]
        out.steps[gone], out.censored[gone] = step + 1, False
        out.reached[gone], out.sign_changes[gone] = now[left], turns[left]
        alive, h, first, level, sign, turns = (x[stay] for x in (alive, h, first, level, sign, turns))
        if len(alive) == 0:
            break
    out.sign_changes[alive] = turns
    return out


def _dataset(dynamics: MapDynamics, states: Tensor, found: Stays) -> xr.Dataset:
    logits = outputs_of(dynamics, states)
    plane = fit_plane(states, min(3, dynamics.state_size))
    steps = found.steps.double()
    confidence = torch.softmax(logits, dim=-1).amax(dim=-1).cpu().numpy()
    time = steps.mean(dim=1).cpu().numpy()
    per_sample = {
        "residence_time": time,
        "residence_sd": steps.std(dim=1, correction=0).cpu().numpy(),
        "censored_fraction": found.censored.double().mean(dim=1).cpu().numpy(),
        "sign_changes": found.sign_changes.double().mean(dim=1).cpu().numpy(),
        "symbol": logits.argmax(dim=-1).cpu().numpy(),
        "confidence": confidence,
        "region": region_of(time, confidence),
    }
    variables: dict[str, Any] = {name: ("sample", values) for name, values in per_sample.items()}
    variables["hidden"] = (("sample", "unit"), states.cpu().numpy())
    variables["scores"] = (("sample", "pc"), plane.scores(states).cpu().numpy())
    return xr.Dataset(variables)


def _region_means(data: xr.Dataset) -> xr.Dataset:
    """Share and means of each region; NaN means for an empty one."""
    members = {name: data.region.values == name for name in REGIONS}
    means = xr.Dataset(coords={"region_name": list(REGIONS)})
    means["region_share"] = ("region_name", [inside.mean() for inside in members.values()])
    for name in ("residence_time", "sign_changes", "n_unstable"):
        if name in data:
            values = data[name].values
            found = [values[inside].mean() if inside.any() else np.nan for inside in members.values()]
            means[f"region_{name}"] = ("region_name", found)
    return means
