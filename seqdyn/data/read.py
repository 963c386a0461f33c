"""Reading sequences from files, tables and arrays; what is inferred is logged in a few lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.arrays import from_numpy
from seqdyn.data.clouds import read_snapshots
from seqdyn.data.formats import (
    existing,
    file_format,
    frame_from_polars,
    load_arrays,
    open_netcdf,
    open_zarr,
    read_csv,
    read_parquet,
)
from seqdyn.data.items import assemble, read_gluonts, read_tsf, tsf_date_format
from seqdyn.data.labelled import from_xarray
from seqdyn.data.names import FEATURE, OBSERVED, SERIES, TARGET, TIME
from seqdyn.data.schema import summary
from seqdyn.data.stamps import read_zoned_stamps
from seqdyn.data.tables import table_to_sequences

__all__ = [
    "READERS",
    "from_memory",
    "pick_arrays",
    "read_sequences",
    "read_snapshots",
    "refuse_options",
    "report",
]

_log = logging.getLogger("seqdyn")
_FORMATS = ("csv", "parquet", "netcdf", "zarr", "gluonts", "tsf", "numpy")
READERS: dict[str, Callable[..., Any]] = {
    "csv": read_csv,
    "parquet": read_parquet,
    "netcdf": open_netcdf,
    "zarr": open_zarr,
}


def read_sequences(
    source: Any,
    *,
    time: Any = None,
    series: Any = None,
    value: Any = None,
    covariates: str | Sequence[str] = (),
    freq: str | float | None = None,
    timezone: str | None = None,
    units: str | None = None,
    date_format: str | None = None,
    duplicates: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Read sequences from a file or from memory into the package's schema.

    Files: CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``), parquet, NetCDF, Zarr, GluonTS JSON lines
    (``.json``, ``.jsonl``), Monash ``.tsf``, NumPy (``.npz``, ``.npy``). In memory: pandas and polars frames,
    xarray Datasets and DataArrays, arrays (time,), (series, time) or (series, time, feature), lists of them.
    A table is long (one row per series and time) or wide (one column per series). Stamps that a series lacks
    on the common grid, and empty cells, become ``observed=False``.

    Args:
        source: Path or object.
        time: Column, dim or array name of the time stamps; for arrays in memory the stamps themselves.
        series: Column (or columns) or dim that tells series apart; for arrays in memory the labels.
        value: Column or variable of the values; several are the features.
        covariates: Columns or variables that are known in the past and in the future.
        freq: Frequency such as "h", "30min", "D", "B", "MS", or a number for numeric times. Needed for
            a single stamp, and where stamps have more than a few gaps; a few are filled in with a warning.
        timezone: Zone of naive stamps, for instance "Europe/Zurich". Stored times are UTC.
        units: Unit of the values.
        date_format: ``strptime`` format of text stamps, or unit ("s", "ms") of Unix time.
        duplicates: "mean", "sum", "first" or "last" merges several rows of a table for one series and stamp.
        **options: Passed to the reader of the file: ``sep``, ``decimal``, ``na_values``, ``usecols``, ... for
            CSV, ``columns`` for parquet, ``group`` for NetCDF and Zarr, ``start`` for arrays.

    Returns:
        ``target`` and bool ``observed (series, time, feature)``, perhaps ``covariates``; the frequency in
        ``time.attrs["freq"]``, the zone in ``time.attrs["timezone"]``, the unit in ``target.attrs["units"]``.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the format needs an optional package; names the extra to install.
        TypeError: If an object of this type cannot be read.
        ValueError: On the first thing that cannot be read, with its place and what to type.
    """
    request: dict[str, Any] = {
        "time": time,
        "series": series,
        "value": value,
        "covariates": covariates,
        "freq": freq,
        "timezone": timezone,
        "units": units,
    }
    dated = {"date_format": date_format, "duplicates": duplicates}
    if isinstance(source, str | os.PathLike):
        path = existing(source)
        name = path.name
        try:
            data, notes = _read_file(path, request, dated, options)
        except ValueError as error:
            if name in str(error):
                raise
            raise ValueError(f"{name}: {error}") from error
    else:
        name, (data, notes) = type(source).__name__, _read_object(source, request, dated, options)
    report(name, notes, data)
    return data


def report(name: str, notes: list[str], data: xr.Dataset) -> None:
    """Log what was read and what was understood."""
    _log.info("%s", "; ".join([f"read {name}", *notes]))
    for line in summary(data).splitlines():
        _log.info("  %s", line)


def _read_file(
    path: Path, request: dict[str, Any], dated: dict[str, Any], options: dict[str, Any]
) -> tuple[xr.Dataset, list[str]]:
    kind = file_format(path, _FORMATS)
    if kind in READERS:
        return _read_object(READERS[kind](path, **options), request, dated, {})
    if kind == "numpy":
        return _from_archive(path, **request, date_format=dated["date_format"], **options), []
    refuse_options(options, f"a {path.suffix} file")
    items, freq, notes = (read_gluonts if kind == "gluonts" else read_tsf)(path, request["freq"])
    date_format = dated["date_format"] or (tsf_date_format(items) if kind == "tsf" else None)
    value = request["value"]
    data = assemble(
        items,
        freq=freq,
        timezone=request["timezone"],
        units=request["units"],
        features=[value] if isinstance(value, str) else value,
        date_format=date_format,
    )
    return data, [f"{len(items):,} series", *notes]


def _read_object(
    source: Any, request: dict[str, Any], dated: dict[str, Any], options: dict[str, Any]
) -> tuple[xr.Dataset, list[str]]:
    if type(source).__module__.partition(".")[0] == "polars":
        source = frame_from_polars(source)
    if isinstance(source, pd.Series):
        source = source.to_frame("value" if source.name is None else source.name)
    if isinstance(source, np.ndarray | list | tuple):
        return from_memory(source, **request, date_format=dated["date_format"], **options), []
    refuse_options(options, f"a {type(source).__name__}")
    if isinstance(source, pd.DataFrame):
        data, notes = table_to_sequences(source, **request, **dated)
        return data, [f"{len(source):,} rows", *notes]
    if isinstance(source, xr.Dataset | xr.DataArray):
        return from_xarray(source, **request, date_format=dated["date_format"]), []
    raise TypeError(
        f"cannot read a {type(source).__name__}; pass a path, a pandas or polars frame, an xarray Dataset, "
        "an array or a list of arrays."
    )


def refuse_options(options: dict[str, Any], what: str) -> None:
    """Refuse options that the reader of ``what`` does not take.

    Raises:
        TypeError: If there is one.
    """
    if options:
        raise TypeError(f"{next(iter(options))!r} is no argument for reading {what}; leave it out.")


def from_memory(
    source: Any,
    *,
    time: Any,
    series: Any,
    value: Any,
    covariates: Any,
    timezone: str | None,
    date_format: str | None,
    **settings: Any,
) -> xr.Dataset:
    """Arrays, their stamps and labels, as :func:`read_sequences` takes them."""
    if covariates:
        raise ValueError(
            "arrays carry no covariates; pass a frame, or a Dataset with the variable 'covariates'."
        )
    if value is not None:
        settings["features"] = [value] if isinstance(value, str) else list(value)
    if timezone is not None and (time is None or len(time) == 0):
        raise ValueError("timezone= needs time stamps; pass also time=pd.date_range(...).")
    if time is not None:
        column = pd.Series(time.values if isinstance(time, xr.DataArray) else time).reset_index(drop=True)
        stamps = read_zoned_stamps(column.rename(TIME), timezone, date_format=date_format)
        time = stamps.values
        if stamps.timezone is not None:
            time = time.tz_localize("UTC").tz_convert(stamps.timezone)
    return from_numpy(source, time=time, series=series, **settings)


def _from_archive(
    path: Path, *, time: Any, series: Any, value: Any, covariates: Any, **settings: Any
) -> xr.Dataset:
    """Arrays of an ``.npz`` file under the names of the schema, or the names given."""
    arrays = load_arrays(path)
    picked = pick_arrays(arrays, path.name, value=value, time=time, series=series)
    values = np.asarray(picked["value"])
    if OBSERVED in arrays:
        mask = arrays[OBSERVED].astype(bool)
        values = np.where(mask if mask.ndim == values.ndim else mask[..., None], values, np.nan)
    features = arrays.get(FEATURE)
    return from_memory(
        values,
        time=picked["time"],
        series=picked["series"],
        value=None if features is None else features.astype(str).tolist(),
        covariates=covariates,
        **settings,
    )


def pick_arrays(
    arrays: dict[str, np.ndarray], file: str, *, value: Any, time: Any, series: Any, default: str = TARGET
) -> dict[str, np.ndarray | None]:
    """The arrays of a file that are meant: under the names given, or those of the schema.

    Raises:
        ValueError: If one is missing, or the values may be any of several.
    """
    names = value if value is not None else default if default in arrays else None
    large = [name for name, array in arrays.items() if array.ndim >= 2]
    if names is None:
        if len(large) != 1 and len(arrays) != 1:
            raise ValueError(
                f"the values may be any of the arrays {sorted(arrays)} in {file!r}; pass value='NAME'."
            )
        names = large[0] if large else next(iter(arrays))
    picked = {}
    for argument, name, usual in (
        ("value", names, default),
        ("time", time, TIME),
        ("series", series, SERIES),
    ):
        if name is not None and name not in arrays:
            raise ValueError(
                f"there is no array {name!r} ({argument}=) in {file!r}, it holds {sorted(arrays)}; pass one "
                "of them."
            )
        picked[argument] = arrays.get(name if name is not None else usual)
    return picked
