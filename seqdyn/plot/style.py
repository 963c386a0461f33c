"""What the figures share: colours, grids of panels, axes with times and units."""

from __future__ import annotations

import math
from typing import Any, Literal
from zoneinfo import ZoneInfo

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = [
    "COLORS",
    "SYMBOL_COLORS",
    "check_dataset",
    "figure_legend",
    "new_axes",
    "note",
    "panels",
    "soften",
    "time_axis",
    "value_label",
]

# Okabe and Ito's palette, told apart with any colour vision; grey for what was known before.
COLORS = {"forecast": "#0072B2", "truth": "#D55E00", "history": "#777777", "other": "#009E73"}

# Symbols 0, 1, 2 are green, blue and red, as published, in shades told apart with any colour vision.
SYMBOL_COLORS = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")

_MAX_TICKS = {
    mdates.YEARLY: 5, mdates.MONTHLY: 6, mdates.DAILY: 5, mdates.HOURLY: 6, mdates.MINUTELY: 6,
    mdates.SECONDLY: 6, mdates.MICROSECONDLY: 5,
}  # fmt: skip
_WIDEST_STEPS = {mdates.MONTHLY: 12, mdates.HOURLY: 24, mdates.MINUTELY: 60, mdates.SECONDLY: 60}


def check_dataset(data: Any, maker: str, *variables: str) -> None:
    """Check that a picture gets the Dataset that it is of.

    Args:
        data: What the user passed.
        maker: The call that makes the right one, as typed after ``seqdyn.``.
        *variables: What it must hold.

    Raises:
        ValueError: If it is none, lacks one of the variables, or holds several conditions.
    """
    if not isinstance(data, xr.Dataset):
        raise ValueError(
            f"a Dataset is needed, got a {type(data).__name__}; draw what seqdyn.{maker} returns."
        )
    if "condition" in data.dims:
        raise ValueError(
            f"the dataset holds {data.sizes['condition']} conditions; draw one of them: "
            "data.isel(condition=0)."
        )
    missing = [name for name in variables if name not in data]
    if missing:
        raise ValueError(
            f"the dataset needs {missing[0]!r}, found {sorted(map(str, data.data_vars))}; draw what "
            f"seqdyn.{maker} returns."
        )


def panels(
    count: int, *, width: float, height: float, sharex: bool = True, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make ``count`` panels of ``width`` × ``height`` inches, at most three in a row."""
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = math.ceil(count / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows + 0.3),
        layout=ConstrainedLayoutEngine(
            wspace=0.05
        ),  # keeps the last date of a panel off its neighbour's first
        sharex=sharex,
        sharey=sharey,
        squeeze=False,
    )
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    for above in axes[max(count - columns, 0) : count]:
        above.tick_params(labelbottom=True)  # the lowest of its column, even above an empty place
    for ax in axes[:count]:
        soften(ax)
    return figure, axes[:count]


def new_axes(ax: Axes | None, *, width: float, height: float) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    soften(ax)
    return ax


def soften(ax: Axes) -> None:
    """Leave out the frame where there is no axis, and draw a light grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)


def time_axis(ax: Axes, time: xr.DataArray) -> None:
    """Put few, short dates on the horizontal axis, in local time where the data name a zone."""
    zone, units = time.attrs.get("timezone"), time.attrs.get("units")
    if time.dtype.kind == "M":
        tz = None if zone is None else ZoneInfo(str(zone))
        locator = _date_locator(tz)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, tz=tz))
        units = zone
    place = ax.get_subplotspec()
    if place is None or place.is_last_row():
        # The part that all dates share is printed at the right end of the axis, where a label must not reach.
        loc: Literal["left", "center"] = "left" if time.dtype.kind == "M" else "center"
        ax.set_xlabel("time" if units is None else f"time [{units}]", loc=loc)


def _date_locator(tz: ZoneInfo | None) -> mdates.AutoDateLocator:
    """Three to six ticks for any span of time."""
    locator = mdates.AutoDateLocator(tz=tz, minticks=3, maxticks=_MAX_TICKS)
    # Between the widest step of one unit and three of the next, matplotlib finds no step and warns: 50 hours
    # are too many for every 12th and too few for days. One more step closes each gap.
    for unit, step in _WIDEST_STEPS.items():
        locator.intervald[unit] = [*locator.intervald[unit], step]
    return locator


def value_label(feature: object, units: object) -> str:
    """Name and unit of a value; the unit alone where it says both, or for the stand-in name "value"."""
    if units in (None, "", "1"):
        return str(feature)
    if feature == "value" or str(feature) in str(units):
        return str(units)
    label = f"{feature} [{units}]"
    return label if len(label) <= 22 else label.replace(" [", "\n[")


def figure_legend(figure: Figure, ax: Axes) -> None:
    """Put the legend of one panel above all of them, once."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)


def note(figure: Figure, text: str) -> None:
    """Write a remark below the panels."""
    figure.supxlabel(text, x=0.99, ha="right", fontsize="small", color=COLORS["history"])
