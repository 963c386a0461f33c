"""Clouds of particles: observed snapshots coloured by time, and a model's population beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from seqdyn._arguments import check_count
from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X
from seqdyn.plot.style import (
    COLORS,
    check_dataset,
    new_axes,
    note,
    panels,
    soften,
    value_label,
)

__all__ = ["choose_features", "extrapolated", "marginals", "scatter_by_time", "snapshots", "variable"]

SNAPSHOTS = "data.read_snapshots(source)"
POPULATION = "models.SchrodingerBridge(...).marginal(times)"
# Viridis without its last, yellow tenth, which does not show on white.
TIMES = LinearSegmentedColormap.from_list("times", plt.get_cmap("viridis")(np.linspace(0, 0.9, 256)))
_MOST_TICKS = 12
_MANY = 1500  # particles, from which on points are smaller
_LONGEST_UNIT = 12  # letters; a longer unit of time does not fit the title of a panel

Features = str | Sequence[str] | None


def snapshots(data: xr.Dataset, *, features: Features = None, ax: Axes | None = None) -> Axes:
    """Draw all particles, coloured by their time.

    Args:
        data: Snapshots ``x (particle, feature)`` with ``time (particle)``.
        features: Names of the two features to draw, by default the first two; one name, or data of one
            feature, is drawn against time.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind, or has no such features.
    """
    x = variable(data, SNAPSHOTS, (PARTICLE, FEATURE))
    names = choose_features(x, features)
    ax = new_axes(ax, width=5.4, height=4.2)
    if len(names) == 2:
        scatter_by_time(ax, x, names)
        return ax
    alpha = 0.5 if x.sizes[PARTICLE] <= _MANY else 0.25
    ax.scatter(
        x[TIME], x.sel({FEATURE: names[0]}), s=_size(x), color=COLORS["truth"], alpha=alpha, linewidth=0
    )
    name_axes(ax, x, names)
    return ax


def marginals(
    population: xr.Dataset,
    snapshots: xr.Dataset | None = None,
    *,
    features: Features = None,
    max_panels: int = 9,
) -> Axes | np.ndarray:
    """Draw the population of a model over the snapshot of the same time, a panel per time.

    Two features are drawn as points, one as histograms with the area 1. Titles mark times that are
    extrapolated, and say where there is no snapshot. At the time of a training snapshot ``marginal`` of a
    bridge draws the training particles themselves, so that agreement there says nothing of the model; a
    snapshot that was left out of the fit does.

    Args:
        population: ``x (particle, time, feature)``.
        snapshots: Observed ``x (particle, feature)`` with ``time (particle)``; matched by the value of time.
        features: Names of the two features to draw, by default the first two, or of one.
        max_panels: Most panels; among more times, evenly spaced ones are drawn, the first and the last
            included.

    Returns:
        The axes, an array of them if there are several times.

    Raises:
        ValueError: If a dataset is of another kind, they share no time, or have no such features.
    """
    model = variable(population, POPULATION, (PARTICLE, TIME, FEATURE))
    names = choose_features(model, features)
    clouds = _clouds_at(model, snapshots, names)
    times, total = _few(list(clouds), check_count(max_panels, "max_panels"))
    figure, axes = panels(
        len(times), width=5.0 if len(times) == 1 else 2.9, height=4.0 if len(times) == 1 else 2.7, sharey=True
    )
    shared = _bins(model, clouds, names) if len(names) == 1 else None
    for ax, time in zip(axes, times, strict=True):
        # The model first: it has more particles, and would hide those observed.
        drawn = {"model": model.sel({TIME: time, FEATURE: names}).values, "observed": clouds[time]}
        for label, cloud in drawn.items():
            if len(cloud) == 0:
                continue
            color = COLORS["truth" if label == "observed" else "forecast"]
            if shared is not None:
                ax.hist(
                    cloud[:, 0], bins=list(shared), density=True, histtype="step", color=color, label=label
                )
            else:
                ax.scatter(cloud[:, 0], cloud[:, 1], s=7, color=color, alpha=0.5, linewidth=0, label=label)
        lacking = snapshots is not None and len(clouds[time]) == 0
        ax.set_title(_title(time, population, lacking=lacking), fontsize="medium", loc="left")
        _name_outer_axes(ax, model, names)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, markerscale=2.5)
    if total > len(times):
        note(figure, f"{len(times)} of {total} times: max_panels= draws more")
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def variable(data: Any, maker: str, dims: tuple[str, ...]) -> xr.DataArray:
    """Return ``x`` of a dataset with these dims, in this order, and with labels along all but ``particle``.

    Raises:
        ValueError: If it has others.
    """
    check_dataset(data, maker, X)
    x = data[X]
    if set(x.dims) != set(dims):
        raise ValueError(f"'x' must have the dims {dims}, got {x.dims}; draw what seqdyn.{maker} returns.")
    if TIME not in x.coords:
        raise ValueError(f"'x' has no times; draw what seqdyn.{maker} returns.")
    if FEATURE not in x.coords:
        x = x.assign_coords({FEATURE: [f"x_{i}" for i in range(x.sizes[FEATURE])]})
    return x.transpose(*dims)


def choose_features(x: xr.DataArray, features: Features) -> list[Any]:
    """Return the labels of the one or two features to draw.

    Raises:
        ValueError: If there are no such features, or other than one or two of them.
    """
    known = x[FEATURE].values.tolist()
    names = known[:2] if features is None else [features] if isinstance(features, str) else list(features)
    if len(names) not in (1, 2) or len(set(names)) != len(names):
        raise ValueError(f"features must name one or two features, got {names}; choose among {known[:10]}.")
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"there is no feature {missing[0]!r}; choose among {known[:10]}.")
    return names


def scatter_by_time(ax: Axes, x: xr.DataArray, names: list[Any]) -> None:
    """Draw snapshots in the plane of two features, with a colour bar of their times."""
    times = np.unique(x[TIME].values)
    # A single time has no range; it gets the first colour.
    norm = Normalize(times[0], times[-1] if len(times) > 1 else times[0] + 1)
    style: dict[str, Any] = {"cmap": TIMES, "norm": norm, "alpha": 0.75, "linewidth": 0, "zorder": 3}
    order = np.argsort(x[TIME].values, kind="stable")  # the later above the earlier
    places = x.sel({FEATURE: names}).values[order]
    ax.scatter(places[:, 0], places[:, 1], s=_size(x), c=x[TIME].values[order], **style)
    few = len(times) <= _MOST_TICKS
    bar = ax.figure.colorbar(ScalarMappable(norm, TIMES), ax=ax, ticks=times if few else None)
    bar.set_label(value_label("time", x[TIME].attrs.get("units")))
    bar.outline.set_visible(False)  # type: ignore[operator]
    name_axes(ax, x, names)


def name_axes(ax: Axes, x: xr.DataArray, names: list[Any]) -> None:
    """Name the axes by two features, or by time and one feature."""
    units = x.attrs.get("units")
    first = value_label(names[0], units)
    if len(names) == 2:
        ax.set(xlabel=first.replace("\n", " "), ylabel=value_label(names[1], units))
    else:
        ax.set(xlabel=value_label("time", x[TIME].attrs.get("units")).replace("\n", " "), ylabel=first)


def extrapolated(data: xr.Dataset) -> np.ndarray:
    """Return the time after which each particle (P,) is extrapolated, infinity if nothing is said of it.

    It is an attribute, or a coordinate where it differs between particles.
    """
    if "extrapolation_from" in data.coords:
        return data["extrapolation_from"].values.astype(float)
    return np.full(data.sizes[PARTICLE], float(data.attrs.get("extrapolation_from", np.inf)))


def _clouds_at(model: xr.DataArray, snapshots: xr.Dataset | None, names: list[Any]) -> dict[Any, np.ndarray]:
    """The observed cloud (N, 1 or 2) at each time of the population, empty where there is none."""
    times = model[TIME].values
    if snapshots is None:
        return {time: np.empty((0, len(names))) for time in times.tolist()}
    observed = variable(snapshots, SNAPSHOTS, (PARTICLE, FEATURE))
    seen, values = observed[TIME].values, observed.sel({FEATURE: choose_features(observed, names)}).values
    # Times are sums of steps on either side, equal only up to rounding.
    near = 1e-6 * max(float(np.ptp(times)), float(np.ptp(seen)), 1e-12)
    clouds = {time: values[np.abs(seen - time) <= near] for time in times.tolist()}
    if not any(len(cloud) for cloud in clouds.values()):
        raise ValueError(
            f"the population at {times.tolist()[:8]} and the snapshots at {np.unique(seen).tolist()[:8]} "
            "have no time in common; ask the model for those: marginal(np.unique(snapshots.time)). At the "
            "times of training snapshots that draws their own particles: judge by those left out of the fit."
        )
    return clouds


def _few(times: list[Any], most: int) -> tuple[list[Any], int]:
    """At most ``most`` times, evenly spaced, and how many there are."""
    count = min(most, len(times))
    chosen = np.linspace(0, len(times) - 1, count).round().astype(int)
    return [times[i] for i in chosen], len(times)


def _bins(model: xr.DataArray, clouds: dict[Any, np.ndarray], names: list[Any]) -> np.ndarray:
    values = np.concatenate(
        [model.sel({FEATURE: names}).values.ravel(), *(c.ravel() for c in clouds.values())]
    )
    return np.linspace(values.min(), values.max(), 31)


def _title(time: Any, population: xr.Dataset, *, lacking: bool) -> str:
    units = str(population[TIME].attrs.get("units", ""))
    units = "" if units == "1" else units
    title = f"{time:g} {units}" if 0 < len(units) <= _LONGEST_UNIT else f"time {time:g}"
    beyond = time > extrapolated(population)
    if beyond.any():
        title += ", extrapolated" if beyond.all() else ",\npartly extrapolated"
    return f"{title} (no snapshot)" if lacking else title


def _name_outer_axes(ax: Axes, x: xr.DataArray, names: list[Any]) -> None:
    """Name the axes of one panel where they are not the neighbour's."""
    soften(ax)
    units, place = x.attrs.get("units"), ax.get_subplotspec()
    if ax.xaxis.get_tick_params()["labelbottom"]:
        ax.set_xlabel(value_label(names[0], units).replace("\n", " "))
    if place is not None and place.is_first_col():
        ax.set_ylabel(value_label(names[1], units) if len(names) == 2 else "density")


def _size(x: xr.DataArray) -> float:
    """Area of a point: smaller where there are many."""
    return 14.0 if x.sizes[PARTICLE] <= _MANY else 6.0
