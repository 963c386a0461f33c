"""What a fit records: mean losses and seconds of each epoch, as a Dataset, as JSON and as CSV."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor

__all__ = ["EPOCH", "SECONDS", "History", "history_from_json", "history_to_json"]

EPOCH, SECONDS = "epoch", "seconds"


class History(pl.Callback):
    """Record the mean of every loss term over each epoch, batches weighted by their size.

    Reads ``latest_losses`` of the model, which its training and validation steps set.

    Args:
        previous: History of earlier fits of the same model, which this one continues.
    """

    def __init__(self, previous: xr.Dataset | None = None) -> None:
        self.rows = _rows(previous)
        self._start = 0.0
        self._before = 0.0  # seconds of this epoch that an interrupted run had spent
        self._train = _Mean()
        self._val = _Mean()

    def dataset(self, attrs: Mapping[str, str]) -> xr.Dataset:
        """The rows so far, dim ``epoch``; a value an epoch does not have is NaN."""
        return _dataset(self.rows, attrs)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": [dict(row) for row in self.rows],
            "train": self._train.state(),
            "val": self._val.state(),
            "seconds": self._elapsed(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state["rows"]]
        self._train, self._val = _Mean(**state["train"]), _Mean(**state["val"])
        self._before = state["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Mapping[str, Tensor], batch_idx: int
    ) -> None:
        self._train.add(pl_module.latest_losses, batch)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self._val.add(pl_module.latest_losses, batch)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._val = _Mean()  # of several validations in an epoch the last one counts

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._publish(
                pl_module, {f"val_{name}": value for name, value in self._val.means(trainer).items()}
            )

    def val_loss(self, trainer: pl.Trainer) -> float:
        """Mean loss of the validation that just ended."""
        return self._val.means(trainer)["loss"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        train = {f"train_{name}": value for name, value in self._train.means(trainer).items()}
        val = {f"val_{name}": value for name, value in self._val.means(trainer).items()}
        self._publish(pl_module, train)
        self.rows.append({**train, **val, SECONDS: self._elapsed()})
        self._train, self._val = _Mean(), _Mean()
        self._before, self._start = 0.0, time.perf_counter()

    def _publish(self, pl_module: pl.LightningModule, means: Mapping[str, float]) -> None:
        """Log the means for loggers, schedulers and callbacks that monitor them.

        Lightning's own means over steps would begin again where an interrupted epoch is resumed.
        """
        for name, value in means.items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _elapsed(self) -> float:
        return self._before + time.perf_counter() - self._start


class _Mean:
    """Running mean of loss terms; the terms stay on their device until the mean is asked for."""

    def __init__(self, sizes: list[int] | None = None, terms: dict[str, list[float]] | None = None) -> None:
        self._sizes: list[int] = list(sizes or [])
        self._terms: dict[str, list[Tensor]] = {
            name: [torch.tensor(value, dtype=torch.float64) for value in values]
            for name, values in (terms or {}).items()
        }

    def add(self, losses: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        self._sizes.append(len(next(iter(batch.values()))))
        for name, value in losses.items():
            self._terms.setdefault(name, []).append(value)

    def state(self) -> dict[str, Any]:
        return {
            "sizes": self._sizes,
            "terms": {name: _floats(values) for name, values in self._terms.items()},
        }

    def means(self, trainer: pl.Trainer) -> dict[str, float]:
        """Mean of each term over all processes."""
        means = {}
        for name, values in self._terms.items():
            total = torch.tensor([np.dot(self._sizes, _floats(values)), sum(self._sizes)])
            if trainer.world_size > 1:
                total = trainer.strategy.reduce(total.to(trainer.strategy.root_device), reduce_op="sum")
            means[name] = float(total[0] / total[1])
        return means


def _floats(values: list[Tensor]) -> list[float]:
    return torch.stack([value.cpu().double() for value in values]).tolist()


def history_to_json(history: xr.Dataset | None) -> dict[str, Any] | None:
    """A history as plain data: ``attrs`` and ``rows``, one dict an epoch without the values it lacks."""
    return None if history is None else {"attrs": dict(history.attrs), "rows": _rows(history)}


def history_from_json(content: Mapping[str, Any] | None) -> xr.Dataset | None:
    """The reverse of :func:`history_to_json`."""
    return None if content is None else _dataset(content["rows"], content["attrs"])


def _rows(history: xr.Dataset | None) -> list[dict[str, float]]:
    if history is None:
        return []
    columns = {str(name): history[name].values for name in history.data_vars}
    return [
        {name: float(values[i]) for name, values in columns.items() if np.isfinite(values[i])}
        for i in range(history.sizes[EPOCH])
    ]


def _dataset(rows: list[dict[str, float]], attrs: Mapping[str, str]) -> xr.Dataset:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: (EPOCH, np.array([row.get(name, np.nan) for row in rows])) for name in names}
    return xr.Dataset(columns, {EPOCH: np.arange(1, len(rows) + 1)}, dict(attrs))
