"""Spec check D13: the scenarios RM, BM-B and BM-E hide what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from seqdyn.data import check_sequences, hide_context, observed_mask
from seqdyn.nn.scalers import MeanScaler
from seqdyn.rng import fork_rng

STEPS, CONTEXT = 40, 12


def make_data(
    series: tuple[Any, ...] = ("a", "b", "c"), features: int = 2, dtype: Any = np.float32
) -> xr.Dataset:
    values = 1 + np.arange(len(series) * STEPS * features).reshape(len(series), STEPS, features)
    time = pd.date_range("2024-01-01", periods=STEPS, freq="h")
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values.astype(dtype), {"units": "MW"})},
        {
            "series": list(series),
            "time": ("time", time, {"freq": "h"}),
            "feature": [f"f{c}" for c in range(features)],
        },
    )


def hidden_steps(data: xr.Dataset, series: Any) -> list[int]:
    """Steps of one series that are missing, which must be the same in all features."""
    missing = ~observed_mask(data.sel(series=[series]))[0]
    assert (missing == missing[:, :1]).all()
    return np.flatnonzero(missing[:, 0]).tolist()


# The context is the steps 28 to 39.
@pytest.mark.parametrize("count", [1, 5, None, CONTEXT])
@pytest.mark.parametrize("scenario", ["RM", "BM-B", "BM-E"])
def test_d13_the_scenario_hides_its_steps_of_the_context_and_nothing_else(
    scenario: str, count: int | None
) -> None:
    data = make_data()
    n = 6 if count is None else count

    hidden = hide_context(data, scenario, context_length=CONTEXT, num_hidden=count, seed=1)

    expected = {"BM-B": list(range(28, 28 + n)), "BM-E": list(range(40 - n, 40))}
    for label in "abc":
        steps = hidden_steps(hidden, label)
        assert len(steps) == n and steps[0] >= 28
        assert steps == expected.get(scenario, steps)
    kept = observed_mask(hidden)
    np.testing.assert_array_equal(hidden.target.values[kept], data.target.values[kept])
    assert np.isnan(hidden.target.values[~kept]).all()


@pytest.mark.parametrize("scenario", ["RM", "BM-B", "BM-E"])
def test_d13_hiding_nothing_is_a_no_op(scenario: str) -> None:
    data = make_data()

    result = hide_context(data, scenario, context_length=CONTEXT, num_hidden=0)

    xr.testing.assert_identical(result, data)
    assert result is not data


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_result_follows_the_schema_and_keeps_everything_else(dtype: Any) -> None:
    data = make_data(dtype=dtype)
    before = data.copy(deep=True)

    hidden = hide_context(data, "RM", context_length=CONTEXT, seed=0)

    check_sequences(hidden)
    assert hidden.target.dtype == dtype and hidden.target.attrs == {"units": "MW"}
    assert hidden.target.dims == ("series", "time", "feature")
    xr.testing.assert_identical(hidden.coords.to_dataset(), data.coords.to_dataset())
    xr.testing.assert_identical(data, before)


def test_whole_numbers_become_floats_where_some_are_hidden() -> None:
    hidden = hide_context(make_data(dtype=np.int64), "BM-E", context_length=CONTEXT, num_hidden=1)

    assert hidden.target.dtype.kind == "f"
    assert np.isnan(hidden.target.values[:, -1]).all() and hidden.target.values[0, -2, 0] == 77


def test_what_was_missing_before_stays_missing() -> None:
    data = make_data(features=1)
    observed = np.ones((3, STEPS), dtype=bool)
    observed[1, [2, 30]] = False
    target = data.target.where(observed[:, :, None])
    data = data.assign(target=target, observed=(("series", "time"), observed))

    hidden = hide_context(data, "BM-B", context_length=CONTEXT, num_hidden=2)

    assert hidden_steps(hidden, "a") == [28, 29]
    assert hidden_steps(hidden, "b") == [2, 28, 29, 30]


def test_d13_random_steps_are_reproducible_and_differ_between_seeds_and_series() -> None:
    data = make_data()
    draw = {seed: hide_context(data, "RM", context_length=CONTEXT, seed=seed) for seed in (0, 1)}

    xr.testing.assert_identical(draw[0], hide_context(data, "RM", context_length=CONTEXT, seed=0))
    # Two draws of 6 steps out of 12 would agree with probability 1 / 924.
    assert hidden_steps(draw[0], "a") != hidden_steps(draw[1], "a")
    assert hidden_steps(draw[0], "a") != hidden_steps(draw[0], "b")


def test_random_steps_belong_to_the_label_not_to_the_place() -> None:
    together = hide_context(make_data(series=(6, 7, 8)), "RM", context_length=CONTEXT, seed=3)

    alone = hide_context(make_data(series=(8, 6)), "RM", context_length=CONTEXT, seed=3)
    words = hide_context(make_data(series=("6", "8")), "RM", context_length=CONTEXT, seed=3)

    for label in (6, 8):
        assert hidden_steps(alone, label) == hidden_steps(together, label)
    assert hidden_steps(words, "6") != hidden_steps(together, 6)


def test_random_steps_are_uniform_over_the_context() -> None:
    # 2,000 series, 3 of 12 steps each: every step is hidden 500 times on average, standard deviation
    # sqrt(2000 · 1/4 · 3/4) = 19.4. Twelve counts within 4.5 of them: false-alarm rate 8e-5.
    data = make_data(series=tuple(range(2000)), features=1)

    hidden = hide_context(data, "RM", context_length=CONTEXT, num_hidden=3, seed=0)

    counts = (~observed_mask(hidden))[:, -CONTEXT:, 0].sum(axis=0)
    assert counts.sum() == 6000
    assert np.abs(counts - 500).max() < 4.5 * 19.4


def test_without_a_seed_the_ambient_stream_decides() -> None:
    data = make_data()
    draws = []
    for seed in (5, 5, 6):
        with fork_rng(seed):
            draws.append(hide_context(data, "RM", context_length=CONTEXT))

    xr.testing.assert_identical(draws[0], draws[1])
    assert not draws[0].identical(draws[2])


def test_d13_the_scale_ignores_hidden_steps() -> None:
    data = make_data(features=1)
    hidden = hide_context(data, "BM-E", context_length=CONTEXT)
    mask = torch.from_numpy(observed_mask(hidden))[:, -CONTEXT:]
    context = torch.from_numpy(data.target.values)[:, -CONTEXT:]

    scale = MeanScaler.scale(torch.where(mask, context, torch.full_like(context, 1e9)), mask)

    torch.testing.assert_close(scale, context[:, :6].mean(1, keepdim=True))


def test_a_scenario_that_is_unknown_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"one of \('RM', 'BM-B', 'BM-E'\), got 'BM'"):
        hide_context(make_data(), "BM", context_length=CONTEXT)


@pytest.mark.parametrize("length", [0, STEPS + 1])
def test_a_context_beyond_the_data_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the {STEPS} time steps of the data, got {length}"):
        hide_context(make_data(), "RM", context_length=length)


@pytest.mark.parametrize("count", [-1, CONTEXT + 1])
def test_more_hidden_steps_than_context_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"context_length={CONTEXT}, got {count}; None hides 6"):
        hide_context(make_data(), "RM", context_length=CONTEXT, num_hidden=count)


def test_hiding_all_of_a_series_is_refused_with_its_label() -> None:
    data = make_data()
    observed = np.ones((3, STEPS), dtype=bool)
    observed[1, :-CONTEXT] = False
    target = data.target.where(observed[:, :, None])
    data = data.assign(target=target, observed=(("series", "time"), observed))

    with pytest.raises(ValueError, match="leaves nothing observed of series 'b'.*more history"):
        hide_context(data, "BM-B", context_length=CONTEXT, num_hidden=CONTEXT)
