"""A model as a folder: ``model.safetensors`` beside ``model.json``, written atomically, never unpickled.

``model.json`` names the class, its hyperparameters and whatever the model wants to remember (a description of its
training data, its history), and carries two checksums: of the weights, and of its own content. Reading verifies both
before anything is built, and nothing in a folder is ever executed.

A folder is replaced by renames only: the new one is complete before the old one moves aside to ``.NAME.aside``, and a
process that dies between the two renames leaves that copy, which :func:`read_folder` then reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

__all__ = [
    "Record",
    "canonical_digest",
    "plain_data",
    "read_class_name",
    "read_folder",
    "read_signed_json",
    "remove_leftovers",
    "replacing",
    "versions",
    "write_file",
    "write_folder",
    "write_signed_json",
]

FORMAT = 1
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"

logger = logging.getLogger("seqdyn")


class Record(NamedTuple):
    """What a model folder holds.

    Attributes:
        class_name: Name of the model's class in ``seqdyn.models``.
        hyperparameters: Constructor arguments as plain data; sequences are tuples.
        tensors: Weights and buffers by name, on the CPU.
        info: Anything else worth keeping, as plain JSON (``data_info``, ``history``, ...).
    """

    class_name: str
    hyperparameters: dict[str, Any]
    tensors: dict[str, Tensor]
    info: dict[str, Any]


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
            raise ValueError(f"{name} is {value}, which a model cannot save; pass a finite number or None.")
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
        f"{name} is a {type(value).__name__}; pass plain data (numbers, strings, None, tuples and dicts of them), "
        "for instance tuple(x.tolist()) for an array."
    )


def canonical_digest(content: Mapping[str, Any]) -> str:
    """sha256 of plain data, whatever the order of its keys or the white space of its file."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    from seqdyn import __version__

    return {
        "seqdyn": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


# Files ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` once the block has ended without error, whole or not at all."""
    temporary = _temporary(path)
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
    """Write a small file whole or not at all."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_signed_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain data as JSON with a sha256 of its own content."""
    signed = {**content, "sha256": canonical_digest(content)}
    write_file(path, json.dumps(signed, indent=1, allow_nan=False) + "\n")


def read_signed_json(path: Path, *, kind: str, newest_format: int) -> dict[str, Any]:
    """Read what :func:`write_signed_json` wrote, and verify it.

    Args:
        path: The file.
        kind: What the file belongs to, for the messages ("model folder").
        newest_format: Highest format number this version reads.

    Raises:
        ValueError: If the file is not JSON, foreign, of a newer format, or was edited.
    """
    try:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting exhausts the parser's recursion.
        content = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or damaged: it is not valid JSON ({error}); {_RESTORE}") from error
    if not isinstance(content, dict) or not {"format", "class", "sha256"} <= content.keys():
        raise ValueError(f"{path} does not belong to a seqdyn {kind}: it lacks 'format', 'class' or 'sha256'.")
    number = content["format"]
    if isinstance(number, int) and number > newest_format:
        raise ValueError(
            f"{path} has format {number}, this version of seqdyn reads up to {newest_format}; "
            "install a newer one: pip install --upgrade seqdyn."
        )
    digest = content.pop("sha256")
    try:
        genuine = canonical_digest(content) == digest
    except ValueError:  # a number such as 1e999, which cannot have been written by us
        genuine = False
    if not genuine:
        raise ValueError(f"{path} was edited or damaged: its content does not have its own sha256; {_RESTORE}")
    return content


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what an interrupted write left in ``folder``, and return the names removed.

    A copy moved aside goes only if the folder it was made way for is there.
    """
    removed = []
    for path in sorted(folder.glob(".*")):
        original, _, suffix = path.name[1:].rpartition(".")
        stale = suffix == "aside" and (folder / original).exists()
        if original and (suffix.startswith("tmp-") or stale):
            _remove(path)
            removed.append(path.name)
    return removed


_RESTORE = "restore it from a copy, or fit and save the model again."


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:12]}")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the system allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Model folders -------------------------------------------------------------------------------------------------------


def write_folder(path: str | os.PathLike[str], record: Record) -> None:
    """Write a model folder atomically; an older model folder of that name is replaced.

    Args:
        path: Folder to write; parents are made.
        record: What to write. Tensors may share memory and need not be contiguous.

    Raises:
        ValueError: If ``path`` exists and holds anything else than a model.
        TypeError: If hyperparameters or info are not plain data.
    """
    path = Path(path).resolve()
    _check_replaceable(path)
    hyperparameters = plain_data(record.hyperparameters, "hyperparameters")
    info = plain_data(record.info, "info")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        # safetensors has no complex128: such tensors are stored as pairs of float64.
        doubles = [name for name, value in record.tensors.items() if value.dtype == torch.complex128]
        # Copies: safetensors refuses tensors that share memory, as views of one buffer do.
        tensors = {
            name: (torch.view_as_real(value) if name in doubles else value)
            .detach()
            .to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in record.tensors.items()
        }
        weights = safetensors.torch.save(tensors)
        write_file(temporary / WEIGHTS, weights)
        content = {
            "format": FORMAT,
            "class": record.class_name,
            "hyperparameters": hyperparameters,
            "info": info,
            "complex128": doubles,
            "versions": versions(),
            "weights_bytes": len(weights),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        write_signed_json(temporary / DESCRIPTION, content)
        _rename_into_place(temporary, path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a model is saved as a folder: choose another name.")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in (DESCRIPTION, WEIGHTS))
    if foreign:
        raise ValueError(
            f"{path} is not a model folder (it holds {foreign[0]!r}) and would be lost; save to a new folder, "
            f"for instance {path / 'model'}."
        )


def _rename_into_place(temporary: Path, path: Path) -> None:
    aside = _aside(path)
    if path.exists():
        if aside.exists():
            _remove(aside)
        os.replace(path, aside)
    os.replace(temporary, path)
    _sync_folder(path.parent)
    if aside.exists():
        _remove(aside)


def read_class_name(path: str | os.PathLike[str]) -> str:
    """Name of the class whose model lies in a folder; the description is verified, the weights are not read.

    Raises:
        ValueError: As :func:`read_folder` does.
    """
    return _read_description(_locate(Path(path)))["class"]


def read_folder(path: str | os.PathLike[str]) -> Record:
    """Read and verify a model folder.

    Args:
        path: The folder, or the ``run_dir`` of a fit, whose model is then read.

    Returns:
        The record, its tensors on the CPU.

    Raises:
        ValueError: If the folder is missing, is no model folder, is truncated, was edited, or is of a newer format.
    """
    folder = _locate(Path(path))
    content = _read_description(folder)
    tensors = _read_weights(folder / WEIGHTS, content["weights_bytes"], content["weights_sha256"])
    missing = [name for name in content["complex128"] if name not in tensors]
    if missing:
        raise ValueError(f"{folder / WEIGHTS} has no tensor {missing[0]!r} that {DESCRIPTION} names; {_RESTORE}")
    tensors.update({name: torch.view_as_complex(tensors[name]) for name in content["complex128"]})
    return Record(content["class"], _tuples(content["hyperparameters"]), tensors, content["info"])


def _locate(path: Path) -> Path:
    """The folder to read: the path itself, the model in a run's folder, or the copy an interrupted save left aside."""
    candidates = [path.absolute(), path.absolute() / "model"]
    for candidate in candidates:
        if (candidate / DESCRIPTION).exists():
            return candidate
    for candidate in candidates:
        aside = _aside(candidate)
        if not candidate.exists() and (aside / DESCRIPTION).exists():
            logger.warning("%s is missing: an interrupted save left %s, which is read instead.", candidate, aside)
            return aside
    if not path.exists():
        raise ValueError(f"there is no model folder at {path}; check the path, or write one with model.save({path}).")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a model is a folder with {DESCRIPTION} and {WEIGHTS}: pass that folder.")
    found = sorted(entry.name for entry in path.iterdir())[:5]
    raise ValueError(
        f"{path} is not a model folder: it has no {DESCRIPTION} (found {found}); pass the folder that "
        "model.save(path) or fit(..., run_dir=path) wrote."
    )


_FIELDS = {
    "class": str,
    "hyperparameters": dict,
    "info": dict,
    "complex128": list,
    "weights_bytes": int,
    "weights_sha256": str,
}


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    content = read_signed_json(path, kind="model folder", newest_format=FORMAT)
    for field, kind in _FIELDS.items():
        if not isinstance(content.get(field), kind):
            raise ValueError(f"{path} does not belong to a seqdyn model folder: {field!r} is missing or no {kind}.")
    return content


def _read_weights(path: Path, size: int, digest: str) -> dict[str, Tensor]:
    if not path.exists():
        raise ValueError(f"{path} is missing; {_RESTORE}")
    data = path.read_bytes()
    if len(data) != size:
        raise ValueError(f"{path} is truncated or foreign: {len(data)} bytes instead of {size}; {_RESTORE}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} was edited or damaged: its sha256 is not that in {DESCRIPTION}; {_RESTORE}")
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); {_RESTORE}") from error


def _tuples(value: Any) -> Any:
    """JSON knows lists only; hyperparameters use tuples."""
    if isinstance(value, list):
        return tuple(_tuples(part) for part in value)
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return value
