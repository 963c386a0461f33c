"""Held-out snapshots of published simulations and of drifters: bridges beside what needs no reference.

Run ``python -m experiments.sbirr.heldout`` from the root of the repository, with the data under
``SEQDYN_DATA``; of the drifters after ``experiments.sbirr.vortices``, which chooses their references.
Finished rows are skipped. ``--only data=gulf_of_mexico`` runs one dataset, ``--table`` prints the means over
the seeds beside the targets, ``--fast`` shows that it runs.

Each method gives 1000 particles at a time that it has not seen; they are compared with all particles of that
snapshot. The setting ``baselines`` needs no fit: ``nearest`` training snapshot, the better of two;
``displacement`` along the exact plan, with its weights; ``displacement_spread``, 1000 draws of it with the
spread of a Brownian bridge; ``brownian``, the bridge of a reference without drift; ``floor``, two halves of
the held-out snapshot; ``truth``, the system itself, simulated anew. After the last training snapshot bridges
forecast, ``nearest`` is persistence, and the truth starts from the particles of that snapshot.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pandas as pd

from experiments.sbirr import shared, vortices
from experiments.sbirr.scoring import rows_of_bridge, rows_of_displacement, rows_of_truth
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, TIME

KEYS = ("data", "setting", "seed", "method", "time")
METRICS = ("w2", "w1", "energy", "mmd2")
BASELINES = {"model": "brownian"} | {name: name for name in ("nearest", "displacement", "floor")}
ORDER = (
    "nearest",
    "displacement",
    "displacement_spread",
    "brownian",
    "ipf",
    "linear",
    "selected",
    "static_true",
    "static",
    "truth",
    "floor",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """One way to predict the held-out snapshots of one dataset, under one seed of fit and draws."""

    data: str
    setting: str
    seed: int
    arguments: dict[str, Any]  # of the bridge; of the baselines the volatility
    truth: dict[str, Any]  # generator of the system; empty where it is not known
    max_epochs: int
    num_samples: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every job of the configuration."""
    return [
        Config(
            data=name,
            setting=setting,
            seed=seed,
            arguments=arguments,
            truth=data.get("truth", {}),
            max_epochs=data.get("max_epochs", section["max_epochs"]),
            num_samples=section["num_samples"],
        )
        for name, data in section["data"].items()
        for setting, arguments in data["settings"].items()
        for seed in section["seeds"]
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Scores of one bridge, or of all baselines."""
    data = datasets.load(config.data)
    train = shared.snapshots_at(data, data.attrs["train_index"])
    held_out = shared.snapshots_at(
        data, {*data.attrs["held_out_index"], *data.attrs.get("forecast_index", ())}
    )
    arguments = vortices.filled_in(config.arguments, config.data)
    is_baseline = config.setting == "baselines"
    if is_baseline:
        arguments |= {"reference": "Zero", "solver": "static"}
    model = shared.bridge(arguments, data.sizes[FEATURE])
    before = time.process_time()
    shared.fitted(model, train, config.seed, max_epochs=config.max_epochs)
    seconds = time.process_time() - before
    options = METRICS, config.num_samples, config.seed
    names = BASELINES if is_baseline else {"model": config.setting}
    found = rows_of_bridge(model, held_out, names, *options)
    if is_baseline:
        found += rows_of_displacement(train, held_out, arguments["volatility"], *options)
        if config.truth:
            found += rows_of_truth(config.truth, train, held_out, *options)
    assert model.history is not None
    record = {
        "volatility": arguments["volatility"],
        "reference": str(arguments["reference"]),
        "epochs": model.history.sizes["epoch"],
        "cpu_seconds": round(seconds, 2),
    }
    job = {"data": config.data, "setting": config.setting, "seed": config.seed}
    last = float(train[TIME].max())
    return [job | row | {"part": "ahead" if row["time"] > last else "between"} | record for row in found]


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Mean W2 over the seeds of each dataset, with the targets."""
    parts = []
    for name, data in section["data"].items():
        some = found[found["data"] == name]
        if not len(some):
            continue
        wide = some.pivot_table("w2", "method", "time", sort=False)
        wide = wide.reindex([method for method in ORDER if method in wide.index])
        wide["mean"] = some[some["part"] == "between"].groupby("method")["w2"].mean()
        seconds = some.groupby("method")["cpu_seconds"].mean()
        wide["CPU s"] = seconds[[m for m in wide.index if m in data["settings"]]]
        if "targets" in data:
            wide.loc["target"] = pd.Series(data["targets"], index=wide.columns, dtype=float)
        parts.append(f"{name}\n\n{shared.markdown(wide)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    shared.main(str(__doc__), "heldout", KEYS, rows, run, table)
