"""Roll-outs of a system from a batch of states, with noise that experiments can share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.dynamics.arguments import Dynamics, as_input, as_states
from seqdyn.dynamics.flows import FlowDynamics, runge_kutta
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.rng import fork_rng

__all__ = ["Drive", "advance", "check_step_size", "iterate", "simulate"]


@torch.no_grad()
def simulate(
    dynamics: Dynamics,
    hidden: Any,
    num_steps: int,
    *,
    sigma: float = 0.0,
    noise: Tensor | None = None,
    input: Any = None,
    step_size: float | None = None,
    burn_in: int = 0,
    seed: int | None = None,
) -> Tensor:
    r"""Run a system forward.

    .. math::
        h_{t+1} = F(h_t,\; u + \sigma\, \xi_t), \qquad \xi_t \sim N(0, I)

    A flow takes Runge-Kutta steps without noise, Euler-Maruyama steps
    :math:`x + f\, \Delta + \sigma g \sqrt{\Delta}\, \xi` with it.

    Args:
        dynamics: Map or flow, with or without a schedule.
        hidden: Starting states (N, H), or one (H,).
        num_steps: Steps T to record.
        sigma: Standard deviation σ of the noise on each input of a map; for a flow the factor of its
            volatility. The noise acts from the first step on.
        noise: Standard normal draws ξ to use, (N, burn_in + T, X) for a map, (N, burn_in + T, C) for a flow;
            they are multiplied by ``sigma``. Fresh draws by default.
        input: Constant input u, (X,) or (N, X).
        step_size: Δ of a flow, in its unit of time.
        burn_in: Steps to take before recording.
        seed: Seed of fresh noise; ``None`` draws from the ambient stream.

    Returns:
        States after each step, (N, T, H), or (T, H) for one start; the start itself is not among them.

    Raises:
        ValueError: If an argument does not fit the system.
    """
    states = as_states(dynamics, hidden, "hidden")
    num_steps = check_count(num_steps, "num_steps")
    burn_in = check_count(burn_in, "burn_in", least=0)
    rows = torch.atleast_2d(states)
    if rows.ndim != 2:
        raise ValueError(f"hidden must be (start, unit), got shape {tuple(states.shape)}.")
    drive = Drive(dynamics, rows, sigma=sigma, noise=noise, input=input, num_steps=burn_in + num_steps)
    out = rows.new_empty(len(rows), num_steps, rows.shape[1])
    with fork_rng(seed):
        for step, h in enumerate(iterate(dynamics, rows, drive, burn_in + num_steps, step_size)):
            if step >= burn_in:
                out[:, step - burn_in] = h
    return out if states.ndim == 2 else out[0]


def iterate(
    dynamics: Dynamics, hidden: Tensor, drive: Drive, num_steps: int, step_size: float | None = None
) -> Iterator[Tensor]:
    """Yield the states (N, H) after each of ``num_steps`` steps; stores none of them."""
    check_step_size(dynamics, step_size)
    h = hidden
    for step in range(num_steps):
        h = advance(dynamics, h, drive(step), step, step_size)
        yield h


def advance(
    dynamics: Dynamics, hidden: Tensor, drive: Tensor | None, step: int, step_size: float | None
) -> Tensor:
    """Take step number ``step`` under an input (a map) or a noise term (a flow), see :class:`Drive`."""
    if isinstance(dynamics, MapDynamics):
        return dynamics.at(step).step(hidden, drive)
    assert step_size is not None
    if drive is None:
        return runge_kutta(dynamics.drift, hidden, step * step_size, step_size)
    return hidden + step_size * dynamics.drift(hidden, step * step_size) + math.sqrt(step_size) * drive


class Drive:
    """What drives a system at each step: constant input plus noise.

    Args:
        dynamics: The system.
        hidden: States (N, H) that it drives.
        sigma: Standard deviation of the noise on the inputs of a map, factor of the volatility of a flow.
        noise: Draws to use, (N, T, X), or (N, T, C) for a flow.
        input: Constant input, (X,) or (N, X).
        num_steps: Steps T that will be taken.

    Raises:
        ValueError: If an argument does not fit the system.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        hidden: Tensor,
        *,
        sigma: float = 0.0,
        noise: Tensor | None = None,
        input: Any = None,
        num_steps: int,
    ) -> None:
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ValueError(f"sigma must be a standard deviation, a finite number from 0, got {sigma!r}.")
        self._scale: float | Tensor = sigma
        self._num_rows = len(hidden)
        if isinstance(dynamics, FlowDynamics):
            size, self._scale = dynamics.state_size, sigma * dynamics.volatility
        else:
            size = dynamics.input_size
        if noise is not None and sigma == 0:
            raise ValueError("noise= is multiplied by sigma, which is 0; give sigma=1.0 too.")
        if sigma > 0 and size == 0:
            raise ValueError("sigma= acts on the inputs, but these dynamics take none; leave it out.")
        wanted = (len(hidden), num_steps, size)
        noise = None if noise is None else torch.as_tensor(noise)
        if noise is not None and tuple(noise.shape) != wanted:
            raise ValueError(
                f"noise must have shape {wanted} (start, time, input), got {tuple(noise.shape)}."
            )
        self._constant = as_input(dynamics, input, hidden)
        if self._constant is not None and tuple(self._constant.shape) not in {(size,), (len(hidden), size)}:
            raise ValueError(
                f"input must be one constant input ({size},), or one for each of the {len(hidden)} states, "
                f"got shape {tuple(self._constant.shape)}."
            )
        self._noise = None if noise is None else noise.to(hidden)
        self._fresh = hidden.new_empty(len(hidden), size) if sigma > 0 else None

    def __call__(self, step: int, rows: Tensor | None = None) -> Tensor | None:
        """Input (N, X) of a step, or noise term (N, C) of a flow; ``None`` if there is neither.

        Args:
            step: Number of the step.
            rows: Numbers of the states that are still of interest; all by default.
        """
        constant = self._constant
        if constant is not None and constant.ndim == 2 and rows is not None:
            constant = constant[rows]
        if self._fresh is None:
            count = self._num_rows if rows is None else len(rows)
            return None if constant is None else constant.expand(count, constant.shape[-1])
        if self._noise is None:
            noise = torch.randn_like(self._fresh if rows is None else self._fresh[: len(rows)])
        else:
            noise = self._noise[:, step] if rows is None else self._noise[rows, step]
        driven = self._scale * noise
        return driven if constant is None else constant + driven


def check_step_size(dynamics: Dynamics, step_size: float | None) -> None:
    """Check that a flow has a step size, and a map none.

    Raises:
        ValueError: If it is the other way round.
    """
    if isinstance(dynamics, FlowDynamics):
        if step_size is None or not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"a flow needs a positive step size, got {step_size!r}; type step_size=0.01.")
    elif step_size is not None:
        raise ValueError(f"a map has no step size, got step_size={step_size!r}; leave it out.")
