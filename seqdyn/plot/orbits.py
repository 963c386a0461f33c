"""Motion in the plane of principal components: orbits, speeds, readouts, parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import FormatStrFormatter

from seqdyn.plot.style import COLORS, SYMBOL_COLORS, check_dataset, new_axes, panels

__all__ = [
    "autonomous_dynamics",
    "composition",
    "logit_gradients",
    "orbit",
    "readout_axes",
    "speed_field",
]


def autonomous_dynamics(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw noise-free runs in the principal plane, and the attractors that they end on as crosses.

    Args:
        data: Of :func:`seqdyn.analysis.autonomous_dynamics`.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.autonomous_dynamics(dynamics)", "trajectory_pc", "attractor_hidden")
    ax = new_axes(ax, width=5.0, height=4.2)
    paths, symbol = data["trajectory_pc"].values[:, :, :2], data["symbol"].values
    segments = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)
    colors = np.array([*SYMBOL_COLORS, COLORS["history"]])[
        np.where(symbol < 0, len(SYMBOL_COLORS), symbol % len(SYMBOL_COLORS))
    ]
    keep = np.isfinite(segments).all(axis=(1, 2))
    ax.add_collection(
        LineCollection(
            list(segments[keep]), colors=list(colors[:, 1:].reshape(-1)[keep]), linewidths=0.7, alpha=0.6
        )
    )
    ax.plot(*paths[:, 0].T, ".", color=COLORS["history"], markersize=3, alpha=0.6, label="start")
    if data.sizes["attractor"]:
        centred = data["attractor_hidden"].values - data["mean"].values
        ends = centred @ data["component"].values[:2].T
        ax.plot(*ends.T, "x", color="black", markersize=9, markeredgewidth=2, label="attractor", zorder=3)
    _symbol_legend(ax, symbol)
    ax.autoscale_view()
    _plane_labels(ax, data)
    return ax


def orbit(data: xr.Dataset) -> np.ndarray:
    """Draw the driven orbit, its profiles over the phase, and the area rate against its nulls.

    Args:
        data: Of :func:`seqdyn.analysis.orbit`.

    Returns:
        Four axes: the plane, speed and occupancy, emission probabilities, area rate.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.orbit(dynamics, ...)", "scores", "phase", "area_rate_null")
    _, axes = panels(4, width=4.2, height=3.2, sharex=False)
    plane, motion, emission, area = axes
    paths = data["scores"].values
    phase = data["phase"].values
    few = paths[:8].reshape(-1, 2)
    shown = plane.scatter(
        few[:, 0],
        few[:, 1],
        c=np.angle(np.exp(1j * phase[:8])).ravel(),
        cmap="twilight",
        s=3,
        vmin=-np.pi,
        vmax=np.pi,
    )
    plane.plot(*paths[0, :60].T, color="black", linewidth=0.8)
    plane.figure.colorbar(shown, ax=plane, label="phase [rad]")
    _plane_labels(plane, data)
    turns = float(data["winding_rate"])
    plane.set_title(f"{turns:.1f} turns per 1000 steps", fontsize="medium")
    centre = data["phase_bin"].values
    motion.plot(centre, data["profile_speed"], color=COLORS["forecast"], label="speed")
    motion.plot(centre, data["profile_radius"], color=COLORS["other"], label="radius")
    motion.set_ylabel("length per step, length")
    share = motion.twinx()
    share.bar(
        centre, data["profile_occupancy"], width=centre[1] - centre[0], color=COLORS["history"], alpha=0.25
    )
    share.set_ylabel("share of time")
    share.spines["top"].set_visible(False)
    motion.legend(frameon=False)
    if "profile_prob" in data:
        for output in range(data.sizes["output"]):
            color = SYMBOL_COLORS[output % len(SYMBOL_COLORS)]
            emission.plot(centre, data["profile_prob"][:, output], color=color, label=f"symbol {output}")
        emission.set_ylim(0, 1)
        emission.legend(frameon=False)
    else:
        emission.text(0.5, 0.5, "no readout", ha="center", transform=emission.transAxes)
    emission.set_ylabel("probability")
    for ax in (motion, emission):
        ax.set_xlabel("phase [rad]")
        ax.set_xlim(-np.pi, np.pi)
    for name, color in zip(data["null"].values, (COLORS["history"], COLORS["other"]), strict=True):
        null = data["area_rate_null"].sel(null=name)
        area.hist(null, bins=30, color=color, alpha=0.5, label=f"null, {name}")
    area.axvline(float(data["area_rate"]), color=COLORS["truth"], linewidth=2, label="found")
    area.set_xlabel("area per step")
    area.set_ylabel("draws")
    area.legend(frameon=False)
    return np.array(axes, dtype=object)


def speed_field(data: xr.Dataset, ax: Axes | None = None, *, quantity: str = "speed") -> Axes:
    """Draw stream lines of the mean displacement over the logarithm of a speed, slow regions outlined.

    Args:
        data: Of :func:`seqdyn.analysis.speed_field`.
        ax: Axes to draw on; new ones by default.
        quantity: ``"speed"``, ``"autonomous_speed"`` or ``"mean_map_speed"``.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind, or there is no such speed.
    """
    check_dataset(data, "analysis.speed_field(dynamics, ...)", "speed", "drift", "grid_pc1")
    known = ("speed", "autonomous_speed", "mean_map_speed")
    if quantity not in known:
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}.")
    ax = new_axes(ax, width=5.6, height=4.4)
    x, y = data["grid_pc1"].values, data["grid_pc2"].values
    speed = data[quantity].values.T
    positive = speed[np.isfinite(speed) & (speed > 0)]
    if len(positive):
        low, high = positive.min(), positive.max()
        norm = LogNorm(low, high if high > low else 2 * low)
        shown = ax.pcolormesh(x, y, np.where(speed > 0, speed, np.nan), norm=norm, cmap="viridis", alpha=0.9)
        bar = ax.figure.colorbar(shown, ax=ax, label=f"{quantity.replace('_', ' ')} per step", format="%g")
        bar.ax.yaxis.set_minor_formatter(FormatStrFormatter("%g"))
        u, v = (np.ma.masked_invalid(data["drift"].values[:, :, one].T) for one in range(2))
        ax.streamplot(x, y, u, v, color="white", linewidth=0.7, arrowsize=0.8, density=1.2)
        if len(positive) > 8:
            slow = float(np.quantile(positive, 0.1))
            filled = np.where(np.isfinite(speed), speed, high)
            ax.contour(x, y, filled, levels=[slow], colors=COLORS["truth"], linewidths=1.2)
    else:
        ax.text(0.5, 0.5, str(data.attrs.get("reason", "no speed")), ha="center", transform=ax.transAxes)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.grid(False)
    _plane_labels(ax, data)
    return ax


def readout_axes(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the unit rows of the readout in the principal plane; a row that lies in it ends on the circle.

    Args:
        data: Of :func:`seqdyn.analysis.readout_axes`.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.readout_axes(dynamics, ...)", "readout_projection")
    ax = new_axes(ax, width=4.4, height=4.4)
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color=COLORS["history"], linewidth=0.8)
    for output, (x, y) in enumerate(data["readout_projection"].values):
        if not np.isfinite(x + y):
            continue
        color = SYMBOL_COLORS[output % len(SYMBOL_COLORS)]
        ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": color, "linewidth": 2})
        degrees = float(data["angle_deg"][output])
        ax.plot([], [], color=color, label=f"symbol {output}: {degrees:.0f}° off the plane")
    ax.set_aspect("equal")
    ax.set_xlim(-1.1, 1.1)
    ax.set_ylim(-1.1, 1.1)
    ax.legend(frameon=False, loc="upper left", fontsize="small", bbox_to_anchor=(0, 1.22))
    _plane_labels(ax, data)
    return ax


def logit_gradients(data: xr.Dataset, sample: int = 0, num_steps: int = 100) -> np.ndarray:
    """Draw the changes of the logits along one run, and how far each is the direction of motion.

    Args:
        data: Of :func:`seqdyn.analysis.logit_gradients`.
        sample: Which run.
        num_steps: Steps shown.

    Returns:
        Two axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.logit_gradients(dynamics, runs)", "logit_change", "alignment")
    _, axes = panels(2, width=4.4, height=2.8)
    part = data.isel(sample=sample, time=slice(num_steps))
    names = {"logit_change": "change of the logit", "alignment": "cosine with the step"}
    for ax, (name, label) in zip(axes, names.items(), strict=True):
        for output in range(data.sizes["output"]):
            color = SYMBOL_COLORS[output % len(SYMBOL_COLORS)]
            ax.plot(part["time"], part[name][:, output], color=color, linewidth=1, label=f"symbol {output}")
        ax.axhline(0, color=COLORS["history"], linewidth=0.8)
        ax.set_ylabel(label)
        ax.set_xlabel("time [steps]")
    axes[0].legend(frameon=False, fontsize="small")
    return np.array(axes, dtype=object)


def composition(data: xr.Dataset) -> np.ndarray:
    """Draw the orbit within each pair of symbols that occurs, and the distances between pairs.

    Args:
        data: Of :func:`seqdyn.analysis.composition`.

    Returns:
        Axes of the pairs, then, of two or more pairs, those of the two matrices of distances.

    Raises:
        ValueError: If the dataset is of another kind, or no pair occurs.
    """
    check_dataset(data, "analysis.composition(dynamics, ...)", "winding_rate", "pair_distance")
    found = np.flatnonzero(np.isfinite(data["winding_rate"].values))
    if not len(found):
        raise ValueError(f"no pair of symbols has an orbit to draw: {data.attrs.get('reason', '')}.")
    names = {"pair_distance": "profiles", "orbit_distance": "mean orbits"} if len(found) > 1 else {}
    _, axes = panels(len(found) + len(names), width=3.6, height=3.2, sharex=False)
    first, second = (int(one) - 1 for one in np.ravel(data.attrs["axes"]))
    for ax, index in zip(axes, found, strict=False):
        pair = data.isel(pair=index)
        points, symbol = pair["scores"].values, pair["symbol"].values
        for value in np.unique(symbol[symbol >= 0]):
            color = SYMBOL_COLORS[value % len(SYMBOL_COLORS)]
            here = points[symbol == value]
            ax.plot(here[:, first], here[:, second], ".", color=color, markersize=2, alpha=0.5)
        mean = pair["orbit"].values
        mean = mean[np.isfinite(mean).all(axis=1)]
        closed = np.concatenate([mean, mean[:1]])
        ax.plot(closed[:, first], closed[:, second], color="black", linewidth=1.4)
        turns = float(pair["winding_rate"])
        ax.set_title(f"{pair['pair'].item()} · {turns:.0f} turns/1000", fontsize="small")
        ax.set_xlabel(f"PC {first + 1} of the pair")
        ax.set_ylabel(f"PC {second + 1}")
    labels = [str(name) for name in data["pair"].values[found]]
    for ax, (name, title) in zip(axes[len(found) :], names.items(), strict=True):
        values = data[name].values[np.ix_(found, found)]
        shown = ax.imshow(values, cmap="viridis_r", vmin=0)
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize="x-small")
        ax.set_yticks(range(len(labels)), labels, fontsize="x-small")
        ax.grid(False)
        ax.set_title(f"distance of {title}", fontsize="small")
        ax.figure.colorbar(shown, ax=ax)
    return np.array(axes, dtype=object)


def _plane_labels(ax: Axes, data: xr.Dataset) -> None:
    share: Any = data.get("explained_variance_ratio")
    percent = ["", ""] if share is None else [f" ({100 * float(one):.0f} %)" for one in share[:2]]
    first, second = np.ravel(data.attrs.get("axes", (1, 2)))
    ax.set_xlabel(f"PC {first}{percent[0]}")
    ax.set_ylabel(f"PC {second}{percent[1]}")


def _symbol_legend(ax: Axes, symbol: np.ndarray) -> None:
    for value in np.unique(symbol[symbol >= 0]):
        ax.plot([], [], color=SYMBOL_COLORS[value % len(SYMBOL_COLORS)], label=f"symbol {value}")
    ax.legend(frameon=False, fontsize="small")
