"""Counts of unstable and critical eigenvalues of a map at driven states."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqdyn.dynamics.arguments import as_input
from seqdyn.dynamics.maps import MapDynamics

__all__ = ["CRITICAL_IMAG", "CRITICAL_REAL", "EigenCounts", "driven_inputs", "eigen_counts"]

CRITICAL_REAL, CRITICAL_IMAG = 0.1, 0.05  # as published


class EigenCounts(NamedTuple):
    """Numbers of eigenvalues at each state, float64 (N,); a conjugate pair counts once as critical."""

    unstable: Tensor
    critical: Tensor


def driven_inputs(dynamics: MapDynamics, states: Tensor, sigma: float, input: Any = None) -> Tensor | None:
    """Inputs (N, X) of one step, constant plus fresh noise; ``None`` for a map without inputs."""
    if dynamics.input_size == 0:
        return None
    size = (len(states), dynamics.input_size)
    noise = sigma * torch.randn(size, dtype=states.dtype, device=states.device)
    constant = as_input(dynamics, input, states)
    return noise if constant is None else noise + constant


@torch.no_grad()
def eigen_counts(dynamics: MapDynamics, states: Tensor, drive: Tensor | None) -> EigenCounts:
    r"""Count unstable and critical eigenvalues of ∂F(h, u)/∂h.

    The Möbius map :math:`m = (\lambda - 1)/(\lambda + 1)` sends the unit disc to the left half-plane. An
    eigenvalue is unstable for :math:`|\lambda| > 1`; a complex pair is critical for
    :math:`|\mathrm{Re}\, m| < 0.1` and :math:`|\mathrm{Im}\, m| > 0.05`.

    Args:
        dynamics: The map.
        states: States h_t (N, H).
        drive: Inputs u_{t+1} (N, X) that act on them, or ``None``.

    Returns:
        Both numbers at each state.
    """
    if drive is None:
        jacobian = torch.func.vmap(torch.func.jacrev(lambda h: dynamics.step(h, None)))(states)
    else:
        jacobian = torch.func.vmap(torch.func.jacrev(dynamics.step))(states, drive)
    values = torch.linalg.eigvals(jacobian.double())
    mobius = (values - 1) / torch.where(values == -1, torch.inf, values + 1)
    critical = (mobius.real.abs() < CRITICAL_REAL) & (mobius.imag > CRITICAL_IMAG)
    return EigenCounts((values.abs() > 1).sum(dim=1).double(), critical.sum(dim=1).double())
