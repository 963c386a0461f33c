"""The volatility of a process: a number, one number per coordinate, or a matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["noise_covariance", "volatility_matrix", "volatility_vector"]

_SHAPES = "one number per feature, or a matrix (feature, feature)"


def volatility_matrix(volatility: Any, num_features: int, like: Tensor | None = None) -> Tensor:
    r"""Volatility as a matrix σ (C, C), so that the noise is :math:`\sigma\, dW`.

    Args:
        volatility: A number, (C,) or (C, C), per square root of time.
        num_features: Number of coordinates C.
        like: Tensor that gives dtype and device; float64 on the CPU by default.

    Raises:
        ValueError: If it has another shape, is negative where it may not be, or not finite.
    """
    value = _tensor(volatility).to(device=None if like is None else like.device)
    size = num_features
    if tuple(value.shape) not in {(), (size,), (size, size)}:
        raise ValueError(
            f"volatility must be a number, {_SHAPES}, with {size} features, got shape {tuple(value.shape)}."
        )
    if not bool(torch.isfinite(value).all()) or (value.ndim < 2 and bool((value < 0).any())):
        raise ValueError(f"volatility must be finite and not negative, got {value.tolist()}.")
    matrix = value if value.ndim == 2 else torch.diag(value.expand(size))
    return matrix if like is None else matrix.to(like.dtype)


def noise_covariance(volatility: Any, num_features: int, like: Tensor | None = None) -> Tensor:
    r"""Covariance :math:`S = \sigma \sigma^\top` (C, C) of the noise per unit of time."""
    matrix = volatility_matrix(volatility, num_features, like)
    return matrix @ matrix.mT


def volatility_vector(volatility: Any) -> Tensor:
    """Volatility of independent noises as a float64 tensor: a number () or one number per coordinate (C,).

    Raises:
        ValueError: If it is a matrix or no number, negative or not finite.
    """
    value = _tensor(volatility)
    if value.ndim > 1:
        raise ValueError(
            "proportional noise acts on every feature by itself: volatility must be a number or one number "
            f"per feature, got shape {tuple(value.shape)}; pass the diagonal of the matrix."
        )
    if not bool(torch.isfinite(value).all()) or bool((value < 0).any()):
        raise ValueError(f"volatility must be finite and not negative, got {value.tolist()}.")
    return value.detach().clone()


def _tensor(volatility: Any) -> Tensor:
    try:
        return torch.as_tensor(volatility, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"volatility must be a number, {_SHAPES}, got {volatility!r}.") from error
