"""Where a system moves fast and where slowly, on a grid in the plane of two principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from seqdyn._arguments import check_count
from seqdyn.analysis.common import PC, array, attributes
from seqdyn.analysis.jacobians import field
from seqdyn.analysis.projection import pca, project
from seqdyn.dynamics.arguments import Dynamics, as_input, as_states, check_unscheduled
from seqdyn.dynamics.flows import FlowDynamics

__all__ = ["speed_field"]

BINS = ("bin_pc1", "bin_pc2")


def speed_field(
    dynamics: Dynamics,
    hidden: Any,
    components: xr.Dataset | None = None,
    *,
    input: Any = None,
    num_bins: int = 40,
    min_count: int = 10,
) -> xr.Dataset:
    """Average displacement and speed of trajectories over a grid of PC1 and PC2.

    Args:
        dynamics: Map or flow that made the trajectories.
        hidden: Activity (start, time, unit), consecutive in time.
        components: From :func:`pca`; those of ``hidden`` by default.
        input: Constant input (X,) of the noise-free speed.
        num_bins: Bins along each component, over the range of the scores.
        min_count: Fewest visits of a bin; others are NaN.

    Returns:
        Over ``bin_pc1`` and ``bin_pc2`` (coordinates: centres): ``drift (..., pc)``, mean displacement in a
        step; ``speed``, mean of |h(t+1) - h(t)|; ``autonomous_speed``, mean of |F(h) - h| without noise (of a
        flow |f|); ``diffusion (..., pc, pc_to)``, covariance of the displacement; ``divergence`` of the
        drift; ``count``.

    Raises:
        ValueError: If an argument does not fit the system.
    """
    check_unscheduled(dynamics)
    states = as_states(dynamics, hidden, "hidden")
    if states.ndim != 3 or states.shape[1] < 2:
        raise ValueError(
            f"hidden must be (start, time, unit) of two steps or more, got {tuple(states.shape)}."
        )
    check_count(num_bins, "num_bins", least=2)
    check_count(min_count, "min_count")
    components = pca(states, 2) if components is None else components
    scores = project(components, states).values[..., :2]
    with torch.no_grad():
        before = states[:, :-1].flatten(0, 1)
        after = field(dynamics)(before, as_input(dynamics, input, states))
        still = after if isinstance(dynamics, FlowDynamics) else after - before
    edges = [np.linspace(scores[..., i].min(), scores[..., i].max(), num_bins + 1) for i in range(2)]
    place = _bins(scores[:, :-1].reshape(-1, 2), edges)
    moves = np.diff(scores, axis=1).reshape(-1, 2)
    realised = array((states[:, 1:] - states[:, :-1]).flatten(0, 1).norm(dim=1))
    count = _total(place, np.ones(len(moves)), num_bins)
    weight = np.where(count >= min_count, count, np.nan)
    drift = np.stack([_total(place, move, num_bins) for move in moves.T], axis=-1) / weight[..., None]
    products = np.stack(
        [_total(place, moves[:, i] * moves[:, j], num_bins) for i in range(2) for j in range(2)], axis=-1
    ).reshape(num_bins, num_bins, 2, 2)
    diffusion = products / weight[..., None, None] - drift[..., :, None] * drift[..., None, :]
    centres = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    divergence = sum(np.gradient(drift[..., i], centres[i], axis=i) for i in range(2))
    return xr.Dataset(
        {
            "drift": ((*BINS, PC), drift),
            "speed": (BINS, _total(place, realised, num_bins) / weight),
            "autonomous_speed": (BINS, _total(place, array(still.norm(dim=1)), num_bins) / weight),
            "diffusion": ((*BINS, PC, "pc_to"), diffusion),
            "divergence": (BINS, divergence),
            "count": (BINS, count.astype(np.int64)),
        },
        dict(zip(BINS, centres, strict=True)),
        attrs=attributes(states, min_count=min_count),
    )


def _bins(scores: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """Number of the cell of each state (N,)."""
    num = len(edges[0]) - 1
    first, second = (
        np.clip(np.searchsorted(edge, scores[:, i], side="right") - 1, 0, num - 1)
        for i, edge in enumerate(edges)
    )
    return first * num + second


def _total(place: np.ndarray, values: np.ndarray, num_bins: int) -> np.ndarray:
    return np.bincount(place, weights=values, minlength=num_bins**2).reshape(num_bins, num_bins)
