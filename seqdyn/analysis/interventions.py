r"""Interventions: another dynamics object in which some units are silenced, clamped, rescaled or driven.

In an additive network the four are parts of one step,

.. math::
    z = c_{rec} \odot W h + c_{in} \odot U x + b + I, \qquad h = \phi(z), \qquad h_i \leftarrow v_i,

and they can be combined by applying one after the other; what is done last acts last. Each may be limited to
the steps from ``start`` to before ``stop``. The result then has a schedule: ``dynamics.at(t)`` is the map of
step t, and roll-outs follow it.

The gains multiply *rows* of the Jacobian, :math:`\mathrm{diag}(\phi'(z)\, c_{rec})\, W`. (The published code
multiplies columns.)

Source: Torre et al. (2025), arXiv 2510.25674.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn.analysis.units import Units, unit_indices
from seqdyn.dynamics.arguments import check_map
from seqdyn.dynamics.maps import Activation, MapDynamics, Overwritten, Step, activation_of, example, scheduled

__all__ = ["clamp", "perturb", "scale", "silence"]

Values = float | Sequence[float] | np.ndarray | Tensor


def silence(
    dynamics: MapDynamics, units: Units, *, start: int | None = None, stop: int | None = None
) -> MapDynamics:
    """Set the activity of units to 0 after each step.

    Args:
        dynamics: A map.
        units: Index or indices of units, or a truth value for each unit of the map.
        start: First step of the intervention, from 0; ``None`` for the beginning.
        stop: Step before which it ends; ``None`` for never.

    Returns:
        The map with the units silenced.

    Raises:
        ValueError: If an argument does not fit the map.
    """
    return clamp(dynamics, units, 0.0, start=start, stop=stop)


def clamp(
    dynamics: MapDynamics, units: Units, value: Values, *, start: int | None = None, stop: int | None = None
) -> MapDynamics:
    """Set the activity of units to a value after each step.

    Args:
        dynamics: A map.
        units: Index or indices of units, or a truth value for each unit of the map.
        value: One value, or one for each of the units.
        start: First step of the intervention, from 0; ``None`` for the beginning.
        stop: Step before which it ends; ``None`` for never.

    Returns:
        The map with the units clamped.

    Raises:
        ValueError: If an argument does not fit the map.
    """
    mask = _mask(dynamics, units)
    values = _spread(dynamics, units, value, "value")

    def change(base: MapDynamics) -> MapDynamics:
        def step(h: Tensor, u: Tensor | None) -> Tensor:
            return _where(mask, values.to(h), base.step(h, u))

        known = _known(base)
        if known is None:
            return replace(base, step=step, preactivation=None, activation=None)
        drive, activation = known
        return replace(base, step=step, preactivation=drive, activation=Overwritten(activation, mask, values))

    return scheduled(dynamics, change, start, stop)


def scale(
    dynamics: MapDynamics,
    units: Units,
    recurrent: float = 1.0,
    inputs: float = 1.0,
    *,
    start: int | None = None,
    stop: int | None = None,
) -> MapDynamics:
    r"""Multiply what units receive from the network and from the inputs.

    The units take the value that ``step(recurrent * h, inputs * u)`` has there. With an additive drive that
    is :math:`\phi(c_{rec} W h + c_{in} U x + b)`; biases and currents are not scaled. In a gated cell
    it means that the units see a scaled network and scaled inputs, their own memory included.

    Args:
        dynamics: A map.
        units: Index or indices of units, or a truth value for each unit of the map.
        recurrent: Gain of the recurrent drive.
        inputs: Gain of the input drive.
        start: First step of the intervention, from 0; ``None`` for the beginning.
        stop: Step before which it ends; ``None`` for never.

    Returns:
        The map with the gains.

    Raises:
        ValueError: If an argument does not fit the map.
    """
    mask = _mask(dynamics, units)
    for name, gain in (("recurrent", recurrent), ("inputs", inputs)):
        if not (isinstance(gain, Real) and np.isfinite(gain)):
            raise ValueError(f"{name} must be one finite gain, got {gain!r}; 1.0 changes nothing.")

    def at_units(function: Step) -> Step:
        def scaled(h: Tensor, u: Tensor | None) -> Tensor:
            changed = function(recurrent * h, None if u is None else inputs * u)
            return _where(mask, changed, function(h, u))

        return scaled

    def change(base: MapDynamics) -> MapDynamics:
        drive = base.preactivation
        return replace(
            base, step=at_units(base.step), preactivation=None if drive is None else at_units(drive)
        )

    return scheduled(dynamics, change, start, stop)


def perturb(
    dynamics: MapDynamics, units: Units, current: Values, *, start: int | None = None, stop: int | None = None
) -> MapDynamics:
    """Add a constant current to the drive of units, before the nonlinearity.

    Args:
        dynamics: A map with a preactivation.
        units: Index or indices of units, or a truth value for each unit of the map.
        current: One current, or one for each of the units.
        start: First step of the intervention, from 0; ``None`` for the beginning.
        stop: Step before which it ends; ``None`` for never.

    Returns:
        The map with the current.

    Raises:
        ValueError: If an argument does not fit the map, or it has no preactivation.
    """
    _mask(dynamics, units)
    currents = _spread(dynamics, units, current, "current")

    def change(base: MapDynamics) -> MapDynamics:
        drive, activation = activation_of(base, example(base))

        def driven(h: Tensor, u: Tensor | None) -> Tensor:
            return drive(h, u) + currents.to(h)

        return replace(
            base, step=lambda h, u: activation(driven(h, u)), preactivation=driven, activation=activation
        )

    if dynamics.schedule is None:
        change(dynamics)  # speaks up now, not at the first step, if there is no drive
    return scheduled(dynamics, change, start, stop)


def _known(base: MapDynamics) -> tuple[Step, Activation] | None:
    """Drive and nonlinearity, where the map tells them."""
    if base.preactivation is None:
        return None
    try:
        return activation_of(base, example(base))
    except ValueError:
        return None


def _indices(dynamics: Any, units: Units) -> list[int]:
    check_map(dynamics)
    return [int(unit) for unit in unit_indices(units, dynamics.state_size)]


def _mask(dynamics: MapDynamics, units: Units) -> Tensor:
    indices = _indices(dynamics, units)
    mask = torch.zeros(dynamics.state_size, dtype=torch.bool)
    mask[indices] = True
    return mask


def _spread(dynamics: MapDynamics, units: Units, value: Values, name: str) -> Tensor:
    """One value for every unit of the map: the given ones at ``units``, 0 elsewhere."""
    indices = _indices(dynamics, units)
    given = torch.as_tensor(value, dtype=torch.float64)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(indices)) or not bool(given.isfinite().all()):
        raise ValueError(
            f"{name} must be one finite number, or one for each of {len(indices)} units, got {value!r}."
        )
    spread = torch.zeros(dynamics.state_size, dtype=torch.float64)
    spread[indices] = given
    return spread


def _where(mask: Tensor, changed: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(mask.to(otherwise.device), changed, otherwise)
