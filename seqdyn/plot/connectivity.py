"""Connections between groups and populations of units, and their activity."""

from __future__ import annotations

import numpy as np
import xarray as xr

from seqdyn.plot.style import check_dataset, panels

__all__ = ["populations"]

_SYMBOLS = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
_SETS = ("#D55E00", "#0072B2", "#E69F00", "#56B4E9")


def populations(data: xr.Dataset, *, chain: int = 0, max_steps: int = 150) -> np.ndarray:
    """Draw block means with their p-values, the sorted weights, and activity over the symbols.

    Args:
        data: What :func:`seqdyn.analysis.populations` gives.
        chain: Chain whose activity is drawn.
        max_steps: Most steps of it.

    Returns:
        Array of three axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.populations(dynamics, groups, ...)", "block_mean")
    figure, axes = panels(3, width=4.6, height=3.8, sharex=False)
    names = [str(name).replace("group ", "G").replace("population ", "P") for name in data.neuron_set.values]
    means = data.block_mean.values
    limit = np.nanmax(np.abs(means)) or 1.0
    image = axes[0].imshow(means, cmap="coolwarm", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(means):
        p_value = data.block_p.values[row, column]
        text = "none" if np.isnan(value) else f"{value:.2f}\np {p_value:.2g}"
        shade = "white" if abs(value) > 0.7 * limit else "black"
        axes[0].text(column, row, text, ha="center", va="center", fontsize="x-small", color=shade)
    axes[0].set(
        xticks=range(4), yticks=range(4), xticklabels=names, yticklabels=names, xlabel="from", ylabel="to"
    )
    figure.colorbar(image, ax=axes[0], label="mean weight")
    weights = data.sorted_W.values
    limit = np.quantile(np.abs(weights), 0.99) or 1.0
    image = axes[1].imshow(weights, cmap="coolwarm", vmin=-limit, vmax=limit, interpolation="nearest")
    sizes = [int((data.group == at).sum()) for at in (1, 2)] + [
        int((data.population == at).sum()) for at in (1, 2)
    ]
    for edge in np.cumsum(sizes):
        axes[1].axhline(edge - 0.5, color="black", linewidth=0.6)
        axes[1].axvline(edge - 0.5, color="black", linewidth=0.6)
    axes[1].set(xlabel="from unit, sorted", ylabel="to unit, sorted")
    figure.colorbar(image, ax=axes[1], label="weight")
    for ax in axes[:2]:
        ax.grid(False)
    shown = data.isel(chain=chain, time=slice(0, max_steps))
    symbol = shown.symbol_trace.values
    edges = np.concatenate([[0], np.flatnonzero(np.diff(symbol)) + 1, [len(symbol)]])
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        axes[2].axvspan(start, stop, color=_SYMBOLS[symbol[start] % len(_SYMBOLS)], alpha=0.15, linewidth=0)
    for at, name in enumerate(names):
        axes[2].plot(shown.mean_activity.isel(neuron_set=at), color=_SETS[at], linewidth=1.0, label=name)
    axes[2].set(xlabel="steps", ylabel="mean activity (shade: symbol)")
    axes[2].legend(frameon=False, fontsize="x-small", ncols=4, loc="upper right")
    return np.array(axes, dtype=object)
