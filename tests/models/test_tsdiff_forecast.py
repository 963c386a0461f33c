"""Forecasts of TSDiff: what they may depend on, units, covariates, guidance (D8, D9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import seqdyn
from seqdyn.data import future_times
from seqdyn.errors import NonFiniteError
from seqdyn.metrics import crps
from seqdyn.models import TSDiff

Make = Callable[..., Any]
DRAW: dict[str, Any] = {"num_samples": 4, "seed": 0, "progress": False}
GUIDANCES = pytest.mark.parametrize("guidance", ["quantile", "square", None])


def scale_of(data: xr.Dataset) -> xr.DataArray:
    return abs(data.target).mean("time")


def largest_difference(one: xr.Dataset, other: xr.Dataset, data: xr.Dataset) -> float:
    """Largest difference of two forecasts, in units of each series' scale."""
    return float((abs(one.target - other.target) / scale_of(data)).max())


# No future leak
# ---------------------------------------------------------------------------------------------------------


@GUIDANCES
@pytest.mark.parametrize("features", [1, 2])
def test_d8_what_comes_after_the_forecast_start_changes_no_bit(
    make_model: Make, make_data: Make, guidance: str | None, features: int
) -> None:
    # The lag of 3 reaches into the 4 forecast steps, and a series may end before the time axis does: what
    # stands in the unobserved rest must not matter.
    model = make_model(num_features=features)
    data = make_data(features=features)
    observed = np.ones((3, 40), dtype=bool)
    observed[1, 36:] = False
    forecasts = []
    for value in (np.nan, 1e9, 0.0):
        values = np.where(observed[:, :, None], data.target.values, value)
        changed = data.assign(target=(data.target.dims, values), observed=(("series", "time"), observed))
        forecasts.append(model.forecast(changed, guidance=guidance, **DRAW).target.values)

    assert np.isfinite(forecasts[0]).all()
    np.testing.assert_array_equal(forecasts[1], forecasts[0])
    np.testing.assert_array_equal(forecasts[2], forecasts[0])


@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_d8_cells_of_the_future_have_no_say_in_the_windows(make_model: Make, value: float) -> None:
    # Beneath the verbs, in the one place that builds windows, the future itself is overwritten.
    model = make_model(num_features=2)
    target = torch.rand(3, 8 + 16, 2) + 1
    observed = torch.ones(3, 8 + 16, 2, dtype=torch.bool)
    observed[:, -4:] = False

    windows = model._windows(target, observed)

    other = target.clone()
    other[:, -4:] = value
    for one, two in zip(windows, model._windows(other, observed), strict=True):
        assert torch.equal(one, two)


def test_d8_a_backtest_scores_a_window_alike_whatever_comes_after(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), make_data()
    changed = data.copy(deep=True)
    changed["target"][:, -4:] = 1e9
    options = {"num_windows": 2, "num_samples": 4, "seed": 0}

    first, second = (seqdyn.evaluate(model, values, **options) for values in (data, changed))

    scores = [name for name in first.data_vars if "window" in first[name].dims]
    assert {"quantile_loss", "abs_target"} <= {*scores}
    for name in scores:
        xr.testing.assert_equal(first[name].isel(window=0), second[name].isel(window=0))
    assert not first["quantile_loss"].equals(second["quantile_loss"])


def test_d8_missing_values_of_the_context_change_no_bit(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), make_data()
    observed = np.random.default_rng(2).random((3, 40, 1)) < 0.7
    forecasts = []
    for value in (np.nan, 1e9):
        values = np.where(observed, data.target.values, value)
        changed = data.assign(target=(data.target.dims, values), observed=(data.target.dims, observed))
        forecasts.append(model.forecast(changed, **DRAW).target.values)

    np.testing.assert_array_equal(*forecasts)


def test_only_the_last_steps_that_the_window_needs_are_used(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), make_data()
    changed = data.copy(deep=True)
    changed["target"][:, : -(8 + 12)] = 77.0

    xr.testing.assert_identical(model.forecast(changed, **DRAW), model.forecast(data, **DRAW))


# Batching, chunking, order, company
# ---------------------------------------------------------------------------------------------------------


@GUIDANCES
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_d9_in_double_precision_forecasts_do_not_depend_on_batching_order_or_company(
    make_model: Make, make_data: Make, guidance: str | None, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = make_model().double(), make_data()
    options = {**DRAW, "num_samples": 6, "guidance": guidance, "sampler": sampler}
    together = model.forecast(data, batch_size=18, **options)

    for batch_size in (1, 4, 5):
        other = model.forecast(data, batch_size=batch_size, **options)
        assert largest_difference(other, together, data) < 1e-8
    reversed_series = model.forecast(data.isel(series=[2, 1, 0]), **options)
    assert largest_difference(reversed_series, together, data) < 1e-8
    alone = model.forecast(data.sel(series=["s1"]), **options)
    assert largest_difference(alone, together.sel(series=["s1"]), data) < 1e-8
    # The network itself works through a batch in parts.
    monkeypatch.setattr(type(model.network), "windows_at_a_time", lambda self, device: 2)
    assert largest_difference(model.forecast(data, **options), together, data) < 1e-8


def test_d9_in_single_precision_a_trained_model_forecasts_alike_in_any_batches(smoke: Any) -> None:
    # A row of a matrix product differs by 5e-7 between batch sizes, and the quantile gradient jumps at zero.
    options = {"num_samples": 20, "seed": 0, "num_steps": 10, "progress": False}
    context, truth = smoke.context.isel(series=slice(4)), smoke.truth.isel(series=slice(4))
    together = smoke.model.forecast(context, batch_size=80, **options)

    for changed in (
        smoke.model.forecast(context, batch_size=7, **options),
        smoke.model.forecast(context.isel(series=[3, 1, 2, 0]), batch_size=80, **options),
    ):
        difference = abs(changed.target - together.target) / scale_of(context)
        assert float((difference < 1e-4).mean()) >= 0.99
        assert crps(changed, truth) == pytest.approx(crps(together, truth), rel=1e-3)


@pytest.mark.parametrize("guidance", ["square", None])
def test_d9_fifty_paths_are_the_first_fifty_of_a_hundred(
    make_model: Make, make_data: Make, guidance: str | None
) -> None:
    model, data = make_model().double(), make_data()

    fifty, hundred = (
        model.forecast(data, num_samples=count, seed=0, guidance=guidance, progress=False)
        for count in (50, 100)
    )

    assert largest_difference(fifty, hundred.isel(sample=slice(50)), data) < 1e-8


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_d9_the_same_call_twice_is_bit_equal_and_other_seeds_differ(
    make_model: Make, make_data: Make, sampler: str
) -> None:
    model, data = make_model(), make_data()
    options = {**DRAW, "sampler": sampler}

    first = model.forecast(data, **options)

    xr.testing.assert_identical(model.forecast(data, **options), first)
    assert not first.target.equals(model.forecast(data, **{**options, "seed": 1}).target)


def test_without_a_seed_the_ambient_stream_decides(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), make_data()
    forecasts = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        forecasts.append(model.forecast(data, num_samples=2, progress=False))

    xr.testing.assert_identical(forecasts[0], forecasts[1])
    assert not forecasts[0].target.equals(forecasts[2].target)
    again = model.forecast(data, num_samples=2, progress=False, seed=forecasts[0].attrs["seed"])
    xr.testing.assert_identical(again, forecasts[0])


def test_series_of_equal_values_and_different_labels_get_different_draws(
    make_model: Make, make_data: Make
) -> None:
    data = make_data(series=2)
    data["target"][1] = data["target"].values[0]

    forecast = make_model().forecast(data, **DRAW)

    assert not np.isclose(forecast.target[:, 0], forecast.target[:, 1]).any()


# Units
# ---------------------------------------------------------------------------------------------------------


def test_forecasts_scale_with_the_unit_of_the_data(make_model: Make, make_data: Make) -> None:
    # There is no shift: a change of unit by a power of two is exact.
    model, data = make_model().double(), make_data()

    forecast = model.forecast(data.assign(target=data.target * 1024), **DRAW)

    np.testing.assert_allclose(forecast.target, 1024 * model.forecast(data, **DRAW).target, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30, 1e37])
def test_awkward_but_legal_sizes_give_finite_forecasts_of_their_size(
    make_model: Make, make_data: Make, factor: float
) -> None:
    model, data = make_model(), make_data(series=1, dtype=np.float32)

    forecast = model.forecast(data.assign(target=data.target * np.float32(factor)), **DRAW).target

    assert np.isfinite(forecast).all()
    size = float(abs(forecast.astype(np.float64)).mean())
    assert 0.01 * (factor or 1.0) < size < 100 * (factor or 1.0)


def test_a_constant_series_gives_a_finite_forecast(smoke: Any) -> None:
    constant = smoke.context.isel(series=[0]) * 0 + 5
    constant["target"].attrs = {}

    forecast = smoke.model.forecast(constant, num_samples=5, num_steps=5, seed=0, progress=False)

    assert np.isfinite(forecast.target).all()


def test_draws_beyond_single_precision_are_refused_with_the_remedy(make_model: Make, make_data: Make) -> None:
    data = make_data(series=1, dtype=np.float32)
    data["target"] = data.target / data.target.max() * np.float32(3.3e38)

    with pytest.raises(
        ValueError, match=r"beyond|leave the numbers.*assign\(target=data\['target'\] / 1e30\)"
    ):
        make_model().forecast(data, **{**DRAW, "num_samples": 50, "guidance": None})


def test_a_lower_bound_clips_draws_in_the_units_of_the_data(make_model: Make, make_data: Make) -> None:
    data = make_data()
    free = make_model().forecast(data, **DRAW).target
    bound = float(free.median())

    bounded = make_model(lower=bound).forecast(data, **DRAW).target

    assert float(free.min()) < bound
    np.testing.assert_array_equal(bounded, np.maximum(free, np.float32(bound)))


def test_dims_coordinates_and_what_is_told(make_model: Make, make_data: Make) -> None:
    data = make_data(features=2)

    forecast = make_model(num_features=2).forecast(data, guidance="square", num_steps=5, **DRAW)

    assert forecast.target.dims == ("sample", "series", "time", "feature")
    assert forecast.target.shape == (4, 3, 4, 2) and forecast.target.attrs == {"units": "MW"}
    np.testing.assert_array_equal(forecast.time, future_times(data, 4))
    expected = {
        "model": "TSDiff", "seed": 0, "seqdyn_version": seqdyn.__version__, "sampler": "ddpm", "num_steps": 5,
        "guidance": "square", "guidance_scale": 0.05, "guidance_point": "proposal",
    }  # fmt: skip
    assert forecast.attrs == expected


def test_the_callers_data_are_left_as_they_were(make_model: Make, make_data: Make) -> None:
    data = make_data()
    before = data.copy(deep=True)

    make_model().forecast(data, **DRAW)

    xr.testing.assert_identical(data, before)


# Guidance
# ---------------------------------------------------------------------------------------------------------


def test_guidance_makes_a_trained_model_follow_the_context(smoke: Any) -> None:
    # Without guidance the hour of the day is anyone's guess (0.29); with it, it is known (0.07).
    context, truth = smoke.context.isel(series=slice(4)), smoke.truth.isel(series=slice(4))
    options = {"num_samples": 20, "seed": 0, "num_steps": 25, "guidance_scale": 2.0, "progress": False}
    score = {
        guidance: crps(smoke.model.forecast(context, guidance=guidance, **options), truth)
        for guidance in ("quantile", None)
    }

    assert score["quantile"] < 0.1 < 0.2 < score[None]


def test_quantile_paths_are_ordered_by_their_levels_on_average(smoke: Any) -> None:
    options = {"num_samples": 20, "seed": 0, "num_steps": 10, "progress": False}

    forecast = smoke.model.forecast(smoke.context.isel(series=slice(4)), guidance_scale=2.0, **options)

    paths = forecast.target.mean(("series", "time", "feature"))
    assert float(paths[:5].mean()) < float(paths[-5:].mean())


def test_the_two_gradient_points_give_close_but_different_forecasts(smoke: Any) -> None:
    options = {"num_samples": 20, "seed": 0, "num_steps": 10, "guidance_scale": 1.0, "progress": False}
    context = smoke.context.isel(series=slice(2))

    proposal, at_x = (
        smoke.model.forecast(context, guidance_point=point, **options) for point in ("proposal", "xt")
    )

    difference = abs(proposal.target - at_x.target)
    assert 0.001 < float(difference.mean()) < 0.5


def test_a_diverging_scale_is_an_error_that_names_it(make_model: Make, make_data: Make) -> None:
    with pytest.raises(
        NonFiniteError, match=r"series 's0' diverged under square.*=1e\+20; try guidance_scale=0\.1\."
    ):
        make_model().forecast(make_data(), guidance="square", guidance_scale=1e20, **DRAW)


def test_forecasts_work_where_gradients_are_switched_off(make_model: Make, make_data: Make) -> None:
    # Lightning validates in inference mode, whose tensors take no part in gradients.
    model, data = make_model(), make_data()
    expected = model.forecast(data, **DRAW)

    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            xr.testing.assert_identical(model.forecast(data, **DRAW), expected)


# Trajectories
# ---------------------------------------------------------------------------------------------------------


def test_states_along_the_way_end_in_the_forecast(make_model: Make, make_data: Make) -> None:
    model, data = make_model(num_features=2, lower=0.0), make_data(features=2)

    forecast = model.forecast(data, trajectory_steps=[8, 4, 0], num_steps=5, **DRAW)

    assert forecast.trajectory.dims == ("step", "sample", "series", "time", "feature")
    assert forecast.step.values.tolist() == [8, 4, 0]
    assert forecast.trajectory.attrs == {"units": "MW"}
    xr.testing.assert_allclose(forecast.trajectory.sel(step=0, drop=True).clip(min=0), forecast.target)
    xr.testing.assert_identical(forecast.target, model.forecast(data, num_steps=5, **DRAW).target)


def test_without_wanted_steps_there_is_no_trajectory(make_model: Make, make_data: Make) -> None:
    forecast = make_model().forecast(make_data(), **DRAW)

    assert set(forecast.data_vars) == {"target"} and "step" not in forecast.coords


# Covariates
# ---------------------------------------------------------------------------------------------------------


def future_of(data: xr.Dataset, steps: int = 4, value: float = 20.0) -> xr.DataArray:
    shape = (data.sizes["series"], steps, data.sizes["covariate"])
    coords = {
        "series": data.series.values,
        "time": future_times(data, steps),
        "covariate": data.covariate.values,
    }
    return xr.DataArray(np.full(shape, value), dims=("series", "time", "covariate"), coords=coords)


def test_known_covariates_of_the_future_have_a_say(make_model: Make, make_data: Make) -> None:
    model, data = make_model(num_covariates=2), make_data(covariates=2)
    model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)

    one, other = (
        model.forecast(data, future_covariates=future_of(data, value=v), **DRAW) for v in (20.0, 25.0)
    )

    assert not one.target.equals(other.target)
    past = data.copy(deep=True)
    past["covariates"][:, -12:] += 5
    assert not one.target.equals(model.forecast(past, future_covariates=future_of(data), **DRAW).target)


def test_covariates_are_matched_by_their_labels_not_by_their_places(
    make_model: Make, make_data: Make
) -> None:
    model, data = make_model(num_covariates=2), make_data(covariates=2)
    future = future_of(data) + xr.DataArray([0.0, 3.0], dims="covariate", coords={"covariate": ["u0", "u1"]})
    future = future + xr.DataArray([0.0, 1.0, 2.0], dims="series", coords={"series": ["s0", "s1", "s2"]})

    shuffled = future.isel(series=[2, 0, 1], covariate=[1, 0]).transpose("covariate", "time", "series")
    longer = future_of(data, steps=9)
    longer[:, :4] = future.transpose("series", "time", "covariate").values

    expected = model.forecast(data, future_covariates=future, **DRAW)
    for same in (shuffled, longer):
        xr.testing.assert_identical(model.forecast(data, future_covariates=same, **DRAW), expected)


def test_batches_see_the_covariates_of_their_own_series(make_model: Make, make_data: Make) -> None:
    model, data = make_model(num_covariates=2).double(), make_data(covariates=2)
    future = future_of(data)
    together = model.forecast(data, future_covariates=future, **DRAW)

    alone = model.forecast(data.isel(series=[1]), future_covariates=future, batch_size=3, **DRAW)

    assert largest_difference(alone, together.sel(series=["s1"]), data) < 1e-8


def driven(series: int, steps: int, seed: int) -> xr.Dataset:
    """A level of 5 pushed up or down by a known switch that no history tells of, and a little noise."""
    generator = np.random.default_rng(seed)
    switch = generator.choice([-1.0, 1.0], (series, steps, 1))
    values = 5 + 3 * switch + 0.3 * generator.standard_normal(switch.shape)
    return xr.Dataset(
        {
            "target": (("series", "time", "feature"), values.astype(np.float32)),
            "covariates": (("series", "time", "covariate"), switch),
        },
        {"series": np.arange(series), "time": np.arange(steps), "feature": ["y"], "covariate": ["switch"]},
    )


def test_a_model_learns_what_a_known_covariate_does(make_model: Make) -> None:
    # After these few steps 0.12 with the switch and 0.41 without; the floor is 0.035 and 0.3.
    train, test = driven(8, 200, seed=0), driven(8, 24, seed=1)
    context, truth = test.isel(time=slice(0, 20)), test.isel(time=slice(20, 24))
    settings = {
        "lags": (),
        "hidden_size": 16,
        "num_blocks": 1,
        "learning_rate": 1e-2,
        "batch_size": 32,
        "batches_per_epoch": 60,
    }
    score = {}
    for count in (1, 0):
        parts = [train, context] if count else [train.drop_dims("covariate"), context.drop_dims("covariate")]
        model = make_model(num_covariates=count, **settings)
        model.fit(parts[0], max_epochs=2, seed=0, enable_progress_bar=False)
        future = truth.covariates if count else None
        forecast = model.forecast(parts[1], num_samples=20, seed=0, future_covariates=future, progress=False)
        score[count] = crps(forecast, truth)

    assert score[1] < 0.17 < 0.3 < score[0]


# On a GPU
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_fit_and_forecast_on_a_gpu_agree_with_the_processor(make_model: Make, make_data: Make) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    data = make_data(covariates=2)
    options = {"future_covariates": future_of(data), **DRAW}
    model: TSDiff = make_model(num_covariates=2).fit(data, max_epochs=2, seed=0, enable_progress_bar=False)
    assert model.device.type == "cuda"
    assert np.isfinite(model.history.train_loss).all()

    on_gpu = model.forecast(data, **options)
    on_cpu = model.cpu().forecast(data, **options)

    # The same noise on both; single precision differs in the last digits, which a chain carries on.
    difference = abs(on_gpu.target - on_cpu.target) / scale_of(data)
    assert float(difference.quantile(0.99)) < 1e-3
    double = model.double()
    exact = [double.to(device).forecast(data, **options) for device in ("cuda", "cpu")]
    assert largest_difference(exact[0], exact[1], data) < 1e-8


@pytest.mark.parametrize(("guidance", "full"), [("quantile", 4.0), ("square", 0.1)])
@pytest.mark.parametrize(("num_steps", "share"), [(None, 1.0), (5, 0.5)])
def test_the_default_guidance_is_in_proportion_to_the_number_of_steps(
    guidance: str, full: float, num_steps: int | None, share: float, make_model: Make, make_data: Make
) -> None:
    # The chain has ten steps; a step of two guides twice as far.
    draw = {**DRAW, "guidance": guidance, "num_steps": num_steps}

    forecast = make_model().forecast(make_data(), **draw)

    assert forecast.attrs["guidance_scale"] == pytest.approx(full * share)
