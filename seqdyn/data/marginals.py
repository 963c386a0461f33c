"""A snapshot dataset as its marginals: one cloud per condition and time, in that order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from seqdyn.data.checks import plain
from seqdyn.data.schema import CONDITION, FEATURE, GROWTH, PARTICLE, TIME, WEIGHT, X

__all__ = ["Marginal", "condition_labels", "describe_snapshots", "marginals", "summarize_snapshots"]


class Marginal(NamedTuple):
    """The particles of one condition at one time.

    Attributes:
        condition: Number of the condition, in the order of its first particle.
        time: Its time.
        particle: Numbers of its particles in the dataset, (N,).
        x: States, (N, C), float64.
        weight: Weights with the sum 1, (N,).
        growth: Rates of growth per unit of time, (N,).
    """

    condition: int
    time: float
    particle: np.ndarray
    x: np.ndarray
    weight: np.ndarray
    growth: np.ndarray


def marginals(data: xr.Dataset) -> list[Marginal]:
    """All marginals of checked snapshots, by condition and, within each, by time.

    The particles of a marginal keep the order of the data. Particles of one time are one marginal, wherever
    they stand.
    """
    x = data[X].transpose(PARTICLE, FEATURE).values.astype(np.float64)
    times = data[TIME].values.astype(np.float64)
    weight = data[WEIGHT].values.astype(np.float64) if WEIGHT in data else np.ones(len(x))
    growth = data[GROWTH].values.astype(np.float64) if GROWTH in data else np.zeros(len(x))
    labels = condition_labels(data)
    codes = np.zeros(len(x), dtype=int)
    if labels:
        codes = np.array([labels.index(plain(label)) for label in data[CONDITION].values])
    found = []
    for condition in range(max(1, len(labels))):
        for time in np.unique(times[codes == condition]):
            here = np.flatnonzero((codes == condition) & (times == time))
            share = weight[here] / weight[here].sum()
            found.append(Marginal(condition, float(time), here, x[here], share, growth[here]))
    return found


def condition_labels(data: xr.Dataset) -> list[Any]:
    """Labels of the conditions in the order of their first particles; none if there are none."""
    if CONDITION not in data.coords:
        return []
    return list(dict.fromkeys(plain(label) for label in data[CONDITION].values))


def describe_snapshots(data: xr.Dataset) -> dict[str, Any]:
    """Plain JSON facts of a snapshot dataset, as saved beside a model's weights."""
    parts, size = marginals(data), data.sizes[FEATURE]
    return {
        "features": [plain(name) for name in data[FEATURE].values]
        if FEATURE in data.coords
        else [*range(size)],
        "units": data[X].attrs.get("units"),
        "time_units": data[TIME].attrs.get("units"),
        "conditions": condition_labels(data),
        "snapshot_times": [part.time for part in parts],
        "num_particles": [len(part.x) for part in parts],
    }


def summarize_snapshots(data: xr.Dataset) -> str:
    """What a snapshot dataset holds, in a line or two for people."""
    facts = describe_snapshots(data)
    names = facts["features"]
    features = f"{len(names)} features: " if len(names) > 1 else "feature "
    features += ", ".join(map(str, names[:6])) + (", …" if len(names) > 6 else "")
    units = f" [{facts['units']}]" if facts["units"] else ""
    listed = [f"{time:g}" for time in sorted(set(facts["snapshot_times"]))]
    times = ", ".join(listed[:10]) + (", …" if len(listed) > 10 else "")
    kinds = f", {len(facts['conditions'])} conditions" if facts["conditions"] else ""
    counts = facts["num_particles"]
    per = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    unit = f" {facts['time_units']}" if facts["time_units"] not in (None, "1") else ""
    return f"{len(counts)} snapshots of {per} particles{kinds}, {features}{units}\nat times {times}{unit}"
