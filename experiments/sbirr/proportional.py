"""Systems with proportional noise, drawn anew: the population between snapshots, and a forecast.

Run ``python -m experiments.sbirr.proportional`` from the root of the repository; finished rows are skipped.
``--only system=lotka_volterra`` runs one system, ``--table`` prints means over the data seeds beside the
targets, ``--fast`` shows that it runs.

Snapshots of 200 particles each are drawn under a data seed; the bridge is fitted in logarithms to those at
whole times but the last, with the true volatility, and compared with those midway (``between``) and with the
last one (``ahead``), by 1000 particles against 200. ``truth`` is the system simulated anew; ahead it starts,
as bridges do, from the particles of the last training snapshot.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd

from experiments.sbirr import shared
from experiments.sbirr.scoring import rows_of_bridge, rows_of_truth
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, PARTICLE, TIME

KEYS = ("system", "seed", "method", "time")
METRICS = ("w2", "w1", "energy", "mmd2")
METHODS = {"model": "static"} | {name: name for name in ("nearest", "displacement", "brownian", "floor")}


@dataclasses.dataclass(frozen=True)
class Config:
    """One system and one draw of its snapshots."""

    system: str
    seed: int
    reference: str
    volatility: float
    num_particles: int
    num_training: int
    max_epochs: int
    num_samples: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every job of the configuration."""
    names = ("volatility", "num_particles", "num_training", "max_epochs", "num_samples")
    return [
        Config(name, seed, system["reference"], **{key: section[key] for key in names})
        for name, system in section["systems"].items()
        for seed in section["seeds"]
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Scores of a bridge and of the truth at every time that was not fitted."""
    truth = {"system": config.system, "noise": "proportional", "volatility": config.volatility}
    count = config.num_training
    times = sorted([*range(count + 1), *(time + 0.5 for time in range(count - 1))])
    generator = getattr(datasets, config.system)
    arguments = {name: value for name, value in truth.items() if name != "system"}
    data = generator(config.num_particles, times, seed=config.seed, **arguments)
    is_trained = np.isin(data[TIME].values, range(count))
    train, held_out = data.isel({PARTICLE: is_trained}), data.isel({PARTICLE: ~is_trained})
    settings = {"volatility": config.volatility, "reference": config.reference, "coordinates": "log"}
    model = shared.bridge(settings, data.sizes[FEATURE])
    before = time.process_time()
    shared.fitted(model, train, config.seed, max_epochs=config.max_epochs)
    seconds = time.process_time() - before
    options = METRICS, config.num_samples, config.seed
    found = rows_of_bridge(model, held_out, METHODS, *options)
    found += rows_of_truth(truth, train, held_out, *options)
    values = model.reference_parameters["value"]
    error = max(abs(float(one) / data.attrs[str(one["parameter"].values)] - 1) for one in values)
    job = {"system": config.system, "seed": config.seed}
    record = {"parameter_error": error, "cpu_seconds": round(seconds, 2)}
    return [job | row | {"part": "ahead" if row["time"] >= count else "between"} | record for row in found]


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Mean W2 over times and data seeds, with the targets."""
    wide = found.pivot_table("w2", ["system", "method"], "part", sort=False)
    for name, system in section["systems"].items():
        for part, target in system.get("targets", {}).items():
            wide.loc[(name, "target"), part] = target
    each = found[found["method"] == "static"].groupby(["system", "seed"])["parameter_error"].first()
    worst = each.groupby("system").median().to_dict()
    return shared.markdown(wide.sort_index(level=0, sort_remaining=False)) + (
        f"\n\nmedian of the largest relative error of a parameter: {worst}"
    )


if __name__ == "__main__":
    shared.main(str(__doc__), "proportional", KEYS, rows, run, table)
