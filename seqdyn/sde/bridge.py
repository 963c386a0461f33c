r"""The Schrödinger bridge between two Gaussians under an affine drift, in closed form.

With the transition :math:`x_1 | x_0 \sim N(F x_0 + c, R)` the entropic plan is Gaussian with

.. math::
    \mathrm{Cov}(x_0, x_1) = 2\, \Sigma_0^{1/2}
    \left[ (4 K \Sigma_1 K^\top + I)^{1/2} + I \right]^{-1} K \Sigma_1,
    \qquad K = \Sigma_0^{1/2} F^\top R^{-1},

a form without the inverse of F, in which a drift that decays fast leaves no digits. Between the ends the
process is that of the drift, pinned: :math:`X_t | x_0, x_1 \sim N(U x_0 + V x_1 + h, W)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqdyn._arguments import check_amount
from seqdyn.sde.noise import noise_covariance
from seqdyn.sde.transition import AffineTransition, affine_transition

__all__ = ["GaussianBridge", "gaussian_bridge"]


@dataclass(frozen=True)
class GaussianBridge:
    """A bridge between two Gaussians.

    Attributes:
        mean0: Mean at the beginning, (C,).
        cov0: Covariance at the beginning, (C, C).
        mean1: Mean at the end.
        cov1: Covariance at the end.
        cross_covariance: Cov(x_0, x_1), features of the beginning by features of the end, (C, C).
        kl: Kullback-Leibler divergence from the process of the drift that starts as the bridge does, in nats.
        duration: D, in units of time.
    """

    mean0: Tensor
    cov0: Tensor
    mean1: Tensor
    cov1: Tensor
    cross_covariance: Tensor
    kl: float
    duration: float
    _drift: tuple[Tensor, Tensor, Tensor]

    def mean(self, time: float) -> Tensor:
        """Mean (C,) at a time from 0 to the duration.

        Raises:
            ValueError: If the time lies outside.
        """
        from_start, from_end, shift, _ = self._pinned(time)
        return from_start @ self.mean0 + from_end @ self.mean1 + shift

    def covariance(self, time: float) -> Tensor:
        """Covariance (C, C) at a time from 0 to the duration.

        Raises:
            ValueError: If the time lies outside.
        """
        from_start, from_end, _, rest = self._pinned(time)
        mixed = from_start @ self.cross_covariance @ from_end.mT
        ends = from_start @ self.cov0 @ from_start.mT + from_end @ self.cov1 @ from_end.mT
        return ends + mixed + mixed.mT + rest

    def _pinned(self, time: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U, V, h and W of the law at a time given both ends."""
        if not 0 <= time <= self.duration:
            raise ValueError(f"time must lie from 0 to the duration {self.duration}, got {time!r}.")
        size = len(self.mean0)
        if time in (0, self.duration):
            one, nothing = torch.eye(size).to(self.mean0), self.mean0.new_zeros(size, size)
            ends = (one, nothing) if time == 0 else (nothing, one)
            return *ends, self.mean0.new_zeros(size), nothing
        times = self.mean0.new_tensor([time, self.duration - time, self.duration])
        moves = affine_transition(*self._drift, times)
        before, after, whole = (AffineTransition(*(part[i] for part in moves)) for i in range(3))
        gain = torch.linalg.solve(whole.covariance, after.matrix @ before.covariance).mT
        return (
            before.matrix - gain @ whole.matrix,
            gain,
            before.offset - gain @ whole.offset,
            before.covariance - gain @ whole.covariance @ gain.mT,
        )


def gaussian_bridge(
    mean0: Tensor,
    cov0: Tensor,
    mean1: Tensor,
    cov1: Tensor,
    drift_matrix: Tensor,
    drift_offset: Tensor,
    volatility: Any,
    duration: float,
) -> GaussianBridge:
    r"""Bridge between two Gaussians under an affine drift with additive noise.

    .. math:: N(m_0, \Sigma_0) \to N(m_1, \Sigma_1), \qquad dX = (A X + c)\, dt + \sigma\, dW

    Args:
        mean0: m_0, (C,), float64.
        cov0: Σ_0, (C, C), positive definite.
        mean1: m_1.
        cov1: Σ_1.
        drift_matrix: A, (C, C).
        drift_offset: c, (C,).
        volatility: σ: a number, (C,) or (C, C).
        duration: D.

    Raises:
        ValueError: If shapes disagree, a covariance is not positive definite, or there is no noise.
    """
    mean0, cov0, mean1, cov1, matrix, offset = (
        torch.as_tensor(part, dtype=torch.float64)
        for part in (mean0, cov0, mean1, cov1, drift_matrix, drift_offset)
    )
    size = mean0.shape[0] if mean0.ndim == 1 else 0
    named = {"mean0": mean0, "mean1": mean1, "drift_offset": offset}
    squares = {"cov0": cov0, "cov1": cov1, "drift_matrix": matrix}
    for name, part in {**named, **squares}.items():
        wanted = (size,) if name in named else (size, size)
        if size == 0 or tuple(part.shape) != wanted:
            raise ValueError(
                f"{name} must have shape {wanted or '(C,)'}, got {tuple(part.shape)}; mean0 gives the "
                "number of features."
            )
        if not bool(torch.isfinite(part).all()):
            raise ValueError(f"{name} must be finite, got {part.tolist()}.")
    for name in ("cov0", "cov1"):
        part = squares[name]
        if not torch.allclose(part, part.mT) or bool(torch.linalg.eigvalsh(part).min() <= 0):
            raise ValueError(f"{name} must be symmetric and positive definite, got {part.tolist()}.")
    duration = check_amount(duration, "duration", zero=False)
    noise = noise_covariance(volatility, size, mean0)
    whole = affine_transition(matrix, offset, noise, mean0.new_tensor(duration))
    if bool(torch.linalg.eigvalsh(whole.covariance).min() <= 0):
        raise ValueError("volatility must leave noise in every direction, or the bridge may not exist.")
    cross = _cross_covariance(cov0, cov1, whole)
    kl = _divergence(mean0, cov0, mean1, cov1, cross, whole)
    return GaussianBridge(mean0, cov0, mean1, cov1, cross, kl, duration, (matrix, offset, noise))


def _cross_covariance(cov0: Tensor, cov1: Tensor, whole: AffineTransition) -> Tensor:
    root = _power(cov0, 0.5)
    onward = root @ torch.linalg.solve(whole.covariance, whole.matrix).mT
    eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
    inner = _power(4 * onward @ cov1 @ onward.mT + eye, 0.5)
    return 2 * root @ torch.linalg.solve(inner + eye, onward @ cov1)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric positive-definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return vectors * values.pow(exponent) @ vectors.mT


def _divergence(
    mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor, cross: Tensor, whole: AffineTransition
) -> float:
    """Expected divergence between the laws of the end given the beginning."""
    gain = torch.linalg.solve(cov0, cross).mT
    given = cov1 - gain @ cross
    difference = gain - whole.matrix
    shift = mean1 - whole.matrix @ mean0 - whole.offset
    spread = given + difference @ cov0 @ difference.mT + torch.outer(shift, shift)
    trace = torch.linalg.solve(whole.covariance, spread).diagonal().sum()
    return float((trace - len(mean0) + whole.covariance.logdet() - given.logdet()) / 2)
