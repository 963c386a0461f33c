"""Growth of activity without noise, and where a curve changes its level."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.plot.style import COLORS, check_dataset, new_axes

__all__ = ["change_point", "cone_growth", "growth_rate"]


def growth_rate(data: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how many starts shrink and how many grow, and at which rates.

    Args:
        data: What :func:`seqdyn.analysis.growth_rate` gives, or a Dataset with ``growth_rate (start)`` and
            ``hitting_time (start)``, such as those of :func:`seqdyn.analysis.cone_growth` and
            :func:`seqdyn.analysis.autonomous_dynamics`. Rates of -inf are named, not drawn.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If it is of another kind.
    """
    check_dataset(data, "analysis.growth_rate(dynamics, start)", "growth_rate", "hitting_time")
    return _draw_rates(data, new_axes(ax, width=5.0, height=3.2))


def cone_growth(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the growth rates of the directions from the origin, and whether it is stable.

    Args:
        data: What :func:`seqdyn.analysis.cone_growth` gives. Rates of -inf are named, not drawn.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.cone_growth(dynamics, like)", "growth_rate", "hitting_time")
    ax = _draw_rates(data, new_axes(ax, width=5.0, height=3.2))
    ax.set_ylabel("directions")
    largest = float(data["growth_rate"].max())
    state = "shrinks in all directions" if largest < 0 else "is unstable"
    ax.set_title(f"the origin {state}: at most {largest:.3g} per step", fontsize="medium", pad=22)
    return ax


def change_point(curve: Any, found: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a curve, the place where it changes, and the two levels.

    Args:
        curve: Curve (T,): an array, or a DataArray such as ``training_dynamics(...)["growth_rate"]``, whose
            coordinate is then the axis.
        found: What :func:`seqdyn.analysis.change_point` gives for it.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the curve has several dims, or the change lies beyond its end.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or not hasattr(found, "place") or found.place >= len(values):
        raise ValueError(
            f"a curve (T,) and its change are needed, got shape {values.shape} and {found!r}: "
            "change_point(curve, seqdyn.analysis.change_point(curve))."
        )
    ax = new_axes(ax, width=5.4, height=3.2)
    labelled = isinstance(curve, xr.DataArray) and curve.dims[0] in curve.coords
    place = curve[curve.dims[0]].values if labelled else np.arange(len(values))
    ax.plot(place, values, ".-", color=COLORS["history"], linewidth=1)
    name = str(curve.name).replace("_", " ") if isinstance(curve, xr.DataArray) and curve.name else "value"
    ax.set(xlabel=str(curve.dims[0]) if labelled else "index", ylabel=name)
    if found.place < 0:
        ax.set_title("no change", fontsize="medium")
        return ax
    for part in (slice(None, found.place), slice(found.place, None)):
        level = float(np.mean(values[part][np.isfinite(values[part])]))
        ax.plot(place[part][[0, -1]], [level, level], color=COLORS["forecast"], linewidth=2.5)
    ax.axvline(place[found.place], color=COLORS["truth"], linestyle="--", linewidth=1.2)
    ax.set_title(f"change at {place[found.place]:g}, gain {found.gain:.3g} nats", fontsize="medium")
    return ax


def _draw_rates(data: xr.Dataset, ax: Axes) -> Axes:
    rate = data["growth_rate"].values
    finite = rate[np.isfinite(rate)]
    low, high = min(finite.min(initial=0), -1e-12), max(finite.max(initial=0), 1e-12)
    width = (high - low) / 30
    edges = (width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)).tolist()  # 0 is one of them
    for part, color, label in (
        (finite[finite < 0], COLORS["forecast"], "shrink"),
        (finite[finite >= 0], COLORS["truth"], "grow"),
    ):
        if len(part):
            ax.hist(part, bins=edges, color=color, label=f"{len(part):,} {label}")
    zero = int((rate == -np.inf).sum())
    if zero:
        last = int(np.nanmax(data["hitting_time"].values))
        ax.plot([], [], " ", label=f"{zero:,} end at 0 exactly, by step {last:,}")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(xlabel="growth rate per step", ylabel="starts")
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax
