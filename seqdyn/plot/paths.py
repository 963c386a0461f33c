"""Trajectories of particles over the clouds that they pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from seqdyn._arguments import check_count
from seqdyn.data.schema import FEATURE, PARTICLE, TIME
from seqdyn.plot.clouds import (
    SNAPSHOTS,
    Features,
    choose_features,
    extrapolated,
    name_axes,
    scatter_by_time,
    variable,
)
from seqdyn.plot.style import COLORS, new_axes

__all__ = ["trajectories"]

PATHS = "models.SchrodingerBridge(...).infer(snapshots, times)"


def trajectories(
    paths: xr.Dataset,
    snapshots: xr.Dataset | None = None,
    *,
    features: Features = None,
    max_paths: int = 200,
    ax: Axes | None = None,
) -> Axes:
    """Draw paths as thin lines under the observed snapshots; circles mark where they end.

    Where the result says from when on it is extrapolated (``extrapolation_from``), lines after that time are
    dashed and of another colour; against time a vertical line marks it too.

    Args:
        paths: ``x (particle, time, feature)``.
        snapshots: Observed ``x (particle, feature)`` with ``time (particle)``, coloured by time.
        features: Names of the two features to draw, by default the first two; one name, or data of one
            feature, is drawn against time.
        max_paths: Most paths to draw, the first ones.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If a dataset is of another kind, or has no such features.
    """
    x = variable(paths, PATHS, (PARTICLE, TIME, FEATURE))
    names = choose_features(x, features)
    most = check_count(max_paths, "max_paths")
    ax = new_axes(ax, width=5.6, height=4.2)
    if snapshots is not None:
        _draw_observed(ax, variable(snapshots, SNAPSHOTS, (PARTICLE, FEATURE)), names)
    drawn = x.isel({PARTICLE: slice(0, most)})
    ends = extrapolated(paths)[:most]
    for end in np.unique(ends):
        _draw_lines(ax, drawn.isel({PARTICLE: ends == end}), names, float(end))
    name_axes(ax, x, names)
    ax.autoscale_view()
    if (ends < x[TIME].values.max()).any():
        legend = ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set(alpha=1, linewidth=1.5)
    return ax


def _draw_observed(ax: Axes, observed: xr.DataArray, names: list[Any]) -> None:
    choose_features(observed, names)
    if len(names) == 2:
        scatter_by_time(ax, observed, names)
        return
    style: dict[str, Any] = {"s": 9, "color": COLORS["truth"], "alpha": 0.6, "linewidth": 0, "zorder": 3}
    ax.scatter(observed[TIME], observed.sel({FEATURE: names[0]}), **style)


def _draw_lines(ax: Axes, x: xr.DataArray, names: list[Any], until: float) -> None:
    """Lines up to the last time that was fitted, and those that go on from there."""
    times = x[TIME].values
    points = x.sel({FEATURE: names}).values  # (P, T, 1 or 2)
    if len(names) == 1:
        points = np.concatenate([np.broadcast_to(times[:, None], points.shape), points], axis=2)
    last = int(np.searchsorted(times, until, side="right"))  # number of times not beyond
    inside, outside = points[:, :last], points[:, max(last - 1, 0) :]
    opacity = float(np.clip(20 / len(points), 0.2, 0.7))
    if inside.shape[1] > 1:
        label = f"up to time {until:g}" if last < len(times) else None
        style: dict[str, Any] = {"linewidths": 0.6, "alpha": opacity, "colors": "#555555", "zorder": 1}
        ax.add_collection(LineCollection(list(inside), label=label, **style))
    if last < len(times):
        style = {"linewidths": 0.7, "alpha": opacity, "colors": COLORS["forecast"], "zorder": 1}
        label = f"extrapolated, after {until:g}"
        ax.add_collection(LineCollection(list(outside), label=label, linestyles="--", **style))
        if len(names) == 1:
            ax.axvline(until, color=COLORS["forecast"], linewidth=1, linestyle=":")
    ends: dict[str, Any] = {"marker": "o", "markersize": 3, "markerfacecolor": "none", "markeredgewidth": 0.6}
    ax.plot(*points[:, -1].T, color="black", linestyle="", alpha=0.7, zorder=4, **ends)
