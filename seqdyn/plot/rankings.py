"""Scores of methods at held-out times."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.plot.style import COLORS, SYMBOL_COLORS, check_dataset, panels, value_label

__all__ = ["scores"]

# Name of a metric -> what the axis says, and whether it is in the units of the data.
_METRICS = {
    "w2": ("W2", True),
    "w1": ("W1", True),
    "energy": ("energy distance", True),
    "swd": ("sliced W2", True),
    "mmd2": ("squared MMD", False),
}
_OTHERS = [color for color in SYMBOL_COLORS if color != COLORS["forecast"]]


def scores(data: xr.Dataset) -> Axes | np.ndarray:
    """Draw the scores of all methods over the held-out times, a panel per metric.

    The method ``model`` is blue and in front, ``floor``, what sampling alone costs, is grey and dashed.

    Args:
        data: ``score (method, time, metric)``, as ``score(held_out)`` of
            :class:`seqdyn.models.SchrodingerBridge` gives; NaN where a method has no score.

    Returns:
        The axes, an array of them if there are several metrics.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    maker = "models.SchrodingerBridge(...).score(held_out)"
    check_dataset(data, maker, "score")
    found = data["score"]
    dims = {"method", "time", "metric"}
    if set(found.dims) != dims or not dims <= set(found.coords):
        raise ValueError(
            f"'score' must have the dims {tuple(sorted(dims))} with labels, got {found.dims}; draw what "
            f"seqdyn.{maker} returns."
        )
    metrics = found["metric"].values.tolist()
    width, height = (5.5, 3.4) if len(metrics) == 1 else (4.0, 2.8)
    figure, axes = panels(len(metrics), width=width, height=height)
    styles = _styles(found["method"].values.tolist())
    for ax, metric in zip(axes, metrics, strict=True):
        for method, style in styles.items():
            line = found.sel({"method": method, "metric": metric}).sortby("time")  # sel has its own method=
            ax.plot(line["time"], line, label=str(method), **style)
        name, has_units = _METRICS.get(metric, (str(metric), False))
        ax.set_ylabel(value_label(name, found.attrs.get("units") if has_units else None))
        if ax.xaxis.get_tick_params()["labelbottom"]:
            ax.set_xlabel(value_label("time", found["time"].attrs.get("units")).replace("\n", " "))
        _from_zero(ax, found.sel(metric=metric).values)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() / 1.5)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _styles(methods: list[Any]) -> dict[Any, dict[str, Any]]:
    """Colour, line and marker of each method."""
    rest = zip(cycle(_OTHERS), cycle("s^Dvp*"), strict=False)
    styles: dict[Any, dict[str, Any]] = {}
    for method in methods:
        if method == "model":
            style: dict[str, Any] = {
                "color": COLORS["forecast"],
                "marker": "o",
                "zorder": 4,
                "linewidth": 2.0,
            }
        elif method == "floor":
            style = {"color": COLORS["history"], "linestyle": "--", "marker": "_", "linewidth": 1.0}
        else:
            color, marker = next(rest)
            style = {"color": color, "marker": marker, "linewidth": 1.0}
        styles[method] = {"markersize": 4.5, **style}
    return styles


def _from_zero(ax: Axes, values: np.ndarray) -> None:
    """Let distances begin at 0; unbiased ones that fell below show the line of 0."""
    if np.nanmin(values, initial=np.inf) >= 0:
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color=COLORS["history"], linewidth=0.6)
