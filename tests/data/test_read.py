"""Every format of sequences, read into one and the same dataset."""

from __future__ import annotations

import gzip
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import from_numpy, read_sequences, to_netcdf

STAMPS = pd.date_range("2024-01-01", periods=6, freq="h")
VALUES = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [np.nan, 8.0, np.nan, 10.0, 11.0, np.nan]])


def wanted() -> xr.Dataset:
    return from_numpy(VALUES, time=STAMPS, series=["a", "b"], features=["y"], units="kW")


def long_frame() -> pd.DataFrame:
    return pd.DataFrame({"id": np.repeat(["a", "b"], 6), "ds": np.tile(STAMPS, 2), "y": VALUES.ravel()})


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.txt", "a.csv.bz2", "a.csv.xz"])
def test_text_tables_read_alike_in_every_wrapping(name: str, tmp_path: Path) -> None:
    separator = {"a.tsv": "\t", "a.txt": ";"}.get(name, ",")
    long_frame().to_csv(tmp_path / name, index=False, sep=separator)

    data = read_sequences(tmp_path / name, time="ds", series="id", value="y", units="kW")

    xr.testing.assert_identical(data, wanted())


def test_a_nameless_index_column_and_spaces_in_the_header_do_not_matter(tmp_path: Path) -> None:
    long_frame().rename(columns={"y": " y"}).to_csv(tmp_path / "a.csv")

    xr.testing.assert_identical(read_sequences(tmp_path / "a.csv", units="kW"), wanted())


def test_options_reach_the_csv_reader(tmp_path: Path) -> None:
    text = "Zeit;Wert\n01.01.2024 00:00;1,5\n01.01.2024 01:00;k.A.\n"
    (tmp_path / "a.csv").write_text(text, encoding="latin-1")

    data = read_sequences(tmp_path / "a.csv", decimal=",", na_values=["k.A."], encoding="latin-1")

    np.testing.assert_array_equal(data["target"][0, :, 0], [1.5, np.nan])


def test_parquet_and_polars_read_like_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    long_frame().to_parquet(tmp_path / "a.parquet")
    xr.testing.assert_identical(read_sequences(tmp_path / "a.parquet", units="kW"), wanted())

    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(long_frame())
    xr.testing.assert_identical(read_sequences(frame, units="kW"), wanted())
    xr.testing.assert_identical(read_sequences(frame.lazy(), units="kW"), wanted())


def test_netcdf_and_zarr_of_the_schema_read_as_they_are(tmp_path: Path) -> None:
    to_netcdf(wanted(), tmp_path / "a.nc")
    xr.testing.assert_identical(read_sequences(tmp_path / "a.nc"), wanted())

    pytest.importorskip("zarr")
    simple = wanted().assign_coords(series=[0, 1])
    simple.assign_coords(feature=[0]).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    data = read_sequences(tmp_path / "a.zarr")
    np.testing.assert_array_equal(data["target"], wanted()["target"])
    np.testing.assert_array_equal(data["observed"], wanted()["observed"])
    assert data["target"].attrs["units"] == "kW"


def test_netcdf_of_version_three_is_read_too(tmp_path: Path) -> None:
    array = xr.Dataset({"y": ("time", np.arange(4.0))}, {"time": STAMPS[:4]})
    array.to_netcdf(tmp_path / "a.nc", engine="scipy")

    data = read_sequences(tmp_path / "a.nc")

    np.testing.assert_array_equal(data["target"][0, :, 0], np.arange(4.0))
    assert data["series"].values.tolist() == ["y"]


def test_labelled_arrays_of_other_names_and_orders_are_brought_into_shape() -> None:
    array = xr.DataArray(
        VALUES.T, {"hour": STAMPS, "station": ["a", "b"]}, ("hour", "station"), "y", {"units": "kW"}
    )

    data = read_sequences(array.to_dataset(), time="hour", series="station")

    xr.testing.assert_identical(data, wanted())
    xr.testing.assert_identical(read_sequences(array), wanted())
    backwards = array.isel(hour=slice(None, None, -1))
    xr.testing.assert_identical(read_sequences(backwards, time="hour"), wanted())


def test_several_variables_are_features_and_covariates() -> None:
    steps = ("time", np.arange(6.0))
    source = wanted().rename(target="u").drop_vars("observed").squeeze("feature", drop=True)
    source = source.assign(v=source["u"] * 2, week=steps)

    data = read_sequences(source, value=["u", "v"], covariates="week")

    assert data["feature"].values.tolist() == ["u", "v"]
    np.testing.assert_array_equal(data["target"][:, :, 1], VALUES * 2)
    np.testing.assert_array_equal(data["covariates"][:, :, 0], np.tile(np.arange(6.0), (2, 1)))


def test_labelled_stamps_may_have_gaps_and_a_zone() -> None:
    local = pd.date_range("2024-03-30", periods=4, freq="D").delete(2)
    array = xr.DataArray(np.arange(3.0), {"time": local}, "time", "y")

    data = read_sequences(array, freq="D", timezone="Europe/Zurich")

    np.testing.assert_array_equal(data["target"][0, :, 0], [0, 1, np.nan, 2])
    assert data["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    assert data["time"].values[3] == np.datetime64("2024-04-01T22:00")


def test_numpy_files_and_arrays_read_like_frames(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", target=VALUES, time=STAMPS.values, series=["a", "b"], feature=["y"])
    np.save(tmp_path / "a.npy", VALUES)

    xr.testing.assert_identical(read_sequences(tmp_path / "a.npz", units="kW"), wanted())
    data = read_sequences(tmp_path / "a.npy", start="2024-01-01", freq="h")
    np.testing.assert_array_equal(data["target"], wanted()["target"])
    listed = read_sequences(VALUES, time=STAMPS, series=["a", "b"], value="y", units="kW")
    xr.testing.assert_identical(listed, wanted())


def test_a_saved_mask_hides_values(tmp_path: Path) -> None:
    seen = ~np.isnan(VALUES)
    np.savez(tmp_path / "a.npz", target=np.where(seen, VALUES, -1.0), observed=seen)

    data = read_sequences(tmp_path / "a.npz")

    np.testing.assert_array_equal(data["target"][:, :, 0], VALUES)


def gluonts_lines(**first: object) -> str:
    entries = [
        {"start": "2024-01-01 00:00:00", "target": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "item_id": "a", **first},
        {"start": "2024-01-01 01:00:00", "target": [8.0, None, 10.0, 11.0], "item_id": "b"},
    ]
    return "\n".join(json.dumps(entry) for entry in entries) + "\n"


@pytest.mark.parametrize("name", ["data.json", "data.jsonl", "data.json.gz"])
def test_gluonts_lines_are_aligned_by_their_start(name: str, tmp_path: Path) -> None:
    content = gluonts_lines().encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    data = read_sequences(tmp_path / name, freq="1H", value="y", units="kW")

    xr.testing.assert_identical(data, wanted())


@pytest.mark.parametrize("place", ["metadata.json", "../metadata.json", "../metadata/metadata.json"])
@pytest.mark.parametrize("key", ["freq", "time_granularity"])
def test_the_frequency_of_gluonts_lines_stands_in_their_metadata(
    place: str, key: str, tmp_path: Path
) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "data.json").write_text(gluonts_lines())
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(json.dumps({key: "H"}))

    assert read_sequences(folder / "data.json")["time"].attrs["freq"] == "h"


def test_rolling_test_lines_of_one_item_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(gluonts_lines(item_id="b"))

    assert read_sequences(tmp_path / "a.json", freq="h")["series"].values.tolist() == ["b#0", "b#1"]


def test_a_start_stands_for_its_period(tmp_path: Path) -> None:
    entries = [{"start": "2024-01-31", "target": [1, 2]}, {"start": "2024-02-15", "target": [3, 4]}]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, entries)))

    data = read_sequences(tmp_path / "a.json", freq="M")

    assert data["time"].attrs["freq"] == "MS"
    np.testing.assert_array_equal(data["target"][:, :, 0], [[1, 2, np.nan], [np.nan, 3, 4]])


def test_several_lists_a_line_are_features(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"start": "2024-01-01", "target": [[1, 2, 3], [4, 5, 6]]}')

    data = read_sequences(tmp_path / "a.json", freq="D", value=["u", "v"])

    np.testing.assert_array_equal(data["target"].sel(feature="v")[0], [4, 5, 6])


def test_a_monash_file_reads_like_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.tsf").write_text(
        "# about\n@relation x\n@attribute series_name string\n@attribute start_timestamp date\n"
        "@frequency hourly\n@horizon 2\n@missing true\n@equallength false\n@data\n"
        "a:2024-01-01 00-00-00:1,2,3,4,5,6\nb:2024-01-01 01-00-00:8.0,?,10,11\n",
        encoding="latin-1",
    )

    data = read_sequences(tmp_path / "a.tsf", value="y", units="kW")

    xr.testing.assert_identical(data, wanted())


@pytest.mark.parametrize(
    ("word", "alias", "second"),
    [
        ("yearly", "YS-JAN", "1991-01-01"),
        ("quarterly", "QS-JAN", "1990-04-01"),
        ("half_hourly", "30min", "1990-01-01T00:30"),
    ],
)
def test_monash_frequencies_are_understood(word: str, alias: str, second: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsf").write_text(
        f"@attribute start_timestamp date\n@frequency {word}\n@data\n1990-01-01 00-00-00:1,2,3\n"
    )

    data = read_sequences(tmp_path / "a.tsf")

    assert data["time"].attrs["freq"] == alias
    assert data["time"].values[1] == np.datetime64(second)


def test_a_monash_file_without_starts_counts_steps(tmp_path: Path) -> None:
    (tmp_path / "a.tsf").write_text(
        "@attribute series_name string\n@frequency yearly\n@data\nT1:1,2,3\nT2:4,5\n"
    )

    data = read_sequences(tmp_path / "a.tsf")

    assert data["time"].values.tolist() == [0, 1, 2]
    assert data["series"].values.tolist() == ["T1", "T2"]


def test_what_was_understood_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long_frame().to_csv(tmp_path / "sales.csv", index=False)

    with caplog.at_level(logging.INFO, logger="seqdyn"):
        read_sequences(tmp_path / "sales.csv")

    said = caplog.text
    for fact in (
        "read sales.csv; 12 rows",
        "time is column 'ds'",
        "series are told apart by column 'id'",
        "values are column 'y'",
        "no duplicate rows",
        "2 series of 4 to 6 steps, feature y",
        "in steps of 'h' from 2024-01-01 to 2024-01-01 05:00:00, 25 % of the grid missing",
    ):
        assert fact in said


def test_the_exchange_rates_of_gluonts_are_read_whole(data_dir: Path, tmp_path: Path) -> None:
    archive = data_dir / "exchange_rate_nips" / "exchange_rate_nips.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    with tarfile.open(archive) as packed:
        packed.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # from 3.11.4
    folder = tmp_path / "exchange_rate_nips"

    test = read_sequences(folder / "test" / "test.json")
    train = read_sequences(folder / "train" / "train.json")

    assert train["target"].shape == (8, 6071, 1)
    assert test["target"].shape == (40, 6221, 1)
    assert test["series"].values.tolist() == list(range(40))
    assert test["time"].attrs["freq"] == "B"
    lengths = test["observed"].sum(("time", "feature")).values
    assert lengths.tolist() == [6101 + 30 * (k // 8) for k in range(40)]
    assert bool((test["observed"] == (np.arange(6221)[:, None] < lengths[:, None, None])).all())
    first = json.loads((folder / "test" / "test.json").read_text().splitlines()[17])["target"]
    np.testing.assert_array_equal(test["target"][17, : len(first), 0], first)
    np.testing.assert_array_equal(train["target"][:, :, 0], test["target"][:8, :6071, 0])


def test_reading_changes_nothing_in_its_source() -> None:
    frame, frame_copy = long_frame(), long_frame()
    data = wanted().drop_vars("observed").fillna(0.0)
    del data["time"].attrs["freq"]
    copy = data.copy(deep=True)

    read_sequences(frame)
    read_sequences(data, units="MW")

    pd.testing.assert_frame_equal(frame, frame_copy)
    xr.testing.assert_identical(data, copy)


def test_unix_time_of_arrays_is_an_instant_and_shown_in_the_zone(tmp_path: Path) -> None:
    seconds = STAMPS.as_unit("s").asi8
    np.savez(tmp_path / "a.npz", target=VALUES, time=seconds)

    data = read_sequences(tmp_path / "a.npz", date_format="s", timezone="Europe/Paris")

    np.testing.assert_array_equal(data["time"], STAMPS)
    assert data["time"].attrs == {"freq": "h", "timezone": "Europe/Paris"}
    assert read_sequences(VALUES, time=seconds, date_format="s")["time"].attrs == {"freq": "h"}
    labelled = xr.DataArray(VALUES[0], {"time": seconds}, "time", "y")
    np.testing.assert_array_equal(read_sequences(labelled, date_format="s")["time"], STAMPS)


def test_arrays_of_local_stamps_become_utc() -> None:
    local = pd.date_range("2024-10-27", periods=6, freq="h", tz="Europe/Paris")

    data = read_sequences(VALUES, time=local.tz_localize(None), timezone="Europe/Paris")

    np.testing.assert_array_equal(data["time"], local.tz_convert("UTC").tz_localize(None))


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    ("time", "zone", "message"),
    [
        (np.arange(6), "Europe/Paris", r"holds numbers; leave timezone= out, or pass date_format='s'"),
        (STAMPS, "Mars/Olympus", r"timezone='Mars/Olympus' is unknown; use a name such as"),
        (pd.date_range("2024-03-31", periods=6, freq="h"), "Europe/Paris", r"does not exist in Europe/Paris"),
    ],
)
def test_stamps_that_cannot_lie_in_a_zone_are_refused(
    time: Any, zone: str, message: str, labelled: bool
) -> None:
    source = xr.DataArray(VALUES[0], {"time": time}, "time", "y") if labelled else VALUES
    arguments = {} if labelled else {"time": time}

    with pytest.raises(ValueError, match=message):
        read_sequences(source, timezone=zone, **arguments)
