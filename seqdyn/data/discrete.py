"""Discrete sequences from files, tables and arrays: labels become codes, and are kept beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.columns import as_list, find_column, find_series, flat_frame, infer_time, numbers_rows
from seqdyn.data.formats import existing, file_format, frame_from_polars, load_arrays
from seqdyn.data.labelled import from_xarray
from seqdyn.data.labels import encode
from seqdyn.data.names import FEATURE, OBSERVED, OUTCOME, SERIES, SYMBOL, TARGET, TIME
from seqdyn.data.read import READERS, from_memory, pick_arrays, refuse_options, report
from seqdyn.data.schema import check_sequences, observed_mask
from seqdyn.data.tables import table_to_sequences

__all__ = ["read_symbols"]

_FORMATS = ("csv", "parquet", "netcdf", "zarr", "numpy")
_VALUE_NAMES = ("symbol", "symbols", "state", "label", "target", "value", "y")


def read_symbols(
    source: Any,
    *,
    time: Any = None,
    series: Any = None,
    value: Any = None,
    symbols: Sequence[str | int] | None = None,
    freq: str | float | None = None,
    timezone: str | None = None,
    date_format: str | None = None,
    duplicates: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Read sequences of symbols, text or whole numbers, from a file or from memory.

    Files: CSV, parquet, NetCDF, Zarr and NumPy, as for :func:`seqdyn.data.read_sequences`. In memory: pandas
    and polars frames, xarray Datasets and DataArrays, arrays (time,) or (series, time), lists of unequal
    lists that begin together. The rows of a table without a column of time are numbered within each series.
    Empty cells, -1 among numbers, and steps that a series lacks are missing.

    Args:
        source: Path or object.
        time: Column, dim or array name of the time stamps; for arrays in memory the stamps themselves.
        series: Column (or columns) or dim that tells series apart; for arrays in memory the labels.
        value: Column or variable of the symbols; several columns are a series each.
        symbols: Labels in the order of their codes, for instance those of the training data,
            ``train.outcome.values``. ``None`` takes those that occur, sorted.
        freq: Frequency such as "h", or a number for numeric times; needed where stamps have more than a few
            gaps.
        timezone: Zone of naive stamps. Stored times are UTC.
        date_format: ``strptime`` format of text stamps, or unit ("s", "ms") of Unix time.
        duplicates: "first" or "last" takes one of several rows of a table for one series and stamp.
        **options: Passed to the reader of the file, such as ``sep`` or ``na_values`` for CSV, ``start`` for
            arrays.

    Returns:
        ``symbol (series, time)``, int64, -1 where missing, bool ``observed`` of the same dims, and the labels
        as the coordinate ``outcome``: ``data.outcome.values[codes]`` gives the labels of codes.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the format needs an optional package; names the extra to install.
        TypeError: If an object of this type cannot be read.
        ValueError: If values are no symbols (fractions, negative numbers other than -1, more than 1,000
            different ones, one that ``symbols`` lacks), or anything else cannot be read; with its place and
            what to type.
    """
    if duplicates not in (None, "first", "last"):
        raise ValueError(f"duplicates={duplicates!r} must be 'first' or 'last': symbols have no mean or sum.")
    names = {"time": time, "series": series, "value": value}
    stamps = {"freq": freq, "timezone": timezone, "date_format": date_format}
    name = type(source).__name__
    if not isinstance(source, str | os.PathLike):
        data, notes = _read(source, names, stamps, symbols, duplicates, options)
    else:
        path = existing(source)
        name, kind = path.name, file_format(path, _FORMATS)
        try:
            if kind == "numpy":
                names = pick_arrays(load_arrays(path), name, **names, default=SYMBOL)
                data, notes = _read(names["value"], names, stamps, symbols, duplicates, options)
            else:
                if kind == "csv":  # "None" and "NA" are labels like any other
                    options = {"keep_default_na": False, "na_values": [""], **options}
                data, notes = _read(READERS[kind](path, **options), names, stamps, symbols, duplicates, {})
        except ValueError as error:
            if name in str(error):
                raise
            raise ValueError(f"{name}: {error}") from error
    report(name, notes, data)
    return data


def _read(
    source: Any,
    names: dict[str, Any],
    stamps: dict[str, Any],
    symbols: Sequence[str | int] | None,
    duplicates: str | None,
    options: dict[str, Any],
) -> tuple[xr.Dataset, list[str]]:
    """The dataset, and notes on what was inferred."""
    if type(source).__module__.partition(".")[0] == "polars":
        source = frame_from_polars(source)
    if isinstance(source, pd.Series):
        source = source.to_frame("value" if source.name is None else source.name)
    if isinstance(source, np.ndarray | list | tuple):
        return _from_arrays(source, names, stamps | options, symbols), []
    refuse_options(options, f"a {type(source).__name__}")
    if isinstance(source, pd.DataFrame):
        return _from_table(source, names, stamps, symbols, duplicates)
    if isinstance(source, xr.Dataset | xr.DataArray):
        return _from_labelled(source, names, stamps, symbols), []
    raise TypeError(
        f"cannot read a {type(source).__name__}; pass a path, a pandas or polars frame, an xarray Dataset, "
        "an array or a list of lists."
    )


def _from_arrays(
    source: Any, names: dict[str, Any], settings: dict[str, Any], symbols: Sequence[str | int] | None
) -> xr.Dataset:
    rows = [_as_entries(row) for row in source] if _is_nested(source) else [_as_entries(source)]
    wrong = next((row.shape for row in rows if row.ndim != 1), None)
    if wrong is not None or not rows:
        raise ValueError(
            "symbols must have shape (time,) or (series, time), or be a list of lists, got "
            f"{np.shape(source) if wrong is None else (len(rows), *wrong)}; select or reshape them first."
        )
    codes, labels = encode({f"series {i}": pd.Series(row) for i, row in enumerate(rows)}, symbols)
    known = {"time": names["time"], "series": names["series"], "value": None, "covariates": ()}
    return _as_symbols(from_memory(codes, **known, **settings), labels)


def _is_nested(source: Any) -> bool:
    return all(np.ndim(row) > 0 for row in source) if isinstance(source, list | tuple) else source.ndim > 1


def _as_entries(row: Any) -> np.ndarray:
    """A series as an array, None where it is masked; a list keeps its entries as they are."""
    if isinstance(row, np.ma.MaskedArray):
        entries = row.data.astype(object)
        entries[np.ma.getmaskarray(row)] = None
        return entries
    return row if isinstance(row, np.ndarray) else np.array(row, dtype=object)


def _from_labelled(
    data: xr.Dataset | xr.DataArray,
    names: dict[str, Any],
    stamps: dict[str, Any],
    symbols: Sequence[str | int] | None,
) -> xr.Dataset:
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or SYMBOL)
    given = [part for part in (*names.values(), *stamps.values(), symbols) if part is not None]
    if (
        not given
        and SYMBOL in data
        and data[SYMBOL].dims == (SERIES, TIME)
        and data[SYMBOL].dtype.kind in "iu"
    ):
        return _completed(data)
    value = names["value"] or _variable(data)
    array = data[value]
    if OUTCOME in data.coords and array.dtype.kind in "iu":  # codes of labels
        labels = np.array([*data[OUTCOME].values.tolist(), None], dtype=object)
        low, high = int(array.min()), int(array.max())
        if low < -1 or high > len(labels) - 2:
            raise ValueError(
                f"the codes of {value!r} must lie between 0 and {len(labels) - 2}, one for each label of "
                f"{OUTCOME!r}, or be -1 where missing; got {low} to {high}."
            )
        array = array.copy(data=labels[array.values])
    (codes,), labels = encode({f"variable {value!r}": pd.Series(array.values.ravel())}, symbols)
    coded = data.drop_vars(OUTCOME, errors="ignore").assign(
        {value: array.copy(data=codes.reshape(array.shape))}
    )
    names = {**names, "value": value}
    return _as_symbols(from_xarray(coded, **names, **stamps), labels)


def _variable(data: xr.Dataset) -> str:
    names = [str(name) for name in data.data_vars if name != OBSERVED]
    if SYMBOL in names or len(names) == 1:
        return SYMBOL if SYMBOL in names else names[0]
    raise ValueError(f"the symbols may be any of the variables {names}; pass value='NAME'.")


def _completed(data: xr.Dataset) -> xr.Dataset:
    """A dataset of the schema with its mask and labels, its codes as they are."""
    bare = [dim for dim in (SERIES, TIME) if dim not in data.coords]
    data = data.assign_coords({dim: np.arange(data.sizes[dim]) for dim in bare})
    check_sequences(data, variable=SYMBOL)
    observed = observed_mask(data)[..., 0]
    symbol = data[SYMBOL].copy(data=np.where(observed, data[SYMBOL].values, -1).astype(np.int64))
    if OUTCOME not in data.coords:
        data = data.assign_coords({OUTCOME: np.arange(int(symbol.max()) + 1)})
    return data.assign({SYMBOL: symbol, OBSERVED: ((SERIES, TIME), observed)})


def _from_table(
    frame: pd.DataFrame,
    names: dict[str, Any],
    stamps: dict[str, Any],
    symbols: Sequence[str | int] | None,
    duplicates: str | None,
) -> tuple[xr.Dataset, list[str]]:
    frame = flat_frame(frame)
    time, series, value, notes = _columns(frame, **names)
    frame = frame[[*([] if time is None else [time]), *series, *value]]
    if time is None:
        time, rows = TIME, frame.groupby(series, sort=False).cumcount() if series else np.arange(len(frame))
        frame = frame.assign(**{TIME: rows})
        notes.append("no time column found, the rows of each series are numbered")
    if duplicates is None:
        _refuse_repeats(frame, time, series)
    codes, labels = encode({f"column {name!r}": frame[name] for name in value}, symbols)
    frame = frame.assign(**dict(zip(value, codes, strict=True)))
    data, more = table_to_sequences(
        frame, time=time, series=series, value=value, duplicates=duplicates, **stamps
    )
    return _as_symbols(data, labels), [f"{len(frame):,} rows", *notes, *more]


def _columns(
    frame: pd.DataFrame, *, time: Any, series: Any, value: Any
) -> tuple[Any | None, list[Any], list[Any], list[str]]:
    """Settle which column plays which part, and note what was inferred."""
    notes: list[str] = []
    fixed_series = [find_column(frame, name, "series") for name in as_list(series)]
    fixed_value = [find_column(frame, name, "value") for name in as_list(value)]
    free = [name for name in frame.columns if name not in (*fixed_series, *fixed_value)]
    free = [name for name in free if name == time or not numbers_rows(frame[name], name)]
    if time is not None:
        find_column(frame, time, "time")
    elif (time := infer_time(frame, free)) is not None:
        notes.append(f"time is column {time!r}")
    free = [name for name in free if name != time]
    if not fixed_series and len(fixed_value) < 2 and (found := find_series(frame, free)) is not None:
        fixed_series = [found]
        notes.append(f"series are told apart by column {found!r}")
    free = [name for name in free if name not in fixed_series]
    if not fixed_value:
        fixed_value = [_value_column(frame, free)]
        notes.append(f"symbols are column {fixed_value[0]!r}")
    if fixed_series and len(fixed_value) > 1:
        raise ValueError(
            f"series= does not go with several columns of symbols (value={fixed_value}), each of which is a "
            "series; name one column, or leave series= out."
        )
    return time, fixed_series, fixed_value, notes


def _value_column(frame: pd.DataFrame, free: list[Any]) -> Any:
    lower = {str(name).strip().lower(): name for name in reversed(free)}
    named = [lower[name] for name in _VALUE_NAMES if name in lower]
    if named or len(free) == 1:
        return named[0] if named else free[0]
    columns = [str(name) for name in free or frame.columns]
    raise ValueError(
        f"the symbols may be any of the columns {columns}; pass value={columns[0]!r}, or value={columns[:2]} "
        "for a series in each column."
    )


def _refuse_repeats(frame: pd.DataFrame, time: Any, series: list[Any]) -> None:
    repeated = frame.duplicated([*series, time]).to_numpy()
    if not repeated.any():
        return
    row = int(repeated.argmax())
    where = f"series {'/'.join(str(frame[name].iloc[row]) for name in series)!r}" if series else "the table"
    remedy = "all columns that tell" if series else "the column that tells"
    raise ValueError(
        f"{where} has several rows for time {frame[time].iloc[row]} ({int(repeated.sum()):,} duplicate rows "
        f"in all, the first is row {row}); pass series= {remedy} series apart, or duplicates='first' or "
        "'last'."
    )


def _as_symbols(data: xr.Dataset, labels: np.ndarray) -> xr.Dataset:
    """Codes along (series, time), from the numbers that they were read as; each feature is a series."""
    target = data[TARGET]
    values, series = target.values, data[SERIES].values
    if target.sizes[FEATURE] > 1:  # of one series
        values, series = values.transpose(2, 1, 0), data[FEATURE].values
    observed = ~np.isnan(values[..., 0])
    symbol = np.where(observed, values[..., 0], -1).astype(np.int64)
    dims = (SERIES, TIME)
    result = xr.Dataset(
        {SYMBOL: (dims, symbol), OBSERVED: (dims, observed)},
        {SERIES: series, TIME: data[TIME].variable, OUTCOME: labels},
        data.attrs,
    )
    check_sequences(result, variable=SYMBOL)
    return result
