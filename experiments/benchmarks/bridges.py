"""CPU seconds and memory of fitting bridges, each case in a process of its own with one thread.

Run ``python -m experiments.benchmarks.bridges`` from the root of the repository, on an idle Linux machine;
finished cases are skipped. ``--case lotka_volterra`` runs one, ``--table`` prints the finished ones beside
what was asked of them, ``--picture`` draws the cost of a refinement over the number of particles.

Fits: ``lotka_volterra``, 5 snapshots of 50 particles in the plane; ``repressilator``, 6 snapshots of 50 in
three dimensions; ``ten_snapshots``, 10 of 200 in the plane. Refinements: ``particles_N``, 5 snapshots of N
particles of Lotka-Volterra, the first three refinements, of which the first is the dearest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr

from experiments.benchmarks.paired import peak_memory
from experiments.record import ROOT, append_row, provenance
from seqdyn import datasets
from seqdyn.models import SchrodingerBridge

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks_bridges.csv"
PICTURE = Path(__file__).parents[1] / "sbirr" / "figures" / "particles.png"
FITS: dict[str, tuple[Callable[[], xr.Dataset], str, float]] = {  # data, reference, CPU seconds asked for
    "lotka_volterra": (lambda: datasets.lotka_volterra(50, range(0, 9, 2), seed=0), "LotkaVolterra", 10.0),
    "repressilator": (
        lambda: datasets.repressilator(50, [1.5 * i for i in range(6)], seed=0),
        "Repressilator",
        60.0,
    ),
    "ten_snapshots": (lambda: datasets.lotka_volterra(200, range(10), seed=0), "LotkaVolterra", 60.0),
}
NUM_PARTICLES = (100, 200, 500, 1000, 1500, 2000, 3000)
CASES = (*FITS, *(f"particles_{count}" for count in NUM_PARTICLES))
ROUNDS = 3


def measure(case: str) -> dict[str, Any]:
    """Figures of one case, in this process."""
    if case in FITS:
        make, reference, _ = FITS[case]
        data, options = make(), {}
    else:
        data, reference = (
            datasets.lotka_volterra(int(case.split("_")[1]), range(0, 9, 2), seed=0),
            "LotkaVolterra",
        )
        options = {"max_epochs": ROUNDS}
    SchrodingerBridge(data.sizes["feature"], 0.1, reference=reference).fit(  # what is loaded once
        data.isel(particle=slice(0, None, max(1, data.sizes["particle"] // 50))), max_epochs=1, seed=0,
        enable_progress_bar=False,
    )  # fmt: skip
    idle = peak_memory()
    model = SchrodingerBridge(data.sizes["feature"], 0.1, reference=reference)
    cpu, wall = time.process_time(), time.monotonic()
    model.fit(data, seed=0, enable_progress_bar=False, **options)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    assert model.history is not None
    epochs = model.history.sizes["epoch"]
    return {
        "particles": int(data.sizes["particle"] / len(set(data["time"].values.tolist()))),
        "epochs": epochs,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "cpu_seconds_per_epoch": round(cpu / epochs, 4),
        "peak_mb": round(peak_memory(), 1),
        "before_mb": round(idle, 1),
        "divergence": round(float(model.divergence), 4),
    }


def measure_apart(case: str) -> dict[str, Any]:
    """The same in a fresh process with one thread.

    Raises:
        RuntimeError: If the process fails; holds the end of what it said.
    """
    command = [sys.executable, "-m", "experiments.benchmarks.bridges", "--case", case, "--here"]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the case {case!r} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: pd.DataFrame) -> str:
    """Finished cases beside what was asked of them."""
    asked = found["case"].map({name: seconds for name, (_, _, seconds) in FITS.items()})
    names = ["case", "particles", "epochs", "cpu_seconds", "cpu_seconds_per_epoch", "peak_mb", "before_mb"]
    return found[names].assign(asked=asked).to_string(index=False)


def picture(found: pd.DataFrame, path: Path) -> None:
    """Cost and memory of a refinement over the number of particles."""
    some = found[found["case"].str.startswith("particles_")].sort_values("particles")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.loglog(some["particles"], some["cpu_seconds_per_epoch"], "o-", color="C0")
    left.set(xlabel="particles in each of 5 snapshots", ylabel="CPU time of a refinement (s)")
    right.loglog(some["particles"], some["peak_mb"] - some["before_mb"], "o-", color="C1")
    right.set(xlabel="particles in each of 5 snapshots", ylabel="memory, beyond that of the imports (MB)")
    for axes in (left, right):
        ticks = some["particles"].tolist()
        axes.set_xticks(ticks, ["" if tick == 1500 else str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, help="one case")
    parser.add_argument("--here", action="store_true", help="measure it in this process and print it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    parser.add_argument("--table", action="store_true", help="print the finished rows")
    parser.add_argument("--picture", action="store_true", help="draw them")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.case)))
        return
    results, done = options.results, set()
    if results.exists():
        done = set(pd.read_csv(results)["case"])
    for case in [] if options.table or options.picture else CASES:
        if options.case not in (None, case) or case in done:
            continue
        row = {"case": case, **measure_apart(case), "threads": 1, **provenance()}
        append_row(row, results, keys=("case",))
        print(row, flush=True)
    print(table(pd.read_csv(results)))
    if options.picture:
        picture(pd.read_csv(results), PICTURE)


if __name__ == "__main__":
    main()
