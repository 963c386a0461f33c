"""Fits for test_processes.py: run as a script with a model, a folder, a number of processes and of epochs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn.data.sequences import SequenceDataModule
from seqdyn.models import TSDiff
from seqdyn.models.base import Model


class Reproduce(Model):
    """Learns to repeat its input; draws no noise, so that a batch may be shared among processes."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        return SequenceDataModule(data, length=8, batch_size=8, batches_per_epoch=4, val=val)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["target"].double()
        return {"loss": (self.network(x) - x).square().mean()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def tsdiff() -> TSDiff:
    return TSDiff(
        context_length=8, prediction_length=4, lags=(), hidden_size=4, num_blocks=2, state_size=4,
        embedding_size=4, num_diffusion_steps=4, batch_size=4, batches_per_epoch=4,
    )  # fmt: skip


if __name__ == "__main__":
    model = {"Reproduce": Reproduce, "TSDiff": tsdiff}[sys.argv[1]]()
    folder, processes, epochs = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    values = np.random.default_rng(0).standard_normal((3, 60, 1))
    data = xr.Dataset(
        {"target": (("series", "time", "feature"), values)},
        {"series": ["a", "b", "c"], "time": np.arange(60), "feature": ["y"]},
    )
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "ema_decay": 0.5,
        "seed": 1,
        "enable_progress_bar": False,
    }
    if processes > 1:
        options |= {"strategy": "ddp", "devices": processes}
    val = data.isel(time=slice(20, None))
    model.fit(data, val=val, max_epochs=epochs, run_dir=folder, resume=True, checkpoint_every=2, **options)
