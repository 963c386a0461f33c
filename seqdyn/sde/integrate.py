"""Simulation of stochastic differential equations with additive noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqdyn.rng import fork_rng
from seqdyn.sde.noise import volatility_matrix

__all__ = ["advance", "heun", "simulate", "steps_between"]

Drift = Callable[[Tensor, Any], Tensor]
STEPS = 50  # between two times, unless a step size is given
METHODS = ("heun", "euler")


def heun(drift: Drift, x: Tensor, t: Any, step: Any) -> Tensor:
    """Advance states (..., C) without noise by one step of Heun's method, of second order."""
    first = drift(x, t)
    return x + step / 2 * (first + drift(x + step * first, t + step))


def steps_between(start: float, end: float, step_size: float) -> int:
    """Equal steps of at most ``step_size`` that lead from one time to another.

    A number of steps that rounding has put just above a whole one is that whole number.
    """
    return max(1, math.ceil((end - start) / step_size * (1 - 1e-9)))


@torch.no_grad()
def simulate(
    drift: Drift,
    volatility: Any,
    x0: Any,
    times: Sequence[float],
    *,
    step_size: float | None = None,
    method: str = "heun",
    seed: int | None = None,
) -> Tensor:
    r"""Draw paths of :math:`dX = b(X, t)\, dt + \sigma\, dW`.

    Args:
        drift: ``drift(x, t)`` of states (N, C) and a time.
        volatility: σ: a number, (C,) or (C, C).
        x0: Starting states (N, C) at ``times[0]``.
        times: T increasing times.
        step_size: Longest time step; a fiftieth of each interval by default.
        method: ``"euler"`` is Euler-Maruyama; ``"heun"`` takes the drift's mean over the two ends of a step,
            which with additive noise removes the first-order error of the mean.
        seed: Seed of the noise; ``None`` draws from the ambient stream.

    Returns:
        Paths (N, T, C) with the dtype and on the device of ``x0``; the first state is ``x0``.

    Raises:
        ValueError: If an argument is out of range.
    """
    x = torch.as_tensor(x0)
    x = x if x.is_floating_point() else x.double()
    scale = volatility_matrix(volatility, x.shape[-1], x)
    states = [x]
    with fork_rng(seed):
        for start, end in zip(times[:-1], times[1:], strict=True):
            count = STEPS if step_size is None else steps_between(start, end, step_size)
            x = advance(drift, scale, x, float(start), float(end), count, method)
            states.append(x)
    return torch.stack(states, dim=1)


def advance(
    drift: Drift, scale: Tensor, x: Tensor, start: float, end: float, count: int, method: str = "heun"
) -> Tensor:
    """Take ``count`` noisy steps from one time to another; ``scale`` is σ, (C, C)."""
    step = (end - start) / count
    for index in range(count):
        t = start + index * step
        x = heun(drift, x, t, step) if method == "heun" else x + step * drift(x, t)
        x = x + math.sqrt(step) * torch.randn_like(x) @ scale.mT
    return x
