"""The regular time grid under irregularly filled rows, and the Dataset built on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, Tick

from seqdyn.data.names import COVARIATE, COVARIATES, FEATURE, OBSERVED, SERIES, TARGET, TIME
from seqdyn.data.stamps import clock_change_hint
from seqdyn.data.times import infer_freq, normalize_freq, resolve_freq, time_grid, wall_clock

__all__ = ["Grid", "build_sequences", "place_on_grid", "regular_grid"]

_log = logging.getLogger("seqdyn")
_MAX_STEPS_PER_STAMP = 1_000
_REGULAR_SHARE = 0.9
_PLAIN_STEPS = [
    pd.Timedelta(text)
    for text in (
        "1s", "5s", "10s", "15s", "30s", "1min", "2min", "5min", "10min", "15min", "20min", "30min",
        "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1D", "2D", "7D",
    )
]  # fmt: skip


class Grid(NamedTuple):
    """Regular stamps: naive datetimes with a frequency and perhaps a time zone, or numbers without."""

    values: pd.DatetimeIndex | np.ndarray
    freq: str | None = None
    timezone: str | None = None

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes of the coordinate ``time``."""
        known = {"freq": self.freq, "timezone": self.timezone}
        return {name: value for name, value in known.items() if value is not None}


def regular_grid(
    stamps: pd.DatetimeIndex | np.ndarray, freq: str | float | None = None, timezone: str | None = None
) -> Grid:
    """Grid from the first to the last stamp on which all of them lie.

    Args:
        stamps: Stamps in any order, repeats allowed; naive (UTC where ``timezone`` is given) or numbers.
        freq: Frequency, or step of numeric stamps. None infers it, also where stamps have gaps if their step
            is beyond doubt: nine in ten stamps follow the one before at that step, all lie on its grid, and
            most of the grid is there. Gaps filled in this way are logged as a warning.
        timezone: Zone whose calendar counts days.

    Raises:
        ValueError: If the stamps are irregular without ``freq``, more than a few gaps apart, or miss the grid
            of ``freq``.
    """
    if isinstance(stamps, pd.DatetimeIndex):
        distinct = stamps.unique().sort_values()
        return _date_grid(distinct, freq, timezone)
    return _number_grid(np.unique(stamps), freq)


def place_on_grid(stamps: pd.DatetimeIndex | np.ndarray, grid: Grid) -> np.ndarray:
    """Index of each stamp in the grid, (R,); every stamp is known to lie on it."""
    if isinstance(stamps, pd.DatetimeIndex):
        return pd.DatetimeIndex(grid.values).get_indexer(stamps)
    step = (grid.values[-1] - grid.values[0]) / max(len(grid.values) - 1, 1)
    return np.rint((stamps - grid.values[0]) / (step or 1.0)).astype(np.int64)


def build_sequences(
    values: np.ndarray,
    grid: Grid,
    *,
    series: Sequence[Any] | np.ndarray,
    features: Sequence[Any],
    units: str | None = None,
    covariates: np.ndarray | None = None,
    covariate_names: Sequence[str] = (),
) -> xr.Dataset:
    """Sequence dataset from an array (M, T, C) in which NaN means missing."""
    dims = (SERIES, TIME, FEATURE)
    variables: dict[str, Any] = {
        TARGET: (dims, values, {} if units is None else {"units": units}),
        OBSERVED: (dims, ~np.isnan(values)),
    }
    time = grid.values.to_numpy() if isinstance(grid.values, pd.DatetimeIndex) else grid.values
    labels = np.asarray(series)
    if labels.dtype == object and pd.api.types.infer_dtype(labels) == "integer":
        labels = labels.astype(np.int64)
    coords: dict[str, Any] = {
        SERIES: labels.astype(np.int64) if labels.dtype.kind in "iu" else labels.astype(str).astype(object),
        TIME: (TIME, time, grid.attrs),
        FEATURE: np.array([str(name) for name in features], dtype=object),
    }
    if covariates is not None:
        variables[COVARIATES] = ((SERIES, TIME, COVARIATE), covariates)
        coords[COVARIATE] = np.array([str(name) for name in covariate_names], dtype=object)
    return xr.Dataset(variables, coords)


def _date_grid(distinct: pd.DatetimeIndex, freq: str | float | None, timezone: str | None) -> Grid:
    if freq is not None and not isinstance(freq, str):
        freq = normalize_freq(freq) if isinstance(freq, BaseOffset) else str(freq)
    if freq is None:
        found = infer_freq(distinct, timezone)
        if found is not None:
            return Grid(distinct, found, timezone)
        filled = _filled_grid(distinct, timezone)
        if filled is None:
            raise ValueError(_explain_irregular(distinct, timezone))
        return filled
    freq = resolve_freq(freq, wall_clock(distinct[:1], timezone)[0])
    if isinstance(offset := to_offset(freq), Tick):
        _refuse_sparse(len(distinct), int((distinct[-1] - distinct[0]) / pd.Timedelta(offset)), freq)
    grid = time_grid(distinct[0], freq, end=distinct[-1], timezone=timezone)
    off = ~distinct.isin(grid)
    if off.any():
        stamp = distinct[int(off.argmax())]
        raise ValueError(
            f"the stamp {stamp} does not lie on the grid of freq={freq!r} that starts at {distinct[0]} "
            f"({int(off.sum())} such stamps); pass the finer freq= they share, or round the stamps, for "
            "instance "
            f"frame[time].dt.floor({freq!r}).{clock_change_hint(wall_clock(distinct[off], timezone))}"
        )
    return Grid(grid, freq, timezone)


def _number_grid(distinct: np.ndarray, freq: str | float | None) -> Grid:
    if isinstance(freq, str):
        try:
            freq = float(freq)
        except ValueError as error:
            raise ValueError(
                f"freq={freq!r} needs dates but the time column holds numbers such as {distinct[0]}; pass a "
                "number as the step, freq=1, or date_format='s' if it is Unix time."
            ) from error
    steps = np.diff(distinct)
    usual = float(np.median(steps)) if len(steps) else 1.0
    step = usual if freq is None else float(freq)
    if step <= 0:
        raise ValueError(f"freq={freq!r} must be positive; pass the step between two time values.")
    place = (distinct - distinct[0]) / step
    # Float stamps such as 0.1, 0.2, 0.30000000000000004 are regular up to their rounding.
    off = np.abs(place - np.rint(place)) > 1e-4 * np.maximum(1.0, place * 1e-6)
    length = int(np.rint(place[-1])) + 1
    _refuse_sparse(len(distinct), length, step)
    if off.any():
        value = distinct[int(off.argmax())]
        raise ValueError(
            f"the time {value:g} does not lie on the grid from {distinct[0]:g} in steps of {step:g} "
            f"({int(off.sum())} such values); pass the step they share as freq=."
        )
    grid = distinct[0] + step * np.arange(length)
    gaps = freq is None and length != len(distinct)
    if gaps and _is_beyond_doubt(np.rint(place)):
        missing = grid[~np.isin(np.arange(length), np.rint(place))]
        _report_filled(f"{step:g}", length, len(missing), f"{missing[0]:g}", f"freq={step:g}")
    elif gaps:
        i = int(np.argmax(np.abs(steps - step) > 1e-4 * step)) + 1
        raise ValueError(
            f"time stamps are irregular: mostly {step:g} apart, but {distinct[i - 1]:g} is followed by "
            f"{distinct[i]:g}; pass freq={step:g} if that is a gap, which then counts as missing."
        )
    if len(distinct) == length:
        return Grid(distinct)
    whole = distinct.dtype.kind in "iu" and step.is_integer()
    return Grid(grid.astype(np.int64) if whole else grid)


def _refuse_sparse(num_stamps: int, length: int, freq: str | float) -> None:
    """Refuse a grid that would be empty but for a few stamps, before it fills the memory."""
    if length > 10**6 and length > _MAX_STEPS_PER_STAMP * num_stamps:
        raise ValueError(
            f"{num_stamps:,} different stamps would be spread over a grid of {length:,} steps of "
            f"freq={freq!r}; pass a coarser freq= or resample the data."
        )


def _filled_grid(distinct: pd.DatetimeIndex, timezone: str | None) -> Grid | None:
    """Grid of stamps with a few gaps, or None where their step is open to doubt."""
    if len(distinct) < 2:
        return None
    wall, steps = wall_clock(distinct, timezone), np.diff(distinct.asi8)
    usual = _usual_step(steps)
    if _clock_change(wall, steps, timezone):
        return None  # no gap, but local time whose zone is not known
    freq = _guess_freq(wall, usual)
    if (distinct[-1] - distinct[0]).value / usual > 10 * len(distinct):
        return None  # far too few for any grid of that step, which would fill the memory
    values = time_grid(distinct[0], freq, end=distinct[-1], timezone=timezone)
    place = values.get_indexer(distinct)
    if (place < 0).any() or not _is_beyond_doubt(place):
        return None
    missing = wall_clock(values[~values.isin(distinct)][:1], timezone)[0]
    _report_filled(repr(freq), len(values), len(values) - len(distinct), str(missing), f"freq={freq!r}")
    return Grid(values, freq, timezone)


def _is_beyond_doubt(place: np.ndarray) -> bool:
    """Whether stamps at these places of a grid are regular but for a few gaps."""
    regular = (np.diff(place) == 1).mean() >= _REGULAR_SHARE
    return bool(regular) and 2 * len(place) >= place[-1] + 1


def _report_filled(step: str, length: int, missing: int, first: str, request: str) -> None:
    _log.warning(
        "in steps of %s, %s of %s time stamps are missing, the first at %s: they are filled in as "
        "observed=False; pass %s to confirm that step, or resample the data first.",
        step, f"{missing:,}", f"{length:,}", first, request,
    )  # fmt: skip


def _clock_change(wall: pd.DatetimeIndex, steps: np.ndarray, timezone: str | None) -> str:
    """The hint of :func:`clock_change_hint` if hours are missing as when clocks go forward, else nothing."""
    usual = _usual_step(steps)
    if timezone is not None or usual >= pd.Timedelta("1D").value:
        return ""
    return clock_change_hint(wall[:-1][steps == 2 * usual])


def _usual_step(steps: np.ndarray) -> int:
    sizes, counts = np.unique(steps, return_counts=True)
    return int(sizes[counts.argmax()])


def _explain_irregular(distinct: pd.DatetimeIndex, timezone: str | None) -> str:
    if len(distinct) < 2:
        return (
            f"the only time stamp is {distinct[0]}, so that the frequency is unknown; pass freq='h' (yours)."
        )
    wall = wall_clock(distinct, timezone)
    steps = np.diff(distinct.asi8)
    usual = _usual_step(steps)
    guess = _guess_freq(wall, usual)
    hint = _clock_change(wall, steps, timezone)
    # A guess far below the spacing would lay out a grid of any length.
    near = len(steps) * 1000 > (distinct[-1] - distinct[0]).value / usual
    grid = time_grid(distinct[0], guess, end=distinct[-1], timezone=timezone) if near else distinct[:0]
    gaps = grid[~grid.isin(distinct)]
    if len(gaps) and distinct.isin(grid).all():
        return (
            f"time stamps are irregular: in steps of {guess!r} there are {len(gaps):,} of {len(grid):,} "
            f"stamps missing, the first at {wall_clock(gaps[:1], timezone)[0]}; pass freq={guess!r} if these "
            f"are gaps, which then count as missing, or resample the data first.{hint}"
        )
    odd, center = int(np.argmax(steps != usual)), int(np.median(steps))
    jitter = (steps == usual).mean() < 0.5
    gap = str(pd.Timedelta(center if jitter else usual, unit="ns").round("ms"))
    gap = f"{'about' if jitter else 'mostly'} {gap.removeprefix('0 days ').removesuffix(' 00:00:00')}"
    plain = _plain_step(center)
    guess = guess if plain is None else plain
    return (
        f"time stamps are irregular: they are {gap} apart, but {wall[odd]} is followed by {wall[odd + 1]}; "
        "pass freq= the step that all stamps share, or resample the data first, for instance "
        f"frame.resample({guess!r}, on=time).mean().{hint}"
    )


def _plain_step(step: int) -> str | None:
    """The round step within a fifth of ``step`` nanoseconds, as a frequency to resample to."""
    near = min(_PLAIN_STEPS, key=lambda plain: abs(np.log(plain.value / step)))
    return normalize_freq(to_offset(near)) if abs(near.value / step - 1) <= 0.2 else None


def _guess_freq(wall: pd.DatetimeIndex, usual: int) -> str:
    """The frequency on which irregular stamps most likely lie, as a suggestion."""
    day = 86_400 * 10**9
    if usual == day:
        week = wall[-1] - wall[0] >= pd.Timedelta(days=7)
        return "B" if week and (wall.day_of_week < 5).all() else "D"
    if 28 * day <= usual <= 31 * day:
        return resolve_freq("M", wall[0])
    if 90 * day <= usual <= 92 * day:
        return resolve_freq("Q", wall[0])
    if 365 * day <= usual <= 366 * day:
        return resolve_freq("Y", wall[0])
    if usual == 7 * day:
        return resolve_freq("W", wall[0])
    return normalize_freq(to_offset(pd.Timedelta(usual, unit="ns")))
