"""Paired timing on clocks that are known, and the cases in the sizes they claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.benchmarks import paired, tsdiff, tsdiff_cases
from experiments.record import append_row
from seqdyn.models import TSDiff
from seqdyn.nn.backbone import FrozenBackbone


class Machine:
    """Two clocks that run only while a task is called, and a record of the calls."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.calls: list[str] = []

    def task(self, name: str, seconds: list[float]) -> Callable[[], None]:
        """A callable whose successive calls take ``seconds`` of CPU and three times as long on the wall."""
        remaining = iter(seconds)

        def call() -> None:
            self.calls.append(name)
            spent = next(remaining)
            self.cpu += spent
            self.wall += 3 * spent

        return call


def run(first: list[float], second: list[float], *, warmup: int) -> tuple[Machine, paired.Pairs]:
    machine = Machine()
    a, b = machine.task("A", first), machine.task("B", second)
    clocks: dict[str, Any] = {"cpu": lambda: machine.cpu, "wall": lambda: machine.wall}
    return machine, paired.alternate(a, b, pairs=len(first) - warmup, warmup=warmup, **clocks)


def test_calls_alternate_and_warm_up_does_not_count() -> None:
    machine, pairs = run([100.0, 2.0, 2.0, 2.0], [100.0, 1.0, 1.0, 1.0], warmup=1)

    assert "".join(machine.calls) == "ABABABAB"
    assert pairs.cpu == pytest.approx([2.0, 2.0, 2.0])
    assert pairs.reference_cpu == pytest.approx([1.0, 1.0, 1.0])


def test_ratios_are_taken_pair_by_pair() -> None:
    # The machine slows down fourfold during the run. Medians of each side, 8 and 3, would say 2.67.
    _, pairs = run([2.0, 4.0, 8.0, 8.0, 16.0], [1.0, 1.0, 4.0, 4.0, 3.0], warmup=0)

    assert pairs.ratios == pytest.approx([2.0, 4.0, 2.0, 2.0, 16 / 3])
    summary = pairs.summary()
    assert summary["ratio"] == pytest.approx(2.0)
    assert (summary["ratio_min"], summary["ratio_max"]) == pytest.approx((2.0, 16 / 3))
    assert (summary["cpu_seconds"], summary["reference_cpu_seconds"]) == pytest.approx((8.0, 3.0))
    assert summary["wall_seconds"] == pytest.approx(24.0)


def test_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs must be at least 1"):
        paired.alternate(lambda: None, lambda: None, pairs=0)


@pytest.fixture
def case_module(tmp_path: Path) -> dict[str, str]:
    """A module of cases without torch, and the environment in which it is found."""
    (tmp_path / "toy_cases.py").write_text(
        "import os\n"
        "held = []\n"
        "def small():\n"
        "    return lambda: sum(range(100))\n"
        "def large():\n"
        "    held.append(b'x' * 100_000_000)\n"
        "    return lambda: sum(range(100))\n"
        "def broken():\n"
        "    raise ZeroDivisionError('no such luck')\n"
        "def reference():\n"
        "    return lambda: sum(range(1000))\n"
        "def profile(call):\n"
        "    return os.environ['OMP_NUM_THREADS']\n"
        "CASES = {'small': small, 'large': large, 'broken': broken}\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def test_memory_is_that_of_a_fresh_process(case_module: dict[str, str]) -> None:
    # This process holds torch: neither figure may begin there.
    small = paired.measure_apart("toy_cases", "small", pairs=1, environment=case_module)
    large = paired.measure_apart("toy_cases", "large", pairs=1, environment=case_module)

    assert small["import_mb"] <= small["peak_mb"] < 100
    assert large["import_mb"] < 100
    assert large["peak_mb"] - small["peak_mb"] > 95  # the case holds 100 MB


def test_a_case_runs_on_one_thread(case_module: dict[str, str]) -> None:
    assert paired.profile_apart("toy_cases", "small", environment=case_module).strip() == "1"


def test_a_failing_case_says_why(case_module: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        paired.measure_apart("toy_cases", "broken", pairs=1, environment=case_module)


def test_an_unknown_case_is_refused_with_the_known_ones(case_module: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match="no case 'smal'; choose from small, large, broken"):
        paired.measure_apart("toy_cases", "smal", pairs=1, environment=case_module)


def test_the_command_loads_no_torch() -> None:
    code = "import json, sys, experiments.benchmarks.tsdiff; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paired.ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "seqdyn"} & set(json.loads(done.stdout))


def test_the_command_knows_every_case() -> None:
    assert list(tsdiff.CASES) == list(tsdiff_cases.CASES)


def test_a_row_is_printed_and_kept(tmp_path: Path) -> None:
    seconds = {"cpu_seconds": 0.3, "wall_seconds": 0.31, "reference_cpu_seconds": 0.03}
    row = {"case": "s4-kernel", **seconds, "ratio": 10.0, "ratio_min": 9.5, "ratio_max": 11.0}
    row |= {"peak_mb": 640.0, "import_mb": 450.0}

    append_row(row, tmp_path / "results" / "rows.csv")
    append_row(row, tmp_path / "results" / "rows.csv")

    assert "10.00 (9.50 to 11.00)" in list(tsdiff.table([row]))[1]
    header, *lines = (tmp_path / "results" / "rows.csv").read_text().splitlines()
    assert header == ",".join(row) and lines == [",".join(map(str, row.values()))] * 2
    with pytest.raises(ValueError, match="move the file away"):
        append_row({"case": "s4-kernel"}, tmp_path / "results" / "rows.csv")


def test_a_row_that_is_scored_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"

    for model, seed, score in (("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 3.0), ("a", 0, 4.0)):
        append_row({"model": model, "seed": seed, "score": score}, path, keys=("model", "seed"))

    assert path.read_text().splitlines() == ["model,seed,score", "a,1,2.0", "b,0,3.0", "a,0,4.0"]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.csv"]


def test_training_case_is_the_default_hourly_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    steps: list[torch.Tensor] = []
    loss = TSDiff.loss

    def spy(self: TSDiff, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        windows = self._windows(batch["target"], batch["observed"])
        seen.append((sum(p.numel() for p in self.network.parameters()), *windows.values.shape))
        steps.append(self.network.decode.bias.detach().clone())
        return loss(self, batch)

    monkeypatch.setattr(TSDiff, "loss", spy)
    call = tsdiff_cases.training_step()
    call()
    call()

    assert seen == [(191_627, 64, 360, 11)] * 2
    assert not torch.equal(*steps)  # the optimiser's step is part of it


@pytest.mark.parametrize(
    ("case", "passes"), [("guided-step", 2), ("guided-step-xt", 1), ("denoising-step", 1)]
)
def test_a_reverse_step_takes_all_paths_through_the_network(
    monkeypatch: pytest.MonkeyPatch, case: str, passes: int
) -> None:
    backwards: list[bool] = []
    predict = FrozenBackbone.__call__

    def spy(self: FrozenBackbone, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (360, 11)
        backwards.extend([x.requires_grad] * len(x))
        return predict(self, x, *rest)

    monkeypatch.setattr(FrozenBackbone, "__call__", spy)
    tsdiff_cases.CASES[case]()()

    assert len(backwards) == passes * 100
    assert sum(backwards) == (0 if case == "denoising-step" else 100)
