"""The folder of a fit: the model, its history, what was asked for, the way back after an interruption."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import pytorch_lightning as pl
import xarray as xr
import yaml
from pytorch_lightning.utilities import rank_zero_only

from seqdyn._files import plain_data, remove_leftovers, write_file
from seqdyn.data.marginals import describe_snapshots, summarize_snapshots
from seqdyn.data.schema import SYMBOL, TARGET, X, describe, fingerprint, summary
from seqdyn.persistence import versions
from seqdyn.train.checkpoint import CHECKPOINT, SIDECAR, CheckpointFile

__all__ = ["Run", "describe_data", "summarize_data"]

MODEL, HISTORY, CONFIG = "model", "history.csv", "config.yaml"

# What may differ between a fit and its resumption, because it decides no number or is compared apart.
_FREE = {
    "accelerator", "callbacks", "checkpoint_every", "default_root_dir", "devices", "enable_checkpointing",
    "enable_model_summary", "enable_progress_bar", "log_every_n_steps", "logger", "max_epochs", "max_time",
    "num_nodes", "plugins", "profiler", "strategy",
}  # fmt: skip

logger = logging.getLogger("seqdyn")


class Run:
    """The folder of one fit.

    Args:
        folder: ``run_dir`` of the fit; made if need be.
        model: The model that is fitted: its class and hyperparameters belong to the run.
        datamodule: Its data; they belong to the run too.
        fit: The other arguments of the fit, as the user gave them.
        resume: Whether a run that the folder holds is gone on with.

    Attributes:
        file: The checkpoint file.
        checkpoint: The checkpoint to go on from; ``None`` at the beginning.
        finished: Whether the folder holds the model that this fit would give.

    Raises:
        ValueError: If the folder holds a run and ``resume`` is false, other files of these names, or a run
            that differs; if its files are damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        *,
        fit: Mapping[str, Any],
        resume: bool,
    ) -> None:
        self.folder = Path(folder).absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"run_dir={str(folder)!r} is a file; give the name of a folder.")
        sidecar = {
            "class": type(model).__name__,
            "hyperparameters": plain_data(dict(model.hparams), "hyperparameters"),
            "fit": {name: _option(value) for name, value in fit.items()},
            "data": describe_data(datamodule),
            "fingerprints": _fingerprints(datamodule),
            "versions": {**versions(), "pytorch_lightning": pl.__version__},
        }
        self.file = CheckpointFile(self.folder, sidecar)
        self.checkpoint: dict[str, Any] | None = None
        self.finished = False
        if getattr(rank_zero_only, "rank", 0) != 0 and not resume:
            return  # the first process has looked, and begun
        earlier = CheckpointFile.read_sidecar(self.folder)
        if earlier is None:
            self._check_empty()
        elif resume:
            self._go_on(earlier)
        else:
            raise ValueError(
                f"run_dir={str(folder)!r} already holds a run of {earlier['class']}; go on with it by "
                "fit(..., run_dir=..., resume=True), or choose another folder."
            )

    @property
    def model_path(self) -> Path:
        """Where the fitted model lies."""
        return self.folder / MODEL

    @rank_zero_only
    def begin(self) -> None:
        """Make the folder, remove what an interrupted write left, note what is fitted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in remove_leftovers(self.folder):
            logger.info("removed %s, left by an interrupted write.", name)
        self.file.note()
        config = {
            name: self.file.sidecar[name] for name in ("class", "hyperparameters", "fit", "data", "versions")
        }
        write_file(self.folder / CONFIG, yaml.safe_dump(_lists(config), sort_keys=False, allow_unicode=True))

    @rank_zero_only
    def finish(self, model: Any) -> None:
        """Write the fitted model and its history."""
        write_file(self.folder / HISTORY, model.history.to_dataframe().to_csv())
        model.save(self.model_path)
        self.file.note(finished=True)

    def _check_empty(self) -> None:
        names = (MODEL, HISTORY, CONFIG, CHECKPOINT, SIDECAR)
        taken = [name for name in names if (self.folder / name).exists()]
        if taken:
            raise ValueError(
                f"{self.folder} holds {taken[0]!r}, but no run that can be resumed ({SIDECAR} is missing); "
                "choose another run_dir."
            )

    def _go_on(self, earlier: dict[str, Any]) -> None:
        self._check_same(earlier)
        self.file.sidecar["checkpoints"] = earlier["checkpoints"]
        asked, done = self.file.sidecar["fit"]["max_epochs"], earlier["fit"].get("max_epochs")
        complete = bool(earlier.get("finished")) and (self.model_path / "model.json").exists()
        if complete and done == asked:
            self.finished = True
            return
        self.checkpoint = self.file.read()
        begun = 0
        if self.checkpoint is not None:
            begun = self.checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"]
        if 0 <= asked < begun:
            raise ValueError(
                f"the run in {self.folder} is already in epoch {begun}, max_epochs={asked} asks for fewer; "
                f"resume with max_epochs={begun} or more, or choose another run_dir."
            )

    def _check_same(self, earlier: dict[str, Any]) -> None:
        mine = self.file.sidecar
        remedy = f"resume with what the run in {self.folder} was started with, or choose another run_dir."
        if earlier["class"] != mine["class"]:
            raise ValueError(f"the run is of {earlier['class']}, this model is a {mine['class']}; {remedy}")
        for kind, free in (("hyperparameters", set()), ("fit", _FREE)):
            there, here = (_lists(content.get(kind, {})) for content in (earlier, mine))
            for name in sorted((there.keys() | here.keys()) - free):
                if there.get(name) != here.get(name):
                    raise ValueError(
                        f"the run had {name}={there.get(name)!r}, now it is {here.get(name)!r}; {remedy}"
                    )
        prints, facts = ((earlier.get(k) or {}, mine[k] or {}) for k in ("fingerprints", "data"))
        for part, name in (("data", "training"), ("val", "validation")):
            if prints[0].get(part) != prints[1].get(part):
                names = [n for n in facts[1] if part == "data" and facts[0].get(n) != _lists(facts[1][n])]
                what = ", ".join(f"{n} was {facts[0].get(n)!r}, now {facts[1][n]!r}" for n in names)
                raise ValueError(
                    f"the {name} data are not those of the run ({what or 'values differ'}); {remedy}"
                )
        if earlier.get("versions") != mine["versions"]:
            logger.warning(
                "the run was started with %s, now with %s: it goes on, but not bit for bit.",
                earlier.get("versions"), mine["versions"],
            )  # fmt: skip


def describe_data(datamodule: pl.LightningDataModule) -> dict[str, Any] | None:
    """Facts of a data module's training data, and ``val_time_end``, where its validation data end.

    ``None`` if it holds neither sequences nor snapshots.
    """
    data, val = (getattr(datamodule, name, None) for name in ("data", "val"))
    if _is_snapshots(data):
        return describe_snapshots(data)
    if not _is_sequences(data):
        return None
    if not _is_sequences(val):
        return describe(data)
    return describe(data) | {"val_time_end": describe(val)["time_end"]}


def summarize_data(datamodule: pl.LightningDataModule) -> str:
    """What a fit reports of its data, for people."""
    data = getattr(datamodule, "data", None)
    if not isinstance(data, xr.Dataset):
        return f"data from {type(datamodule).__name__}"
    if _is_snapshots(data):
        return summarize_snapshots(data)
    if not _is_sequences(data):
        return ", ".join(f"{size:,} {dim}" for dim, size in data.sizes.items())
    return summary(data)


def _is_sequences(data: Any) -> TypeGuard[xr.Dataset]:
    return isinstance(data, xr.Dataset) and (TARGET in data or SYMBOL in data)


def _is_snapshots(data: Any) -> TypeGuard[xr.Dataset]:
    return isinstance(data, xr.Dataset) and X in data


def _fingerprints(datamodule: pl.LightningDataModule) -> dict[str, str]:
    """Fingerprints of training and validation data, as far as the data module shows them."""
    parts = {name: getattr(datamodule, name, None) for name in ("data", "val")}
    return {name: _digest(part) for name, part in parts.items() if isinstance(part, xr.Dataset)}


def _digest(data: xr.Dataset) -> str:
    if TARGET in data:
        return fingerprint(data)
    digest = hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        values = data[name].values
        digest.update(f"{name} {data[name].dims} {values.shape} {values.dtype}".encode())
        digest.update(values.astype(str).tobytes() if values.dtype == object else values.tobytes())
    return digest.hexdigest()


def _option(value: Any) -> Any:
    """An argument as plain data; of an object its class."""
    try:
        return plain_data(value, "option")
    except (TypeError, ValueError):
        return f"<{type(value).__name__}>"


def _lists(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, list | tuple):
        return [_lists(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _lists(part) for key, part in value.items()}
    return value
