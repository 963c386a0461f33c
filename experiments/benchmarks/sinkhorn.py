"""Time the Sinkhorn divergence beside geomloss's: A B A B, in processes of their own with one thread.

Run ``python -m experiments.benchmarks.sinkhorn`` from the root of the repository, on an idle Linux machine,
after ``pip install --no-deps geomloss==0.3.1``. Both take value and gradient between 4096 and 4096 sequences
of the two-state chain, 100 steps of 3 one-hot symbols, in float32, annealed to a blur of 0.2 by halves.
README.md beside this file says how pairs are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from experiments.benchmarks.paired import ROOT, measure_apart
from experiments.record import append_row, provenance

MODULE = "experiments.benchmarks.sinkhorn_cases"
PARTS = ("accuracy", "memory", "reference-memory", "converged")
RESULTS = Path(__file__).parents[1] / "results" / "benchmarks_sinkhorn.csv"
COLUMNS = (
    "cpu_seconds",
    "reference_cpu_seconds",
    "ratio",
    "ratio_min",
    "ratio_max",
    "value",
    "value_difference",
    "gradient_difference",
    "memory_mb",
    "reference_memory_mb",
    "converged_cpu_seconds",
    "converged_value",
    "converged_epsilon",
)


def part(name: str) -> dict[str, float]:
    """Measure one part in a fresh process with one thread.

    Raises:
        RuntimeError: If the process fails; holds the end of what it said.
    """
    command = [sys.executable, "-m", MODULE, name]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the benchmark's part {name!r} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(pairs: int) -> dict[str, object]:
    """All figures of one run."""
    measured = measure_apart(MODULE, "annealed", pairs=pairs)
    for name in PARTS:
        measured |= part(name)
    figures = {name: float(f"{measured[name]:.5g}") for name in COLUMNS}
    return {**figures, "pairs": pairs, "threads": 1, **provenance()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="timed calls of each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the row is appended to")
    arguments = parser.parse_args()
    found = row(arguments.pairs)
    append_row(found, arguments.results)
    for name, value in found.items():
        print(f"{name:24} {value}")
    print(f"{'times faster':24} {1 / float(str(found['ratio'])):.1f}")


if __name__ == "__main__":
    main()
