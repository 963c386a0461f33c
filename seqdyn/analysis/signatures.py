"""What single units do around a switch of the symbol: traces, regional means, foresight.

The drive of a unit is its activity before the nonlinearity. ``drive[:, t]`` produced the state at time t.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqdyn.analysis.events import Switches
from seqdyn.analysis.runs import Run
from seqdyn.dynamics.maps import MapDynamics, drive_of

__all__ = ["Direction", "auc", "contrast", "directions_of", "drives_of", "triggered_mean"]

_EDGE = 3  # steps at either end of the shortest dwell that count as deep inside it


class Direction(NamedTuple):
    """An ordered pair of symbols with switches from the first to the second."""

    before: int
    after: int

    @property
    def label(self) -> str:
        return f"{self.before}->{self.after}"


def directions_of(switches: Switches, least: int) -> list[Direction]:
    """Ordered pairs of symbols with at least so many switches, most frequent symbols in order."""
    pairs, counts = np.unique(np.stack([switches.before, switches.after]), axis=1, return_counts=True)
    return [Direction(int(a), int(b)) for a, b, count in zip(*pairs, counts, strict=True) if count >= least]


@torch.no_grad()
def drives_of(dynamics: MapDynamics, run: Run) -> Tensor:
    """Drives (N, T + 1, H) of a run, aligned with its states; NaN at time 0, whose drive is not known."""
    drive = drive_of(dynamics)(run.hidden[:, :-1], run.noise)
    return torch.cat([torch.full_like(drive[:, :1], torch.nan), drive], dim=1)


def triggered_mean(
    drive: np.ndarray, switches: Switches, direction: Direction, lags: np.ndarray, min_dwell: int
) -> tuple[np.ndarray, int]:
    """Mean drive (H, L) at each lag around the switches of a direction, and their number.

    Lag 0 is the first step in the new symbol. Only switches with ``min_dwell`` steps in the symbol on both
    sides count, and of each only the lags at which the chain was in the two symbols.
    """
    chosen = (switches.before == direction.before) & (switches.after == direction.after)
    chosen &= (switches.dwell_before >= min_dwell) & (switches.dwell_after >= min_dwell)
    chain, time = switches.chain[chosen], switches.time[chosen]
    before, after = switches.dwell_before[chosen], switches.dwell_after[chosen]
    means = np.full((drive.shape[2], len(lags)), np.nan)
    for at, lag in enumerate(lags):
        # Time 0 of a chain has no drive.
        inside = (lag >= -before) & (lag < after) & (time + lag > 0)
        if inside.any():
            means[:, at] = drive[chain[inside], time[inside] + lag].mean(axis=0)
    return means, int(chosen.sum())


def contrast(means: np.ndarray, lags: np.ndarray, spread: np.ndarray, min_dwell: int) -> np.ndarray:
    """How far the drive (H, L) rises at a switch above both symbols' own levels, in sd, (H,).

    The highest mean within two steps of the switch, less the higher of the levels deep in the two dwells. A
    unit that belongs to one of the symbols is high in its dwell too, and has none.
    """
    near = means[:, (lags >= -2) & (lags <= 2)].max(axis=1)
    earlier = means[:, (lags >= -min_dwell) & (lags < -min_dwell + _EDGE)].mean(axis=1)
    later = means[:, (lags >= min_dwell - _EDGE) & (lags < min_dwell)].mean(axis=1)
    return (near - np.maximum(earlier, later)) / spread


def auc(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Probability that a column of ``values`` (S, H) is larger where positive than where negative, (H,).

    Args:
        values: Scores.
        positive: Weight of each row as a positive, (S,).
        negative: Weight of each row as a negative, (S,).

    Returns:
        Area under the curve, ties one half; NaN where either weight is 0 altogether.
    """
    total = positive.sum() * negative.sum()
    if total == 0:
        return np.full(values.shape[1], np.nan)
    out = np.empty(values.shape[1])
    for unit, column in enumerate(values.T):
        _, place = np.unique(column, return_inverse=True)
        above, below = (np.bincount(place, weights=weight) for weight in (positive, negative))
        out[unit] = (above * (np.cumsum(below) - below / 2)).sum() / total
    return out
