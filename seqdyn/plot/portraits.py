"""Phase portraits in the plane of two principal components: trajectories, fixed points, interventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.plot.style import COLORS, check_dataset, new_axes

__all__ = ["clamp", "intervention", "label_plane", "perturb", "phase", "plane_of", "scale", "silence"]

# What a fixed point is called -> marker, face colour, legend.
_MARKERS = {
    "stable node": ("o", COLORS["forecast"], "stable"),
    "stable focus": ("o", COLORS["forecast"], "stable"),
    "non-smooth stable": ("o", COLORS["forecast"], "stable"),
    "saddle": ("X", COLORS["truth"], "saddle"),
    "source": ("^", "white", "source"),
    "marginal": ("s", COLORS["other"], "marginal"),
    "non-smooth unstable": ("v", "white", "unstable kink"),
}
_MAX_TRAJECTORIES = 200
_MAX_DIRECTIONS = 3


def phase(
    components: xr.Dataset,
    points: xr.Dataset | None = None,
    *,
    pcs: tuple[int, int] = (1, 2),
    ax: Axes | None = None,
) -> Axes:
    """Draw trajectories in a plane of principal components, and fixed points over them.

    Markers tell the stability; a bar through a saddle or source shows its unstable directions (the three
    that grow fastest), as long as they lie in the plane.

    Args:
        components: From :func:`seqdyn.analysis.pca`, with the ``scores`` of the trajectories; at most 200 are
            drawn.
        points: From :func:`seqdyn.analysis.fixed_points`.
        pcs: Numbers of the two components, from 1.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If there are no such components, or the points have other units.
    """
    first, second = plane_of(components, pcs)
    ax = new_axes(ax, width=5.2, height=4.4)
    scores = components["scores"].values
    paths = scores[None] if scores.ndim == 2 else scores
    for i, path in enumerate(paths[:_MAX_TRAJECTORIES]):
        label = "trajectories" if i == 0 else None
        line: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.45, "zorder": 1}
        ax.plot(path[:, first], path[:, second], color=COLORS["history"], label=label, **line)
    if points is not None:
        check_dataset(points, "analysis.fixed_points(dynamics, start)", "hidden", "stability")
        _draw_points(ax, components, points, (first, second))
    label_plane(ax, components, (first, second))
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def intervention(
    components: xr.Dataset,
    changed: xr.DataArray,
    *,
    pcs: tuple[int, int] = (1, 2),
    ax: Axes | None = None,
) -> Axes:
    """Draw the same runs without and with an intervention, in the plane of those without.

    It is the picture of :func:`~seqdyn.analysis.silence`, :func:`~seqdyn.analysis.clamp`,
    :func:`~seqdyn.analysis.scale` and :func:`~seqdyn.analysis.perturb`, also under their names, of two
    roll-outs under one seed::

        before, after = (simulate(system, start, 500, sigma=1.0, seed=0) for system in (dynamics, silenced))
        components = pca(before)
        intervention(components, project(components, after))

    Args:
        components: From :func:`seqdyn.analysis.pca` of the runs without it; at most 200 are drawn.
        changed: Those with it, from :func:`seqdyn.analysis.project` on the same components.
        pcs: Numbers of the two components, from 1.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset is of another kind, there are no such components, or ``changed`` has
            others.
    """
    first, second = plane_of(components, pcs)
    if not isinstance(changed, xr.DataArray) or changed.sizes.get("pc") != components.sizes["pc"]:
        raise ValueError(
            f"the changed runs must be scores on the same {components.sizes['pc']} components: "
            "seqdyn.analysis.project(components, hidden)."
        )
    ax = new_axes(ax, width=5.2, height=4.4)
    runs = {"without": (components["scores"], COLORS["forecast"]), "with": (changed, COLORS["truth"])}
    for label, (scores, color) in runs.items():
        paths = scores.values.reshape(-1, *scores.shape[-2:])[:_MAX_TRAJECTORIES, :, [first, second]]
        for i, path in enumerate(paths):
            name = f"{label} the intervention" if i == 0 else None
            ax.plot(*path.T, color=color, linewidth=0.6, alpha=0.4, label=name)
        ends: dict[str, Any] = {
            "marker": "o",
            "markersize": 3.5,
            "markeredgecolor": "black",
            "markeredgewidth": 0.5,
        }
        ax.plot(*paths[:, -1].T, linestyle="", color=color, zorder=3, **ends)
    ax.plot([], [], linestyle="", color="white", label="ends", **ends)
    label_plane(ax, components, (first, second))
    legend = ax.legend(
        frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3
    )
    for line in legend.get_lines():
        line.set(linewidth=1.5, alpha=1)
    return ax


# Each of the four interventions is found under its own name.
clamp = perturb = scale = silence = intervention


def label_plane(ax: Axes, components: xr.Dataset, plane: tuple[int, int]) -> None:
    """Name the axes by their components, numbered from 0, and the shares of the variance."""
    first, second = plane
    share = 100 * components["explained_variance_ratio"].values
    ax.set_xlabel(f"PC {first + 1} ({share[first]:.0f} % of variance)")
    ax.set_ylabel(f"PC {second + 1} ({share[second]:.0f} %)")


def plane_of(components: xr.Dataset, pcs: tuple[int, int]) -> tuple[int, int]:
    """Check the components and the numbers, from 1, of the two to draw; return these from 0.

    Raises:
        ValueError: If they are no principal components with scores, or there are no such two.
    """
    if not isinstance(components, xr.Dataset) or "scores" not in components or "components" not in components:
        raise ValueError("principal components with scores are needed: seqdyn.analysis.pca(hidden).")
    kept = components.sizes["pc"]
    if len(set(pcs)) != 2 or not all(1 <= pc <= kept for pc in pcs):
        raise ValueError(f"pcs must name two of the components 1 to {kept}, got {pcs}.")
    return pcs[0] - 1, pcs[1] - 1


def _draw_points(ax: Axes, components: xr.Dataset, points: xr.Dataset, plane: tuple[int, int]) -> None:
    if points.sizes["unit"] != components.sizes["unit"]:
        raise ValueError(
            f"the points have {points.sizes['unit']} units, the components {components.sizes['unit']}; take "
            "both from the same dynamics."
        )
    axes = components["components"].values[list(plane)]
    places = (points["hidden"].values - components["mean"].values) @ axes.T
    both = np.concatenate([components["scores"].values[..., list(plane)].reshape(-1, 2), places])
    length = 0.12 * float(np.ptp(both, axis=0).max())
    names = points["stability"].values
    for i, place in enumerate(places):
        for direction in _unstable(points, i) @ axes.T:
            ends = np.stack([place - length * direction, place + length * direction])
            ax.plot(*ends.T, color=COLORS["truth"], linewidth=1.3, alpha=0.8, zorder=3)
    for legend in dict.fromkeys(legend for _, _, legend in _MARKERS.values()):
        chosen = [i for i, name in enumerate(names) if _MARKERS[name][2] == legend]
        if not chosen:
            continue
        marker, face, _ = _MARKERS[names[chosen[0]]]
        style: dict[str, Any] = {"marker": marker, "facecolor": face, "edgecolor": "black", "linewidth": 0.8}
        x, y = places[chosen].T
        ax.scatter(x, y, s=52, zorder=4, label=f"{legend} ({len(chosen)})", **style)


def _unstable(points: xr.Dataset, i: int) -> np.ndarray:
    """Unit vectors (D, H) that span the fastest growing directions of a point; none at a kink."""
    if not bool(points["smooth"][i]):
        return np.empty((0, points.sizes["unit"]))
    values, vectors = points["eigenvalue"].values[i], points["eigenvector"].values[i]
    growth = values.real if points.attrs.get("system") == "flow" else np.abs(values) - 1
    order = [j for j in np.argsort(-growth) if growth[j] > 1e-6 and values[j].imag >= 0]
    spanning = [part for j in order for part in (vectors[:, j].real, vectors[:, j].imag) if part.any()]
    chosen = np.array(spanning[:_MAX_DIRECTIONS]).reshape(-1, points.sizes["unit"])
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
