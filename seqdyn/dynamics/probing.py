"""Precision and device of a function of states, found out by calling it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["computes_in", "zeros_for"]

PRECISIONS = (torch.float32, torch.float64)


@torch.no_grad()
def computes_in(function: Callable[[Tensor], Tensor], states: Tensor) -> bool:
    """Whether a function takes states (N, H) and keeps their precision."""
    try:
        return function(states).dtype == states.dtype
    except RuntimeError:  # torch says in many ways that weights lie elsewhere or have another precision
        return False


def zeros_for(function: Callable[[Tensor], Tensor], state_size: int) -> Tensor:
    """Zeros (H,) in the precision and on the device in which a function of states (N, H) computes.

    Raises:
        ValueError: If it takes zeros in neither float32 nor float64, on no device.
    """
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for dtype in PRECISIONS:
            h = torch.zeros(state_size, dtype=dtype, device=device)
            if computes_in(function, h[None]):
                return h
    raise ValueError(
        f"the step accepts a state of {state_size} zeros neither in float32 nor in float64: "
        f"{_reason(function, torch.zeros(1, state_size))}."
    )


@torch.no_grad()
def _reason(function: Callable[[Tensor], Tensor], states: Tensor) -> str:
    try:
        return f"it returns {function(states).dtype} for {states.dtype}"
    except RuntimeError as error:
        return str(error)
