"""Whether a forecast's probabilities are right: histogram of the PIT, coverage of intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy import stats

from seqdyn.plot.style import COLORS, new_axes

__all__ = ["coverage", "pit"]

BAND: dict[str, Any] = {"color": COLORS["history"], "alpha": 0.25, "linewidth": 0}


def pit(data: xr.Dataset, *, num_bins: int = 20, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the probability integral transform; flat if the forecast is calibrated.

    A hump in the middle means too wide forecasts, a valley too narrow ones, a slope a bias. The band holds 95
    % of the bins if the values are independent; errors along a path are not, so that real deviations reach a
    little further.

    Args:
        data: Has ``pit``, from :func:`seqdyn.metrics.pit` or :func:`seqdyn.evaluate`; NaN does not count.
        num_bins: Number of bins.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes; 1 on the vertical axis is the density of a calibrated forecast.

    Raises:
        ValueError: If there is no ``pit`` or no value in it.
    """
    values = _values(data, "pit", "seqdyn.metrics.pit(forecast, truth)").values.ravel()
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("'pit' holds NaN only: no truth was observed at the times of the forecast.")
    counts, edges = np.histogram(values, bins=num_bins, range=(0.0, 1.0))
    lower, upper = stats.binom.interval(0.95, len(values), 1 / num_bins)
    ax = new_axes(ax, width=5.0, height=3.4)
    scale = num_bins / len(values)
    bars: dict[str, Any] = {"color": COLORS["forecast"], "edgecolor": "white", "alpha": 0.8}
    ax.bar(edges[:-1], counts * scale, 1 / num_bins, align="edge", label=f"{len(values):,} values", **bars)
    ax.axhspan(lower * scale, upper * scale, zorder=2.5, label="95 % if calibrated", **BAND)
    ax.axhline(1.0, color=COLORS["history"], linewidth=1.0, linestyle="--", zorder=2.6)
    ax.set(xlabel="probability integral transform of the truth", ylabel="density (1 if calibrated)")
    ax.set(xlim=(0, 1), ylim=(0, max(1.6, 1.25 * counts.max() * scale)))
    ax.legend(frameon=False, loc="upper center", ncols=2)
    return ax


def coverage(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the share of the truth inside the central interval against the interval's nominal level.

    Below the diagonal the forecast is too sure of itself, above it too cautious. The band holds 95 % of the
    shares of a calibrated forecast if the values are independent.

    Args:
        data: Has ``covered`` with dim ``level`` and ``num_observed``, from
            :func:`seqdyn.metrics.coverage_curve` or :func:`seqdyn.evaluate`; other dims are summed over.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes, both in per cent.

    Raises:
        ValueError: If the counts are missing or all zero.
    """
    covered = _values(data, "covered", "seqdyn.metrics.coverage_curve(forecast, truth)")
    count = int(data["num_observed"].sum())
    if count == 0:
        raise ValueError("'num_observed' is zero: no truth was observed at the times of the forecast.")
    levels = covered["level"].values
    actual = covered.sum([dim for dim in covered.dims if dim != "level"]).values / count
    ax = new_axes(ax, width=4.2, height=4.2)
    grid = np.linspace(0, 1, 101)
    lower, upper = stats.binom.interval(0.95, count, grid)
    ax.fill_between(grid, lower / count, upper / count, label="95 % if calibrated", **BAND)
    ax.plot([0, 1], [0, 1], color=COLORS["history"], linewidth=1.0, linestyle="--")
    label = f"forecast, {count:,} values"
    ax.plot(levels, actual, color=COLORS["forecast"], marker="o", markersize=5, label=label)
    ax.set(xlabel="nominal level of the interval", ylabel="truth inside the interval")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    below = actual.mean() < levels.mean()
    ax.legend(frameon=False, loc="upper left" if below else "lower right")  # on the side without the curve
    return ax


def _values(data: xr.Dataset, name: str, source: str) -> xr.DataArray:
    if name not in data:
        raise ValueError(
            f"the data need the variable {name!r}, found {sorted(map(str, data.data_vars))}; make it with "
            f"{source} or seqdyn.evaluate(model, data, num_windows=...)."
        )
    return data[name]
