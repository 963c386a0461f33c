"""Stretches cut out of sequences, and windows that cover the gaps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data.tiles import cover_gaps, cut, last_steps, to_tensors


@pytest.mark.parametrize("start", range(-4, 7))
@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_cut_holds_the_steps_of_the_series_and_zero_outside(start: int, length: int) -> None:
    values = torch.arange(1.0, 13.0).view(2, 3, 2)  # (M, T, C), no zero inside

    piece = cut(values, start, start + length)

    for i, step in enumerate(range(start, start + length)):
        expected = values[:, step] if 0 <= step < 3 else torch.zeros(2, 2)
        assert torch.equal(piece[:, i], expected)
    assert piece.shape == (2, length, 2)


def test_a_cut_of_a_mask_is_a_mask_and_one_series_can_be_cut_alone() -> None:
    mask = torch.ones(3, 1, dtype=torch.bool)

    piece = cut(mask, -1, 4)

    assert piece.dtype == torch.bool
    assert piece[:, 0].tolist() == [False, True, True, True, False]


def test_tensors_are_zero_where_missing_whatever_stands_there() -> None:
    values = np.array([[[1.0], [np.nan], [1e300], [4.0]]])
    observed = np.array([[True, False, False, True]])
    data = xr.Dataset(
        {"target": (("series", "time", "feature"), values), "observed": (("series", "time"), observed)},
        {"series": ["a"], "time": range(4), "feature": ["y"]},
    )

    target, mask = to_tensors(data, torch.float32)

    assert target.dtype == torch.float32 and mask.dtype == torch.bool
    assert target[0, :, 0].tolist() == [1.0, 0.0, 0.0, 4.0]
    assert mask[0, :, 0].tolist() == [True, False, False, True]


def holes(series: int = 1, steps: int = 20, features: int = 1, *cells: tuple[int, ...]) -> np.ndarray:
    observed = np.ones((series, steps, features), dtype=bool)
    for cell in cells:
        observed[cell] = False
    return observed


def test_without_gaps_there_is_nothing_to_cover() -> None:
    assert cover_gaps(holes(2, 20, 2), 6) == []


def test_a_late_begin_and_an_early_end_are_no_gaps() -> None:
    observed = holes()
    observed[0, :4] = observed[0, 15:] = False

    assert cover_gaps(observed, 6) == []


def test_a_series_that_is_missing_throughout_is_left_out() -> None:
    observed = holes(2, 20, 1, (1, 9))
    observed[0] = False

    assert [tile.series for tile in cover_gaps(observed, 6)] == [1]


def test_one_missing_feature_is_a_gap() -> None:
    tiles = cover_gaps(holes(1, 20, 2, (0, 9, 1)), 6)

    assert len(tiles) == 1 and tiles[0].first <= 9 < tiles[0].stop


def test_a_series_shorter_than_a_window_lies_at_its_end() -> None:
    # The model sees the history's end where it does in a forecast; what is before the series is unobserved.
    assert cover_gaps(holes(1, 5, 1, (0, 2)), 8) == [(0, -3, 0, 5, -3)]


def test_a_series_as_long_as_a_window_is_one_window() -> None:
    assert cover_gaps(holes(1, 8, 1, (0, 2)), 8) == [(0, 0, 0, 8, 0)]


def test_a_gap_in_the_middle_of_a_long_series_needs_one_window() -> None:
    tiles = cover_gaps(holes(1, 1000, 1, (0, 500)), 20)

    assert len(tiles) == 1
    assert tiles[0].start + 5 <= 500 < tiles[0].start + 15  # in the middle half


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("steps", [1, 7, 8, 9, 40])
@pytest.mark.parametrize("share", [0.2, 0.8, 0.97])
def test_every_missing_step_is_answered_for_once_by_the_window_in_whose_middle_it_lies(
    length: int, steps: int, share: float
) -> None:
    observed = np.random.default_rng(steps * 100 + length).random((30, steps, 2)) < share

    tiles = cover_gaps(observed, length)

    answered = np.zeros((30, steps), dtype=int)
    for series, start, first, stop, offset in tiles:
        begin, *_, end = np.flatnonzero(observed[series].any(axis=1)).tolist() * 2
        last = end + 1 - begin - length
        offsets = {*range(0, last, max(1, length // 2)), last} if last > 0 else {last}
        starts = [begin + other for other in offsets]
        assert offset in offsets and start == begin + offset
        assert start <= first < stop <= start + length
        assert not observed[series, first:stop].all()
        answered[series, first:stop] += 1
        for step in range(first, stop):
            middle = abs(step + 0.5 - start - length / 2)
            assert middle <= min(abs(step + 0.5 - other - length / 2) for other in starts) + 1e-9
    for series, mask in enumerate(observed):
        present = np.flatnonzero(mask.any(axis=1))
        if len(present):
            inside = slice(present[0], present[-1] + 1)
            assert (answered[series, inside][~mask[inside].all(axis=1)] == 1).all()
            assert answered[series, : present[0]].sum() == answered[series, present[-1] + 1 :].sum() == 0
        assert answered[series].max() <= 1


def test_neighbouring_windows_overlap_by_half_and_the_last_ends_with_the_series() -> None:
    observed = np.ones((1, 33, 1), dtype=bool)
    observed[0, 1:-1] = False

    tiles = cover_gaps(observed, 8)

    starts = [tile.start for tile in tiles]
    assert starts[0] == 0 and starts[-1] == 33 - 8
    assert all(0 < later - earlier <= 4 for earlier, later in pairwise(starts))
    assert [tile.first for tile in tiles[1:]] == [tile.stop for tile in tiles[:-1]]


def test_the_windows_of_a_series_do_not_depend_on_the_others() -> None:
    observed = holes(1, 20, 1, (0, 9))
    longer = np.zeros((2, 33, 1), dtype=bool)
    longer[0, 5:25], longer[1] = observed[0], True

    (alone,), (together,) = cover_gaps(observed, 6), cover_gaps(longer, 6)

    assert together.offset == alone.offset
    assert together[1:4] == tuple(step + 5 for step in alone[1:4])


def steps_of(
    observed: list[list[int]], length: int, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """``last_steps`` of one series whose value is its step number; features are columns."""
    mask = torch.tensor(observed, dtype=torch.bool).t()[None]
    target = torch.arange(1.0, mask.shape[1] + 1)[None, :, None].expand(mask.shape).contiguous()
    found, seen = last_steps(target, mask, length, stop)
    return found[0].t().numpy(), seen[0].t().numpy()


def test_the_last_steps_end_where_each_feature_does() -> None:
    found, seen = steps_of([[1, 1, 1, 1, 0, 1], [1, 1, 0, 1, 0, 0]], 3)

    assert found.tolist() == [[4, 5, 6], [2, 3, 4]]
    assert seen.tolist() == [[True, False, True], [True, False, True]]


def test_before_the_beginning_nothing_is_seen() -> None:
    found, seen = steps_of([[1, 1, 0]], 4)

    assert seen.tolist() == [[False, False, True, True]]
    assert found[0, 2:].tolist() == [1, 2]


def test_the_last_steps_before_one_are_the_first_where_none_of_those_is_seen() -> None:
    before, none = steps_of([[1, 1, 0, 0, 1, 1]], 2, stop=4), steps_of([[0, 0, 0, 0, 1, 1]], 3, stop=4)

    assert before[0].tolist() == [[1, 2]] and before[1].all()
    assert none[0][0, :2].tolist() == [5, 6] and none[1].tolist() == [[True, True, False]]


def test_a_feature_that_is_never_observed_has_no_last_steps() -> None:
    assert not steps_of([[0, 0, 0, 0]], 3)[1].any()
