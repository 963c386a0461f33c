"""Series that the numbers of another library were made with."""

from __future__ import annotations

import numpy as np
import pytest


def padded(rows: list[np.ndarray]) -> np.ndarray:
    x = np.full((len(rows), max(map(len, rows)), rows[0].shape[1]), np.nan)
    for series, row in zip(x, rows, strict=True):
        series[: len(row)] = row
    return x


@pytest.fixture
def lengths() -> list[int]:
    return [60, 41, 25]


@pytest.fixture
def curves(lengths: list[int]) -> np.ndarray:
    """Three series of two smooth features, (3, 60, 2), NaN after their ends."""
    rows = []
    for shift, n in enumerate(lengths):
        t = np.arange(n)
        steps = np.where((t // 7 + shift) % 2, 2.0, 0.0) + 0.4 * np.sin(1.9 * t + shift)
        rows.append(np.stack([np.sin(0.31 * t + shift) + 0.3 * np.cos(2.7 * t), steps], axis=1))
    return padded(rows)


@pytest.fixture
def counts(lengths: list[int]) -> np.ndarray:
    """Three series of two counts, (3, 60, 2), NaN after their ends."""
    rows = []
    for shift, n in enumerate(lengths):
        t = np.arange(n)
        rows.append(np.stack([(7 * t + shift) % 5 + 6 * ((t // 9 + shift) % 2), (3 * t) % 4], axis=1))
    return padded(rows)


def sticky(num_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform start; stay with 0.9, share the rest."""
    transition = np.full((num_states, num_states), 0.1 / (num_states - 1))
    np.fill_diagonal(transition, 0.9)
    return np.full(num_states, 1 / num_states), transition


@pytest.fixture(name="sticky")
def sticky_fixture() -> object:
    return sticky
