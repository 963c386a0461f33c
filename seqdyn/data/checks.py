"""The single requirements that the schema checks are made of: dims, labels, numbers, a regular time axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.names import SYMBOL, TIME
from seqdyn.data.times import as_stamps, check_timezone, infer_freq, normalize_freq, time_grid

__all__ = [
    "check_finite",
    "check_labels",
    "check_numeric",
    "check_range",
    "check_time",
    "check_variable",
    "frequency",
    "plain",
    "where",
]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def plain(value: Any) -> Any:
    """A label, number or stamp as JSON holds it; midnight is written as the date alone."""
    if isinstance(value, np.datetime64):
        return str(pd.Timestamp(value)).removesuffix(" 00:00:00")
    return value.item() if isinstance(value, np.generic) else value


def where(array: xr.DataArray, bad: np.ndarray) -> str:
    """Coordinates and indices of the first true entry of ``bad``, for a message."""
    index = np.unravel_index(int(np.argmax(bad)), bad.shape)
    parts = []
    for dim, i in zip(array.dims, index, strict=True):
        label = f"{plain(array[dim].values[i])!r} (index {i})" if dim in array.coords else f"{i}"
        parts.append(f"{dim}={label}")
    return ", ".join(parts)


def check_variable(data: xr.Dataset, name: str, dims: tuple[str, ...], kind: str) -> None:
    """Require a non-empty numeric variable with exactly these dims."""
    if not isinstance(data, xr.Dataset):
        raise ValueError(
            f"expected an xarray.Dataset, got {type(data).__name__}; convert it with "
            "seqdyn.data.read_sequences(...), from_pandas(...) or from_numpy(...)."
        )
    if name not in data:
        raise ValueError(
            f"a {kind} dataset needs the variable '{name}', found {sorted(map(str, data.data_vars))}; rename "
            f"yours with data.rename(NAME='{name}')."
        )
    array = data[name]
    if array.dims != dims:
        raise ValueError(
            f"'{name}' must have dims {dims}, got {array.dims}; reorder with "
            f"data.transpose({', '.join(map(repr, dims))}, ...), rename with data.rename(OLD='NEW') or add a "
            "missing dim with data.expand_dims('NAME')."
        )
    if 0 in array.shape:
        raise ValueError(
            f"'{name}' is empty, its sizes are {dict(array.sizes)}; check how the data were selected."
        )
    if name != SYMBOL:
        check_numeric(array, name)


def check_numeric(array: xr.DataArray, name: str) -> None:
    """Require integers or real numbers."""
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"'{name}' must hold real numbers, got dtype {array.dtype}; convert with "
            f"data.assign({name}=data['{name}'].astype(float))."
        )


def check_finite(array: xr.DataArray, name: str) -> None:
    """Require finite numbers everywhere."""
    bad = ~np.isfinite(array.values)
    if bad.any():
        value = array.values[np.unravel_index(int(bad.argmax()), bad.shape)]
        raise ValueError(
            f"'{name}' is {value} at {where(array, bad)} ({int(bad.sum()):,} value(s) in all); it must be "
            f"finite everywhere: fill it, for instance data.assign({name}=data['{name}'].fillna(0.0))."
        )
    check_range(array, name)


def check_range(array: xr.DataArray, name: str, mask: np.ndarray | None = None) -> None:
    """Refuse numbers that float32, in which the models compute, would turn into infinity."""
    if array.dtype.itemsize <= 4:
        return
    large = np.abs(array.values.astype(np.float64)) > _FLOAT32_MAX
    if mask is not None:
        large &= mask
    if large.any():
        value = array.values[np.unravel_index(int(large.argmax()), large.shape)]
        raise ValueError(
            f"'{name}' is {value:.4g} at {where(array, large)}, beyond float32 (3.4e38), in which the models "
            f"compute; change the unit, for instance data.assign({name}=data['{name}'] / 1e30)."
        )


def check_labels(data: xr.Dataset, variable: str, dim: str) -> None:
    """Require a coordinate of unique strings or integers."""
    if dim not in data.coords or data[dim].dims != (dim,):
        raise ValueError(
            f"the dim '{dim}' of '{variable}' needs labels: data.assign_coords({dim}=[...]) with "
            f"{data[variable].sizes[dim]} entries."
        )
    labels = pd.Index(data[dim].values)
    if data[dim].dtype.kind not in "iuUT" and not all(isinstance(v, str | int | np.integer) for v in labels):
        raise ValueError(
            f"labels of '{dim}' must be strings or integers, got {data[dim].dtype} such as {labels[0]!r}; "
            f"convert with data.assign_coords({dim}=data['{dim}'].astype(str))."
        )
    if not labels.is_unique:
        label = labels[labels.duplicated()][0]
        count = int((labels == label).sum())
        raise ValueError(
            f"labels of '{dim}' must be unique, {plain(label)!r} occurs {count} times; rename with "
            f"data.assign_coords({dim}=[...]) or keep one with data.drop_duplicates('{dim}')."
        )


def frequency(data: xr.Dataset) -> str | float:
    """Step of the time axis: a pandas alias for datetimes, a number for numeric times (1 for a single one).

    Raises:
        ValueError: If it is neither recorded in ``data.time.attrs["freq"]`` nor visible in the stamps.
    """
    time = data[TIME]
    noted = time.attrs.get("freq")
    if time.dtype.kind != "M":
        if len(time) > 1:
            return float(time.values[-1] - time.values[0]) / (len(time) - 1)
        return 1.0 if noted is None else float(noted)
    if noted is not None:
        return normalize_freq(str(noted))
    if found := infer_freq(as_stamps(time.values), time.attrs.get("timezone")):
        return found
    raise ValueError(
        f"the frequency of {len(time)} time stamp(s) is unknown; state it: data.time.attrs['freq'] = 'h' "
        "(yours)."
    )


def check_time(data: xr.Dataset) -> None:
    """Require a strictly increasing and regular time axis of datetimes or numbers."""
    if TIME not in data.coords or data[TIME].dims != (TIME,):
        raise ValueError(
            "the dim 'time' needs stamps: data.assign_coords(time=pd.date_range('2024-01-01', periods=N, "
            "freq='h')), or numbers."
        )
    time = data[TIME]
    if time.dtype.kind not in "iufM":
        raise ValueError(
            f"'time' must be datetime64 or numbers, got dtype {time.dtype} such as {time.values[0]!r}; "
            "convert with data.assign_coords(time=pd.to_datetime(data['time'].values))."
        )
    is_date = time.dtype.kind == "M"
    bad = np.isnat(time.values) if is_date else ~np.isfinite(time.values)
    if bad.any():
        raise ValueError(
            f"'time' is missing at index {int(bad.argmax())}; drop that step with data.isel(time=~bad), bad "
            "= data.time.isnull().values."
        )
    values = as_stamps(time.values).asi8 if is_date else time.values
    back = values[1:] <= values[:-1]
    if back.any():
        i = int(np.argmax(back)) + 1
        raise ValueError(
            f"'time' must increase strictly, but index {i} ({plain(time.values[i])}) does not come after "
            f"{plain(time.values[i - 1])}; sort with data.sortby('time') and drop repeats with "
            "data.drop_duplicates('time')."
        )
    (_check_dates if is_date else _check_numbers)(data)


def _check_dates(data: xr.Dataset) -> None:
    time = data[TIME]
    stamps, zone = as_stamps(time.values), time.attrs.get("timezone")
    if zone is not None:
        check_timezone(zone)
    if "freq" not in time.attrs and len(stamps) > 1 and infer_freq(stamps, zone) is None:
        raise ValueError(
            f"'time' has no regular step between {stamps[0]} and {stamps[-1]}; read the data with "
            "read_sequences(..., freq='h') (your frequency) so that gaps become observed=False."
        )
    freq = str(frequency(data))
    off = time_grid(stamps[0], freq, periods=len(stamps), timezone=zone) != stamps
    if off.any():
        i = int(off.argmax())
        raise ValueError(
            f"'time' is not regular in steps of freq='{freq}' (time.attrs['freq']): index {i} is "
            f"{stamps[i]}; set the true one with data.time.attrs['freq'] = '...', or fill gaps with "
            "data.reindex(time=...) and observed=False."
        )


def _check_numbers(data: xr.Dataset) -> None:
    time = data[TIME]
    values, step = time.values.astype(np.float64), float(frequency(data))
    # Float stamps carry rounding of the size of their last digit; a real gap is a whole step.
    rounding = 4 * float(np.spacing(np.abs(time.values).max())) if time.dtype.kind == "f" else 0.0
    off = np.abs(np.diff(values) - step) > 1e-4 * step + rounding
    if off.any():
        # The common step, not the mean one: a single gap far behind would otherwise be blamed on index 1.
        gaps = np.abs(np.diff(values) - np.median(np.diff(values)))
        i = int(gaps.argmax()) + 1
        raise ValueError(
            f"'time' is not regular: the step to index {i} (time={values[i]:g}) is "
            f"{values[i] - values[i - 1]:g}, the usual one {np.median(np.diff(values)):g}; fill gaps with "
            "data.reindex(time=...) and observed=False, or interpolate to a regular axis."
        )
