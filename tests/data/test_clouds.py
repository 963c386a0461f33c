"""Snapshots from every format."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import read_snapshots, stack_snapshots, to_anndata, to_netcdf, to_pandas
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

    assert data["x"].shape == (250, 1479) and data["x"].dtype == np.float32
    source = pytest.importorskip("anndata").read_h5ad(path)  # sparse
    np.testing.assert_array_equal(data["x"], source.X.toarray())
    assert data["cell"].values.tolist() == source.obs_names.tolist()
    times, counts = np.unique(data["time"], return_counts=True)
    assert dict(zip(times.tolist(), counts.tolist(), strict=True)) == {10.0: 85, 10.5: 81, 11.0: 84}


def cells() -> Any:
    """Six cells with batches, weights and rates, in an order of their own."""
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame(
        {
            "day": pd.Categorical(["10", "9", "9", "10", "10", "9"]),
            "batch": pd.Categorical(["x", "x", "y", "y", "x", "y"]),
            "plate": [2, 2, 1, 1, 2, 1],
            "share": np.array([1, 2, 3, 4, 5, 6], dtype=np.float32),
            "rate": [0.0, -0.5, 0.5, 0.0, 1.0, 0.25],
        },
        index=pd.Index([f"cell{i}" for i in range(6)], dtype=object),
    )
    var = pd.DataFrame(index=pd.Index(["g1", "g2"], dtype=object))
    return anndata.AnnData(np.arange(12.0).reshape(6, 2), obs=obs, var=var)


ROLES = {"condition": "batch", "weight": "share", "growth": "rate"}


def test_conditions_weights_and_growth_come_from_named_columns(tmp_path: Path) -> None:
    source = cells()
    table = source.obs.assign(g1=source.X[:, 0], g2=source.X[:, 1])
    table.reset_index(drop=True).to_csv(tmp_path / "a.csv", index=False)
    arrays = {name: table[name].astype(float).to_numpy() for name in ("day", "share", "rate")}
    np.savez(tmp_path / "a.npz", x=source.X, batch=table["batch"].to_numpy(dtype=str), **arrays)
    stacked = xr.Dataset(
        {"x": (("particle", "feature"), source.X), "share": ("particle", table["share"].to_numpy())},
        {"time": ("particle", arrays["day"]), "feature": ["g1", "g2"]},
    ).assign({"rate": ("particle", arrays["rate"]), "batch": ("particle", table["batch"].to_numpy(str))})

    for data in (
        read_snapshots(source, **ROLES),
        read_snapshots(table, value=["g1", "g2"], **ROLES),
        read_snapshots(tmp_path / "a.csv", value=["g1", "g2"], **ROLES),
        read_snapshots(tmp_path / "a.npz", **ROLES),
        read_snapshots(stacked, **ROLES),
    ):
        np.testing.assert_array_equal(data["x"], source.X)
        assert data["condition"].values.tolist() == list("xxyyxy")
        np.testing.assert_array_equal(data["weight"], [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(data["growth"], source.obs["rate"])
        assert "condition" in data.coords and {"weight", "growth"} <= set(data.data_vars)


def test_what_has_a_role_is_no_feature_and_numbers_stay_numbers() -> None:
    table = cells().obs.assign(g1=range(6))

    data = read_snapshots(table.reset_index(drop=True), condition="plate", growth="rate")

    assert data["feature"].values.tolist() == ["share", "g1"]
    assert data["condition"].values.tolist() == [2, 2, 1, 1, 2, 1]


def test_cells_keep_their_order_and_names() -> None:
    source = cells()
    data = read_snapshots(source)

    assert data["cell"].values.tolist() == source.obs_names.tolist()
    by_time = data.isel(particle=np.argsort(data["time"].values, kind="stable"))
    labels = source.obs["batch"].loc[by_time["cell"].values]
    assert labels.tolist() == ["x", "y", "y", "x", "y", "x"]


@pytest.mark.parametrize(
    ("change", "roles", "remedy"),
    [
        ({}, {"condition": "batches"}, r"no column 'batches' \(condition=\).*did you mean condition='batch'"),
        (
            {"batch": ["x", None, "x", "y", "y", "y"]},
            {"condition": "batch"},
            r"'batch' is empty for particle 1",
        ),
        ({"share": [1, 1, -1, 1, 1, 1]}, {"weight": "share"}, "'weight' is negative at particle=2"),
        ({"rate": [0, 0, 0, np.nan, 0, 0]}, {"growth": "rate"}, r"'growth' is nan at particle=3"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    change: dict[str, Any], roles: dict[str, str], remedy: str
) -> None:
    source = cells()
    for name, values in change.items():
        source.obs[name] = values

    with pytest.raises(ValueError, match=remedy):
        read_snapshots(source, **roles)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (CLOUDS, r"condition='batch' names one value per particle, but a list has no columns.*assign_coords"),
        ({0.0: CLOUDS[0], 1.0: CLOUDS[1]}, "a dict has no columns"),
        (np.ones((2, 3, 2)), "a ndarray has no columns"),
        ({"x": np.ones((2, 3, 2))}, r"x is a grid \(2, 3, 2\) of times and particles"),
        (wanted(), r"no variable 'batch' over 'particle' \(condition=\), only \['time'\]"),
    ],
)
def test_a_role_where_there_are_no_columns_is_refused(source: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        read_snapshots(source, times=[0, 1], condition="batch")


def paths(**coords: Any) -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(3, 4, 2))
    return xr.Dataset(
        {"x": (("particle", "time", "feature"), values, {"units": "mm"})},
        {"time": ("time", [0.0, 0.5, 1.0, 2.5], {"units": "h"}), "feature": ["u", "v"], **coords},
        {"model": "SchrodingerBridge", "seed": 3, "extrapolation_from": [1.0, 2.0]},
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_trajectories_go_to_anndata_and_back(dtype: type, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    given = paths(condition=("particle", ["a", "b", "a"])).astype(dtype)

    found = to_anndata(given)
    found.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")

    for table in (found, again):
        assert table.X.dtype == dtype and table.var_names.tolist() == ["u", "v"]
        assert table.obs_names.is_unique
        assert table.obs["particle"].tolist() == np.repeat([0, 1, 2], 4).tolist()
        assert table.obs["time"].tolist() == [0.0, 0.5, 1.0, 2.5] * 3
        assert table.obs["condition"].tolist() == list("aaaabbbbaaaa")
        np.testing.assert_array_equal(table.X.reshape(3, 4, 2), given["x"])
        kept = {"model": "SchrodingerBridge", "seed": 3, "units": "mm", "time_units": "h"}
        assert dict(table.uns["seqdyn"]) == kept
    data = read_snapshots(again, time="time", units="mm")
    stacked = stack_snapshots(given.drop_vars("condition"))
    order = np.lexsort([again.obs["particle"], again.obs["time"]])
    np.testing.assert_array_equal(data["x"][order], stacked["x"])
    np.testing.assert_array_equal(data["time"][order], stacked["time"])


def test_snapshots_go_to_anndata_and_back() -> None:
    pytest.importorskip("anndata")

    found = to_anndata(wanted())

    data = read_snapshots(found, time="time", units="mm")
    xr.testing.assert_identical(data.drop_vars("cell"), wanted())
    assert found.obs["particle"].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (xr.Dataset({"y": ("particle", [1.0])}), r"found \['y'\]"),
        (xr.Dataset({"x": (("time", "feature"), np.ones((2, 2)))}), r"found \('time', 'feature'\)"),
    ],
)
def test_what_is_no_trajectory_is_refused(given: xr.Dataset, found: str) -> None:
    with pytest.raises(ValueError, match=rf"need 'x' with the dims.*{found}; pass what model\.infer"):
        to_anndata(given)


def test_without_anndata_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)

    with pytest.raises(ImportError, match=r'pip install "seqdyn\[anndata\]"'):
        to_anndata(paths())


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


def test_two_snapshots_at_one_time_are_refused() -> None:
    clouds = [np.zeros((3, 2)), np.ones((3, 2)), np.ones((2, 2))]

    with pytest.raises(ValueError, match=r"2 snapshots are at the time 0; .*join them with np.concatenate"):
        read_snapshots(clouds, times=[0, 0, 1])


def test_one_time_can_be_read_and_compared_with_but_not_learned_from(tmp_path: Path) -> None:
    from seqdyn.models import SchrodingerBridge
    from seqdyn.sde.drifts import Zero

    whole = frame()
    whole[whole["day"] == 2.5].to_csv(tmp_path / "truth.csv", index=False)

    held_out = read_snapshots(tmp_path / "truth.csv", time="day", value=["u", "v"])

    assert held_out["time"].values.tolist() == [2.5] * 4
    assert read_snapshots({2.5: CLOUDS[1]}).sizes == {"particle": 4, "feature": 2}
    model = SchrodingerBridge(2, 1.0, Zero())
    with pytest.raises(ValueError, match=r"two or more times, got only \[2\.5\]; add those of other times"):
        model.fit(held_out, max_epochs=1, enable_progress_bar=False)
    uneven = read_snapshots(whole.assign(batch=["x"] * 8 + ["y"]), condition="batch", value=["u", "v"])
    with pytest.raises(ValueError, match=r"condition 'y' has snapshots at \[10\.0\] only"):
        model.fit(uneven, max_epochs=1, enable_progress_bar=False)


@pytest.mark.parametrize(
    ("times", "digits"),
    [
        ([0.0, 3.0, 3.0000000000000004], 6),
        ([0.3, 0.1 + 0.2], 6),
        ([0.0, 1e-9, 3e-9, 3.0000000000000004e-9], 11),
        (np.array([0, 0.3, np.nextafter(np.float32(0.3), np.float32(1))], dtype=np.float32), 6),
    ],
)
def test_times_that_differ_by_rounding_are_refused(times: Any, digits: int) -> None:
    table = pd.DataFrame({"day": np.repeat(times, 2), "u": np.arange(2.0 * len(times))})

    remedy = rf"differ by rounding alone.*df\['day'\] = df\['day'\]\.round\({digits}\)"
    with pytest.raises(ValueError, match=remedy):
        read_snapshots(table, time="day")
    with pytest.raises(ValueError, match=r"times=np\.round"):
        read_snapshots([np.ones((2, 2))] * len(times), times=times)
    read_snapshots(table.assign(day=table["day"].round(digits)), time="day")


def test_times_close_beside_their_span_are_kept() -> None:
    times = [0.0, 1e-6, 1e-5, 1.0, 100.0]

    data = read_snapshots([np.ones((2, 2))] * 5, times=times)

    assert np.unique(data["time"]).tolist() == times


def test_the_log_names_what_was_taken_for_what(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="seqdyn"):
        read_snapshots(frame().assign(note="text", plate=1), condition="plate")
        wide = pd.DataFrame(np.zeros((4, 10)), columns=[f"g{i}" for i in range(10)])
        read_snapshots(wide.assign(day=[0, 0, 1, 1]))
        read_snapshots(cells())

    first, second, third = caplog.messages
    assert first.endswith("10: 2); time=day; features u, v; ignored note")
    assert second.endswith("; time=day; features g0, g1, g2, g3, g4, g5, g6, g7, ...")
    assert third.endswith("; time=day; features g1, g2")


def test_a_time_that_may_be_either_column_is_not_guessed() -> None:
    table = frame().assign(hour=1.0)

    with pytest.raises(ValueError, match="columns 'day' and 'hour' look like .* time; pass time='day', or"):
        read_snapshots(table)
    assert read_snapshots(table, time="day")["feature"].values.tolist() == ["u", "v", "hour"]
    for known in ({"value": ["u", "hour"]}, {"condition": "hour"}):  # these say what hour is
        assert read_snapshots(table, **known)["time"].values.tolist() == TIMES.tolist()
    source = cells()
    source.obs["stage"] = 1
    with pytest.raises(ValueError, match="obs columns 'day' and 'stage' look like"):
        read_snapshots(source)


def test_a_feature_that_a_typo_made_text_is_warned_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    frame().astype({"u": object}).replace({"u": {8.0: "n.d."}}).to_csv(tmp_path / "a.csv", index=False)

    with pytest.warns(
        UserWarning, match=r"'u' is text .* 8 of its 9 .* but for 'n\.d\.' in row 4; .*'coerce'"
    ):
        read_snapshots(tmp_path / "a.csv")
    read_snapshots(tmp_path / "a.csv", value="v")
    read_snapshots(frame().assign(note=["1", "2", *"abcdefg"]))
    assert not recwarn.list


def test_a_dict_with_times_as_text_is_ordered_by_their_number() -> None:
    by_time = {"10": CLOUDS[2], "2.5": CLOUDS[1], "0": CLOUDS[0]}

    xr.testing.assert_identical(read_snapshots(by_time, value=["u", "v"], units="mm"), wanted())


@pytest.mark.parametrize("as_text", [False, True])
def test_dates_are_refused_with_a_line_that_makes_days_of_them(as_text: bool) -> None:
    day = pd.Series(pd.date_range("2024-03-01", periods=3).repeat(3), name="day").reset_index(drop=True)
    table = frame().assign(day=day.astype(str) if as_text else day)

    with pytest.raises(ValueError, match=r"'day' are dates, such as 2024-03-01") as refused:
        read_snapshots(table)
    scope: dict[str, Any] = {"pd": pd, "day": table["day"]}
    exec(str(refused.value).partition("days: ")[2].rstrip("."), scope)
    assert scope["day"].tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3


def test_a_table_of_paths_says_which_rows_are_extrapolated() -> None:
    x = np.arange(12.0).reshape(2, 3, 2)
    data = xr.Dataset(
        {"x": (("particle", "time", "feature"), x)}, {"time": [1.0, 2.0, 3.0], "feature": ["u", "v"]}
    )
    assert "extrapolated" not in to_pandas(data)

    one = to_pandas(data.assign_attrs(extrapolation_from=2.0))
    each = to_pandas(data.assign_coords(extrapolation_from=("particle", [0.0, 2.5])))

    assert one["extrapolated"].tolist() == [False, False, True] * 2
    assert each["extrapolated"].tolist() == [True, True, True, False, False, True]
    assert "extrapolated" not in read_snapshots(one)["feature"].values
