r"""The one interface of everything downstream: :math:`E[x_0 \mid x_t]`.

Samplers, guidance and conditioning ask a denoiser for ``x0(x, step)`` and its ``schedule`` and know nothing
else, so that conditioning is a denoiser that wraps a denoiser, and every sampler works with every condition
and every model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from seqdyn.diffusion.schedule import NoiseSchedule

__all__ = ["Denoiser", "DenoiserLike"]


class DenoiserLike(Protocol):
    """What a sampler needs."""

    schedule: NoiseSchedule

    def x0(self, x: Tensor, step: Tensor) -> Tensor:
        """Expected clean window given the diffused ``x`` (B, L, C) at steps (B,)."""


class Denoiser:
    r"""A noise predictor with its schedule.

    .. math::
        \hat x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\; \hat\epsilon(x_t, t)}{\sqrt{\bar\alpha_t}}

    Args:
        predict_noise: Any callable ``(x, step) -> noise`` on (B, L, C) and int64 (B,).
        schedule: The schedule it was trained with.
    """

    def __init__(self, predict_noise: Callable[[Tensor, Tensor], Tensor], schedule: NoiseSchedule) -> None:
        self.predict_noise = predict_noise
        self.schedule = schedule

    def x0(self, x: Tensor, step: Tensor) -> Tensor:
        """Expected clean window given the diffused ``x`` (B, L, C) at steps (B,); nothing is clipped."""
        signal, spread = self.schedule.scales(step, x)
        return (x - spread * self.predict_noise(x, step)) / signal
