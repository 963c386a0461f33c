"""Choose reference and volatility for cells, on their training snapshots alone.

Run ``python -m experiments.sbirr.cells`` from the root of the repository, with the data under
``SEQDYN_DATA``; finished rows are skipped. Every family and volatility of ``config.yaml`` is fitted without
the middle training snapshot and scored on it, W2 and energy distance, and fitted without the last one, which
it then forecasts from the one before. Candidates are ranked by each of these three scores; the lowest sum of
ranks wins. ``experiments.sbirr.cells_heldout`` then opens the held-out snapshots, once. ``--table`` prints
all candidates, ``--fast`` shows that it runs.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pandas as pd

from experiments.sbirr import shared
from seqdyn import datasets

KEYS = ("data", "family", "volatility")
RESULTS = shared.RESULTS / "sbirr_cells.csv"
OWN = ("max_epochs", "volatilities")  # what a family may set instead of its section
SCORES = ("left_out_w2", "left_out_energy", "forecast_back_w2")


@dataclasses.dataclass(frozen=True)
class Config:
    """A family and a volatility for one dataset."""

    data: str
    family: str
    volatility: float
    arguments: dict[str, Any]  # of the bridge, but for the volatility
    max_epochs: int
    num_samples: int
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the bridge."""
        return {"volatility": self.volatility, **self.arguments}


def rows(section: dict[str, Any]) -> list[Config]:
    """Every candidate."""
    return [
        Config(
            data=data,
            family=name,
            volatility=volatility,
            arguments={key: value for key, value in family.items() if key not in OWN},
            max_epochs=family.get("max_epochs", section["max_epochs"]),
            num_samples=section["num_samples"],
            seed=section["seeds"][0],
        )
        for data in section["data"]
        for name, family in section["families"].items()
        for volatility in family.get("volatilities", section["volatilities"])
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Scores of a candidate on training snapshots."""
    data = datasets.load(config.data)
    train = shared.snapshots_at(data, data.attrs["train_index"])
    before = time.process_time()
    found = shared.compared(config.settings, train, config.max_epochs, config.num_samples, config.seed)
    row = {"data": config.data, "family": config.family, "volatility": config.volatility, **found}
    return [row | {"seed": config.seed, "cpu_seconds": round(time.process_time() - before, 2)}]


def ranked(found: pd.DataFrame, data: str) -> pd.DataFrame:
    """Candidates for one dataset with the sum of their ranks, the winner first."""
    some = found[found["data"] == data].copy()
    some["ranks"] = some[list(SCORES)].rank().sum(axis=1)
    return some.sort_values(["ranks", *SCORES])


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Every candidate, the winner first."""
    names = ["family", "volatility", *SCORES, "ranks", "divergence", "cpu_seconds"]
    parts = []
    for data in section["data"]:
        if (found["data"] == data).any():
            wide = ranked(found, data)[names].set_index("family")
            parts.append(f"{data}\n\n{shared.markdown(wide)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    shared.main(str(__doc__), "cells", KEYS, rows, run, table)
