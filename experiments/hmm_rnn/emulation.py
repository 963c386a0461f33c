"""Train networks to emulate the published hidden Markov models, and compare them with these.

Run ``python -m experiments.hmm_rnn.emulation`` from the root of the repository; finished rows are skipped and
an interrupted fit goes on where it was. ``--only preset --process three --seed 0`` runs one row, ``--table``
prints the rows beside the published figures, ``--fast`` shows within a minute that it runs (in a folder of
its own).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
import yaml

from experiments.record import append_row, provenance
from seqdyn.datasets.hmm import PRESETS
from seqdyn.metrics import emulation
from seqdyn.models import HMMRNN

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "hmm_rnn_emulation.csv"
FAST = {"hidden_size": 32, "input_size": 2, "batch_size": 16, "batches_per_epoch": 2}
KEYS = ("model", "process", "seed")

logger = logging.getLogger("seqdyn")


@dataclasses.dataclass(frozen=True)
class Config:
    """One row: a setting, a process, a seed."""

    model: str
    process: str
    seed: int
    arguments: dict[str, Any]
    fit: dict[str, Any]
    scores: dict[str, Any]


def rows(config: dict[str, Any]) -> list[Config]:
    """Every row of a configuration."""
    return [
        Config(
            name,
            process,
            seed,
            model["arguments"],
            model["fit"],
            config["scores"] | {"matched_steps": config["matched_steps"].get(process)},
        )
        for name, model in config["models"].items()
        for process in model["processes"]
        for seed in model.get("seeds", config["seeds"])
    ]


def run(config: Config, folder: Path) -> tuple[dict[str, Any], xr.Dataset]:
    """Train and compare.

    Returns:
        The row for the table, and the whole comparison.
    """
    model = HMMRNN.preset(config.process, **config.arguments)
    cpu, wall = time.process_time(), time.monotonic()
    model.fit(seed=config.seed, run_dir=folder / "run", resume=True, **config.fit)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    num_steps = PRESETS[config.process].num_steps  # also where training takes shorter windows
    scores = emulation(model, model.hmm, num_steps=num_steps, seed=config.seed, **config.scores)
    exact, found = scores.sel(source="exact"), scores.sel(source="model", drawn="model")
    row: dict[str, Any] = {"model": config.model, "process": config.process, "seed": config.seed}
    errors = ("", "_process", "_rare", "_start")
    merits = ("floor_ratio", "floor_ratio_error", *(f"largest_error{kind}" for kind in errors))
    row |= {name: scores.attrs[name] for name in merits}
    row |= {
        "frequency_error": float(abs(found["frequency"] - exact["frequency"]).max()),
        "volatility": float(found["volatility"]),
        "volatility_exact": float(exact["volatility"]),
        "distance": scores.attrs["distance"],
        "distance_floor": scores.attrs["distance_floor"],
        "fit_cpu_seconds": round(cpu, 1),
        "fit_wall_seconds": round(wall, 1),
    }
    return row | provenance(), scores


def table(results: Path, config: dict[str, Any]) -> pd.DataFrame:
    """The rows beside the published largest error."""
    found = pd.read_csv(results)
    published = found["process"].map(
        {name: row["largest_error"] for name, row in config["published"].items()}
    )
    columns = [
        *KEYS,
        "floor_ratio",
        "largest_error",
        "largest_error_process",
        "volatility",
        "volatility_exact",
    ]
    return found[columns].assign(published_error=published)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="name of one setting")
    parser.add_argument("--process", help="name of one process")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/hmm_rnn"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    parser.add_argument("--table", action="store_true", help="print the finished rows")
    parser.add_argument("--fast", action="store_true", help="a minute, to see that it runs")
    arguments = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    if arguments.fast:  # never among the real rows
        arguments.runs = arguments.runs.with_name(f"{arguments.runs.name}_fast")
        arguments.results = arguments.runs / "results.csv"
        small = {"processes": ["three"], "arguments": FAST, "fit": {"max_epochs": 1}}
        few = {"num_draws": 2, "num_sequences": 32, "num_chains": 20, "num_chain_steps": 200, "burn_in": 20}
        few["num_matched"] = 20
        config |= {"models": {"preset": small}, "seeds": [0], "scores": few}
    wanted = {"model": arguments.only, "process": arguments.process, "seed": arguments.seed}
    for one in [] if arguments.table else rows(config):
        place = arguments.runs / f"{one.model}-{one.process}-{one.seed}"
        chosen = all(value is None or getattr(one, name) == value for name, value in wanted.items())
        if not chosen or (place / "scores.nc").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        row, scores = run(one, place)
        scores.to_netcdf(place / "scores.part")
        append_row(row, arguments.results, keys=KEYS)
        os.replace(place / "scores.part", place / "scores.nc")
        logger.info("%s", row)
    print(table(arguments.results, config).to_string(index=False))


if __name__ == "__main__":
    main()
