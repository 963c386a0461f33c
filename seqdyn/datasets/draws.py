"""Drawing snapshots from any stochastic differential equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn._arguments import check_amount, check_count
from seqdyn.data.schema import PARTICLE, X
from seqdyn.datasets.recipe import cloud
from seqdyn.rng import ambient_seed
from seqdyn.sde.integrate import simulate
from seqdyn.sde.lamperti import InLogCoordinates

__all__ = ["TRAJECTORY", "Noise", "Start", "population"]

Noise = Literal["additive", "proportional"]
Start = Callable[[np.random.Generator, int], Any] | Sequence[Sequence[float]] | np.ndarray
TRAJECTORY = "trajectory"
_STEPS = 1000  # from the start to the last snapshot, unless a step is given
_LISTED = 100  # parameters of a drift that are written to the attributes; a network has more


def population(
    drift: Callable[[Tensor, Any], Tensor],
    volatility: Any,
    start: Start,
    times: Sequence[float] | np.ndarray,
    num_particles: int | Sequence[int] = 50,
    *,
    noise: Noise = "additive",
    coupled: bool = False,
    start_time: float = 0.0,
    step_size: float | None = None,
    method: str = "heun",
    features: Sequence[str] | None = None,
    system: str = "population",
    seed: int | None = None,
) -> xr.Dataset:
    r"""Draw snapshots of :math:`dX = b(X, t)\, dt + \sigma\, dW`, or with noise :math:`\sigma_j X_j\, dW_j`.

    Args:
        drift: ``drift(x, t)`` of states (N, C) and a time.
        volatility: σ per square root of time: a number, (C,) or, additive only, (C, C).
        start: Law of the states at ``start_time``: a box, C pairs (lowest, highest), or a function
            ``start(rng, n)`` that draws states (n, C).
        times: Increasing times of the snapshots, from ``start_time`` on.
        num_particles: Particles of every snapshot, or one number for each.
        noise: ``"additive"`` or ``"proportional"``. Proportional noise keeps states positive; it is simulated
            in logarithms.
        coupled: Whether all snapshots show the same particles, of each the first ``num_particles``. By
            default every snapshot has particles of its own and no particle is seen twice.
        start_time: Time of the start.
        step_size: Longest step of the simulation, in units of time; by default a thousandth of the time from
            the start to the last snapshot.
        method: ``"heun"`` or ``"euler"``; the published files carry the error of Euler steps of 0.01.
        features: Names of the coordinates; ``x_0``, ``x_1``, ... by default.
        system: Name of the system, for the attributes.
        seed: Seed of starts and noise; ``None`` draws one from torch's ambient stream. It is recorded.

    Returns:
        ``x (particle, feature)`` with ``time (particle)``; coupled, also ``trajectory (particle)``, equal for
        one particle at different times. Attributes: ``system``, the parameters of the drift, ``volatility``,
        ``noise``, ``coupled``, ``start_time``, ``step_size``, ``method``, ``seed``.

    Raises:
        ValueError: If an argument is out of range, or starts are not positive though noise is proportional.
        NonFiniteError: If a path leaves the finite numbers.
    """
    moments = _times(times, float(start_time))
    counts = _counts(num_particles, len(moments))
    if step_size is None:  # a start that is the only snapshot takes no step
        step_size = (float(moments[-1]) - float(start_time)) / _STEPS or 1.0
    step_size = check_amount(step_size, "step_size", zero=False)
    seed = ambient_seed(seed)
    rng = np.random.default_rng(seed % 2**64)
    snapshot = np.repeat(np.arange(len(moments)), counts)
    path = np.concatenate([np.arange(n) for n in counts]) if coupled else np.arange(len(snapshot))
    states = _starts(start, rng, int(path.max()) + 1)
    names = [f"x_{i}" for i in range(states.shape[1])] if features is None else [str(f) for f in features]
    if len(names) != states.shape[1]:
        raise ValueError(f"features has {len(names)} names but the states have {states.shape[1]} columns.")
    first = 0 if moments[0] == start_time else 1  # the grid begins with the start, a snapshot or not
    grid = [float(start_time)] * first + moments.tolist()
    options = {"step_size": step_size, "method": method, "seed": int(rng.integers(2**62))}
    paths = _paths(drift, volatility, states, grid, noise, options)
    data = cloud(paths[path, snapshot + first], moments[snapshot], features=names, unit="1")
    data[X].attrs["units"] = "1"
    if coupled:
        data = data.assign_coords({TRAJECTORY: (PARTICLE, path)})
    data.attrs = {
        "system": system,
        **_truth(drift),
        **_entries("volatility", volatility),
        "noise": noise,
        "coupled": int(coupled),
        "start_time": float(start_time),
        "step_size": step_size,
        "method": method,
        "seed": seed,
    }
    return data


def _paths(
    drift: Callable[[Tensor, Any], Tensor],
    volatility: Any,
    states: np.ndarray,
    grid: list[float],
    noise: str,
    options: dict[str, Any],
) -> np.ndarray:
    """Simulated paths (N, T, C) from the starts (N, C)."""
    if noise not in ("additive", "proportional"):
        raise ValueError(f"noise must be 'additive' or 'proportional', got {noise!r}.")
    if options["method"] not in ("heun", "euler"):
        raise ValueError(f"method must be 'heun' or 'euler', got {options['method']!r}.")
    x = torch.from_numpy(states)
    if noise == "additive":
        return simulate(drift, volatility, x, grid, **options).numpy()
    if states.min() <= 0:
        raise ValueError(
            f"proportional noise needs positive starts, got {states.min():.3g}; move the box above 0, or "
            "take noise='additive'."
        )
    # In logarithms the noise is additive: no path can cross 0, and steps are of second order.
    inner = InLogCoordinates(drift, volatility)
    return simulate(inner, volatility, x.log(), grid, **options).exp().numpy()


def _times(times: Any, start_time: float) -> np.ndarray:
    moments = np.asarray(list(times) if isinstance(times, range) else times, dtype=float)
    if (
        moments.ndim != 1
        or len(moments) == 0
        or not np.isfinite(moments).all()
        or (np.diff(moments) <= 0).any()
    ):
        raise ValueError(f"times must be increasing finite numbers, got {moments.tolist()}; sort them.")
    if moments[0] < start_time:
        raise ValueError(
            f"the first snapshot is at time {moments[0]:g}, before the start at {start_time:g}; pass "
            f"start_time={moments[0]:g}."
        )
    return moments


def _counts(num_particles: Any, num_snapshots: int) -> list[int]:
    if isinstance(num_particles, Sequence | np.ndarray):
        if len(num_particles) != num_snapshots:
            raise ValueError(
                f"num_particles has {len(num_particles)} entries for {num_snapshots} times; give one each, "
                "or one number for all."
            )
        return [check_count(n, f"num_particles[{i}]") for i, n in enumerate(num_particles)]
    return [check_count(num_particles, "num_particles")] * num_snapshots


def _starts(start: Start, rng: np.random.Generator, count: int) -> np.ndarray:
    """Starting states (count, C)."""
    if callable(start):
        states = np.array(start(rng, count), dtype=float)
        if states.ndim != 2 or len(states) != count:
            raise ValueError(f"start(rng, {count}) must give states ({count}, C), got shape {states.shape}.")
    else:
        box = np.asarray(start, dtype=float)
        if box.ndim != 2 or box.shape[1] != 2 or not (box[:, 0] <= box[:, 1]).all():
            raise ValueError(
                "start must be a function or one pair (lowest, highest) for each coordinate, such as "
                f"[(5.0, 5.1), (4.0, 4.1)], got {start!r}."
            )
        states = rng.uniform(box[:, 0], box[:, 1], (count, len(box)))
    if not np.isfinite(states).all():
        raise ValueError("start must give finite numbers.")
    return states


def _truth(drift: Any) -> dict[str, float]:
    """The parameters of a drift as plain numbers."""
    if not isinstance(drift, nn.Module) or sum(p.numel() for p in drift.parameters()) > _LISTED:
        return {}
    return {
        key: entry
        for name, value in drift.named_parameters()
        for key, entry in _entries(name, value.detach()).items()
    }


def _entries(name: str, value: Any) -> dict[str, float]:
    """A number as ``name``, the entries of an array as ``name_0``, ``name_1`` or ``name_0_1``."""
    array = np.asarray(value, dtype=float)
    return {"_".join([name, *map(str, index)]): float(entry) for index, entry in np.ndenumerate(array)}
