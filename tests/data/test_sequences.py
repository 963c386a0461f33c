"""Batches of windows: how many, in which order, and from where they go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data.sequences import SequenceDataModule
from seqdyn.rng import fork_rng


def dataset(num_steps: int = 20) -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((2, num_steps, 1))
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values)},
        {"series": ["a", "b"], "time": np.arange(num_steps), "feature": ["y"]},
    )


def module(**options: Any) -> SequenceDataModule:
    module = SequenceDataModule(dataset(), **{"length": 5, "batch_size": 4, "seed": 0, **options})
    module.setup("fit")
    return module


def places(batches: Any) -> list[list[tuple[int, int]]]:
    return [list(zip(b["series"].tolist(), b["start"].tolist(), strict=True)) for b in batches]


def test_a_pass_shows_every_window_once_in_shuffled_order() -> None:
    loader = module().train_dataloader()

    first, second = places(loader), places(loader)

    windows = [(series, start) for series in range(2) for start in range(16)]
    assert len(first) == len(loader) == 8
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == windows
    assert first != second and sum(first, []) != windows


def test_an_epoch_of_a_number_of_batches_is_drawn_with_repetition() -> None:
    loader = module(batches_per_epoch=30).train_dataloader()

    drawn = places(loader)

    assert len(drawn) == len(loader) == 30
    assert {len(batch) for batch in drawn} == {4}
    assert len(set(sum(drawn, []))) < 120


@pytest.mark.parametrize("batches_per_epoch", [None, 6])
def test_the_order_is_a_function_of_seed_and_epoch(batches_per_epoch: int | None) -> None:
    def epoch(seed: int, number: int) -> Any:
        torch.randn(3)
        np.random.random()
        loader = module(seed=seed, batches_per_epoch=batches_per_epoch).train_dataloader()
        loader.set_epoch(number)
        return places(loader)

    assert epoch(3, 2) == epoch(3, 2)
    assert epoch(3, 2) != epoch(4, 2) and epoch(3, 2) != epoch(3, 1)


@pytest.mark.parametrize("batches_per_epoch", [None, 6])
@pytest.mark.parametrize("given", [0, 1, 5])
def test_a_loader_goes_on_from_its_position(batches_per_epoch: int | None, given: int) -> None:
    loader = module(batches_per_epoch=batches_per_epoch).train_dataloader()
    list(loader)
    iterator = iter(loader)
    for _ in range(given):
        next(iterator)
    state = loader.state_dict()
    rest = places(iterator)

    other = module(batches_per_epoch=batches_per_epoch).train_dataloader()
    other.load_state_dict(state)

    assert places(other) == rest


def test_without_a_seed_the_ambient_stream_decides_once_a_fit() -> None:
    def order(ambient: int, made: SequenceDataModule) -> Any:
        with fork_rng(ambient):
            made.setup("fit")
            return places(made.train_dataloader())

    made = SequenceDataModule(dataset(), length=5, batch_size=4)

    assert order(1, made) == order(1, made) == order(1, SequenceDataModule(dataset(), length=5, batch_size=4))
    assert order(1, made) != order(2, made)


def test_loading_draws_nothing_from_the_global_streams() -> None:
    made = module(val=dataset())
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    list(made.train_dataloader()), list(made.val_dataloader())

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_the_order_survives_a_state_dict() -> None:
    made = module(seed=None)
    other = module(seed=None)
    assert places(made.train_dataloader()) != places(other.train_dataloader())

    other.load_state_dict(made.state_dict())

    assert places(made.train_dataloader()) == places(other.train_dataloader())


def test_validation_windows_do_not_overlap_and_hold_the_last_one() -> None:
    loader = module(val=dataset(18)).val_dataloader()

    assert sum(places(loader), []) == [(s, start) for s in (0, 1) for start in (3, 8, 13)]
    assert places(loader) == places(loader)  # the same in every epoch
    assert module().val_dataloader() == []


def test_data_are_checked() -> None:
    with pytest.raises(ValueError, match="target"):
        SequenceDataModule(dataset().rename(target="load"), length=5)
    with pytest.raises(ValueError, match="NaN"):
        SequenceDataModule(dataset(), length=5, val=dataset() * np.nan)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batches_per_epoch": 0}])
def test_sizes_start_at_one(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size and batches_per_epoch must be at least 1"):
        SequenceDataModule(dataset(), length=5, **options)


def test_processes_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = places(module().train_dataloader())
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        parts.append(places(module().train_dataloader()))

    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(sum(shares, [])) == sorted(batch)
