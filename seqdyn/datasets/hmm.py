r"""Families of hidden Markov models with known statistics, and the published presets.

========  ==========================================  ====================  =========
preset    states and transitions                      emission              num_steps
========  ==========================================  ====================  =========
default   chain of 3, stay 0.95                       gaussian              150
two       chain of 2, crossing probability 0.05       linear                100
three     chain of 3, crossing probability 0.05       linear                30
four      chain of 4, crossing probability 0.05       linear                30
five      chain of 5, crossing probability 0.05       linear                40
fully     3 fully connected, stay 0.95                triangular            30
cyclic    ring of 4, stay 0.95                        cyclic                40
========  ==========================================  ====================  =========

All start in any state with equal probability and show 3 symbols.

Source: Torre et al. (2025), arXiv 2510.25674, for families and presets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from seqdyn._arguments import check_count
from seqdyn.inference.checks import Values
from seqdyn.inference.hmm import HMM

__all__ = [
    "HMM",
    "PRESETS",
    "Preset",
    "cyclic",
    "cyclic_emission",
    "fully_connected",
    "gaussian_emission",
    "linear_chain",
    "linear_emission",
    "preset",
    "triangular_emission",
]


def linear_chain(
    num_states: int,
    crossing_probability: float = 0.05,
    *,
    stay_probability: float | None = None,
    emission: Values | None = None,
) -> HMM:
    r"""States in a row; each step stays or moves to a neighbour.

    By the crossing probability p, to walk straight from one end to the other in M - 1 steps: every neighbour
    is entered with probability :math:`q = p^{1/(M-1)}`, so that inner states stay with 1 - 2q. By the
    ``stay_probability`` s: every state stays with s and leaves to its neighbours in equal parts.

    Args:
        num_states: Number M of states, at least 2.
        crossing_probability: p; not used where ``stay_probability`` is given.
        stay_probability: s.
        emission: Rows are laws of the symbol in each state, (M, K); :func:`linear_emission` by default.

    Raises:
        ValueError: If an inner state would stay with a negative probability, as for six states and p = 0.05.
    """
    size = _at_least(num_states, 2)
    next_door = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) == 1
    if stay_probability is None:
        if not 0 < crossing_probability <= 1:
            raise ValueError(
                f"crossing_probability must lie above 0 and not above 1, got {crossing_probability}."
            )
        step = crossing_probability ** (1 / (size - 1))
        if size > 2 and step > 0.5:
            raise ValueError(
                f"crossing {size} states with probability {crossing_probability:g} needs steps of "
                f"probability {step:.4g} to each of two neighbours, more than 1 together; lower "
                f"crossing_probability below {0.5 ** (size - 1):.4g}, or give stay_probability=0.95 instead."
            )
        transition = step * next_door
    else:
        leave = 1 - _probability(stay_probability)
        transition = leave * next_door / next_door.sum(axis=1, keepdims=True)
    np.fill_diagonal(transition, 1 - transition.sum(axis=1))
    return _uniform_start(transition, linear_emission(size) if emission is None else emission)


def fully_connected(
    num_states: int, stay_probability: float = 0.95, *, emission: Values | None = None
) -> HMM:
    """Each step stays, or moves to any other state with equal probability.

    Args:
        num_states: Number M of states, at least 2.
        stay_probability: Probability to stay.
        emission: (M, K); :func:`triangular_emission` by default.

    Raises:
        ValueError: If an argument is out of range.
    """
    size = _at_least(num_states, 2)
    stay = _probability(stay_probability)
    transition = np.full((size, size), (1 - stay) / (size - 1))
    np.fill_diagonal(transition, stay)
    return _uniform_start(transition, triangular_emission(size) if emission is None else emission)


def cyclic(num_states: int, stay_probability: float = 0.95, *, emission: Values | None = None) -> HMM:
    """States on a ring; each step stays or moves to one of the two neighbours with equal probability.

    Args:
        num_states: Number M of states, at least 3.
        stay_probability: Probability to stay.
        emission: (M, K); :func:`cyclic_emission` by default for four states, else
            :func:`triangular_emission`.

    Raises:
        ValueError: If an argument is out of range.
    """
    size = _at_least(num_states, 3)
    stay = _probability(stay_probability)
    eye = np.eye(size)
    ring = np.roll(eye, 1, axis=1) + np.roll(eye, -1, axis=1)
    if emission is None:
        emission = cyclic_emission() if size == 4 else triangular_emission(size)
    return _uniform_start(stay * eye + (1 - stay) / 2 * ring, emission)


def linear_emission(num_states: int, num_symbols: int = 3) -> np.ndarray:
    """From the first symbol to the last: row i of three symbols is [0.99(1-a), 0.01, 0.99a], a = i/(M-1).

    For other numbers of symbols the row is evenly spaced from 0.99(1-a) to 0.99a, divided by its sum: evenly
    spaced values alone sum to one for two symbols only up to 1 %.

    Raises:
        ValueError: If there are fewer than two states or symbols.
    """
    a = np.linspace(0, 1, _at_least(num_states, 2))
    symbols = check_count(num_symbols, "num_symbols", least=2)
    if symbols == 3:
        return np.stack([0.99 * (1 - a), np.full_like(a, 0.01), 0.99 * a], axis=1)
    rows = np.linspace(0.99 * (1 - a), 0.99 * a, symbols, axis=1)
    return rows / rows.sum(axis=1, keepdims=True)


def gaussian_emission(num_states: int, num_symbols: int = 3) -> np.ndarray:
    r"""Bumps: with centres c_i evenly spaced on [0, K-1], row i ∝ exp(-0.2 (|j - c_i| / (0.1 (K-1)))²).

    Raises:
        ValueError: If there are fewer than two states or symbols.
    """
    symbols = check_count(num_symbols, "num_symbols", least=2)
    centres = np.linspace(0, symbols - 1, _at_least(num_states, 2))
    distance = np.abs(np.arange(symbols) - centres[:, None]) / (0.1 * (symbols - 1))
    rows = np.exp(-0.2 * (distance**2 - (distance**2).min(axis=1, keepdims=True)))
    return rows / rows.sum(axis=1, keepdims=True)


def triangular_emission(num_states: int, error_probability: float = 0.02) -> np.ndarray:
    """One symbol for each state: shown with 1 - ε, every other with ε/(M-1).

    Raises:
        ValueError: If there are fewer than two states or ε is no probability.
    """
    size = _at_least(num_states, 2)
    error = _probability(error_probability, "error_probability")
    rows = np.full((size, size), error / (size - 1))
    np.fill_diagonal(rows, 1 - error)
    return rows


def cyclic_emission() -> np.ndarray:
    """Four states and three symbols, the middle one shared by two states."""
    return np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.0, 0.9, 0.1]])


class Preset(NamedTuple):
    """A published model.

    Attributes:
        build: Returns the model.
        num_steps: Length T of its training sequences.
    """

    build: Callable[[], HMM]
    num_steps: int


PRESETS: dict[str, Preset] = {
    "default": Preset(lambda: linear_chain(3, stay_probability=0.95, emission=gaussian_emission(3)), 150),
    "two": Preset(partial(linear_chain, 2), 100),
    "three": Preset(partial(linear_chain, 3), 30),
    "four": Preset(partial(linear_chain, 4), 30),
    "five": Preset(partial(linear_chain, 5), 40),
    "fully": Preset(partial(fully_connected, 3), 30),
    "cyclic": Preset(partial(cyclic, 4), 40),
}


def preset(name: str) -> HMM:
    """The model of a preset; ``PRESETS[name].num_steps`` is the length of its sequences.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose from {', '.join(PRESETS)}.")
    return PRESETS[name].build()


def _uniform_start(transition: np.ndarray, emission: Values) -> HMM:
    return HMM(np.full(len(transition), 1 / len(transition)), transition, emission)


def _at_least(num_states: int, least: int) -> int:
    return check_count(num_states, "num_states", least=least, hint="type for instance num_states=3")


def _probability(value: float, name: str = "stay_probability") -> float:
    if not 0 <= value <= 1:
        raise ValueError(
            f"{name} must be a probability from 0 to 1, got {value}; type for instance {name}=0.95."
        )
    return value
