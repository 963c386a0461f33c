"""Checks of clouds and weights in NumPy, and the distances between their points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["as_array", "as_cloud", "as_pair", "as_weights", "squared_distances"]

_LARGEST = 1e150  # beyond it squares overflow


def as_array(values: Any, name: str) -> np.ndarray:
    """Return numbers as a float64 array; tensors come from any device, without their graph.

    Raises:
        ValueError: If they are no real numbers.
    """
    if hasattr(values, "detach"):
        values = values.detach().double().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must hold real numbers, got dtype {array.dtype}; type np.asarray({name}, dtype=float)."
        )
    return array.astype(np.float64)


def as_cloud(points: Any, name: str) -> np.ndarray:
    """Return a cloud as a float64 array (N, C).

    Raises:
        ValueError: If it is no finite array with one row per particle.
    """
    cloud = as_array(points, name)
    if cloud.ndim != 2 or 0 in cloud.shape:
        raise ValueError(
            f"{name} must have shape (particles, features), both at least 1, got {cloud.shape}; an empty "
            f"cloud has no distance, and numbers of one feature are {name}[:, None]."
        )
    # Written so that NaN is not within.
    bad = ~(np.abs(cloud) <= _LARGEST).all(axis=1)
    if bad.any():
        where = int(bad.argmax())
        raise ValueError(
            f"{name} has {bad.sum()} of {len(bad)} particles with NaN, infinity or a number beyond "
            f"{_LARGEST:g} (first at {name}[{where}]: {cloud[where].tolist()}); drop them with "
            f"{name}[np.isfinite({name}).all(axis=1)], or change the unit."
        )
    return cloud


def as_pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two clouds (N, C) and (M, C).

    Raises:
        ValueError: If one is no cloud, or their features differ.
    """
    x, y = as_cloud(x, "x"), as_cloud(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same features, got {x.shape[1]} and {y.shape[1]}; both are (particles, "
            "features), so look at x.shape and y.shape."
        )
    return x, y


def as_weights(weights: Any, count: int, name: str, *, sum_to_one: bool = False) -> np.ndarray:
    """Return ``count`` weights with the sum 1; equal ones for ``None``.

    Args:
        weights: Non-negative numbers, one per particle.
        count: Number of particles.
        name: The argument's name.
        sum_to_one: Refuse weights whose sum is not 1 up to rounding, instead of dividing by it.

    Raises:
        ValueError: If they are not finite, not negative, of this number, and positive somewhere.
    """
    if weights is None:
        return np.full(count, 1 / count)
    found = as_array(weights, name)
    if found.shape != (count,):
        raise ValueError(
            f"{name} must have shape ({count},), one weight per particle, got {found.shape}; leave it out "
            "for equal weights."
        )
    bad = ~((found >= 0) & (found <= _LARGEST))
    if bad.any():
        where = int(bad.argmax())
        raise ValueError(
            f"{name} must be finite and not negative, got {found[where]:g} at {name}[{where}]; type "
            f"np.clip({name}, 0, None) if that is rounding."
        )
    total = math.fsum(found)  # the same in any order of the particles, and then so is every weight
    if total == 0:
        raise ValueError(f"{name} are all 0, so that nothing is left; leave {name} out for equal weights.")
    if sum_to_one and abs(total - 1) > 1e-5:
        raise ValueError(f"{name} must sum to 1, got {total:.10g}; type {name} / {name}.sum().")
    return found / total


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (N, M), from differences, so that a point is at 0 from itself exactly."""
    from scipy.spatial.distance import cdist

    return cdist(x, y, "sqeuclidean")
