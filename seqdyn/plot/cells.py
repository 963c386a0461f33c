"""What the particles of each snapshot become."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.data.schema import CONDITION, PARTICLE, TIME
from seqdyn.plot.style import SYMBOL_COLORS, check_dataset, figure_legend, panels

__all__ = ["fates"]


def fates(data: xr.Dataset) -> list[Axes]:
    """Draw the probability of each final label for all particles, one panel per snapshot.

    A particle is a column, cut into the probabilities of the labels. Columns are sorted by their likeliest
    label and how likely it is, so that the width of a colour is a number of particles and a ragged edge is
    doubt.

    Args:
        data: What ``SchrodingerBridge.fates(labels)`` gives.

    Returns:
        The axes, of each condition and time.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "models.SchrodingerBridge(...).fates(labels)", "fate")
    fate = data["fate"].transpose(PARTICLE, "label")
    labels = fate["label"].values
    colors = _colors(len(labels))
    conditions = fate[CONDITION].values if CONDITION in fate.coords else np.zeros(fate.sizes[PARTICLE])
    times = fate[TIME].values
    places = [
        (condition, time)
        for condition in dict.fromkeys(conditions.tolist())
        for time in np.unique(times[conditions == condition])
    ]
    figure, axes = panels(len(places), width=2.6, height=2.2, sharex=False, sharey=True)
    units = fate[TIME].attrs.get("units")
    for ax, (condition, time) in zip(axes, places, strict=True):
        here = (conditions == condition) & (times == time)
        _columns(ax, fate.values[here], [str(label) for label in labels], colors)
        title = f"time {time:g}" + ("" if units is None else f" {units}")
        ax.set_title(f"{condition}, {title}" if CONDITION in fate.coords else title, fontsize="medium")
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel("probability")
        if place is None or place.is_last_row():
            ax.set_xlabel("particles, sorted")
    figure_legend(figure, axes[0])
    return axes


def _columns(ax: Axes, fate: np.ndarray, labels: list[str], colors: list[str]) -> None:
    """Stack the probabilities (N, L) of each particle."""
    first = fate.argmax(axis=1)
    order = np.lexsort([-fate.max(axis=1), first])
    edges = np.arange(len(fate) + 1)
    heights = fate[order][[*range(len(fate)), len(fate) - 1]]  # the last column once more, for its right edge
    ax.stackplot(edges, heights.T, labels=labels, colors=colors, step="post", linewidth=0)
    ax.set(xlim=(0, len(fate)), ylim=(0, 1))
    ax.grid(False)


def _colors(count: int) -> list[str]:
    """Colours told apart with any colour vision, as far as there are so many."""
    if count <= len(SYMBOL_COLORS):
        return list(SYMBOL_COLORS[:count])
    shades = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, count))
    return [mpl.colors.to_hex(shade) for shade in shades]
