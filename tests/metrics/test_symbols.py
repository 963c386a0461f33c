"""Statistics of discrete sequences."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from seqdyn.datasets import hmm as processes
from seqdyn.metrics import symbols

ROWS = np.array([[0, 0, 1, 2, 2, 2, 0, 1], [1, 1, -1, 1, 0, 0, 0, 2]])


def test_frequencies_leave_missing_symbols_out() -> None:
    np.testing.assert_allclose(symbols.frequencies(ROWS, 4), np.array([6, 5, 4, 0]) / 15)


def test_transitions_count_pairs_of_neighbours_that_are_both_there() -> None:
    found = symbols.transitions(ROWS, 4)

    np.testing.assert_allclose(found[0], np.array([3, 2, 1, 0]) / 6)
    np.testing.assert_allclose(found[1], np.array([1, 1, 1, 0]) / 3)
    np.testing.assert_allclose(found[2], np.array([1, 0, 2, 0]) / 3)
    assert np.isnan(found[3]).all()


def test_joint_frequencies_at_a_lag() -> None:
    found = symbols.joint_frequencies(ROWS[:1], 3, lag=3)

    expected = np.zeros((3, 3))
    for a, b in ((0, 2), (0, 2), (1, 2), (2, 0), (2, 1)):
        expected[a, b] += 1 / 5
    np.testing.assert_allclose(found, expected)


def test_volatility_counts_changes() -> None:
    assert symbols.volatility(ROWS).tolist() == [4, 2]


def test_dwell_times_leave_out_runs_whose_ends_are_not_seen() -> None:
    found = symbols.dwell_times(ROWS, 3)

    assert [one.tolist() for one in found] == [[1, 3], [1], [3]]


def test_words_are_in_lexical_order() -> None:
    found = symbols.word_frequencies(ROWS, 3, 2)

    np.testing.assert_allclose(found.reshape(3, 3), symbols.joint_frequencies(ROWS, 3))
    assert symbols.word_frequencies(ROWS, 3, 3)[0 * 9 + 0 * 3 + 1] == pytest.approx(1 / 9)


def test_long_samples_of_a_known_process_show_its_statistics() -> None:
    # 200 000 pairs: standard error of a share below 0.0012 in rows of frequent symbols.
    hmm = processes.preset("three")
    data = hmm.sequences(2000, 101, seed=0)

    statistics = hmm.output_statistics(3)

    np.testing.assert_allclose(symbols.joint_frequencies(data, 3, 3), statistics.joint[2], atol=0.006)
    np.testing.assert_allclose(
        symbols.transitions(data, 3)[[0, 2]], statistics.transition[[0, 2]], atol=0.006
    )
    assert symbols.volatility(data).mean() == pytest.approx(statistics.num_changes(101), rel=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3, dtype=int), r"shape \(series, time\), got int64 of shape \(3,\)"),
        (np.zeros((2, 3)), "whole numbers of shape"),
        (np.full((2, 3), 3), "between 0 and 2 .* got 3 to 3"),
        (xr.Dataset({"state": (("series", "time"), np.zeros((2, 3), dtype=int))}), "found \\['state'\\]"),
    ],
)
def test_other_input_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symbols.frequencies(values, 3)
