"""The regular grid under stamps with gaps: when its step is beyond doubt, and what is said when it is not."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from seqdyn.data import from_numpy, from_pandas

HOURS = pd.date_range("2024-01-01", periods=200, freq="h")


@pytest.mark.parametrize(
    "freq", ["h", "30min", "D", "B", "W-SUN", "MS", "ME", "QS-JAN", "YS-JAN", "3h", "7min"]
)
def test_a_few_gaps_are_filled_and_logged(freq: str, caplog: pytest.LogCaptureFixture) -> None:
    # From 1990, so that forty years fit; the gap in March of a weekly series is no change of clocks.
    stamps = pd.date_range("1990-01-01", periods=41, freq=freq)
    present = stamps.delete([8, 9])

    with caplog.at_level(logging.WARNING, logger="seqdyn"):
        data = from_numpy(np.arange(39.0), time=present)

    np.testing.assert_array_equal(data["time"], stamps)
    assert data["time"].attrs["freq"] == freq
    assert np.flatnonzero(~data["observed"].values).tolist() == [8, 9]
    (record,) = caplog.records
    assert (
        f"in steps of '{freq}', 2 of 41 time stamps are missing, the first at {stamps[8]}" in record.message
    )
    assert f"pass freq='{freq}'" in record.message


def test_a_gap_of_all_series_in_a_table_of_local_days_is_filled() -> None:
    days = pd.date_range("2024-03-01", periods=60, freq="D", tz="Europe/Zurich")
    kept = days.delete([30, 31])
    frame = pd.DataFrame({"ds": kept.tolist() * 2, "id": ["a"] * 58 + ["b"] * 58, "y": 1.0})

    data = from_pandas(frame)

    assert data["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    np.testing.assert_array_equal(data["time"], days.tz_convert("UTC").tz_localize(None))
    assert not data["observed"][:, 30:32].any()
    assert int(data["observed"].sum()) == 2 * 58


@pytest.mark.parametrize("step", [1, 0.1])
def test_gaps_of_numbers_are_filled_too(step: float, caplog: pytest.LogCaptureFixture) -> None:
    numbers = np.arange(40) * step

    with caplog.at_level(logging.WARNING, logger="seqdyn"):
        data = from_numpy(np.ones(38), time=np.delete(numbers, [4, 5]))

    np.testing.assert_allclose(data["time"], numbers)
    assert np.flatnonzero(~data["observed"].values).tolist() == [4, 5]
    assert f"in steps of {step}, 2 of 40 time stamps are missing, the first at {4 * step}" in caplog.text


def test_nothing_is_said_where_nothing_is_missing_or_the_step_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="seqdyn"):
        from_numpy(np.ones(200), time=HOURS)
        from_numpy(np.ones(199), time=HOURS.delete(3), freq="h")

    assert caplog.text == ""


BARS = pd.date_range("2024-01-01", periods=10 * 288, freq="5min")
JITTER = pd.to_timedelta(np.random.default_rng(0).integers(-60, 60, 200), unit="s")


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (HOURS[:11].delete(6), r"in steps of 'h' there are 1 of 11 stamps missing.*pass freq='h'"),
        (BARS[BARS.hour < 7], r"in steps of '5min'.*pass freq='5min' if these are gaps"),
        (HOURS[:100].append(HOURS[100:].shift(30, "min")), r"are mostly 01:00:00 apart"),
        (HOURS + JITTER, r"are about 01:00:01 apart.*frame\.resample\('h', on=time\)"),
        (HOURS[:1].append(HOURS[100:140]), r"pass freq='h' if these are gaps"),
        (
            pd.date_range("2024-03-30", "2024-04-02", freq="h", tz="Europe/Zurich").tz_localize(None),
            r"local time in the night when clocks change: pass timezone=",
        ),
    ],
)
def test_a_step_that_is_open_to_doubt_is_asked_for(stamps: pd.DatetimeIndex, message: str) -> None:
    with pytest.raises(ValueError, match=f"time stamps are irregular: .*{message}"):
        from_numpy(np.ones(len(stamps)), time=stamps)


def test_numbers_with_many_gaps_need_their_step() -> None:
    with pytest.raises(ValueError, match="mostly 1 apart, but 2 is followed by 100; pass freq=1"):
        from_numpy(np.ones(30), time=np.r_[0:3, 100:127])
