"""Reading the archives of the forecasting sets, on small archives of the same layout."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seqdyn.data import check_sequences, observed_mask
from seqdyn.datasets.forecasting import read_gluonts_archive, read_monash_zip, read_uber_trips


def _archive(folder: Path, train: list[dict], test: list[dict], prefix: str = "tiny/") -> Path:
    path = folder / "tiny.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for part, items in (("train", train), ("test", test)):
            content = "".join(json.dumps(item) + "\n" for item in items).encode()
            member = tarfile.TarInfo(f"{prefix}{part}/{part}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _items(lengths: list[int], starts: tuple[str, ...] = ("2024-01-01", "2024-01-01")) -> list[dict]:
    """Lines of two series; series k counts up from 100 k."""
    return [
        {"start": start, "target": [100.0 * k + i for i in range(length)]}
        for length in lengths
        for k, start in enumerate(starts)
    ]


def _zip(folder: Path, name: str, content: str) -> Path:
    path = folder / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def test_windows_of_a_series_are_put_together_by_line_modulo_number_of_series(tmp_path: Path) -> None:
    data = read_gluonts_archive(_archive(tmp_path, _items([4]), _items([6, 8, 10])), freq="h")

    np.testing.assert_array_equal(data["target"].values[:, :, 0], np.arange(10) + [[0], [100]])
    assert data["series"].values.tolist() == [0, 1]
    assert observed_mask(data).all()


def test_series_that_begin_later_are_missing_before(tmp_path: Path) -> None:
    starts = ("2024-01-01 00:00:00", "2024-01-01 02:00:00")

    data = read_gluonts_archive(_archive(tmp_path, _items([4], starts), _items([6], starts)), freq="h")

    assert data.sizes["time"] == 8
    assert observed_mask(data)[1, :, 0].tolist() == [False, False] + 6 * [True]
    assert observed_mask(data)[0, :, 0].tolist() == 6 * [True] + [False, False]


def test_missing_values_of_an_archive_stay_missing(tmp_path: Path) -> None:
    items = [{"start": "2024-01-01", "target": [1.0, float("nan"), 3.0, 4.0]}]

    data = read_gluonts_archive(_archive(tmp_path, items, items), freq="D")

    assert observed_mask(data)[0, :, 0].tolist() == [True, False, True, True]
    check_sequences(data)


def test_members_that_point_outside_are_read_in_place_and_never_written(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = _archive(folder, _items([4]), _items([6]), prefix="../../outside/")

    assert read_gluonts_archive(path, freq="h").sizes["time"] == 6
    assert sorted(tmp_path.rglob("*")) == [folder, path]


def test_a_window_that_contradicts_the_training_part_is_refused(tmp_path: Path) -> None:
    test = _items([6])
    test[1]["target"][2] += 1.0

    with pytest.raises(ValueError, match="series 1, line 2 of test .* does not continue"):
        read_gluonts_archive(_archive(tmp_path, _items([4]), test), freq="h")


def test_an_incomplete_set_of_windows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 test lines for 2 series"):
        read_gluonts_archive(_archive(tmp_path, _items([4]), _items([6, 8])[:3]), freq="h")


def test_an_archive_without_training_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 test lines for 0 series"):
        read_gluonts_archive(_archive(tmp_path, [], _items([6])), freq="h")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme.txt"))

    with pytest.raises(ValueError, match="not a GluonTS archive"):
        read_gluonts_archive(path, freq="h")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_archive_is_called_damaged(share: float, tmp_path: Path) -> None:
    train = [{"start": "2024-01-01", "target": np.random.default_rng(0).normal(size=2000).tolist()}]
    path = _archive(tmp_path, train, train)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(ValueError, match="damaged"):
        read_gluonts_archive(path, freq="h")


def test_trips_are_counted_per_hour_and_zone(tmp_path: Path) -> None:
    trips = "Dispatching_base_num,Pickup_date,Affiliated_base_num,locationID\n"
    for stamp, zone in (("00:00:00", 7), ("00:59:59", 7), ("01:00:00", 7), ("23:10:00", 3)):
        trips += f"B02617,2015-01-01 {stamp},B02617,{zone}\n"
    trips += "B02617,2014-12-31 23:59:00,B02617,9\n"  # outside the half year

    data = read_uber_trips(_zip(tmp_path, "uber-raw-data-janjune-15.csv", trips))

    check_sequences(data)
    assert data["series"].values.tolist() == [3, 7]
    assert data.sizes["time"] == 4344
    assert data["target"].sel(series=7).values[:3, 0].tolist() == [2.0, 1.0, 0.0]
    assert data["target"].sel(series=3).values[[0, 23], 0].tolist() == [0.0, 1.0]
    assert float(data["target"].sum()) == 4.0


def test_a_monash_zip_is_read_through_its_one_member(tmp_path: Path) -> None:
    text = (
        "@relation tiny\n@attribute series_name string\n@attribute start_timestamp date\n"
        "@frequency hourly\n@horizon 2\n@missing false\n@equallength false\n@data\n"
        "T1:2017-01-01 14-00-00:1,2,3,4\nT2:2017-01-01 15-00-00:5,6\n"
    )

    data = read_monash_zip(_zip(tmp_path, "tiny.tsf", text))

    check_sequences(data)
    assert data["series"].values.tolist() == ["T1", "T2"]
    assert int(observed_mask(data).sum()) == 6
    assert data["target"].sel(series="T2", time="2017-01-01T16:00").item() == 6.0


@pytest.mark.parametrize("read", [read_uber_trips, read_monash_zip])
def test_a_zip_without_the_expected_file_is_refused(read, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one"):
        read(_zip(tmp_path, "readme.txt", "nothing"))


@pytest.mark.parametrize("read", [read_uber_trips, read_monash_zip])
def test_a_truncated_zip_is_called_damaged(read, tmp_path: Path) -> None:
    path = _zip(tmp_path, "data.csv", "a,b\n" * 1000)
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(ValueError, match="damaged"):
        read(path)
