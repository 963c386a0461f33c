r"""The map averaged over its input noise: what the network does in the mean of one step.

With :math:`m = W h + U x + b` and :math:`s_i^2 = \sigma^2 \sum_j U_{ij}^2`, noise of standard deviation σ on
the inputs gives

.. math::
    \bar F_i(h) = E\,\phi(m_i + s_i \xi) = m_i\, \Phi(m_i / s_i) + s_i\, \varphi(m_i / s_i)

for the rectifier, with the normal distribution function Φ and density φ; other nonlinearities are integrated
by Gauss-Hermite quadrature. The average is smooth, so that fixed points and exponents are those of a smooth
map. (The published second-order estimate rests on the second derivative of the rectifier, which is zero.)

Source: the quantity, Torre et al. (2025), arXiv 2510.25674; the closed form, the mean of a rectified
normal variable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn.analysis.jacobians import drive_matrices
from seqdyn.dynamics.arguments import as_input, check_map, check_unscheduled
from seqdyn.dynamics.maps import Activation, MapDynamics, Overwritten, activation_of, example

__all__ = ["mean_map"]

_NUM_NODES = 20


@dataclass(frozen=True)
class _Averaged:
    """A nonlinearity averaged over normal noise of standard deviation (H,) on its argument."""

    base: Activation
    spread: Tensor

    def __call__(self, drive: Tensor) -> Tensor:
        return _expected(self.base, drive, self.spread.to(drive))


def mean_map(dynamics: MapDynamics, sigma: float, *, input: Any = None) -> MapDynamics:
    """Average a map over normal noise on its inputs.

    Clamped units keep their value; several averages add up their variances in the drive.

    Args:
        dynamics: Map whose drive is W h + U x + b.
        sigma: Standard deviation of the noise on each input.
        input: Constant input (X,) that the averaged map has as its own; give a batch of inputs to the tools
            that look at it.

    Returns:
        The averaged map, exact for the rectifier, by 20 nodes of Gauss-Hermite quadrature otherwise.

    Raises:
        ValueError: If the map has no such drive, or sigma is no standard deviation.
    """
    check_map(dynamics)
    check_unscheduled(dynamics)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a finite number from 0, got {sigma!r}.")
    like = example(dynamics)
    drive, activation = activation_of(dynamics, like)
    _, inputs, _ = drive_matrices(dynamics, like)
    averaged = _Averaged(activation, sigma * inputs.norm(dim=1))
    return replace(
        dynamics,
        step=lambda h, u: averaged(drive(h, u)),
        preactivation=drive,
        activation=averaged,
        input=as_input(dynamics, input, like),
    )


def _expected(activation: Activation, mean: Tensor, spread: Tensor) -> Tensor:
    if isinstance(activation, Overwritten):
        return replace(activation, base=_Averaged(activation.base, spread))(mean)
    if isinstance(activation, _Averaged):
        return _expected(activation.base, mean, torch.hypot(activation.spread.to(mean), spread))
    if activation in (torch.relu, torch.nn.functional.relu):
        return _rectified(mean, spread)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
    total = torch.zeros_like(mean)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        total = total + weight * activation(mean + node * spread)
    return total


def _rectified(mean: Tensor, spread: Tensor) -> Tensor:
    """Mean of a rectified normal variable; the rectifier itself where there is no noise."""
    noisy = spread > 0
    score = mean / torch.where(noisy, spread, 1.0)
    density = torch.exp(-0.5 * score.square()) / math.sqrt(2 * math.pi)
    return torch.where(noisy, mean * torch.special.ndtr(score) + spread * density, torch.relu(mean))
