r"""Snapshots of populations whose dynamics are known: clouds of particles drawn from an equation with noise.

===================  =====================================  ===================  ======================
function             drift                                  starts               defaults as published
===================  =====================================  ===================  ======================
``lotka_volterra``   predators and prey                     a box                yes
``repressilator``    three genes in a ring of repression    a box                yes
``vortex``           Lamb-Oseen vortex                      a box
``ou_chain``         linear with an offset                  a Gaussian
``population``       any                                    box or function
===================  =====================================  ===================  ======================

Noise is additive, :math:`\sigma\, dW`, or proportional to the state, :math:`\sigma_j X_j\, dW_j`. The truth
stands in the attributes of the result as plain numbers.

Source: Shen, Berlinghieri & Broderick (2025), AISTATS, for the published defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn._arguments import check_amount, check_count
from seqdyn.data.schema import PARTICLE, X
from seqdyn.datasets.recipe import cloud
from seqdyn.rng import ambient_seed
from seqdyn.sde.drifts import Linear, LotkaVolterra, Repressilator, Vortex
from seqdyn.sde.integrate import simulate
from seqdyn.sde.lamperti import InLogCoordinates
from seqdyn.sde.noise import volatility_vector

__all__ = ["TRAJECTORY", "lotka_volterra", "ou_chain", "population", "repressilator", "vortex"]

Noise = Literal["additive", "proportional"]
Start = Callable[[np.random.Generator, int], Any] | Sequence[Sequence[float]] | np.ndarray
TRAJECTORY = "trajectory"
_SPACED = tuple(0.75 * i for i in range(11))
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
    step_size: float = 0.01,
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
        step_size: Longest step of the simulation (Heun's method), in units of time.
        features: Names of the coordinates; ``x_0``, ``x_1``, ... by default.
        system: Name of the system, for the attributes.
        seed: Seed of starts and noise; ``None`` draws one from torch's ambient stream. It is recorded.

    Returns:
        ``x (particle, feature)`` with ``time (particle)``; coupled, also ``trajectory (particle)``, equal for
        one particle at different times. Attributes: ``system``, the parameters of the drift, ``volatility``,
        ``noise``, ``coupled``, ``start_time``, ``step_size``, ``seed``.

    Raises:
        ValueError: If an argument is out of range, or starts are not positive though noise is proportional.
        NonFiniteError: If a path leaves the finite numbers.
    """
    moments = _times(times, float(start_time))
    counts = _counts(num_particles, len(moments))
    step_size = check_amount(step_size, "step_size", zero=False)
    seed = ambient_seed(seed)
    rng = np.random.default_rng(seed % 2**64)
    snapshot = np.repeat(np.arange(len(moments)), counts)
    path = np.concatenate([np.arange(n) for n in counts]) if coupled else np.arange(len(snapshot))
    states = _starts(start, rng, int(path.max()) + 1)
    names = [f"x_{i}" for i in range(states.shape[1])] if features is None else [str(f) for f in features]
    if len(names) != states.shape[1]:
        raise ValueError(f"features has {len(names)} names but the states have {states.shape[1]} columns.")
    grid = moments if moments[0] == start_time else np.concatenate([[start_time], moments])
    paths = _paths(drift, volatility, states, grid, noise, step_size, int(rng.integers(2**62)))
    data = cloud(
        paths[path, snapshot + len(grid) - len(moments)], moments[snapshot], features=names, unit="1"
    )
    data[X].attrs["units"] = "1"
    if coupled:
        data = data.assign_coords({TRAJECTORY: (PARTICLE, path)})
    settings = {"start_time": float(start_time), "step_size": step_size, "seed": seed}
    data.attrs = {
        "system": system,
        **_truth(drift),
        **_entries("volatility", volatility),
        **{"noise": noise, "coupled": int(coupled)},
        **settings,
    }
    return data


def lotka_volterra(
    num_particles: int | Sequence[int] = 50,
    times: Sequence[float] | np.ndarray = range(9),
    parameters: Mapping[str, float] | None = None,
    volatility: float | Sequence[float] = 0.1,
    noise: Noise = "additive",
    coupled: bool = False,
    seed: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> xr.Dataset:
    """Predators and prey, started in a small box at (5, 4).

    Args:
        num_particles: Particles of every snapshot, or one number for each.
        times: Times of the snapshots.
        parameters: Of :class:`~seqdyn.sde.drifts.LotkaVolterra`, where they differ from alpha 1, beta 0.4,
            gamma 0.4, delta 0.1.
        volatility: A number or one per coordinate.
        noise: ``"additive"`` or ``"proportional"``; the published volatility is 0.1 and 0.02.
        coupled: Whether all snapshots show the same particles.
        seed: Seed of starts and noise.
        start: As in :func:`population`; U[5, 5.1] x U[4, 4.1] by default.
        **options: Further arguments of :func:`population`.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, alpha=1.0, beta=0.4, gamma=0.4, delta=0.1)
    box = [(5.0, 5.1), (4.0, 4.1)] if start is None else start
    options = {"features": ("prey", "predators"), "system": "Lotka-Volterra", **options}
    return population(
        LotkaVolterra(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **options,
    )  # fmt: skip


def repressilator(
    num_particles: int | Sequence[int] = 50,
    times: Sequence[float] | np.ndarray = _SPACED,
    parameters: Mapping[str, float] | None = None,
    volatility: float | Sequence[float] = 0.1,
    noise: Noise = "additive",
    coupled: bool = False,
    seed: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> xr.Dataset:
    """Three genes, each of which represses the next, started in a small box at (1, 1, 2).

    Args:
        num_particles: Particles of every snapshot, or one number for each.
        times: Times of the snapshots.
        parameters: Of :class:`~seqdyn.sde.drifts.Repressilator`, where they differ from beta 10, n 3, k 1,
            gamma 1.
        volatility: A number or one per coordinate.
        noise: ``"additive"`` or ``"proportional"``; the published volatility is 0.1 and 0.02.
        coupled: Whether all snapshots show the same particles.
        seed: Seed of starts and noise.
        start: As in :func:`population`; U[1, 1.1] x U[1, 1.1] x U[2, 2.1] by default.
        **options: Further arguments of :func:`population`.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, beta=10.0, n=3.0, k=1.0, gamma=1.0)
    box = [(1.0, 1.1), (1.0, 1.1), (2.0, 2.1)] if start is None else start
    options = {"features": ("gene_1", "gene_2", "gene_3"), "system": "repressilator", **options}
    return population(
        Repressilator(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **options,
    )  # fmt: skip


def vortex(
    num_particles: int | Sequence[int] = 50,
    times: Sequence[float] | np.ndarray = range(9),
    parameters: Mapping[str, float] | None = None,
    volatility: float | Sequence[float] = 0.05,
    noise: Noise = "additive",
    coupled: bool = False,
    seed: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> xr.Dataset:
    """Drifters in a Lamb-Oseen vortex, started in a small box at the edge of its core.

    Args:
        num_particles: Particles of every snapshot, or one number for each.
        times: Times of the snapshots.
        parameters: Of :class:`~seqdyn.sde.drifts.Vortex`, where they differ from circulation 1, centre
            (0, 0), core 1.
        volatility: A number or one per coordinate.
        noise: ``"additive"`` or ``"proportional"``.
        coupled: Whether all snapshots show the same particles.
        seed: Seed of starts and noise.
        start: As in :func:`population`; U[1, 1.2] x U[-0.1, 0.1] by default.
        **options: Further arguments of :func:`population`.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, circulation=1.0, centre_x=0.0, centre_y=0.0, core=1.0)
    box = [(1.0, 1.2), (-0.1, 0.1)] if start is None else start
    options = {"features": ("x", "y"), "system": "vortex", **options}
    return population(
        Vortex(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **options,
    )  # fmt: skip


def ou_chain(
    num_particles: int | Sequence[int] = 50,
    times: Sequence[float] | np.ndarray = (0.0, 0.5, 1.0, 2.0),
    matrix: Any = ((-1.0,),),
    offset: Any = 0.0,
    volatility: Any = 0.7,
    start_mean: Any = 2.0,
    start_covariance: Any = 0.3,
    coupled: bool = False,
    seed: int | None = None,
    **options: Any,
) -> xr.Dataset:
    r"""Gaussian snapshots of a linear equation, :math:`dX = (A X + c)\, dt + \sigma\, dW`.

    Args:
        num_particles: Particles of every snapshot, or one number for each.
        times: Times of the snapshots.
        matrix: A, (C, C).
        offset: c, a number or (C,).
        volatility: σ, a number, (C,) or (C, C).
        start_mean: Mean of the Gaussian start, a number or (C,).
        start_covariance: Its covariance, a variance or (C, C).
        coupled: Whether all snapshots show the same particles.
        seed: Seed of starts and noise.
        **options: Further arguments of :func:`population`.

    Returns:
        As :func:`population`.

    Raises:
        ValueError: If shapes disagree, or the covariance is none.
    """
    drift = _linear(matrix, offset)
    size = len(drift.offset)
    mean = np.broadcast_to(np.asarray(start_mean, dtype=float), (size,))
    covariance = np.asarray(start_covariance, dtype=float)
    covariance = covariance * np.eye(size) if covariance.ndim == 0 else covariance
    if covariance.shape != (size, size) or not np.allclose(covariance, covariance.T):
        raise ValueError(
            f"start_covariance must be a variance or a symmetric matrix ({size}, {size}), got shape "
            f"{covariance.shape}."
        )
    values, vectors = np.linalg.eigh(covariance)
    if values.min() < -1e-12 * max(values.max(), 1.0):
        raise ValueError(f"start_covariance has the negative eigenvalue {values.min():.3g}.")
    factor = vectors * np.sqrt(values.clip(min=0))

    def start(rng: np.random.Generator, count: int) -> np.ndarray:
        return mean + rng.standard_normal((count, size)) @ factor.T

    options = {"system": "Ornstein-Uhlenbeck", **options}
    return population(drift, volatility, start, times, num_particles, coupled=coupled, seed=seed, **options)


def _linear(matrix: Any, offset: Any) -> Linear:
    a = torch.as_tensor(matrix, dtype=torch.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"matrix must be (C, C), got shape {tuple(a.shape)}; type [[-1.0]] for one feature.")
    c = torch.as_tensor(offset, dtype=torch.float64)
    if c.ndim > 0 and tuple(c.shape) != (len(a),):
        raise ValueError(f"offset must be a number or one per feature ({len(a)}), got {tuple(c.shape)}.")
    drift = Linear(len(a))
    with torch.no_grad():
        drift.matrix.copy_(a)
        drift.offset.copy_(c.expand(len(a)))
    return drift


def _paths(
    drift: Callable[[Tensor, Any], Tensor],
    volatility: Any,
    states: np.ndarray,
    grid: np.ndarray,
    noise: str,
    step_size: float,
    seed: int,
) -> np.ndarray:
    """Simulated paths (N, T, C) from the starts (N, C)."""
    if noise not in ("additive", "proportional"):
        raise ValueError(f"noise must be 'additive' or 'proportional', got {noise!r}.")
    x = torch.from_numpy(states)
    if noise == "additive":
        return simulate(drift, volatility, x, grid.tolist(), step_size=step_size, seed=seed).numpy()
    if states.min() <= 0:
        raise ValueError(
            f"proportional noise needs positive starts, got {states.min():.3g}; move the box above 0, or "
            "take noise='additive'."
        )
    inner = InLogCoordinates(drift, volatility_vector(volatility))
    return simulate(inner, volatility, x.log(), grid.tolist(), step_size=step_size, seed=seed).exp().numpy()


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


def _values(parameters: Mapping[str, float] | None, **defaults: float) -> dict[str, float]:
    given = dict(parameters or {})
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise ValueError(f"there is no parameter {unknown[0]!r}; the parameters are {', '.join(defaults)}.")
    return {**defaults, **given}


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
