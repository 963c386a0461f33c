"""One ridge regression over the scaled windows of many series, and its errors on time it has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["WindowRegression", "fill_forward", "fit_window_regression"]

_NUM_BLOCKS = 5  # of time; the errors in each come from a fit to the others
_MAX_RESIDUALS = 2000


class WindowRegression(NamedTuple):
    """A linear map from K past to P future steps, both divided by the mean absolute value of the past.

    Attributes:
        weights: (K, P).
        intercept: (P,).
        residuals: Errors of single windows, (R, P, C), in units of each window's scale; 0 for a feature whose
            past is zero throughout.
    """

    weights: np.ndarray
    intercept: np.ndarray
    residuals: np.ndarray

    def predict(self, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Continue windows without missing values.

        Args:
            past: Values (M, K, C).

        Returns:
            Scaled prediction (M, P, C), and the scale (M, 1, C) that multiplies it, 0 for a past of zeros.
        """
        scaled, scale = _scaled(past)
        # One memory order whatever the weights were read from: products then round alike after a reload.
        return _predict(scaled, np.ascontiguousarray(np.vstack([self.weights, self.intercept]))), scale


def fill_forward(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Replace each missing value by the last observed one before it, the first ones by the first observed
    one.

    Args:
        values: (M, T, C).
        observed: Mask (M, T, C).

    Returns:
        Values (M, T, C); 0 where a series never observes a feature.
    """
    step = np.where(observed, np.arange(values.shape[1])[:, None], 0)
    source = np.maximum(np.maximum.accumulate(step, axis=1), observed.argmax(axis=1, keepdims=True))
    filled = np.take_along_axis(values, source, axis=1)
    return np.where(observed.any(axis=1, keepdims=True), filled, 0.0)


def fit_window_regression(
    values: np.ndarray, observed: np.ndarray, context_length: int, prediction_length: int, penalty: float
) -> WindowRegression:
    """Fit all windows of all series and features at once.

    A window counts if its past observes every feature somewhere and its future observes them everywhere.

    Args:
        values: (M, T, C); anything where missing.
        observed: Mask (M, T, C).
        context_length: K.
        prediction_length: P.
        penalty: λ on the squared weights; the intercept is free.

    Raises:
        ValueError: If no window counts.
    """
    filled = fill_forward(values, observed)
    usable = _usable(observed, context_length, prediction_length)  # (M, number of starts)
    if not usable.any():
        raise ValueError(
            f"no window of {context_length} + {prediction_length} steps has a complete future in the "
            f"{values.shape[1]} steps of the data; use a smaller context_length or prediction_length, give "
            "more "
            "data, or fill short gaps before fitting."
        )
    windows = sliding_window_view(filled, context_length + prediction_length, axis=1)  # (M, starts, C, K + P)
    block = np.arange(usable.shape[1]) * _NUM_BLOCKS // usable.shape[1]  # of each start
    gram, cross = _normal_equations(windows, usable, block, context_length)
    total = gram.sum(axis=0), cross.sum(axis=0)
    coefficients = _solve(*total, penalty)
    picked = _spread(np.argwhere(usable))
    residuals = []
    for b in range(_NUM_BLOCKS):
        rest = total[0] - gram[b], total[1] - cross[b]
        others = _solve(*rest, penalty) if rest[0][-1, -1] > 0 else coefficients
        series, start = picked[block[picked[:, 1]] == b].T
        past, future, scale = _split(windows[series, start], context_length)
        residuals.append(np.where(scale > 0, future - _predict(past, others), 0.0))
    return WindowRegression(coefficients[:-1], coefficients[-1], np.concatenate(residuals))


def _usable(observed: np.ndarray, context_length: int, prediction_length: int) -> np.ndarray:
    """Return which windows count, (M, number of starts)."""
    num_starts = observed.shape[1] - context_length - prediction_length + 1
    if num_starts < 1:
        return np.zeros((len(observed), 0), dtype=bool)
    count = np.pad(observed.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))  # before each step
    ends = np.arange(num_starts) + context_length
    past = count[:, ends] - count[:, :num_starts]
    future = count[:, ends + prediction_length] - count[:, ends]
    return ((past > 0) & (future == prediction_length)).all(axis=2)


def _normal_equations(
    windows: np.ndarray, usable: np.ndarray, block: np.ndarray, context_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sum products of inputs, (block, K+1, K+1), and of inputs and outputs, (block, K+1, P).

    The last input is the constant 1, so that the last entry of a block's first matrix counts its windows.
    """
    prediction_length = windows.shape[-1] - context_length
    gram = np.zeros((_NUM_BLOCKS, context_length + 1, context_length + 1))
    cross = np.zeros((_NUM_BLOCKS, context_length + 1, prediction_length))
    for i, b in np.ndindex(len(windows), _NUM_BLOCKS):
        past, future, scale = _split(windows[i, usable[i] & (block == b)], context_length)
        counts = scale[:, 0] > 0  # (number of windows, C)
        inputs, outputs = (part.swapaxes(1, 2)[counts] for part in (past, future))
        inputs = np.pad(inputs, ((0, 0), (0, 1)), constant_values=1.0)
        gram[b] += inputs.T @ inputs
        cross[b] += inputs.T @ outputs
    return gram, cross


def _split(windows: np.ndarray, context_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut windows (n, C, K+P) into scaled past (n, K, C) and future (n, P, C), and their scale (n, 1, C)."""
    windows = windows.swapaxes(1, 2)
    past, scale = _scaled(windows[:, :context_length])
    return past, windows[:, context_length:] / np.where(scale > 0, scale, 1.0), scale


def _scaled(past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(past).mean(axis=1, keepdims=True)
    return past / np.where(scale > 0, scale, 1.0), scale


def _predict(past: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Map (n, K, C) to (n, P, C)."""
    return (past.swapaxes(1, 2) @ coefficients[:-1] + coefficients[-1]).swapaxes(1, 2)


def _solve(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    """Return weights and, in the last row, intercept, (K+1, P)."""
    if gram[-1, -1] == 0:
        return np.zeros_like(cross)  # every past is zero, and so is its forecast
    ridge = np.full(len(gram), penalty)
    ridge[-1] = 0.0
    return scipy.linalg.solve(gram + np.diag(ridge), cross, assume_a="pos")


def _spread(rows: np.ndarray) -> np.ndarray:
    """Take at most so many rows, evenly spaced."""
    if len(rows) <= _MAX_RESIDUALS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _MAX_RESIDUALS).round().astype(int)]
