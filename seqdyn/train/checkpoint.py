"""Checkpoints of a fit: all that decides its next step, written so that a kill at any moment leaves one.

``last.ckpt`` is a Lightning checkpoint; ``last.json`` beside it says whose it is and lists the sha256 of the
newest checkpoint and of the one before. The list is written before the new file takes its place, so that
whichever of the two files a kill leaves behind is in it. A checkpoint is read with ``weights_only=True``,
after its sha256 was checked.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from seqdyn._files import read_signed_json, replacing, write_signed_json

__all__ = ["CheckpointFile", "SaveProgress", "VerifiedIO", "random_state", "set_random_state"]

FORMAT = 1
CHECKPOINT, SIDECAR = "last.ckpt", "last.json"
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
_RESTART = "restore it from a copy, or start again with a new run_dir."
_PARTS = ("callbacks", "epoch", "loops", "lr_schedulers", "optimizer_states", "state_dict")


class CheckpointFile:
    """``last.ckpt`` and ``last.json`` of a run's folder.

    Args:
        folder: The folder.
        sidecar: What to note beside the checkpoint; plain data with the key ``class``.
    """

    def __init__(self, folder: Path, sidecar: dict[str, Any]) -> None:
        self.path = folder / CHECKPOINT
        self.sidecar = {"format": FORMAT, "checkpoints": [], **sidecar}
        self._readable = False

    @classmethod
    def read_sidecar(cls, folder: Path) -> dict[str, Any] | None:
        """What an earlier fit noted in a folder; ``None`` where there is none.

        Raises:
            ValueError: If it is damaged, foreign or newer.
        """
        path = folder / SIDECAR
        if not path.exists():
            return None
        content = read_signed_json(path, kind="run", newest_format=FORMAT)
        digests = content.get("checkpoints")
        if not isinstance(digests, list) or not isinstance(content.get("fit"), dict):
            raise ValueError(f"{path} does not belong to a seqdyn run: 'checkpoints' or 'fit' is missing.")
        return content

    def note(self, **content: Any) -> None:
        """Write the sidecar with ``content`` added."""
        self.sidecar |= content
        write_signed_json(self.path.with_name(SIDECAR), self.sidecar)

    def write(self, checkpoint: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with replacing(self.path) as file:
            torch.save(checkpoint, file)
            if not self._readable:
                self._check_readable(file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.note(checkpoints=[digest, *self.sidecar["checkpoints"][:1]])

    def _check_readable(self, file: BinaryIO) -> None:
        """Find out at the first checkpoint, not at the resumption, that what a fit holds cannot be read."""
        file.seek(0)
        try:
            _load(file)
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                "a callback, loader or scheduler of this fit keeps more than tensors and plain data in its "
                "state, so that the run could not be resumed; change its state_dict or leave run_dir out "
                f"({reason})"
            ) from error
        self._readable = True

    def read(self) -> dict[str, Any] | None:
        """The checkpoint; ``None`` if none was finished yet.

        Raises:
            ValueError: If it is missing, truncated, edited, foreign, or holds more than tensors and plain
                data.
        """
        listed = self.sidecar["checkpoints"]
        if not self.path.exists():
            if len(listed) > 1:
                raise ValueError(f"{self.path} is missing although the run wrote it; {_RESTART}")
            self.sidecar["checkpoints"] = []
            return None
        data = self.path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest not in listed:
            raise ValueError(
                f"{self.path} is truncated, edited or of another run: {SIDECAR} lists another sha256; "
                f"{_RESTART}"
            )
        try:
            if not data.startswith(b"PK"):  # older formats than a zip archive are none of ours
                raise ValueError("no zip archive")
            checkpoint = _load(io.BytesIO(data))
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.path} is not a checkpoint of tensors and plain data; nothing in it was executed; "
                f"{_RESTART}"
            ) from error
        missing = [part for part in _PARTS if not isinstance(checkpoint, dict) or part not in checkpoint]
        if missing:
            raise ValueError(f"{self.path} is not a checkpoint of a fit: it lacks {missing[0]!r}; {_RESTART}")
        self.sidecar["checkpoints"] = [digest]
        return checkpoint


def _load(file: BinaryIO) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


class VerifiedIO(TorchCheckpointIO):
    """How Lightning's trainer reads and writes the run's checkpoint; other files as Lightning does.

    Args:
        file: Where checkpoints go.
        checkpoint: The one to resume from, read and verified.
    """

    def __init__(self, file: CheckpointFile, checkpoint: dict[str, Any] | None) -> None:
        super().__init__()
        self._file = file
        self._checkpoint = checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if Path(path) == self._file.path:
            self._file.write(checkpoint)
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if Path(path) == self._file.path and self._checkpoint is not None:
            checkpoint, self._checkpoint = self._checkpoint, None
            return checkpoint
        return super().load_checkpoint(path, *args, **kwargs)


class SaveProgress(Checkpoint):
    """Write checkpoints after epochs and batches, with the random state; restore that state on resuming.

    Lightning's checkpoints do not hold the random state, without which a resumed run draws another noise.
    Being a ``Checkpoint``, it runs after all other callbacks.

    Args:
        path: The checkpoint file.
        every: Batches between checkpoints within an epoch; ``None`` for none.
    """

    def __init__(self, path: Path, every: int | None) -> None:
        self._path = path
        self._every = every
        self._random_state: dict[str, Any] | None = None
        self._should_stop = False

    def state_dict(self) -> dict[str, Any]:
        return {"random_state": random_state(), "should_stop": self._should_stop}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Now for loaders that draw when their iterator is made, and again just before the first batch.
        self._random_state = state["random_state"]
        set_random_state(state["random_state"])
        self._should_stop = state["should_stop"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that had decided to stop early stays stopped.
        trainer.should_stop = trainer.should_stop or self._should_stop
        if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
            raise ValueError(
                "a scheduler that reduces on a plateau steps after the epoch's checkpoint, so that the run "
                "could not be resumed exactly; leave run_dir out and use model.save(path), or take another "
                "scheduler."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        if self._every is not None and not hasattr(loader, "load_state_dict"):
            raise ValueError(
                f"checkpoint_every={self._every} needs a loader that can go back to its position, but "
                f"{type(loader).__name__} has no state_dict and load_state_dict; leave checkpoint_every out "
                "to write a checkpoint after each epoch only."
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._random_state = None  # resumed between epochs: the stream already went on

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if self._every is None or done % self._every or done % trainer.accumulate_grad_batches:
            return
        # At the end of an epoch, and where a validation comes first, what follows belongs to the same step.
        if done < trainer.num_training_batches and done % (trainer.val_check_batch or done + 1):
            trainer.save_checkpoint(self._path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._should_stop = trainer.should_stop
        trainer.save_checkpoint(self._path)


def random_state() -> dict[str, Any]:
    """State of the global generators of torch, CUDA, NumPy and ``random``, as tensors and plain data."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    for device, value in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(value, device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
