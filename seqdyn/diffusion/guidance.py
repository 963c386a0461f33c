r"""Observation self-guidance as published: the score of an energy of the model's own estimate of the clean
window.

.. math::
    \mathrm{score}(x, t) = -s\, \nabla_x E\bigl(y - \hat x_0(x, t)\bigr),

summed over observed cells, with the gradient taken through the network. It ignores the covariance of the
clean window given the diffused one, hence is an approximation even with a perfect denoiser.

Source: Kollovieh et al. (2023), arXiv 2307.11494, section 3.1. The paper evaluates the gradient at
the current state (``point="xt"``); the published code, and with it the published numbers, at the drawn
proposal (``point="proposal"``).
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from seqdyn.diffusion.denoiser import DenoiserLike

__all__ = ["POINTS", "QuantileGuidance", "SquareGuidance"]

POINTS = ("proposal", "xt")


class _SelfGuidance(abc.ABC):
    """Score ``(x, step) -> (B, L, C)`` of an energy of the residual at the observed cells."""

    def __init__(
        self, denoiser: DenoiserLike, target: Tensor, observed: Tensor, scale: float, point: str = "proposal"
    ) -> None:
        if point not in POINTS:
            raise ValueError(f"the guidance point must be one of {POINTS}, got {point!r}.")
        if not scale > 0:
            raise ValueError(
                f"the guidance scale must be positive, got {scale}; without guidance pass guidance=None."
            )
        self.denoiser, self.observed, self.scale, self.point = denoiser, observed, scale, point
        # NaN times a zero mask is NaN, so unobserved targets are replaced before, not after.
        self.target = torch.where(observed, target, torch.zeros((), dtype=target.dtype, device=target.device))

    @abc.abstractmethod
    def energy(self, residual: Tensor) -> Tensor:
        """Energy of the residual (B, L, C), which is zero at unobserved cells, summed."""

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        """``scale`` times minus the energy's gradient at ``x`` (B, L, C) and steps (B,)."""
        return self.x0_and_score(x, step)[1]

    @torch.enable_grad()
    def x0_and_score(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser's estimate and the score at the same point, in one pass through the network."""
        x = x.detach().requires_grad_()
        estimate = self.denoiser.x0(x, step)
        energy = self.energy((self.target - estimate) * self.observed)
        (gradient,) = torch.autograd.grad(energy, x)
        return estimate.detach(), -self.scale * gradient


class SquareGuidance(_SelfGuidance):
    r"""Energy :math:`E = \sum (y - \hat x_0)^2` over the observed cells.

    Args:
        denoiser: The unconditional denoiser.
        target: Observation y, (B, L, C); values at unobserved cells are ignored.
        observed: Mask, bool (B, L, C).
        scale: Strength s. Large scales make the chain diverge.
        point: ``"proposal"`` or ``"xt"``, where :func:`~seqdyn.diffusion.samplers.ddpm` takes the gradient.

    Raises:
        ValueError: If ``point`` is unknown or ``scale`` not positive.
    """

    def energy(self, residual: Tensor) -> Tensor:
        return residual.square().sum()


class QuantileGuidance(_SelfGuidance):
    r"""Energy :math:`E = \sum \max(\kappa e, (\kappa - 1) e)` with :math:`e = y - \hat x_0`, one level κ per
    path.

    Args:
        denoiser: The unconditional denoiser.
        target: Observation y, (B, L, C); values at unobserved cells are ignored.
        observed: Mask, bool (B, L, C).
        scale: Strength s.
        levels: Quantile level of each path in (0, 1), (B,).
        point: ``"proposal"`` or ``"xt"``, where :func:`~seqdyn.diffusion.samplers.ddpm` takes the gradient.

    Raises:
        ValueError: If ``point`` is unknown, ``scale`` not positive or a level outside (0, 1).
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        target: Tensor,
        observed: Tensor,
        scale: float,
        levels: Tensor,
        point: str = "proposal",
    ) -> None:
        super().__init__(denoiser, target, observed, scale, point)
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(
                "quantile levels must lie strictly between 0 and 1, for instance k / (num_samples + 1)."
            )
        self.levels = levels.to(target.dtype).view(-1, 1, 1)

    def energy(self, residual: Tensor) -> Tensor:
        return torch.maximum(self.levels * residual, (self.levels - 1) * residual).sum()
