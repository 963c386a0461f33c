"""What the schema says about legal data: masks, steps, futures and facts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import (
    check_episodes,
    check_sequences,
    describe,
    fingerprint,
    frequency,
    from_numpy,
    future_times,
    observed_mask,
    summary,
)


def panel(**arguments: object) -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(2, 30, 1))
    return from_numpy(values, **{"start": "2024-01-01", "freq": "h", "series": ["a", "b"], **arguments})


def test_a_mask_without_features_is_spread_over_them() -> None:
    data = from_numpy(np.ones((2, 5, 3)))
    steps = np.arange(10).reshape(2, 5) % 3 > 0

    mask = observed_mask(data.assign(observed=(("series", "time"), steps)))

    np.testing.assert_array_equal(mask, np.repeat(steps[:, :, None], 3, axis=2))
    assert observed_mask(data.drop_vars("observed")).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_under_a_false_mask_may_be_anything(value: float) -> None:
    data = panel()
    data["target"][0, 3] = value
    with pytest.raises(ValueError, match="'target' is"):
        check_sequences(data)

    data["observed"][0, 3] = False

    assert check_sequences(data) is None


@pytest.mark.parametrize("freq", ["h", "30min", "D", "B", "W-TUE", "MS", "ME", "QS-JAN", "YE-DEC"])
def test_the_future_continues_the_grid(freq: str) -> None:
    stamps = pd.date_range("2023-12-29", periods=34, freq=freq)
    data = from_numpy(np.ones(30), time=stamps[:30])

    assert frequency(data) == freq
    np.testing.assert_array_equal(future_times(data, 4), stamps[30:].to_numpy())


def test_the_future_of_local_days_follows_the_clocks() -> None:
    local = pd.date_range("2024-03-25", periods=10, freq="D", tz="Europe/Zurich")
    data = from_numpy(np.ones(4), time=local[:4])

    future = pd.DatetimeIndex(future_times(data, 6)).tz_localize("UTC").tz_convert("Europe/Zurich")

    assert list(future) == list(local[4:])


@pytest.mark.parametrize(
    "times", [np.arange(10) * 5 + 3, np.arange(10) * 0.1, np.arange(10, dtype=np.float32) / 3]
)
def test_numeric_time_goes_on_with_its_step(times: np.ndarray) -> None:
    data = from_numpy(np.ones(7), time=times[:7])

    future = future_times(data, 3)

    np.testing.assert_allclose(future, times[7:], rtol=1e-6)
    assert future.dtype.kind == times.dtype.kind


def test_a_slice_keeps_its_frequency_even_at_one_step() -> None:
    data = panel().isel(time=[4])

    check_sequences(data)
    assert future_times(data, 1)[0] == np.datetime64("2024-01-01T05")


def test_facts_are_plain_json() -> None:
    facts = describe(panel(units="kW"))

    assert json.loads(json.dumps(facts)) == facts
    assert facts["series"] == ["a", "b"]
    assert facts["features"] == ["value"]
    assert facts["units"] == "kW"
    assert (facts["time_start"], facts["time_end"]) == ("2024-01-01", "2024-01-02 05:00:00")
    assert (facts["freq"], facts["num_steps"], facts["missing_share"]) == ("h", 30, 0.0)


def test_facts_of_many_series_name_the_first_and_the_last() -> None:
    facts = describe(from_numpy(np.ones((1001, 2))))

    assert facts["num_series"] == 1001
    assert facts["series"] == [0, 1000]


def test_the_summary_says_size_step_unit_and_share_missing() -> None:
    values = np.ones((2, 40))
    values[1, 10:] = np.nan
    text = summary(from_numpy(values, start="2024-01-01", freq="D", units="flights"))

    assert "2 series of 10 to 40 steps" in text
    assert "[flights]" in text
    assert "'D' from 2024-01-01 to 2024-02-09" in text
    assert "38 % of the grid missing" in text


def test_the_fingerprint_sees_values_mask_and_labels_but_not_the_dtype() -> None:
    data = from_numpy(np.arange(20.0).reshape(2, 10), start="2024-01-01", freq="h")
    same = data.assign(target=data["target"].astype(np.float32))
    hidden = data.assign(observed=data["observed"] & (data["time"] > data["time"][0]))
    shifted = data.assign_coords(
        time=("time", data["time"].values + np.timedelta64(1, "h"), data["time"].attrs)
    )
    others = [data + 1e-9 * data.assign(observed=0), hidden, shifted, data.assign_coords(series=[0, 2])]

    assert fingerprint(same) == fingerprint(data)
    masked = hidden.assign(target=hidden["target"].where(hidden["observed"]))
    assert fingerprint(masked) == fingerprint(hidden)
    prints = {fingerprint(other.assign(observed=other["observed"].astype(bool))) for other in others}
    assert len(prints | {fingerprint(data)}) == 5


def test_episodes_may_carry_values_or_labels() -> None:
    x = np.zeros((2, 3, 4))
    values = xr.Dataset(
        {
            "support_x": (("task", "support", "input"), x),
            "support_y": (("task", "support", "output"), x[:, :, :2]),
            "query_x": (("task", "query", "input"), x),
            "query_y": (("task", "query", "output"), x[:, :, :2]),
        }
    )
    labels = values.drop_dims("output").assign(
        support_y=(("task", "support"), [[0, 1, 2]] * 2), query_y=(("task", "query"), [[2, 1, 0]] * 2)
    )

    assert check_episodes(values) is None
    assert check_episodes(labels) is None
    with pytest.raises(ValueError, match="'query_y' holds label 2 .* which the task's support never shows"):
        check_episodes(labels.assign(support_y=labels["support_y"] % 2))


def test_symbols_are_a_kind_of_sequence() -> None:
    data = xr.Dataset({"symbol": (("series", "time"), [[0, 2, 1]])}, {"series": ["a"], "time": [0, 1, 2]})

    check_sequences(data, variable="symbol")
    with pytest.raises(ValueError, match="needs the variable 'target'"):
        check_sequences(data)
