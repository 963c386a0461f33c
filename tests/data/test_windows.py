"""Windows of sequences: which there are, what they hold, and that drawing a number draws them uniformly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data.windows import SequenceWindows


def dataset(observed: np.ndarray, *, covariates: bool = False, dtype: Any = np.float64) -> xr.Dataset:
    """Sequences whose value says where it stands: 100 · series + time + feature / 10; NaN where missing."""
    m, t, c = observed.shape
    place = 100.0 * np.arange(m)[:, None, None] + np.arange(t)[None, :, None] + np.arange(c) / 10
    variables: dict[str, Any] = {
        "target": (("series", "time", "feature"), np.where(observed, place, np.nan).astype(dtype))
    }
    if not observed.all():
        variables["observed"] = (("series", "time", "feature"), observed)
    if covariates:
        values = np.stack([place[:, :, 0] * 2, place[:, :, 0] * 3], axis=-1)
        variables["covariates"] = (("series", "time", "covariate"), values)
    coords: dict[str, Any] = {
        "series": [f"s{i}" for i in range(m)],
        "time": np.arange(t),
        "feature": list("abcd")[:c],
    }
    return xr.Dataset(variables, coords | ({"covariate": ["u", "v"]} if covariates else {}))


def brute_force(observed: np.ndarray, length: int) -> list[tuple[int, int]]:
    """All (series, start) by their definition."""
    found = []
    for i, steps in enumerate(observed.any(axis=2)):
        seen = np.flatnonzero(steps)
        for start in range(len(steps) - length + 1):
            inside = len(seen) > 0 and seen[0] <= start and start + length - 1 <= seen[-1]
            if inside and steps[start : start + length].any():
                found.append((i, start))
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_windows_are_those_of_the_definition(length: int, share: float) -> None:
    generator = np.random.default_rng(int(100 * share) + length)
    observed = generator.random((40, 12, 2)) < share
    observed[0] = True
    observed[1, [0, -1]] = True, True

    windows = SequenceWindows(dataset(observed), length)

    pairs = list(zip(*windows.locate(np.arange(len(windows))), strict=True))
    assert pairs == brute_force(observed, length)


def test_a_batch_holds_values_mask_place_and_covariates() -> None:
    observed = np.ones((2, 7, 2), dtype=bool)
    observed[1, 3, 1] = False
    data = dataset(observed, covariates=True)

    batch = SequenceWindows(data, 3).__getitems__(
        [0, 6]
    )  # series 0 has starts 0 to 4, number 6 is its second

    assert batch["series"].tolist() == [0, 1] and batch["start"].tolist() == [0, 1]
    expected = np.stack([data.target.values[0, 0:3], data.target.values[1, 1:4]])
    np.testing.assert_array_equal(
        batch["target"], np.where(np.isnan(expected), 0, expected).astype(np.float32)
    )
    np.testing.assert_array_equal(batch["observed"], np.isfinite(expected))
    np.testing.assert_array_equal(batch["covariates"][1], data.covariates.values[1, 1:4].astype(np.float32))
    dtypes = {name: value.dtype for name, value in batch.items()}
    assert dtypes == {
        "target": torch.float32, "observed": torch.bool, "series": torch.int64, "start": torch.int64,
        "covariates": torch.float32,
    }  # fmt: skip


def test_one_window_is_a_row_of_a_batch() -> None:
    windows = SequenceWindows(dataset(np.ones((2, 5, 1), dtype=bool)), 4)

    one, batch = windows[3], windows.__getitems__([3])

    assert one.keys() == batch.keys()
    for name, value in one.items():
        assert torch.equal(value, batch[name][0])


def test_the_data_are_copied_and_missing_values_are_zero() -> None:
    observed = np.ones((1, 4, 1), dtype=bool)
    data = dataset(observed, dtype=np.float32)
    windows = SequenceWindows(data, 4)
    data.target.values[:] = -1.0

    assert windows[0]["target"].flatten().tolist() == [0.0, 1.0, 2.0, 3.0]
    observed[0, 1] = False
    data = dataset(observed)
    data.target[0, 1, 0] = 1e300  # what stands where nothing was observed does not matter
    assert SequenceWindows(data, 4)[0]["target"].flatten().tolist() == [0.0, 0.0, 2.0, 3.0]


def test_a_stride_counts_back_from_the_last_window() -> None:
    observed = np.ones((2, 11, 1), dtype=bool)
    observed[1, 7:] = False

    windows = SequenceWindows(dataset(observed), 3, stride=3)

    series, start = windows.locate(range(len(windows)))
    assert list(zip(series, start, strict=True)) == [(0, 2), (0, 5), (0, 8), (1, 1), (1, 4)]


def test_numbers_drawn_uniformly_draw_windows_uniformly() -> None:
    # 17, 5 and 2 windows in series of unequal length; 24,000 draws give 1,000 ± 31 of each. A chi-square of
    # 23 degrees of freedom exceeds 49.7 once in a thousand seeds; the seed is fixed.
    observed = np.ones((3, 20, 1), dtype=bool)
    observed[1, 8:] = False
    observed[2, :15] = False
    windows = SequenceWindows(dataset(observed), 4)
    assert len(windows) == 17 + 5 + 2

    numbers = np.random.default_rng(0).integers(len(windows), size=1000 * len(windows))
    series, start = windows.locate(numbers)

    counts = np.unique(series * 100 + start, return_counts=True)[1]
    assert len(counts) == len(windows)
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7


def test_many_windows_cost_no_list_of_them() -> None:
    data = dataset(np.ones((50, 4000, 1), dtype=bool))

    windows = SequenceWindows(data, 100)

    assert len(windows) == 50 * 3901
    arrays = [value for value in vars(windows).values() if isinstance(value, np.ndarray)]
    assert sum(value.size for value in arrays) == 3 * 50
    assert windows.locate([0, len(windows) - 1])[1].tolist() == [0, 3900]


def test_short_series_are_left_out_with_a_warning(caplog: Any) -> None:
    observed = np.ones((3, 9, 1), dtype=bool)
    observed[1, 5:] = False
    observed[2, :8] = False

    windows = SequenceWindows(dataset(observed), 6)

    assert set(windows.locate(range(len(windows)))[0]) == {0}
    assert "2 of 3 series have fewer than the 6 steps of a window" in caplog.text
    assert "(the longest of them, s1, has 5)" in caplog.text


def test_no_series_long_enough_names_the_longest_and_the_remedy() -> None:
    observed = np.ones((2, 9, 1), dtype=bool)
    observed[0, 7:] = False
    observed[1, [0, 1, 2]] = False

    with pytest.raises(
        ValueError,
        match=r"needs 8 steps, but the longest series \('s0'\) has 7 .* at most 7 together: max\(lags\)",
    ):
        SequenceWindows(dataset(observed), 8)


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (2, 0)])
def test_lengths_and_strides_start_at_one(length: int, stride: int) -> None:
    with pytest.raises(ValueError, match="length and stride must be at least 1 step"):
        SequenceWindows(dataset(np.ones((1, 4, 1), dtype=bool)), length, stride=stride)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_number_without_window_is_an_index_error(number: int) -> None:
    windows = SequenceWindows(dataset(np.ones((1, 4, 1), dtype=bool)), 2)

    with pytest.raises(IndexError, match=r"must lie in 0 … 2"):
        windows.__getitems__([number])
