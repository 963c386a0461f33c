"""Plain arrays as a sequence dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.grid import Grid, build_sequences, place_on_grid, regular_grid
from seqdyn.data.schema import check_sequences
from seqdyn.data.stamps import read_stamps
from seqdyn.data.times import resolve_freq, time_grid

__all__ = ["from_numpy"]


def from_numpy(
    values: np.ndarray | Sequence[Any],
    *,
    time: Any = None,
    freq: str | float | None = None,
    start: Any = None,
    series: Sequence[Any] | None = None,
    features: Sequence[str] | None = None,
    units: str | None = None,
) -> xr.Dataset:
    """Sequence dataset from an array; NaN and masked entries become ``observed=False``.

    Args:
        values: (T,), (M, T) or (M, T, C), or a list of M arrays (T_m,) or (T_m, C) that begin together.
        time: T stamps: dates or numbers. None numbers the steps, or counts from ``start`` in steps of
            ``freq``.
        freq: Frequency, or numeric step; needed with ``start`` and where ``time`` has more than a
            few gaps.
        start: First stamp, instead of ``time``.
        series: M labels; default 0, 1, ....
        features: C names; default "value", or "value_0", "value_1", ....
        units: Unit of the values.

    Raises:
        ValueError: If shapes and labels disagree, or the result violates the schema.
    """
    array = _stack_series(values)
    num_series, num_steps, num_features = array.shape
    for name, given, size in (("series", series, num_series), ("features", features, num_features)):
        if given is not None and len(given) != size:
            raise ValueError(
                f"{name}= has {len(given)} labels but the values hold {size} (shape {array.shape}: series, "
                f"time, feature); give {size} labels or transpose the array."
            )
    if features is None:
        features = ["value"] if num_features == 1 else [f"value_{i}" for i in range(num_features)]
    labels = np.arange(num_series) if series is None else np.asarray(series)
    grid, place = _array_times(num_steps, time, freq, start)
    full = np.full((num_series, len(grid.values), num_features), np.nan, dtype=array.dtype)
    full[:, place] = array
    data = build_sequences(full, grid, series=labels, features=features, units=units)
    check_sequences(data)
    return data


def _stack_series(values: Any) -> np.ndarray:
    """Floats (M, T, C) of an array or of a list of arrays of unequal length."""
    if isinstance(values, list | tuple) and len(values) and all(np.ndim(v) in (1, 2) for v in values):
        return _pad([_as_floats(v) for v in values])
    array = _as_floats(values)
    if array.ndim == 1:
        array = array[None, :, None]
    elif array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            "values must have shape (time,), (series, time) or (series, time, feature) and hold something, "
            f"got {np.shape(values)}; reshape them first."
        )
    return array


def _as_floats(values: Any) -> np.ndarray:
    array = np.ma.asarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"values must be numbers, got an array of {array.dtype}; convert it with values.astype(float)."
        )
    floats = array.astype(np.float32 if array.dtype == np.float32 else np.float64)
    return floats.filled(np.nan) if isinstance(floats, np.ma.MaskedArray) else floats


def _pad(arrays: list[np.ndarray]) -> np.ndarray:
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        raise ValueError(
            f"all series must have the same features, got widths {sorted(widths)}; each array is (time,) or "
            "(time, feature)."
        )
    steps = max(len(array) for array in arrays)
    out = np.full((len(arrays), steps, widths.pop()), np.nan, dtype=np.result_type(*arrays))
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def _array_times(num_steps: int, time: Any, freq: str | float | None, start: Any) -> tuple[Grid, np.ndarray]:
    """Grid of an array's time axis and the place of each of its steps on it."""
    steps = np.arange(num_steps)
    if time is None:
        return _counted_times(num_steps, freq, start), steps
    if start is not None:
        raise ValueError("time= and start= both say when the series begin; leave one out.")
    time = time.values if isinstance(time, xr.DataArray) else time
    if len(time) != num_steps:
        raise ValueError(
            f"time= has {len(time)} stamps but the values hold {num_steps} steps (axis 1 is time); give one "
            "stamp per step or transpose the array."
        )
    stamps = read_stamps(pd.Series(time, name="time").reset_index(drop=True))
    numbers = stamps.values.asi8 if isinstance(stamps.values, pd.DatetimeIndex) else stamps.values
    back = np.diff(numbers) <= 0
    if back.any():
        i = int(back.argmax()) + 1
        raise ValueError(
            f"time= must increase strictly, but stamp {i} ({stamps.values[i]}) does not come after "
            f"{stamps.values[i - 1]}; sort first: order = np.argsort(time); values[:, order], time[order]."
        )
    grid = regular_grid(stamps.values, freq, stamps.timezone)
    return grid, place_on_grid(stamps.values, grid)


def _counted_times(num_steps: int, freq: str | float | None, start: Any) -> Grid:
    """Grid of ``num_steps`` from ``start``."""
    if isinstance(freq, str) or (start is not None and not isinstance(start, int | float | np.number)):
        if start is None or not isinstance(freq, str):
            missing = "start='2024-01-01'" if start is None else "freq='h'"
            raise ValueError(
                f"a time axis of dates needs its first stamp and frequency; pass also {missing}."
            )
        first = pd.Timestamp(start)
        zone = None if first.tz is None else str(first.tz)
        naive = first if zone is None else first.tz_convert("UTC").tz_localize(None)
        freq = resolve_freq(freq, first.tz_localize(None))
        return Grid(time_grid(naive, freq, periods=num_steps, timezone=zone), freq, zone)
    if freq is None and start is None:
        return Grid(np.arange(num_steps))
    step = 1 if freq is None else freq
    return Grid((0 if start is None else start) + step * np.arange(num_steps))
