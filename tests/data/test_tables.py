"""Tables to sequences: long and wide, any order of rows, gaps, zones, and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import fingerprint, from_pandas, to_pandas


def long_frame(num_series: int = 3, num_steps: int = 20, freq: str = "h") -> pd.DataFrame:
    rng = np.random.default_rng(1)
    stamps = pd.date_range("2024-01-01", periods=num_steps, freq=freq)
    parts = [
        pd.DataFrame({"id": f"s{m}", "ds": stamps, "y": rng.normal(size=num_steps)})
        for m in range(num_series)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_long_frame_is_pivoted_by_label_and_stamp() -> None:
    frame = long_frame()

    data = from_pandas(frame, time="ds", series="id", value="y", units="MW")

    assert data["target"].dims == ("series", "time", "feature")
    assert data["series"].values.tolist() == ["s0", "s1", "s2"]
    assert data["feature"].values.tolist() == ["y"]
    assert data["target"].attrs == {"units": "MW"}
    assert data["time"].attrs == {"freq": "h"}
    for label, rows in frame.groupby("id"):
        np.testing.assert_array_equal(data["target"].sel(series=label, feature="y"), rows["y"])


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_and_columns_does_not_matter(seed: int) -> None:
    frame = long_frame().drop(index=[3, 27]).assign(temp=1.0, y2=2.0)
    wanted = from_pandas(frame, time="ds", series="id", value=["y", "y2"])
    rng = np.random.default_rng(seed)

    shuffled = frame.iloc[rng.permutation(len(frame))][rng.permutation(frame.columns)]

    xr.testing.assert_identical(from_pandas(shuffled, time="ds", series="id", value=["y", "y2"]), wanted)


def test_moving_all_stamps_moves_only_the_time_axis() -> None:
    frame = long_frame()
    moved = from_pandas(frame.assign(ds=frame["ds"] + pd.Timedelta("5h")))
    data = from_pandas(frame)

    np.testing.assert_array_equal(moved["time"], data["time"] + np.timedelta64(5, "h"))
    np.testing.assert_array_equal(moved["target"], data["target"])


def test_names_are_inferred_as_they_would_be_given() -> None:
    frame = long_frame()

    xr.testing.assert_identical(from_pandas(frame), from_pandas(frame, time="ds", series="id", value="y"))


def test_wide_and_long_hold_the_same_values() -> None:
    frame = long_frame()
    wide = frame.pivot(index="ds", columns="id", values="y")

    data = from_pandas(wide)

    np.testing.assert_array_equal(data["target"][:, :, 0], from_pandas(frame)["target"][:, :, 0])
    assert data["series"].values.tolist() == ["s0", "s1", "s2"]
    columns = from_pandas(wide, value=["s0", "s2"])
    np.testing.assert_array_equal(columns["target"][0], wide[["s0", "s2"]])


def test_a_frame_survives_the_way_there_and_back() -> None:
    frame = long_frame().drop(index=[0, 1, 19, 25]).rename(columns={"id": "series", "ds": "time"})

    back = to_pandas(from_pandas(frame))

    # A step missing inside a series comes back as an empty row, those before and after it do not.
    expected = pd.concat([frame, frame[25 - 4 : 25 - 3].assign(y=np.nan)])
    assert len(back) == len(frame) + 1
    pd.testing.assert_frame_equal(
        back.dropna().reset_index(drop=True), frame.reset_index(drop=True), check_dtype=False
    )
    assert expected["y"].isna().sum() == back["y"].isna().sum() == 1


@pytest.mark.parametrize("timezone", [None, "Europe/Zurich", "UTC"])
def test_a_dataset_survives_the_way_there_and_back(timezone: str | None) -> None:
    frame = long_frame(freq="D").drop(index=[0, 25]).assign(z=3.0)
    data = from_pandas(frame, value=["y", "z"], timezone=timezone)

    back = from_pandas(to_pandas(data), value=["y", "z"])

    xr.testing.assert_identical(back, data)


def test_unequal_lengths_are_padded_and_masked() -> None:
    frame = pd.DataFrame(
        {
            "id": list("aaabb"),
            "ds": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03", "2024-01-04"]),
        }
    ).assign(y=[1.0, 2.0, 3.0, 4.0, 5.0])

    data = from_pandas(frame)

    nan = np.nan
    np.testing.assert_array_equal(data["target"][:, :, 0], [[1, 2, 3, nan], [nan, nan, 4, 5]])
    np.testing.assert_array_equal(data["observed"], data["target"].notnull())


def test_gaps_are_filled_by_missing_steps_once_the_frequency_is_given() -> None:
    frame = long_frame(1, 10).drop(index=[4, 5])

    data = from_pandas(frame, freq="1H")

    assert data.sizes["time"] == 10
    assert np.flatnonzero(~data["observed"][0, :, 0]).tolist() == [4, 5]


def test_calendar_gaps_are_missing_business_days() -> None:
    stamps = pd.date_range("2024-01-01", periods=15, freq="B").delete([3, 7])

    data = from_pandas(pd.DataFrame({"y": 1.0}, index=stamps), freq="B")

    assert data.sizes["time"] == 15
    assert np.flatnonzero(~data["observed"][0, :, 0]).tolist() == [3, 7]


@pytest.mark.parametrize(("how", "value"), [("mean", 3.0), ("sum", 9.0), ("first", 2.0), ("last", 4.0)])
def test_duplicates_are_merged_only_as_asked(how: str, value: float) -> None:
    stamps = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02", "2024-01-02"])
    frame = pd.DataFrame({"ds": stamps, "y": [1.0, 2.0, 3.0, 4.0]})

    data = from_pandas(frame, duplicates=how)

    assert data["target"][0, :, 0].values.tolist() == [1.0, value]


def test_local_stamps_become_utc_and_keep_their_zone() -> None:
    utc = pd.date_range("2024-10-26 22:00", periods=30, freq="h")
    local = utc.tz_localize("UTC").tz_convert("Europe/Zurich")
    naive = pd.DataFrame({"ds": local.tz_localize(None), "y": np.arange(30.0)})
    frame = pd.concat([naive.assign(id="a"), naive.assign(id="b")])

    data = from_pandas(frame, timezone="Europe/Zurich")

    np.testing.assert_array_equal(data["time"], utc)
    assert data["time"].attrs == {"freq": "h", "timezone": "Europe/Zurich"}
    np.testing.assert_array_equal(data["target"][1, :, 0], np.arange(30.0))
    # Backwards in time the second of two equal stamps is the earlier one.
    xr.testing.assert_identical(from_pandas(frame[::-1], timezone="Europe/Zurich"), data)
    aware = frame.assign(ds=frame["ds"].values)
    aware["ds"] = list(local) * 2
    xr.testing.assert_identical(from_pandas(aware), data)


def test_text_with_offsets_is_one_axis_across_a_change_of_clocks() -> None:
    local = pd.date_range("2024-10-27", periods=6, freq="h", tz="Europe/Zurich")
    frame = pd.DataFrame({"ds": [stamp.isoformat() for stamp in local], "y": 1.0})

    data = from_pandas(frame, timezone="Europe/Zurich")

    np.testing.assert_array_equal(data["time"], local.tz_convert("UTC").tz_localize(None))


def test_local_days_are_daily_although_two_of_them_are_not_24_hours_long() -> None:
    local = pd.date_range("2024-03-01", "2024-11-30", freq="D", tz="Europe/Zurich")

    data = from_pandas(pd.DataFrame({"y": 1.0}, index=local))

    assert data["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    assert bool(data["observed"].all())


def test_covariates_are_kept_where_the_target_is_missing() -> None:
    frame = long_frame(2, 6).assign(temp=np.arange(12.0))
    frame.loc[[4, 5, 11], "y"] = np.nan

    data = from_pandas(frame, value="y", covariates=["temp"])

    np.testing.assert_array_equal(data["covariates"][:, :, 0], np.arange(12.0).reshape(2, 6))
    assert data["covariate"].values.tolist() == ["temp"]
    assert int((~data["observed"]).sum()) == 3
    xr.testing.assert_identical(from_pandas(to_pandas(data), value="y", covariates="temp"), data)


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-01-31", "2024-02-01"],
        ["31.01.2024", "01.02.2024"],
        ["01/31/2024", "02/01/2024"],
        ["31-Jan-2024", "01-Feb-2024"],
        ["2024-01-31 0:00", "2024-02-01 00:00:00"],
        ["January 31, 2024", "February 01, 2024"],
        [20240131, 20240201],
        [pd.Timestamp("2024-01-31").date(), pd.Timestamp("2024-02-01").date()],
    ],
)
def test_dates_are_read_however_they_are_written(stamps: list[object]) -> None:
    data = from_pandas(pd.DataFrame({"date": stamps, "y": [1.0, 2.0]}))

    np.testing.assert_array_equal(
        data["time"], np.array(["2024-01-31", "2024-02-01"], dtype="datetime64[ns]")
    )


def test_dates_that_are_regular_in_one_way_only_are_not_ambiguous() -> None:
    months = [f"{month}/1/{year}" for year in (2020, 2021) for month in range(1, 13)]

    data = from_pandas(pd.DataFrame({"date": months, "y": 1.0}))

    assert data["time"].attrs["freq"] == "MS"


def test_unix_time_and_a_given_format_are_dates_on_request() -> None:
    unix = from_pandas(pd.DataFrame({"t": [1704067200, 1704070800], "y": 1.0}), date_format="s")
    given = from_pandas(pd.DataFrame({"t": ["01|01|2024 00h", "01|01|2024 01h"], "y": 1.0}), time="t",
                        date_format="%d|%m|%Y %Hh")  # fmt: skip

    xr.testing.assert_identical(unix, given)


def test_quarters_weeks_and_periods_are_stamped_at_their_first_day() -> None:
    quarters = from_pandas(pd.DataFrame({"quarter": ["2024Q1", "2024Q2", "2024Q3"], "y": 1.0}))
    weeks = from_pandas(pd.DataFrame({"week": ["2024-W01", "2024-W02"], "y": 1.0}))
    periods = from_pandas(pd.DataFrame({"y": 1.0}, index=pd.period_range("2024-01", periods=3, freq="M")))

    assert quarters["time"].attrs["freq"] == "QS-JAN"
    assert weeks["time"].values[0] == np.datetime64("2024-01-01")
    assert periods["time"].attrs["freq"] == "MS"


@pytest.mark.parametrize("labels", [[7, 7, 9, 9], [7.0, 7.0, 9.0, 9.0]])
def test_whole_numbers_stay_integer_labels(labels: list[float]) -> None:
    stamps = pd.to_datetime(["2024-01-01", "2024-01-02"] * 2)

    data = from_pandas(pd.DataFrame({"shop": labels, "ds": stamps, "y": 1.0}), series="shop")

    assert data["series"].dtype == np.int64
    assert data["series"].values.tolist() == [7, 9]


def test_several_columns_can_name_a_series() -> None:
    frame = long_frame(2, 4).assign(kind=["x", "x", "x", "x", "z", "z", "z", "z"])

    data = from_pandas(frame, series=["id", "kind"], value="y")

    assert data["series"].values.tolist() == ["s0/x", "s1/z"]


def test_nullable_categorical_and_arrow_columns_read_like_plain_ones() -> None:
    frame = long_frame().assign(y=np.arange(60) % 7)
    wanted = from_pandas(frame)
    nullable = frame.assign(id=frame["id"].astype("category"), y=frame["y"].astype("Int64"))

    assert fingerprint(from_pandas(nullable)) == fingerprint(wanted)
    pytest.importorskip("pyarrow")
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    assert fingerprint(from_pandas(arrow)) == fingerprint(wanted)
    missing = nullable.assign(y=nullable["y"].where(nullable["y"] != 3))
    assert int((~from_pandas(missing)["observed"]).sum()) == int((frame["y"] == 3).sum())


def test_a_second_column_of_series_is_asked_for_and_not_averaged_away() -> None:
    frame = long_frame(2, 6).assign(kind=["x", "y"] * 6)
    frame = pd.concat([frame, frame.assign(kind=frame["kind"].map({"x": "y", "y": "x"}))])

    with pytest.raises(ValueError, match=r"column 'kind' tells them apart: pass series=\['id', 'kind'\]"):
        from_pandas(frame, series="id", value="y")

    assert from_pandas(frame, series=["id", "kind"], value="y").sizes["series"] == 4


def test_text_beside_unique_stamps_makes_no_series() -> None:
    stamps = pd.date_range("2024-01-01", periods=14, freq="D")
    frame = pd.DataFrame({"date": stamps, "weekday": stamps.day_name(), "y": 1.0})

    with pytest.raises(ValueError, match=r"column 'weekday' is not numeric.*leave that column out"):
        from_pandas(frame)

    assert from_pandas(frame, value="y").sizes == {"series": 1, "time": 14, "feature": 1}


def test_a_column_that_numbers_the_rows_is_no_series() -> None:
    frame = pd.DataFrame({"id": range(5, 11), "date": pd.date_range("2024-01-01", periods=6), "y": 1.0})

    assert from_pandas(frame)["series"].values.tolist() == ["y"]


def test_local_days_without_a_midnight_are_read() -> None:
    # In Beirut clocks go forward at midnight: 31 March 2024 has no 00:00.
    days = [f"2024-03-{day}" for day in range(29, 32)] + ["2024-04-01"]

    data = from_pandas(pd.DataFrame({"date": days, "y": 1.0}), timezone="Asia/Beirut")

    assert data["time"].attrs == {"freq": "D", "timezone": "Asia/Beirut"}
    assert data.sizes["time"] == 4
