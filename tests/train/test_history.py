"""What a fit records."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytorch_lightning as pl
import xarray as xr

from seqdyn.train.history import history_from_json, history_to_json

QUIET = {"enable_progress_bar": False, "seed": 0}


class Collect(pl.Callback):
    """Losses and sizes of every batch, as they come."""

    def __init__(self) -> None:
        self.train: list[tuple[float, int]] = []
        self.monitored: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.train.append((float(outputs["loss"]), len(batch["target"])))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if "train_loss" in trainer.callback_metrics:
            self.monitored.append(float(trainer.callback_metrics["train_loss"]))


def test_epoch_means_weight_batches_by_their_size(model_class: Any, data: xr.Dataset) -> None:
    collect = Collect()
    short = data.isel(time=slice(14))  # 21 windows: batches of 8, 8 and 5

    model = model_class(batches_per_epoch=None).fit(short, max_epochs=2, callbacks=collect, **QUIET)

    losses, sizes = np.array(collect.train).reshape(2, 3, 2).transpose(2, 0, 1)
    assert sizes[0].tolist() == [8, 8, 5]
    np.testing.assert_allclose(model.history.train_loss, (losses * sizes).sum(1) / 21, rtol=1e-6)
    np.testing.assert_allclose(collect.monitored, model.history.train_loss[:1], rtol=1e-6)


def test_the_history_names_terms_epochs_and_seconds(model_class: Any, data: xr.Dataset) -> None:
    history = model_class().fit(data, val=data, max_epochs=2, check_val_every_n_epoch=2, **QUIET).history

    assert history.epoch.values.tolist() == [1, 2]
    assert list(history.data_vars) == [
        "train_loss", "train_error", "train_size", "seconds", "val_loss", "val_error", "val_size",
    ]  # fmt: skip
    assert np.isnan(history.val_loss[0]) and np.isfinite(history.val_loss[1])
    assert (history.seconds > 0).all()


def test_a_second_fit_continues_the_history(model_class: Any, data: xr.Dataset) -> None:
    model = model_class().fit(data, max_epochs=2, **QUIET)
    first = model.history
    model.fit(data, max_epochs=1, **QUIET)

    assert model.history.epoch.values.tolist() == [1, 2, 3]
    xr.testing.assert_equal(model.history.isel(epoch=slice(2)), first)


def test_a_history_survives_json(model_class: Any, data: xr.Dataset) -> None:
    history = model_class().fit(data, val=data, max_epochs=2, check_val_every_n_epoch=2, **QUIET).history

    content = json.loads(json.dumps(history_to_json(history), allow_nan=False))

    xr.testing.assert_identical(history_from_json(content), history)
    assert history_from_json(history_to_json(None)) is None
