"""What the package knows of one dataset: the facts of its card, its files, and how they become a Dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data import from_numpy
from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X
from seqdyn.datasets.files import DataFile

__all__ = ["Kind", "Recipe", "cloud", "regular_table", "ragged"]

Kind = Literal["sequences", "snapshots", "episodes", "images"]


@dataclass(frozen=True)
class Recipe:
    """Card facts of one dataset, and the function that reads it.

    Attributes:
        name: What ``load`` takes.
        title: One line of description.
        kind: Schema of the Dataset, or "images".
        source: Who made the data and where they are published.
        licence: What the source says; "unclear" where it says nothing.
        citation: Paper or publication to cite.
        units: Units of ``target`` or ``x``; None where the source states none.
        files: Original files, with checksums.
        read: Takes their paths in that order, returns the Dataset.
        freq: Step of the time axis: a pandas alias, or a number for numeric time; None for snapshots.
        prediction_length: Forecast length in steps: that of the published benchmark, else a sensible one.
        num_windows: Number of consecutive test windows, likewise; None where nothing suggests one.
        train_index: Snapshots that the publication fits, counted from 0 in the order of time; empty where it
            names none.
        held_out_index: Snapshots at which it tests.
        forecast_index: Snapshots after the last one fitted that it forecasts.
        notes: What a user must know before trusting a result.
    """

    name: str
    title: str
    kind: Kind
    source: str
    licence: str
    citation: str
    units: str | None
    files: tuple[DataFile, ...]
    read: Callable[..., xr.Dataset] = field(repr=False, compare=False)
    freq: str | float | None = None
    prediction_length: int | None = None
    num_windows: int | None = None
    train_index: tuple[int, ...] = ()
    held_out_index: tuple[int, ...] = ()
    forecast_index: tuple[int, ...] = ()
    notes: str = ""


def regular_table(frame: pd.DataFrame, freq: str, *, series: str) -> xr.Dataset:
    """One series from a table with dates as its index: every column is a feature, skipped dates are missing.

    Args:
        frame: Numbers, one row a date.
        freq: pandas alias of the regular step.
        series: Label of the series.

    Returns:
        ``target (series, time, feature)`` on every date from the first to the last.
    """
    frame = frame.sort_index()
    frame = frame.reindex(pd.date_range(frame.index[0], frame.index[-1], freq=freq))
    return from_numpy(
        frame.to_numpy(dtype=float)[None],
        time=frame.index.to_numpy(),
        freq=freq,
        series=[series],
        features=[str(name) for name in frame.columns],
    )


def ragged(
    sequences: list[np.ndarray],
    *,
    series: list[str],
    features: list[str],
    step: float = 1.0,
    unit: str = "step",
) -> xr.Dataset:
    """Sequences of unequal length on one numeric time axis from 0; the shorter ones end in missing values.

    Args:
        sequences: One array (T_i, C) a series.
        series: Labels.
        features: Names of the C channels.
        step: Time between two values.
        unit: Unit of ``time``.
    """
    times = np.arange(max(map(len, sequences))) * step
    data = from_numpy(sequences, time=times, series=series, features=features)
    data[TIME].attrs["units"] = unit
    return data


def cloud(x: np.ndarray, times: np.ndarray, *, features: list[str], unit: str) -> xr.Dataset:
    """Snapshots from ``x`` (particle, feature) and the time of every particle, in ``unit``."""
    return xr.Dataset(
        {X: ((PARTICLE, FEATURE), np.asarray(x, dtype=float))},
        coords={TIME: (PARTICLE, np.asarray(times, dtype=float), {"units": unit}), FEATURE: features},
    )
