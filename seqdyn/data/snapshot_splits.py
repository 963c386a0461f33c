"""Setting snapshots aside: by their time, or every second one.

Snapshots are found by the value of their time, never by their place among the particles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from seqdyn.data.names import PARTICLE, TIME
from seqdyn.data.schema import check_snapshots

__all__ = ["split_alternate", "split_snapshots"]


def split_alternate(data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Split snapshots into the first, third, fifth, ... and the second, fourth, ..., by order of time.

    Args:
        data: Snapshots at three or more times.

    Returns:
        Those to fit and those held out.

    Raises:
        ValueError: If there are fewer than three, which leaves only one to fit.
    """
    check_snapshots(data)
    times = np.unique(data[TIME].values)
    if len(times) < 3:
        raise ValueError(
            f"there are snapshots at {len(times)} times only, {times.tolist()}; to fit needs two and one is "
            "held out."
        )
    return split_snapshots(data, times[1::2])


def split_snapshots(
    data: xr.Dataset, held_out: float | Sequence[float] | np.ndarray
) -> tuple[xr.Dataset, xr.Dataset]:
    """Hold out the snapshots at the given times.

    Args:
        data: Snapshots.
        held_out: One time or several, in the units of the data.

    Returns:
        The other snapshots, and those held out, each with its particles in the order of the data.

    Raises:
        ValueError: If there is no snapshot at one of the times, or fewer than two would be left.
    """
    check_snapshots(data)
    times = np.unique(data[TIME].values)
    wanted = np.unique(np.asarray(held_out, dtype=float))
    # Times such as 3 * 0.1 and 0.3 are one: they differ by rounding, in the precision of the data.
    precision = np.finfo(times.dtype if times.dtype.kind == "f" else float).eps
    near = np.abs(wanted[:, None] - times) <= 8 * precision * np.abs(times).max()
    missing = wanted[~near.any(axis=1)]
    if len(missing) > 0:
        raise ValueError(f"there is no snapshot at time {missing[0]:g}; the times are {times.tolist()}.")
    chosen = near.any(axis=0)
    if (~chosen).sum() < 2:
        raise ValueError(
            f"holding out {chosen.sum()} of {len(times)} snapshots leaves {(~chosen).sum()} to fit, and two "
            "are needed; hold out fewer."
        )
    mask = np.isin(data[TIME].values, times[chosen])
    return data.isel({PARTICLE: ~mask}), data.isel({PARTICLE: mask})
