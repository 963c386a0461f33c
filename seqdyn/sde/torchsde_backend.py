"""Simulation through torchsde: the one place that calls it.

torchsde's default Brownian motion guesses its steps badly, which costs a factor of a hundred, and is seeded
by NumPy's global state. Here it is told the step and its entropy. The clock it sees counts steps: whole
numbers are exact in every precision, so that rounding adds no step and a snapshot falls on the end of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqdyn.rng import ambient_seed

__all__ = ["METHODS", "states_at"]

METHODS = ("euler", "milstein", "srk")
Coefficient = Callable[[Tensor, Any], Tensor]


class _Interval(NamedTuple):
    """One interval between two times in torchsde's terms, with a clock that counts steps from ``first``."""

    drift: Coefficient
    volatility: Coefficient
    start: float
    step: float
    first: int
    noise_type: str
    sde_type: str = "ito"

    def _time(self, clock: Any) -> float:
        return self.start + (float(clock) - self.first) * self.step

    def f(self, clock: Any, x: Tensor) -> Tensor:
        return self.step * self.drift(x, self._time(clock))

    def g(self, clock: Any, x: Tensor) -> Tensor:
        return math.sqrt(self.step) * self.volatility(x, self._time(clock))


def states_at(
    drift: Coefficient,
    volatility: Tensor | Coefficient,
    x0: Tensor,
    times: Sequence[float],
    counts: Sequence[int],
    method: str,
) -> Iterator[Tensor]:
    """Simulate paths and give their states at ``times[1]``, ``times[2]``, ...

    Args:
        drift: ``drift(x, t)`` of states (N, C) and a time.
        volatility: Matrix σ (C, C) of additive noise, or ``volatility(x, t)``, (N, C), of noise
            :math:`g_j(x, t)\\, dW_j`.
        x0: Starting states (N, C).
        times: T increasing times.
        counts: Number of equal steps in each of the T - 1 intervals.
        method: One of :data:`METHODS`.

    Yields:
        States (N, C) at the end of each interval.
    """
    import torchsde

    additive = isinstance(volatility, Tensor)
    noise_type = "additive" if additive else "diagonal"
    scale = (lambda x, t: volatility.expand(len(x), -1, -1)) if isinstance(volatility, Tensor) else volatility
    noise = torchsde.BrownianInterval(
        t0=0.0,
        t1=float(sum(counts)),
        size=tuple(x0.shape),
        dtype=x0.dtype,
        device=x0.device,
        dt=1.0,
        entropy=ambient_seed(None),
        levy_area_approximation="space-time" if method == "srk" else "none",
    )
    x, first = x0, 0
    for start, end, count in zip(times[:-1], times[1:], counts, strict=True):
        interval = _Interval(drift, scale, start, (end - start) / count, first, noise_type)
        clock = torch.tensor([first, first + count], dtype=torch.float64)
        x = torchsde.sdeint(interval, x, clock, bm=noise, method=method, dt=1.0)[-1]
        first += count
        yield x
