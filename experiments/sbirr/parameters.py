"""Parameters of Lotka-Volterra systems from snapshots, and whether their intervals hold what they promise.

Run ``python -m experiments.sbirr.parameters`` from the root of the repository; finished rows are skipped, so
that it can stop and go on. ``--seed 3`` runs one data set, ``--table`` prints errors and coverage, ``--fast``
shows that it runs.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import binomtest

from experiments.record import append_row, provenance
from seqdyn import datasets
from seqdyn.models import SchrodingerBridge

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "sbirr_parameters.csv"
NAMES = ("alpha", "beta", "gamma", "delta")
FAST = {"num_replicates": 2, "seeds": 1}
KINDS = {"percentile": ("lower", "upper"), "basic": ("basic_lower", "basic_upper")}


def run(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """One data set: estimates, and intervals of the particle bootstrap."""
    data = datasets.lotka_volterra(**config["data"], volatility=config["volatility"], seed=seed)
    begin = time.process_time()
    model = SchrodingerBridge(2, config["volatility"], reference="LotkaVolterra")
    model.fit(data, seed=seed, enable_progress_bar=False)
    fitted = time.process_time()
    draws = model.bootstrap(config["num_replicates"], level=config["level"], seed=seed, progress=False)
    row: dict[str, Any] = {"seed": seed}
    errors = []
    for name in NAMES:
        one = draws.sel(parameter=name)
        estimate, lower, upper = (float(one[part]) for part in ("estimate", "lower", "upper"))
        truth = float(data.attrs[name])
        errors.append(abs(estimate / truth - 1))
        row |= {f"{name}_truth": truth, name: estimate, f"{name}_lower": lower, f"{name}_upper": upper}
        row |= {f"{name}_basic_lower": 2 * estimate - upper, f"{name}_basic_upper": 2 * estimate - lower}
        row[f"{name}_sd"] = float(one["parameter_draw"].std(ddof=1))
    seconds = {"fit_cpu_seconds": fitted - begin, "bootstrap_cpu_seconds": time.process_time() - fitted}
    return row | {"largest_error": max(errors)} | {name: round(value, 2) for name, value in seconds.items()}


def table(rows: pd.DataFrame, level: float) -> str:
    """Errors of the estimates, and the share of intervals that hold the truth with its own interval."""
    five = rows[rows["seed"] < 5]["largest_error"]
    lines = [
        f"largest relative error of a parameter, median of {len(five)} data sets: {five.median():.4f}",
        f"the same over all {len(rows)}: {rows['largest_error'].median():.4f}, largest "
        f"{rows['largest_error'].max():.4f}",
    ]
    for kind, (low, high) in KINDS.items():
        shares = []
        for name in NAMES:
            truth = rows[f"{name}_truth"]
            held = (rows[f"{name}_{low}"] <= truth) & (truth <= rows[f"{name}_{high}"])
            bounds = binomtest(int(held.sum()), len(held)).proportion_ci(0.95, method="wilson")
            shares.append(held.mean())
            lines.append(
                f"{kind:10} {level:.0%} interval of {name:5}: holds the truth in {held.mean():.3f} "
                f"[{bounds.low:.3f}, {bounds.high:.3f}] of {len(held)}"
            )
        lines.append(f"{kind:10} mean over the parameters: {np.mean(shares):.3f}")
    for name in NAMES:
        error = rows[name] / rows[f"{name}_truth"] - 1
        spread = (rows[f"{name}_sd"] / rows[name]).mean()
        lines.append(
            f"{name:5} bias {error.mean():+.4f}, sd of the estimates {error.std():.4f}, of draws {spread:.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="one data set")
    parser.add_argument("--table", action="store_true", help="print what the finished rows say")
    parser.add_argument("--fast", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/sbirr_fast"), help="folder of fast results")
    options = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())["parameters"]
    path = RESULTS
    if options.fast:  # never among the real rows
        config |= FAST
        path = options.runs / RESULTS.name
    logging.getLogger("seqdyn").setLevel(logging.WARNING)
    done = set(pd.read_csv(path)["seed"]) if path.exists() else set()
    seeds = range(config["seeds"]) if options.seed is None else [options.seed]
    for seed in [] if options.table else seeds:
        if seed not in done:
            origin = provenance()
            row = run(config, seed)
            append_row(row | origin, path, keys=("seed",))
            print({name: row[name] for name in ("seed", *NAMES, "bootstrap_cpu_seconds")}, flush=True)
    print(table(pd.read_csv(path), config["level"]))


if __name__ == "__main__":
    main()
