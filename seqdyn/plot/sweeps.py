"""Curves over the noise and over training."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from seqdyn.plot.style import COLORS, SYMBOL_COLORS, check_dataset, figure_legend, note, panels

__all__ = ["noise_sweep", "resonance", "training_dynamics"]


def noise_sweep(data: xr.Dataset) -> np.ndarray:
    """Draw nested contours of the orbit for each noise, and its radius with the straight line through it.

    Args:
        data: Of :func:`seqdyn.analysis.noise_sweep`.

    Returns:
        Two axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.noise_sweep(dynamics, sigmas, ...)", "contour_level", "radius_mean")
    _, axes = panels(2, width=4.4, height=3.8, sharex=False)
    contours, radius = axes
    colors = plt.get_cmap("viridis")(np.linspace(0.9, 0.1, data.sizes["sigma"]))
    # The widest first, so that the narrow ones lie on it.
    for index in reversed(range(data.sizes["sigma"])):
        one = data.isel(sigma=index)
        levels = np.unique(one["contour_level"].values)
        label = f"σ = {float(one['sigma']):g}"
        contours.plot([], [], color=colors[index], label=label)
        if not np.isfinite(levels).all():
            continue
        grid = (one["grid_pc1"].values, one["grid_pc2"].values)
        fills = [(*to_rgba(colors[index])[:3], alpha) for alpha in np.linspace(0.15, 0.4, len(levels))]
        density = one["density"].values.T
        contours.contourf(*grid, density, levels=[*levels, np.inf], colors=fills)
        contours.contour(
            *grid, density, levels=[float(one["contour_level"].sel(mass=0.05))], colors=[colors[index]]
        )
    contours.set_xlabel("PC 1")
    contours.set_ylabel("PC 2")
    contours.legend(frameon=False, fontsize="small")
    sigma = data["sigma"].values
    radius.fill_between(
        sigma, data["radius_q05"], data["radius_q95"], color=COLORS["forecast"], alpha=0.2, label="5–95 %"
    )
    radius.plot(sigma, data["radius_mean"], "o", color=COLORS["forecast"], label="mean")
    line = float(data["linear_fit_intercept"]) + float(data["linear_fit_slope"]) * sigma
    radius.plot(
        sigma, line, color="black", linewidth=0.8, label=f"line, R² = {float(data['linear_fit_r2']):.4f}"
    )
    radius.set_xlabel("standard deviation σ of the noise")
    radius.set_ylabel("distance from the centre")
    if data.attrs.get("homogeneous"):
        radius.set_title("an identity: the map is homogeneous", fontsize="small")
    radius.legend(frameon=False, fontsize="small")
    return np.array(axes, dtype=object)


def resonance(data: xr.Dataset) -> np.ndarray:
    """Draw error, memory, regularity and switching over the noise, sampled symbols against the control.

    Args:
        data: Of :func:`seqdyn.analysis.resonance`.

    Returns:
        Six axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.resonance(dynamics, sigmas, ...)", "symbol_coherence", "optimum")
    figure, axes = panels(6, width=3.8, height=2.8, sharex=False)
    error, memory, regular, residence, rate, scale = axes
    sigma = data["sigma"].values
    sampled: dict[str, Any] = {"color": COLORS["forecast"]}
    control: dict[str, Any] = {"color": COLORS["history"], "linestyle": "--"}
    if data["transition_error"].notnull().any():
        error.plot(sigma, data["transition_error"], "o-", **sampled)
        error.set_ylabel("largest |ΔQ|")
        _mark(error, data, "transition_error")
    else:
        error.plot(sigma, data["correlation_time"], "o-", **sampled)
        error.set_ylabel("correlation time [steps]")
    memory.plot(sigma, data["mutual_information"].isel(lag=0), "o-", label="sampled", **sampled)
    memory.plot(sigma, data["argmax_mutual_information"].isel(lag=0), label="likeliest", **control)
    memory.set_ylabel("mutual information\nat lag 1 [nats]")
    _mark(memory, data, "mutual_information")
    regular.plot(sigma, data["symbol_coherence"], "o-", **sampled)
    regular.plot(sigma, data["argmax_symbol_coherence"], **control)
    regular.set_ylabel("coherence of the symbols")
    _mark(regular, data, "symbol_coherence")
    residence.plot(sigma, data["residence_cv"], "o-", **sampled)
    residence.plot(sigma, data["argmax_residence_cv"], **control)
    residence.set_ylabel("residence, sd / mean")
    _mark(residence, data, "residence_cv")
    scale.plot(sigma, data["dwell_median"], "o-", color=COLORS["truth"], label="settled")
    scale.plot(sigma, data["transition_median"], "o-", color=COLORS["other"], label="between")
    scale.set_ylabel("median length [steps]")
    if (data["dwell_median"] > 0).any():
        scale.set_yscale("log")
    scale.legend(frameon=False, fontsize="small")
    rate.plot(sigma, data["switch_rate"], "o-", **sampled)
    rate.plot(sigma, data["argmax_switch_rate"], **control)
    rate.set_ylabel("switches per step")
    for ax in axes:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("standard deviation σ of the noise")
    figure_legend(figure, memory)
    note(figure, "the control, likeliest symbols, is " + str(data.attrs["control"]).split(":")[0])
    return np.array(axes, dtype=object)


def training_dynamics(data: xr.Dataset) -> np.ndarray:
    """Draw switching, eigenvalues, growth, loss, the drift by noise, and orbits over training.

    Args:
        data: Of :func:`seqdyn.analysis.training_dynamics`.

    Returns:
        Six axes; the last one holds orbits of up to five checkpoints, side by side.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.training_dynamics(checkpoints, ...)", "switch_rate", "noise_drift")
    figure, axes = panels(6, width=3.8, height=2.9, sharex=False)
    rate, eigen, growth, loss, drift, orbits = axes
    epoch = data["epoch"].values
    rate.plot(epoch, data["switch_rate"], label="sampled", color=COLORS["forecast"])
    rate.plot(epoch, data["argmax_switch_rate"], "--", label="likeliest", color=COLORS["history"])
    rate.plot(epoch, data["mean_reciprocal_interval"], ":", label="mean 1/interval", color=COLORS["other"])
    rate.set_ylabel("switches per step")
    eigen.plot(epoch, data["unstable_fraction"], label="unstable", color=COLORS["truth"])
    eigen.plot(epoch, data["critical_fraction"], label="critical", color=COLORS["forecast"])
    eigen.set_ylabel("share of states")
    eigen.set_ylim(-0.02, 1.02)
    growth.plot(epoch, data["growth_rate"], label="noise-free growth", color=COLORS["forecast"])
    for name, color in {"driven": COLORS["truth"], "autonomous": COLORS["other"]}.items():
        exponent = data[f"lyapunov_{name}"]
        growth.plot(
            epoch, exponent.where(np.isfinite(exponent)), "--", label=f"exponent, {name}", color=color
        )
    growth.axhline(0, color="black", linewidth=0.8)
    growth.set_ylabel("rate per step")
    loss.plot(epoch, data["loss"], color=COLORS["forecast"], label="loss")
    loss.plot(epoch, data["transition_error"], "--", color=COLORS["truth"], label="largest |ΔQ|")
    nothing = not (data["loss"].notnull().any() or data["transition_error"].notnull().any())
    if nothing:
        loss.text(0.5, 0.5, "no loss, no process given", ha="center", transform=loss.transAxes)
        loss.set(xlim=growth.get_xlim(), yticks=[])
    for ax in (rate, eigen, growth) if nothing else (rate, eigen, growth, loss):
        ax.legend(frameon=False, fontsize="x-small")
    values = data["noise_drift"].values
    order = (
        np.argsort(-np.abs(values[np.flatnonzero(data["finite"].values)[-1]]))
        if data["finite"].any()
        else slice(None)
    )
    limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    shown = drift.pcolormesh(
        epoch, np.arange(values.shape[1]), values[:, order].T, cmap="RdBu_r", vmin=-limit, vmax=limit
    )
    figure.colorbar(shown, ax=drift, label="drift by noise")
    drift.set_ylabel("unit, sorted")
    for ax in axes[:5]:
        ax.set_xlabel(data["epoch"].attrs.get("long_name", "epoch"))
        if "transition_epoch" in data and np.isfinite(float(data["transition_epoch"])):
            ax.axvline(float(data["transition_epoch"]), color="black", linestyle=":", linewidth=1)
    _portraits(orbits, data)
    return np.array(axes, dtype=object)


def _portraits(ax: Axes, data: xr.Dataset) -> None:
    """One chain of a few checkpoints, each scaled to its own size, from left to right."""
    finite = np.flatnonzero(data["finite"].values)
    chosen = finite[np.unique(np.linspace(0, len(finite) - 1, min(5, len(finite))).round().astype(int))]
    for place, index in enumerate(chosen):
        path = data["scores"].values[index]
        size = np.abs(path).max()
        path = path / (size if size > 0 else 1.0)
        ax.plot(2.4 * place + path[:, 0], path[:, 1], linewidth=0.5, color=SYMBOL_COLORS[1])
    ax.set_xticks(2.4 * np.arange(len(chosen)), [str(value) for value in data["epoch"].values[chosen]])
    ax.set_yticks([])
    name = data["epoch"].attrs.get("long_name", "epoch")
    ax.set_xlabel(f"{name}; each orbit at its own scale")


def _mark(ax: Axes, data: xr.Dataset, criterion: str) -> None:
    """The optimum of a criterion with its interval."""
    best = data.sel(criterion=criterion)
    if np.isfinite(float(best["optimum"])) and not bool(best["at_edge"]):
        ax.axvspan(*best["optimum_interval"].values, color=COLORS["truth"], alpha=0.15)
        ax.axvline(float(best["optimum"]), color=COLORS["truth"], linewidth=1)
