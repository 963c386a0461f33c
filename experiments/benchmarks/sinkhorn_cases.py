"""What the Sinkhorn benchmark measures, each part in a process of its own; see ``sinkhorn.py`` beside this.

``python -m experiments.benchmarks.sinkhorn_cases PART`` prints one part of :data:`PARTS` as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.paired import peak_memory
from seqdyn.ot import auto_blur, sinkhorn_divergence

NUM_SERIES, EPSILON, SCALING = 4096, 0.04, 0.5
TWO = ([[0.95, 0.05], [0.05, 0.95]], [[0.99, 0.01, 0.0], [0.0, 0.01, 0.99]])
# Crossing probability 0.05 from end to end in two steps of 0.2236.
THREE = (
    [[0.7764, 0.2236, 0.0], [0.2236, 0.5528, 0.2236], [0.0, 0.2236, 0.7764]],
    [[0.99, 0.01, 0.0], [0.495, 0.01, 0.495], [0.0, 0.01, 0.99]],
)
Chain = tuple[list[list[float]], list[list[float]]]


def one_hot(chain: Chain, num_series: int, num_steps: int, seed: int) -> Tensor:
    """Sequences of a hidden Markov chain with a uniform start, as points (num_series, num_steps * 3)."""
    transition, emission = (np.cumsum(table, axis=1) for table in chain)
    generator = np.random.default_rng(seed)
    state = generator.integers(len(transition), size=num_series)
    symbols = np.empty((num_series, num_steps), dtype=np.int64)
    for step in range(num_steps):
        symbols[:, step] = (generator.random((num_series, 1)) > emission[state]).sum(axis=1)
        state = (generator.random((num_series, 1)) > transition[state]).sum(axis=1)
    return torch.nn.functional.one_hot(torch.from_numpy(symbols), 3).float().flatten(1)


def annealed() -> Callable[[], tuple[Tensor, Tensor]]:
    """Value and gradient by this package."""

    def divergence(x: Tensor, y: Tensor) -> Tensor:
        return sinkhorn_divergence(x, y, epsilon=EPSILON, mode="annealed", scaling=SCALING)

    return _value_and_gradient(divergence)


def reference() -> Callable[[], tuple[Tensor, Tensor]]:
    """Value and gradient by geomloss."""
    from geomloss import SamplesLoss

    return _value_and_gradient(
        SamplesLoss("sinkhorn", p=2, blur=EPSILON**0.5, scaling=SCALING, backend="tensorized")
    )


CASES = {"annealed": annealed}


def accuracy() -> dict[str, float]:
    """How far value and gradient are from geomloss's, relative to theirs."""
    (value, gradient), (other, other_gradient) = annealed()(), reference()()
    return {
        "value": float(value),
        "value_difference": float((value - other).abs() / other.abs()),
        "gradient_difference": float((gradient - other_gradient).norm() / other_gradient.norm()),
    }


def memory() -> dict[str, float]:
    """Peak memory during the first call less the memory just before, MB."""
    return {"memory_mb": _memory_of(annealed())}


def reference_memory() -> dict[str, float]:
    """The same of geomloss."""
    return {"reference_memory_mb": _memory_of(reference())}


def converged() -> dict[str, float]:
    """CPU seconds of a converged value between 2048 and 2048 sequences of three states and 30 steps."""
    x, y = (one_hot(THREE, 2048, 30, seed) for seed in (1, 2))
    epsilon = auto_blur(y) ** 2
    seconds = []
    for _ in range(6):
        start = time.process_time()
        value = sinkhorn_divergence(x, y, epsilon=epsilon)
        seconds.append(time.process_time() - start)
    return {
        "converged_cpu_seconds": float(np.median(seconds[1:])),
        "converged_value": float(value),
        "converged_epsilon": epsilon,
    }


PARTS = {
    "accuracy": accuracy,
    "memory": memory,
    "reference-memory": reference_memory,
    "converged": converged,
}


def _value_and_gradient(
    divergence: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[], tuple[Tensor, Tensor]]:
    x, y = (one_hot(TWO, NUM_SERIES, 100, seed) for seed in (1, 2))
    x.requires_grad_()

    def call() -> tuple[Tensor, Tensor]:
        value = divergence(x, y)
        return value.detach(), torch.autograd.grad(value, x)[0]

    return call


def _memory_of(call: Callable[[], object]) -> float:
    # Linux: begin the peak anew, at what the process holds now.
    Path("/proc/self/clear_refs").write_text("5")
    held = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert held is not None
    call()
    return peak_memory() - int(held[1]) * 1024 / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    print(json.dumps(PARTS[parser.parse_args().part]()))
