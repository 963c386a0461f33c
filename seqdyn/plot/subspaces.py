"""Principal components and the angles between subspaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqdyn.plot.portraits import label_plane, plane_of
from seqdyn.plot.style import COLORS, SYMBOL_COLORS, check_dataset, new_axes, panels, soften

__all__ = ["pca", "subspace_angles"]

_MAX_STATES = 20_000


def pca(components: xr.Dataset, symbol: Any = None, *, pcs: tuple[int, int] = (1, 2)) -> np.ndarray:
    """Draw the scores in the plane of two components, and the shares of the variance.

    Args:
        components: From :func:`seqdyn.analysis.pca`; at most 20,000 states are drawn.
        symbol: Symbol of each state, with the dims of the scores without ``pc``; colours the states, -1 is
            grey. ``None`` colours them by time.
        pcs: Numbers of the two components, from 1.

    Returns:
        Two axes.

    Raises:
        ValueError: If the dataset is of another kind, or there are no such components or other symbols.
    """
    first, second = plane_of(components, pcs)
    scores = components["scores"].values
    value = np.broadcast_to(np.arange(scores.shape[-2]), scores.shape[:-1]) if symbol is None else _of(symbol)
    if value.shape != scores.shape[:-1]:
        raise ValueError(f"symbol must have the shape {scores.shape[:-1]} of the states, got {value.shape}.")
    figure, (plane, shares) = panels(2, width=4.6, height=3.6, sharex=False)
    every = slice(None, None, -(-value.size // _MAX_STATES))
    states, value = scores.reshape(-1, scores.shape[-1])[every][:, [first, second]], value.ravel()[every]
    style: dict[str, Any] = {"s": 4, "alpha": 0.6, "linewidth": 0, "rasterized": True}
    if symbol is None:
        dots = plane.scatter(states[:, 0], states[:, 1], c=value, cmap="viridis", **style)
        figure.colorbar(dots, ax=plane, label="time [steps]").solids.set_alpha(1)  # type: ignore[union-attr]
    else:
        for one in np.unique(value):
            color = SYMBOL_COLORS[one % len(SYMBOL_COLORS)] if one >= 0 else COLORS["history"]
            label = f"symbol {one}" if one >= 0 else "none"
            plane.scatter(*states[value == one].T, color=color, label=label, **style)
        plane.legend(frameon=False, fontsize="small", markerscale=4)
    label_plane(plane, components, (first, second))
    _draw_shares(shares, components["explained_variance_ratio"].values)
    return np.array([plane, shares], dtype=object)


def subspace_angles(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the principal angles, smallest first: 0° is a direction in common, 90° none.

    Args:
        data: From :func:`seqdyn.analysis.subspace_angles`.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.subspace_angles(first, second)", "angle")
    ax = new_axes(ax, width=4.6, height=3.2)
    number = np.arange(1, data.sizes["pc"] + 1)
    ax.vlines(number, 0, data["angle"], color=COLORS["forecast"], linewidth=1.5)
    ax.plot(number, data["angle"], "o", color=COLORS["forecast"])
    ax.axhline(90, color=COLORS["history"], linestyle=":", linewidth=1)
    ax.set(xlabel="principal angle", ylabel="angle [°]", ylim=(0, 95), yticks=range(0, 91, 15))
    ax.set_xlim(0.4, len(number) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _of(symbol: Any) -> np.ndarray:
    values = np.asarray(symbol)
    if values.dtype.kind not in "iu":
        raise ValueError(f"symbol must hold whole numbers, got {values.dtype}.")
    return values


def _draw_shares(ax: Axes, share: np.ndarray) -> None:
    number = np.arange(1, len(share) + 1)
    ax.bar(number, 100 * share, color=COLORS["forecast"], label="each")
    ax.plot(number, 100 * share.cumsum(), "o-", color=COLORS["truth"], markersize=4, label="together")
    ax.set(xlabel="principal component", ylabel="share of the variance [%]", ylim=(0, 105))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small", loc="center right")
    soften(ax)
