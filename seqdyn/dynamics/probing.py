"""Precision and device of a function of states, found out by calling it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vjp, vmap

__all__ = ["check_derivative", "check_readout", "computes_in", "zeros_for"]

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


def check_derivative(function: Callable[[Tensor], Tensor], like: Tensor) -> None:
    """Check that a function of rows (N, D) has the derivative that torch says it has.

    At eight random states, vᵀ J w from torch is compared with the difference of two values. A function that
    is detached, switches gradients off or is random fails; a few kinks do not matter.

    Args:
        function: The function.
        like: Row (D,) that gives dtype and device.

    Raises:
        ValueError: If it has another derivative, is not finite, or torch cannot take its derivative.
    """
    generator = torch.Generator(device=like.device).manual_seed(0)

    def draw(size: int) -> Tensor:
        return torch.randn(8, size, generator=generator, dtype=like.dtype, device=like.device)

    h, w = draw(len(like)), draw(len(like))
    size = 1e-6 if like.dtype == torch.float64 else 1e-3
    with torch.no_grad():
        v = draw(function(h).shape[1])
        differences = ((function(h + size * w) - function(h - size * w)) / (2 * size) * v).sum(dim=1)
    if not bool(torch.isfinite(differences).all()):
        raise ValueError(
            "step is not finite at random states and inputs of size 1; write it so that it takes any state."
        )
    try:
        gradient = vmap(lambda h, v: vjp(lambda x: function(x[None])[0], h)[1](v)[0])(h, v)
    except RuntimeError as error:
        raise ValueError(
            f"torch cannot differentiate step over a batch of states: {error}. Write it with torch "
            "operations that neither branch on values, nor work in place, nor draw random numbers."
        ) from error
    found = (gradient.detach() * w).sum(dim=1)
    if float((found - differences).norm()) > 0.1 * float(differences.norm()) + 1e-3:
        raise ValueError(
            "the derivative of step, as torch takes it, is not that of its values: every Jacobian would be "
            "wrong. Remove torch.no_grad() and .detach() from it, and anything random, such as dropout."
        )


@torch.no_grad()
def check_readout(readout: Callable[[Tensor], Tensor], like: Tensor) -> None:
    """Check that a readout turns states (..., H) into outputs (..., K).

    Args:
        readout: The function.
        like: State (H,) that gives dtype and device.

    Raises:
        ValueError: If it does not.
    """
    size = len(like)
    try:
        outputs = readout(like.expand(2, size))
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"readout failed on a batch of two states (2, {size}) in {like.dtype}: {error}. It must turn "
            f"states (..., {size}) into outputs (..., K)."
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"readout must turn states (..., {size}) into outputs (..., K), but turned (2, {size}) into "
            f"{shape}; a single output is h @ w[:, None]."
        )


@torch.no_grad()
def _reason(function: Callable[[Tensor], Tensor], states: Tensor) -> str:
    try:
        return f"it returns {function(states).dtype} for {states.dtype}"
    except RuntimeError as error:
        return str(error)
