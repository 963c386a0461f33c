"""Simulation of stochastic differential equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_amount
from seqdyn.errors import NonFiniteError
from seqdyn.rng import fork_rng
from seqdyn.sde import torchsde_backend
from seqdyn.sde.noise import volatility_matrix

__all__ = ["advance", "heun", "simulate", "steps_between"]

Drift = Callable[[Tensor, Any], Tensor]
STEPS = 50  # between two times, unless a step size is given
OWN = ("heun", "euler")  # for additive noise, a hundred times faster than through the library


def heun(drift: Drift, x: Tensor, t: Any, step: Any, noise: Tensor | None = None) -> Tensor:
    r"""Advance states (..., C) by one step of Heun's method, of second order.

    .. math::
        \tilde x = x + h\, b(x, t) + \eta, \qquad
        x' = x + \tfrac h2 \big( b(x, t) + b(\tilde x, t + h) \big) + \eta

    Args:
        drift: ``drift(x, t)``.
        x: States.
        t: Time.
        step: Time step h.
        noise: Increment η of additive noise over the step, if there is any. As it moves the predictor too,
            the law of the states is of second order in h, not only their mean.
    """
    first = drift(x, t)
    ahead = x + step * first
    if noise is None:
        return x + step / 2 * (first + drift(ahead, t + step))
    return x + step / 2 * (first + drift(ahead + noise, t + step)) + noise


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
    times: Sequence[float] | np.ndarray | Tensor,
    *,
    step_size: float | None = None,
    method: str | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Draw paths of :math:`dX = b(X, t)\, dt + \sigma\, dW`, or with noise :math:`g_j(X, t)\, dW_j`.

    ==============  ================  =================================================================
    method          noise
    ==============  ================  =================================================================
    ``"heun"``      additive          the default there; second order in the step, in law
    ``"euler"``     additive, other   Euler-Maruyama, first order in law
    ``"milstein"``  additive, other   the default for noise that depends on the state; through torchsde
    ``"srk"``       additive, other   stochastic Runge-Kutta, order 1.5 path by path; through torchsde
    ==============  ================  =================================================================

    Args:
        drift: ``drift(x, t)`` of states (N, C) and a time.
        volatility: σ per square root of time: a number, (C,) or (C, C); or ``volatility(x, t)``, (N, C), in
            the sense of Itô. Milstein and Runge-Kutta steps need its entry j to depend on coordinate j only.
        x0: Starting states (N, C) at ``times[0]``.
        times: T increasing times.
        step_size: Longest time step; a fiftieth of each interval by default.
        method: One of the table.
        seed: Seed of the noise; ``None`` draws from the ambient stream.

    Returns:
        Paths (N, T, C) with the dtype and on the device of ``x0``; the first state is ``x0``.

    Raises:
        ValueError: If an argument is out of range.
        NonFiniteError: If a path leaves the finite numbers.
    """
    x = _states(x0)
    moments = _times(times)
    states_at, method = _solver(volatility, method)
    scale = volatility if callable(volatility) else volatility_matrix(volatility, x.shape[-1], x)
    _check_velocity("drift", drift, x, moments[0])
    if callable(volatility):
        _check_velocity("volatility", volatility, x, moments[0])
    if step_size is not None:
        step_size = check_amount(step_size, "step_size", zero=False)
    counts = [
        STEPS if step_size is None else steps_between(start, end, step_size)
        for start, end in zip(moments[:-1], moments[1:], strict=True)
    ]
    states = [x]
    with fork_rng(seed):
        for state in states_at(drift, scale, x, moments, counts, method):
            states.append(state)
            _check_finite(state, moments[len(states) - 2], moments[len(states) - 1])
    return torch.stack(states, dim=1)


def advance(
    drift: Drift, scale: Tensor, x: Tensor, start: float, end: float, count: int, method: str = "heun"
) -> Tensor:
    """Take ``count`` noisy steps from one time to another; ``scale`` is σ, (C, C)."""
    step = (end - start) / count
    for index in range(count):
        t = start + index * step
        noise = math.sqrt(step) * torch.randn_like(x) @ scale.mT
        x = heun(drift, x, t, step, noise) if method == "heun" else x + step * drift(x, t) + noise
    return x


def _own(
    drift: Drift, scale: Tensor, x: Tensor, times: Sequence[float], counts: Sequence[int], method: str
) -> Iterator[Tensor]:
    for start, end, count in zip(times[:-1], times[1:], counts, strict=True):
        x = advance(drift, scale, x, start, end, count, method)
        yield x


def _solver(volatility: Any, method: str | None) -> tuple[Callable[..., Iterator[Tensor]], str]:
    """The routine that simulates, and the method's name."""
    depends = callable(volatility)
    if method is None:
        method = "milstein" if depends else "heun"
    allowed = torchsde_backend.METHODS if depends else (*OWN, *torchsde_backend.METHODS[1:])
    if method not in allowed:
        kind = "noise that depends on the state" if depends else "additive noise"
        raise ValueError(f"method must be one of {allowed} for {kind}, got {method!r}.")
    return (_own if method in OWN and not depends else torchsde_backend.states_at), method


def _states(x0: Any) -> Tensor:
    try:
        x = torch.as_tensor(x0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"x0 must be an array of states (N, C), got {type(x0).__name__}.") from error
    if x.ndim != 2:
        raise ValueError(
            f"x0 must be states (N, C), got shape {tuple(x.shape)}; a single state is x0[None], a single "
            "coordinate x0[:, None]."
        )
    bad = ~torch.isfinite(x).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"x0 has {int(bad.sum())} of {len(x)} states with NaN or infinity (first in row "
            f"{int(bad.int().argmax())}); leave them out: x0[np.isfinite(x0).all(axis=1)]."
        )
    return x.detach() if x.is_floating_point() else x.double()


def _times(times: Any) -> list[float]:
    values = torch.as_tensor(np.asarray(times, dtype=float) if not isinstance(times, Tensor) else times)
    moments = [float(t) for t in values.reshape(-1)]
    if values.ndim != 1 or not moments or not all(map(math.isfinite, moments)):
        raise ValueError(
            f"times must be one or more finite numbers, got {values.tolist()}; the first is that of x0."
        )
    for before, after in zip(moments[:-1], moments[1:], strict=True):
        if after <= before:
            raise ValueError(
                f"times must increase, got {after:g} after {before:g}; sort them and leave out repetitions: "
                "np.unique(times)."
            )
    return moments


def _check_velocity(name: str, function: Drift, x: Tensor, t: float) -> None:
    """Check shape and dtype once; a velocity (N,) would silently broadcast to (N, N)."""
    value = function(x, t)
    if not isinstance(value, Tensor) or value.shape != x.shape or value.dtype != x.dtype:
        what = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"{name}(x, t) must have shape and dtype of the states, {x.dtype} {tuple(x.shape)}, got {what}."
        )


def _check_finite(x: Tensor, start: float, end: float) -> None:
    bad = ~torch.isfinite(x).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"{int(bad.sum())} of {len(x)} paths left the finite numbers between times {start:g} and {end:g} "
            f"(first path {int(bad.int().argmax())}); take a smaller step_size, or parameters with which the "
            "drift leads back."
        )
