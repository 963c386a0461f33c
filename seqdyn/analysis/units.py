"""Which units a caller means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["Units", "unit_indices"]

Units = Any  # an index, a list or array of them, or one truth value for each unit


def unit_indices(units: Units, size: int) -> np.ndarray:
    """Indices of units (n,), in the order given.

    Args:
        units: Index or indices; or a truth value for each unit, such as
            ``kicks.is_kick.sel(direction="0->2")``.
        size: Number of units H.

    Raises:
        ValueError: If they are no whole numbers, not units of the system, or repeated.
    """
    found = np.atleast_1d(units.cpu().numpy() if isinstance(units, torch.Tensor) else np.asarray(units))
    if found.size == 0:
        return np.zeros(0, dtype=np.int64)
    if found.dtype.kind == "b" and found.shape == (size,):
        return np.flatnonzero(found)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"units must be whole numbers, such as [3, 7], or {size} truth values, got {found.dtype} of "
            f"shape {found.shape}."
        )
    bad = [int(unit) for unit in found if not 0 <= unit < size]
    if bad or len(np.unique(found)) < len(found):
        what = f"unit {bad[0]}" if bad else "a unit twice"
        raise ValueError(f"units must be different numbers from 0 to {size - 1}, got {what}.")
    return found.astype(np.int64)
