"""Checks of states and inputs that every tool shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.probing import computes_in, zeros_for

__all__ = [
    "Dynamics",
    "as_input",
    "as_states",
    "check_dynamics",
    "check_map",
    "check_unscheduled",
    "state_set",
    "zero_state",
]

Dynamics = MapDynamics | FlowDynamics


def check_dynamics(dynamics: Any) -> None:
    """Check that something is a dynamics object.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(dynamics, MapDynamics | FlowDynamics):
        raise ValueError(
            f"dynamics must be a MapDynamics or FlowDynamics, got {type(dynamics).__name__}; use "
            "model.dynamics(), seqdyn.dynamics.from_torch(module) or from_callable(function, state_size)."
        )


def check_map(dynamics: Any) -> None:
    """Check that a system is a map.

    Raises:
        ValueError: If it is a flow, or no system.
    """
    check_dynamics(dynamics)
    if not isinstance(dynamics, MapDynamics):
        raise ValueError(
            "a map is needed here, got a flow; wrap one step of it: from_callable(lambda x: "
            "runge_kutta(flow.drift, x, 0.0, step_size), flow.state_size)."
        )


def check_unscheduled(dynamics: Dynamics) -> None:
    """Check that a system is the same at all steps.

    Raises:
        ValueError: If it has a schedule, or a drift that depends on time.
    """
    check_dynamics(dynamics)
    if isinstance(dynamics, FlowDynamics):
        zero = zero_state(dynamics)
        generator = torch.Generator(device=zero.device).manual_seed(0)
        x = torch.randn(4, len(zero), generator=generator, dtype=zero.dtype, device=zero.device)
        with torch.no_grad():
            same = torch.equal(dynamics.drift(x, 0.0), dynamics.drift(x, 0.7321))
        if not same:
            raise ValueError(
                "the drift depends on time, but one system at all times is needed here; make time a "
                "coordinate of the state, or fix it: FlowDynamics(lambda x, t: drift(x, 0.0), ...)."
            )
    elif dynamics.schedule is not None:
        raise ValueError(
            "these dynamics change with time, by an intervention with start= or stop=; pick the map of one "
            "step: dynamics.at(0)."
        )


def as_states(dynamics: Dynamics, hidden: Any, name: str = "start") -> Tensor:
    """States as a tensor (..., H), detached.

    Args:
        dynamics: The system whose states they are.
        hidden: Tensor or array (..., H).
        name: The argument's name.

    Raises:
        ValueError: If the shape does not fit, a value is not finite, or the system computes in another
            precision.
    """
    check_dynamics(dynamics)
    states = torch.as_tensor(np.asarray(hidden) if not isinstance(hidden, Tensor) else hidden).detach()
    size = dynamics.state_size
    if states.ndim == 0 or states.shape[-1] != size:
        raise ValueError(
            f"{name} must have {size} columns, one for each unit, got shape {tuple(states.shape)}; give "
            f"states (..., {size})."
        )
    if not states.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {states.dtype}; type {name}.float().")
    bad = ~torch.isfinite(states.reshape(-1, size)).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} has {int(bad.sum())} of {len(bad)} states with NaN or infinity (first at row "
            f"{int(bad.int().argmax())}); drop them."
        )
    _check_dtype(dynamics, states, name)
    return states


def state_set(dynamics: Dynamics, hidden: Any, name: str = "start") -> Tensor:
    """Any number of states (..., H) as a set (N, H).

    Raises:
        ValueError: As :func:`as_states`, and if there is none.
    """
    states = as_states(dynamics, hidden, name).reshape(-1, dynamics.state_size)
    if len(states) == 0:
        raise ValueError(f"{name} holds no state; give at least one, (start, {dynamics.state_size}).")
    return states


def as_input(dynamics: Dynamics, input: Any, like: Tensor) -> Tensor | None:
    """A constant input as a tensor (..., X), the map's own where none is given.

    Args:
        dynamics: The system.
        input: Tensor or array (..., X), or ``None``.
        like: Tensor that gives dtype and device.

    Raises:
        ValueError: If the system takes no input, or the shape does not fit.
    """
    own = dynamics.input if isinstance(dynamics, MapDynamics) else None
    input = own if input is None else input
    if input is None:
        return None
    size = dynamics.input_size if isinstance(dynamics, MapDynamics) else 0
    if size == 0:
        raise ValueError("input= was given, but these dynamics take no input; leave it out.")
    found = torch.as_tensor(np.asarray(input) if not isinstance(input, Tensor) else input).detach().to(like)
    if found.ndim == 0 or found.shape[-1] != size:
        raise ValueError(f"input must have {size} columns, got shape {tuple(found.shape)}.")
    if not bool(torch.isfinite(found).all()):
        raise ValueError("input holds NaN or infinity; give finite numbers.")
    return found


def zero_state(dynamics: Dynamics) -> Tensor:
    """A state of zeros (H,) in the precision and on the device in which a system computes.

    Raises:
        ValueError: If it accepts zeros in neither float32 nor float64.
    """
    check_dynamics(dynamics)
    return zeros_for(_undriven(dynamics), dynamics.state_size)


def _undriven(dynamics: Dynamics) -> Callable[[Tensor], Tensor]:
    """The first step of a map without input; the velocity of a flow at time 0."""
    if isinstance(dynamics, MapDynamics):
        first = dynamics.at(0)
        return lambda h: first.step(h, None)
    drift = dynamics.drift
    return lambda h: drift(h, 0.0)


def _check_dtype(dynamics: Dynamics, states: Tensor, name: str) -> None:
    """Find out by one step whether the system computes in the precision of the states."""
    function, probe = _undriven(dynamics), states.reshape(-1, dynamics.state_size)[:1]
    if computes_in(function, probe):
        return
    other = torch.float32 if states.dtype == torch.float64 else torch.float64
    if not computes_in(function, probe.to(other)):
        function(probe)  # what is wrong is not the precision: let it say so itself
    raise ValueError(
        f"{name} is {states.dtype}, but the dynamics compute in another precision; convert it: "
        f"{name}.to({other})."
    )
