"""How the orbit of a driven system grows with the noise: the same noise, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import gaussian_kde
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import common_noise, start_chains
from seqdyn.dynamics.arguments import Dynamics
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.errors import NonFiniteError
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["SIGMAS", "check_sigmas", "noise_sweep"]

SIGMAS = (0.1, 1.0, 2.0, 3.0, 4.0)
MASSES = (0.01, 0.05, 0.2)
_BANDWIDTH = 3.0  # times Scott's rule, as in the published contours
_DENSITY_POINTS = 1000
_GRID = 60


@over_conditions
def noise_sweep(
    dynamics: Dynamics,
    sigmas: Sequence[float] = SIGMAS,
    *,
    num_steps: int = 10_000,
    num_chains: int = 10,
    burn_in: int = 200,
    start: Any = None,
    input: Any = None,
    step_size: float | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Run a system under the same noise scaled by each σ, in the plane fitted at the σ nearest to one.

    Maps with F(c h, c u) = c F(h, u), such as rectifier networks without biases, scale exactly with σ when
    they start from zero: for them the straight line of the radius is an identity and no finding. Attribute
    ``homogeneous`` says so, and ``deviation`` measures it for every system,

    .. math::
        \max_t \|h_t(\sigma)\, \sigma_1 / \sigma - h_t(\sigma_1)\|_\infty / \max_t \|h_t(\sigma_1)\|_\infty .

    Args:
        dynamics: Map with inputs, or flow.
        sigmas: Standard deviations of the noise (for a flow factors of its volatility), above zero.
        num_steps: Steps of all chains together, at each σ.
        num_chains: Chains that run side by side, at each σ.
        burn_in: Steps of each chain before those that count.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.
        step_size: Of a flow.
        seed: Seed of the noise.

    Returns:
        ``scores (sigma, sample, time, pc)``; ``center (sigma, pc)``, their mean at each σ; distance from it
        in the plane, ``radius_mean|q05|q95 (sigma)``; ``linear_fit_slope``, ``linear_fit_intercept``,
        ``linear_fit_r2`` of the mean radius on σ; ``deviation (sigma)``; ``density (sigma, bin_pc1,
        bin_pc2)``, a kernel density with three times Scott's bandwidth, ``contour_level (sigma, mass)``,
        its level outside which lies that share of the points; ``grid_pc1|grid_pc2 (sigma, bin_…)``. At a
        σ where the activity diverges or does not spread in the plane everything is NaN, and attribute
        ``reason`` says so.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the activity diverges at the σ of the plane.
    """
    values = check_sigmas(sigmas)
    check_count(burn_in, "burn_in", least=0)
    seed = ambient_seed(seed)
    states, length = start_chains(dynamics, start, num_chains, num_steps, least=2)
    scale = torch.as_tensor(values, dtype=states.dtype, device=states.device)
    runs = states.new_empty(len(values), len(states), length, states.shape[1])
    with fork_rng(seed):
        walk = common_noise(dynamics, scale, states, burn_in + length, input=input, step_size=step_size)
        for step, h in enumerate(walk):
            if step >= burn_in:
                runs[:, :, step - burn_in] = h
    one = int(np.abs(np.log(values)).argmin())
    finite = torch.isfinite(runs).flatten(1).all(dim=1)
    if not bool(finite[one]):
        raise NonFiniteError(f"the activity diverges at sigma={values[one]:g}; sweep smaller sigmas.")
    plane = fit_plane(runs[one])
    scores = plane.scores(runs).where(finite[:, None, None, None], torch.nan)
    centre = scores.flatten(1, 2).mean(dim=1)
    radius = (scores.flatten(1, 2) - centre[:, None]).norm(dim=2).cpu().numpy()
    homogeneous = is_homogeneous(dynamics, states, input)
    variables = _line(values, radius.mean(axis=1)) | _densities(scores.flatten(1, 2).cpu().numpy(), seed)
    data = xr.Dataset(
        {
            "scores": (("sigma", "sample", "time", "pc"), scores.cpu().numpy()),
            "center": (("sigma", "pc"), centre.cpu().numpy()),
            "radius_mean": ("sigma", radius.mean(axis=1)),
            "radius_q05": ("sigma", np.quantile(radius, 0.05, axis=1)),
            "radius_q95": ("sigma", np.quantile(radius, 0.95, axis=1)),
            "deviation": ("sigma", _deviation(runs, scale, one).cpu().numpy()),
            **variables,
        },
        {"sigma": values, "mass": list(MASSES)},
        attributes(runs, seed=seed, burn_in=burn_in, reference_sigma=values[one], homogeneous=homogeneous),
    )
    bad = np.isnan(data["contour_level"].values).any(axis=1)
    if bad.any():
        listed = ", ".join(f"{value:g}" for value in values[bad])
        data.attrs["reason"] = f"the activity diverges or does not spread in the plane at sigma = {listed}"
    return data


def check_sigmas(sigmas: Any) -> np.ndarray:
    """Standard deviations as a float64 array (S,).

    Raises:
        ValueError: If they are not distinct positive numbers in rising order.
    """
    values = np.asarray(sigmas, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or not (values > 0).all():
        raise ValueError(f"sigmas must be positive numbers, such as [0.5, 1.0, 2.0], got {sigmas!r}.")
    if (np.diff(values) <= 0).any():
        raise ValueError(f"sigmas must rise, got {sigmas!r}; type sorted(set(sigmas)).")
    return values


def _deviation(runs: Tensor, sigmas: Tensor, one: int) -> Tensor:
    """Largest relative departure (S,) from runs that scale with σ."""
    size = runs[one].abs().max()
    off = [
        (run * (sigmas[one] / sigma) - runs[one]).abs().max() for run, sigma in zip(runs, sigmas, strict=True)
    ]
    return torch.stack(off) / size.where(size > 0, torch.nan)


def _line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Least-squares line through the finite points; NaN with fewer than two."""
    known = np.isfinite(y)
    names = ("linear_fit_slope", "linear_fit_intercept", "linear_fit_r2")
    if known.sum() < 2:
        return dict.fromkeys(names, np.nan)
    slope, intercept = np.polyfit(x[known], y[known], 1)
    rest = y[known] - slope * x[known] - intercept
    total = ((y[known] - y[known].mean()) ** 2).sum()
    share = 1 - (rest**2).sum() / total if total > 0 else np.nan
    return dict(zip(names, map(float, (slope, intercept, share)), strict=True))


def _densities(scores: np.ndarray, seed: int) -> dict[str, Any]:
    """Kernel densities of points (S, N, 2) on a grid of their own each, and their levels."""
    found = [_density(points, np.random.default_rng(abs(seed))) for points in scores]
    density, first, second, level = (np.stack(part) for part in zip(*found, strict=True))
    return {
        "density": (("sigma", "bin_pc1", "bin_pc2"), density),
        "grid_pc1": (("sigma", "bin_pc1"), first),
        "grid_pc2": (("sigma", "bin_pc2"), second),
        "contour_level": (("sigma", "mass"), level),
    }


def _density(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    few = points[rng.permutation(len(points))[:_DENSITY_POINTS]]
    spread = few.std(axis=0)
    if not (np.isfinite(few).all() and (spread > 1e-9 * np.abs(few).max()).all() and len(few) > 2):
        line = np.full(_GRID, np.nan)
        return np.full((_GRID, _GRID), np.nan), line, line, np.full(len(MASSES), np.nan)
    kernel = gaussian_kde(few.T)
    kernel.set_bandwidth(_BANDWIDTH * kernel.scotts_factor())
    margin = 3 * kernel.factor * spread
    low, high = few.min(axis=0) - margin, few.max(axis=0) + margin
    first, second = (np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True))
    mesh = np.stack(np.meshgrid(first, second, indexing="ij")).reshape(2, -1)
    level = np.quantile(kernel(few.T), MASSES)
    return kernel(mesh).reshape(_GRID, _GRID), first, second, level
