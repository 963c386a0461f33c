"""Labelled arrays of other shapes and names as a sequence dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.columns import TIME_NAMES
from seqdyn.data.grid import build_sequences, place_on_grid, regular_grid
from seqdyn.data.names import COVARIATE, COVARIATES, FEATURE, OBSERVED, SAMPLE, SERIES, TARGET, TIME
from seqdyn.data.schema import check_sequences, frequency
from seqdyn.data.stamps import read_stamps, read_zoned_stamps
from seqdyn.data.times import as_stamps, check_timezone

__all__ = ["from_xarray"]


def from_xarray(
    data: xr.Dataset | xr.DataArray,
    *,
    time: str | None = None,
    series: str | None = None,
    value: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] = (),
    freq: str | float | None = None,
    timezone: str | None = None,
    units: str | None = None,
    date_format: str | None = None,
) -> xr.Dataset:
    """Sequence dataset from a Dataset or DataArray.

    One that follows the schema already keeps everything it holds. In any other, dims are renamed, missing
    ones added, NaN becomes ``observed=False``, and what is not named is left out.

    Args:
        data: Labelled arrays.
        time: Name of the dim of time.
        series: Name of the dim of series.
        value: Name of the variable of values; several are the features.
        covariates: Names of variables over time, and perhaps series, that are known in the future too.
        freq: Frequency, or numeric step; needed where stamps have more than a few gaps.
        timezone: Zone of the stamps.
        units: Unit of the values.
        date_format: ``strptime`` format of text stamps, or unit ("s", "ms") of Unix time.

    Raises:
        ValueError: If a part is missing or ambiguous, or the result violates the schema.
    """
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or TARGET)
    given = [argument is not None for argument in (time, series, value, freq, timezone, date_format)]
    if not any(given) and not covariates and _follows_schema(data):
        return _completed(data, units)
    names = _value_names(data, value)
    time = _time_dim(data[names[0]], time)
    array = _with_dims(_joined(data, names), time, series, names)
    values = _masked_values(data, array, time, series, names)
    stamps, zone = _stamps(data, time, timezone, date_format, len(array[TIME]))
    _refuse_repeats(stamps, time)
    grid = regular_grid(stamps, freq, zone)
    place = place_on_grid(stamps, grid)
    extra, extra_names = _covariate_values(data, covariates, array, time, series)
    result = build_sequences(
        _spread(values, place, len(grid.values)),
        grid,
        series=array[SERIES].values,
        features=array[FEATURE].values.tolist(),
        units=units or data[names[0]].attrs.get("units"),
        covariates=None if extra is None else _spread(extra, place, len(grid.values)),
        covariate_names=extra_names,
    )
    result.attrs.update(data.attrs)
    check_sequences(result)
    return result


def _spread(values: np.ndarray, place: np.ndarray, steps: int) -> np.ndarray:
    """(M, T, C) onto the grid (M, steps, C), NaN where nothing falls."""
    out = np.full((len(values), steps, values.shape[2]), np.nan, dtype=values.dtype)
    out[:, place] = values
    return out


def _joined(data: xr.Dataset, names: list[str]) -> xr.DataArray:
    """One variable, or several along the dim of features."""
    if SAMPLE in data[names[0]].dims:
        raise ValueError(
            f"{names[0]!r} holds draws (dim 'sample'), as a forecast does; reduce them first: "
            "data.mean('sample') or data.quantile(0.5, 'sample')."
        )
    if len(names) == 1:
        return data[names[0]]
    bare = [data[name].drop_vars(FEATURE, errors="ignore") for name in names]
    index = pd.Index(names, name=FEATURE)
    return xr.concat(bare, index, coords="minimal", compat="override", join="exact")


def _masked_values(
    data: xr.Dataset, array: xr.DataArray, time: str, series: str | None, names: list[str]
) -> np.ndarray:
    """Values (M, T, C), NaN where a mask of the dataset says so."""
    values = array.values.astype(np.float32 if array.dtype == np.float32 else np.float64)
    if OBSERVED not in data:
        return values
    mask = _with_dims(data[OBSERVED], time, series, names).values.astype(bool)
    return np.where(np.broadcast_to(mask, values.shape), values, np.nan)


def _follows_schema(data: xr.Dataset) -> bool:
    return TARGET in data and data[TARGET].dims == (SERIES, TIME, FEATURE) and TIME in data.coords


def _completed(data: xr.Dataset, units: str | None) -> xr.Dataset:
    """A dataset of the schema with its mask, stamps in nanoseconds and its frequency noted."""
    data = data.copy(deep=False)
    if OBSERVED not in data:
        data[OBSERVED] = data[TARGET].notnull()
    elif data[OBSERVED].dtype != bool:
        data[OBSERVED] = data[OBSERVED].astype(bool)
    if units is not None:
        data[TARGET] = data[TARGET].assign_attrs(units=units)
    if data[TIME].dtype.kind == "M":
        attrs = data[TIME].attrs
        data = data.assign_coords({TIME: (TIME, as_stamps(data[TIME].values).to_numpy(), attrs)})
    check_sequences(data)
    if data[TIME].dtype.kind == "M":
        data[TIME].attrs["freq"] = frequency(data)
    return data


def _value_names(data: xr.Dataset, value: str | Sequence[str] | None) -> list[str]:
    names = [value] if isinstance(value, str) else list(value or [])
    for name in names:
        if name not in data:
            raise ValueError(
                f"there is no variable {name!r} (value=), the variables are "
                f"{sorted(map(str, data.data_vars))}; pass value= one of them."
            )
    if names:
        return names
    numeric = [
        str(n) for n, v in data.data_vars.items() if v.dtype.kind in "iuf" and n not in (OBSERVED, COVARIATES)
    ]
    if TARGET in numeric or len(numeric) == 1:
        return [TARGET] if TARGET in numeric else numeric
    raise ValueError(
        f"the values may be any of the variables {numeric}; pass value='NAME', or value=[...] for several "
        "features."
        if numeric
        else f"no variable holds numbers, found {sorted(map(str, data.data_vars))}; pass value='NAME'."
    )


def _time_dim(array: xr.DataArray, time: str | None) -> str:
    dims = [str(dim) for dim in array.dims]
    if time is not None:
        if time in dims:
            return time
        raise ValueError(
            f"{array.name!r} has no dim {time!r} (time=), its dims are {dims}; pass time= one of them."
        )
    dated = [dim for dim in dims if dim in array.coords and array[dim].dtype.kind == "M"]
    named = [dim for dim in dims if dim.lower() in TIME_NAMES]
    found = dated[:1] or named[:1] or (dims if len(dims) == 1 else [])
    if not found:
        raise ValueError(
            f"none of the dims {dims} of {array.name!r} looks like time; pass time= one of them."
        )
    return found[0]


def _with_dims(array: xr.DataArray, time: str, series: str | None, names: list[str]) -> xr.DataArray:
    """The array over (series, time, feature); dims that it lacks are added."""
    rest = [str(dim) for dim in array.dims if dim not in (time, FEATURE)]
    if series is None:
        series = SERIES if SERIES in rest else (rest[0] if rest else None)
    elif series not in array.dims:
        raise ValueError(
            f"{array.name!r} has no dim {series!r} (series=), its dims are {list(array.dims)}; pass one of "
            "them."
        )
    features = [dim for dim in rest if dim != series]
    if len(features) > 1 or (features and FEATURE in array.dims):
        raise ValueError(
            f"{array.name!r} has the dims {list(array.dims)}; name the one of the series with series=, and "
            "stack the others first: data.stack(feature=[...])."
        )
    array = array.rename({k: v for k, v in ((time, TIME), (series, SERIES)) if k is not None and k != v})
    if features:
        array = array.rename({features[0]: FEATURE})
    for dim, labels in ((SERIES, names[:1] if len(names) == 1 else [0]), (FEATURE, names[:1])):
        if dim not in array.dims:
            array = array.drop_vars(dim, errors="ignore").expand_dims({dim: labels})
        elif dim not in array.coords:
            array = array.assign_coords({dim: np.arange(array.sizes[dim])})
    return array.transpose(SERIES, TIME, FEATURE)


def _stamps(
    data: xr.Dataset, time: str, timezone: str | None, date_format: str | None, steps: int
) -> tuple[pd.DatetimeIndex | np.ndarray, str | None]:
    if time not in data.coords:
        return np.arange(steps), None
    index = data[time]
    values = index.to_index().to_datetimeindex(time_unit="ns") if _is_cftime(index) else index.values
    noted = index.attrs.get("timezone")
    if noted is not None:  # the stamps are UTC already
        return read_stamps(pd.Series(values, name=time)).values, check_timezone(timezone or str(noted))
    stamps = read_zoned_stamps(pd.Series(values, name=time), timezone, date_format=date_format)
    return stamps.values, stamps.timezone


def _is_cftime(index: xr.DataArray) -> bool:
    return isinstance(index.to_index(), xr.CFTimeIndex)


def _refuse_repeats(stamps: pd.DatetimeIndex | np.ndarray, time: str) -> None:
    repeated = pd.Index(stamps).duplicated()
    if repeated.any():
        raise ValueError(
            f"the dim {time!r} holds the stamp {stamps[int(repeated.argmax())]} more than once "
            f"({int(repeated.sum())} repeats); drop them with data.drop_duplicates({time!r}) or average with "
            f"data.groupby({time!r}).mean()."
        )


def _covariate_values(
    data: xr.Dataset, covariates: str | Sequence[str], array: xr.DataArray, time: str, series: str | None
) -> tuple[np.ndarray | None, list[str]]:
    names = [covariates] if isinstance(covariates, str) else list(covariates)
    if not names and COVARIATES in data:
        known = data[COVARIATES].transpose(..., time, COVARIATE)
        labels = known[COVARIATE].values.tolist()
        return np.broadcast_to(known.values, (*array.shape[:2], len(labels))), [
            str(label) for label in labels
        ]
    columns = []
    for name in names:
        if name not in data:
            raise ValueError(
                f"there is no variable {name!r} (covariates=), the variables are "
                f"{sorted(map(str, data.data_vars))}."
            )
        columns.append(
            np.broadcast_to(_with_dims(data[name], time, series, [name]).values[:, :, 0], array.shape[:2])
        )
    return (np.stack(columns, axis=2).astype(np.float64) if columns else None), names
