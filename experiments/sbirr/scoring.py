"""Scores of bridges, of what needs no reference, and of the simulated truth, all by one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from seqdyn import datasets
from seqdyn.data.schema import PARTICLE, TIME, X
from seqdyn.models import SchrodingerBridge
from seqdyn.models.bridge_scores import METRICS
from seqdyn.ot.exact import displacement
from seqdyn.rng import fork_rng
from seqdyn.sde.sampling import systematic

__all__ = [
    "Cloud",
    "Resampled",
    "Row",
    "clouds_by_time",
    "rows_of_bridge",
    "rows_of_displacement",
    "rows_of_truth",
    "spread_displacement",
]

Row = dict[str, Any]
Cloud = tuple[np.ndarray, np.ndarray | None]  # particles and their weights
_TRUTH_SEED = 10_000  # added to that of a row: the truth is simulated anew, not repeated


def rows_of_bridge(
    model: SchrodingerBridge,
    held_out: xr.Dataset,
    names: Mapping[str, str],
    metrics: tuple[str, ...],
    num_samples: int,
    seed: int,
) -> list[Row]:
    """Method, time and scores of some methods of ``model.score``, under new names; without empty ones."""
    scores = model.score(held_out, metrics, num_samples=num_samples, seed=seed)["score"]
    return [
        {"method": new, "time": time, **dict(zip(metrics, found, strict=True))}
        for name, new in names.items()
        for time in scores[TIME].values.tolist()
        if not np.isnan(found := scores.sel({"method": name, TIME: time}).values.tolist()).all()
    ]


def rows_of_displacement(
    train: xr.Dataset,
    held_out: xr.Dataset,
    volatility: float,
    metrics: tuple[str, ...],
    num_samples: int,
    seed: int,
) -> list[Row]:
    """The same for displacement interpolation with the spread of a Brownian bridge."""
    known, found = np.unique(train[TIME].values), []
    for time, y in clouds_by_time(held_out).items():
        after = int(np.searchsorted(known, time))
        if after == len(known):
            continue
        before, end = known[after - 1], known[after]
        share, scale = (time - before) / (end - before), volatility * (end - before) ** 0.5
        x = spread_displacement(
            clouds_by_time(train)[before], clouds_by_time(train)[end], share, scale, num_samples, seed
        )
        found.append(_row("displacement_spread", time, x, y, metrics))
    return found


def spread_displacement(
    x: np.ndarray, y: np.ndarray, share: float, scale: float | np.ndarray, num_samples: int, seed: int
) -> np.ndarray:
    r"""Points of a displacement interpolation, drawn by their weights, with the spread of a Brownian bridge.

    Args:
        x: Cloud at the beginning, (N, C).
        y: Cloud at the end, (M, C).
        share: s, the time between them, from 0 to 1.
        scale: Standard deviation of Brownian motion over the whole time, one or (C,); the spread is
            :math:`\sqrt{s (1 - s)}` of it.
        num_samples: Points to draw.
        seed: Seed.
    """
    points, weights = displacement(x, y, share)
    with fork_rng(seed):
        drawn = torch.from_numpy(points)[systematic(torch.from_numpy(weights), num_samples)]
        noise = torch.as_tensor(scale, dtype=drawn.dtype) * torch.randn_like(drawn)
        return (drawn + (share * (1 - share)) ** 0.5 * noise).numpy()


def rows_of_truth(
    truth: Mapping[str, Any],
    train: xr.Dataset,
    held_out: xr.Dataset,
    metrics: tuple[str, ...],
    num_samples: int,
    seed: int,
) -> list[Row]:
    """The same for the system itself; after the last training snapshot it starts from the particles there.

    Args:
        truth: ``system``, the name of a generator, and its arguments.
        train: Training snapshots.
        held_out: Snapshots to compare with.
        metrics: Names of distances.
        num_samples: Particles to simulate.
        seed: Seed.
    """
    arguments = dict(truth)
    generator = getattr(datasets, arguments.pop("system"))
    seed += _TRUTH_SEED
    last = float(train[TIME].max())
    particles = clouds_by_time(train)[last]
    found = []
    for time, y in clouds_by_time(held_out).items():
        start = {}
        if time > last:
            start = {
                "start": lambda _, count: np.resize(particles, (count, particles.shape[1])),
                "start_time": last,
            }
        x = generator(num_samples, times=[time], seed=seed, **arguments, **start)[X].values
        found.append(_row("truth", time, x, y, metrics))
    return found


def _row(method: str, time: float, x: np.ndarray, y: np.ndarray, metrics: tuple[str, ...]) -> Row:
    return {"method": method, "time": time, **{name: METRICS[name](x, y) for name in metrics}}


def clouds_by_time(data: xr.Dataset) -> dict[float, np.ndarray]:
    """Particles by time."""
    times = data[TIME].values
    return {time: data.isel({PARTICLE: times == time})[X].values for time in np.unique(times).tolist()}


class Resampled:
    """Distances to a cloud whose particles are drawn anew, with replacement, again and again.

    Args:
        y: The cloud, (M, C).
        num_resamples: How often.
        seed: Seed.
        metric: Distance, a key of ``METRICS``.
    """

    def __init__(self, y: np.ndarray, num_resamples: int, seed: int, metric: str = "w2") -> None:
        rng = np.random.default_rng(seed)
        self.weights = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), num_resamples) / len(y)
        self._y, self._metric = y, METRICS[metric]

    def distances(self, cloud: Cloud) -> np.ndarray:
        """Distances (R,) of a prediction."""
        x, own = cloud
        return np.array([self._metric(x, self._y, own, weight) for weight in self.weights])

    def differences(self, first: Cloud, second: Cloud) -> np.ndarray:
        """By how much the distance of the first is larger, (R,), each time to the same particles."""
        return self.distances(first) - self.distances(second)
