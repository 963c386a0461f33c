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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from seqdyn.datasets.draws import TRAJECTORY, Noise, Start, population
from seqdyn.sde.drifts import Linear, LotkaVolterra, Repressilator, Vortex

__all__ = ["TRAJECTORY", "lotka_volterra", "ou_chain", "population", "repressilator", "vortex"]

_STEP = {"step_size": 0.01}  # of the systems here, in their own unit of time
_SPACED = tuple(0.75 * i for i in range(11))


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
        **options: Further arguments of :func:`population`; ``step_size`` is 0.01 unless given.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, alpha=1.0, beta=0.4, gamma=0.4, delta=0.1)
    box = [(5.0, 5.1), (4.0, 4.1)] if start is None else start
    options = {"features": ("prey", "predators"), "system": "Lotka-Volterra", **options}
    return population(
        LotkaVolterra(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **_STEP | options,
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
        **options: Further arguments of :func:`population`; ``step_size`` is 0.01 unless given.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, beta=10.0, n=3.0, k=1.0, gamma=1.0)
    box = [(1.0, 1.1), (1.0, 1.1), (2.0, 2.1)] if start is None else start
    options = {"features": ("gene_1", "gene_2", "gene_3"), "system": "repressilator", **options}
    return population(
        Repressilator(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **_STEP | options,
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
        **options: Further arguments of :func:`population`; ``step_size`` is 0.01 unless given.

    Returns:
        As :func:`population`.
    """
    values = _values(parameters, circulation=1.0, centre_x=0.0, centre_y=0.0, core=1.0)
    box = [(1.0, 1.2), (-0.1, 0.1)] if start is None else start
    options = {"features": ("x", "y"), "system": "vortex", **options}
    return population(
        Vortex(**values), volatility, box, times, num_particles,
        noise=noise, coupled=coupled, seed=seed, **_STEP | options,
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
        **options: Further arguments of :func:`population`; ``step_size`` is 0.01 unless given.

    Returns:
        As :func:`population`.

    Raises:
        ValueError: If shapes disagree, or the covariance is none.
    """
    drift = _linear(matrix, offset)
    size = len(drift.offset)
    mean = np.asarray(start_mean, dtype=float)
    if mean.shape not in {(), (size,)}:
        raise ValueError(f"start_mean must be a number or one per feature ({size}), got shape {mean.shape}.")
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
    return population(
        drift, volatility, start, times, num_particles, coupled=coupled, seed=seed, **_STEP | options
    )


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


def _values(parameters: Mapping[str, float] | None, **defaults: float) -> dict[str, float]:
    given = dict(parameters or {})
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise ValueError(f"there is no parameter {unknown[0]!r}; the parameters are {', '.join(defaults)}.")
    return {**defaults, **given}
