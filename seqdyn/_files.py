"""Files written whole or not at all, and JSON that vouches for its own content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "plain_data",
    "read_signed_json",
    "remove",
    "remove_leftovers",
    "replace_folder",
    "replacing",
    "aside_path",
    "temporary_path",
    "write_file",
    "write_signed_json",
]


def plain_data(value: Any, name: str) -> Any:
    """Check that ``value`` can be written as JSON, and return it with NumPy scalars as Python numbers.

    Args:
        value: ``None``, a bool, number or string, or tuples, lists and dicts of them.
        name: How to call it in the message.

    Raises:
        TypeError: If something else is found, with its place.
        ValueError: If a number is NaN or infinite.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | str):
        return int(value) if isinstance(value, int) else str(value)  # of subclasses such as enums the value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which cannot be saved; pass a finite number or None.")
        return float(value)
    if isinstance(value, list | tuple):
        parts = [plain_data(part, f"{name}[{i}]") for i, part in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        bad = [key for key in value if not isinstance(key, str)]
        if bad:
            raise TypeError(f"{name} has the key {bad[0]!r}; dictionaries need strings as keys to be saved.")
        return {key: plain_data(part, f"{name}[{key!r}]") for key, part in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__name__}; pass plain data (numbers, strings, None, tuples and dicts of "
        "them), for instance tuple(x.tolist()) for an array."
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """A new file that takes the place of ``path`` once the block has ended without error."""
    temporary = temporary_path(path)
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def replace_folder(temporary: Path, path: Path) -> None:
    """Let a finished folder take the place of another.

    The old one moves aside first: if the process dies between the two renames, it lies at
    ``aside_path(path)``.
    """
    aside = aside_path(path)
    if path.exists():
        remove(aside)
        os.replace(path, aside)
    os.replace(temporary, path)
    _sync_folder(path.parent)
    remove(aside)


def temporary_path(path: Path) -> Path:
    """A new name beside ``path``, hidden, on the same file system."""
    return path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:12]}")


def aside_path(path: Path) -> Path:
    """Where the old folder lies while a new one takes its place."""
    return path.with_name(f".{path.name}.aside")


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what an interrupted write left in ``folder``, and return the names removed.

    A folder set aside stays if the one it was made way for is not there.
    """
    removed = []
    for path in sorted(folder.glob(".*")):
        original, _, suffix = path.name[1:].rpartition(".")
        superseded = suffix == "aside" and (folder / original).exists()
        if original and (suffix.startswith("tmp-") or superseded):
            remove(path)
            removed.append(path.name)
    return removed


def write_signed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as JSON, with a sha256 of its own content."""
    signed = {**content, "sha256": _digest(content)}
    write_file(path, json.dumps(signed, indent=1, allow_nan=False) + "\n")


def read_signed_json(path: Path, *, kind: str, newest_format: int) -> dict[str, Any]:
    """Read what :func:`write_signed_json` wrote, and verify it.

    Args:
        path: The file.
        kind: What the file belongs to, for the messages ("model folder").
        newest_format: Highest number in ``format`` that this version reads; the lowest is 1.

    Raises:
        ValueError: If the file is not JSON, foreign, of a newer format, or was edited.
    """
    try:
        # Broken text and JSON are ValueErrors; deep nesting exhausts the parser's recursion.
        content = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is truncated or damaged: it is not valid JSON ({error}); restore it from a copy."
        ) from error
    if not isinstance(content, dict) or not {"format", "class", "sha256"} <= content.keys():
        raise ValueError(
            f"{path} does not belong to a seqdyn {kind}: it lacks 'format', 'class' or 'sha256'; check the "
            "path."
        )
    number = content["format"]
    if type(number) is not int or number < 1:  # True is an int, too
        raise ValueError(f"{path} has the format {number!r}, which no {kind} of seqdyn has; check the path.")
    if number > newest_format:
        raise ValueError(
            f"{path} has format {number}, this version of seqdyn reads up to {newest_format}; "
            "install a newer one: pip install --upgrade seqdyn."
        )
    claimed = content.pop("sha256")
    try:
        genuine = _digest(content) == claimed
    except ValueError:  # a number such as 1e999, which cannot have been written here
        genuine = False
    if not genuine:
        raise ValueError(
            f"{path} was edited or damaged: its content does not have its own sha256; restore it from a copy."
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 of plain data, whatever the order of its keys or the white space of its file."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the system allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
