"""Ill-formed frames, arrays and Datasets: each meets another check, and the message names its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import (
    check_episodes,
    check_sequences,
    check_snapshots,
    from_numpy,
    from_pandas,
    read_sequences,
    stack_snapshots,
)

DAYS = pd.date_range("2024-01-01", periods=6, name="ds")


def panel() -> xr.Dataset:
    return from_numpy(np.arange(12.0).reshape(2, 6), time=DAYS, series=["a", "b"], features=["y"])


def changed(change: Callable[[xr.Dataset], Any], **arguments: Any) -> Callable[[], object]:
    """Check a good panel after this change."""

    def act() -> None:
        data = panel()
        result = change(data)
        check_sequences(data if result is None else result, **arguments)

    return act


def with_value(value: float) -> Callable[[xr.Dataset], None]:
    def change(data: xr.Dataset) -> None:
        data["target"].values[1, 2, 0] = value

    return change


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"ds": DAYS, **columns})


def snapshots() -> xr.Dataset:
    return stack_snapshots([np.ones((3, 2)), np.zeros((4, 2))], times=[0.0, 1.0])


def episodes() -> xr.Dataset:
    x, y = np.zeros((2, 3, 1)), np.array([[0, 1, 1], [1, 0, 0]])
    return xr.Dataset(
        {
            "support_x": (("task", "support", "input"), x),
            "support_y": (("task", "support"), y),
            "query_x": (("task", "query", "input"), x),
            "query_y": (("task", "query"), y),
        }
    )


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "frame_all_missing_series": (
        lambda: from_pandas(pd.concat([frame(id="a", y=1.0), frame(id="b", y=np.nan)])),
        r"series 'b' has no value at all.*drop with frame\[~frame\['id'\]\.isin\(\['b'\]\)\]",
    ),
    "frame_all_missing_column": (
        lambda: from_pandas(frame(a=1.0, b=np.nan)),
        r"series 'b' has no value.*frame\.drop\(columns=\['b'\]\)",
    ),
    "frame_infinite": (lambda: from_pandas(frame(y=[1, 2, np.inf, 4, 5, 6])), r"infinite in row 2.*replace"),
    "frame_complex": (lambda: from_pandas(frame(y=1j), value="y"), r"complex.*as two columns"),
    "frame_dates_as_values": (lambda: from_pandas(frame(y=DAYS), value="y"), r"not numbers.*\.dt\.hour"),
    "frame_repeated_column": (
        lambda: from_pandas(pd.DataFrame([[1, 2]], columns=["y", "y"])),
        r"'y' occurs more than once; rename",
    ),
    "frame_column_levels": (
        lambda: from_pandas(
            pd.DataFrame(np.ones((2, 2)), columns=pd.MultiIndex.from_product([["a"], [1, 2]]))
        ),
        r"several levels; flatten",
    ),
    "frame_index_is_also_a_column": (
        lambda: from_pandas(frame(y=1.0).set_index("ds", drop=False)),
        r"'ds' is a column and a level of the index; drop one",
    ),
    "frame_without_rows": (lambda: from_pandas(frame(y=1.0).iloc[:0]), r"no rows.*check the filter"),
    "frame_without_values": (lambda: from_pandas(frame()), r"no column is left for the values.*value="),
    "frame_series_without_time": (
        lambda: from_pandas(pd.DataFrame({"id": ["a", "b", "a"], "y": 1.0})),
        r"needs a time column; pass time=",
    ),
    "frame_no_numbers": (
        lambda: from_pandas(frame(id=["a", "b"] * 3, note=list("uvwxyz"))),
        r"no numeric column is left.*pass value=",
    ),
    "frame_boolean_time": (lambda: from_pandas(frame(t=True, y=1.0), time="t"), r"holds bool.*time="),
    "frame_mixed_type_time": (
        lambda: from_pandas(pd.DataFrame({"t": ["2024-01-01", 5], "y": 1.0}), time="t"),
        r"mixes types; row 1 is 5.*pd\.to_datetime",
    ),
    "frame_time_out_of_range": (
        lambda: from_pandas(pd.DataFrame({"t": ["1300-01-01", "1301-01-01"], "y": 1.0}), time="t"),
        r"no date between 1678 and 2261",
    ),
    "frame_grid_too_large": (
        lambda: from_pandas(
            frame(y=1.0).assign(ds=DAYS[:1].append(DAYS[:5] + pd.Timedelta("999D"))), freq="s"
        ),
        r"would be spread over a grid.*coarser freq=",
    ),
    "frame_value_in_another_case": (lambda: from_pandas(frame(y=1.0), value="Y"), r"did you mean value='y'"),
    "frame_unknown_merge": (
        lambda: from_pandas(frame(y=1.0), duplicates="max"),
        r"duplicates='max' is not one of",
    ),
    "array_beyond_float32": (lambda: from_numpy([1.0, 1e39]), r"1e\+39 at series=0.*beyond float32.*/ 1e30"),
    "array_of_text": (lambda: from_numpy(np.array(["a", "b"])), r"must be numbers.*astype\(float\)"),
    "array_with_four_axes": (lambda: from_numpy(np.ones((2, 2, 2, 2))), r"shape \(time,\).*reshape"),
    "array_labels_do_not_match": (
        lambda: from_numpy(np.ones((2, 5)), series=["a", "b", "c"]),
        r"3 labels but the values hold 2.*give 2 labels or transpose",
    ),
    "array_stamps_do_not_match": (
        lambda: from_numpy(np.ones((2, 5)), time=DAYS),
        r"6 stamps but the values hold 5.*one stamp per step",
    ),
    "array_time_not_monotone": (
        lambda: from_numpy(np.ones(6), time=DAYS[[0, 2, 1, 3, 4, 5]]),
        r"must increase strictly, but stamp 2.*sort first",
    ),
    "array_frequency_without_start": (lambda: from_numpy(np.ones(5), freq="h"), r"pass also start="),
    "array_time_and_start": (lambda: from_numpy(np.ones(6), time=DAYS, start=0), r"leave one out"),
    "list_of_unequal_widths": (lambda: from_numpy([np.ones((4, 2)), np.ones((3, 1))]), r"widths \[1, 2\]"),
    "object_of_no_known_type": (lambda: read_sequences({"a": 1}), r"cannot read a dict; pass a path"),
    "option_for_nothing": (
        lambda: read_sequences(frame(y=1.0), sep=";"),
        r"'sep' is no argument.*leave it out",
    ),
    "dataset_unmarked_nan": (
        changed(lambda d: d.drop_vars("observed").where(d["target"] < 8)),
        r"NaN at series='b' \(index 1\), time='2024-01-03' \(index 2\).*assign\(observed=",
    ),
    "dataset_infinite": (changed(with_value(-np.inf)), r"infinite at series='b'.*np\.isfinite"),
    "dataset_all_missing_series": (
        changed(lambda d: d.assign(observed=d["observed"] & (d["series"] == "a"))),
        r"series 'b' has no observed value.*drop_sel\(series=\['b'\]\)",
    ),
    "dataset_mask_not_bool": (
        changed(lambda d: d.assign(observed=d["observed"].astype(float))),
        r"'observed' must be bool.*rebuild it",
    ),
    "dataset_wrong_name": (changed(lambda d: d.rename(target="y")), r"needs the variable 'target'.*rename"),
    "dataset_wrong_dims": (
        changed(lambda d: d.transpose("time", "series", "feature")),
        r"must have dims.*data\.transpose\('series', 'time', 'feature'",
    ),
    "dataset_without_labels": (
        changed(lambda d: d.drop_vars("series")),
        r"needs labels.*assign_coords\(series=",
    ),
    "dataset_repeated_labels": (
        changed(lambda d: d.assign_coords(series=["a", "a"])),
        r"'a' occurs 2 times; rename",
    ),
    "dataset_float_labels": (
        changed(lambda d: d.assign_coords(series=[0.5, 1.5])),
        r"must be strings or integers.*astype\(str\)",
    ),
    "dataset_without_time": (changed(lambda d: d.drop_vars("time")), r"'time' needs stamps.*pd\.date_range"),
    "dataset_time_as_text": (
        changed(lambda d: d.assign_coords(time=list("uvwxyz"))),
        r"'time' must be datetime64 or numbers.*pd\.to_datetime",
    ),
    "dataset_time_backwards": (changed(lambda d: d.isel(time=[0, 1, 3, 2])), r"index 3.*sortby\('time'\)"),
    "dataset_every_second_step": (
        changed(lambda d: d.isel(time=[0, 2, 4])),
        r"not regular in steps of freq='D'.*index 1 is 2024-01-03.*attrs\['freq'\]",
    ),
    "dataset_numeric_time_with_gap": (
        changed(lambda d: d.assign_coords(time=[0, 1, 2, 3, 4, 6])),
        r"step to index 5 \(time=6\) is 2, the usual one 1.*reindex",
    ),
    "dataset_one_step_of_unknown_length": (
        changed(lambda d: d.isel(time=[0]).assign_coords(time=DAYS.values[:1])),
        r"frequency of 1 time stamp\(s\) is unknown.*attrs\['freq'\]",
    ),
    "dataset_too_short": (changed(lambda d: None, min_length=7), r"have 6 time steps but 7.*context_length"),
    "dataset_empty": (changed(lambda d: d.isel(time=[])), r"'target' is empty.*how the data were selected"),
    "dataset_text_target": (
        changed(lambda d: d.assign(target=d["target"].astype(str))),
        r"real numbers.*astype",
    ),
    "dataset_covariate_with_nan": (
        changed(
            lambda d: d.assign(
                covariates=(("series", "time", "covariate"), np.full((2, 6, 1), np.nan))
            ).assign_coords(covariate=["temp"])
        ),
        r"'covariates' is nan at series='a'.*fillna",
    ),
    "dataset_negative_symbols": (
        lambda: check_sequences(
            xr.Dataset({"symbol": (("series", "time"), [[0, -2]])}, {"series": ["a"], "time": [0, 1]}),
            variable="symbol",
        ),
        r"integers from 0, or -1 where missing.*read_symbols",
    ),
    "no_dataset": (lambda: check_sequences(np.ones(3)), r"expected an xarray\.Dataset.*read_sequences"),
    "draws_instead_of_sequences": (
        lambda: read_sequences(xr.DataArray(np.ones((2, 6)), dims=("sample", "time"))),
        r"holds draws.*mean\('sample'\)",
    ),
    "labelled_array_of_many_dims": (
        lambda: read_sequences(xr.DataArray(np.ones((2, 2, 2, 6)), dims=("lat", "lon", "level", "time"))),
        r"name the one of the series with series=.*stack",
    ),
    "labelled_array_repeated_stamp": (
        lambda: read_sequences(xr.DataArray(np.ones(3), {"time": DAYS.values[[0, 1, 1]]}, "time")),
        r"more than once.*drop_duplicates",
    ),
    "snapshots_wrong_name": (
        lambda: check_snapshots(snapshots().rename(x="z")),
        r"needs the variable 'x'.*rename",
    ),
    "snapshots_wrong_dims": (
        lambda: check_snapshots(snapshots().transpose()),
        r"transpose\('particle', 'feature'\)",
    ),
    "snapshots_without_time": (
        lambda: check_snapshots(snapshots().drop_vars("time")),
        r"needs its snapshot time",
    ),
    "snapshots_at_one_time": (
        lambda: check_snapshots(snapshots().isel(particle=[0, 1])),
        r"two or more times",
    ),
    "snapshots_with_dates": (
        lambda: check_snapshots(snapshots().assign_coords(time=("particle", DAYS[[0, 0, 0, 1, 1, 1, 1]]))),
        r"must be finite numbers.*days_since_start",
    ),
    "snapshots_with_nan": (
        lambda: check_snapshots(snapshots().where(snapshots()["x"].notnull() & (np.arange(7) != 4)[:, None])),
        r"1 of 7 particles with NaN.*first at particle=4.*isel\(particle=~bad\)",
    ),
    "snapshots_of_unequal_width": (
        lambda: stack_snapshots([np.ones((3, 2)), np.ones((3, 1))], times=[0, 1]),
        r"one width.*common features",
    ),
    "snapshots_with_an_empty_marginal": (
        lambda: stack_snapshots([np.ones((3, 2)), np.full((3, 2), np.nan)], times=[0, 5]),
        r"snapshot 1 \(time 5\) has no particle; leave it out",
    ),
    "episodes_unseen_label": (
        lambda: check_episodes(episodes().assign(query_y=(("task", "query"), [[0, 1, 1], [0, 2, 1]]))),
        r"label 2 at task=1, query=1.*isel\(task=",
    ),
    "episodes_float_labels": (
        lambda: check_episodes(episodes().assign(support_y=episodes()["support_y"] * 1.0)),
        r"must hold integer class labels.*astype\(int\)",
    ),
    "episodes_nan_input": (
        lambda: check_episodes(episodes().assign(support_x=episodes()["support_x"] * np.nan)),
        r"'support_x' is nan at task=0.*fillna",
    ),
    "episodes_different_inputs": (
        lambda: check_episodes(episodes().rename(input="pixel")),
        r"'support_x' must have dims \('task', 'support', 'input'\).*rename",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_object_is_refused_with_a_remedy(case: str) -> None:
    act, remedy = CASES[case]

    with pytest.raises((ValueError, TypeError), match=f"(?s){remedy}"):
        act()


@pytest.mark.parametrize(
    ("case", "values"),
    {
        "constant": np.full((2, 30), 7.25),
        "all zero": np.zeros((2, 30)),
        "one series": np.arange(30.0)[None],
        "one value seen": np.where(np.arange(30) == 11, 3.0, np.nan)[None],
        "large": np.full((1, 30), 3e38),
        "tiny": np.full((1, 30), 1e-300),
        "integers": np.arange(30).reshape(1, 30),
        "single step": np.ones((3, 1)),
    }.items(),
)
def test_awkward_but_legal_values_are_kept(case: str, values: np.ndarray) -> None:
    data = from_numpy(values)

    check_sequences(data)
    np.testing.assert_array_equal(data["target"].values[:, :, 0], values)
    np.testing.assert_array_equal(data["observed"].values[:, :, 0], ~np.isnan(values))
