"""Snapshots as batches: one batch holds every marginal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr

from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X, check_snapshots

__all__ = ["MarginalLoader", "SnapshotDataModule"]


class SnapshotDataModule(pl.LightningDataModule):
    """All marginals of a snapshot dataset in each batch, in the order of their times.

    A batch is a dict: ``x``, a list of I tensors (N_i, C), and ``time`` (I,), float32 and in the units of
    the data.

    Args:
        data: Snapshots ``x (particle, feature)`` with ``time (particle)``; checked here.
        batches_per_epoch: How often an epoch gives that batch.
        val: Validation snapshots.

    Raises:
        ValueError: If the data break the schema, or the features of ``val`` differ.
    """

    def __init__(
        self, data: xr.Dataset, *, batches_per_epoch: int = 1, val: xr.Dataset | None = None
    ) -> None:
        super().__init__()
        if batches_per_epoch < 1:
            raise ValueError(f"batches_per_epoch must be at least 1, got {batches_per_epoch}.")
        check_snapshots(data)
        if val is not None:
            check_snapshots(val)
            if val.sizes[FEATURE] != data.sizes[FEATURE]:
                raise ValueError(
                    f"val has {val.sizes[FEATURE]} features but the data have {data.sizes[FEATURE]}; select "
                    "the same with val.sel(feature=data.feature)."
                )
        self.data, self.val = data, val
        self.batches_per_epoch = batches_per_epoch

    def train_dataloader(self) -> MarginalLoader:
        return MarginalLoader(self.data, self.batches_per_epoch)

    def val_dataloader(self) -> MarginalLoader | list[MarginalLoader]:
        return [] if self.val is None else MarginalLoader(self.val, 1)


class MarginalLoader:
    """Gives one and the same batch of all marginals, ``num_batches`` times.

    Args:
        data: Checked snapshots.
        num_batches: Length of an epoch.
    """

    def __init__(self, data: xr.Dataset, num_batches: int) -> None:
        x = data[X].transpose(PARTICLE, FEATURE).values.astype(np.float32)
        times, index = np.unique(data[TIME].values, return_inverse=True)
        # A stable order keeps the particles of a marginal in the order of the data.
        order, counts = np.argsort(index, kind="stable"), np.bincount(index)
        self._x = [torch.from_numpy(cloud) for cloud in np.split(x[order], np.cumsum(counts)[:-1])]
        self._time = torch.from_numpy(times.astype(np.float32))
        self._num_batches = num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self._num_batches):
            yield {X: list(self._x), TIME: self._time}
