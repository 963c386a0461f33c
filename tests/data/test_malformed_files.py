"""Damaged and ill-formed files: each meets another check, and the message names its remedy."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import forecast_dataset, from_numpy, read_sequences, read_snapshots, to_netcdf

Writer = Callable[[Path], tuple[Path, dict[str, Any]]]


def text(content: str | bytes, name: str = "a.csv", **arguments: Any) -> Writer:
    """A file with this content, read with these arguments."""

    def write(folder: Path) -> tuple[Path, dict[str, Any]]:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path, arguments

    return write


def table(stamps: list[str], **arguments: Any) -> Writer:
    """A CSV with these stamps in column ``ds`` and numbers in column ``y``."""
    return text("ds,y\n" + "".join(f"{stamp},{i}\n" for i, stamp in enumerate(stamps)), **arguments)


def local_hours(start: str, end: str) -> list[str]:
    hours = pd.date_range(start, end, freq="h", tz="Europe/Zurich")
    return [stamp.strftime("%Y-%m-%d %H:%M") for stamp in hours]


def truncated_gzip(folder: Path) -> tuple[Path, dict[str, Any]]:
    stamps = pd.date_range("2024-01-01", periods=5000, freq="h").astype(str)
    rows = "ds,y\n" + "".join(f"{stamp},{i * i % 977}\n" for i, stamp in enumerate(stamps))
    packed = gzip.compress(rows.encode())
    return text(packed[: len(packed) // 2], "a.csv.gz")(folder)


def truncated_parquet(folder: Path) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("pyarrow")
    path = folder / "a.parquet"
    pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=50), "y": 1.0}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-30])
    return path, {}


def netcdf(folder: Path, data: xr.Dataset | None = None) -> Path:
    path = folder / "a.nc"
    rng = np.random.default_rng(0)
    to_netcdf(from_numpy(rng.normal(size=(2, 400))) if data is None else data, path)
    return path


def truncated_netcdf(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = netcdf(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path, {}


def flipped_netcdf(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Change one byte in the middle of the compressed values, which a checksum must notice."""
    import h5py

    path = netcdf(folder)
    with h5py.File(path) as file:
        chunk = file["target"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0x10
    path.write_bytes(bytes(content))
    return path, {}


def forecast_netcdf(folder: Path) -> tuple[Path, dict[str, Any]]:
    draws = forecast_dataset(np.zeros((5, 1, 3, 1)), from_numpy(np.ones(8)), model="m", seed=0)
    return netcdf(folder, draws), {}


def several_variables(folder: Path) -> tuple[Path, dict[str, Any]]:
    values = ("time", np.arange(4.0))
    return netcdf(folder, xr.Dataset({"rain": values, "wind": values}, {"time": np.arange(4)})), {}


def broken_zarr(folder: Path) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("zarr")
    path = folder / "a.zarr"
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gr')
    return path, {}


def truncated_npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "a.npz"
    np.savez(path, target=np.ones((3, 400)))
    path.write_bytes(path.read_bytes()[:-100])
    return path, {}


class Trap:
    """Leaves a mark if anybody unpickles it."""

    sprung: list[str] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.sprung.append, ("unpickled",))


def pickled_npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "a.npz"
    np.savez(path, target=np.array([Trap()], dtype=object))
    return path, {}


def pickled_npy(folder: Path) -> tuple[Path, dict[str, Any]]:
    return text(pickle.dumps([1.0, 2.0]), "a.npy")(folder)


def ambiguous_npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "a.npz"
    np.savez(path, first=np.ones((2, 5)), second=np.ones((2, 5)))
    return path, {}


def lines(*entries: Any, **arguments: Any) -> Writer:
    """A JSON-lines file."""
    content = "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries)
    return text(content, "a.json", **arguments)


GOOD_LINE = {"start": "2024-01-01", "target": [1.0, 2.0], "item_id": "a"}
TSF = (
    "@relation x\n@attribute series_name string\n@attribute start_timestamp date\n@frequency hourly\n@data\n"
)

SEQUENCES: dict[str, tuple[Writer, str]] = {
    "csv_truncated_gzip": (truncated_gzip, r"a\.csv\.gz.*copy or download it again"),
    "csv_not_gzip": (text("ds,y\n", "a.csv.gz"), r"cannot be unpacked.*copy or download it again"),
    "csv_compressed_under_plain_name": (text(gzip.compress(b"ds,y\n")), r"compressed.*end in '\.gz'"),
    "csv_empty": (text(""), r"empty.*copy or download it again"),
    "csv_header_only": (text("ds,y\n"), r"no rows.*check the filter or export"),
    "csv_without_header": (
        text("2024-01-01,1\n2024-01-02,2\n"),
        r"no header.*header=None, names=\['time', 'y1'\]",
    ),
    "csv_ragged": (text("ds,y\n2024-01-01,1\n2024-01-02,2,5,6\n"), r"line 3.*repair that line"),
    "csv_preamble": (text("made,by\nds,y,z\n2024-01-01,1,2\n2024-01-02,2,3\n"), r"more fields.*skiprows=1"),
    "csv_latin1": (text("ds,Höhe\n2024-01-01,1\n".encode("latin-1")), r"not UTF-8.*encoding='latin-1'"),
    "csv_wrong_column": (
        text("ds,y\n2024-01-01,1\n", time="dss"),
        r"no column 'dss'.*did you mean time='ds'",
    ),
    "csv_text_among_numbers": (
        text("ds,y\n2024-01-01,1\n2024-01-02,-\n2024-01-03,3\n"),
        r"column 'y' is not numeric: row 1 is '-'.*na_values=\['-'\]",
    ),
    "csv_decimal_comma": (text("ds;y\n2024-01-01;1,5\n2024-01-02;2,5\n"), r"row 0 is '1,5'.*decimal=','"),
    "csv_several_value_columns": (
        text("ds,id,a,b\n2024-01-01,u,1,2\n2024-01-02,u,1,2\n"),
        r"may be any of the columns \['a', 'b'\]; pass value='a'",
    ),
    "csv_mixed_dates": (
        table(["2024-01-30", "01/31/2024", "2024-02-01"]),
        r"mixes date formats.*date_format=",
    ),
    "csv_impossible_date": (
        table(["2024-02-28", "2024-02-30"]),
        r"row 1.*'2024-02-30'.*no date.*drop that row",
    ),
    "csv_ambiguous_dates": (
        table(["01/02/2024", "02/02/2024"]),
        r"several ways; pass date_format='%m/%d/%Y'",
    ),
    "csv_mixed_offsets": (
        table(["2024-01-01T00:00Z", "2024-01-01T01:00"]),
        r"with and without an offset.*one way",
    ),
    "csv_empty_stamp": (table(["2024-01-01", "", "2024-01-03"]), r"'ds' is empty in row 1.*dropna"),
    "csv_empty_label": (
        text("ds,id,y\n2024-01-01,a,1\n2024-01-02,,2\n2024-01-03,a,3\n"),
        r"'id' is empty in row 1",
    ),
    "csv_clocks_go_back": (table(local_hours("2024-10-26", "2024-10-28")), r"several rows.*pass timezone="),
    "csv_clocks_go_forward": (table(local_hours("2024-03-30", "2024-04-01")), r"irregular.*pass timezone="),
    "csv_hour_that_does_not_exist": (
        table(["2024-03-31 01:30", "2024-03-31 02:30"], timezone="Europe/Zurich"),
        r"2024-03-31 02:30:00, which does not exist in Europe/Zurich.*leave timezone= out",
    ),
    "csv_doubled_hour_given_once": (
        table(["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 03:00"], timezone="Europe/Zurich"),
        r"occurs twice in Europe/Zurich.*give UTC stamps",
    ),
    "csv_unknown_zone": (
        table(["2024-01-01", "2024-01-02"], timezone="Mars/Olympus"),
        r"Mars.*'Europe/Zurich'",
    ),
    "csv_gap": (table(["2024-01-01", "2024-01-02", "2024-01-04"]), r"first at 2024-01-03.*pass freq='D'"),
    "csv_off_the_grid": (
        table(["2024-01-01", "2024-01-02 12:00", "2024-01-03"], freq="D"),
        r"2024-01-02 12:00:00 does not lie on the grid of freq='D'.*finer freq=",
    ),
    "csv_unknown_frequency": (table(["2024-01-01", "2024-01-02"], freq="hrs"), r"freq='hrs'.*'h' \(hour\)"),
    "csv_one_stamp": (table(["2024-01-01"]), r"only time stamp.*pass freq='h'"),
    "csv_duplicates": (
        text("ds,id,y\n2024-01-01,a,1\n2024-01-02,a,2\n2024-01-02,a,3\n"),
        r"series 'a' has several rows for time 2024-01-02.*duplicates='mean'.*groupby\(\['id', 'ds'\]",
    ),
    "csv_forgotten_series": (
        text("ds,shop,y\n2024-01-01,1,5\n2024-01-02,1,6\n2024-01-01,2,7\n2024-01-02,2,8\n"),
        r"'shop' tells them apart: pass series='shop'",
    ),
    "csv_unknown_covariate": (
        text("ds,id,y,temp\n2024-01-01,a,1,5\n2024-01-02,a,2,6\n2024-01-02,b,3,6\n", covariates="temp"),
        r"covariate 'temp' has no value for series 'b' at 2024-01-01.*frame\['temp'\]\.ffill",
    ),
    "csv_infinite": (text("ds,y\n2024-01-01,1\n2024-01-02,inf\n"), r"'y' is infinite in row 1.*replace"),
    "csv_number_time_with_zone": (
        text("t,y\n0,1\n1,2\n", timezone="UTC"),
        r"holds numbers; leave timezone= out",
    ),
    "csv_number_time_with_alias": (text("t,y\n0,1\n1,2\n", freq="h"), r"needs dates.*freq=1"),
    "csv_number_time_with_gap": (
        text("t,y\n0,1\n1,2\n2,2\n5,1\n"),
        r"irregular.*2 is followed by 5; pass freq=1",
    ),
    "parquet_truncated": (truncated_parquet, r"a\.parquet.*copy the file again|copy it again"),
    "netcdf_truncated": (truncated_netcdf, r"a\.nc.*copy or download it again"),
    "netcdf_flipped_bit": (flipped_netcdf, r"a\.nc.*copy or download it again"),
    "netcdf_forecast": (forecast_netcdf, r"holds draws.*data\.mean\('sample'\)"),
    "netcdf_several_variables": (several_variables, r"variables \['rain', 'wind'\]; pass value='NAME'"),
    "zarr_broken": (broken_zarr, r"a\.zarr.*copy"),
    "npz_truncated": (truncated_npz, r"a\.npz.*copy or download it again"),
    "npz_pickled": (pickled_npz, r"pickled.*np\.savez"),
    "npy_is_a_pickle": (pickled_npy, r"pickled.*np\.savez"),
    "npz_ambiguous": (ambiguous_npz, r"\['first', 'second'\].*pass value='NAME'"),
    "json_cut_off": (
        lines(GOOD_LINE, '{"start": "2024-01-01", "targ', freq="D"),
        r"line 2 is not valid JSON.*copy it",
    ),
    "json_without_target": (
        lines({"start": "2024-01-01"}, freq="D"),
        r"line 1 needs the keys 'start' and 'target'",
    ),
    "json_text_target": (
        lines(GOOD_LINE, {"start": "2024-01-01", "target": ["a"]}, freq="D"),
        r"line 2: 'target' is not a list of numbers.*null",
    ),
    "json_without_frequency": (lines(GOOD_LINE), r"no metadata\.json.*pass freq='h'"),
    "json_off_the_grid": (
        lines(GOOD_LINE, {**GOOD_LINE, "start": "2024-01-06", "item_id": "b"}, freq="B"),
        r"'b' \(line 2\) starts at 2024-01-06, which is no stamp of freq='B'.*finer freq=",
    ),
    "json_empty_series": (
        lines(GOOD_LINE, {**GOOD_LINE, "item_id": "b", "target": [None]}, freq="D"),
        r"drop that line",
    ),
    "tsf_broken_header": (
        text("@relation x\n@attribute series_name\n@data\na:1\n", "a.tsf"),
        r"line 2: an attribute",
    ),
    "tsf_without_data": (text("@relation x\n@frequency daily\n", "a.tsf"), r"'@data'.*download it again"),
    "tsf_wrong_attributes": (
        text(TSF + "T1:1,2,3\n", "a.tsf"),
        r"line 6 has 1 attributes.*declares 2.*download it",
    ),
    "tsf_bad_number": (
        text(TSF + "T1:2024-01-01 00-00-00:1,x,3\n", "a.tsf"),
        r"line 6.*write '\?' for missing",
    ),
    "tsf_without_frequency": (
        text(TSF.replace("@frequency hourly\n", "") + "T1:2024-01-01 00-00-00:1,2\n", "a.tsf"),
        r"no line '@frequency'; pass freq='h'",
    ),
    "unknown_suffix": (text("x", "a.xlsx"), r"a\.xlsx.*pandas DataFrame"),
    "archive": (text("x", "a.tar.gz"), r"archive; unpack it"),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_a_malformed_file_of_sequences_is_refused_with_a_remedy(case: str, tmp_path: Path) -> None:
    write, remedy = SEQUENCES[case]
    path, arguments = write(tmp_path)

    with pytest.raises(ValueError, match=f"(?s){remedy}"):
        read_sequences(path, **arguments)

    assert Trap.sprung == []


def anndata_file(folder: Path, times: Any, **arguments: Any) -> tuple[Path, dict[str, Any]]:
    anndata = pytest.importorskip("anndata")
    path = folder / "a.h5ad"
    obs = pd.DataFrame({"day": pd.Series(times, dtype=object if isinstance(times[0], str) else float)})
    obs.index = pd.Index([f"cell{i}" for i in range(len(times))], dtype=object)
    var = pd.DataFrame(index=pd.Index(["g1", "g2"], dtype=object))
    anndata.AnnData(np.ones((len(times), 2), dtype=np.float32), obs=obs, var=var).write_h5ad(path)
    return path, arguments


def truncated_h5ad(folder: Path) -> tuple[Path, dict[str, Any]]:
    path, _ = anndata_file(folder, [0.0, 1.0])
    path.write_bytes(path.read_bytes()[:2000])
    return path, {}


def arrays(**content: np.ndarray) -> Writer:
    def write(folder: Path) -> tuple[Path, dict[str, Any]]:
        np.savez(folder / "a.npz", **content)
        return folder / "a.npz", {}

    return write


SNAPSHOTS: dict[str, tuple[Writer, str]] = {
    "h5ad_truncated": (truncated_h5ad, r"a\.h5ad.*copy or download it again"),
    "h5ad_times_without_number": (
        lambda folder: anndata_file(folder, ["early", "late"]),
        r"\['early', 'late'\] in 'day' hold no number.*map",
    ),
    "h5ad_unknown_representation": (
        lambda folder: anndata_file(folder, [0.0, 1.0], representation="X_pca"),
        r"no representation 'X_pca'.*leave it out for X",
    ),
    "h5ad_unknown_time": (
        lambda folder: anndata_file(folder, [0.0, 1.0], time="stage"),
        r"no column 'stage' \(time=",
    ),
    "csv_without_time": (text("a,b\n1,2\n3,4\n"), r"looks like the particles' time.*pass time="),
    "csv_text_feature": (text("time,a\n0,1\n1,x\n2,3\n", value="a"), r"'a' is not numeric: row 1 is 'x'"),
    "npz_one_time_per_cloud_missing": (
        arrays(x=np.ones((3, 4, 2))),
        r"3 snapshots but no times; pass times=",
    ),
    "npz_counts_differ": (
        arrays(x=np.ones((4, 2)), time=np.arange(3)),
        r"\(4, 2\).*\(3,\).*one time per particle",
    ),
    "npz_pickled": (pickled_npz, r"pickled.*np\.savez"),
}


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_a_malformed_file_of_snapshots_is_refused_with_a_remedy(case: str, tmp_path: Path) -> None:
    write, remedy = SNAPSHOTS[case]
    path, arguments = write(tmp_path)

    with pytest.raises(ValueError, match=f"(?s){remedy}"):
        read_snapshots(path, **arguments)

    assert Trap.sprung == []


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("ds,y\n")

    with pytest.raises(FileNotFoundError, match=r"no file '.*sale\.csv'; did you mean '.*sales\.csv'"):
        read_sequences(tmp_path / "sale.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name one file in it"):
        read_sequences(tmp_path)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("pyarrow", "a.parquet", "parquet"), ("zarr", "a.zarr", "zarr"), ("anndata", "a.h5ad", "anndata")],
)
def test_a_missing_reader_names_the_extra_to_install(
    package: str, name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.mkdir() if extra == "zarr" else path.write_bytes(b"content")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    read = read_snapshots if extra == "anndata" else read_sequences

    with pytest.raises(ImportError, match=rf'pip install "seqdyn\[{extra}\]"'):
        read(path)


def test_a_polars_frame_without_pyarrow_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"t": [0, 1], "y": [1.0, 2.0]})

    def fail(*_: Any) -> None:
        raise ModuleNotFoundError("pyarrow")

    monkeypatch.setattr(type(frame), "to_pandas", fail)

    with pytest.raises(ImportError, match=r'pip install "seqdyn\[polars\]"'):
        read_sequences(frame)
