"""The scripts that make prepared files, on tables small enough to count by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn import datasets

CARDS = Path(__file__).parents[2] / "datasets"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", CARDS / name / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nyc_flights, hesc = _script("nyc_flights"), _script("hesc")


def _flights(*rows: tuple[int, int, int, float, float]) -> pd.DataFrame:
    """Rows of month, day, scheduled clock time, actual clock time, delay in minutes."""
    frame = pd.DataFrame(rows, columns=["month", "day", "sched_dep_time", "dep_time", "dep_delay"])
    return frame.assign(year=2013, origin="JFK", carrier="DL")


@pytest.mark.parametrize(
    ("row", "utc"),
    [
        ((1, 5, 1200, 1215.0, 15.0), "2013-01-05 17:15"),
        ((7, 5, 1200, 1155.0, -5.0), "2013-07-05 15:55"),  # daylight saving time, early
        ((1, 5, 2355, 10.0, 15.0), "2013-01-06 05:10"),  # after midnight
        ((1, 5, 2350, 2400.0, 10.0), "2013-01-06 05:00"),  # midnight is written 2400
        ((1, 31, 900, 905.0, 24 * 60 + 5.0), "2013-02-01 14:05"),  # a day late, into the next month
        ((3, 1, 5, 2355.0, -10.0), "2013-03-01 04:55"),  # early, on the day before
    ],
)
def test_a_departure_lands_on_the_right_day_in_utc(row: tuple[int, int, int, float, float], utc: str) -> None:
    assert nyc_flights.departure_times(_flights(row)).tolist() == [pd.Timestamp(utc)]


def test_a_clock_time_that_contradicts_the_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="1 flights left at another time"):
        nyc_flights.departure_times(_flights((1, 5, 1200, 1220.0, 15.0)))


def test_cancelled_flights_and_rare_carriers_are_not_counted() -> None:
    flown = [(1, 1 + i // 24, i % 24 * 100, float(i % 24 * 100 or 2400), 0.0) for i in range(24 * 31)]
    flown = [row if row[2] else (*row[:3], 0.0, 0.0) for row in flown]
    often = pd.concat([_flights(*flown)] * 6)  # 4464 departures in 8760 hours: more than 0.5 per hour
    rare = _flights(*flown).assign(carrier="ZZ")
    cancelled = _flights((1, 1, 1200, np.nan, np.nan))

    data = nyc_flights.count_departures(pd.concat([often, rare, cancelled], ignore_index=True))

    assert data["series"].values.tolist() == ["JFK-DL"]
    assert int(data["target"].sum()) == 6 * 24 * 31
    assert data["target"].values[0, : 24 * 31, 0].tolist() == [6] * 24 * 31


def test_a_table_with_another_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv.zip"
    path.write_bytes(b"other")

    with pytest.raises(ValueError, match=f"expected {nyc_flights.FLIGHTS_SHA256}"):
        nyc_flights.read_flights(path)


def test_the_recorded_checksum_of_the_table_is_the_one_that_is_checked() -> None:
    assert (
        f"{nyc_flights.FLIGHTS_SHA256}  flights.csv.zip" in (CARDS / "nyc_flights/checksums.txt").read_text()
    )


def test_the_panel_written_again_has_the_same_values(tmp_path: Path) -> None:
    panel = datasets.load("nyc_flights")
    path = tmp_path / "again.nc"

    nyc_flights.write_panel(panel.astype("uint8").drop_encoding(), path)

    xr.testing.assert_equal(xr.load_dataset(path, engine="h5netcdf").astype(float), panel)


def test_arrays_of_unequal_length_become_one_plain_array(tmp_path: Path) -> None:
    clouds = np.empty(2, dtype=object)
    clouds[:] = [np.arange(6.0).reshape(3, 2), np.ones((1, 2))]
    np.save(tmp_path / "source.npy", clouds, allow_pickle=True)

    hesc.main([str(tmp_path / "source.npy"), "--output", str(tmp_path / "out.npz")])

    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["x"], np.concatenate(list(clouds)))
        assert arrays["snapshot"].tolist() == [0, 0, 0, 1]


def test_a_pickle_that_wants_more_than_arrays_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    objects = np.empty(1, dtype=object)
    objects[0] = _Touch(trace)
    path = tmp_path / "source.npy"
    np.save(path, objects, allow_pickle=True)

    with pytest.raises(ValueError, match="which no array needs"):
        hesc.read_object_array(path)

    assert not trace.exists()
    np.load(path, allow_pickle=True)  # an unguarded reader would have run it
    assert trace.exists()


def test_a_plain_array_is_no_list_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.ones(3))

    with pytest.raises(ValueError, match="expected a list of arrays"):
        hesc.read_object_array(tmp_path / "plain.npy")


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)
