"""Checks of points, weights and settings at the boundary of the package."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_pair", "check_points", "check_positive", "check_weights"]

DTYPES = (torch.float32, torch.float64)


def check_points(points: Any, name: str) -> None:
    """Check a set of points, (N, D).

    Raises:
        ValueError: If it is no finite float32 or float64 tensor with one row per point.
    """
    if not isinstance(points, Tensor):
        raise ValueError(
            f"{name} must be a tensor, got {type(points).__name__}; type torch.as_tensor({name})."
        )
    if points.dtype not in DTYPES:
        raise ValueError(f"{name} must be float32 or float64, got {points.dtype}; type {name}.float().")
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(
            f"{name} must have shape (points, coordinates), both at least 1, got {tuple(points.shape)}; type "
            f"{name}.flatten(1) for sequences, {name}[:, None] for numbers."
        )
    finite = torch.isfinite(points.detach()).all(dim=1)
    if not bool(finite.all()):
        where = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name} has {int((~finite).sum())} of {len(points)} points with NaN or infinity (first at "
            f"{name}[{where}]); drop them with {name}[{name}.isfinite().all(dim=1)]."
        )


def check_pair(x: Tensor, y: Tensor) -> None:
    """Check that two sets of points are comparable.

    Raises:
        ValueError: If coordinates, dtypes or devices differ.
    """
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same coordinates, got {x.shape[1]} and {y.shape[1]}; both are (points, "
            "coordinates), so look at x.shape and y.shape."
        )
    if x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            f"x and y must agree, got {x.dtype} on {x.device} and {y.dtype} on {y.device}; type y = y.to(x)."
        )


def check_weights(weights: Any, points: Tensor, name: str) -> Tensor:
    """Return weights in the dtype of the points; uniform ones for ``None``.

    What rounding left of their sum is divided out.

    Raises:
        ValueError: If they are not one non-negative number per point, with the sum 1.
    """
    if weights is None:
        return points.new_full((len(points),), 1 / len(points))
    if not isinstance(weights, Tensor) or weights.shape != (len(points),):
        found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(
            f"{name} must be a tensor of shape ({len(points)},), one weight per point, got {found}; leave it "
            "out for equal weights."
        )
    if weights.device != points.device:
        raise ValueError(
            f"{name} is on {weights.device}, the points on {points.device}; type {name}.to(points.device)."
        )
    values = weights.detach().double()
    valid = torch.isfinite(values) & (values >= 0)
    if not bool(valid.all()):
        where = int((~valid).nonzero()[0])
        raise ValueError(
            f"{name} must be finite and not negative, got {float(values[where]):g} at {name}[{where}]; type "
            f"{name}.clamp(min=0) if that is rounding."
        )
    total = float(values.sum())
    if abs(total - 1) > (1e-9 if weights.dtype == torch.float64 else 1e-5):
        raise ValueError(f"{name} must sum to 1, got {total:.10g}; type {name} / {name}.sum().")
    return (values / total).to(points.dtype)


def check_positive(value: Any, name: str, hint: str) -> float:
    """Return a positive finite number as a float.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}; {hint}.")
    return float(value)
