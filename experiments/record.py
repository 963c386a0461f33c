"""Rows of result tables: where they come from, and how they are kept."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["append_row", "provenance"]

ROOT = Path(__file__).parent.parent


def provenance() -> dict[str, str]:
    """What every row says of its origin: commit, torch's version, processor and day."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit,
        "torch": version("torch"),
        "device": _processor(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def append_row(row: Mapping[str, Any], path: Path) -> None:
    """Add a row to a CSV file, which is made with a header if it is not there.

    Raises:
        ValueError: If the file has other columns.
    """
    columns = list(row)
    if path.exists():
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
        if header != columns:
            raise ValueError(f"{path} has the columns {header}, the row has {columns}; move the file away.")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(columns) + "\n")
    with path.open("a", newline="") as file:
        csv.DictWriter(file, columns, lineterminator="\n").writerow(row)


def _processor() -> str:
    """Name of the processor; Linux keeps it in a file that ``platform`` does not read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
