"""Changes of the emitted symbol in long noise-driven runs.

The symbol of a state is the largest output of the readout, ``"argmax"``, or a draw from their softmax,
``"sampled"``. Only the second depends on the size of the noise where the map is homogeneous (a rectifier
without biases): there scaling the noise scales the outputs and leaves their order alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

import numpy as np
from torch import Tensor

from seqdyn.analysis.runs import outputs_of
from seqdyn.dynamics.arguments import check_dynamics, check_unscheduled, zero_state
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.symbols import SymbolKind

__all__ = ["Switches", "check_driven", "switches_of"]


class Switches(NamedTuple):
    """Changes of symbol, in the order of chains and times; all (E,).

    Attributes:
        chain: In which chain.
        time: First time with the new symbol.
        before: The symbol left.
        after: The symbol reached.
        dwell_before: Steps spent in the symbol left; at the start of a chain, those that were seen.
        dwell_after: Steps spent in the symbol reached; at the end of a chain, those that were seen.
    """

    chain: np.ndarray
    time: np.ndarray
    before: np.ndarray
    after: np.ndarray
    dwell_before: np.ndarray
    dwell_after: np.ndarray


def check_driven(dynamics: Any, *, symbol: str = "argmax", sigma: float = 1.0) -> MapDynamics:
    """Check that a system is one fixed map, driven by noise, with at least two outputs.

    Raises:
        ValueError: If it is not, or an option is unknown.
    """
    check_dynamics(dynamics)
    if not isinstance(dynamics, MapDynamics):
        raise ValueError(
            "symbols and their switches need a map, got FlowDynamics; wrap one step of it as a map."
        )
    check_unscheduled(dynamics)
    outputs = outputs_of(dynamics, zero_state(dynamics)[None])
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "symbols are the largest of two outputs or more, but the readout turns a state into "
            f"{tuple(outputs.shape[1:])}; a single output y is lambda h: torch.stack([-y(h), y(h)], dim=-1)."
        )
    if dynamics.input_size == 0:
        raise ValueError(
            "these dynamics take no input, so that no noise can drive them; give input_size > 0."
        )
    if symbol not in get_args(SymbolKind):
        raise ValueError(f"symbol must be 'argmax' or 'sampled', got {symbol!r}.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive standard deviation of the noise, got {sigma!r}.")
    return dynamics


def switches_of(symbol: Tensor) -> Switches:
    """All changes of symbol in chains (N, T)."""
    values = symbol.cpu().numpy()
    chain, time = np.nonzero(values[:, 1:] != values[:, :-1])
    time = time + 1
    # A chain's first switch looks back to the chain's start, its last one forward to the chain's end.
    first, last = np.diff(chain, prepend=-1) != 0, np.diff(chain, append=-1) != 0
    before = time - np.where(first, 0, np.roll(time, 1))
    after = np.where(last, values.shape[1], np.roll(time, -1)) - time
    return Switches(chain, time, values[chain, time - 1], values[chain, time], before, after)
