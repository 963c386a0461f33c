"""A model as a folder: ``model.safetensors`` beside ``model.json``, written atomically, never unpickled.

``model.json`` names the class, its hyperparameters and whatever the model wants to remember (a description of
its training data, its history), and carries two checksums: of the weights, and of its own content. Reading
verifies both before anything is built, and nothing in a folder is ever executed.

A folder is replaced by renames only. The new one is complete before the old one moves aside, and a process
that dies between the two renames leaves that copy, which :func:`read_folder` then reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from seqdyn._files import (
    aside_path,
    plain_data,
    read_signed_json,
    remove,
    replace_folder,
    temporary_path,
    write_file,
    write_signed_json,
)
from seqdyn._info import wrong_fact

__all__ = ["Record", "read_class_name", "read_folder", "versions", "write_folder"]

FORMAT = 1
DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"

logger = logging.getLogger("seqdyn")

_FIELDS = {
    "class": str,
    "hyperparameters": dict,
    "info": dict,
    "complex128": list,
    "weights_bytes": int,
    "weights_sha256": str,
}
_RESTORE = "restore it from a copy, or fit and save the model again."


class Record(NamedTuple):
    """What a model folder holds.

    Attributes:
        class_name: Name of the model's class in ``seqdyn.models``.
        hyperparameters: Constructor arguments as plain data; read back, sequences are tuples.
        tensors: Weights and buffers by name; read back, on the CPU.
        info: Anything else worth keeping, as plain JSON (``data_info``, ``history``, ...).
    """

    class_name: str
    hyperparameters: dict[str, Any]
    tensors: dict[str, Tensor]
    info: dict[str, Any]


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
    # safetensors has no complex128: such tensors are stored as pairs of float64.
    doubles = [name for name, value in record.tensors.items() if value.dtype == torch.complex128]
    weights = safetensors.torch.save(
        {
            name: _own_memory(torch.view_as_real(value) if name in doubles else value)
            for name, value in record.tensors.items()
        }
    )
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        write_file(temporary / WEIGHTS, weights)
        write_signed_json(temporary / DESCRIPTION, content)
        replace_folder(temporary, path)
    finally:
        remove(temporary)


def read_folder(path: str | os.PathLike[str]) -> Record:
    """Read and verify a model folder.

    Args:
        path: The folder, or the ``run_dir`` of a fit, whose model is then read.

    Returns:
        The record, its tensors on the CPU.

    Raises:
        ValueError: If the folder is missing, is no model folder, is truncated, was edited, or is of a newer
            format.
    """
    folder = _locate(Path(path))
    content = _read_description(folder)
    tensors = _read_weights(folder / WEIGHTS, content["weights_bytes"], content["weights_sha256"])
    for name in content["complex128"]:
        pairs = tensors.get(name) if isinstance(name, str) else None
        if pairs is None or pairs.dtype != torch.float64 or pairs.shape[-1:] != (2,):
            raise ValueError(
                f"{folder / WEIGHTS} has no tensor {name!r} of pairs of float64, which {DESCRIPTION} lists "
                f"in 'complex128'; {_RESTORE}"
            )
        tensors[name] = torch.view_as_complex(pairs)
    return Record(content["class"], _tuples(content["hyperparameters"]), tensors, content["info"])


def read_class_name(path: str | os.PathLike[str]) -> str:
    """Name of the class whose model lies in a folder; ``model.json`` is verified, the weights are not read.

    Raises:
        ValueError: As :func:`read_folder` does.
    """
    return _read_description(_locate(Path(path)))["class"]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    from seqdyn import __version__

    return {
        "seqdyn": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _own_memory(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU: safetensors refuses tensors that share memory."""
    return value.detach().to("cpu", copy=True).contiguous()


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a model is saved as a folder: choose another name.")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in (DESCRIPTION, WEIGHTS))
    if foreign:
        raise ValueError(
            f"{path} is not a model folder (it holds {foreign[0]!r}, which would be lost); save to a new "
            f"folder, for instance {path / 'model'}."
        )


def _locate(path: Path) -> Path:
    """The folder to read: the path, the model in a run's folder, or what an interrupted save left aside."""
    candidates = [path.absolute(), path.absolute() / "model"]
    for candidate in candidates:
        if (candidate / DESCRIPTION).exists():
            return candidate
    for candidate in candidates:
        aside = aside_path(candidate)
        if not candidate.exists() and (aside / DESCRIPTION).exists():
            logger.warning("%s is missing; reading %s, left by an interrupted save.", candidate, aside)
            return aside
    if not path.exists():
        raise ValueError(f"there is no model folder at {path}; check the path, or model.save({str(path)!r}).")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; pass the folder that holds {DESCRIPTION} and {WEIGHTS}.")
    found = sorted(entry.name for entry in path.iterdir())[:5]
    raise ValueError(
        f"{path} is not a model folder: it has no {DESCRIPTION} (found {found}); pass the folder that "
        "model.save(path) or fit(..., run_dir=path) wrote."
    )


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    content = read_signed_json(path, kind="model folder", newest_format=FORMAT)
    for field, kind in _FIELDS.items():
        if not isinstance(content.get(field), kind):
            raise ValueError(
                f"{path} does not belong to a seqdyn model folder: {field!r} is no {kind.__name__}; check "
                "the path."
            )
    wrong = wrong_fact(content["info"])
    if wrong is not None:
        raise ValueError(f"{path}: {wrong} is not what a fit writes there; {_RESTORE}")
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
