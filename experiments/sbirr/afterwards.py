"""What was tried after the held-out snapshots had been opened: for understanding, not among the results.

Run ``python -m experiments.sbirr.afterwards`` from the root of the repository, with the data under
``SEQDYN_DATA``; about five CPU minutes, seed 0. First the cells by a clock that slows down
(:func:`experiments.sbirr.pbmc.by_clock`): W2 to the middle training snapshot, left out, and to the two held
out. Then the forecast of the repressilator's benchmark file under other volatilities and more draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from experiments.sbirr import shared
from experiments.sbirr.pbmc import by_clock
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X
from seqdyn.metrics import wasserstein

CLOCKS = (np.inf, 1.0, 0.5, 0.25)
REFERENCES = {"none": "Zero", "quadratic": {"QuadraticPotential": {"num_features": 5, "ridge": 0.03}}}


def cells(name: str) -> pd.DataFrame:
    """W2 of bridges at volatility 0.2 by several clocks."""
    data, rows = datasets.load(name), []
    for clock in CLOCKS:
        moved = data.assign_coords({TIME: (PARTICLE, by_clock(data[TIME].values, clock))})
        for family, reference in REFERENCES.items():
            settings = {"volatility": 0.2, "reference": reference}
            row: dict[str, Any] = {"data": name, "clock": clock, "reference": family}
            row["middle, left out"] = distance(moved, [0, 4], 2, settings)
            row |= {f"held out {place}": distance(moved, [0, 2, 4], place, settings) for place in (1, 3)}
            rows.append(row)
    return pd.DataFrame(rows).set_index(["data", "clock", "reference"])


def distance(data: xr.Dataset, train: list[int], place: int, settings: dict[str, Any]) -> float:
    """W2 of 1000 particles of a bridge to a snapshot between those of its fit."""
    model = shared.bridge(settings, data.sizes[FEATURE])
    shared.fitted(model, shared.snapshots_at(data, train), 0, max_epochs=8)
    y = shared.snapshots_at(data, [place])
    x = model.marginal([float(y[TIME].values[0])], num_samples=1000, seed=0)[X].values[:, 0]
    return wasserstein(x, y[X].values)


def repressilator() -> pd.DataFrame:
    """W2 of forecasts of the last snapshot, mean of three seeds of draws."""
    data, rows = datasets.load("repressilator_benchmark"), []
    train = shared.snapshots_at(data, data.attrs["train_index"])
    y = shared.snapshots_at(data, [10])
    for volatility in (0.02, "estimate", 0.015):
        model = shared.bridge(
            {"volatility": volatility, "reference": "Repressilator", "coordinates": "log"}, 3
        )
        shared.fitted(model, train, 0, max_epochs=30)
        for count in (1000, 4000):
            found = [
                wasserstein(model.forecast([10.0], num_samples=count, seed=seed)[X].values[:, 0], y[X].values)
                for seed in range(3)
            ]
            rows.append({"volatility": volatility, "draws": count, "w2": float(np.mean(found))})
    return pd.DataFrame(rows).set_index(["volatility", "draws"])


if __name__ == "__main__":
    for table in (lambda: cells("hesc"), lambda: cells("embryoid_body"), repressilator):
        print(shared.markdown(table()), end="\n\n", flush=True)
