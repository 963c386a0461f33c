"""Whether a driven system goes round, one way, or hops to and fro: phase, area rate and profiles."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count, is_count
from seqdyn.analysis.common import attributes, bin_means
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import outputs_of, states_of
from seqdyn.dynamics.arguments import Dynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["Winding", "orbit", "phase_profile", "shorter_way", "winding"]

QUANTITIES = ("radius", "speed", "phase_speed", "occupancy")


class Winding(NamedTuple):
    """Rotation of planar paths (N, T, 2) about their common mean.

    Attributes:
        phase: Unwrapped angle in radians, (N, T).
        velocity: Mean angular velocity of each path, in radians per step, (N,).
        area: Twice signed area swept per step, halved: ½ (u_t v_{t+1} − v_t u_{t+1}), (N, T − 1).
    """

    phase: Tensor
    velocity: Tensor
    area: Tensor


def shorter_way(difference: Tensor) -> Tensor:
    """Differences of angles as turns the shorter way round, in [-π, π)."""
    return torch.remainder(difference + math.pi, 2 * math.pi) - math.pi


def winding(scores: Tensor) -> Winding:
    """Phase, angular velocity and swept area of planar paths (N, T, 2) about their common mean."""
    centred = scores - scores.flatten(0, 1).mean(dim=0)
    u, v = centred.unbind(dim=2)
    angle = torch.atan2(v, u)
    turn = shorter_way(angle.diff(dim=1))
    phase = torch.cat([angle[:, :1], angle[:, :1] + turn.cumsum(dim=1)], dim=1)
    return Winding(phase, turn.mean(dim=1), 0.5 * (u[:, :-1] * v[:, 1:] - v[:, :-1] * u[:, 1:]))


@over_conditions
def orbit(
    dynamics: Dynamics,
    *,
    num_steps: int = 32_000,
    num_chains: int = 64,
    sigma: float = 1.0,
    burn_in: int = 200,
    num_bins: int = 36,
    num_shuffles: int = 200,
    block_length: int = 50,
    axes: tuple[int, int] = (1, 2),
    start: Any = None,
    reference: Any = None,
    input: Any = None,
    step_size: float | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Quantify the motion of a driven system in a plane of two principal components.

    The phase φ is the angle about the mean, and the area rate
    :math:`a = \tfrac12 E[u_t v_{t+1} - v_t u_{t+1}]` is zero for any process that looks the same backwards in
    time, such as hopping to and fro. Its null is drawn in two ways: ``"reversed"`` runs random blocks
    backwards, which turns the sign of what they sweep; ``"shuffled"`` permutes the blocks of v against those
    of u, which keeps the course of each and breaks their relation. (Permuting the blocks of both together, as
    one might think of first, keeps the rotation inside the blocks and is no null.)

    Args:
        dynamics: Map or flow.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        sigma: Standard deviation of the noise.
        burn_in: Steps of each chain before those that count.
        num_bins: Bins of the phase.
        num_shuffles: Draws of each null, and of the bootstrap over chains.
        block_length: Steps of a block; longer than the correlation time.
        axes: Numbers of the two components, from one. A loop may lie in others than the first two.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        reference: A :func:`reference_run`, or states (chain, time, unit), to use instead of a fresh run.
        input: Constant input (X,), or a batch (B, X) of conditions.
        step_size: Of a flow.
        seed: Seed of noise, nulls and bootstrap.

    Returns:
        ``scores (sample, time, pc)``, ``phase (sample, time)`` in radians, unwrapped; ``angular_velocity``
        in radians per step with ``angular_velocity_interval (bound)`` (95 %, bootstrap over chains),
        ``angular_velocity_chain (sample)``, ``winding_rate`` in turns per 1000 steps, ``directedness``, net
        turning over total turning, in [0, 1]; ``area_rate``, ``area_rate_null (null, shuffle)``, ``p_value
        (null)``, two-sided; and in bins of the phase ``profile_radius`` (median), ``profile_speed`` (mean
        length of a step in state space), ``profile_phase_speed``, ``profile_occupancy`` (share of time),
        ``profile_prob (bin, output)`` (mean softmax of the outputs), NaN in bins never visited; and the plane
        ``component (pc, unit)``, ``mean (unit)``, ``explained_variance_ratio (pc)``.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the activity diverges.
    """
    for name, value in {"num_bins": num_bins, "num_shuffles": num_shuffles}.items():
        check_count(value, name, least=2)
    check_count(block_length, "block_length")
    if len(set(axes)) != 2 or not all(is_count(axis) for axis in axes):
        raise ValueError(f"axes must be the numbers of two components, such as (1, 2), got {axes!r}.")
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
        plane = fit_plane(runs, max(axes)).only(axes)
        scores = plane.scores(runs)
        turning = winding(scores)
        null = _nulls(scores - scores.flatten(0, 1).mean(0), turning.area, num_shuffles, block_length)
        resampled = _resampled_means(turning.velocity, num_shuffles)
    rate = float(turning.area.mean())
    steps = turning.phase.diff(dim=1)
    total = float(steps.abs().sum())
    velocity = float(turning.velocity.mean())
    # At least one in the count: no finite number of draws shows a probability of zero.
    p_value = (1 + (null.abs() >= abs(rate)).sum(dim=1)) / (1 + num_shuffles)
    variables: dict[str, Any] = {
        "scores": (("sample", "time", "pc"), scores.cpu().numpy()),
        "phase": (("sample", "time"), turning.phase.cpu().numpy()),
        "angular_velocity": velocity,
        "angular_velocity_chain": ("sample", turning.velocity.cpu().numpy()),
        "angular_velocity_interval": ("bound", np.quantile(resampled.cpu().numpy(), [0.025, 0.975])),
        "winding_rate": 1000 * velocity / (2 * math.pi),
        "directedness": abs(float(steps.sum())) / total if total > 0 else math.nan,
        "area_rate": rate,
        "area_rate_null": (("null", "shuffle"), null.cpu().numpy()),
        "p_value": ("null", p_value.cpu().numpy()),
        "component": (("pc", "unit"), plane.components.cpu().numpy()),
        "mean": ("unit", plane.mean.cpu().numpy()),
        "explained_variance_ratio": ("pc", plane.share.cpu().numpy()),
    }
    coords: dict[str, Any] = {"null": ["reversed", "shuffled"], "bound": ["low", "high"]}
    data = xr.Dataset(
        variables, coords, attributes(runs, seed=seed, sigma=sigma, burn_in=burn_in, axes=list(axes))
    )
    data = data.merge(phase_profile(dynamics, runs, turning, scores, num_bins))
    if not total > 0:
        data.attrs["reason"] = "nothing moves in the plane, so that there is no direction to measure"
    return data


def phase_profile(
    dynamics: Dynamics, runs: Tensor, turning: Winding, scores: Tensor, num_bins: int
) -> xr.Dataset:
    """What a system does at each phase of its orbit.

    Args:
        dynamics: The system; without a readout there is no ``profile_prob``.
        runs: States (N, T, H).
        turning: Their :func:`winding`.
        scores: Their planar coordinates (N, T, 2).
        num_bins: Bins of the phase, from −π.

    Returns:
        The ``profile_*`` variables of :func:`orbit`, and the coordinate ``phase_bin`` (bin), the centres.
    """
    index = _bins(turning.phase, num_bins)
    here = index[:, :-1].flatten()
    centred = scores - scores.flatten(0, 1).mean(dim=0)
    radius = centred.norm(dim=2).flatten().cpu().numpy()
    flat = index.flatten().cpu().numpy()
    median = [np.median(radius[flat == one]) if (flat == one).any() else np.nan for one in range(num_bins)]
    speed = torch.stack([runs.diff(dim=1).norm(dim=2).double(), turning.phase.diff(dim=1)], dim=2)
    moved = bin_means(speed.flatten(0, 1), here, num_bins).cpu().numpy()
    profile: dict[str, Any] = {
        "profile_radius": ("bin", np.array(median)),
        "profile_speed": ("bin", moved[:, 0]),
        "profile_phase_speed": ("bin", moved[:, 1]),
        "profile_occupancy": ("bin", np.bincount(flat, minlength=num_bins) / len(flat)),
    }
    if isinstance(dynamics, MapDynamics) and dynamics.readout is not None:
        prob = outputs_of(dynamics, runs).softmax(dim=-1).flatten(0, 1)
        means = bin_means(prob, index.flatten(), num_bins)
        profile["profile_prob"] = (("bin", "output"), means.cpu().numpy())
    centre = -math.pi + (np.arange(num_bins) + 0.5) * 2 * math.pi / num_bins
    return xr.Dataset(profile, {"phase_bin": ("bin", centre)})


def _bins(phase: Tensor, num_bins: int) -> Tensor:
    share = torch.remainder(phase + math.pi, 2 * math.pi) / (2 * math.pi)
    return (share * num_bins).long().clamp(max=num_bins - 1)


def _nulls(centred: Tensor, area: Tensor, num_shuffles: int, block_length: int) -> Tensor:
    """Area rates of runs with blocks reversed, and with the blocks of v permuted, (2, S)."""
    # Blocks of one length; what is left over at the end of a chain is dropped.
    length = min(block_length, area.shape[1])
    blocks = area.unfold(1, length, length).flatten(0, 1).sum(dim=1)
    signs = 2 * torch.randint(2, (num_shuffles, len(blocks)), device=area.device).to(area) - 1
    flipped = signs @ blocks / (len(blocks) * length)
    length = min(block_length, centred.shape[1])
    u, v = (part.unfold(1, length, length).flatten(0, 1) for part in centred.unbind(dim=2))
    mixed = []
    for _ in range(num_shuffles):
        w = v[torch.randperm(len(v), device=v.device)]
        mixed.append(0.5 * (u[:, :-1] * w[:, 1:] - w[:, :-1] * u[:, 1:]).mean())
    return torch.stack([flipped, torch.stack(mixed)])


def _resampled_means(values: Tensor, num_draws: int) -> Tensor:
    index = torch.randint(len(values), (num_draws, len(values)), device=values.device)
    return values[index].mean(dim=1)
