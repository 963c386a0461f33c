"""Score TSDiff and the baselines on two weeks of hourly departures, trained on what lies before each week.

Run ``python -m experiments.tsdiff.nyc_flights`` from the root of the repository; finished rows are skipped
and an interrupted fit goes on where it was, so it may be stopped at any time. ``--only small --week august
--seed 0`` runs one row, ``--table`` prints the pooled scores of what is there, ``--fast`` is the two-minute
version.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml

import seqdyn.models
from experiments.record import append_row, provenance
from experiments.tsdiff.features import add_covariates
from seqdyn import datasets, evaluate
from seqdyn.metrics import pool

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "tsdiff_nyc_flights.csv"
SEASONS = 14  # days that say whether an hour of a series is ever used

logger = logging.getLogger("seqdyn")


@dataclasses.dataclass(frozen=True)
class Config:
    """One row: a model, a week, a seed."""

    model: str
    week: str
    seed: int
    end: str
    class_name: str
    arguments: dict[str, Any]
    fit: dict[str, Any]
    forecast: dict[str, Any]
    covariates: bool  # give the model what is known of the day ahead
    whole_numbers: bool  # round its draws, as counts are
    fit_of: str  # name of the model whose fit this is: its own, or another's that is scored in a second way
    data: str
    num_windows: int
    num_samples: int


def rows(config: dict[str, Any]) -> list[Config]:
    """Every row of a configuration; a model without a fit is deterministic and takes one seed."""
    return [
        Config(
            model=name,
            week=week,
            seed=seed,
            end=str(stretch["end"]),
            class_name=model["class"],
            arguments=model["arguments"],
            fit=model.get("fit", {}),
            forecast=model.get("forecast", {}),
            covariates=model.get("covariates", False),
            whole_numbers=model.get("whole_numbers", False),
            fit_of=model.get("fit_of", name),
            data=config["data"],
            num_windows=config["num_windows"],
            num_samples=config["num_samples"],
        )
        for name, model in config["models"].items()
        for seed in (config["seeds"] if "fit" in model else config["seeds"][:1])
        for week, stretch in config["weeks"].items()
    ]


class WholeNumbers:
    """A fitted model whose draws are rounded to whole numbers."""

    def __init__(self, model: Any, prediction_length: int) -> None:
        self.model, self.data_info, self.prediction_length = model, model.data_info, prediction_length

    @property
    def forecast(self) -> Callable[..., xr.Dataset]:
        """The model's own, with its signature, and rounded."""
        forecast = self.model.forecast
        return functools.wraps(forecast)(lambda context, **options: forecast(context, **options).round())


def folder(runs: Path, config: Config, model: str) -> Path:
    """Where a model's results for a row's week and seed are."""
    return runs / f"{model}-{config.week}-{config.seed}"


def run(config: Config, runs: Path) -> tuple[dict[str, Any], xr.Dataset]:
    """Fit before the week, forecast its days, score them.

    Returns:
        The row for the table, and the scores with the forecasts.
    """
    data = datasets.load(config.data)
    data = data.isel(time=data["time"].values < np.datetime64(config.end))
    data = add_covariates(data) if config.covariates else data
    model = getattr(seqdyn.models, config.class_name)(**config.arguments)
    horizon = config.arguments.get("prediction_length", 24)
    train = data.isel(time=slice(0, -config.num_windows * horizon))
    clock = time.process_time()
    options = {"run_dir": folder(runs, config, config.fit_of) / "run", "resume": True} if config.fit else {}
    model.fit(train, seed=config.seed, **config.fit, **options)
    fit_seconds, clock = time.process_time() - clock, time.process_time()
    scores = evaluate(
        WholeNumbers(model, horizon) if config.whole_numbers else model,
        data,
        num_windows=config.num_windows,
        num_samples=config.num_samples,
        seed=config.seed,
        keep_forecasts=True,
        **config.forecast,
    )
    hits, cells = coverage_by_use(scores, data)
    used, unused, central = (hits / cells).tolist()
    row = {
        "model": config.model,
        "week": config.week,
        "seed": config.seed,
        "crps": scores.attrs["crps"],
        "nd": scores.attrs["nd"],
        "coverage_80_used": used,
        "coverage_80_unused": unused,
        "central_80_used": central,
        "minimum": float(scores["forecast"].min()),
        "fit_cpu_seconds": round(fit_seconds, 1),
        "forecast_cpu_seconds": round(time.process_time() - clock, 1),
    } | provenance()
    return row, scores


def coverage_by_use(scores: xr.Dataset, data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Cells inside the 80 % interval and all cells, in hours used in the 14 days before and in the others.

    The third pair counts cells of used hours whose randomised PIT lies between 0.1 and 0.9. Of whole numbers
    an interval holds more than its share, because truths on its ends count; the PIT counts a part of them.
    """
    forecast = scores["forecast"]
    truth = data["target"].sel(time=forecast["time"])
    low, high = (forecast.quantile(q, dim="sample") for q in (0.1, 0.9))
    inside = (truth >= low) & (truth <= high)
    before = [data["target"].shift(time=24 * day).sel(time=forecast["time"]) for day in range(1, SEASONS + 1)]
    used = xr.concat(before, "day").max("day") > 0
    central = (scores["pit"] >= 0.1) & (scores["pit"] <= 0.9)
    groups = ((inside, used), (inside, ~used), (central, used))
    hits, cells = (
        [int(x.sum()) for x in (hit & group for hit, group in groups)],
        [int(g.sum()) for _, g in groups],
    )
    return np.array(hits), np.array(cells)


def table(runs: Path, config: dict[str, Any]) -> pd.DataFrame:
    """Scores pooled over the weeks, one row a model and seed; coverage is that of the 80 % interval."""
    found, data = [], datasets.load(config["data"])
    for name in config["models"]:
        for seed in config["seeds"]:
            weeks = [runs / f"{name}-{week}-{seed}" / "scores.nc" for week in config["weeks"]]
            if all(path.exists() for path in weeks):
                scores = [xr.load_dataset(path) for path in weeks]
                pooled, covered = pool(scores), [coverage_by_use(one, data) for one in scores]
                row = {"model": name, "seed": seed, "crps": float(pooled["crps"]), "nd": float(pooled["nd"])}
                hits, cells = np.sum(covered, axis=0)
                row |= dict(zip(("coverage_used", "coverage_unused", "pit_used"), hits / cells, strict=True))
                found.append(row | {"minimum": min(float(one["forecast"].min()) for one in scores)})
    return pd.DataFrame(found)


def _fast(config: dict[str, Any]) -> dict[str, Any]:
    small = {"class": "TSDiff", "arguments": {"preset": "small", "lower": 0.0}}
    small |= {"fit": {"max_epochs": 1}, "forecast": {"num_steps": 5}}
    models = {"seasonal-ensemble": config["models"]["seasonal-ensemble"], "small": small}
    return config | {"models": models, "seeds": [0], "num_windows": 1, "num_samples": 10}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="name of one model")
    parser.add_argument("--week", help="name of one week")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/tsdiff_nyc_flights"), help="folder of the runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    parser.add_argument("--table", action="store_true", help="print the pooled scores of the finished rows")
    parser.add_argument("--fast", action="store_true", help="a few minutes, to see that it runs")
    arguments = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    if arguments.fast:  # never among the real rows
        config, arguments.runs = _fast(config), arguments.runs.with_name(f"{arguments.runs.name}_fast")
        arguments.results = arguments.runs / "results.csv"
    wanted = {"model": arguments.only, "week": arguments.week, "seed": arguments.seed}
    if not arguments.table:
        for one in rows(config):
            place = folder(arguments.runs, one, one.model)
            chosen = all(value is None or getattr(one, name) == value for name, value in wanted.items())
            if not chosen or (place / "scores.nc").exists():
                continue
            place.mkdir(parents=True, exist_ok=True)
            row, scores = run(one, arguments.runs)
            scores.to_netcdf(place / "scores.part")
            append_row(row, arguments.results, keys=("model", "week", "seed"))
            os.replace(place / "scores.part", place / "scores.nc")
            logger.info("%s", row)
    scores = table(arguments.runs, config)
    print(f"no model is finished in {arguments.runs}" if scores.empty else scores.to_string(index=False))


if __name__ == "__main__":
    main()
