"""Open the held-out snapshots of cells, once, after ``experiments.sbirr.cells`` has chosen.

Run ``python -m experiments.sbirr.cells_heldout`` from the root of the repository, with the data under
``SEQDYN_DATA``; finished rows are skipped. All candidates are fitted to the training snapshots under one
seed, the chosen one under several. Each method gives its cloud at the held-out time: the bridge 1000
particles; ``brownian`` the same without drift at the same volatility; ``displacement`` all points of the
exact plan with their weights; ``displacement_spread`` 1000 draws of it with the spread of a Brownian bridge;
``before`` and ``after`` the training snapshots on either side; ``floor`` two halves of the held-out snapshot.
Intervals of the winner's differences are the middle 95 % over resampled held-out cells, with the predictions
as they are. ``--table`` prints the rows, ``--fast`` shows that it runs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from experiments.sbirr import cells, shared
from experiments.sbirr.scoring import Cloud, Resampled, clouds_by_time, spread_displacement
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, X
from seqdyn.models import SchrodingerBridge
from seqdyn.models.bridge_scores import METRICS
from seqdyn.ot.distances import split_half
from seqdyn.ot.exact import displacement

KEYS = ("data", "family", "volatility", "seed", "time", "method")
SHOWN = ("w2", "w1", "energy", "mmd2")
RIVALS = ("displacement", "brownian")


@dataclasses.dataclass(frozen=True)
class Config(cells.Config):
    """A family and a volatility for one dataset under one seed; ``is_winner`` if it was chosen."""

    is_winner: bool
    num_resamples: int


def rows(section: dict[str, Any]) -> list[Config]:
    """The winner under every seed, then every other candidate under the first one."""
    chosen, jobs = section.get("chosen") or winners(section), []
    for job in cells.rows(section):
        wins = list(chosen[job.data]) == [job.family, job.volatility]
        for seed in section["seeds"] if wins else section["seeds"][:1]:
            count = section["num_resamples"] if wins else 0
            more = {"seed": seed, "is_winner": wins, "num_resamples": count}
            jobs.append(Config(**dataclasses.asdict(job) | more))
    return sorted(jobs, key=lambda job: not job.is_winner)


def winners(section: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Family and volatility by dataset, from the rows of :mod:`experiments.sbirr.cells`.

    Raises:
        ValueError: If a candidate was not scored.
    """
    found = pd.read_csv(cells.RESULTS)
    shared.check_complete(found, cells.rows(section), cells.KEYS, "experiments.sbirr.cells")
    best = {data: cells.ranked(found, data).iloc[0] for data in section["data"]}
    return {data: (row["family"], row["volatility"]) for data, row in best.items()}


def run(config: Config) -> list[dict[str, Any]]:
    """Scores of a candidate and of what needs no reference, at each held-out time and on the average."""
    data = datasets.load(config.data)
    train = shared.snapshots_at(data, data.attrs["train_index"])
    held_out = clouds_by_time(shared.snapshots_at(data, data.attrs["held_out_index"]))
    models, before = {}, time.process_time()
    for name, more in {"model": {}, "brownian": {"reference": "Zero", "solver": "static"}}.items():
        models[name] = shared.bridge(config.settings | more, data.sizes[FEATURE])
        shared.fitted(models[name], train, config.seed, max_epochs=config.max_epochs)
        if name == "model":
            seconds = round(time.process_time() - before, 2)
    found: list[dict[str, Any]] = []
    replicates: list[dict[str, np.ndarray]] = []
    for when, y in held_out.items():
        predicted = predictions(models, train, when, config)
        judge = Resampled(y, config.num_resamples, config.seed)
        found += [{"time": when} | row for row in scores(predicted, y, judge)]
        replicates.append(
            {rival: judge.differences(predicted["model"], predicted[rival]) for rival in RIVALS}
        )
    found += means(found, replicates)
    job = {name: getattr(config, name) for name in ("data", "family", "volatility", "seed", "is_winner")}
    unknown = interval("displacement", np.array([np.nan])) | interval("brownian", np.array([np.nan]))
    return [job | row | unknown | row | {"cpu_seconds": seconds} for row in found]


def predictions(
    models: Mapping[str, SchrodingerBridge], train: xr.Dataset, when: float, config: Config
) -> dict[str, Cloud]:
    """What each method expects at a time: particles and their weights."""
    known = clouds_by_time(train)
    times = sorted(known)
    after = int(np.searchsorted(times, when))
    start, end = times[after - 1], times[after]
    share = (when - start) / (end - start)
    found: dict[str, Cloud] = {
        name: (model.marginal([when], num_samples=config.num_samples, seed=config.seed)[X].values[:, 0], None)
        for name, model in models.items()
    }
    scale = config.volatility * (end - start) ** 0.5
    spread = spread_displacement(known[start], known[end], share, scale, config.num_samples, config.seed)
    return found | {
        "displacement": displacement(known[start], known[end], share),
        "displacement_spread": (spread, None),
        "before": (known[start], None),
        "after": (known[end], None),
    }


def scores(predicted: Mapping[str, Cloud], y: np.ndarray, judge: Resampled) -> list[dict[str, Any]]:
    """One row for each method; that of the model with the intervals of its differences."""
    found = []
    for method, (x, weights) in predicted.items():
        row: dict[str, Any] = {"method": method}
        row |= {name: METRICS[name](x, y, weights) for name in SHOWN}
        if method == "model":
            for rival in RIVALS:
                row |= interval(rival, judge.differences(predicted["model"], predicted[rival]))
        found.append(row)
    floor = {name: split_half(y, METRICS[name]).mean for name in SHOWN}
    return [*found, {"method": "floor", **floor}]


def interval(rival: str, differences: np.ndarray) -> dict[str, float]:
    """Middle 95 % of differences of W2; below zero where the model is better. NaN without resamples."""
    low, high = np.quantile(differences, [0.025, 0.975]) if len(differences) else (np.nan, np.nan)
    return {f"less_{rival}_low": low, f"less_{rival}_high": high}


def means(found: list[dict[str, Any]], replicates: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """The same on the average over the held-out times."""
    frame = pd.DataFrame(found).groupby("method", sort=False)[list(SHOWN)].mean()
    rows = [{"time": "mean", "method": method, **row.to_dict()} for method, row in frame.iterrows()]
    for rival in RIVALS:
        rows[0] |= interval(rival, np.mean([part[rival] for part in replicates], axis=0))
    return rows


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """W2 of the winner beside what needs no reference, and of all candidates."""
    parts = []
    for data in section["data"]:
        some = found[found["data"] == data]
        if not len(some):
            continue
        best = some[some["is_winner"]]
        wide = best.pivot_table("w2", "method", "time", sort=False)
        models = some[some["method"] == "model"]
        every = models.pivot_table("w2", ["family", "volatility"], "time", sort=False)
        columns = [name for name in models.columns if name.startswith("less_")]
        signs = models[models["is_winner"]].groupby("time", sort=False)[columns].mean()
        name = " at ".join(map(str, best[["family", "volatility"]].iloc[0])) if len(best) else "not chosen"
        parts += [f"{data}: {name}", *map(shared.markdown, (wide, signs, every))]
    return "\n\n".join(parts)


if __name__ == "__main__":
    shared.main(str(__doc__), "cells_heldout", KEYS, rows, run, table)
