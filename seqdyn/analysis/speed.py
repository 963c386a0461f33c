"""Where a driven system is slow, where it drifts and how it spreads, on a grid of its principal plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes, bin_means
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import states_of
from seqdyn.dynamics.arguments import Dynamics, check_unscheduled
from seqdyn.dynamics.rollout import simulate
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["speed_field"]

_BATCH = 65_536


@over_conditions
def speed_field(
    dynamics: Dynamics,
    *,
    num_steps: int = 32_000,
    num_chains: int = 64,
    sigma: float = 1.0,
    burn_in: int = 200,
    num_bins: int = 40,
    min_visits: int = 10,
    num_repeats: int = 8,
    start: Any = None,
    reference: Any = None,
    input: Any = None,
    step_size: float | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Mean displacement, speeds, spread and divergence on a grid of the first two principal components.

    In the bin of a state h three speeds are averaged: the realised one :math:`\|h_{t+1} - h_t\|`, the
    noise-free one :math:`\|F(h, 0) - h\|`, and that of the noise-averaged map
    :math:`\|\bar F(h) - h\|`. The last comes from R repeated steps: their mean displacement m and its
    covariance C give the unbiased :math:`\|m\|^2 - \mathrm{tr}\, C / R`, whose mean over the bin is rooted.

    Args:
        dynamics: Map or flow.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        sigma: Standard deviation of the noise.
        burn_in: Steps of each chain before those that count.
        num_bins: Bins of each coordinate.
        min_visits: Visits below which a bin is NaN.
        num_repeats: Repeated steps R from each state.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        reference: A :func:`reference_run`, or states (chain, time, unit), to use instead of a fresh run.
        input: Constant input (X,), or a batch (B, X) of conditions.
        step_size: Of a flow.
        seed: Seed of the noise.

    Returns:
        On (bin_pc1, bin_pc2): ``drift (…, pc)`` per step and its ``divergence``, ``diffusion (…, pc, pc_)``,
        the covariance of displacements, ``speed``, ``autonomous_speed``, ``mean_map_speed``, ``count``, and
        ``center (…, pc)``, the mean of the visits; ``grid_pc1 (bin_pc1)`` and ``grid_pc2
        (bin_pc2)`` are the centres of the bins. With attribute ``reason`` where no bin has enough visits.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the activity diverges.
    """
    check_count(num_bins, "num_bins", least=3)
    check_count(min_visits, "min_visits", least=2)
    check_count(num_repeats, "num_repeats", least=2)
    check_unscheduled(dynamics)
    seed = ambient_seed(seed)
    with fork_rng(seed):
        runs = states_of(
            dynamics,
            reference,
            num_steps=num_steps,
            num_chains=num_chains,
            burn_in=burn_in,
            sigma=sigma,
            start=start,
            input=input,
            step_size=step_size,
        )
        before = runs[:, :-1].flatten(0, 1)
        step = {"input": input, "step_size": step_size}
        still = simulate(dynamics, before, 1, **step)[:, 0] - before
        mean_square = still.square().sum(dim=1)
        if sigma > 0:
            mean_square = _mean_map_square(dynamics, before, num_repeats, sigma, step)
    plane = fit_plane(runs)
    scores = plane.scores(runs)
    x, dx = scores[:, :-1].flatten(0, 1), scores.diff(dim=1).flatten(0, 1)
    index, centres = _grid(x, num_bins)
    product = (dx[:, :, None] * dx[:, None, :]).flatten(1)
    speed, free = runs.diff(dim=1).flatten(0, 1).norm(dim=1), still.norm(dim=1)
    columns = torch.cat([x, dx, product, torch.stack([speed, free, mean_square], 1).to(x)], dim=1)
    count = torch.bincount(index, minlength=num_bins**2).cpu().numpy()
    mean = bin_means(columns, index, num_bins**2).cpu().numpy()
    mean[count < min_visits] = np.nan
    mean = mean.reshape(num_bins, num_bins, -1)
    drift = mean[..., 2:4]
    diffusion = mean[..., 4:8].reshape(num_bins, num_bins, 2, 2) - drift[..., :, None] * drift[..., None, :]
    grid = ("bin_pc1", "bin_pc2")
    data = xr.Dataset(
        {
            "drift": ((*grid, "pc"), drift),
            "diffusion": ((*grid, "pc", "pc_"), diffusion),
            "speed": (grid, mean[..., 8]),
            "autonomous_speed": (grid, mean[..., 9]),
            "mean_map_speed": (grid, np.sqrt(np.maximum(mean[..., 10], 0.0))),
            "divergence": (grid, _divergence(drift, centres)),
            "count": (grid, count.reshape(num_bins, num_bins)),
            "center": ((*grid, "pc"), mean[..., :2]),
            "grid_pc1": ("bin_pc1", centres[0]),
            "grid_pc2": ("bin_pc2", centres[1]),
        },
        attrs=attributes(runs, seed=seed, sigma=sigma, min_visits=min_visits),
    )
    if not (count >= min_visits).any():
        data.attrs["reason"] = f"no bin has {min_visits} visits: take more steps or fewer bins"
    return data


def _mean_map_square(
    dynamics: Dynamics, states: Tensor, num_repeats: int, sigma: float, step: dict[str, Any]
) -> Tensor:
    """Unbiased squared displacement (N,) of the noise-averaged map, from repeated steps."""
    parts = []
    for part in states.split(max(1, _BATCH // num_repeats)):
        after = simulate(dynamics, part.repeat_interleave(num_repeats, 0), 1, sigma=sigma, **step)[:, 0]
        moves = after.unflatten(0, (len(part), num_repeats)) - part[:, None]
        parts.append(moves.mean(dim=1).square().sum(dim=1) - moves.var(dim=1).sum(dim=1) / num_repeats)
    return torch.cat(parts)


def _grid(x: Tensor, num_bins: int) -> tuple[Tensor, list[np.ndarray]]:
    """Flat index of the bin of each point (N, 2), and the centres of the bins along each axis."""
    low, high = x.min(dim=0).values, x.max(dim=0).values
    width = (high - low).clamp(min=torch.finfo(x.dtype).tiny) / num_bins
    place = ((x - low) / width).long().clamp(0, num_bins - 1)
    steps = np.arange(num_bins) + 0.5
    centres = [float(a) + steps * float(b) for a, b in zip(low, width, strict=True)]
    return place[:, 0] * num_bins + place[:, 1], centres


def _divergence(drift: np.ndarray, centres: list[np.ndarray]) -> np.ndarray:
    """Sum of the central differences; NaN beside bins that are NaN."""
    return np.gradient(drift[..., 0], centres[0], axis=0) + np.gradient(drift[..., 1], centres[1], axis=1)
