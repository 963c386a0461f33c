"""How trajectories fan out under noise, deep in a dwell and at a switch."""

from __future__ import annotations

import numpy as np
import xarray as xr

from seqdyn.plot.style import COLORS, check_dataset, panels

__all__ = ["noise_sensitivity"]

_COLORS = {"cluster": COLORS["forecast"], "transition": COLORS["truth"]}


def noise_sensitivity(data: xr.Dataset, *, max_paths: int = 40) -> np.ndarray:
    """Draw fans of trajectories for each region and share of fresh noise, then their spread over time.

    Args:
        data: What :func:`seqdyn.analysis.noise_sensitivity` gives.
        max_paths: Most trajectories in a panel.

    Returns:
        Array of axes: the fans, region by region, then mean distance, trace of the covariance and the share
        that has switched.

    Raises:
        ValueError: If the dataset is of another kind, or is empty for want of an event.
    """
    if isinstance(data, xr.Dataset) and "cov_trace" not in data and "reason" in data.attrs:
        raise ValueError(f"the dataset holds no trajectories: {data.attrs['reason']}.")
    check_dataset(data, "analysis.noise_sensitivity(dynamics, ...)", "cov_trace")
    gammas, regions = data.gamma.values, [str(name) for name in data.region.values]
    # Three panels in a row: regions stand in rows where there are three shares, as by default.
    figure, axes = panels(len(gammas) * len(regions) + 3, width=3.4, height=2.8, sharex=False)
    fans, curves = axes[:-3], axes[-3:]
    for ax, (region, gamma) in zip(fans, [(r, g) for r in regions for g in gammas], strict=True):
        paths = data.trajectories_pc.sel(region=region, gamma=gamma).transpose("time", "sample", "pc").values
        ax.plot(
            paths[:, :max_paths, 0], paths[:, :max_paths, 1], color=_COLORS[region], linewidth=0.6, alpha=0.5
        )
        ax.plot(*paths[0, 0, :2], "o", color="black", markersize=4, zorder=5)
        ax.set_title(f"{region}, γ = {gamma:g}", fontsize="medium")
        ax.set(xlabel="PC 1", ylabel="PC 2")
    same = [
        (min(low), max(high))
        for low, high in (zip(*(get(ax) for ax in fans), strict=True) for get in _LIMITS)
    ]
    for ax in fans:
        ax.set(xlim=same[0], ylim=same[1])
    labels = ("mean distance", "trace of the covariance", "share switched")
    for ax, name, label in zip(
        curves, ("mean_distance", "cov_trace", "switch_probability"), labels, strict=True
    ):
        for region in regions:
            for gamma, style in zip(gammas, ("-", "--", ":", "-."), strict=False):
                values = data[name].sel(region=region, gamma=gamma)
                ax.plot(data.time, values, style, color=_COLORS[region], label=f"{region}, γ = {gamma:g}")
        ax.set(xlabel="steps", ylabel=label)
    handles, names = curves[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return np.array(axes, dtype=object)


_LIMITS = (lambda ax: ax.get_xlim(), lambda ax: ax.get_ylim())
