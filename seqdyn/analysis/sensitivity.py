r"""How much the noise to come matters: deep in a dwell, and at the point of no return.

Around a long dwell that ends in a switch, two states of the run are picked: the middle of the dwell, and the
earliest state from which all continuations under fresh noise switch soon. From both, trajectories run under
the noise of the run mixed with fresh noise, :math:`x = \sqrt{1 - \gamma^2}\, x_\text{nominal} + \gamma \xi`,
which keeps its variance.

Source: Torre et al. (2025), arXiv 2510.25674. Published is the mixture :math:`(1 - \gamma) x + \gamma \xi`,
whose variance is halved at γ = ½; it is here as ``mixing="linear"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

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
from seqdyn.analysis.stays import stays
from seqdyn.dynamics.arguments import as_input
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["noise_sensitivity"]

Mixing = Literal["spherical", "linear"]
_LONGEST = 100  # steps back from the switch that are looked at
_COMMITTED_STEPS = 25  # steps within which all continuations must switch
_COMMITTED_MEAN = 3.0  # their mean must be below


class _Event(NamedTuple):
    """A switch: its chain, the middle of the dwell before it, the point of no return, symbol before."""

    chain: int
    middle: int
    committed: int
    before: int


@over_conditions
def noise_sensitivity(
    dynamics: MapDynamics,
    *,
    num_steps: int,
    seed: int | None = None,
    gammas: Sequence[float] = (0.0, 0.5, 1.0),
    horizon: int = 6,
    num_samples: int = 100,
    mixing: Mixing = "spherical",
    min_dwell: int = 20,
    max_events: int = 50,
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Compare how trajectories fan out from the middle of a dwell and from the point of no return.

    Args:
        dynamics: A map driven by noise, with a readout.
        num_steps: Steps of all chains together.
        seed: Seed; ``None`` draws one from the ambient stream.
        gammas: Shares γ of fresh noise, 0 to 1.
        horizon: Steps of the trajectories.
        num_samples: Trajectories of each state and γ, and continuations that decide about commitment.
        mixing: ``"spherical"`` keeps the variance of the noise, ``"linear"`` is as published.
        min_dwell: Least steps of the dwell before the switch.
        max_events: Most switches tried, the longest dwells first; the first that meets the criteria is used.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side.
        burn_in: Steps of each chain before those that count.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``region`` (``cluster``, ``transition``), ``gamma, time, sample, pc``:
        ``cov_trace`` and ``mean_distance`` (region, gamma, time), the trace of the covariance and the mean
        distance from the mean trajectory; ``switch_probability`` (region, gamma, time), share that has left
        the symbol; ``trajectories_pc`` (region, gamma, sample, time, pc). ``time`` counts from the state,
        which is time 0. Without an event that meets the criteria an empty Dataset with the attribute
        ``reason``.

    Raises:
        ValueError: If the map has no readout or input, or an argument does not fit.
    """
    check_driven(dynamics, sigma=sigma)
    if mixing not in ("spherical", "linear"):
        raise ValueError(f"mixing must be 'spherical' or 'linear', got {mixing!r}.")
    if not len(gammas) or not all(0 <= gamma <= 1 for gamma in gammas):
        raise ValueError(f"gammas must be numbers from 0 to 1, got {tuple(gammas)!r}.")
    horizon, num_samples = check_count(horizon, "horizon"), check_count(num_samples, "num_samples")
    seed = ambient_seed(seed)
    drive = {"sigma": sigma, "input": input}
    with fork_rng(seed), torch.no_grad():
        run = reference_run(
            dynamics, num_steps=num_steps, num_chains=num_chains, burn_in=burn_in, start=start, **drive
        )
        attrs = attributes(run.hidden, seed=seed, sigma=sigma, mixing=mixing)
        event = _find(dynamics, run, min_dwell, horizon, max_events, num_samples, drive)
        if event is None:
            reason = (
                f"none of the {max_events} longest dwells of {min_dwell} steps or more ends in a switch "
                "after a point of no return"
            )
            return xr.Dataset(attrs=attrs | {"reason": reason})
        paths = torch.stack(
            [
                _fans(dynamics, run, event, time, gammas, horizon, num_samples, mixing, drive)
                for time in (event.middle, event.committed)
            ]
        )
    data = _spread(dynamics, run, paths, event).assign_coords(gamma=[float(gamma) for gamma in gammas])
    return data.assign_attrs(attrs | {"dwell_middle": event.middle, "point_of_no_return": event.committed})


def _find(
    dynamics: MapDynamics,
    run: Run,
    min_dwell: int,
    horizon: int,
    max_events: int,
    num_samples: int,
    drive: dict[str, Any],
) -> _Event | None:
    """The longest dwell with a point of no return, room for the horizon included."""
    assert run.symbol is not None
    switches, length = switches_of(run.symbol), run.noise.shape[1]
    whole = (switches.dwell_before >= min_dwell) & (switches.time + horizon <= length)
    for at in np.flatnonzero(whole)[np.argsort(-switches.dwell_before[whole], kind="stable")][:max_events]:
        chain, time = int(switches.chain[at]), int(switches.time[at])
        back = min(int(switches.dwell_before[at]), _LONGEST)
        states = run.hidden[chain, time - back : time]
        found = stays(dynamics, states, num_runs=num_samples, max_steps=_COMMITTED_STEPS, **drive)
        sure = ~found.censored.any(dim=1) & (found.steps.double().mean(dim=1) < _COMMITTED_MEAN)
        if bool(sure.any()):
            committed = time - back + int(sure.int().argmax())
            return _Event(chain, time - (back + 1) // 2, committed, int(switches.before[at]))
    return None


def _fans(
    dynamics: MapDynamics,
    run: Run,
    event: _Event,
    time: int,
    gammas: Sequence[float],
    horizon: int,
    num_samples: int,
    mixing: Mixing,
    drive: dict[str, Any],
) -> Tensor:
    """Trajectories (G, S, horizon + 1, H) from one state; all γ share their fresh noise."""
    constant = as_input(dynamics, drive["input"], run.noise)
    center = torch.zeros_like(run.noise[0, 0]) if constant is None else constant
    nominal = run.noise[event.chain, time : time + horizon] - center
    fresh = drive["sigma"] * torch.randn(
        num_samples, *nominal.shape, dtype=nominal.dtype, device=nominal.device
    )
    shares = [(math.sqrt(1 - g * g) if mixing == "spherical" else 1 - g, g) for g in gammas]
    noise = torch.stack([keep * nominal + new * fresh for keep, new in shares]) + center
    h = run.hidden[event.chain, time].expand(len(shares), num_samples, -1)
    path = [h]
    for step in range(horizon):
        h = dynamics.step(h, noise[:, :, step])
        path.append(h)
    return torch.stack(path, dim=2)


def _spread(dynamics: MapDynamics, run: Run, paths: Tensor, event: _Event) -> xr.Dataset:
    """Spread of trajectories (R, G, S, T, H)."""
    plane = fit_plane(run.hidden, min(3, dynamics.state_size))
    away = paths - paths.mean(dim=2, keepdim=True)
    left = (outputs_of(dynamics, paths).argmax(dim=-1) != event.before).cummax(dim=-1).values
    dims = ("region", "gamma", "time")
    return xr.Dataset(
        {
            "cov_trace": (dims, away.square().sum(dim=-1).mean(dim=2).cpu().numpy()),
            "mean_distance": (dims, away.norm(dim=-1).mean(dim=2).cpu().numpy()),
            "switch_probability": (dims, left.double().mean(dim=2).cpu().numpy()),
            "trajectories_pc": (
                ("region", "gamma", "sample", "time", "pc"),
                plane.scores(paths).cpu().numpy(),
            ),
        },
        coords={"region": ["cluster", "transition"], "time": np.arange(paths.shape[3])},
    )
