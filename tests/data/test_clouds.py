"""Snapshots from every format."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import read_snapshots, stack_snapshots, to_netcdf
from seqdyn.data.clouds import order_times

CLOUDS = [
    np.arange(6.0).reshape(3, 2),
    np.arange(6.0, 14.0).reshape(4, 2),
    np.arange(14.0, 18.0).reshape(2, 2),
]
TIMES = np.repeat([0.0, 2.5, 10.0], [3, 4, 2])


def wanted() -> xr.Dataset:
    return stack_snapshots(CLOUDS, times=[0.0, 2.5, 10.0], features=["u", "v"], units="mm")


def frame() -> pd.DataFrame:
    return pd.DataFrame(np.concatenate(CLOUDS), columns=["u", "v"]).assign(day=TIMES)


def test_lists_dicts_frames_and_datasets_hold_the_same_particles() -> None:
    by_time = dict(zip([2.5, 0.0, 10.0], [CLOUDS[1], CLOUDS[0], CLOUDS[2]], strict=True))

    for source, arguments in (
        (CLOUDS, {"times": [0.0, 2.5, 10.0], "value": ["u", "v"]}),
        (by_time, {"value": ["u", "v"]}),
        (frame().assign(note="text"), {}),
        (frame(), {"time": "day", "value": ["u", "v"]}),
        (wanted(), {}),
    ):
        xr.testing.assert_identical(read_snapshots(source, units="mm", **arguments), wanted())


def test_csv_netcdf_and_parquet_hold_the_same_particles(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "a.csv")
    to_netcdf(wanted(), tmp_path / "a.nc")

    xr.testing.assert_identical(read_snapshots(tmp_path / "a.csv", units="mm"), wanted())
    xr.testing.assert_identical(read_snapshots(tmp_path / "a.nc"), wanted())
    pytest.importorskip("pyarrow")
    frame().to_parquet(tmp_path / "a.parquet")
    xr.testing.assert_identical(read_snapshots(tmp_path / "a.parquet", units="mm"), wanted())


def test_npz_holds_particles_with_their_times_or_a_grid(tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", x=np.concatenate(CLOUDS), snapshot=TIMES)
    grid = np.arange(24.0).reshape(3, 4, 2)
    np.savez(tmp_path / "grid.npz", Xs=grid, N_steps=3)
    np.save(tmp_path / "grid.npy", grid)

    long = read_snapshots(tmp_path / "long.npz")
    np.testing.assert_array_equal(long["x"], wanted()["x"])
    np.testing.assert_array_equal(long["time"], TIMES)
    for name in ("grid.npz", "grid.npy"):
        data = read_snapshots(tmp_path / name, times=[0, 1, 4])
        np.testing.assert_array_equal(data["x"], grid.reshape(12, 2))
        np.testing.assert_array_equal(data["time"], np.repeat([0, 1, 4], 4))


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["10", "9", "10.5"], [10, 9, 10.5]),
        (["day 10", "day 9", "day 10.5"], [10, 9, 10.5]),
        (["E8.5", "E10.0", "E9"], [8.5, 10, 9]),
        (["3h", "20h", "100h"], [3, 20, 100]),
    ],
)
@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_times_in_words_are_ordered_by_their_number(
    texts: list[str], numbers: list[float], dtype: str
) -> None:
    times = order_times(pd.Series(texts, name="day").astype(dtype))

    np.testing.assert_array_equal(times, numbers)


def test_times_of_different_kinds_are_not_mixed_up() -> None:
    with pytest.raises(ValueError, match=r"hold no number by which to order them"):
        order_times(pd.Series(["day 1", "week 2"], name="t"))


def test_anndata_gives_counts_or_a_representation_by_the_value_of_its_times(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    days = pd.Categorical(pd.Series(["10.0", "9.0", "10.5", "9.0"], dtype=object))
    obs = pd.DataFrame({"day": days}, index=pd.Index(list("abcd"), dtype=object))
    genes = pd.DataFrame(index=pd.Index(["g1", "g2"], dtype=object))
    counts = np.array([[1, 0], [0, 2], [3, 0], [0, 4]], dtype=np.float32)
    cells = anndata.AnnData(scipy_sparse.csr_matrix(counts), obs=obs, var=genes)
    cells.obsm["X_pca"] = np.arange(12.0).reshape(4, 3)
    cells.write_h5ad(tmp_path / "a.h5ad")

    for source in (cells, tmp_path / "a.h5ad"):
        data = read_snapshots(source)
        np.testing.assert_array_equal(data["x"], counts)
        assert data["feature"].values.tolist() == ["g1", "g2"]
        assert data["time"].values.tolist() == [10.0, 9.0, 10.5, 9.0]
        components = read_snapshots(source, time="day", representation="X_pca")
        np.testing.assert_array_equal(components["x"], cells.obsm["X_pca"])
        assert components["feature"].values.tolist() == ["X_pca_0", "X_pca_1", "X_pca_2"]


def test_a_real_anndata_file_is_read(data_dir: Path) -> None:
    pytest.importorskip("anndata")
    path = data_dir / "moscot_temporal" / "moscot_temporal_tests.h5ad"
    if not path.is_file():
        pytest.skip(f"{path} is missing")

    data = read_snapshots(path)

    assert data["x"].shape == (250, 1479)
    times, counts = np.unique(data["time"], return_counts=True)
    assert dict(zip(times.tolist(), counts.tolist(), strict=True)) == {10.0: 85, 10.5: 81, 11.0: 84}


def test_what_was_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="seqdyn"):
        read_snapshots(frame())

    assert "read DataFrame: 9 particles (features: 2) at 3 times (0: 3, 2.5: 4, 10: 2)" in caplog.text


def test_an_object_of_no_known_type_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot read a float; pass a path"):
        read_snapshots(3.0)


@pytest.mark.parametrize(
    ("source", "time", "remedy"),
    [
        ([np.ones((3, 2)), np.ones((4, 2))], [0, 1], r"time=\[0, 1\] is no name.*as times=\[0, 1\]\."),
        (np.ones((2, 3, 2)), np.arange(2.0), r"as times=\[0\.0, 1\.0\]\."),
        ([np.ones((3, 2)), np.ones((4, 2))], "day", r"a list has none.*with times=\[\.\.\.\]"),
        ({0.0: np.ones((3, 2)), 1.0: np.ones((3, 2))}, "day", r"a dict has none; leave it out\."),
    ],
)
def test_times_in_the_wrong_argument_are_not_ignored(source: Any, time: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        read_snapshots(source, time=time)
