"""Where series begin and end."""

from __future__ import annotations

import numpy as np

__all__ = ["spans"]


def spans(observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First observed step, and the one after the last, along the second axis.

    Args:
        observed: Mask, (M, T) or (M, T, C).

    Returns:
        Starts and ends, each (M,) or (M, C); both 0 where nothing is observed.
    """
    found: np.ndarray = np.any(observed, axis=1)
    start = observed.argmax(axis=1)
    end = observed.shape[1] - observed[:, ::-1].argmax(axis=1)
    return np.where(found, start, 0), np.where(found, end, 0)
