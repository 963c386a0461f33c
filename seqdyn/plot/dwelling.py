"""Where a system dwells: residence maps, regimes and their transitions."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap

from seqdyn.plot.style import check_dataset, panels

__all__ = ["regimes", "residence"]

# In the published pictures symbol 0 is green, 1 blue and 2 red; told apart with any colour vision.
_REGIMES = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_REGIONS = {"transition": "#D55E00", "kick-zone": "#E69F00", "cluster": "#0072B2", "unassigned": "#bbbbbb"}


def residence(data: xr.Dataset) -> np.ndarray:
    """Draw residence times and regions in the plane of the principal components, and what goes with them.

    Args:
        data: What :func:`seqdyn.analysis.residence` gives.

    Returns:
        Array of four axes: residence times, regions, residence against sign changes, and shares of the
        regions; the last shows the unstable eigenvalues of each region if they were counted.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.residence(dynamics, states)", "residence_time")
    figure, axes = panels(4, width=4.4, height=3.4, sharex=False)
    x, y = data.scores.isel(pc=0), data.scores.isel(pc=1)
    bounds = [1, 2, 4, 9, max(float(data.residence_time.max()), 10)]
    norm = BoundaryNorm(bounds, 256)
    dots = axes[0].scatter(x, y, c=data.residence_time, s=5, cmap="viridis", norm=norm, rasterized=True)
    figure.colorbar(dots, ax=axes[0], label="residence time [steps]", format="%.3g")
    for name, color in _REGIONS.items():
        inside = (data.region == name).values
        axes[1].scatter(x[inside], y[inside], s=5, color=color, label=name, rasterized=True)
        axes[2].scatter(
            data.residence_time[inside], data.sign_changes[inside], s=5, color=color, rasterized=True
        )
    for ax in axes[:2]:
        ax.set(xlabel="PC 1", ylabel="PC 2")
    axes[1].legend(frameon=False, fontsize="x-small", markerscale=2, loc="best")
    axes[2].set(xlabel="residence time [steps]", ylabel="sign changes of the logit")
    counted = "region_n_unstable" in data
    heights = data.region_n_unstable if counted else data.region_share
    axes[3].bar(range(len(_REGIONS)), heights.sel(region_name=list(_REGIONS)), color=list(_REGIONS.values()))
    axes[3].set_xticks(range(len(_REGIONS)), list(_REGIONS), fontsize="small")
    axes[3].set_ylabel("unstable eigenvalues" if counted else "share of the states")
    return np.array(axes, dtype=object)


def regimes(data: xr.Dataset, *, max_states: int = 5000) -> np.ndarray:
    """Draw regimes in the plane of the principal components, their dwell times and their transitions.

    Args:
        data: What :func:`seqdyn.analysis.regimes` gives.
        max_states: Most states drawn.

    Returns:
        Array of three axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.regimes(dynamics, ...)", "dwell_length")
    figure, axes = panels(3, width=4.2, height=3.4, sharex=False)
    flat = data[["label", "scores"]].stack(state=("chain", "time"))
    flat = flat.isel(state=slice(None, None, -(-flat.sizes["state"] // max_states)))
    count = data.sizes["regime"]
    colors = [_REGIMES[at % len(_REGIMES)] for at in range(count)]
    dots = axes[0].scatter(
        flat.scores.isel(pc=0), flat.scores.isel(pc=1), c=flat.label, s=5, vmin=-0.5, vmax=count - 0.5,
        cmap=ListedColormap(colors), rasterized=True,
    )  # fmt: skip
    figure.colorbar(dots, ax=axes[0], ticks=range(count), label="regime")
    axes[0].set(xlabel="PC 1", ylabel="PC 2")
    for regime, color in enumerate(colors):
        lengths = np.sort(data.dwell_length.values[data.dwell_regime.values == regime])
        if len(lengths):
            # The last point would be 0, which a logarithmic axis has no place for.
            left = 1 - np.arange(len(lengths)) / len(lengths)
            axes[1].step(
                lengths, left, color=color, label=f"regime {regime}, mean {lengths.mean():.1f}", where="pre"
            )
    axes[1].set(yscale="log", xlabel="dwell time [steps]", ylabel="share at least as long")
    axes[1].legend(frameon=False, fontsize="small")
    image = axes[2].imshow(data.transition, vmin=0, vmax=1, cmap="Greys")
    for (row, column), value in np.ndenumerate(data.transition.values):
        text, dark = ("–", False) if np.isnan(value) else (f"{value:.3f}", value > 0.5)
        axes[2].text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    axes[2].set(xticks=range(count), yticks=range(count), xlabel="next regime", ylabel="regime")
    axes[2].grid(False)
    figure.colorbar(image, ax=axes[2], label="probability a step")
    return np.array(axes, dtype=object)
