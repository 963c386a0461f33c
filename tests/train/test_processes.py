"""Training in several processes is training in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqdyn
from seqdyn.persistence import Record, read_folder

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("fit_in_processes.py")


def fit(run: Path, processes: int, epochs: int, model: str = "Reproduce") -> Record:
    environment = {**os.environ, "PYTHONPATH": str(Path(seqdyn.__file__).parents[1])}
    arguments = [sys.executable, str(SCRIPT), model, str(run), str(processes), str(epochs)]
    subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=300)
    return read_folder(run)


def assert_close(one: Record, other: Record) -> None:
    # Two processes sum the same gradients in another order, in double precision.
    for name, value in one.tensors.items():
        torch.testing.assert_close(value, other.tensors[name], rtol=0, atol=1e-13)
    for row, other_row in zip(one.info["history"]["rows"], other.info["history"]["rows"], strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(other_row[name], abs=1e-13)


def test_two_processes_train_and_resume_as_one_does(tmp_path: Path) -> None:
    assert_close(fit(tmp_path / "one", 1, 2), fit(tmp_path / "two", 2, 2))

    assert_close(fit(tmp_path / "one", 1, 3), fit(tmp_path / "two", 2, 3))


def test_a_model_that_draws_noise_goes_on_exactly_in_two_processes(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 2, 2, "TSDiff")

    fit(tmp_path / "parts", 2, 1, "TSDiff")
    resumed = fit(tmp_path / "parts", 2, 2, "TSDiff")

    for name, value in whole.tensors.items():
        assert torch.equal(value, resumed.tensors[name]), name
