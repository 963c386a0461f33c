r"""Jacobians of a system, and the spectra along a trajectory.

The Möbius map :math:`m = (\lambda - 1) / (\lambda + 1)` sends the unit disc to the left half-plane, so that
:math:`\mathrm{Re}\, m > 0` where :math:`|\lambda| > 1`. A pair of eigenvalues is *critical* where
:math:`|\mathrm{Re}\, m| < 0.1` and :math:`\mathrm{Im}\, m > 0.05`: it rotates, hardly growing or
decaying.

Source: Torre et al. (2025), arXiv 2510.25674.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.func import jacrev, vmap

from seqdyn.analysis.common import MODE, TIME, array, attributes
from seqdyn.dynamics.arguments import Dynamics, as_input, as_states, check_map, check_unscheduled
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics, Step, drive_of

__all__ = [
    "EigenCounts", "batch_jacobian", "count_eigenvalues", "drive_matrices", "field", "jacobian",
    "local_spectra", "spectra",
]  # fmt: skip

_CRITICAL_REAL, _CRITICAL_IMAG = 0.1, 0.05  # as published
_BATCH = 256  # Jacobians in memory at once


class EigenCounts(NamedTuple):
    """Numbers of eigenvalues at each state, (N,); a conjugate pair counts once as critical."""

    unstable: np.ndarray
    critical: np.ndarray


def jacobian(dynamics: Dynamics, hidden: Any, input: Any = None) -> Tensor:
    """Derivative of the next state, or of a flow's velocity, with respect to the state.

    Args:
        dynamics: Map or flow.
        hidden: States (..., H).
        input: Constant input (X,), or one for each state (..., X).

    Returns:
        Jacobians (..., H, H): row i holds the derivatives of unit i. At a kink of a rectifier this is what
        automatic differentiation says, the derivative from below.

    Raises:
        ValueError: If an argument does not fit the system, or the system changes with time.
    """
    check_unscheduled(dynamics)
    states = as_states(dynamics, hidden, "hidden")
    rows, size = states.reshape(-1, dynamics.state_size), dynamics.state_size
    u = as_input(dynamics, input, states)
    if u is not None:
        u = u.expand(*states.shape[:-1], u.shape[-1]).reshape(len(rows), -1)
    return batch_jacobian(dynamics, rows, u).reshape(*states.shape[:-1], size, size)


def field(dynamics: Dynamics) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The step of a map; the drift of a flow, at time 0."""
    if isinstance(dynamics, FlowDynamics):
        drift = dynamics.drift
        return lambda h, u: drift(h, 0.0)
    return dynamics.step


def batch_jacobian(dynamics: Dynamics, hidden: Tensor, input: Tensor | None) -> Tensor:
    """Jacobians (N, H, H) at states (N, H) under inputs (N, X) or none."""
    function = field(dynamics)
    if input is None:
        return vmap(jacrev(lambda h: function(h[None], None)[0]))(hidden)
    return vmap(jacrev(lambda h, u: function(h[None], u[None])[0]))(hidden, input)


def drive_matrices(dynamics: MapDynamics, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights W (H, H), U (H, X) and offset b (H,) of a drive that is W h + U x + b.

    Args:
        dynamics: A map with a preactivation.
        like: Tensor that gives dtype and device.

    Raises:
        ValueError: If the map has no drive, or it is not of this form.
    """
    check_map(dynamics)
    check_unscheduled(dynamics)
    drive = drive_of(dynamics)
    if dynamics.input_size == 0:
        drive = _without_input(drive)
    h, u = (like.new_zeros(size) for size in (dynamics.state_size, dynamics.input_size))
    with torch.no_grad():
        offset = drive(h, u)
    recurrent, inputs = jacrev(drive, argnums=(0, 1))(h, u)
    generator = torch.Generator(device=like.device).manual_seed(0)
    h, u = (torch.randn(value.shape, generator=generator, device=value.device).to(value) for value in (h, u))
    with torch.no_grad():
        expected, found = recurrent @ h + inputs @ u + offset, drive(h, u)
    if not torch.allclose(expected, found, rtol=1e-4, atol=1e-5):
        raise ValueError("the preactivation is not W h + U x + b: there are no weights to read from it.")
    return recurrent.detach(), inputs.detach(), offset


def _without_input(drive: Step) -> Step:
    return lambda h, u: drive(h, None)


def local_spectra(dynamics: Dynamics, hidden: Any, input: Any = None) -> xr.Dataset:
    """Eigenvalues of the Jacobians along a trajectory.

    Args:
        dynamics: Map or flow.
        hidden: States (T, H) at which the Jacobians are taken.
        input: Constant input (X,), or the input (T, X) of the step that leaves each state; none for the
            noise-free Jacobian.

    Returns:
        ``eigenvalue (time, mode)``, complex, by falling modulus; ``spectral_radius (time)``;
        ``num_unstable (time)``, of modulus above 1 (of a flow: with a positive real part); and
        ``num_critical (time)``, rotating pairs near the border of stability.

    Raises:
        ValueError: If an argument does not fit the system.
    """
    states = as_states(dynamics, hidden, "hidden")
    if states.ndim != 2:
        raise ValueError(f"hidden must be one trajectory (time, unit), got shape {tuple(states.shape)}.")
    check_unscheduled(dynamics)
    u = as_input(dynamics, input, states)
    values = spectra(dynamics, states, None if u is None else u.expand(len(states), u.shape[-1]))
    flow = isinstance(dynamics, FlowDynamics)
    counts = count_eigenvalues(values, flow=flow)
    return xr.Dataset(
        {
            "eigenvalue": ((TIME, MODE), values),
            "spectral_radius": (TIME, np.abs(values).max(axis=1)),
            "num_unstable": (TIME, counts.unstable),
            "num_critical": (TIME, counts.critical),
        },
        attrs=attributes(states, system="flow" if flow else "map"),
    )


@torch.no_grad()
def spectra(dynamics: Dynamics, hidden: Tensor, input: Tensor | None) -> np.ndarray:
    """Eigenvalues (N, H), complex128 by falling modulus, of the Jacobians at states (N, H) under inputs."""
    parts = hidden.split(_BATCH)
    inputs = [None] * len(parts) if input is None else input.split(_BATCH)
    matrices = (batch_jacobian(dynamics, h, u) for h, u in zip(parts, inputs, strict=True))
    return np.stack([_spectrum(matrix) for part in matrices for matrix in array(part)])


def count_eigenvalues(values: np.ndarray, *, flow: bool = False) -> EigenCounts:
    """Count unstable and critical eigenvalues (N, H), those of a flow by their real parts."""
    unstable = values.real > 0 if flow else np.abs(values) > 1
    # One of each pair; that leaves out λ = -1, which has no image.
    turning = values.imag > 0
    moebius = values if flow else (values - 1) / np.where(turning, values + 1, 1)
    critical = turning & (np.abs(moebius.real) < _CRITICAL_REAL) & (moebius.imag > _CRITICAL_IMAG)
    return EigenCounts(unstable.sum(axis=1), critical.sum(axis=1))


def _spectrum(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues by falling modulus; silent units (zero rows) have eigenvalue 0 and leave the matrix."""
    active = matrix.any(axis=1)
    values = np.zeros(len(matrix), dtype=np.complex128)
    found = np.linalg.eigvals(matrix[np.ix_(active, active)].astype(np.float64))
    values[: len(found)] = found[np.argsort(-np.abs(found), kind="stable")]
    return values
