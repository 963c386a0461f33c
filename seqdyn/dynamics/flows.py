"""Systems in continuous time: a drift, a volatility, and the fourth-order Runge-Kutta step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from seqdyn._arguments import check_count

__all__ = ["FlowDynamics", "runge_kutta"]

Drift = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class FlowDynamics:
    r"""A system in continuous time, :math:`dx = f(x, t)\, dt + g\, dW`.

    Attributes:
        drift: ``drift(x, t)`` of states (..., C) and a time; returns the velocity (..., C). Pure.
        volatility: Standard deviation g of the noise per square root of time, a number or (C,); 0.0 for an
            ordinary differential equation.
        state_size: Number of coordinates C.
    """

    drift: Drift
    volatility: float | Tensor
    state_size: int

    def __post_init__(self) -> None:
        check_count(self.state_size, "state_size")


def runge_kutta(drift: Drift, x: Tensor, time: float, step_size: float) -> Tensor:
    """Advance the states (..., C) by one classical fourth-order Runge-Kutta step.

    Its derivative with respect to ``x`` is the same scheme applied to the variational equation, so that
    tangent maps need no scheme of their own.
    """
    half = 0.5 * step_size
    k1 = drift(x, time)
    k2 = drift(x + half * k1, time + half)
    k3 = drift(x + half * k2, time + half)
    k4 = drift(x + step_size * k3, time + step_size)
    return x + step_size / 6 * (k1 + 2 * (k2 + k3) + k4)
