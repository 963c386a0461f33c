"""One batch holds every marginal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqdyn.data import SnapshotDataModule, stack_snapshots


def test_a_batch_holds_every_marginal_in_the_order_of_time() -> None:
    clouds = [
        np.arange(6.0).reshape(3, 2),
        np.arange(6.0, 16.0).reshape(5, 2),
        np.arange(16.0, 24.0).reshape(4, 2),
    ]
    data = stack_snapshots(clouds, times=[7.5, 0.0, 3.0])
    shuffled = data.isel(particle=[0, 3, 8, 1, 4, 9, 2, 5, 10, 6, 11, 7])

    for source in (data, shuffled):
        batch = next(iter(SnapshotDataModule(source).train_dataloader()))
        assert batch["time"].tolist() == [0.0, 3.0, 7.5]
        for x, cloud in zip(batch["x"], [clouds[1], clouds[2], clouds[0]], strict=True):
            assert x.dtype == torch.float64
            np.testing.assert_array_equal(x, cloud)


def test_an_epoch_gives_the_batch_as_often_as_asked() -> None:
    data = stack_snapshots([np.zeros((3, 1)), np.ones((2, 1))], times=[0, 1])
    module = SnapshotDataModule(data, batches_per_epoch=3, val=data)

    assert len(list(module.train_dataloader())) == len(module.train_dataloader()) == 3
    assert len(list(module.val_dataloader())) == 1
    assert SnapshotDataModule(data).val_dataloader() == []


def test_what_does_not_fit_is_refused() -> None:
    data = stack_snapshots([np.zeros((3, 2)), np.ones((2, 2))], times=[0, 1])

    with pytest.raises(ValueError, match="batches_per_epoch must be at least 1, got 0"):
        SnapshotDataModule(data, batches_per_epoch=0)
    with pytest.raises(ValueError, match=r"val has 1 features but the data have 2.*val\.sel\(feature="):
        SnapshotDataModule(data, val=data.isel(feature=[0]))
    with pytest.raises(ValueError, match="two or more times"):
        SnapshotDataModule(data.isel(particle=[0, 1]))
