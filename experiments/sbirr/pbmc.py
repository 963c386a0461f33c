r"""Choose reference, clock and volatility for the blood cells, on their training snapshots alone.

Run ``python -m experiments.sbirr.pbmc`` from the root of the repository, with the data under ``SEQDYN_DATA``;
finished rows are skipped. Every candidate of ``config.yaml`` is fitted without one training
snapshot at a time, to a subset of the cells, and scored on that snapshot: energy distance to all its cells.
The lowest mean wins. ``experiments.sbirr.pbmc_heldout`` then fits the winner to all cells and opens the
held-out snapshots. ``--table`` prints all candidates, ``--fast`` shows that it runs.

The volatility of each feature is a share of its standard deviation within a snapshot, per root of an hour.
Cells answer a stimulus fast at first and ever more slowly, so that among the candidates are bridges by a
clock that slows down, :math:`s = \tau \log(1 + t / \tau)`; with an infinite :math:`\tau` it is t.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from experiments.sbirr import shared
from experiments.sbirr.scoring import Cloud, clouds_by_time, spread_displacement
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X
from seqdyn.models import SchrodingerBridge
from seqdyn.ot.distances import energy_distance
from seqdyn.ot.exact import displacement

KEYS = ("family", "clock", "volatility", "left_out")
RESULTS = shared.RESULTS / "sbirr_pbmc.csv"


@dataclasses.dataclass(frozen=True)
class Config:
    """A candidate, without one training snapshot."""

    family: str
    clock: float  # hours after which it is half as fast
    volatility: float  # share of the standard deviation
    left_out: int  # number of the training snapshot
    reference: str | dict[str, Any]
    num_cells: int  # of each training snapshot
    max_epochs: int
    num_samples: int
    seed: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every candidate without each snapshot."""
    common = {name: section[name] for name in ("num_cells", "max_epochs", "num_samples", "seed")}
    return [
        Config(family, clock, volatility, left_out, reference, **common)
        for family, reference in section["families"].items()
        for clock in section["clocks"]
        for volatility in section["volatilities"]
        for left_out in section["left_out"]
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Energy distance of a bridge to the snapshot left out, beside straight lines."""
    data = datasets.load("pbmc")
    train = shared.snapshots_at(data, data.attrs["train_index"])
    times = np.unique(train[TIME].values)
    when, y = times[config.left_out], clouds_by_time(train)[times[config.left_out]]
    fewer = some_cells(train.isel({PARTICLE: train[TIME].values != when}), config.num_cells, config.seed)
    before = time.process_time()
    model = fitted(fewer, config.reference, config.clock, config.volatility, config.max_epochs, config.seed)
    seconds = round(time.process_time() - before, 2)
    found = predictions(model, fewer, when, config.clock, config.num_samples, config.seed)
    row = {name: getattr(config, name) for name in KEYS}
    row |= {name: energy_distance(x, y, weights) for name, (x, weights) in found.items()}
    return [row | {"seed": config.seed, "divergence": float(model.divergence), "cpu_seconds": seconds}]


def some_cells(data: xr.Dataset, count: int, seed: int) -> xr.Dataset:
    """As many cells of each snapshot, drawn at random."""
    rng, times = np.random.default_rng(seed), data[TIME].values
    drawn = [rng.permutation(np.flatnonzero(times == when))[:count] for when in np.unique(times)]
    return data.isel({PARTICLE: np.sort(np.concatenate(drawn))})


def volatility_of(data: xr.Dataset, share: float) -> np.ndarray:
    """Volatility of each feature, from the spread of its values about the mean of their snapshot."""
    x, times = data[X].values, data[TIME].values
    about = np.concatenate([x[times == when] - x[times == when].mean(axis=0) for when in np.unique(times)])
    return share * about.std(axis=0)


def by_clock(times: Any, clock: float) -> np.ndarray:
    """Times by a clock that slows down."""
    times = np.asarray(times, dtype=float)
    return times if math.isinf(clock) else clock * np.log1p(times / clock)


def fitted(
    data: xr.Dataset,
    reference: str | dict[str, Any],
    clock: float,
    share: float,
    max_epochs: int,
    seed: int,
) -> SchrodingerBridge:
    """A bridge through snapshots, by the clock."""
    data = data.assign_coords({TIME: (PARTICLE, by_clock(data[TIME].values, clock))})
    arguments = {"volatility": volatility_of(data, share).tolist(), "reference": reference}
    model = shared.bridge(arguments, data.sizes[FEATURE])
    return shared.fitted(model, data, seed, max_epochs=max_epochs)


def predictions(
    model: SchrodingerBridge, train: xr.Dataset, when: float, clock: float, num_samples: int, seed: int
) -> dict[str, Cloud]:
    """Clouds at a time: of the bridge, of straight lines, and of these with the bridge's Gaussian spread.

    Straight lines go by the hour; their spread is that of the bridge's noise by its clock.
    """
    known = clouds_by_time(train)
    times = sorted(known)
    after = int(np.searchsorted(times, when))
    start, end = times[after - 1], times[after]
    share, volatility = (when - start) / (end - start), np.asarray(model.hparams.volatility)
    first, now, last = by_clock([start, when, end], clock)
    variance = (now - first) * (last - now) / (last - first)
    scale = volatility * (variance / (share * (1 - share))) ** 0.5
    spread = spread_displacement(known[start], known[end], share, scale, num_samples, seed)
    return {
        "model": (model.marginal([now], num_samples=num_samples, seed=seed)[X].values[:, 0], None),
        "displacement": displacement(known[start], known[end], share),
        "displacement_spread": (spread, None),
    }


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean scores of the candidates, the winner first."""
    names = ["model", "displacement", "displacement_spread", "divergence", "cpu_seconds"]
    return found.groupby(["family", "clock", "volatility"], sort=False)[names].mean().sort_values("model")


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Every candidate, the winner first."""
    return shared.markdown(means(found), digits=4)


if __name__ == "__main__":
    shared.main(str(__doc__), "pbmc", KEYS, rows, run, table)
