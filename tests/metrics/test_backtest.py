"""Rolling evaluation: which data a model sees, what is summed, and what is refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import seqdyn
from seqdyn import metrics
from seqdyn.data.convert import forecast_dataset
from seqdyn.data.schema import describe


class Climate:
    """Poisson draws around the mean of the context; remembers how it was called."""

    def __init__(self, prediction_length: int | None = 6) -> None:
        self.prediction_length = prediction_length
        self.calls: list[dict[str, Any]] = []

    def forecast(
        self, context: xr.Dataset, *, num_samples: int, seed: int | None, **options: Any
    ) -> xr.Dataset:
        self.calls.append({"context": context, "seed": seed, **options})
        mean = context.target.mean("time", skipna=True).values[None, :, None, :]
        shape = (num_samples, context.sizes["series"], self.prediction_length or 6, context.sizes["feature"])
        draws = np.random.default_rng(seed).poisson(mean, size=shape).astype(float)
        return forecast_dataset(draws, context, model="Climate", seed=seed)


class WithCovariates(Climate):
    def forecast(
        self,
        context: xr.Dataset,
        *,
        num_samples: int,
        seed: int | None,
        future_covariates: xr.DataArray | None = None,
    ) -> xr.Dataset:
        return super().forecast(context, num_samples=num_samples, seed=seed, future=future_covariates)


@pytest.fixture
def data() -> xr.Dataset:
    rng = np.random.default_rng(0)
    values = rng.poisson([[[3.0, 8.0]]], size=(3, 50, 2)).astype(float)
    return seqdyn.data.from_numpy(values, start="2024-03-01", freq="h", series=["a", "b", "c"], units="cars")


def evaluate(model: Any, data: xr.Dataset, **options: Any) -> xr.Dataset:
    return metrics.evaluate(
        model, data, **{"num_windows": 3, "num_samples": 40, "seed": 1, "progress": False} | options
    )


class Bridge:
    """Remembers how it was asked to leave snapshots out."""

    def leave_one_out(self, snapshots: xr.Dataset, **options: Any) -> xr.Dataset:
        return xr.Dataset(attrs=options)


def test_snapshots_are_left_out_with_the_options_given() -> None:
    clouds = seqdyn.data.stack_snapshots(np.zeros((3, 4, 2)), times=[0, 1, 2])

    plain = metrics.evaluate(Bridge(), clouds, seed=3)
    few = metrics.evaluate(Bridge(), clouds, num_samples=7, max_epochs=2, progress=False)

    assert plain.attrs == {"seed": 3, "progress": True}
    assert few.attrs == {"num_samples": 7, "max_epochs": 2, "seed": None, "progress": False}
    for option in ({"num_windows": 1}, {"prediction_length": 3}, {"keep_forecasts": True}):
        with pytest.raises(ValueError, match=f"snapshots have no windows.*leave {next(iter(option))} out"):
            metrics.evaluate(Bridge(), clouds, **option)


# Windows --------------------------------------------------------------------------------------------------


def test_each_window_is_forecast_from_everything_before_it(data: xr.Dataset) -> None:
    model = Climate()

    scores = evaluate(model, data)

    contexts = [call["context"] for call in model.calls]
    for context, length in zip(contexts, (32, 38, 44), strict=True):
        xr.testing.assert_identical(context, data.isel(time=slice(0, length)))
    np.testing.assert_array_equal(scores.start, data.time[[32, 38, 44]])
    np.testing.assert_array_equal(scores.end, data.time[[37, 43, 49]])
    assert scores.attrs["prediction_length"] == 6
    assert scores.time.equals(data.time[32:])


def test_the_future_never_reaches_the_model(data: xr.Dataset) -> None:
    changed = data.copy(deep=True)
    changed.target[:, -6:] += 100

    before, after = (evaluate(Climate(), one, keep_forecasts=True) for one in (data, changed))

    xr.testing.assert_identical(before.forecast, after.forecast)


def test_windows_have_their_own_seeds_counted_from_the_end(data: xr.Dataset) -> None:
    long, short = Climate(), Climate()

    all_three, last_two = evaluate(long, data), evaluate(short, data, num_windows=2)

    seeds = [call["seed"] for call in long.calls]
    assert len(set(seeds)) == 3
    assert [call["seed"] for call in short.calls] == seeds[1:]
    np.testing.assert_array_equal(all_three.quantile_loss[:, 1:], last_two.quantile_loss)


def test_any_seed_that_a_forecast_takes_is_taken(data: xr.Dataset) -> None:
    first, again, other = (evaluate(Climate(), data, num_windows=1, seed=seed) for seed in (-1, -1, 1))

    xr.testing.assert_identical(first, again)
    assert first.attrs["seed"] == -1 and first.attrs["crps"] != other.attrs["crps"]


def test_without_a_seed_the_model_draws_from_the_ambient_stream(data: xr.Dataset) -> None:
    model = Climate()

    scores = evaluate(model, data, seed=None)

    assert len({call["seed"] for call in model.calls}) == 3
    xr.testing.assert_identical(evaluate(model, data, seed=scores.attrs["seed"]), scores)
    assert evaluate(model, data, seed=None).attrs["seed"] != scores.attrs["seed"]


def test_a_series_observed_in_no_window_is_not_forecast_and_is_named(data: xr.Dataset) -> None:
    model, mask = Climate(), xr.ones_like(data.target, dtype=bool)
    mask[1, 20:] = False
    others = data.drop_sel(series="b")

    with pytest.warns(UserWarning, match=r"1 of \d series are observed in no window .* first is 'b'"):
        scores = evaluate(model, data.assign(observed=mask), keep_forecasts=True)

    assert all("b" not in call["context"].series for call in model.calls)
    assert scores.sel(series="b").num_observed.sum() == 0
    assert np.isnan(scores.sel(series="b").forecast).all()
    expected = evaluate(model, others.assign(observed=mask.drop_sel(series="b")), keep_forecasts=True)
    assert scores.attrs["crps"] == pytest.approx(expected.attrs["crps"], rel=1e-12)
    xr.testing.assert_equal(scores.drop_sel(series="b"), expected)


def test_a_shorter_window_scores_the_first_steps(data: xr.Dataset) -> None:
    model = Climate()

    scores = evaluate(model, data, prediction_length=2, keep_forecasts=True)

    assert [call["context"].sizes["time"] for call in model.calls] == [44, 46, 48]
    assert scores.sizes["time"] == 6


def test_lightning_style_hyperparameters_state_the_window(data: xr.Dataset) -> None:
    class Model:
        hparams = SimpleNamespace(prediction_length=5)

        def forecast(self, context: xr.Dataset, *, num_samples: int, seed: int | None) -> xr.Dataset:
            return Climate(5).forecast(context, num_samples=num_samples, seed=seed)

    assert evaluate(Model(), data).attrs["prediction_length"] == 5


def test_a_model_of_any_length_is_told_the_length(data: xr.Dataset) -> None:
    class Model:
        def forecast(
            self, context: xr.Dataset, *, num_samples: int, seed: int | None, prediction_length: int
        ) -> xr.Dataset:
            return Climate(prediction_length).forecast(context, num_samples=num_samples, seed=seed)

    assert evaluate(Model(), data, prediction_length=4).sizes["time"] == 12


def test_options_are_passed_on(data: xr.Dataset) -> None:
    model = Climate()

    evaluate(model, data, guidance_scale=2.0)

    assert {call["guidance_scale"] for call in model.calls} == {2.0}


def test_covariates_of_the_window_go_to_models_that_take_them(data: xr.Dataset) -> None:
    hour = np.broadcast_to(np.arange(50.0)[None, :, None], (3, 50, 1))
    data = data.assign(covariates=(("series", "time", "covariate"), hour)).assign_coords(covariate=["hour"])
    model, blind = WithCovariates(), Climate()

    evaluate(model, data)
    evaluate(blind, data)

    assert [call["future"].values[0, :, 0].tolist() for call in model.calls] == [
        list(range(32, 38)),
        list(range(38, 44)),
        list(range(44, 50)),
    ]
    assert "covariates" in model.calls[0]["context"]
    assert "future_covariates" not in blind.calls[0]


# Scores ---------------------------------------------------------------------------------------------------


def test_pooled_scores_are_those_of_all_windows_together(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data, keep_forecasts=True)

    for name in ("crps", "nd", "nrmse", "crps_sample"):
        score = getattr(metrics, name)(scores.forecast, data)
        assert scores.attrs[name] == pytest.approx(score, rel=1e-12), name
    for level in (0.5, 0.8, 0.9):
        share = metrics.coverage(scores.forecast, data, level=level)
        assert scores.attrs[f"coverage_{100 * level:.0f}"] == pytest.approx(share)
    width = metrics.interval_width(scores.forecast, data)
    assert scores.attrs["interval_width_80"] == pytest.approx(width, rel=1e-12)


def test_energy_score_is_the_mean_over_series_and_windows(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data, keep_forecasts=True)

    parts = [metrics.energy_score(scores.forecast.isel(time=slice(i, i + 6)), data) for i in (0, 6, 12)]

    assert scores.attrs["energy_score"] == pytest.approx(np.mean(parts), rel=1e-12)


def test_crps_is_a_ratio_of_sums_not_a_mean_of_ratios(data: xr.Dataset) -> None:
    data = data.assign(target=data.target * xr.DataArray([1.0, 100.0, 0.01], dims="series"))

    scores = evaluate(Climate(), data)

    sums = scores[["quantile_loss", "abs_target"]].sum(["series", "window"])
    assert scores.attrs["crps"] == pytest.approx((sums.quantile_loss / sums.abs_target).mean().item())
    ratios = (scores.quantile_loss / scores.abs_target).mean()
    assert scores.attrs["crps"] != pytest.approx(ratios.item(), rel=0.05)


def test_pool_over_one_dim_gives_each_series_and_each_window(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data, keep_forecasts=True)

    per_series, per_window = metrics.pool(scores, "window"), metrics.pool(scores, "series")

    alone = metrics.crps(scores.forecast.sel(series=["b"]), data.sel(series=["b"]))
    assert per_series.crps.sel(series="b") == pytest.approx(alone)
    second = metrics.crps(scores.forecast.isel(time=slice(6, 12)), data)
    assert per_window.crps.sel(window=1) == pytest.approx(second)
    assert per_window.coverage.dims == ("window", "level")


def test_pool_joins_two_evaluations(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data)

    halves = metrics.pool([scores.isel(window=[0, 1]), scores.isel(window=[2])])

    xr.testing.assert_allclose(halves, metrics.pool(scores))


def test_pit_is_that_of_the_kept_forecast_up_to_ties() -> None:
    data = seqdyn.data.from_numpy(np.random.default_rng(3).normal(5, 1, size=(2, 40, 1)))

    scores = evaluate(Climate(), data, keep_forecasts=True)

    # The truth ties with no draw, so that both place it between the same two.
    u = metrics.pit(scores.forecast, data).pit
    assert (np.floor(u * 41) == np.floor(scores.pit * 41)).all()


def test_units_and_dims_are_stated(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data)

    assert scores.quantile_loss.dims == ("series", "window", "quantile")
    assert scores.abs_target.dims == ("series", "window")
    assert scores.covered.dims == ("series", "window", "level")
    np.testing.assert_allclose(scores["quantile"], np.arange(1, 10) / 10)
    assert scores.attrs["units"] == scores.quantile_loss.attrs["units"] == "cars"
    assert scores.attrs["model"] == "Climate"


def test_scores_survive_a_round_trip_through_netcdf(data: xr.Dataset, tmp_path: Path) -> None:
    scores = evaluate(Climate(), data, keep_forecasts=True)

    scores.to_netcdf(tmp_path / "scores.nc")

    with xr.open_dataset(tmp_path / "scores.nc") as loaded:
        xr.testing.assert_equal(loaded.load(), scores)
        assert loaded.attrs["crps"] == scores.attrs["crps"]


# Missing values -------------------------------------------------------------------------------------------


def test_a_series_unobserved_in_a_window_counts_nothing_there(data: xr.Dataset) -> None:
    mask = xr.ones_like(data.target, dtype=bool)
    mask[1, 38:44] = False
    hidden = data.where(mask, 1e6).assign(observed=mask)

    with warnings.catch_warnings():  # the series ends early, but nothing is scored after its end
        warnings.simplefilter("error")
        scores = evaluate(Climate(), hidden)

    gone = scores.sel(series="b", window=1)
    assert gone.num_observed == 0
    assert gone.abs_target == 0
    assert (gone.quantile_loss == 0).all()
    assert np.isnan(gone.energy_score)
    assert np.isfinite(scores.attrs["energy_score"])
    assert scores.num_observed.sum() == 8 * 12
    assert scores.abs_target.max() < 1e3


def test_a_series_that_begins_in_a_window_is_named(data: xr.Dataset) -> None:
    mask = xr.ones_like(data.target, dtype=bool)
    mask[2, :43] = False
    late = data.where(mask).assign(observed=mask)

    with pytest.raises(ValueError, match=r"1 series have no observed value before .* is 'c'.*drop_sel"):
        evaluate(Climate(), late)

    assert evaluate(Climate(), late, num_windows=1).num_observed.sel(series="c") == 12


def test_all_zero_truth_leaves_ratios_undefined_and_the_rest_finite(data: xr.Dataset) -> None:
    scores = evaluate(Climate(), data.assign(target=data.target * 0.0))

    assert np.isnan(scores.attrs["crps"])
    assert scores.attrs["crps_sample"] == 0.0
    assert scores.attrs["coverage_80"] == 1.0


# Warnings and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trained_steps", "warns"), [(50, True), (33, True), (32, False), (10, False)])
def test_it_warns_if_the_model_has_seen_the_windows(
    data: xr.Dataset, trained_steps: int, warns: bool
) -> None:
    model = Climate()
    model.data_info = describe(data.isel(time=slice(0, trained_steps)))  # type: ignore[attr-defined]

    if warns:
        with pytest.warns(
            UserWarning, match=r"trained on data up to 2024-03-0\d.*first window starts at 2024"
        ):
            evaluate(model, data)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            evaluate(model, data)


def test_it_warns_if_validation_has_seen_the_windows(data: xr.Dataset) -> None:
    model = Climate()
    info = describe(data.isel(time=slice(0, 20)))
    last = describe(data.isel(time=slice(0, 33)))["time_end"]
    model.data_info = {**info, "val_time_end": last}  # type: ignore[attr-defined]

    with pytest.warns(UserWarning, match=f"trained on data up to {last}, but the first window starts at"):
        evaluate(model, data)


def test_it_warns_on_numeric_time_too(data: xr.Dataset) -> None:
    data = seqdyn.data.from_numpy(data.target.values)
    model = Climate()
    model.data_info = describe(data)  # type: ignore[attr-defined]

    with pytest.warns(UserWarning, match="trained on data up to 49, but the first window starts at 32"):
        evaluate(model, data)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            Climate(),
            {"num_windows": 9},
            r"9 windows of 6 steps need more than 54 steps.* have 50; use num_windows=8",
        ),
        (Climate(), {"num_windows": 0}, r"num_windows must be a whole number of at least 1, got 0"),
        (Climate(), {"num_windows": 2.0}, r"num_windows must be a whole number of at least 1, got 2\.0"),
        (Climate(), {"prediction_length": 3.0}, r"prediction_length must be a whole number .* got 3\.0"),
        (Climate(), {"prediction_length": 7}, r"at most 6, the model's own, got 7"),
        (Climate(None), {}, r"Climate states no prediction_length.*pass it: evaluate"),
        (
            Climate(None),
            {"prediction_length": 9},
            r"has 6 steps, but a window has 9; pass prediction_length=6",
        ),
        (Climate(), {"seed": 1.5}, r"seed must be a whole number .* got 1.5"),
        (Climate(), {"seed": "0"}, r"seed must be a whole number .* got '0'"),
    ],
)
def test_impossible_requests_name_the_remedy(
    model: Climate, options: dict[str, Any], message: str, data: xr.Dataset
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(model, data, **options)


def test_windows_without_any_observed_value_are_refused(data: xr.Dataset) -> None:
    mask = xr.ones_like(data.target, dtype=bool)
    mask[:, 32:] = False

    with pytest.raises(ValueError, match="no value is observed in the windows from 2024-03-02"):
        evaluate(Climate(), data.where(mask).assign(observed=mask))


def test_something_that_cannot_forecast_is_refused(data: xr.Dataset) -> None:
    with pytest.raises(TypeError, match="dict has no method 'forecast'"):
        evaluate({}, data)


def test_malformed_data_are_refused(data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="must have dims"):
        evaluate(Climate(), data.transpose("time", "series", "feature"))


def test_a_class_is_no_model(data: xr.Dataset) -> None:
    with pytest.raises(
        TypeError, match=r"got the class Climate; pass an object, such as Climate\(\.\.\.\)\.fit"
    ):
        evaluate(Climate, data)


def test_times_in_messages_are_local_and_coordinates_say_their_zone() -> None:
    local = pd.date_range("2024-03-01", periods=50, freq="h", tz="Europe/Paris")
    data = seqdyn.data.from_numpy(np.ones((2, 50)), time=local)
    model = Climate()
    model.data_info = describe(data)  # type: ignore[attr-defined]

    with pytest.warns(
        UserWarning,
        match=r"up to 2024-03-03 01:00:00\+01:00, .*starts at 2024-03-02 08:00:00\+01:00",
    ):
        scores = evaluate(model, data)

    assert scores["start"].attrs == scores["end"].attrs == {"timezone": "Europe/Paris"}
    assert scores["start"].values[0] == np.datetime64("2024-03-02T07:00")


def test_a_bar_is_shown_on_request_and_on_a_terminal_only(
    data: xr.Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(Climate(), data)
    evaluate(Climate(), data, progress=True)
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    evaluate(Climate(), data, progress=True)
    captured = capsys.readouterr()
    assert "evaluate" in captured.err
    assert captured.out == ""
