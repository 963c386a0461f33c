"""Volatility estimated from snapshots: where the divergence is least, and after the correction by simulation.

Run ``python -m experiments.sbirr.volatility`` from the root of the repository; finished rows are skipped.
``--only additive_50`` runs one setting, ``--table`` prints medians, ``--fast`` shows that it runs.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.record import append_row, provenance
from seqdyn import datasets
from seqdyn.models import SchrodingerBridge

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "sbirr_volatility.csv"
SEEDS = range(5)
FAST = {"num_particles": 20, "times": [0, 2, 4]}


def run(name: str, data: dict[str, Any], seed: int, num_simulations: int = 8) -> dict[str, Any]:
    """One data set of one setting."""
    snapshots = datasets.lotka_volterra(**data, seed=seed)
    coordinates = "log" if data["noise"] == "proportional" else "raw"
    begin = time.process_time()
    model = SchrodingerBridge(
        2, "estimate", reference="LotkaVolterra", coordinates=coordinates, num_simulations=num_simulations
    )
    model.fit(snapshots, seed=seed, enable_progress_bar=False)
    found = model.volatility_estimate
    parameters = model.reference_parameters["value"].to_series()
    errors = [
        abs(parameters[name] / snapshots.attrs[name] - 1) for name in ("alpha", "beta", "gamma", "delta")
    ]
    return {
        "setting": name,
        "seed": seed,
        "truth": data["volatility"],
        "raw": float(found["raw"]),
        "corrected": float(found["corrected"]),
        "refinements": model.history.sizes["epoch"],
        "simulations_converged": int(found["converged"].sum()),
        "num_simulations": num_simulations,
        "smallest_ratio": float(found["ratio"].min()),
        "largest_ratio": float(found["ratio"].max()),
        "largest_parameter_error": max(errors),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def table(rows: pd.DataFrame) -> str:
    """Medians over data sets, relative to the truth."""
    shown = rows.assign(raw=rows["raw"] / rows["truth"], corrected=rows["corrected"] / rows["truth"])
    columns = ["truth", "raw", "corrected", "largest_parameter_error", "cpu_seconds"]
    return shown.groupby("setting")[columns].median().round(3).to_string()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="one setting")
    parser.add_argument("--table", action="store_true", help="print medians of the finished rows")
    parser.add_argument("--fast", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/sbirr_fast"), help="folder of fast results")
    options = parser.parse_args()
    settings = yaml.safe_load((HERE / "config.yaml").read_text())["volatility"]
    path = RESULTS
    if options.fast:  # never among the real rows
        settings = {"additive_50": settings["additive_50"] | FAST}
        path = options.runs / RESULTS.name
    logging.getLogger("seqdyn").setLevel(logging.WARNING)
    done = set(zip(*pd.read_csv(path)[["setting", "seed"]].values.T, strict=True)) if path.exists() else set()
    for name, data in settings.items():
        for seed in [] if options.table else SEEDS if not options.fast else [0]:
            if (name, seed) in done or options.only not in (None, name):
                continue
            origin = provenance()
            row = run(name, data, seed, 2 if options.fast else 8)
            append_row(row | origin, path, keys=("setting", "seed"))
            print(
                {key: row[key] for key in ("setting", "seed", "raw", "corrected", "cpu_seconds")}, flush=True
            )
    print(table(pd.read_csv(path)))


if __name__ == "__main__":
    main()
