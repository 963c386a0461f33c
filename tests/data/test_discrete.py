"""Discrete sequences of every origin, read into one and the same dataset, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import read_symbols, to_netcdf, to_pandas

CODES = np.array([[0, 2, -1, 2, 1], [1, 1, 0, -1, -1]])
LABELS = np.array(["A", "C", "G"], dtype=object)


def wanted() -> xr.Dataset:
    return xr.Dataset(
        {"symbol": (("series", "time"), CODES), "observed": (("series", "time"), CODES >= 0)},
        {"series": np.array(["a", "b"], dtype=object), "time": np.arange(5), "outcome": LABELS},
    )


def long_frame() -> pd.DataFrame:
    frame = pd.DataFrame({"id": np.repeat(["a", "b"], 5), "t": np.tile(np.arange(5), 2)})
    frame["state"] = [None if code < 0 else LABELS[code] for code in CODES.ravel()]
    return frame[:8]  # the second series is shorter


def test_a_table_becomes_codes_in_the_order_of_the_labels() -> None:
    data = read_symbols(long_frame(), time="t", series="id", value="state")

    xr.testing.assert_identical(data, wanted())
    assert data["symbol"].dtype == np.int64
    labels = data["outcome"].values[data["symbol"].values[data["observed"].values]]
    assert labels.tolist() == long_frame()["state"].dropna().tolist()


def test_columns_with_usual_names_need_not_be_named() -> None:
    xr.testing.assert_identical(read_symbols(long_frame()), wanted())


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_text_files_read_like_frames(name: str, tmp_path: Path) -> None:
    long_frame().to_csv(tmp_path / name, index=False, sep="\t" if name == "a.tsv" else ",")

    xr.testing.assert_identical(read_symbols(tmp_path / name), wanted())


def test_parquet_and_polars_read_like_frames(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    long_frame().to_parquet(tmp_path / "a.parquet")
    xr.testing.assert_identical(read_symbols(tmp_path / "a.parquet"), wanted())

    polars = pytest.importorskip("polars")
    xr.testing.assert_identical(read_symbols(polars.from_pandas(long_frame())), wanted())


def test_a_category_and_the_order_of_rows_do_not_matter() -> None:
    frame = long_frame().sample(frac=1, random_state=0).astype({"state": "category"})

    xr.testing.assert_identical(read_symbols(frame), wanted())


def test_netcdf_keeps_codes_and_labels(tmp_path: Path) -> None:
    to_netcdf(wanted(), tmp_path / "a.nc")

    xr.testing.assert_identical(read_symbols(tmp_path / "a.nc"), wanted())


def test_a_dataset_without_labels_keeps_its_codes() -> None:
    data = read_symbols(xr.Dataset({"symbol": (("series", "time"), [[0, 3, -1]])}, {"time": range(3)}))

    assert data["symbol"].values.tolist() == [[0, 3, -1]]
    assert data["outcome"].values.tolist() == [0, 1, 2, 3]
    assert data["observed"].values.tolist() == [[True, True, False]]


def test_labels_of_a_dataset_can_be_put_in_another_order() -> None:
    data = read_symbols(wanted(), symbols=["G", "C", "A", "T"])

    assert data["symbol"].values[0].tolist() == [2, 0, -1, 0, 1]
    assert data["outcome"].values.tolist() == ["G", "C", "A", "T"]


def test_labelled_arrays_of_text_are_brought_into_shape() -> None:
    array = xr.DataArray(np.array([["on", "off"], ["off", ""]]), dims=("hour", "animal"))

    data = read_symbols(array, time="hour", series="animal")

    assert data["symbol"].values.tolist() == [[1, 0], [0, -1]]


def test_lists_of_unequal_lengths_begin_together() -> None:
    data = read_symbols([list("ACGA"), list("CC")], series=["x", "y"])

    assert data["symbol"].values.tolist() == [[0, 1, 2, 0], [1, 1, -1, -1]]
    assert data["series"].values.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    "source",
    [
        np.array([[5, 9, -1], [9, 9, 5]]),
        np.array([[5, 9, np.nan], [9, 9, 5]]),
        np.ma.masked_equal([[5, 9, 0], [9, 9, 5]], 0),
        [[5, 9, None], [9, 9, 5]],
    ],
)
def test_numbers_become_codes_from_0_and_keep_their_labels(source: Any) -> None:
    data = read_symbols(source)

    assert data["symbol"].values.tolist() == [[0, 1, -1], [1, 1, 0]]
    assert data["outcome"].values.tolist() == [5, 9]
    assert data["outcome"].dtype == np.int64


def test_one_sequence_and_its_stamps() -> None:
    stamps = pd.date_range("2024-01-01", periods=3, freq="D").delete(1)

    data = read_symbols(["rest", "run"], time=stamps, freq="D", timezone="Europe/Zurich")

    assert data["symbol"].values.tolist() == [[0, -1, 1]]
    assert data["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}


def test_numpy_files_hold_codes_under_the_names_of_the_schema(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", symbol=[[0, 1], [1, 1]], series=["u", "v"], other=np.zeros((2, 2)))

    data = read_symbols(tmp_path / "a.npz")

    assert data["symbol"].values.tolist() == [[0, 1], [1, 1]]
    assert data["series"].values.tolist() == ["u", "v"]


def test_rows_without_a_time_are_numbered_within_their_series() -> None:
    frame = pd.DataFrame({"id": list("abab"), "symbol": list("xyyx")})

    assert read_symbols(frame)["symbol"].values.tolist() == [[0, 1], [1, 0]]
    assert read_symbols(frame[["symbol"]])["symbol"].values.tolist() == [[0, 1, 1, 0]]


def test_several_columns_are_a_series_each() -> None:
    wide = long_frame().pivot(index="t", columns="id", values="state").reset_index()

    xr.testing.assert_identical(read_symbols(wide, value=["a", "b"]), wanted())


def test_a_gap_in_time_is_missing() -> None:
    frame = pd.DataFrame({"t": [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "state": list("ABABABABABAB")})

    data = read_symbols(frame)

    assert data["symbol"].values[0, :4].tolist() == [0, 1, -1, 0]


def test_one_of_several_rows_for_a_step_can_be_taken() -> None:
    frame = pd.DataFrame({"t": [0, 0, 1], "state": list("ABB")})

    first, last = (read_symbols(frame, duplicates=how)["symbol"].values.tolist() for how in ("first", "last"))

    assert first == [[0, 1]]
    assert last == [[1, 1]]


def test_what_was_understood_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="seqdyn"):
        read_symbols(long_frame())

    assert "symbols are column 'state'" in caplog.text
    assert "2 series of 3 to 5 steps, 3 symbols: A (28.6 %), C (42.9 %), G (28.6 %)" in caplog.text
    assert "30 % of the grid missing" in caplog.text


def test_a_table_of_labels_comes_back() -> None:
    frame = to_pandas(wanted())

    expected = long_frame().dropna().rename(columns={"id": "series", "t": "time", "state": "symbol"})
    pd.testing.assert_frame_equal(frame, expected.reset_index(drop=True), check_dtype=False)


FRAME = pd.DataFrame({"t": [0, 1, 1], "state": ["A", "B", "A"], "other": [0, 0, 1]})


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ([0.5, 1.0], {}, "series 0 holds 0.5 in row 0 .* neither text nor a whole number"),
        ([0, np.inf], {}, "series 0 holds inf in row 1"),
        (np.arange(1001), {}, "1,001 different values, such as .0, 1, 2., more than 1,000: probably"),
        ([0, -2], {}, "series 0 holds -2 in row 1; numbered symbols begin at 0, and -1 means missing"),
        ([None, None], {}, "holds no symbol at all"),
        (np.zeros((2, 2, 2), dtype=int), {}, r"\(time,\) or \(series, time\), .* got \(2, 2, 2\)"),
        ([], {}, "symbols must have shape"),
        (pd.Series(pd.date_range("2024", periods=3)), {"value": "value"}, "holds datetime64.*, no symbols"),
        (["A", "B"], {"symbols": ["A", "C"]}, "holds 'B' in row 1 .* not among symbols=.'A', 'C'."),
        (["A", "B"], {"symbols": ["A", "B", "A"]}, "symbols= lists 'A' twice"),
        (FRAME, {"value": "state"}, "the table has several rows for time 1 .* the column that tells"),
        (FRAME.assign(id="m"), {"value": "state"}, "series 'm' has several rows for time 1"),
        (FRAME, {"value": "stat"}, "there is no column 'stat' .* did you mean value='state'"),
        (
            FRAME.rename(columns={"state": "a"}),
            {},
            "may be any of the columns .'a', 'other'.; pass value='a'",
        ),
        (FRAME, {"series": "other", "value": ["state", "t"]}, "series= does not go with several columns"),
        (["A"], {"duplicates": "mean"}, "duplicates='mean' must be 'first' or 'last'"),
        (xr.Dataset({"u": ("time", [0]), "v": ("time", [1])}), {}, "any of the variables .'u', 'v'."),
    ],
)
def test_what_is_no_sequence_of_symbols_is_refused(
    source: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_symbols(source, **arguments)


def test_errors_name_the_file_and_objects_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,state\n0,0.5\n")
    with pytest.raises(ValueError, match="a.csv: column 'state' holds 0.5 in row 0"):
        read_symbols(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="did you mean"):
        read_symbols(tmp_path / "b.csv")
    with pytest.raises(TypeError, match="cannot read a dict"):
        read_symbols({})
    with pytest.raises(TypeError, match="'sep' is no argument for reading a DataFrame"):
        read_symbols(FRAME, sep=";")


def test_none_and_na_are_labels_and_only_empty_cells_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "states.csv"
    path.write_text("t,state\n0,NA\n1,None\n2,\n3,None\n")

    data = read_symbols(path, time="t", value="state")

    assert data["outcome"].values.tolist() == ["NA", "None"]
    assert data["symbol"].values.tolist() == [[0, 1, -1, 1]]


@pytest.mark.parametrize("code", [3, -2])
def test_a_code_without_a_label_is_refused_however_it_is_read(code: int) -> None:
    data = wanted().assign(symbol=(("series", "time"), np.where(CODES == 0, code, CODES)))

    with pytest.raises(ValueError, match="between 0 and 2"):
        read_symbols(data, symbols=LABELS.tolist())
