"""Scores of an ensemble cell by cell, on plain arrays.

Draws ``x`` have shape (S, ...) and are sorted along the first axis where the argument is called ``ordered``;
truth ``y`` has shape (...). Nothing here knows of labels or masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "QUANTILE_LEVELS",
    "ensemble_crps",
    "ensemble_energy",
    "interval",
    "order_statistic",
    "quantile_losses",
    "randomised_pit",
]

QUANTILE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_ENERGY_ELEMENTS = 500_000  # pairwise differences held at once: 4 MB, which stay in the cache


def order_statistic(ordered: np.ndarray, level: float) -> np.ndarray:
    """Return the sample quantile at ``level``: entry round((S-1)·level) of S sorted draws, half to even."""
    return ordered[int(np.round((len(ordered) - 1) * level))]


def interval(ordered: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the central interval: entries k and S-1-k, k = round((S-1)(1-level)/2).

    The upper rank mirrors the lower one, so that rounding never tilts the interval.
    """
    last = len(ordered) - 1
    # (1 - 0.8) / 2 is 0.09999999999999998: without the inner rounding a tie would depend on such noise.
    rank = int(np.round(np.round(last * (1 - level) / 2, 9)))
    return ordered[rank], ordered[last - rank]


def quantile_losses(ordered: np.ndarray, truth: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return twice the pinball loss at each level, |2 (f_q - y)(1[y <= f_q] - q)|: (Q, ...)."""
    losses = np.empty((len(levels), *truth.shape))
    for out, level in zip(losses, levels, strict=True):
        quantile = order_statistic(ordered, level)
        out[...] = 2 * np.abs((quantile - truth) * ((truth <= quantile) - level))
    return losses


def randomised_pit(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return u = (#{x < y} + V (1 + #{x = y})) / (S + 1) with V uniform: (...), uniform if calibrated.

    The rank of the truth among S draws is uniform when all S + 1 values are exchangeable; V breaks ties,
    which counts are full of, and fills the steps between ranks.
    """
    below, tied = (draws < truth).sum(axis=0), (draws == truth).sum(axis=0)
    return (below + rng.random(truth.shape) * (1 + tied)) / (len(draws) + 1)


def ensemble_crps(ordered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return E|X - y| - E|X - X'| / 2 under the empirical law of the draws: (...), units of the draws."""
    import scoringrules

    return scoringrules.crps_ensemble(
        truth, ordered, m_axis=0, estimator="qd", sorted_ensemble=True, backend="numpy"
    )


def ensemble_energy(draws: np.ndarray, truth: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return E‖X - y‖ - E‖X - X'‖ / 2, norms over the observed cells of each row.

    Args:
        draws: Sample vectors, (S, M, D).
        truth: Observed vectors, (M, D).
        observed: Cells that enter the norms, (M, D), bool.

    Returns:
        One score a row, (M,), NaN where nothing is observed.
    """
    import scoringrules

    scores = np.full(len(truth), np.nan)
    rows = np.flatnonzero(observed.any(axis=1))
    # A cell that is 0 on both sides adds nothing to any norm.
    x, y = (np.where(observed[rows], values[..., rows, :], 0.0) for values in (draws, truth))
    step = max(1, _ENERGY_ELEMENTS // (len(draws) ** 2 * truth.shape[1]))
    for i in range(0, len(rows), step):
        block = slice(i, i + step)
        scores[rows[block]] = scoringrules.es_ensemble(y[block], x[:, block], m_axis=0, backend="numpy")
    return scores
