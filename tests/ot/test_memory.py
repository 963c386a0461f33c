"""Peak memory in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import json, pathlib, re, sys
import torch
from seqdyn.ot import sinkhorn_divergence

def peak(mode, max_memory):
    x, y = torch.randn(2, 3000, 2)
    x.requires_grad_()
    options = dict(epsilon=2.0, mode=mode, max_memory=max_memory)
    sinkhorn_divergence(x[:50], y[:50], **options).backward()
    open("/proc/self/clear_refs", "w").write("5")
    status = pathlib.Path("/proc/self/status").read_text
    before = int(re.search(r"VmRSS:\\s+(\\d+)", status())[1])
    sinkhorn_divergence(x, y, **options).backward()
    return (int(re.search(r"VmHWM:\\s+(\\d+)", status())[1]) - before) * 1024 / 1e6

print(json.dumps([peak(sys.argv[1], limit) for limit in (1e6, 1e9)]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(("mode", "matrices"), [("annealed", 1), ("converged", 2)])
def test_matrices_are_kept_up_to_the_limit_and_memory_is_linear_beyond(mode: str, matrices: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )

    # A matrix of float32 is 36 MB: costs, and when converged the kernel, of one transport at a time.
    beyond, kept = json.loads(done.stdout)
    assert beyond < 15
    assert 36 * matrices - 8 < kept < 36 * matrices + 20
