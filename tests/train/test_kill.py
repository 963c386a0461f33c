"""A fit that is killed, at any moment and while it writes, resumes to the same weights bit for bit."""

from __future__ import annotations

import json
import logging
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdyn
from seqdyn.persistence import Record, read_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file a descriptor is"),
]

SCRIPT = Path(__file__).with_name("fit_to_kill.py")
NUM_KILLS = 20

# Moments inside a write: the function about to be called, the file, how many calls for it came before.
IN_A_CHECKPOINT = [
    {"function": "save", "name": "last.ckpt", "call": 9},  # half of the new checkpoint is written
    {"function": "fsync", "name": "last.ckpt", "call": 17},  # written, not yet on the disk; the note is
    {"function": "replace", "name": "last.json", "call": 30},  # before the note of the new checkpoint
    {"function": "replace", "name": "last.ckpt", "call": 41},  # noted, but the old one is still in place
]
IN_THE_FINAL_SAVE = [
    {"function": "fsync", "name": "history.csv", "call": 1},
    {"function": "fsync", "name": "model.safetensors", "call": 1},  # the weights are not on the disk
    {"function": "replace", "name": "model.json", "call": 1},  # weights without a description
    {"function": "replace", "name": "run/model", "call": 1},  # complete, but under its temporary name
]

logger = logging.getLogger("seqdyn.tests")


def start(run: Path, *kill: dict[str, Any]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(seqdyn.__file__).parents[1])}
    arguments = [sys.executable, str(SCRIPT), str(run), *(json.dumps(moment) for moment in kill)]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)


def running_after(process: subprocess.Popen, seconds: float) -> bool:
    """Wait; false if the process ended by itself."""
    try:
        assert process.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        return True
    return False


def killed_after(run: Path, seconds: float) -> bool:
    """Start the fit and kill it; false if it had ended by itself."""
    process = start(run)
    running = running_after(process, seconds)
    process.kill()
    process.wait()
    return running


def resume(run: Path) -> Record:
    runpy.run_path(str(SCRIPT))["fit"](run)
    leftovers = [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert leftovers == []
    return read_folder(run)


def assert_same(record: Record, reference: Record) -> None:
    for name, value in reference.tensors.items():
        assert torch.equal(record.tensors[name], value), name
    rows, expected = record.info["history"]["rows"], reference.info["history"]["rows"]
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in expected]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, float]:
    """The record of an uninterrupted fit, and how long it takes from start to exit of its process."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    begun = time.perf_counter()
    assert start(run).wait() == 0
    return read_folder(run), time.perf_counter() - begun


def state(run: Path) -> str:
    """What a kill left, for the report."""
    if (run / "model").exists():
        return "model written"
    return "checkpoint" if (run / "last.ckpt").exists() else "no checkpoint"


def test_a_fit_killed_once_at_any_time_resumes_to_the_same_weights(
    uninterrupted: tuple[Record, float], tmp_path: Path
) -> None:
    reference, duration = uninterrupted
    generator, kills = np.random.default_rng(0), []
    while len(kills) < NUM_KILLS:
        run, seconds = tmp_path / f"{len(kills)}" / "run", generator.uniform(0, duration)
        if killed_after(run, seconds):
            kills.append(run)
            logger.info("killed after %.2f of %.2f s: %s", seconds, duration, state(run))

    assert {state(run) for run in kills} >= {"no checkpoint", "checkpoint"}
    for run in kills:
        assert_same(resume(run), reference)


@pytest.mark.parametrize("moment", [*IN_A_CHECKPOINT, *IN_THE_FINAL_SAVE], ids=str)
def test_a_fit_killed_inside_a_write_resumes_to_the_same_weights(
    uninterrupted: tuple[Record, float], tmp_path: Path, moment: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    assert start(run, moment).wait() == -9
    assert (run / "last.ckpt").exists()
    left = sorted(path.name for path in run.iterdir() if ".tmp-" in path.name)
    logger.info("killed before %s of %s: left %s", moment["function"], moment["name"], left)

    assert_same(resume(run), uninterrupted[0])


def test_a_fit_killed_five_times_resumes_to_the_same_weights(
    uninterrupted: tuple[Record, float], tmp_path: Path
) -> None:
    reference, duration = uninterrupted
    run, generator = tmp_path / "run", np.random.default_rng(1)
    for _ in range(5):
        before, process = noted(run), start(run)
        while noted(run) == before:  # it is still loading its libraries
            assert running_after(process, 0.01)
        assert running_after(process, generator.uniform(0, duration / 12))
        process.kill()
        process.wait()
        logger.info("killed at step %d", torch.load(run / "last.ckpt", weights_only=True)["global_step"])

    assert_same(resume(run), reference)


def noted(run: Path) -> list[str]:
    """Checksums of the checkpoints that a run notes."""
    path = run / "last.json"
    return json.loads(path.read_text())["checkpoints"] if path.exists() else []
