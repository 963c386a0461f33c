"""Frequencies and grids, against pandas and against local calendars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seqdyn.data.times import infer_freq, normalize_freq, resolve_freq, time_grid

SPELLINGS = {
    "H": "h", "1H": "h", "60min": "h", "T": "min", "30T": "30min", "S": "s", "D": "D", "B": "B", "d": "D",
    "24h": "24h", "M": "ME", "MS": "MS", "3M": "3ME", "A": "YE-DEC", "W-FRI": "W-FRI", "hourly": "h",
    "10_minutes": "10min", "half_hourly": "30min", "4_seconds": "4s", "QS-OCT": "QS-JAN", "QE-MAR": "QE-DEC",
}  # fmt: skip


@pytest.mark.parametrize(("written", "alias"), SPELLINGS.items())
def test_old_and_spoken_frequencies_become_one_alias(written: str, alias: str) -> None:
    assert normalize_freq(written) == alias
    assert normalize_freq(alias) == alias


@pytest.mark.parametrize(
    ("freq", "stamp", "alias"),
    [
        ("M", "2024-03-01", "MS"),
        ("M", "2024-03-31", "ME"),
        ("W", "2024-03-06", "W-WED"),
        ("Q", "2024-04-01", "QS-JAN"),
        ("Q", "2024-03-31", "QE-DEC"),
        ("Y", "2024-01-01", "YS-JAN"),
        ("h", "2024-03-06", "h"),
    ],
)
def test_a_bare_period_is_settled_by_its_first_stamp(freq: str, stamp: str, alias: str) -> None:
    assert resolve_freq(freq, pd.Timestamp(stamp)) == alias


@pytest.mark.parametrize(
    "freq",
    ["min", "15min", "h", "6h", "D", "2D", "B", "W-THU", "2W-MON", "MS", "ME", "QS-JAN", "QE-DEC", "YS-JUL"],
)
@pytest.mark.parametrize("timezone", [None, "Europe/Zurich", "America/New_York", "Asia/Kolkata"])
def test_the_frequency_of_a_grid_is_found_again(freq: str, timezone: str | None) -> None:
    # Two hundred hours after this Thursday every zone that has clock changes has gone through one.
    start = pd.Timestamp("2024-03-28", tz=timezone or "UTC")
    start = pd.tseries.frequencies.to_offset(freq).rollforward(start).tz_convert("UTC").tz_localize(None)

    grid = time_grid(start, freq, periods=200, timezone=timezone)

    assert infer_freq(grid, timezone) == freq
    pd.testing.assert_index_equal(
        time_grid(start, freq, end=grid[-1], timezone=timezone), grid, exact="equiv"
    )


def test_a_daily_grid_keeps_local_midnight_when_clocks_change() -> None:
    local = pd.date_range("2024-03-29", "2024-04-02", freq="D", tz="Europe/Zurich")
    start = local[0].tz_convert("UTC").tz_localize(None)

    grid = time_grid(start, "D", periods=5, timezone="Europe/Zurich")

    np.testing.assert_array_equal(grid, local.tz_convert("UTC").tz_localize(None))
    assert np.diff(grid)[2] == np.timedelta64(23, "h")


def test_a_day_that_begins_at_one_o_clock_does_not_break_a_daily_grid() -> None:
    # In Beirut clocks go forward at midnight: 31 March 2024 begins at 01:00.
    start = pd.Timestamp("2024-03-29", tz="Asia/Beirut").tz_convert("UTC").tz_localize(None)

    grid = time_grid(start, "D", periods=4, timezone="Asia/Beirut")

    local = grid.tz_localize("UTC").tz_convert("Asia/Beirut")
    assert [stamp.day for stamp in local] == [29, 30, 31, 1]
    assert local[2].hour == 1


def test_steps_of_twenty_four_hours_are_told_from_days() -> None:
    grid = time_grid(pd.Timestamp("2024-03-29"), "24h", periods=10, timezone="Europe/Zurich")

    assert infer_freq(grid, "Europe/Zurich") == "24h"
    assert infer_freq(grid, None) == "D"


@pytest.mark.parametrize("freq", ["", "fortnight", "hrs", "-1h", "0D"])
def test_an_unknown_frequency_is_refused(freq: str) -> None:
    with pytest.raises(ValueError, match="freq="):
        normalize_freq(freq)


def test_three_july_firsts_are_years_and_not_365_days() -> None:
    assert infer_freq(pd.DatetimeIndex(["2021-07-01", "2022-07-01", "2023-07-01"])) == "YS-JUL"
