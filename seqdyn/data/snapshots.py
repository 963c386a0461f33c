"""Snapshots as batches: one batch holds every marginal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import xarray as xr

from seqdyn.data.checks import plain
from seqdyn.data.marginals import describe_snapshots, marginals
from seqdyn.data.names import CELL
from seqdyn.data.schema import CONDITION, FEATURE, GROWTH, PARTICLE, TIME, WEIGHT, X, check_snapshots

__all__ = ["MarginalLoader", "SnapshotDataModule"]


class SnapshotDataModule(pl.LightningDataModule):
    """All marginals of a snapshot dataset in each batch, in the order of their times.

    A batch is a dict of one entry per marginal, by condition and, within each, by time: ``time`` (I,) and
    ``condition`` (I,), the number of the condition, 0 where there is but one; and lists of I tensors, ``x``
    (N_i, C), ``weight`` (N_i,) with the sum 1, ``growth`` (N_i,), and ``particle`` (N_i,), the numbers of the
    particles in the data. Everything is float64, in which bridges are solved, and in the units of the data.

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

    Attributes:
        facts: Names and units of the data, see :func:`seqdyn.data.marginals.describe_snapshots`.
        cells: Names of the particles, as of the cells of an AnnData; ``None`` if they have none.
    """

    def __init__(self, data: xr.Dataset, num_batches: int) -> None:
        parts = marginals(data)
        self.facts = describe_snapshots(data)
        named = CELL in data.coords and data[CELL].dims == (PARTICLE,)
        self.cells: list[Any] | None = [plain(name) for name in data[CELL].values] if named else None
        self._batch: dict[str, Any] = {
            TIME: torch.tensor([part.time for part in parts], dtype=torch.float64),
            CONDITION: torch.tensor([part.condition for part in parts]),
            X: [torch.from_numpy(part.x) for part in parts],
            WEIGHT: [torch.from_numpy(part.weight) for part in parts],
            GROWTH: [torch.from_numpy(part.growth) for part in parts],
            PARTICLE: [torch.from_numpy(part.particle) for part in parts],
        }
        self._num_batches = num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self._num_batches):
            yield {name: list(v) if isinstance(v, list) else v for name, v in self._batch.items()}
