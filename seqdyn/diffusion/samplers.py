"""Reverse samplers: functions of a denoiser and the noise they start from.

``guidance`` is the hook for the published self-guidance, a callable ``(x, step) -> score`` that already
contains its scale. Its attribute ``point`` says where the ancestral sampler evaluates it: ``"proposal"`` at
the drawn next state (two network passes a step) or ``"xt"`` at the current one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seqdyn.diffusion.denoiser import DenoiserLike

__all__ = ["ddim", "ddpm"]

Guidance = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor], Tensor]
Callback = Callable[[int, Tensor], None]


@torch.no_grad()
def ddpm(
    denoiser: DenoiserLike,
    noise: Tensor,
    guidance: Guidance | None = None,
    *,
    num_steps: int | None = None,
    draw: Draw | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Ancestral sampling, optionally guided.

    .. math::
        x_u = c_0\, \hat x_0(x_t) + c_1\, x_t + \sqrt{v}\,\xi + v\, \mathrm{score}

    with the coefficients of :meth:`NoiseSchedule.transition`; the last step has v = 0.

    Args:
        denoiser: Anything with ``schedule`` and ``x0(x, step)``.
        noise: Standard normal start, (B, L, C).
        guidance: Score at ``(x, step)``, scale included.
        num_steps: Use this many steps 0, m, 2m, ...; all by default.
        draw: ``draw(step, like)`` gives the standard normal noise of a step; ``torch.randn_like`` by default.
        callback: Called with the step just left and the new state, for instance to record a trajectory.

    Returns:
        Samples, (B, L, C).

    Raises:
        ValueError: If ``num_steps`` does not divide the number of diffusion steps.
    """
    point = getattr(guidance, "point", "proposal")
    x = noise
    for step, to in denoiser.schedule.reverse_steps(num_steps):
        index = _index(x, step)
        coefficients = denoiser.schedule.transition(step, to)
        active = guidance if coefficients.variance > 0 else None
        if active is not None and point == "xt":
            estimate, score = _estimate_and_score(denoiser, active, x, index)
        else:
            estimate, score = denoiser.x0(x, index), None
        x = coefficients.estimate * estimate + coefficients.current * x
        if coefficients.variance > 0:
            xi = torch.randn_like(x) if draw is None else draw(step, x)
            x = x + math.sqrt(coefficients.variance) * xi
        if active is not None:
            x = x + coefficients.variance * (active(x, index) if score is None else score)
        if callback is not None:
            callback(step, x)
    return x


@torch.no_grad()
def ddim(
    denoiser: DenoiserLike,
    noise: Tensor,
    eta: float = 0.0,
    num_steps: int | None = None,
    guidance: Guidance | None = None,
    *,
    draw: Draw | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Generalised DDIM, deterministic for ``eta = 0``, optionally guided.

    .. math::
        \epsilon' = \hat\epsilon - \sqrt{1 - \bar\alpha_t}\,\mathrm{score}, \quad
        x_u = \sqrt{\bar\alpha_u}\, \hat x_0' + \sqrt{1 - \bar\alpha_u - s^2}\, \epsilon' + s\, \xi, \quad
        s^2 = \eta^2 \frac{1 - \bar\alpha_u}{1 - \bar\alpha_t} \left(1 -
        \frac{\bar\alpha_t}{\bar\alpha_u}\right)

    where :math:`\hat x_0'` is the clean window that :math:`\epsilon'` implies.

    Args:
        denoiser: Anything with ``schedule`` and ``x0(x, step)``.
        noise: Standard normal start, (B, L, C).
        eta: Share of fresh noise, from 0 to 1; 1 is ancestral sampling.
        num_steps: Use this many steps 0, m, 2m, ...; all by default.
        guidance: Score at ``(x, step)``, scale included, evaluated at the current state.
        draw: ``draw(step, like)`` gives the standard normal noise of a step; ``torch.randn_like`` by default.
        callback: Called with the step just left and the new state.

    Returns:
        Samples, (B, L, C).

    Raises:
        ValueError: If ``eta`` is outside [0, 1] or ``num_steps`` does not divide the number of diffusion
            steps.

    Source: Song, Meng & Ermon (2021), arXiv 2010.02502.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie between 0 (deterministic) and 1 (ancestral), got {eta}.")
    x = noise
    for step, to in denoiser.schedule.reverse_steps(num_steps):
        index = _index(x, step)
        now, then = denoiser.schedule.level(step), denoiser.schedule.level(to)
        if guidance is None:
            estimate = denoiser.x0(x, index)
        else:
            estimate, score = _estimate_and_score(denoiser, guidance, x, index)
            estimate = estimate + (1 - now) / math.sqrt(now) * score
        fresh = eta**2 * denoiser.schedule.transition(step, to).variance
        direction = (x - math.sqrt(now) * estimate) / math.sqrt(1 - now)
        x = math.sqrt(then) * estimate + math.sqrt(max(1 - then - fresh, 0.0)) * direction
        if fresh > 0:
            x = x + math.sqrt(fresh) * (torch.randn_like(x) if draw is None else draw(step, x))
        if callback is not None:
            callback(step, x)
    return x


def _index(x: Tensor, step: int) -> Tensor:
    return torch.full((len(x),), step, dtype=torch.int64, device=x.device)


def _estimate_and_score(
    denoiser: DenoiserLike, guidance: Guidance, x: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Both at the same point: in one network pass where the guidance guides this very denoiser."""
    shared = getattr(guidance, "x0_and_score", None)
    if shared is not None and getattr(guidance, "denoiser", None) is denoiser:
        return shared(x, index)
    return denoiser.x0(x, index), guidance(x, index)
