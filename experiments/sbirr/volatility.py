"""The volatility estimated from snapshots, before and after its correction for the size of the clouds.

Run ``python -m experiments.sbirr.volatility`` from the root of the repository; finished rows are skipped.
``--only case=additive_50`` runs one case, ``--table`` prints medians over the data sets, ``--fast`` shows
that it runs. Data are of Lotka-Volterra, drawn anew under every seed.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd

from experiments.sbirr import shared
from seqdyn import datasets

KEYS = ("case", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """One data set of one case."""

    case: str
    seed: int
    data: dict[str, Any]
    coordinates: str
    max_epochs: int
    num_simulations: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every job of the configuration."""
    return [
        Config(
            name, seed, case["data"], case["coordinates"], section["max_epochs"], section["num_simulations"]
        )
        for name, case in section["cases"].items()
        for seed in section["seeds"]
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Raw and corrected estimate, and their record."""
    data = datasets.lotka_volterra(seed=config.seed, **config.data)
    arguments = {"volatility": "estimate", "reference": "LotkaVolterra", "coordinates": config.coordinates}
    model = shared.bridge(arguments | {"num_simulations": config.num_simulations}, 2)
    before = time.process_time()
    shared.fitted(model, data, config.seed, max_epochs=config.max_epochs)
    found, values = model.volatility_estimate, model.process.named_values()
    error = max(abs(values[name] / data.attrs[name] - 1) for name in ("alpha", "beta", "gamma", "delta"))
    truth, ratio = data.attrs["volatility"], np.log(found["ratio"].values)
    assert model.history is not None
    divergence = model.history["train_loss"].values
    row = {
        "case": config.case,
        "seed": config.seed,
        "truth": truth,
        "raw": found["raw"].item(),
        "corrected": found["corrected"].item(),
        "raw_error": found["raw"].item() / truth - 1,
        "corrected_error": found["corrected"].item() / truth - 1,
        "ratio_log_sd": pd.Series(ratio).std(),
        "simulations": len(ratio),
        "converged": int(found["converged"].sum()),
        "epochs": len(divergence),
        "last_change": divergence[-1] - divergence[-2] if len(divergence) > 1 else np.nan,
        "parameter_error": error,
    }
    return [row | {"cpu_seconds": round(time.process_time() - before, 2)}]


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Medians over the data sets."""
    names = ["truth", "raw", "corrected", "raw_error", "corrected_error", "cpu_seconds"]
    wide = found.groupby("case", sort=False)[names].median()
    sums = found.groupby("case", sort=False)[["converged", "simulations"]].sum()
    wide["converged"] = sums["converged"].astype(str) + " of " + sums["simulations"].astype(str)
    return shared.markdown(wide)


if __name__ == "__main__":
    shared.main(str(__doc__), "volatility", KEYS, rows, run, table)
