"""Eigenvalues and exponents."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqdyn.plot.style import COLORS, check_dataset, new_axes, panels

__all__ = ["fixed_points", "local_spectra", "lyapunov_spectrum"]

_CYCLE = (*COLORS.values(), "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "black")


def fixed_points(points: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the eigenvalues of each fixed point in the complex plane, with the border of stability.

    Args:
        points: From :func:`seqdyn.analysis.fixed_points`. Points at a kink have no eigenvalues.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(points, "analysis.fixed_points(dynamics, start)", "eigenvalue", "stability")
    values = points["eigenvalue"].values
    drawn = np.flatnonzero(np.isfinite(values).all(axis=1))
    ax = new_axes(ax, width=5.2, height=4.4)
    if len(drawn) == 0:  # none was found, or all lie on a kink
        kinks = f"{len(values)} at a kink, without" if len(values) else "none with"
        ax.set_title(f"fixed points: {kinks} eigenvalues")
        _border(ax, points.attrs.get("system") == "flow")
        return ax
    names = points["stability"].values
    for name, color in zip(dict.fromkeys(names[drawn]), _CYCLE, strict=False):
        chosen = [i for i in drawn if names[i] == name]
        label = f"{name} ({len(chosen)})"
        _dots(ax, values[chosen].ravel(), color, label)
    _border(ax, points.attrs.get("system") == "flow")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def local_spectra(data: xr.Dataset) -> np.ndarray:
    """Draw the eigenvalues along a trajectory, and how many are unstable or critical at each step.

    Args:
        data: From :func:`seqdyn.analysis.local_spectra`.

    Returns:
        Two axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.local_spectra(dynamics, states)", "eigenvalue", "num_unstable")
    _, axes = panels(2, width=4.2, height=3.6, sharex=False)
    _dots(axes[0], data["eigenvalue"].values.ravel(), COLORS["forecast"], None)
    _border(axes[0], data.attrs.get("system") == "flow")
    time = np.arange(data.sizes["time"])
    counts = {"unstable eigenvalues": "num_unstable", "critical pairs": "num_critical"}
    styles = ((COLORS["truth"], "-"), (COLORS["forecast"], "--"))  # one may lie on the other
    for (label, name), (color, dashes) in zip(counts.items(), styles, strict=True):
        axes[1].step(time, data[name], where="mid", color=color, linestyle=dashes, label=label, linewidth=1.2)
    axes[1].set_xlabel("time [steps]")
    axes[1].set_ylabel("number")
    axes[1].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].set_ylim(bottom=-0.1, top=max(1, int(max(data[name].max() for name in counts.values()))) * 1.3)
    axes[1].legend(frameon=False, loc="upper left")
    return np.array(axes, dtype=object)


def lyapunov_spectrum(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how the estimates of the exponents settle, with a band of two standard errors at the end.

    Args:
        data: From :func:`seqdyn.analysis.lyapunov_spectrum`; exponents of -inf are named, not drawn.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.lyapunov_spectrum(dynamics, state, ...)", "running", "exponent_se")
    ax = new_axes(ax, width=5.6, height=3.6)
    exponent, error = data["exponent"].values, data["exponent_se"].values
    finite = np.flatnonzero(np.isfinite(exponent))
    few = len(finite) <= 6
    for number, i in enumerate(finite):
        color = _CYCLE[number % len(_CYCLE)] if few else COLORS["forecast"]
        spread = f" ± {error[i]:.2g}" if np.isfinite(error[i]) else ""
        label = f"{exponent[i]:.3g}{spread}" if few else None
        ax.plot(data["time"], data["running"][:, i], color=color, linewidth=1.3, label=label)
        if np.isfinite(error[i]):
            ax.axhspan(
                exponent[i] - 2 * error[i], exponent[i] + 2 * error[i], color=color, alpha=0.2, linewidth=0
            )
    ax.axhline(0.0, color="black", linewidth=0.8)
    flow = data.attrs.get("system") == "flow"
    ax.set_xlabel("time" if flow else "time [steps]")
    ax.set_ylabel("exponent per unit of time" if flow else "exponent per step")
    erased = len(exponent) - len(finite)
    title = f"{erased} of {len(exponent)} exponents are -inf" if erased else None
    if few and len(finite):
        ax.legend(frameon=False, title=title, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    elif title:
        ax.set_title(title, fontsize="medium")
    return ax


def _dots(ax: Axes, values: np.ndarray, color: str, label: str | None) -> None:
    style: dict[str, Any] = {"s": 14, "alpha": 0.7, "linewidth": 0, "zorder": 3}
    ax.scatter(values.real, values.imag, color=color, label=label, **style)


def _border(ax: Axes, flow: bool) -> None:
    """The imaginary axis of a flow, the unit circle of a map."""
    line: dict[str, Any] = {"color": "black", "linewidth": 0.8, "zorder": 2}
    if flow:
        ax.axvline(0.0, **line)
    else:
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), **line)
        ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
