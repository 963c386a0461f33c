"""Fixed points, residence and Lyapunov exponents: right, and how fast, on one thread.

Run ``OMP_NUM_THREADS=1 python -m experiments.benchmarks.dynamics`` from the root of the repository; the cases
of trained networks read them from ``--runs``, where ``python -m experiments.hmm_rnn.emulation`` left them.

``fixed-points``: tanh(W h + b), 50 units, W = 1.6 N / sqrt(50), b = 0.1 N, float64, 256 starts; ``expected``
is the number of points that 20 000 starts reach, and ``wrong`` how many of those found are none of them.
``residence``: 5000 driven states, 20 runs of at most 60 steps each. ``lyapunov``: largest deviation from
the known exponents.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seqdyn
from experiments.record import append_row, provenance
from seqdyn import analysis
from seqdyn.datasets import chaos
from seqdyn.dynamics import MapDynamics, from_callable

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks_dynamics.csv"
KEYS = ("case", "seed")
NETWORKS = {"residence-50": "preset-three-{}", "residence-150": "three_150-three-{}"}
NUM_STARTS = 20_000


def timed(work: Callable[[], Any], repeats: int = 5) -> tuple[Any, float]:
    """The result, and the median of the CPU seconds of repeated calls."""
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        found = work()
        seconds.append(time.process_time() - before)
    return found, float(np.median(seconds))


def random_tanh(seed: int) -> MapDynamics:
    """A random network of 50 tanh units, in the regime of few fixed points."""
    generator = torch.Generator().manual_seed(seed)
    weights = 1.6 * torch.randn(50, 50, generator=generator, dtype=torch.float64) / 50**0.5
    bias = 0.1 * torch.randn(50, generator=generator, dtype=torch.float64)
    return from_callable(lambda h: torch.tanh(h @ weights.mT + bias), 50)


def fixed_points(seed: int) -> dict[str, Any]:
    """Points from 256 starts, beside those from 20 000."""
    dynamics = random_tanh(seed)
    generator = torch.Generator().manual_seed(100 + seed)
    starts = torch.randn(NUM_STARTS + 256, 50, generator=generator, dtype=torch.float64)
    found, seconds = timed(lambda: analysis.fixed_points(dynamics, starts[:256]))
    full = analysis.fixed_points(dynamics, starts[256:])
    near = np.linalg.norm(found["hidden"].values[:, None] - full["hidden"].values, axis=2) < 1e-6
    rare = full["basin_count"].values < 0.01 * NUM_STARTS
    return {
        "cpu_seconds": seconds,
        "found": found.sizes["point"],
        "expected": full.sizes["point"],
        "missed": int((~near.any(axis=0)).sum()),
        "missed_rare": int((~near.any(axis=0) & rare).sum()),
        "wrong": int((~near.any(axis=1)).sum()),
        "error": float(found["speed"].max()),
    }


def residence(name: str, seed: int, runs: Path) -> dict[str, Any]:
    """The residence map of a trained network."""
    model = seqdyn.load(runs / NETWORKS[name].format(seed) / "run" / "model")
    states = model.sample(100, num_steps=50, burn_in=200, seed=0, keep=["hidden"], progress=False)["hidden"]
    states = torch.from_numpy(states.values).flatten(0, 1)
    dynamics = model.dynamics()
    found, seconds = timed(lambda: analysis.residence(dynamics, states, num_runs=20, max_steps=60, seed=0))
    return {"cpu_seconds": seconds, "found": found.sizes["sample"]}


def lyapunov(name: str) -> dict[str, Any]:
    """Exponents of a textbook system, beside those published."""
    system = getattr(chaos, name)()
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(32, len(system.start), generator=generator, dtype=torch.float64)
    start = torch.tensor(system.start, dtype=torch.float64) + 0.01 * spread
    settings = {"num_steps": 10_000, "transient": 5000, "step_size": system.step_size}
    found, seconds = timed(lambda: analysis.lyapunov_spectrum(system.dynamics, start, **settings), repeats=1)
    exponents = found["exponent"].values
    return {
        "cpu_seconds": seconds,
        "found": " ".join(f"{value:.4f}" for value in exponents),
        "expected": " ".join(f"{value:.4f}" for value in system.exponents),
        "error": float(np.abs(exponents - system.exponents).max()),
    }


COLUMNS = ("cpu_seconds", "found", "expected", "missed", "missed_rare", "wrong", "error")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", help="one case, such as fixed-points")
    parser.add_argument("--runs", type=Path, default=Path("runs/hmm_rnn"), help="folder of trained networks")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    options = parser.parse_args()
    cases: dict[tuple[str, int], Callable[[], dict[str, Any]]] = {}
    for seed in range(1, 6):
        cases["fixed-points", seed] = lambda seed=seed: fixed_points(seed)
    for name in ("lorenz", "henon", "logistic"):
        cases[f"lyapunov-{name}", 0] = lambda name=name: lyapunov(name)
    for name in NETWORKS:
        cases[name, 0] = lambda name=name: residence(name, 0, options.runs)
    for (name, seed), case in cases.items():
        if options.case not in (None, name):
            continue
        found = case()
        row = {"case": name, "seed": seed, **{column: found.get(column, "") for column in COLUMNS}}
        append_row({**row, "threads": torch.get_num_threads(), **provenance()}, options.results, keys=KEYS)
        print(name, seed, found, flush=True)


if __name__ == "__main__":
    main()
