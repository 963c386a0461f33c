"""Sequences as batches of windows, in an order that can be gone on with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.schema import SYMBOL, TARGET, check_sequences
from seqdyn.data.symbols import SymbolWindows
from seqdyn.data.windows import SequenceWindows
from seqdyn.rng import ambient_seed

__all__ = ["SequenceDataModule", "WindowLoader"]


class SequenceDataModule(pl.LightningDataModule):
    """Windows of sequences for training and validation.

    Args:
        data: Sequences ``target (series, time, feature)``, or discrete ones, ``symbol (series, time)``;
            checked here.
        length: Window length in steps.
        batch_size: Windows in a batch, over all processes.
        batches_per_epoch: An epoch is so many batches of windows drawn uniformly from all, with repetition;
            ``None`` makes it one shuffled pass over them.
        val: Validation data, in which windows do not overlap and the last one of each series is included.
        seed: Seed of the order; ``None`` draws one from the ambient stream when a fit starts, so that
            ``fit(seed=)`` decides it.

    Raises:
        ValueError: If the data break the schema or no series has ``length`` steps.
    """

    def __init__(
        self,
        data: xr.Dataset,
        *,
        length: int,
        batch_size: int = 64,
        batches_per_epoch: int | None = None,
        val: xr.Dataset | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (batches_per_epoch is not None and batches_per_epoch < 1):
            raise ValueError(
                f"batch_size and batches_per_epoch must be at least 1, got batch_size={batch_size}, "
                f"batches_per_epoch={batches_per_epoch}."
            )
        self.data, self.val = data, val
        self.batch_size = batch_size
        self._settings: dict[str, int | None] = {
            "length": length,
            "batch_size": batch_size,
            "batches_per_epoch": batches_per_epoch,
            "seed": seed,
        }
        self._windows = _windows(data, length)
        self._val_windows = None if val is None else _windows(val, length, stride=length)
        self._order_seed: int | None = None

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self._order_seed = ambient_seed(self._settings["seed"])

    def train_dataloader(self) -> WindowLoader:
        if self._order_seed is None:
            self.setup()
        batches = self._settings["batches_per_epoch"]
        return WindowLoader(self._windows, self.batch_size, batches, seed=self._order_seed)

    def val_dataloader(self) -> WindowLoader | list[WindowLoader]:
        return [] if self._val_windows is None else WindowLoader(self._val_windows, self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        return {"order_seed": self._order_seed, "settings": self._settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in self._settings.items():
            if state["settings"][name] != value:
                raise ValueError(
                    f"the run had {name}={state['settings'][name]!r}, this SequenceDataModule has {value!r}; "
                    "resume with the same, or choose another run_dir."
                )
        self._order_seed = state["order_seed"]


def _windows(data: xr.Dataset, length: int, *, stride: int = 1) -> SequenceWindows | SymbolWindows:
    discrete = SYMBOL in data and TARGET not in data
    check_sequences(data, variable=SYMBOL if discrete else TARGET)
    return (SymbolWindows if discrete else SequenceWindows)(data, length, stride=stride)


class WindowLoader:
    """Batches of windows in an order that is a function of (seed, epoch); its position can be restored.

    Nothing is drawn from the global random streams. With several processes each takes its share of a batch.

    Args:
        windows: What to take them from.
        batch_size: Windows in a batch.
        num_batches: Batches of an epoch, drawn with repetition; ``None`` for one pass.
        seed: Seed of the order; ``None`` goes through the windows in theirs.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def __init__(
        self,
        windows: SequenceWindows | SymbolWindows,
        batch_size: int,
        num_batches: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._windows = windows
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._seed = seed
        self._epoch = 0
        self._position = 0  # batches of this epoch already given

    @property
    def sampler(self) -> WindowLoader:
        """Itself: Lightning tells a loader's sampler the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless it is the current one."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch, self._position = state["epoch"], state["position"]

    def __len__(self) -> int:
        return self._num_batches or math.ceil(len(self._windows) / self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self._position >= len(self):
            self.set_epoch(self._epoch + 1)
        order = self._order()
        while self._position < len(self):
            chosen = order[self._position * self._batch_size : (self._position + 1) * self._batch_size]
            self._position += 1
            yield self._windows.__getitems__(_share(chosen))

    def _order(self) -> np.ndarray:
        if self._seed is None:
            return np.arange(len(self._windows))
        generator = np.random.default_rng([self._seed % 2**64, self._epoch])
        if self._num_batches is None:
            return generator.permutation(len(self._windows))
        return generator.integers(len(self._windows), size=self._num_batches * self._batch_size)


def _share(chosen: np.ndarray) -> np.ndarray:
    """This process's part of a batch; a batch of fewer windows than processes is repeated."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return chosen
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return np.resize(chosen, max(len(chosen), size))[rank::size]
