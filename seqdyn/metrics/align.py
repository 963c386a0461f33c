"""Put a forecast and the truth side by side by their labels, without ever shrinking either in silence."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.schema import FEATURE, OBSERVED, SAMPLE, SERIES, TARGET, TIME, observed_mask

__all__ = ["Aligned", "align", "draws_of", "values_of"]

_CELL = (SERIES, TIME, FEATURE)


class Aligned(NamedTuple):
    """A forecast and its truth, cell by cell.

    Attributes:
        draws: Sample paths, (S, M, P, C), float64, in the units of the forecast.
        truth: Observed values, (M, P, C), float64; 0 where unobserved.
        observed: Cells that count, (M, P, C), bool.
        forecast: The forecast's ``target``, for its coordinates and units.
    """

    draws: np.ndarray
    truth: np.ndarray
    observed: np.ndarray
    forecast: xr.DataArray


def align(forecast: xr.Dataset | xr.DataArray, truth: xr.Dataset | xr.DataArray) -> Aligned:
    """Match ``truth`` to ``forecast`` by label.

    Every series, time and feature of the forecast must be in the truth. The truth may reach beyond the
    forecast in time and is then cut by label; series and features must be the same on both sides.

    Args:
        forecast: Sample paths with dims sample, series, time, feature, or a Dataset holding them as
            ``target``.
        truth: What happened, dims series, time, feature, or a Dataset holding it as ``target`` and possibly
            its mask ``observed``. NaN counts as unobserved.

    Returns:
        Arrays of one shape, and the forecast they came from.

    Raises:
        ValueError: If dims, labels or units do not match, the forecast has no sample or is not finite where
            the truth is observed, or the truth is infinite; the message names the labels.
    """
    paths = draws_of(forecast)
    values, observed = values_of(truth)
    _check_units(paths, values)
    chosen = np.ix_(*(_positions(paths, values, dim) for dim in _CELL))
    draws, observed = paths.values.astype(np.float64), observed[chosen]
    _check_finite(draws, observed, paths)
    actual = np.where(observed, values.values.astype(np.float64)[chosen], 0.0)
    _check_infinite(actual, paths)
    return Aligned(draws, actual, observed, paths)


def draws_of(forecast: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return the sample paths of a forecast with dims sample, series, time, feature, in this order."""
    paths = _array(forecast, "forecast", (SAMPLE, *_CELL))
    if paths.sizes[SAMPLE] == 0:
        raise ValueError(
            "the forecast holds no sample path; ask for some with model.forecast(..., num_samples=100)."
        )
    return paths


def values_of(truth: xr.Dataset | xr.DataArray) -> tuple[xr.DataArray, np.ndarray]:
    """Return the values of the truth, dims series, time, feature, and the bool mask of those that count."""
    values = _array(truth, "truth", _CELL)
    observed = ~np.isnan(values.values.astype(np.float64))
    if isinstance(truth, xr.Dataset) and OBSERVED in truth:
        mask = truth[[TARGET, OBSERVED]].transpose(SERIES, TIME, FEATURE, missing_dims="ignore")
        observed &= observed_mask(mask)
    return values, observed


def _array(data: xr.Dataset | xr.DataArray, name: str, dims: tuple[str, ...]) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        if TARGET not in data:
            raise ValueError(
                f"the {name} needs the variable {TARGET!r}, found {sorted(map(str, data.data_vars))}; "
                f"rename yours with {name}.rename(NAME={TARGET!r})."
            )
        data = data[TARGET]
    if not isinstance(data, xr.DataArray):
        raise TypeError(
            f"the {name} must be an xarray Dataset or DataArray, got {type(data).__name__}; "
            "label an array with seqdyn.data.from_numpy(values, ...)."
        )
    if set(data.dims) != set(dims):
        raise ValueError(
            f"the {name} must have dims {dims}, got {data.dims}; add a missing one with "
            f"{name}.expand_dims(DIM=[LABEL]), rename one with {name}.rename(OLD=NEW)."
        )
    for dim in _CELL:
        if dim not in data.coords:
            raise ValueError(
                f"the {name} has no labels along {dim!r}, so it cannot be matched; "
                f"give them with {name}.assign_coords({dim}=...)."
            )
    return data.transpose(*dims)


def _check_units(forecast: xr.DataArray, truth: xr.DataArray) -> None:
    ours, theirs = forecast.attrs.get("units"), truth.attrs.get("units")
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(
            f"the forecast is in {ours!r} and the truth in {theirs!r}; convert one of them, "
            "or correct the label with truth.attrs['units'] = ..."
        )


def _positions(forecast: xr.DataArray, truth: xr.DataArray, dim: str) -> np.ndarray:
    """Return where each label of the forecast stands in the truth."""
    ours, theirs = forecast.indexes[dim], truth.indexes[dim]
    for name, labels in (("forecast", ours), ("truth", theirs)):
        if not labels.is_unique:
            repeated = _text(labels[labels.duplicated()][0])
            raise ValueError(
                f"the {name} holds {dim} {repeated} twice; keep one with {name}.drop_duplicates({dim!r})."
            )
    if dim == TIME and theirs.dtype.kind == "f" and theirs.is_monotonic_increasing and len(theirs) > 1:
        # Numeric times on both sides are sums of steps, equal only up to rounding.
        found = theirs.get_indexer(ours, method="nearest", tolerance=1e-6 * np.diff(theirs).min())
    else:
        found = theirs.get_indexer(ours)
    if (found < 0).any():
        missing = ours[found < 0]
        raise ValueError(
            f"the truth lacks {len(missing)} of {len(ours)} {dim} labels of the forecast: {_list(missing)}; "
            f"it has {_range(theirs)}. Score the labels both have with "
            f"forecast.sel({dim}=forecast.{dim}.isin(truth.{dim}))."
        )
    if dim != TIME and len(theirs) > len(ours):
        extra = theirs.difference(ours, sort=False)
        raise ValueError(
            f"the forecast lacks {len(extra)} of {len(theirs)} {dim} labels of the truth: {_list(extra)}; "
            f"score a part on purpose with truth.sel({dim}=forecast.{dim})."
        )
    return found


def _check_finite(draws: np.ndarray, observed: np.ndarray, paths: xr.DataArray) -> None:
    bad = ~np.isfinite(draws) & observed
    if bad.any():
        sample, *cell = (int(i[0]) for i in np.nonzero(bad))
        raise ValueError(
            f"the forecast has {bad.sum()} NaN or infinite values, the first at sample {sample}, "
            f"{_cell(paths, cell)}; hide such cells knowingly with "
            "truth.where(np.isfinite(forecast).all('sample'))."
        )


def _check_infinite(actual: np.ndarray, paths: xr.DataArray) -> None:
    bad = np.isinf(actual)
    if bad.any():
        cell = [int(i[0]) for i in np.nonzero(bad)]
        raise ValueError(
            f"the truth is infinite at {bad.sum()} cells, the first at {_cell(paths, cell)}; "
            "mark them as unobserved with truth.where(np.isfinite(truth))."
        )


def _cell(paths: xr.DataArray, index: list[int]) -> str:
    return ", ".join(f"{dim} {_text(paths.indexes[dim][i])}" for dim, i in zip(_CELL, index, strict=True))


def _text(label: Hashable) -> str:
    return repr(label) if isinstance(label, str) else str(label)


def _list(labels: pd.Index, limit: int = 5) -> str:
    return ", ".join(map(_text, labels[:limit])) + (", ..." if len(labels) > limit else "")


def _range(labels: pd.Index) -> str:
    return f"{_text(labels[0])} to {_text(labels[-1])} ({len(labels)})" if len(labels) else "none"
