"""Windows of discrete sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data.sequences import SequenceDataModule
from seqdyn.data.symbols import SymbolWindows


def sequences(observed: bool = True) -> xr.Dataset:
    data = xr.Dataset(
        {"symbol": (("series", "time"), np.arange(14).reshape(2, 7))},
        {"series": ["a", "b"], "time": np.arange(7)},
    )
    mask = np.ones((2, 7), dtype=bool)
    mask[0, 2] = mask[1, 5:] = False
    return data.assign(observed=(("series", "time"), mask)) if observed else data


def test_windows_hold_no_missing_symbol() -> None:
    windows = SymbolWindows(sequences(), 4)

    found = windows.__getitems__(range(len(windows)))["symbol"]

    assert found.tolist() == [[3, 4, 5, 6], [7, 8, 9, 10], [8, 9, 10, 11]]
    assert found.dtype == torch.int64


def test_without_a_mask_every_start_counts_and_a_stride_leaves_some_out() -> None:
    whole, strided = (SymbolWindows(sequences(False), 3, stride=stride) for stride in (1, 3))

    assert len(whole) == 10
    assert strided.__getitems__(range(len(strided)))["symbol"][:, 0].tolist() == [0, 3, 7, 10]


def test_dims_may_stand_in_any_order() -> None:
    turned = SymbolWindows(sequences().transpose("time", "series"), 4)

    assert turned.__getitems__([0])["symbol"].tolist() == [[3, 4, 5, 6]]


def test_a_length_that_no_series_has_names_the_longest() -> None:
    with pytest.raises(ValueError, match="a window needs 6 symbols in a row.*num_steps of at most 5"):
        SymbolWindows(sequences(), 6)


def test_the_data_module_takes_discrete_sequences() -> None:
    module = SequenceDataModule(
        sequences(), length=2, batch_size=5, batches_per_epoch=3, val=sequences(), seed=0
    )

    batches = list(module.train_dataloader())

    assert [batch["symbol"].shape for batch in batches] == [(5, 2)] * 3
    assert next(iter(module.val_dataloader()))["symbol"][:, 0].tolist() == [0, 4, 7, 9]


def test_other_symbols_than_whole_numbers_are_refused() -> None:
    data = sequences(False)
    with pytest.raises(ValueError, match="'symbol' must hold integers from 0, or -1 where missing"):
        SequenceDataModule(data.assign(symbol=data["symbol"] - 2), length=2)
