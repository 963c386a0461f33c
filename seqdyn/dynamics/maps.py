"""Systems in discrete time: a step, a readout, and what is known of the drive.

A map that changes with time (an intervention between two steps) is still described by pure functions:
``schedule(t)`` gives the map in force at step ``t``, and :meth:`MapDynamics.at` asks it. Roll-outs go through
``at``; questions that make sense for one fixed map only, such as fixed points, refuse a scheduled one and say
how to pick a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.dynamics.probing import check_derivative, check_readout, zeros_for

__all__ = [
    "Activation",
    "MapDynamics",
    "Overwritten",
    "activation_of",
    "drive_of",
    "example",
    "from_callable",
    "scheduled",
]

Step = Callable[[Tensor, Tensor | None], Tensor]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapDynamics:
    r"""A system in discrete time, :math:`h_{t+1} = F(h_t, u_t)`.

    Attributes:
        step: ``step(h, u)`` of the state (..., H) and the input (..., X), or ``None`` for no input; returns
            the next state (..., H). Pure: no state of its own, no randomness.
        readout: From the state (..., H) to outputs (..., K), such as logits; ``None`` if there are none.
        state_size: Number of units H.
        input_size: Number of inputs X; 0 for an autonomous map.
        preactivation: ``preactivation(h, u)``, the drive (..., H) before the nonlinearity.
        input: Constant input (X,) that every tool uses where it is given none; ``None`` for no input.
        activation: The nonlinearity, with ``step(h, u) == activation(preactivation(h, u))``. May be left out
            where it is the rectifier, the hyperbolic tangent or the identity: these are recognised.
        schedule: ``schedule(t)`` gives the map in force at step ``t`` (0 is the first); ``None`` for a map
            that does not change.
    """

    step: Step
    readout: Callable[[Tensor], Tensor] | None
    state_size: int
    input_size: int
    preactivation: Step | None = None
    input: Tensor | None = None
    activation: Activation | None = None
    schedule: Callable[[int], MapDynamics] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_count(self.state_size, "state_size")
        check_count(self.input_size, "input_size", least=0)
        if self.input is not None and not isinstance(self.input, Tensor):
            raise ValueError(f"input must be a tensor, got {type(self.input).__name__}; torch.tensor(input).")
        if self.input is not None and tuple(self.input.shape) != (self.input_size,):
            raise ValueError(
                f"input must hold one value for each of the {self.input_size} inputs, got shape "
                f"{tuple(self.input.shape)}; give a batch of inputs to the tool instead: input=batch."
            )

    def at(self, step: int) -> MapDynamics:
        """The map in force at a step: itself, unless it has a schedule."""
        return self if self.schedule is None else self.schedule(step)


@dataclass(frozen=True)
class Overwritten:
    """A nonlinearity after which some units are set to fixed values.

    Attributes:
        base: The nonlinearity itself.
        mask: Which units are overwritten, (H,) bool.
        value: Their values, (H,); only those under the mask count.
    """

    base: Activation
    mask: Tensor
    value: Tensor

    def __call__(self, drive: Tensor) -> Tensor:
        return torch.where(self.mask.to(drive.device), self.value.to(drive), self.base(drive))


def from_callable(
    step: Callable[..., Tensor],
    state_size: int,
    input_size: int = 0,
    readout: Callable[[Tensor], Tensor] | None = None,
    *,
    preactivation: Callable[..., Tensor] | None = None,
    activation: Activation | None = None,
    input: Tensor | None = None,
) -> MapDynamics:
    """Any function as a dynamics object.

    Args:
        step: ``step(h)`` without inputs, ``step(h, u)`` with them: differentiable torch operations, none in
            place and no branching on values, from a state (..., H) and an input (..., X) to the
            next state (..., H). Where there is no input, it is called with zeros.
        state_size: Number of units H.
        input_size: Number of inputs X.
        readout: From the state to outputs.
        preactivation: The drive before the nonlinearity, with the arguments of ``step``.
        activation: The nonlinearity.
        input: Constant input (X,).

    Returns:
        The dynamics object.

    Raises:
        ValueError: If ``step`` does not take batches of states, does not return states of their size, or has
            another derivative than its values say: under ``torch.no_grad()``, detached, or random; or if
            ``readout`` does not return outputs.
    """
    dynamics = MapDynamics(
        step=_over_batches(step, input_size),
        readout=readout,
        state_size=state_size,
        input_size=input_size,
        preactivation=None if preactivation is None else _over_batches(preactivation, input_size),
        input=input,
        activation=activation,
    )
    _check_step(dynamics, readout)
    return dynamics


def example(dynamics: MapDynamics) -> Tensor:
    """A state of zeros (H,) in the precision and on the device in which a map computes.

    Raises:
        ValueError: If the map accepts zeros in neither float32 nor float64.
    """
    return zeros_for(lambda h: dynamics.at(0).step(h, None), dynamics.state_size)


def drive_of(dynamics: MapDynamics) -> Step:
    """The drive of a map before its nonlinearity, a function of state and input.

    Raises:
        ValueError: If the map does not tell it.
    """
    if dynamics.preactivation is None:
        raise ValueError(
            "these dynamics have no preactivation: the drive before the nonlinearity is needed here. Give it "
            "as MapDynamics(..., preactivation=lambda h, u: ...); gated cells (GRU, LSTM) have none."
        )
    return dynamics.preactivation


def activation_of(dynamics: MapDynamics, like: Tensor) -> tuple[Step, Activation]:
    """The drive and the nonlinearity of a map.

    Args:
        dynamics: The map.
        like: Tensor that gives dtype and device of the states on which the nonlinearity is recognised.

    Raises:
        ValueError: If the map has no drive, or its nonlinearity is neither given nor recognised.
    """
    preactivation = drive_of(dynamics)
    if dynamics.activation is not None:
        return preactivation, dynamics.activation
    generator = torch.Generator(device=like.device).manual_seed(0)
    size = (64, dynamics.state_size)
    h = 2 * torch.randn(size, generator=generator, dtype=like.dtype, device=like.device)
    with torch.no_grad():
        drive, after = preactivation(h, None), dynamics.step(h, None)
    for known in (torch.relu, torch.tanh, torch.clone):
        if torch.allclose(known(drive), after):
            return preactivation, known
    raise ValueError(
        "the nonlinearity between preactivation and step is not the rectifier, tanh or the identity; name "
        "it: dataclasses.replace(dynamics, activation=torch.sigmoid)."
    )


def scheduled(
    dynamics: MapDynamics, change: Callable[[MapDynamics], MapDynamics], start: int | None, stop: int | None
) -> MapDynamics:
    """A map changed in the steps from ``start`` to before ``stop``; always, where both are ``None``.

    Raises:
        ValueError: If the steps are no whole numbers with 0 <= start < stop.
    """
    first = 0 if start is None else check_count(start, "start", least=0)
    if stop is not None:
        check_count(stop, "stop", least=first + 1, hint="an intervention ends after it starts")
    if first == 0 and stop is None and dynamics.schedule is None:
        return change(dynamics)

    known: list[tuple[MapDynamics, MapDynamics]] = []  # each map is changed once

    def changed(base: MapDynamics) -> MapDynamics:
        for one, other in known:
            if one is base:
                return other
        known.append((base, change(base)))
        return known[-1][1]

    if dynamics.schedule is None:
        changed(dynamics)  # what does not fit is said now

    def schedule(step: int) -> MapDynamics:
        now = dynamics.at(step)
        return changed(now) if first <= step and (stop is None or step < stop) else now

    return replace(dynamics, step=_refuse, preactivation=None, activation=None, schedule=schedule)


def _refuse(h: Tensor, u: Tensor | None) -> Tensor:
    raise ValueError(
        "these dynamics change with time, by an intervention with start= or stop=: ask for one map, "
        "dynamics.at(0), or roll them out with seqdyn.dynamics.simulate."
    )


def _over_batches(function: Callable[..., Any], input_size: int) -> Step:
    """A user's function of states (N, H) and inputs (N, X) for any leading dims; zeros for no input."""

    def call(h: Tensor, u: Tensor | None) -> Tensor:
        rows: tuple[Tensor, ...] = (h,)
        lead = h.shape[:-1]
        if input_size > 0:
            rows = (h, h.new_zeros(input_size) if u is None else u)
            lead = torch.broadcast_shapes(lead, rows[1].shape[:-1])
        count = math.prod(lead)
        out = function(*(row.expand(*lead, row.shape[-1]).reshape(count, row.shape[-1]) for row in rows))
        return out if out.ndim != 2 else out.reshape(*lead, out.shape[-1])

    return call


def _of_all(step: Step, size: int) -> Activation:
    """A step as one function of state and input side by side, (..., H + X)."""
    return lambda both: step(both[..., :size], both[..., size:] if both.shape[-1] > size else None)


def _check_activation(dynamics: MapDynamics, zero: Tensor) -> None:
    """Check that a step is its nonlinearity of its drive."""
    assert dynamics.preactivation is not None and dynamics.activation is not None
    generator = torch.Generator(device=zero.device).manual_seed(0)
    h = torch.randn(8, len(zero), generator=generator, dtype=zero.dtype, device=zero.device)
    with torch.no_grad():
        expected = dynamics.activation(dynamics.preactivation(h, None))
        if not torch.allclose(expected, dynamics.step(h, None), rtol=1e-4):
            raise ValueError("step(h, u) is not activation(preactivation(h, u)): mend one of the three.")


def _check_step(dynamics: MapDynamics, readout: Callable[[Tensor], Tensor] | None) -> None:
    """Check that a user's function takes batches of states, keeps their shape and has a derivative."""
    size = dynamics.state_size
    takes = f"h (..., {size})" + (f" and u (..., {dynamics.input_size})" if dynamics.input_size else "")
    try:
        zero = example(dynamics)
        with torch.no_grad():
            found = dynamics.step(zero.expand(2, size), None)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"step failed on a batch of two states: {type(error).__name__}: {error}. It must take {takes}, "
            "tensors, and return the next states."
        ) from error
    if found.shape != (2, size):
        raise ValueError(
            f"step must return the next state of shape (..., {size}), but turned (2, {size}) into "
            f"{tuple(found.shape)}; write it for batches of states."
        )
    check_derivative(_of_all(dynamics.step, size), zero.new_zeros(size + dynamics.input_size))
    if dynamics.preactivation is not None and dynamics.activation is not None:
        _check_activation(dynamics, zero)
    if readout is not None:
        check_readout(readout, zero)
