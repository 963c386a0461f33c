"""Snapshots held out: every second one, or by their times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from seqdyn.data import split_alternate, split_snapshots, stack_snapshots


def snapshots(times: list[float], *, shuffle: bool = False) -> xr.Dataset:
    """Two particles at the first time, three at the second, ...; each carries its number."""
    counts = range(2, 2 + len(times))
    numbers = iter(range(1000))
    clouds = [np.array([[next(numbers), 0.0] for _ in range(count)]) for count in counts]
    data = stack_snapshots(clouds, times=times, units="cm").assign_attrs(origin="here")
    data = data.assign_coords(batch=("particle", np.arange(data.sizes["particle"]) % 2))
    order = np.random.default_rng(0).permutation(data.sizes["particle"])
    return data.isel(particle=order) if shuffle else data


@pytest.mark.parametrize(
    ("times", "train", "held_out"),
    [
        ([0.0, 1.0, 2.0], [0.0, 2.0], [1.0]),
        ([0.0, 1.0, 2.0, 3.0], [0.0, 2.0], [1.0, 3.0]),
        ([0.0, 0.5, 1.0, 1.5, 3.0], [0.0, 1.0, 3.0], [0.5, 1.5]),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_second_snapshot_by_time_is_held_out(
    times: list[float], train: list[float], held_out: list[float], shuffle: bool
) -> None:
    data = snapshots(times, shuffle=shuffle)

    kept, others = split_alternate(data)

    assert np.unique(kept["time"]).tolist() == train
    assert np.unique(others["time"]).tolist() == held_out


def test_times_that_come_in_any_order_are_ordered_by_value() -> None:
    # The order of the snapshots in the data is 10, 2, 1: as text or by place the middle one would be another.
    data = snapshots([10.0, 2.0, 1.0])

    train, held_out = split_alternate(data)

    assert np.unique(train["time"]).tolist() == [1.0, 10.0]
    assert np.unique(held_out["time"]).tolist() == [2.0]


def test_the_parts_are_the_whole_with_everything_that_belongs_to_it() -> None:
    data = snapshots([0.0, 1.0, 2.0, 4.0], shuffle=True)

    train, held_out = split_snapshots(data, [1.0, 4.0])

    both = xr.concat([train, held_out], dim="particle")
    np.testing.assert_array_equal(np.sort(both["x"].values[:, 0]), np.arange(2 + 3 + 4 + 5))
    for part in (train, held_out):
        assert part.attrs == {"origin": "here"} and part["x"].attrs == {"units": "cm"}
        rows = np.isin(data["x"].values[:, 0], part["x"].values[:, 0])
        xr.testing.assert_identical(part, data.isel(particle=rows))


def test_a_single_time_may_be_a_number_and_the_data_stay_as_they_are() -> None:
    data = snapshots([0.0, 1.0, 2.0])
    before = data.copy(deep=True)

    train, held_out = split_snapshots(data, 1)

    assert np.unique(train["time"]).tolist() == [0.0, 2.0]
    assert np.unique(held_out["time"]).tolist() == [1.0]
    xr.testing.assert_identical(data, before)


def test_rounding_does_not_hide_a_snapshot_and_close_ones_stay_apart() -> None:
    data = snapshots([0.0, 0.1 + 0.2, 0.3 + 1e-6, 1.0])

    held_out = split_snapshots(data, [0.3])[1]

    assert held_out.sizes["particle"] == 3


def test_times_in_single_precision_are_found() -> None:
    data = snapshots([0.0, 0.8, 1.6])
    data = data.assign_coords(time=data["time"].astype(np.float32))

    assert split_snapshots(data, np.float32(0.8))[1].sizes["particle"] == 3
    assert split_snapshots(data, 0.8)[1].sizes["particle"] == 3


def test_days_far_from_zero_stay_apart() -> None:
    data = snapshots([738000.0, 738000.001, 738001.0])

    assert split_snapshots(data, 738000.001)[1].sizes["particle"] == 3


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([0.5], r"no snapshot at time 0\.5; the times are \[0\.0, 1\.0, 2\.0\]"),
        ([1.0, 3.0], "no snapshot at time 3"),
        ([float("nan")], "no snapshot at time nan"),
        ([1.0, 2.0], "holding out 2 of 3 snapshots leaves 1 to fit, and two are needed"),
    ],
)
def test_what_cannot_be_held_out_is_refused(held_out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_snapshots(snapshots([0.0, 1.0, 2.0]), held_out)


def test_two_snapshots_cannot_be_split() -> None:
    with pytest.raises(ValueError, match=r"2 times only, \[0\.0, 1\.0\]; to fit needs two"):
        split_alternate(snapshots([0.0, 1.0]))


def test_data_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the variable 'x'"):
        split_alternate(xr.Dataset())
