"""Reading snapshots: clouds of particles at a few times, from files and from memory."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.cells import anndata_values, read_h5ad
from seqdyn.data.cloud_times import SNAPSHOT_TIMES, check_rounding, listed, order_times, time_name
from seqdyn.data.columns import as_list, find_column, flat_frame, to_numbers
from seqdyn.data.convert import stack_snapshots
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
from seqdyn.data.names import CELL, CONDITION, EXTRAPOLATED, FEATURE, GROWTH, PARTICLE, TIME, WEIGHT, X
from seqdyn.data.schema import check_snapshots

__all__ = ["order_times", "read_snapshots"]

_log = logging.getLogger("seqdyn")
_FORMATS = ("csv", "parquet", "netcdf", "zarr", "numpy", "anndata")


def read_snapshots(
    source: Any,
    *,
    time: str | None = None,
    value: str | Sequence[str] | None = None,
    times: Sequence[float] | np.ndarray | None = None,
    representation: str | None = None,
    condition: str | None = None,
    weight: str | None = None,
    growth: str | None = None,
    units: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Read snapshots from a file or from memory into the package's schema.

    Files: ``.npz`` and ``.npy``, ``.h5ad``, CSV, parquet, NetCDF, Zarr. In memory: AnnData, frames, Datasets,
    an array (time, particle, feature), a list of arrays (particle, feature), or a dict from time to array.

    Args:
        source: Path or object.
        time: Column, array or ``obs`` column that holds each particle's time; None takes the one whose name
            says so ("time", "day", "stage", ...), if it is the only one. Times written as text, "day
            10.5", are ordered by their number.
        value: Columns or array of the features; None takes all other numeric columns, or the array ``x``.
        times: One number per snapshot, for lists of arrays and arrays (time, particle, feature).
        representation: Key of ``obsm`` (such as "X_pca") for AnnData; None takes ``X``.
        condition: Column, array or ``obs`` column with the label of each particle's condition.
        weight: Such a column with each particle's weight, at least 0.
        growth: Such a column with the rate at which each particle multiplies, per unit of time.
        units: Unit of ``x``.
        **options: Passed to the reader of a CSV, parquet, NetCDF or Zarr file.

    One time is enough to compare a model with; a fit needs two.

    Returns:
        ``x (particle, feature)`` with the coordinates ``time (particle)`` and ``feature``, and what else was
        named; of AnnData also ``cell (particle)``, the names of the observations, in their order.

    Warns:
        UserWarning: If a column of a table is text and thus no feature, though most of it is numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the format needs an optional package; names the extra to install.
        TypeError: If an object of this type cannot be read.
        ValueError: On the first thing that cannot be read, with its place and what to type.
    """
    name = type(source).__name__
    if time is not None and not isinstance(time, str):
        raise ValueError(
            f"time={_shown(time)} is no name: time= names the column of each particle's time; pass the times "
            f"of snapshots, one number each, as times={_shown(time)}."
        )
    named = ((CONDITION, condition), (WEIGHT, weight), (GROWTH, growth))
    roles = {role: column for role, column in named if column is not None}
    found: Any = None  # where the time is
    ignored: list[Any] = []  # columns without a part
    if isinstance(source, str | os.PathLike):
        path = existing(source)
        name, source = path.name, _open(path, representation, options)
    if type(source).__module__.partition(".")[0] == "polars":
        source = frame_from_polars(source)
    if isinstance(source, pd.DataFrame):
        data, found, ignored = _from_table(source, time, value, roles, units)
    elif isinstance(source, xr.Dataset):
        data = _from_dataset(source, times, roles, units)
    elif type(source).__name__ == "AnnData":
        found = time_name(source.obs, time, "obs column", roles.values())
        data = _from_anndata(source, found, representation, roles, units)
    elif isinstance(source, Mapping) and not _are_times(source):
        data = _from_arrays(source, time, value, times, roles, units)
    elif time is not None and isinstance(source, Mapping | np.ndarray | list | tuple):
        raise ValueError(
            f"time={time!r} names a column, but a {name} has none; leave it out"
            + ("." if isinstance(source, Mapping) else ", and give one number per snapshot with times=[...].")
        )
    elif isinstance(source, Mapping | np.ndarray | list | tuple):
        _refuse_roles(roles, f"a {name} has no columns")
        if isinstance(source, Mapping):
            source = {float(key) if isinstance(key, str) else key: source[key] for key in source}
            times = sorted(source)
            source = [source[key] for key in times]
        data = stack_snapshots(source, times=times, features=value, units=units)
    else:
        raise TypeError(
            f"cannot read a {name}; pass a path, a frame, a Dataset, AnnData, an array or a list of arrays."
        )
    check_snapshots(data, min_times=1)
    check_rounding(data[TIME].values, found or time)
    _report(name, data, found, ignored)
    return data


def _are_times(arrays: Mapping[Any, Any]) -> bool:
    """Whether the keys are numbers, perhaps as text, and no names of arrays."""
    keys = pd.Series(list(arrays), dtype=object)
    if not all(isinstance(key, str) for key in keys):
        return True
    return len(keys) > 0 and bool(pd.to_numeric(keys, errors="coerce").notna().all())


def _shown(times: Any) -> str:
    """Times in one short line."""
    return repr(np.asarray(times).tolist()) if np.size(times) <= 6 else "[...]"


def _open(path: Path, representation: str | None, options: dict[str, Any]) -> Any:
    kind = file_format(path, _FORMATS)
    if kind in ("numpy", "anndata") and options:
        raise TypeError(
            f"{next(iter(options))!r} is no argument for reading a {path.suffix} file; leave it out."
        )
    if kind == "numpy":
        return load_arrays(path)
    if kind == "anndata":
        return read_h5ad(path)
    readers = {"csv": read_csv, "parquet": read_parquet, "netcdf": open_netcdf, "zarr": open_zarr}
    return readers[kind](path, **options)


def _from_table(
    frame: pd.DataFrame, time: str | None, value: Any, roles: dict[str, str], units: str | None
) -> tuple[xr.Dataset, Any, list[Any]]:
    """Snapshots, the column of their time, and columns that were left out."""
    frame = flat_frame(frame)
    if len(frame) == 0:
        raise ValueError(f"the table has no rows, only the columns {[str(name) for name in frame.columns]}.")
    taken = {find_column(frame, name, role) for role, name in roles.items()}
    time = time_name(frame, time, "column", taken | set(as_list(value)))
    taken.add(time)
    if value is None:
        names = [n for n in frame.columns if n not in taken and not str(n).startswith("Unnamed:")]
        names = [n for n in names if pd.api.types.is_numeric_dtype(frame[n].dtype) and n != EXTRAPOLATED]
    else:
        names = [find_column(frame, n, "value") for n in as_list(value)]
    if not names:
        raise ValueError(f"no numeric column is left beside {sorted(map(str, taken))}; pass value=[...].")
    x = np.stack([to_numbers(frame[name]) for name in names], axis=1)
    data = _with_roles(_dataset(x, order_times(frame[time]), names, units), frame, roles)
    ignored = [n for n in frame.columns if n not in taken and n not in names]
    if value is None:
        for name in ignored:
            _warn_of_text(frame[name])
    return data, time, ignored


def _warn_of_text(column: pd.Series) -> None:
    """Warn of a column that is left out though most of it can be read as numbers."""
    if pd.api.types.is_numeric_dtype(column.dtype) or isinstance(column.dtype, pd.CategoricalDtype):
        return
    text = column.dropna().astype(str)
    bad = pd.to_numeric(text, errors="coerce").isna().to_numpy()
    if len(text) and bad.mean() < 0.5:
        which = (
            f", but for {text.iloc[bad.argmax()]!r} in row {text.index[bad.argmax()]}" if bad.any() else ""
        )
        warnings.warn(
            f"the column {str(column.name)!r} is text and no feature, though {np.sum(~bad)} of its "
            f"{len(text)} values are numbers{which}; make it numbers, "
            f"pd.to_numeric(df[{str(column.name)!r}], errors='coerce'), and drop the rows that are NaN "
            "then, or name the features, value=[...].",
            stacklevel=4,
        )


def _from_dataset(data: xr.Dataset, times: Any, roles: dict[str, str], units: str | None) -> xr.Dataset:
    if X in data and data[X].ndim == 3:
        _refuse_roles(roles, f"x is a grid {data[X].dims}")
        return stack_snapshots(data, times=times, units=units)
    if units is not None and X in data:
        data = data.assign({X: data[X].assign_attrs(units=units)})
    for role, name in roles.items():
        if name not in data.variables or data[name].dims != (PARTICLE,):
            listed = [str(n) for n in data.variables if data[n].dims == (PARTICLE,)]
            raise ValueError(
                f"there is no variable {name!r} over 'particle' ({role}=), only {listed}; pass one of them."
            )
    frame = pd.DataFrame({name: data[name].values for name in roles.values()})
    return _with_roles(data, frame, roles)


def _from_anndata(
    data: Any, time: Any, representation: str | None, roles: dict[str, str], units: str | None
) -> xr.Dataset:
    x, names = anndata_values(data, representation)
    found = _dataset(x, order_times(data.obs[time]), names, units)
    found = found.assign_coords({CELL: (PARTICLE, data.obs_names.to_numpy(dtype=object))})
    return _with_roles(found, data.obs, roles)


def _from_arrays(
    arrays: Mapping[str, np.ndarray],
    time: str | None,
    value: Any,
    times: Any,
    roles: dict[str, str],
    units: str | None,
) -> xr.Dataset:
    """Arrays by name: ``x`` of each particle with its time, or a grid (time, particle, feature)."""
    x = arrays[_array_name(arrays, value)]
    if x.ndim == 3:
        _refuse_roles(roles, f"x is a grid {x.shape} of times and particles")
        if times is None:
            name = next((n for n in ([time] if time else SNAPSHOT_TIMES) if n in arrays), None)
            times = None if name is None else arrays[name]
        return stack_snapshots(x, times=times, units=units)
    if times is not None:
        raise ValueError(
            "times= is for one array per snapshot; here each particle has its own: pass time='NAME'."
        )
    taken = {*roles.values(), *as_list(value)}
    name = time_name(pd.DataFrame(columns=list(arrays)), time, "array", taken)
    x = x[:, None] if x.ndim == 1 else x
    stamps = arrays[name]
    if x.ndim != 2 or stamps.shape != (len(x),):
        raise ValueError(
            f"the values have shape {x.shape} and the times {name!r} {stamps.shape}; give one time per "
            "particle, or the values as (time, particle, feature) with times=[...]."
        )
    found = _dataset(
        x, order_times(pd.Series(stamps, name=name)), [f"x_{i}" for i in range(x.shape[1])], units
    )
    columns = {n: array for n, array in arrays.items() if array.shape == (len(x),)}
    return _with_roles(found, pd.DataFrame(columns), roles)


def _with_roles(data: xr.Dataset, frame: pd.DataFrame, roles: dict[str, str]) -> xr.Dataset:
    """Add the condition, weight and growth of each particle, from the columns that hold them."""
    for role, name in roles.items():
        column = frame[find_column(frame, name, role)]
        if role == CONDITION:
            data = data.assign_coords({role: (PARTICLE, _conditions(column))})
        else:
            data = data.assign({role: (PARTICLE, to_numbers(column))})
    return data


def _refuse_roles(roles: dict[str, str], why: str) -> None:
    if roles:
        role, name = next(iter(roles.items()))
        raise ValueError(
            f"{role}={name!r} names one value per particle, but {why}; read without it, and add the values: "
            f"data.{'assign_coords' if role == CONDITION else 'assign'}({role}=('particle', values))."
        )


def _conditions(column: pd.Series) -> np.ndarray:
    """Labels of conditions: numbers as they are, everything else as text."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"the condition {column.name!r} is empty for particle {int(missing.argmax())} "
            f"({int(missing.sum())} in all); drop these particles, or name theirs too."
        )
    labels = column.to_numpy()
    return labels if labels.dtype.kind in "iuf" else np.array([str(v) for v in labels], dtype=object)


def _array_name(arrays: Mapping[str, np.ndarray], value: Any) -> str:
    if value is not None:
        if value in arrays:
            return value
        raise ValueError(
            f"there is no array {value!r} (value=), the file holds {sorted(arrays)}; pass one of them."
        )
    named = [name for name in arrays if name.lower() in ("x", "xs")]
    large = [name for name, array in arrays.items() if array.ndim >= 2]
    found = named or large
    if len(found) != 1:
        raise ValueError(f"the values may be any of the arrays {found or sorted(arrays)}; pass value='NAME'.")
    return found[0]


def _dataset(x: np.ndarray, times: np.ndarray, names: Sequence[Any], units: str | None) -> xr.Dataset:
    floats = x.astype(np.float32 if x.dtype == np.float32 else np.float64)
    return xr.Dataset(
        {X: ((PARTICLE, FEATURE), floats, {} if units is None else {"units": units})},
        {TIME: (PARTICLE, times), FEATURE: np.array([str(name) for name in names], dtype=object)},
    )


def _report(name: str, data: xr.Dataset, time: Any, ignored: list[Any]) -> None:
    times, counts = np.unique(data[TIME].values, return_counts=True)
    at = [f"{t:g}: {n}" for t, n in zip(times, counts, strict=True)]
    _log.info(
        "read %s: %d particles (features: %d) at %d times (%s)%s; features %s%s",
        name,
        data.sizes[PARTICLE],
        data.sizes[FEATURE],
        len(times),
        listed(at),
        "" if time is None else f"; time={time}",
        listed(data[FEATURE].values if FEATURE in data.coords else range(data.sizes[FEATURE])),
        f"; ignored {listed(ignored)}" if ignored else "",
    )
