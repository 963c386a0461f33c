"""A table, long or wide, as a sequence dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.columns import Columns, assign_columns, flat_frame, to_numbers
from seqdyn.data.grid import Grid, build_sequences, place_on_grid, regular_grid
from seqdyn.data.schema import check_sequences
from seqdyn.data.stamps import clock_change_hint, read_zoned_stamps
from seqdyn.data.times import wall_clock

__all__ = ["from_pandas", "table_to_sequences"]

_AGGREGATES = ("mean", "sum", "first", "last")
_MAX_CELLS_PER_ROW = 1_000


def from_pandas(
    frame: pd.DataFrame,
    *,
    time: Any | None = None,
    series: Any | Sequence[Any] | None = None,
    value: Any | Sequence[Any] | None = None,
    covariates: Any | Sequence[Any] = (),
    freq: str | float | None = None,
    timezone: str | None = None,
    units: str | None = None,
    date_format: str | None = None,
    duplicates: str | None = None,
) -> xr.Dataset:
    """Sequence dataset from a long table (one row per series and time) or a wide one (one column per series).

    Stamps that a series lacks on the common grid, and empty cells, become ``observed=False``.

    Args:
        frame: The table; a named index, or one of dates, counts as columns.
        time: Column of stamps: dates, text, numbers.
        series: Column, or columns, that tell series apart. None, and none found: the table is wide.
        value: Column of values; several are the features.
        covariates: Columns known in the past and in the future; needed in every cell of the grid.
        freq: Frequency ("h", "D", "B", "MS", ...) or numeric step; needed where more than a few stamps
            are missing from all series.
        timezone: Zone of naive stamps; aware stamps are shown in it. Stored times are UTC.
        units: Unit of the values.
        date_format: ``strptime`` format of text stamps, or unit ("s", "ms", ...) of Unix time.
        duplicates: What to do with several rows for one series and stamp: "mean", "sum", "first" or
            "last"; None refuses them.

    Returns:
        ``target`` and ``observed (series, time, feature)``, ``covariates (series, time, covariate)`` if any.

    Raises:
        ValueError: On the first thing that cannot be read, with its place and what to type.
    """
    return table_to_sequences(
        frame,
        time=time,
        series=series,
        value=value,
        covariates=covariates,
        freq=freq,
        timezone=timezone,
        units=units,
        date_format=date_format,
        duplicates=duplicates,
    )[0]


def table_to_sequences(
    frame: pd.DataFrame,
    *,
    freq: str | float | None = None,
    timezone: str | None = None,
    units: str | None = None,
    date_format: str | None = None,
    duplicates: str | None = None,
    **parts: Any,
) -> tuple[xr.Dataset, list[str]]:
    """As :func:`from_pandas`, and notes on what was inferred."""
    if duplicates is not None and duplicates not in _AGGREGATES:
        raise ValueError(f"duplicates={duplicates!r} is not one of {_AGGREGATES}.")
    frame = flat_frame(frame)
    if len(frame) == 0:
        raise ValueError(
            f"the table has no rows, only the columns {[str(name) for name in frame.columns]}; check the "
            "filter or export that made it."
        )
    columns = assign_columns(frame, **parts)
    codes, labels = _series_codes(frame, columns)
    stamps, zone = _read_times(frame, columns, codes, timezone, date_format)
    values = np.stack([to_numbers(frame[name]) for name in columns.value], axis=1)  # (R, V)
    extra = (
        np.stack([to_numbers(frame[name]) for name in columns.covariates], axis=1)
        if columns.covariates
        else None
    )
    repeated = _count_repeats(codes, stamps)
    if repeated.any():
        if duplicates is None:
            raise ValueError(_explain_repeats(frame, columns, labels, codes, stamps, repeated))
        columns.notes.append(f"{int(repeated.sum()):,} duplicate rows merged by duplicates={duplicates!r}")
        codes, stamps, values, extra = _merge(codes, stamps, values, extra, duplicates)
    else:
        columns.notes.append("no duplicate rows")
    grid = regular_grid(stamps, freq, zone)
    cells = len(labels) * len(grid.values)
    if cells > 10**6 and cells > _MAX_CELLS_PER_ROW * len(codes):
        raise ValueError(
            f"{len(codes):,} rows would be spread over a grid of {len(labels):,} series x "
            f"{len(grid.values):,} steps; check series=, pass a coarser freq= or resample the data."
        )
    data = _scatter(columns, labels, codes, place_on_grid(stamps, grid), grid, values, extra, units)
    check_sequences(data)
    return data, columns.notes


def _series_codes(frame: pd.DataFrame, columns: Columns) -> tuple[np.ndarray, pd.Index]:
    """Number of each row's series, and the sorted labels: strings or integers."""
    if columns.wide:
        return np.zeros(len(frame), dtype=np.int64), pd.Index(columns.value)
    if not columns.series:
        return np.zeros(len(frame), dtype=np.int64), pd.Index(
            columns.value[:1] if len(columns.value) == 1 else [0]
        )
    for name in columns.series:
        missing = frame[name].isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"the series column {name!r} is empty in row {int(missing.argmax())} ({int(missing.sum())} "
                f"such rows, the first row is 0); drop them with frame.dropna(subset=[{name!r}])."
            )
    if len(columns.series) > 1:
        column = frame[columns.series].astype(str).agg("/".join, axis=1)
    else:
        column = frame[columns.series[0]]
        if pd.api.types.is_float_dtype(column.dtype) and bool((column % 1 == 0).all()):
            column = column.astype(np.int64)
        column = column.astype(np.int64 if pd.api.types.is_integer_dtype(column.dtype) else str)
    codes, labels = pd.factorize(column.to_numpy(), sort=True)
    return codes, pd.Index(labels)


def _read_times(
    frame: pd.DataFrame, columns: Columns, codes: np.ndarray, timezone: str | None, date_format: str | None
) -> tuple[pd.DatetimeIndex | np.ndarray, str | None]:
    """One stamp per row (naive; UTC where a zone is known) and the zone."""
    if columns.time is None:
        return np.arange(len(frame)), None
    stamps = read_zoned_stamps(frame[columns.time], timezone, date_format=date_format, groups=codes)
    if stamps.note is not None:
        columns.notes.append(stamps.note)
    return stamps.values, stamps.timezone


def _count_repeats(codes: np.ndarray, stamps: pd.DatetimeIndex | np.ndarray) -> np.ndarray:
    """True for each row whose series and stamp an earlier row already holds."""
    return pd.DataFrame({"code": codes, "stamp": stamps}).duplicated().to_numpy()


def _explain_repeats(
    frame: pd.DataFrame,
    columns: Columns,
    labels: pd.Index,
    codes: np.ndarray,
    stamps: pd.DatetimeIndex | np.ndarray,
    repeated: np.ndarray,
) -> str:
    row = int(repeated.argmax())
    where = f"series {labels[codes[row]]!r}" if columns.series else "the table"
    by = [*map(str, columns.series), str(columns.time)]
    hint = clock_change_hint(stamps[repeated]) if isinstance(stamps, pd.DatetimeIndex) else ""
    known = {*columns.series, *columns.value, columns.time} if columns.series else {columns.time}
    free = [name for name in frame.columns if name not in known]
    split = next((name for name in free if _tells_apart(frame[name], codes, stamps)), None)
    if split is not None:
        names = [*map(str, columns.series), str(split)]
        return (
            f"{where} has several rows for time {stamps[row]} ({int(repeated.sum()):,} duplicate rows in "
            f"all, the first is row {row}); column {str(split)!r} tells them apart: pass "
            f"series={names if len(names) > 1 else names[0]!r}."
        )
    return (
        f"{where} has several rows for time {stamps[row]} ({int(repeated.sum()):,} duplicate rows in all, "
        f"the first is row {row}).{hint} {'Otherwise pass' if hint else 'Pass'} duplicates='mean', 'sum', "
        f"'first' or 'last', or aggregate them before: frame.groupby({by}, "
        "as_index=False).mean(numeric_only=True)."
    )


def _tells_apart(column: pd.Series, codes: np.ndarray, stamps: pd.DatetimeIndex | np.ndarray) -> bool:
    """Whether the column's few values split rows of equal series and stamps."""
    if pd.api.types.is_float_dtype(column.dtype) or column.nunique() > len(column) / 2:
        return False
    values = pd.factorize(column)[0]
    return not _count_repeats(codes * len(column) + values, stamps).any()


def _merge(
    codes: np.ndarray,
    stamps: pd.DatetimeIndex | np.ndarray,
    values: np.ndarray,
    extra: np.ndarray | None,
    how: str,
) -> tuple[np.ndarray, pd.DatetimeIndex | np.ndarray, np.ndarray, np.ndarray | None]:
    """One row per series and stamp; covariates take the first of several."""
    keys = pd.DataFrame({"code": codes, "stamp": stamps})
    groups = pd.DataFrame(values).groupby([keys["code"], keys["stamp"]])
    merged = groups.sum(min_count=1) if how == "sum" else groups.agg(how)
    if extra is not None:
        extra = pd.DataFrame(extra).groupby([keys["code"], keys["stamp"]]).first().to_numpy()
    stamp = merged.index.get_level_values("stamp")
    times = stamp if isinstance(stamps, pd.DatetimeIndex) else stamp.to_numpy()
    return merged.index.get_level_values("code").to_numpy(), times, merged.to_numpy(), extra


def _scatter(
    columns: Columns,
    labels: pd.Index,
    codes: np.ndarray,
    place: np.ndarray,
    grid: Grid,
    values: np.ndarray,
    extra: np.ndarray | None,
    units: str | None,
) -> xr.Dataset:
    """Rows into arrays (M, T, C), NaN in every cell that no row fills."""
    steps = len(grid.values)
    if columns.wide:
        target = np.full((len(labels), steps, 1), np.nan, dtype=values.dtype)
        target[:, place, 0] = values.T
    else:
        target = np.full((len(labels), steps, values.shape[1]), np.nan, dtype=values.dtype)
        target[codes, place] = values
    _check_not_all_missing(columns, labels, target)
    covariates = None
    if extra is not None:
        covariates = np.full((len(labels), steps, extra.shape[1]), np.nan)
        if columns.wide:
            covariates[:, place] = extra
        else:
            covariates[codes, place] = extra
        _check_covariates_known(columns, labels, grid, covariates)
    return build_sequences(
        target,
        grid,
        series=labels,
        features=["value"] if columns.wide else columns.value,
        units=units,
        covariates=covariates,
        covariate_names=columns.covariates,
    )


def _check_not_all_missing(columns: Columns, labels: pd.Index, target: np.ndarray) -> None:
    empty = np.isnan(target).all(axis=(1, 2))
    if not empty.any():
        return
    names = labels[empty].tolist()
    if columns.wide:
        remedy = f"frame.drop(columns={names[:5]})"
    elif len(columns.series) == 1:
        remedy = f"frame[~frame[{columns.series[0]!r}].isin({names[:5]})]"
    else:
        remedy = "their rows before reading"
    raise ValueError(
        f"series {names[0]!r} has no value at all, every cell is missing ({len(names)} such series); drop "
        f"with {remedy}."
    )


def _check_covariates_known(columns: Columns, labels: pd.Index, grid: Grid, covariates: np.ndarray) -> None:
    unknown = np.isnan(covariates)
    if not unknown.any():
        return
    m, t, f = np.unravel_index(int(unknown.argmax()), unknown.shape)
    stamp = grid.values[t]
    if isinstance(grid.values, pd.DatetimeIndex):
        stamp = wall_clock(grid.values[[t]], grid.timezone)[0]
    name = columns.covariates[f]
    raise ValueError(
        f"covariate {name!r} has no value for series {labels[m]!r} at {stamp} ({int(unknown.sum()):,} such "
        "cells); a covariate must be known at every step of the common grid, also before a series begins and "
        f"after it ends: add the rows (with an empty value) or fill it, for instance frame[{name!r}].ffill()."
    )
