"""A word about series that end long before a forecast begins."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from seqdyn.data.schema import FEATURE, SERIES, TIME, local_time, observed_mask
from seqdyn.data.spans import spans
from seqdyn.errors import EarlyEndWarning

__all__ = ["warn_of_early_ends"]


def warn_of_early_ends(context: xr.Dataset, horizon: int) -> None:
    """Name series whose last observation lies more than ``horizon`` steps before the end of ``context``.

    Their forecast starts where the data end, not where they do. A verb calls this itself, so that the warning
    points at its caller.

    Args:
        context: Checked sequences.
        horizon: Steps of the forecast; shorter gaps at the end are forecast over without a word.

    Warns:
        EarlyEndWarning: If there is such a series, or one of its features.
    """
    length = context.sizes[TIME]
    _, ends = spans(observed_mask(context))  # (M, C)
    late = (ends > 0) & (ends < length - horizon)
    if not late.any():
        return
    series = int(np.argmax(late.any(axis=1)))
    feature = int(np.where(late[series], ends[series], length).argmin())  # the one that ends first
    label, end = context[SERIES].values.tolist()[series], int(ends[series, feature])
    name = repr(label)
    if not late[series].all():
        name += f", feature {context[FEATURE].values.tolist()[feature]!r},"
    count = int(late.any(axis=1).sum())
    others = f" and {count - 1} more end" if count > 1 else " ends"
    last = local_time(context[TIME].values[end - 1], context)
    if late[ends > 0].all() and count > 1:
        cut = f"cut the data at the last end: data.isel(time=slice(0, {ends.max()}))"
    else:
        cut = (
            "forecast it alone, from data that stop there: "
            f"data.sel(series=[{label!r}]).isel(time=slice(0, {end}))"
        )
    warnings.warn(
        f"{name}{others} before the data do, yet forecasts start after the end of the data ({label!r} ends "
        f"{last}). If that is no gap, {cut}.",
        EarlyEndWarning,
        stacklevel=3,
    )
