"""Arrays and files to datasets and back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import seqdyn
from seqdyn.data import (
    check_sequences,
    forecast_dataset,
    from_netcdf,
    from_numpy,
    from_pandas,
    read_sequences,
    stack_snapshots,
    to_netcdf,
    to_pandas,
)


@pytest.mark.parametrize(("shape", "sizes"), [((5,), (1, 5, 1)), ((2, 5), (2, 5, 1)), ((2, 5, 3), (2, 5, 3))])
def test_missing_axes_of_an_array_are_added(shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    data = from_numpy(values)

    assert data["target"].shape == sizes
    assert data["target"].dtype == np.float32
    np.testing.assert_array_equal(data["target"].values.ravel(), values.ravel())
    assert data["time"].values.tolist() == list(range(5))


def test_masked_entries_and_nan_are_missing() -> None:
    values = np.ma.masked_equal(np.array([[1.0, 2.0, np.nan, 4.0]]), 2.0)

    data = from_numpy(values)

    assert data["observed"][0, :, 0].values.tolist() == [True, False, False, True]


def test_a_list_of_arrays_is_padded_at_the_end() -> None:
    data = from_numpy([np.ones(2), np.ones(4)])

    assert data["observed"][:, :, 0].values.tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize("freq", ["h", "D", "B", "MS", "W"])
def test_a_start_and_a_frequency_make_the_time_axis(freq: str) -> None:
    data = from_numpy(np.ones(6), start="2024-01-01", freq=freq)

    expected = pd.date_range("2024-01-01", periods=6, freq="W-MON" if freq == "W" else freq)
    np.testing.assert_array_equal(data["time"], expected)
    check_sequences(data)


def test_an_aware_start_gives_utc_and_its_zone() -> None:
    data = from_numpy(np.ones(3), start=pd.Timestamp("2024-03-30", tz="Europe/Zurich"), freq="D")

    assert data["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    hours = pd.DatetimeIndex(data["time"].values).hour
    assert hours.tolist() == [23, 23, 22]


def test_stamps_with_a_gap_get_a_missing_step() -> None:
    stamps = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])

    data = from_numpy(np.arange(3.0), time=stamps, freq="D")

    np.testing.assert_array_equal(data["target"][0, :, 0], [0, 1, np.nan, 2])


def panel() -> xr.Dataset:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.repeat(["Zürich", "Bern"], 40),
            "ds": np.tile(pd.date_range("2024-03-20", periods=40, freq="D"), 2),
            "y": rng.normal(size=80),
            "z": rng.normal(size=80),
            "temp": rng.normal(size=80),
        }
    )
    frame.loc[[3, 50], "y"] = np.nan
    return from_pandas(
        frame, series="id", value=["y", "z"], covariates="temp", units="kW", timezone="Europe/Zurich"
    )


def test_netcdf_gives_back_values_mask_labels_and_attributes(tmp_path: Path) -> None:
    data = panel()

    to_netcdf(data, tmp_path / "a.nc")

    back = read_sequences(tmp_path / "a.nc")
    xr.testing.assert_identical(back, data)
    assert back["observed"].dtype == bool
    assert back["time"].attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    assert back["target"].attrs == {"units": "kW"}


def test_netcdf_keeps_numeric_time_and_integer_labels(tmp_path: Path) -> None:
    data = from_numpy(np.ones((3, 4), dtype=np.float32), series=[5, 3, 9], units="days")

    to_netcdf(data, tmp_path / "a.nc")

    xr.testing.assert_identical(read_sequences(tmp_path / "a.nc"), data)


def test_every_variable_in_the_file_carries_a_checksum(tmp_path: Path) -> None:
    import h5py

    to_netcdf(panel(), tmp_path / "a.nc")

    with h5py.File(tmp_path / "a.nc") as file:
        named = ["target", "observed", "covariates", "series", "time", "feature", "covariate"]
        assert [name for name in named if not file[name].fletcher32] == []


def test_attributes_that_netcdf_lacks_are_written_in_its_types(tmp_path: Path) -> None:
    attrs = {"seed": None, "clipped": True, "levels": [0.1, 0.9], "config": {"a": [1, 2]}, "path": Path("x")}

    to_netcdf(panel().assign_attrs(attrs), tmp_path / "a.nc")

    back = xr.load_dataset(tmp_path / "a.nc", engine="h5netcdf").attrs
    assert back["clipped"] == 1
    assert back["levels"].tolist() == [0.1, 0.9]
    assert back["config"] == '{"a": [1, 2]}'
    assert back["path"] == "x"
    assert "seed" not in back


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_netcdf(panel(), tmp_path / "a.nc")
    before = (tmp_path / "a.nc").read_bytes()

    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        to_netcdf(panel() * 2, tmp_path / "a.nc")

    assert os.listdir(tmp_path) == ["a.nc"]
    assert (tmp_path / "a.nc").read_bytes() == before


def test_writing_changes_nothing_in_the_dataset(tmp_path: Path) -> None:
    data, copy = panel(), panel()

    to_netcdf(data, tmp_path / "a.nc")

    xr.testing.assert_identical(data, copy)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder '.*nowhere' does not exist"):
        to_netcdf(panel(), tmp_path / "nowhere" / "a.nc")


def test_a_forecast_continues_its_context() -> None:
    context = panel()
    values = np.random.default_rng(0).normal(size=(7, 2, 5, 2))

    forecast = forecast_dataset(values, context, model="TSDiff", seed=3, attrs={"guidance": "quantile"})

    assert forecast["target"].dims == ("sample", "series", "time", "feature")
    np.testing.assert_array_equal(forecast["target"], values)
    assert forecast.attrs == {
        "model": "TSDiff",
        "seqdyn_version": seqdyn.__version__,
        "seed": 3,
        "guidance": "quantile",
    }
    assert forecast["target"].attrs == {"units": "kW"}
    joined = xr.concat([context["time"], forecast["time"]], "time")
    assert joined.attrs == {"freq": "D", "timezone": "Europe/Zurich"}
    check_sequences(forecast.mean("sample", keep_attrs=True))
    local = pd.DatetimeIndex(joined.values).tz_localize("UTC").tz_convert("Europe/Zurich")
    assert (local == pd.date_range("2024-03-20", periods=45, tz="Europe/Zurich")).all()


def test_a_complex_variable_is_written_as_two(tmp_path: Path) -> None:
    values = np.array([[1 + 2j, -3j], [0.5, 4 - 1j]])
    data = xr.Dataset({"eigenvalue": (("point", "mode"), values, {"long_name": "of the Jacobian"})})

    to_netcdf(data, tmp_path / "a.nc")

    back = xr.load_dataset(tmp_path / "a.nc")
    np.testing.assert_array_equal(back["eigenvalue_real"] + 1j * back["eigenvalue_imag"], values)
    assert data["eigenvalue"].dtype.kind == "c"
    with pytest.raises(ValueError, match="'eigenvalue_imag' is to hold a part"):
        to_netcdf(data.assign(eigenvalue_imag=0.0), tmp_path / "b.nc")


def test_draws_and_quantiles_become_long_tables() -> None:
    forecast = forecast_dataset(np.arange(60.0).reshape(3, 2, 5, 2), panel(), model="m", seed=0)

    draws = to_pandas(forecast)
    bands = to_pandas(forecast.quantile([0.1, 0.9], dim="sample"))

    assert list(draws.columns) == ["sample", "series", "time", "y", "z"]
    assert len(draws) == 30
    assert draws["y"].tolist() == list(np.arange(0.0, 60.0, 2.0))
    assert str(draws["time"].dt.tz) == "Europe/Zurich"
    assert list(bands.columns) == ["quantile", "series", "time", "y", "z"]


def test_snapshots_and_paths_become_long_tables() -> None:
    x = np.arange(12.0).reshape(3, 2, 2)  # (particle, time, feature)
    labels = {"time": [0.5, 1.0], "feature": ["u", "v"], "condition": ("particle", ["a", "a", "b"])}
    paths = xr.Dataset({"x": (("particle", "time", "feature"), x)}, labels)
    clouds = xr.Dataset(
        {"x": (("particle", "feature"), x[:, 0]), "weight": ("particle", [1.0, 2.0, 3.0])},
        {"time": ("particle", [1, 0, 1])},
    )

    table, again = to_pandas(paths), to_pandas(paths.transpose("feature", "time", "particle"))
    snapshots = to_pandas(clouds)

    assert list(table.columns) == ["condition", "particle", "time", "u", "v"]
    pd.testing.assert_frame_equal(table, again)
    row = table[(table["particle"] == 2) & (table["time"] == 1.0)]
    assert row[["condition", "u", "v"]].values.tolist() == [["b", 10.0, 11.0]]
    assert list(snapshots.columns) == ["time", 0, 1, "weight"]
    assert snapshots[["time", 0, "weight"]].values.tolist() == [[1, 0, 1], [0, 4, 2], [1, 8, 3]]
    with pytest.raises(ValueError, match=r"holds \['image'\]; write it as netCDF, a file that ends in .nc"):
        to_pandas(xr.Dataset({"image": ("row", [1.0])}))


def test_padding_is_left_out_of_a_table_unless_asked_for() -> None:
    data = from_numpy([np.ones(2), np.ones(4)])

    assert len(to_pandas(data)) == 6
    assert len(to_pandas(data, padding=True)) == 8


def test_a_grid_of_snapshots_is_flattened_without_its_padding() -> None:
    x = np.arange(24.0).reshape(3, 4, 2)
    x[1, 3] = np.nan
    grid = xr.Dataset(
        {"x": (("time", "particle", "feature"), x, {"units": "m"})},
        {"time": [0.0, 0.5, 2.0], "feature": ["u", "v"]},
    )

    data = stack_snapshots(grid)

    assert data["x"].dims == ("particle", "feature")
    assert data["time"].values.tolist() == [0.0] * 4 + [0.5] * 3 + [2.0] * 4
    assert data["feature"].values.tolist() == ["u", "v"]
    assert data["x"].attrs == {"units": "m"}
    np.testing.assert_array_equal(data["x"][4:7], x[1, :3])
    xr.testing.assert_equal(stack_snapshots(grid.transpose("feature", "particle", "time")), data)


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    value = np.array([[1 + 2j, np.nan], [0.5j, -1]])
    data = xr.Dataset(
        {
            "eigenvalue": (("point", "mode"), value, {"comment": "by modulus"}),
            "stability": ("point", ["saddle", "stable focus"]),
            "stable": ("point", [False, True]),
            "height_real": ("point", [1.0, 2.0]),
        },
        attrs={"seed": 3},
    )

    to_netcdf(data, tmp_path / "points.nc")
    found = from_netcdf(tmp_path / "points.nc")

    xr.testing.assert_identical(found, data)
    with pytest.raises(ValueError, match=r"there is no file '.*none\.nc'"):
        from_netcdf(tmp_path / "none.nc")
