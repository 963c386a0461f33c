"""How the readout lies to the motion: angles with the principal plane, and logits along time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import as_runs, readout_of, states_of
from seqdyn.dynamics.arguments import Dynamics
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["logit_gradients", "readout_axes"]


@over_conditions
def readout_axes(
    dynamics: Dynamics,
    *,
    num_steps: int = 32_000,
    num_chains: int = 64,
    sigma: float = 1.0,
    burn_in: int = 200,
    start: Any = None,
    reference: Any = None,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Angle between each row of the readout and the plane of the first two principal components.

    .. math::
        m_k = \| P\, R_k / \|R_k\| \|, \qquad \alpha_k = \arccos m_k

    with the rows of P the components. R is the derivative of the readout at the mean state; attribute
    ``linear`` says whether it is the same at other states.

    Args:
        dynamics: A map with a readout.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        sigma: Standard deviation of the noise.
        burn_in: Steps of each chain before those that count.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        reference: A :func:`reference_run`, or states (chain, time, unit), to use instead of a fresh run.
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of the run.

    Returns:
        ``readout (output, unit)``, ``readout_projection (output, pc)`` of the unit rows, ``projection_length
        (output)``, ``angle_deg (output)`` in degrees, and the plane ``component (pc, unit)``, ``mean
        (unit)``, ``explained_variance_ratio (pc)``. A row of zeros has NaN, with attribute ``reason``.

    Raises:
        ValueError: If the map has no readout.
        NonFiniteError: If the activity diverges.
    """
    readout = readout_of(dynamics)
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
        )
    plane = fit_plane(runs)
    rows = _derivative(readout, plane.mean.to(runs))
    elsewhere = [_derivative(readout, runs[chain, -1]) for chain in range(min(4, len(runs)))]
    length = rows.double().norm(dim=1, keepdim=True)
    unit = rows.double() / length.where(length > 0, torch.nan)
    projection = unit @ plane.components.T
    short = projection.norm(dim=1).clamp(max=1.0)
    data = xr.Dataset(
        {
            "readout": (("output", "unit"), rows.cpu().numpy()),
            "readout_projection": (("output", "pc"), projection.cpu().numpy()),
            "projection_length": ("output", short.cpu().numpy()),
            "angle_deg": ("output", short.arccos().rad2deg().cpu().numpy()),
            "component": (("pc", "unit"), plane.components.cpu().numpy()),
            "mean": ("unit", plane.mean.cpu().numpy()),
            "explained_variance_ratio": ("pc", plane.share.cpu().numpy()),
        },
        attrs=attributes(
            runs, seed=seed, sigma=sigma, linear=all(torch.allclose(rows, other) for other in elsewhere)
        ),
    )
    if bool((length == 0).any()):
        data.attrs["reason"] = "an output that does not depend on the state has no axis"
    return data


@torch.no_grad()
def logit_gradients(dynamics: Dynamics, hidden: Any) -> xr.Dataset:
    r"""How each logit changes along runs, and how far that is the direction of motion.

    .. math::
        \Delta \ell_k(t) = \ell_k(h_{t+1}) - \ell_k(h_t), \qquad
        c_k(t) = \cos(R_k(h_t),\, h_{t+1} - h_t)

    Args:
        dynamics: A map with a readout.
        hidden: Runs (chain, time, unit), or one (time, unit), as from :func:`seqdyn.dynamics.simulate`.

    Returns:
        ``logit_change (sample, time, output)``, ``alignment (sample, time, output)`` (NaN where nothing
        moves) and ``sign_changes (sample, output)``, how often the change of a logit turns its sign; changes
        of zero do not count.

    Raises:
        ValueError: If the map has no readout or the runs do not fit.
    """
    readout = readout_of(dynamics)
    runs = as_runs(dynamics, hidden)
    logits = readout(runs)
    change, move = logits.diff(dim=1), runs.diff(dim=1)
    flat, along = runs[:, :-1].flatten(0, 1), move.flatten(0, 1)
    rows = torch.func.vmap(lambda h: _derivative(readout, h))(flat)  # (N, K, H)
    size = rows.norm(dim=2) * along.norm(dim=1, keepdim=True)
    cosine = (rows @ along[:, :, None])[:, :, 0] / size.where(size > 0, torch.nan)
    cosine = cosine.unflatten(0, change.shape[:2]).clamp(-1, 1)
    dims = ("sample", "time", "output")
    return xr.Dataset(
        {
            "logit_change": (dims, change.cpu().numpy()),
            "alignment": (dims, cosine.cpu().numpy()),
            "sign_changes": (("sample", "output"), _sign_changes(change.cpu().numpy())),
        },
        {"time": np.arange(1, runs.shape[1])},
        attributes(runs),
    )


def _derivative(readout: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """Derivative (K, H) of the readout at a state (H,)."""
    derivative: Tensor = torch.func.jacrev(readout)(state)
    return derivative.detach()


def _sign_changes(change: np.ndarray) -> np.ndarray:
    """Sign changes along axis 1 of (N, T, K); zeros are skipped."""
    sign = np.sign(change)
    # Each zero takes the sign before it; leading zeros stay and do not count.
    steps = np.where(sign != 0, np.arange(sign.shape[1])[None, :, None], 0)
    filled = np.take_along_axis(sign, np.maximum.accumulate(steps, axis=1), axis=1)
    return ((filled[:, 1:] * filled[:, :-1]) < 0).sum(axis=1)
