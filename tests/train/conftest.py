"""A small model with every kind of randomness a fit can meet, and data for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn.data.sequences import SequenceDataModule
from seqdyn.models.base import Model


class Denoise(Model):
    """Removes noise from windows; draws noise and drops units, and its optimiser has momentum."""

    gradient_clip_val = 1.0

    def __init__(
        self, hidden_size: int = 4, learning_rate: float = 0.05, batches_per_epoch: int | None = 4
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(1, hidden_size), nn.Dropout(0.2), nn.Linear(hidden_size, 1))

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        batches = self.hparams.batches_per_epoch
        return SequenceDataModule(data, length=8, batch_size=8, batches_per_epoch=batches, val=val)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        noise = torch.randn_like(batch["target"]) + np.random.standard_normal()
        error = (self.network(batch["target"] + noise) - batch["target"]).square().mean()
        size = sum(p.square().sum() for p in self.parameters())
        return {"loss": error + 1e-3 * size, "error": error.detach(), "size": size.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


def sequences(num_steps: int = 40, seed: int = 0) -> xr.Dataset:
    values = np.random.default_rng(seed).standard_normal((3, num_steps, 1)).cumsum(axis=1) / 5
    time = pd.date_range("2024-01-01", periods=num_steps, freq="h")
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values)},
        {"series": ["a", "b", "c"], "time": ("time", time, {"freq": "h"}), "feature": ["y"]},
    )


class Stop(Exception):
    """An interruption, as a test makes one."""


class StopAt(pl.Callback):
    """Raise at the n-th call of a hook, counted from zero."""

    def __init__(self, hook: str, number: int) -> None:
        self._calls = 0

        def stop(*args: Any, **kwargs: Any) -> None:
            self._calls += 1
            if self._calls > number:
                raise Stop(f"{hook} {number}")

        setattr(self, hook, stop)


@pytest.fixture
def model_class() -> type[Denoise]:
    return Denoise


@pytest.fixture
def data() -> xr.Dataset:
    return sequences()


@pytest.fixture
def make_data() -> Callable[..., xr.Dataset]:
    return sequences


@pytest.fixture
def stop_at() -> Callable[[str, int], StopAt]:
    return StopAt


@pytest.fixture
def stopped() -> type[Stop]:
    return Stop


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability against a power cut is not what these tests are about, and costs most of their time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder, which must stay empty: a fit leaves nothing where it was not told to."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []
