"""Rows of result tables: where they come from, and how they are kept."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["append_row", "provenance"]

ROOT = Path(__file__).parent.parent


def provenance() -> dict[str, str]:
    """What every row says of its origin: commit, torch's version, processor and day.

    Rows that were appended to results since do not make the commit dirty.
    """
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)experiments/results"
    )
    return {
        "commit": _git("describe", "--always") + ("-dirty" if changed else ""),
        "torch": version("torch"),
        "device": _processor(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def append_row(row: Mapping[str, Any], path: Path, keys: Sequence[str] = ()) -> None:
    """Add a row to a CSV file, which is made with a header if it is not there.

    Args:
        row: Values by column.
        path: The file.
        keys: Columns that name a row: an earlier one of the same name gives way. Appending is safe beside
            other processes that append; replacing is not.

    Raises:
        ValueError: If the file has other columns.
    """
    columns, kept = list(row), []
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            header, rows = list(reader.fieldnames or []), list(reader)
        if header != columns:
            raise ValueError(f"{path} has the columns {header}, the row has {columns}; move the file away.")
        kept = [one for one in rows if not keys or any(one[key] != str(row[key]) for key in keys)]
        if len(kept) == len(rows):  # appended: another process may do the same
            with path.open("a", newline="") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
            return
    from seqdyn._files import write_file  # the benchmarks' own process loads no package

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, row])
    write_file(path, text.getvalue())


def _processor() -> str:
    """Name of the processor; Linux keeps it in a file that ``platform`` does not read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
