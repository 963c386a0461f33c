"""Kick units: their drive around a switch, where their zone lies, and what removing them does."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.plot.style import COLORS, check_dataset, figure_legend, new_axes, note, panels, soften

__all__ = ["greedy_group", "group_effect", "kick_units", "kick_zone"]

_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def kick_units(data: xr.Dataset, *, max_units: int = 6) -> np.ndarray:
    """Draw the event-triggered drive of the first units of every direction, all others in grey.

    Args:
        data: What :func:`seqdyn.analysis.kick_units` gives.
        max_units: Most units named in a panel. Kick units are drawn solid, others dashed.

    Returns:
        Array of axes, one for each direction.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.kick_units(dynamics, ...)", "event_mean_z")
    figure, axes = panels(data.sizes["direction"], width=4.6, height=3.4)
    for at, ax in enumerate(axes):
        one = data.isel(direction=at)
        z = (one.event_mean_z / one.sd_z).transpose("unit", "lag").values
        ax.plot(data.lag, z.T, color="#cccccc", linewidth=0.6, zorder=1)
        for color, unit in zip(_LINES, np.argsort(one.kick_rank.values)[:max_units], strict=False):
            kick = bool(one.is_kick[unit])
            label = f"unit {unit}" + (" (kick)" if kick else "")
            ax.plot(data.lag, z[unit], "-" if kick else "--", color=color, linewidth=1.6, label=label)
        ax.axhline(0, color=COLORS["history"], linewidth=0.8)
        ax.axvline(0, color=COLORS["history"], linewidth=0.8, linestyle=":")
        events = f"{int(one.num_events)} of {int(one.num_switches)} switches"
        ax.set_title(f"symbol {one.direction.item()}, {events}", fontsize="medium")
        ax.set_xlabel("steps from the switch")
        ax.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[0].set_ylabel("mean drive [sd]")
    if not bool(data.is_kick.any()):
        note(figure, "no unit passes as a kick unit")
    return np.array(axes, dtype=object)


def kick_zone(data: xr.Dataset) -> np.ndarray:
    """Draw states in the plane of the principal components: drive of the first unit, kick-zone ringed.

    Args:
        data: What :func:`seqdyn.analysis.kick_units` gives.

    Returns:
        Array of axes, one for each direction.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.kick_units(dynamics, ...)", "kick_zone")
    figure, axes = panels(data.sizes["direction"], width=4.8, height=3.8)
    x, y = data.scores.isel(pc=0), data.scores.isel(pc=1)
    for at, ax in enumerate(axes):
        one = data.isel(direction=at)
        unit = int(np.argmin(one.kick_rank.values))
        z = one.drive.isel(unit=unit) / one.sd_z.isel(unit=unit)
        limit = float(abs(z).quantile(0.98))
        dots = ax.scatter(x, y, c=z, s=5, cmap="coolwarm", vmin=-limit, vmax=limit, rasterized=True)
        zone = one.kick_zone.values
        ax.scatter(
            x[zone], y[zone], s=18, facecolors="none", edgecolors="black", linewidths=0.5, label="kick-zone"
        )
        figure.colorbar(dots, ax=ax, label=f"drive of unit {unit} [sd]")
        ax.set_title(f"symbol {one.direction.item()}", fontsize="medium")
        ax.set_xlabel("PC 1")
    axes[0].set_ylabel("PC 2")
    figure_legend(figure, axes[0])
    return np.array(axes, dtype=object)


def group_effect(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the effect of removing a group, with its interval, over those of the random groups.

    Args:
        data: What :func:`seqdyn.analysis.group_effect` gives.
        ax: Axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.group_effect(dynamics, ...)", "random_effect")
    ax = new_axes(ax, width=5.6, height=3.2)
    names = {"silence": "activity 0", "recurrent": "recurrent\ndrive 0"}
    for row, change in enumerate(data.change.values):
        one = data.sel(change=change)
        random = one.random_effect.values
        jitter = 0.22 * (np.linspace(-1, 1, len(random)) * 7919 % 2 - 1)
        ax.scatter(
            random,
            row + jitter,
            s=8,
            color=COLORS["history"],
            alpha=0.5,
            label="random groups" if row == 0 else None,
        )
        low, high = one.effect_ci.values
        ax.plot([low, high], [row, row], color=COLORS["truth"], linewidth=2.5)
        ax.plot(
            float(one.effect),
            row,
            "D",
            color=COLORS["truth"],
            markersize=7,
            label="this group" if row == 0 else None,
        )
        ax.annotate(
            f"rank {float(one['rank']):.1%}",
            (float(one.effect), row),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color=COLORS["truth"],
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
    ax.axvline(0, color=COLORS["history"], linewidth=0.8)
    ax.set_yticks(
        range(data.sizes["change"]), [names.get(str(name), str(name)) for name in data.change.values]
    )
    ax.set_ylim(-0.5, data.sizes["change"] - 0.5)
    ax.set_xlabel("relative reduction of the switch rate")
    ax.set_title(str(data.attrs["verdict"]), fontsize="medium", pad=22)
    ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    soften(ax)
    return ax


def greedy_group(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the effect of the group as it grows, over what each of its units does alone.

    Args:
        data: What :func:`seqdyn.analysis.greedy_group` gives.
        ax: Axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "analysis.greedy_group(dynamics, num_units)", "chosen", "effect", "single_effect")
    ax = new_axes(ax, width=5.4, height=3.4)
    order, chosen = data.order.values, data.chosen.values
    ax.plot(order, data.effect, "o-", color=COLORS["truth"], label="all units so far")
    ax.bar(
        order, data.single_effect.values[chosen], width=0.6, color=COLORS["forecast"], label="this unit alone"
    )
    best = float(data.single_effect.max())
    ax.axhline(best, color=COLORS["history"], linestyle=":", linewidth=1, label="best single unit")
    ax.axhline(0, color="black", linewidth=0.8)
    step = -(-len(order) // 16)
    ax.set_xticks(order[::step], [str(unit) for unit in chosen[::step]])
    ax.set(xlabel="unit, in the order chosen", ylabel="relative reduction\nof the switch rate")
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax
