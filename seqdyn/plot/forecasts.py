"""Forecasts as fan charts, and how a diffusion model arrives at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn._arguments import check_count
from seqdyn.data.schema import FEATURE, OBSERVED, SAMPLE, SERIES, TARGET, TIME, local_time
from seqdyn.plot.style import COLORS, figure_legend, note, panels, time_axis, value_label

__all__ = ["denoising", "forecast"]

BANDS = {0.9: 0.2, 0.5: 0.4}  # share of the paths inside, opacity
TRUTH: dict[str, Any] = {
    "color": COLORS["truth"], "linestyle": "none", "marker": "o", "markersize": 3.0, "zorder": 4,
}  # fmt: skip


def forecast(
    forecast: xr.Dataset,
    *,
    history: xr.Dataset | None = None,
    truth: xr.Dataset | None = None,
    series: Sequence[Any] | None = None,
    max_panels: int = 9,
    history_length: int | None = None,
) -> Axes | np.ndarray:
    """Draw a fan chart per series and feature: median, 50 % and 90 % bands, history, truth.

    Args:
        forecast: Draws ``target (sample, series, time, feature)``.
        history: What came before; steps from the forecast's start on are left out.
        truth: What happened; steps outside the forecast are left out.
        series: Labels of the series to draw; by default the first ones.
        max_panels: Most panels; a note says how many there would be.
        history_length: Steps of history to draw; by default three times the forecast's. The panel of a series
            that is not observed in them says when it last was.

    Returns:
        The axes, an array of them if there are several panels.

    Raises:
        ValueError: If a dataset has no such variable, dims or series.
    """
    paths = _variable(forecast, TARGET, (SAMPLE, SERIES, TIME, FEATURE), "forecast")
    cells, total = _choose(paths, series, max_panels)
    past, steps = _past(history, paths), history_length
    steps = 3 * paths.sizes[TIME] if steps is None else check_count(steps, "history_length")
    future = _future(truth, paths)
    width, height = (7.5, 3.4) if len(cells) == 1 else (4.0, 2.5)
    figure, axes = panels(len(cells), width=width, height=height)
    for ax, cell in zip(axes, cells, strict=True):
        if past is not None:
            line = past.sel(cell)
            recent = line.isel({TIME: slice(-steps, None)})
            ax.plot(recent[TIME], recent, color=COLORS["history"], linewidth=1.0, label="history")
            if not recent.notnull().any():
                _say_when_last_observed(ax, line)
        _fan(ax, paths.sel(cell))
        if future is not None:
            ax.plot(future[TIME], future.sel(cell), label="truth", **TRUTH)
        _label(ax, cell, paths)
    figure_legend(figure, axes[0])
    if total > len(cells):
        note(figure, f"first {len(cells)} of {total} panels: series= and max_panels= choose others")
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def denoising(
    data: xr.Dataset, *, series: Any = None, feature: Any = None, max_panels: int = 6, max_paths: int = 30
) -> Axes | np.ndarray:
    """Draw sample paths of one series on their way from noise to forecast, a panel per diffusion step.

    One path is drawn in colour, to be followed from panel to panel.

    Args:
        data: ``trajectory (step, sample, series, time, feature)``, as ``forecast(..., trajectory_steps=...)``
            gives.
        series: Label of the series; by default the first.
        feature: Label of the feature; by default the first.
        max_panels: Most panels; among more steps, evenly spaced ones are drawn, the first and the last
            included.
        max_paths: Most paths per panel.

    Returns:
        The axes, an array of them if there are several steps.

    Raises:
        ValueError: If the variable, its dims or the label are missing.
    """
    states = _variable(data, "trajectory", ("step", SAMPLE, SERIES, TIME, FEATURE), "data")
    cell = {
        SERIES: states[SERIES].values.tolist()[0] if series is None else series,
        FEATURE: states[FEATURE].values.tolist()[0] if feature is None else feature,
    }
    _check_labels(states, cell)
    states = states.sortby("step", ascending=False).sel(cell).isel({SAMPLE: slice(0, max_paths)})
    count = min(max_panels, states.sizes["step"])
    states = states.isel(step=np.linspace(0, states.sizes["step"] - 1, count).round().astype(int))
    width, height = (7.5, 3.4) if count == 1 else (3.6, 2.4)
    figure, axes = panels(count, width=width, height=height, sharey=True)
    for ax, state in zip(axes, states, strict=True):
        for path in state[1:]:
            ax.plot(
                state[TIME], path, color=COLORS["forecast"], alpha=0.3, linewidth=0.7, label="other paths"
            )
        ax.plot(state[TIME], state[0], color=COLORS["truth"], linewidth=1.5, label="one path", zorder=4)
        ax.set_title(f"after step {int(state['step'])}", fontsize="medium", loc="left")
        _name_axes(ax, states, value_label(cell[FEATURE], states.attrs.get("units")))
    count_text = f"{states.sizes[SAMPLE]} paths from noise to forecast, one of them in orange"
    figure.suptitle(f"{_name(cell[SERIES])}: {count_text}", fontsize="medium")
    return axes[0] if count == 1 else np.array(axes, dtype=object)


def _fan(ax: Axes, paths: xr.DataArray) -> None:
    """Draw bands and median of (sample, time)."""
    time = paths[TIME].values
    for share, opacity in BANDS.items():
        lower, upper = np.quantile(paths.values, [(1 - share) / 2, (1 + share) / 2], axis=0)
        style: dict[str, Any] = {
            "color": COLORS["forecast"],
            "alpha": opacity,
            "label": f"{100 * share:.0f} % of paths",
        }
        if len(time) == 1:  # a band without extent in time would be invisible
            ax.vlines(time, lower, upper, linewidth=8, **style)
        else:
            ax.fill_between(time, lower, upper, linewidth=0, **style)
    marker = "_" if len(time) == 1 else None
    ax.plot(
        time, np.median(paths, axis=0), color=COLORS["forecast"], linewidth=1.5, marker=marker, label="median"
    )


def _label(ax: Axes, cell: dict[str, Any], paths: xr.DataArray) -> None:
    units, several = paths.attrs.get("units"), paths.sizes[FEATURE] > 1
    title = f"{_name(cell[SERIES])}, {cell[FEATURE]}" if several else _name(cell[SERIES])
    ax.set_title(title, fontsize="medium", loc="left")
    _name_axes(ax, paths, str(units or "") if several else value_label(cell[FEATURE], units))


def _name(series: Any) -> str:
    return series if isinstance(series, str) else f"series {series}"


def _name_axes(ax: Axes, data: xr.DataArray, value: str) -> None:
    """Name the axes of one panel, where it is not the neighbour's."""
    place = ax.get_subplotspec()
    time_axis(ax, data[TIME])
    if place is not None and not place.is_first_col():
        value = ""
    ax.set_ylabel(value)


def _choose(
    paths: xr.DataArray, series: Sequence[Any] | None, max_panels: int
) -> tuple[list[dict[str, Any]], int]:
    """Return series and feature of each panel, and how many there would be without a limit."""
    names = paths[SERIES].values.tolist() if series is None else list(series)
    for name in names:
        _check_labels(paths, {SERIES: name})
    cells = [{SERIES: name, FEATURE: feature} for name in names for feature in paths[FEATURE].values.tolist()]
    if not cells or max_panels < 1:
        raise ValueError("there is no series to draw; leave series= out and let max_panels be at least 1.")
    return cells[:max_panels], len(cells)


def _past(history: xr.Dataset | None, paths: xr.DataArray) -> xr.DataArray | None:
    if history is None:
        return None
    values = _values(history, paths, "history")
    start = paths[TIME].values[0]
    before = values.isel({TIME: values[TIME].values < start})
    if before.sizes[TIME] == 0:
        raise ValueError(
            f"the history begins at {values[TIME].values[0]}, not before the forecast, which starts at "
            f"{start}; "
            "pass the context of the forecast."
        )
    return before


def _say_when_last_observed(ax: Axes, line: xr.DataArray) -> None:
    observed = np.flatnonzero(line.notnull())
    when = "never observed"
    if observed.size:
        when = f"last observed\n{local_time(line[TIME].values[observed[-1]], line)}"
    ax.text(0.03, 0.95, when, transform=ax.transAxes, va="top", fontsize="small", color=COLORS["history"])


def _future(truth: xr.Dataset | None, paths: xr.DataArray) -> xr.DataArray | None:
    if truth is None:
        return None
    values = _values(truth, paths, "truth")
    times, (start, end) = values[TIME].values, paths[TIME].values[[0, -1]]
    inside = (times >= start) & (times <= end)
    if not inside.any():
        raise ValueError(
            f"the truth, {times[0]} to {times[-1]}, has no step inside the forecast, {start} to {end}; "
            "pass data that reach past the context."
        )
    return values.isel({TIME: inside})


def _values(data: xr.Dataset, paths: xr.DataArray, name: str) -> xr.DataArray:
    """Return the values of a sequence dataset, NaN where unobserved."""
    values = _variable(data, TARGET, (SERIES, TIME, FEATURE), name)
    for dim in (SERIES, FEATURE):
        missing = [label for label in paths[dim].values.tolist() if label not in values.indexes[dim]]
        if missing:
            raise ValueError(
                f"the {name} lacks the {dim} {missing[0]!r} of the forecast; pass it with all of them, or "
                "draw a part: "
                f"forecast.sel({dim}={name}.{dim})."
            )
    return values.where(data[OBSERVED]) if isinstance(data, xr.Dataset) and OBSERVED in data else values


def _variable(
    data: xr.Dataset | xr.DataArray, variable: str, dims: tuple[str, ...], name: str
) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        if variable not in data:
            raise ValueError(
                f"the {name} needs the variable {variable!r}, found {sorted(map(str, data.data_vars))}; "
                f"rename yours with {name}.rename(NAME={variable!r})."
            )
        data = data[variable]
    if not isinstance(data, xr.DataArray):
        raise TypeError(
            f"the {name} must be an xarray Dataset or DataArray, got {type(data).__name__}; label an array "
            "with seqdyn.data.from_numpy(values, ...)."
        )
    if set(data.dims) != set(dims):
        raise ValueError(f"{variable!r} of the {name} must have dims {dims}, got {data.dims}.")
    return data.transpose(*dims)


def _check_labels(data: xr.DataArray, cell: dict[str, Any]) -> None:
    for dim, label in cell.items():
        if label not in data.indexes[dim]:
            raise ValueError(f"there is no {dim} {label!r}; choose among {data[dim].values.tolist()[:10]}.")
