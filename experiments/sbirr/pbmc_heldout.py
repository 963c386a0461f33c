"""Open the held-out snapshots of the blood cells, once, after ``experiments.sbirr.pbmc`` has chosen.

Run ``python -m experiments.sbirr.pbmc_heldout`` from the root of the repository, with the data under
``SEQDYN_DATA``. The chosen reference, clock and volatility are fitted to all cells of the snapshots with even
numbers; 1000 particles of the bridge are compared with each snapshot with an odd number, beside displacement
interpolation with its weights, and 1000 draws of it with the spread of a Brownian bridge. Intervals of
differences are the middle 95 % over resampled held-out cells. ``--table`` prints the rows, ``--fast`` shows
that it runs.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.benchmarks.paired import peak_memory
from experiments.sbirr import pbmc, shared
from experiments.sbirr.scoring import Resampled, clouds_by_time
from seqdyn import datasets
from seqdyn.ot.distances import energy_distance, split_half

KEYS = ("family", "clock", "volatility", "seed", "index")
RIVALS = ("displacement", "displacement_spread")


@dataclasses.dataclass(frozen=True)
class Config:
    """The winner under one seed of fit and draws."""

    family: str
    clock: float
    volatility: float
    reference: str | dict[str, Any]
    num_cells: int
    max_epochs: int
    num_samples: int
    num_resamples: int
    seed: int


def rows(section: dict[str, Any]) -> list[Config]:
    """The winner under every seed."""
    candidates = yaml.safe_load(shared.CONFIG.read_text())["pbmc"]
    family, clock, volatility = section.get("chosen") or winner(candidates)
    names = ("num_cells", "max_epochs", "num_samples", "num_resamples")
    common = {name: section[name] for name in names}
    chosen = family, clock, volatility, candidates["families"][family]
    return [Config(*chosen, seed=seed, **common) for seed in section["seeds"]]


def winner(candidates: dict[str, Any]) -> tuple[str, float, float]:
    """Family, clock and volatility of the lowest mean.

    Raises:
        ValueError: If a candidate was not scored.
    """
    found = pd.read_csv(pbmc.RESULTS)
    shared.check_complete(found, pbmc.rows(candidates), pbmc.KEYS, "experiments.sbirr.pbmc")
    family, clock, volatility = pbmc.means(found).index[0]
    return family, clock, volatility


def run(config: Config) -> list[dict[str, Any]]:
    """Energy distances at each held-out snapshot, with intervals of the differences."""
    data = datasets.load("pbmc")
    train = shared.snapshots_at(data, data.attrs["train_index"])
    train = pbmc.some_cells(train, config.num_cells, config.seed)
    cpu, wall = time.process_time(), time.monotonic()
    model = pbmc.fitted(
        train, config.reference, config.clock, config.volatility, config.max_epochs, config.seed
    )
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    cost = {"cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1), "peak_mb": round(peak_memory(), 1)}
    held_out = clouds_by_time(shared.snapshots_at(data, data.attrs["held_out_index"]))
    job = {name: getattr(config, name) for name in ("family", "clock", "volatility", "seed")}
    found = []
    for index, (when, y) in zip(sorted(data.attrs["held_out_index"]), held_out.items(), strict=True):
        predicted = pbmc.predictions(model, train, when, config.clock, config.num_samples, config.seed)
        row = job | {"index": index, "time": when}
        row |= {name: energy_distance(x, y, weights) for name, (x, weights) in predicted.items()}
        row |= {"floor": split_half(y, energy_distance).mean}
        judge = Resampled(y, config.num_resamples, config.seed, "energy")
        own = judge.distances(predicted["model"])
        for rival in RIVALS:
            low, high = np.quantile(own - judge.distances(predicted[rival]), [0.025, 0.975])
            row |= {f"less_{rival}_low": low, f"less_{rival}_high": high}
        found.append(row | cost)
    return found


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Energy distances by snapshot, means over the seeds."""
    names = ["model", "displacement", "displacement_spread", "floor"]
    names += [column for column in found.columns if column.startswith("less_")]
    cost = found.groupby("seed")[["cpu_seconds", "wall_seconds", "peak_mb"]].first()
    head = " at ".join(map(str, found[["family", "clock", "volatility"]].iloc[0]))
    wide = found.groupby("index")[names].mean()
    return "\n\n".join([head, shared.markdown(wide, digits=4), shared.markdown(cost, digits=0)])


if __name__ == "__main__":
    shared.main(str(__doc__), "pbmc_heldout", KEYS, rows, run, table)
