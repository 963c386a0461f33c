"""The baselines: hand-made seasons, an exact linear process, and what every model must honour."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import seqdyn
from seqdyn.data import from_numpy, read_sequences
from seqdyn.errors import NotFittedError
from seqdyn.metrics import Forecaster, crps, evaluate
from seqdyn.models.baselines import LinearForecaster, SeasonalEnsemble, SeasonalNaive
from seqdyn.models.ridge import fill_forward

BASELINES = [
    SeasonalNaive(season_length=4, prediction_length=6),
    SeasonalEnsemble(season_length=4, num_seasons=5, prediction_length=6),
    LinearForecaster(context_length=8, prediction_length=6),
]


def panel(values: Any, **options: Any) -> xr.Dataset:
    """Hourly panel from (series, time) or (series, time, feature); NaN is unobserved."""
    values = np.asarray(values, dtype=float)
    values = values if values.ndim == 3 else values[..., None]
    return from_numpy(values, start="2024-01-01", freq="h", **options)


@pytest.fixture
def data() -> xr.Dataset:
    rng = np.random.default_rng(0)
    season = np.sin(np.arange(60) * np.pi / 2)[:, None]
    return panel(10 + 3 * season + rng.normal(size=(4, 60, 2)), series=["a", "b", "c", "d"], units="kW")


@pytest.fixture(params=BASELINES, ids=lambda baseline: type(baseline).__name__)
def fitted(request: pytest.FixtureRequest, data: xr.Dataset) -> Any:
    return type(request.param)(**request.param.hyperparameters).fit(data)


# Seasonal -------------------------------------------------------------------------------------------------


def test_seasonal_naive_repeats_the_last_season() -> None:
    data = panel([[9, 9, 1, 2, 3]])

    forecast = SeasonalNaive(season_length=3, prediction_length=7).fit(data).forecast(data, num_samples=2)

    np.testing.assert_array_equal(forecast.target[:, 0, :, 0], [[1, 2, 3, 1, 2, 3, 1]] * 2)
    assert forecast.time[0] == pd.Timestamp("2024-01-01 05:00")


def test_a_gap_in_the_last_season_is_filled_from_the_season_before() -> None:
    nan = np.nan
    data = panel([[7, 8, 6, nan, 2, nan, 1, nan, nan]])

    forecast = SeasonalNaive(season_length=3, prediction_length=3).fit(data).forecast(data, num_samples=1)

    # Phases of the last season: 1 is there; 2 comes from one season back, 6 from two.
    np.testing.assert_array_equal(forecast.target.squeeze(), [1, 2, 6])


def test_ensemble_with_one_path_per_season_holds_each_season_once() -> None:
    data = panel([np.arange(12.0)])

    model = SeasonalEnsemble(season_length=3, num_seasons=3, prediction_length=4).fit(data)
    paths = model.forecast(data, num_samples=3, seed=1).target[:, 0, :, 0].values

    expected = [[3, 4, 5, 3], [6, 7, 8, 6], [9, 10, 11, 9]]
    np.testing.assert_array_equal(paths[np.argsort(paths[:, 0])], expected)


def test_ensemble_deals_seasons_evenly_and_keeps_their_quantiles() -> None:
    values = np.random.default_rng(1).normal(size=(1, 14 * 24))
    data = panel(values)

    model = SeasonalEnsemble(season_length=24, num_seasons=14, prediction_length=24).fit(data)
    paths = model.forecast(data, num_samples=100, seed=3).target[:, 0, :, 0].values

    seasons = np.sort(values.reshape(14, 24), axis=0)
    counts = (paths[:, None] == seasons[None]).sum(axis=0)
    assert set(np.unique(counts)) == {7, 8}
    assert counts.sum() == 100 * 24
    # Entry round(99 q) of the 100 is that season's at rank 14 q, up to the extra card of two seasons.
    for q in np.arange(1, 10) / 10:
        quantile = np.sort(paths, axis=0)[int(np.round(99 * q))]
        assert (seasons[int(np.floor(14 * q - 0.3))] <= quantile).all()
        assert (quantile <= seasons[int(np.ceil(14 * q + 0.3)) - 1]).all()


def test_ensemble_fills_gaps_with_the_next_older_values() -> None:
    nan = np.nan
    data = panel([[1, 20, 2, 21, nan, 22, 4, nan, 5, nan]])

    model = SeasonalEnsemble(season_length=2, num_seasons=3, prediction_length=2).fit(data)
    paths = model.forecast(data, num_samples=3, seed=0).target[:, 0, :, 0].values

    # The last three observed values of each phase: 5, 4, 2 and 22, 21, 20.
    assert sorted(paths[:, 0]) == [2, 4, 5]
    assert sorted(paths[:, 1]) == [20, 21, 22]


def test_ensemble_repeats_what_there_is_of_a_short_series() -> None:
    nan = np.nan
    data = panel([[nan, nan, nan, nan, 1, 2, 3, 4], np.arange(8)])

    model = SeasonalEnsemble(season_length=2, num_seasons=4, prediction_length=2).fit(data)
    paths = model.forecast(data, num_samples=4, seed=0).target[:, 0, :, 0].values

    assert sorted(paths[:, 0]) == [1, 1, 3, 3]


@pytest.mark.parametrize(
    "model",
    [
        SeasonalNaive(season_length=2, prediction_length=2),
        SeasonalEnsemble(season_length=2, num_seasons=2, prediction_length=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_phase_never_observed_is_named(model: SeasonalNaive | SeasonalEnsemble) -> None:
    data = panel([[1, np.nan, 3, np.nan]], series=["pump"])

    with pytest.raises(
        ValueError, match=r"'pump', feature value, has no observed value 1 steps before the end"
    ):
        model.fit(data).forecast(data)


# Linear ---------------------------------------------------------------------------------------------------


def test_linear_forecaster_continues_a_sinusoid_exactly() -> None:
    # A sinusoid obeys a linear recurrence of order two, and scaling keeps it: only the penalty is in the way.
    steps = np.arange(400)
    data = panel([5 * np.sin(0.3 * steps), 0.1 * np.sin(0.3 * steps + 1)])
    model = LinearForecaster(context_length=30, prediction_length=10, penalty=1e-8).fit(data)

    forecast = model.forecast(data.isel(time=slice(0, 200)), num_samples=5, seed=0)

    truth = data.target.isel(time=slice(200, 210))
    assert (abs(forecast.target - truth).max(["sample", "time", "feature"]) < 1e-5 * abs(truth).max()).all()


def test_linear_forecaster_agrees_with_a_direct_ridge_regression() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 40)).cumsum(axis=1) + 5
    model = LinearForecaster(context_length=5, prediction_length=2, penalty=3.0).fit(panel(values))

    windows = np.lib.stride_tricks.sliding_window_view(values, 7, axis=1).reshape(-1, 7)
    windows = windows / np.abs(windows[:, :5]).mean(axis=1, keepdims=True)
    past, future = windows[:, :5], windows[:, 5:]
    centre = past.mean(axis=0)
    gram = (past - centre).T @ (past - centre) + 3.0 * np.eye(5)
    weights = np.linalg.solve(gram, (past - centre).T @ (future - future.mean(axis=0)))
    intercept = future.mean(axis=0) - centre @ weights
    context = values[:, -5:]
    scale = np.abs(context).mean(axis=1, keepdims=True)
    expected = scale * (context / scale @ weights + intercept)

    draws = model.forecast(panel(values), num_samples=2, seed=0).target[..., 0].values
    residuals = draws / scale[:, None].swapaxes(0, 1) - (expected / scale)
    bank = model._tensors["residuals"][..., 0].numpy()
    nearest = np.abs(residuals[:, :, None] - bank).max(axis=-1).min(axis=-1)
    np.testing.assert_allclose(nearest, 0, atol=1e-10)


def test_linear_intervals_cover_new_data() -> None:
    # AR(1): errors grow with the horizon. 40 windows of 8 steps on 20 series; blocks of a series are nearly
    # independent, so the share has a standard error below 0.01; the bound allows for estimation, too.
    rng = np.random.default_rng(3)
    noise, values = rng.normal(size=(20, 1200)), np.zeros((20, 1200))
    for t in range(1, 1200):
        values[:, t] = 0.9 * values[:, t - 1] + noise[:, t]
    data = panel(values)
    model = LinearForecaster(context_length=16, prediction_length=8).fit(data.isel(time=slice(0, 880)))

    scores = evaluate(model, data, num_windows=40, num_samples=100, seed=0, progress=False)

    assert 0.74 < scores.attrs["coverage_80"] < 0.84
    # No forecast can beat the process's own: h steps ahead the error's variance is (1 - 0.81^h) / 0.19.
    ideal = np.sqrt((1 - 0.81 ** np.arange(1, 9)) / 0.19).mean() / np.sqrt(np.pi)
    assert ideal * 0.97 < scores.attrs["crps_sample"] < ideal * 1.1


def test_linear_residuals_keep_the_dependence_between_features() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(size=(1, 500, 1))
    data = panel(10 + np.concatenate([shared, -shared], axis=2))
    model = LinearForecaster(context_length=4, prediction_length=3).fit(data)

    paths = model.forecast(data, num_samples=200, seed=0).target[:, 0]

    assert np.corrcoef(paths[:, 0, 0], paths[:, 0, 1])[0, 1] < -0.99


def test_linear_forecaster_is_clipped_below_on_request() -> None:
    rng = np.random.default_rng(5)
    data = panel(rng.poisson(0.5, size=(2, 300)))
    free, bounded = (
        LinearForecaster(context_length=24, prediction_length=6, lower=lower).fit(data).forecast(data, seed=0)
        for lower in (None, 0.0)
    )

    assert free.target.min() < 0
    assert bounded.target.equals(free.target.clip(min=0.0))


def test_linear_forecaster_needs_a_complete_future() -> None:
    values = np.ones((1, 40))
    values[0, ::3] = np.nan

    with pytest.raises(ValueError, match=r"no window of 8 \+ 4 steps has a complete future in the 40 steps"):
        LinearForecaster(context_length=8, prediction_length=4).fit(panel(values))


def test_linear_forecaster_works_around_gaps(data: xr.Dataset) -> None:
    holes = np.random.default_rng(6).random(data.target.shape) < 0.05
    gappy = panel(np.where(holes, np.nan, data.target), series=list("abcd"))
    model = LinearForecaster(context_length=8, prediction_length=3).fit(gappy)

    assert np.isfinite(model.forecast(gappy, seed=0).target).all()


def test_missing_values_are_replaced_by_the_last_observed_one() -> None:
    values = np.array([[np.nan, 1, np.nan, np.nan, 4], [np.nan] * 5])[..., None]

    filled = fill_forward(values, ~np.isnan(values))

    np.testing.assert_array_equal(filled[..., 0], [[1, 1, 1, 1, 4], [0] * 5])


def test_linear_forecaster_names_a_feature_never_observed(data: xr.Dataset) -> None:
    model = LinearForecaster(context_length=8, prediction_length=3).fit(data)
    values = data.target.values.copy()
    values[2, :, 1] = np.nan

    with pytest.raises(ValueError, match=r"series 'c', feature \S+, is never observed in the context"):
        model.forecast(panel(values, series=list("abcd")))


# All of them ----------------------------------------------------------------------------------------------


def test_forecasts_have_the_documented_form(fitted: Any, data: xr.Dataset) -> None:
    forecast = fitted.forecast(data, num_samples=7, seed=3)

    assert forecast.target.dims == ("sample", "series", "time", "feature")
    assert forecast.target.shape == (7, 4, 6, 2)
    assert forecast.target.attrs["units"] == "kW"
    assert forecast.series.equals(data.series)
    assert forecast.feature.equals(data.feature)
    assert forecast.attrs["model"] == type(fitted).__name__
    assert forecast.attrs["seed"] == 3
    assert forecast.time[0] - data.time[-1] == np.timedelta64(1, "h")
    assert np.isfinite(forecast.target).all()
    assert fitted.history is None
    assert isinstance(fitted, Forecaster)


def test_equal_seeds_give_equal_draws(fitted: Any, data: xr.Dataset) -> None:
    first, again, other = (fitted.forecast(data, num_samples=20, seed=seed) for seed in (1, 1, 2))

    assert first.equals(again)
    assert first.equals(other) == isinstance(fitted, SeasonalNaive)


def test_random_states_are_untouched(fitted: Any, data: xr.Dataset) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    fitted.forecast(data, seed=1)

    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_a_series_does_not_depend_on_the_others(fitted: Any, data: xr.Dataset) -> None:
    everything = fitted.forecast(data, num_samples=13, seed=5)

    alone = fitted.forecast(data.sel(series=["c"]), num_samples=13, seed=5)
    turned = fitted.forecast(data.isel(series=[3, 2, 1, 0]), num_samples=13, seed=5)

    np.testing.assert_allclose(alone.target[:, 0], everything.target.sel(series="c"), rtol=1e-12)
    np.testing.assert_allclose(turned.target[:, ::-1], everything.target, rtol=1e-12)


def test_fewer_paths_are_the_first_of_many(fitted: Any, data: xr.Dataset) -> None:
    many, few = (fitted.forecast(data, num_samples=count, seed=5) for count in (23, 8))

    xr.testing.assert_identical(few.target, many.target[:8])


def test_gaps_of_one_series_leave_the_others_alone(fitted: Any, data: xr.Dataset) -> None:
    mask = xr.ones_like(data.target, dtype=bool)
    mask[0, -3:] = False
    gappy = data.where(mask).assign(observed=mask)

    whole, holed = (fitted.forecast(context, num_samples=9, seed=5).target for context in (data, gappy))

    np.testing.assert_allclose(holed[:, 1:], whole[:, 1:], rtol=1e-12)
    assert np.isfinite(holed).all()


def test_saved_and_loaded_it_forecasts_the_same(fitted: Any, data: xr.Dataset, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")

    loaded = type(fitted).load(tmp_path / "model")

    assert loaded.hyperparameters == fitted.hyperparameters
    assert loaded.data_info == fitted.data_info
    xr.testing.assert_identical(loaded.forecast(data, seed=1), fitted.forecast(data, seed=1))


def test_a_run_folder_holds_the_model(data: xr.Dataset, tmp_path: Path) -> None:
    SeasonalNaive(8, 6).fit(data, run_dir=tmp_path / "run")
    model = SeasonalNaive(4, 6).fit(data, run_dir=tmp_path / "run", resume=True)  # as other models are called

    loaded = SeasonalNaive.load(tmp_path / "run")
    xr.testing.assert_identical(loaded.forecast(data, seed=0), model.forecast(data, seed=0))


def test_another_class_is_refused(data: xr.Dataset, tmp_path: Path) -> None:
    SeasonalNaive(4, 6).fit(data).save(tmp_path / "model")

    with pytest.raises(ValueError, match=r"holds a SeasonalNaive, not a LinearForecaster; use seqdyn.load"):
        LinearForecaster.load(tmp_path / "model")


def test_networks_are_refused_at_loading(fitted: Any, data: xr.Dataset, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")

    with pytest.raises(ValueError, match=r"is built of no networks; leave out encoder: \w+.load\("):
        seqdyn.load(tmp_path / "model", encoder=None)


@pytest.mark.parametrize("value", [0.0, 7.0, -2.5])
def test_a_constant_panel_stays_constant(fitted: Any, value: float) -> None:
    data = panel(np.full((3, 60, 2), value))

    forecast = fitted.fit(data).forecast(data, num_samples=11, seed=0)

    np.testing.assert_allclose(forecast.target, value, rtol=1e-9, atol=0)


def test_a_zero_series_beside_others_stays_zero(fitted: Any, data: xr.Dataset) -> None:
    values = data.target.values.copy()
    values[1, :, 0] = 0.0
    mixed = panel(values)

    forecast = fitted.fit(mixed).forecast(mixed, num_samples=11, seed=0)

    assert (forecast.target[:, 1, :, 0] == 0).all()
    assert (forecast.target[:, 1, :, 1] != 0).any()


def test_integers_and_float32_are_fine(fitted: Any, data: xr.Dataset) -> None:
    for dtype in (np.int64, np.float32):
        cast = data.assign(target=data.target.astype(dtype))
        assert np.isfinite(fitted.fit(cast).forecast(cast, num_samples=3, seed=0).target).all()


def test_an_unfitted_baseline_says_so(data: xr.Dataset, tmp_path: Path) -> None:
    for baseline in BASELINES:
        message = rf"this {type(baseline).__name__} was neither fitted nor loaded; call model.fit\(data\)"
        with pytest.raises(NotFittedError, match=message):
            baseline.forecast(data)
        with pytest.raises(NotFittedError, match=message):
            baseline.save(tmp_path / "model")


def test_contexts_unlike_the_training_data_are_refused(fitted: Any, data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"context has the features .*sel\(feature="):
        fitted.forecast(data.isel(feature=[1, 0]))
    daily = from_numpy(data.target.values, start="2024-01-01", freq="D")
    with pytest.raises(ValueError, match="context has the frequency 'D', the training data had 'h'"):
        fitted.forecast(daily)
    with pytest.raises(ValueError, match="3 time steps but"):
        fitted.forecast(data.isel(time=slice(3)))
    for number in (0, 2.5, "10", True):
        with pytest.raises(ValueError, match=f"num_samples must be a whole number .* got {number!r}; 100 is"):
            fitted.forecast(data, num_samples=number)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SeasonalNaive(0, 4), r"season_length must be a whole number .* got 0"),
        (lambda: SeasonalNaive(4, 2.5), r"prediction_length must be a whole number .* got 2.5"),
        (lambda: SeasonalEnsemble(4, -1, 4), r"num_seasons must be a whole number .* got -1"),
        (lambda: LinearForecaster(True, 4), r"context_length must be a whole number .* got True"),
        (lambda: LinearForecaster(8, 4, penalty=0.0), r"penalty must be positive and finite, got 0.0"),
        (lambda: LinearForecaster(8, 4, lower=float("nan")), r"lower must be a finite number .* got nan"),
        (lambda: LinearForecaster(8, 4, lower="0"), r"lower must be a finite number .* got '0'"),
    ],
)
def test_constructors_check_their_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# Real data ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exchange(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[xr.Dataset]:
    """Five windows of eight rates: each ends with the 30 steps to forecast."""
    path = data_dir / "exchange_rate_nips" / "exchange_rate_nips.tar.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    folder = tmp_path_factory.mktemp("exchange")
    with tarfile.open(path) as archive:
        archive.extractall(
            folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # from 3.11.4
    items = read_sequences(folder / "exchange_rate_nips" / "test" / "test.json")
    # Line k is series k mod 8 up to the end of window k div 8; the reader pads the shorter ones.
    windows = [items.isel(series=slice(8 * k, 8 * k + 8)) for k in range(5)]
    return [window.isel(time=window.observed.all(["series", "feature"]).values) for window in windows]


def test_seasonal_naive_scores_the_known_crps_on_exchange_rates(exchange: list[xr.Dataset]) -> None:
    model = SeasonalNaive(season_length=5, prediction_length=30).fit(exchange[0].isel(time=slice(0, -30)))

    loss = size = 0.0
    for window in exchange:
        history, truth = window.isel(time=slice(0, -30)), window.isel(time=slice(-30, None))
        total = abs(truth.target).sum().item()
        loss += crps(model.forecast(history, num_samples=1), truth) * total
        size += total

    assert round(loss / size, 5) == 0.01075


def test_rolling_evaluation_scores_the_same(exchange: list[xr.Dataset]) -> None:
    # The last window's series contain the other windows.
    panel = exchange[-1]
    model = SeasonalNaive(season_length=5, prediction_length=30).fit(panel.isel(time=slice(0, -150)))

    scores = evaluate(model, panel, num_windows=5, num_samples=3, progress=False)

    assert round(scores.attrs["crps"], 5) == 0.01075
    assert scores.quantile_loss.shape == (8, 5, 9)
