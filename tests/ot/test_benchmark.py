"""The benchmark beside geomloss: its points, and that its command weighs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks import sinkhorn, sinkhorn_cases

ROOT = Path(__file__).parents[2]


def test_the_command_loads_no_torch_and_knows_every_part() -> None:
    code = "import json, sys, experiments.benchmarks.sinkhorn; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert not {"torch", "seqdyn"} & set(json.loads(done.stdout))
    assert sinkhorn.PARTS == tuple(sinkhorn_cases.PARTS)


def test_the_points_are_sequences_of_the_chain() -> None:
    points = sinkhorn_cases.one_hot(sinkhorn_cases.TWO, 4000, 20, seed=0)

    assert points.shape == (4000, 60) and points.dtype == torch.float32
    symbols = points.view(4000, 20, 3).argmax(dim=2).numpy()
    assert (points.view(4000, 20, 3).sum(dim=2) == 1).all()
    # A state shows its own symbol with 0.99 and is left with 0.05: a change between the outer symbols in
    # 0.05 * 0.99² of the steps. 76 000 pairs: four standard errors are 0.0035.
    jumps = np.abs(np.diff(symbols, axis=1)) == 2
    assert abs(jumps.mean() - 0.05 * 0.99**2) < 0.0035
    assert abs((symbols == 1).mean() - 0.01) < 0.0015
