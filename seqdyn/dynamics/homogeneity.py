"""Whether a system scales with what drives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqdyn.dynamics.arguments import Dynamics, as_input
from seqdyn.dynamics.maps import MapDynamics

__all__ = ["is_homogeneous"]


@torch.no_grad()
def is_homogeneous(dynamics: Dynamics, like: Tensor, input: Any = None) -> bool:
    """Whether F(c h, c u) = c F(h, u) for c > 0: rectifiers without biases, linear maps.

    Decided on random states and inputs: the two sides are equal to the last bit for c = 2.

    Args:
        dynamics: The system; flows and maps with a schedule do not scale.
        like: Tensor that gives dtype and device.
        input: Constant input (..., X) in force, the map's own by default. One that is not zero breaks it.
    """
    if not isinstance(dynamics, MapDynamics) or dynamics.schedule is not None:
        return False
    constant = as_input(dynamics, input, like)
    if constant is not None and bool(constant.any()):
        return False
    generator = torch.Generator(device=like.device).manual_seed(0)

    def draw(size: int) -> Tensor:
        return torch.randn(16, size, generator=generator, dtype=like.dtype, device=like.device)

    h, u = draw(dynamics.state_size), draw(dynamics.input_size) if dynamics.input_size else None
    once, twice = dynamics.step(h, u), dynamics.step(2 * h, None if u is None else 2 * u)
    return bool((twice == 2 * once).all())
