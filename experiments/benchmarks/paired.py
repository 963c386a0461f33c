"""Paired timing: two callables run A B A B, so that whatever slows the machine down slows both.

A case is timed in a fresh process with one thread: ``python -m experiments.benchmarks.paired MODULE CASE``.
MODULE has ``CASES``, a dict of functions that prepare a callable, ``reference()``, which prepares the one it
is compared with, and ``profile(call)``, which says in a table where its time goes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Pairs", "alternate", "measure_apart", "peak_memory", "profile_apart"]

ROOT = Path(__file__).parents[2]

Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """CPU and wall seconds of each call of two callables; entry i of all lists belongs to pair i."""

    cpu: list[float]
    wall: list[float]
    reference_cpu: list[float]
    reference_wall: list[float]

    @property
    def ratios(self) -> list[float]:
        """CPU seconds of the callable over those of the reference, pair by pair."""
        return [a / b for a, b in zip(self.cpu, self.reference_cpu, strict=True)]

    def summary(self) -> dict[str, float]:
        """Medians of the seconds, and the least, the middle and the greatest ratio."""
        return {
            "cpu_seconds": statistics.median(self.cpu),
            "wall_seconds": statistics.median(self.wall),
            "reference_cpu_seconds": statistics.median(self.reference_cpu),
            "ratio": statistics.median(self.ratios),
            "ratio_min": min(self.ratios),
            "ratio_max": max(self.ratios),
        }


def alternate(
    call: Callable[[], object],
    reference: Callable[[], object],
    *,
    pairs: int,
    warmup: int = 3,
    cpu: Clock = time.process_time,
    wall: Clock = time.perf_counter,
) -> Pairs:
    """Time two callables alternately.

    Args:
        call: What is measured.
        reference: What it is compared with, called right after it.
        pairs: Number of calls of each.
        warmup: Calls of each beforehand, which do not count.
        cpu: Clock of the CPU seconds of this process, all threads.
        wall: Clock of the wall.

    Raises:
        ValueError: If ``pairs`` is below 1.
    """
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {pairs}; 20 give a steady median.")
    for _ in range(warmup):
        call()
        reference()
    seconds = Pairs([], [], [], [])
    for _ in range(pairs):
        for function, cpu_seconds, wall_seconds in (
            (call, seconds.cpu, seconds.wall),
            (reference, seconds.reference_cpu, seconds.reference_wall),
        ):
            start_wall, start_cpu = wall(), cpu()
            function()
            cpu_seconds.append(cpu() - start_cpu)
            wall_seconds.append(wall() - start_wall)
    return seconds


def peak_memory() -> float:
    """The most memory this process has held, in MB (10^6 bytes)."""
    # Linux lets getrusage's figure begin at the memory of the process that started this one.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure_apart(
    module: str, case: str, *, pairs: int, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Time a case in a fresh process.

    Args:
        module: Name of the module of the cases.
        case: Name of the case.
        pairs: Timed calls of the case and of the reference.
        environment: Environment variables of the process, besides those of this one.

    Returns:
        :meth:`Pairs.summary`, and ``peak_mb`` and ``import_mb``, the peak memory of the process at its end
        and after its imports.

    Raises:
        RuntimeError: If the process fails; holds the end of what it said.
    """
    return json.loads(_apart([module, case, "--pairs", str(pairs)], environment).splitlines()[-1])


def profile_apart(module: str, case: str, *, environment: Mapping[str, str] | None = None) -> str:
    """Where the time of a case goes, measured in a fresh process; arguments as :func:`measure_apart`."""
    return _apart([module, case, "--profile"], environment)


def _apart(arguments: list[str], environment: Mapping[str, str] | None) -> str:
    # Threads are counted when torch is imported, hence not set in the process itself.
    variables = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | dict(environment or {})
    command = [sys.executable, "-m", "experiments.benchmarks.paired", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the benchmark {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _measure(module: Any, case: str, pairs: int) -> dict[str, float]:
    imports = peak_memory()
    seconds = alternate(module.CASES[case](), module.reference(), pairs=pairs)
    return seconds.summary() | {"peak_mb": peak_memory(), "import_mb": imports}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="module of the cases")
    parser.add_argument("case", help="name of the case")
    parser.add_argument("--pairs", type=int, default=20, help="timed calls of the case and of the reference")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, instead of timing")
    arguments = parser.parse_args()
    module = importlib.import_module(arguments.module)
    if arguments.case not in module.CASES:
        parser.error(f"there is no case {arguments.case!r}; choose from {', '.join(module.CASES)}.")
    if arguments.profile:
        print(module.profile(module.CASES[arguments.case]()))
    else:
        print(json.dumps(_measure(module, arguments.case, arguments.pairs)))


if __name__ == "__main__":
    main()
