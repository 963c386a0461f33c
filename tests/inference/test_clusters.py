"""The k-means start."""

from __future__ import annotations

import numpy as np
import pytest

from seqdyn.inference.clusters import clusters


@pytest.mark.parametrize("seed", range(5))
def test_clear_groups_are_found_whatever_the_units_and_the_seed(seed: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 30)
    x = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])[truth] + rng.normal(size=(90, 2))

    labels = clusters(x * [1e-6, 1e6], 3, np.random.default_rng(seed))

    groups = {tuple(np.unique(labels[truth == k])) for k in range(3)}
    assert len(groups) == 3 and all(len(group) == 1 for group in groups)


@pytest.mark.parametrize("seed", range(20))
def test_no_cluster_is_empty_even_with_as_many_as_different_rows(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(8, 2))

    labels = clusters(np.concatenate([rows, rows]), 8, np.random.default_rng(seed))

    assert np.array_equal(np.unique(labels), np.arange(8)) and np.array_equal(labels[:8], labels[8:])
