"""Where series begin and end."""

from __future__ import annotations

import numpy as np

from seqdyn.data.spans import spans


def test_a_span_reaches_from_the_first_to_behind_the_last_observed_step() -> None:
    observed = np.array([[0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=bool)

    start, end = spans(observed)

    assert start.tolist() == [1, 0, 0, 4] and end.tolist() == [4, 5, 0, 5]


def test_features_have_spans_of_their_own() -> None:
    observed = np.zeros((1, 4, 2), dtype=bool)
    observed[0, 1:3, 0] = observed[0, :2, 1] = True

    start, end = spans(observed)

    assert start.tolist() == [[1, 0]] and end.tolist() == [[3, 2]]
