"""Malformed arguments of TSDiff and its verbs: each message names its remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import seqdyn
from seqdyn.data import future_times
from seqdyn.data.schema import describe
from seqdyn.data.sequences import SequenceDataModule
from seqdyn.errors import EarlyEndWarning, NotFittedError
from seqdyn.models import TSDiff

Make = Callable[..., Any]
DRAW: dict[str, Any] = {"num_samples": 2, "seed": 0, "progress": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "tiny"}, r"preset must be one of \('paper', 'small'\), got 'tiny'"),
        ({"lags": "weekly"}, "lags must be 'hourly' or 'daily' or a list of steps, got 'weekly'"),
        ({"lags": 24}, r"different whole numbers of steps.*got 24; for instance lags=\[24, 168\]"),
        ({"lags": [24, 0]}, "at least 1 each, got"),
        ({"lags": [24, 24]}, "different whole numbers"),
        ({"lags": [1.5]}, r"whole numbers of steps, at least 1 each, got \[1.5\]"),
        ({"context_length": 0}, "context_length must be a whole number of at least 1, got 0"),
        ({"prediction_length": 24.0}, "prediction_length must be a whole number of at least 1, got 24.0"),
        ({"num_features": 0}, "num_features must be a whole number of at least 1, got 0"),
        ({"num_diffusion_steps": -1}, "num_diffusion_steps must be a whole number of at least 1, got -1"),
        ({"num_covariates": -1}, "num_covariates must be a whole number of at least 0, got -1"),
        ({"num_covariates": 1.5}, "num_covariates must be a whole number of at least 0, got 1.5"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number of at least 1, got '64'"),
        ({"batches_per_epoch": 0}, "batches_per_epoch must be a whole number of at least 1, got 0"),
        ({"state_size": 7}, "state_size must be even and at least 2, got 7; try 8"),
        ({"embedding_size": 5}, "embedding_size must be even and at least 4, got 5; try 128"),
        ({"kernel": "s4"}, r"kernel must be one of \('nplr-legs', 's4d-legs', 's4d-lin'\), got 's4'"),
        ({"lower": "0"}, "lower must be a finite number in the units of the data, got '0'; 0.0 for counts"),
        ({"lower": float("nan")}, "lower must be a finite number .* got nan"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0; the usual value is 1e-3"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"beta_end": 1.0}, "beta_end must lie between 1e-4 and 1, got 1.0; the usual value is 0.1"),
    ],
)
def test_a_model_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TSDiff(**arguments)


DATA_VERBS = pytest.mark.parametrize("verb", ["forecast", "infer", "datamodule"])


def call(model: TSDiff, verb: str, data: Any, **options: Any) -> Any:
    return getattr(model, verb)(data, **({} if verb == "datamodule" else {**DRAW, **options}))


@DATA_VERBS
def test_another_number_of_features_is_refused_with_both_ways_out(
    make_model: Make, make_data: Make, verb: str
) -> None:
    message = (
        r"2 feature\(s\) \['y0', 'y1'\].*num_features=1; build it with num_features=2 or.*data.sel\(feature="
    )
    with pytest.raises(ValueError, match=message):
        call(make_model(), verb, make_data(features=2))


@DATA_VERBS
def test_covariates_that_the_model_does_not_know_are_refused(
    make_model: Make, make_data: Make, verb: str
) -> None:
    model, data = make_model(), make_data(covariates=2)

    with pytest.raises(ValueError, match=r"num_covariates=2, or drop them: data.drop_vars\('covariates'\)"):
        call(model, verb, data)

    call(model, verb, data.drop_vars("covariates"))  # what the message says to type is enough


@DATA_VERBS
def test_covariates_that_the_model_misses_are_asked_for(make_model: Make, make_data: Make, verb: str) -> None:
    with pytest.raises(ValueError, match=r"have 0 covariate\(s\).*num_covariates=2.*covariates=\[\.\.\.\]"):
        call(make_model(num_covariates=2), verb, make_data())


@DATA_VERBS
def test_an_array_is_refused_with_the_way_to_convert_it(make_model: Make, verb: str) -> None:
    with pytest.raises(ValueError, match="expected an xarray.Dataset, got ndarray.*from_numpy"):
        call(make_model(), verb, np.ones((2, 40, 1)))


def test_validation_data_are_checked_too(make_model: Make, make_data: Make) -> None:
    with pytest.raises(ValueError, match="num_features=2"):
        make_model().datamodule(make_data(), make_data(features=2))


@pytest.mark.parametrize("verb", ["forecast", "infer", "sample"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 3}, "must divide the 10 diffusion steps, got 3; try num_steps=2 or 5"),
        ({"sampler": "euler"}, r"sampler must be one of \('ddpm', 'ddim'\), got 'euler'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
        ({"num_samples": 2.0}, "num_samples must be a whole number of at least 1, got 2.0"),
    ],
)
def test_options_of_a_draw_are_checked_by_every_verb(
    make_model: Make, make_data: Make, verb: str, options: dict[str, Any], message: str
) -> None:
    data = () if verb == "sample" else (make_data(),)
    with pytest.raises(ValueError, match=message):
        getattr(make_model(), verb)(*data, **{**DRAW, **options})


@pytest.mark.parametrize("verb", ["forecast", "infer"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "mean"}, r"guidance must be one of \('quantile', 'square'\) or None, got 'mean'"),
        ({"guidance_point": "x0"}, r"guidance_point must be one of \('proposal', 'xt'\), got 'x0'"),
        (
            {"guidance_scale": 0.0},
            "a positive number, got 0.0; for draws without guidance pass guidance=None",
        ),
        ({"guidance_scale": float("inf")}, "a positive number, got inf"),
    ],
)
def test_options_of_guidance_are_checked(
    make_model: Make, make_data: Make, verb: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(make_model(), verb, make_data(), **options)


def test_filling_gaps_without_guidance_is_refused_with_the_verb_that_does_it(
    make_model: Make, make_data: Make
) -> None:
    with pytest.raises(ValueError, match=r"guidance='quantile' or 'square'; without data use sample\(\)"):
        make_model().infer(make_data(), guidance=None, **DRAW)


def test_states_of_steps_that_are_not_visited_are_refused_with_those_that_are(
    make_model: Make, make_data: Make
) -> None:
    with pytest.raises(ValueError, match=r"among the steps used, \[0, 2, 4, 6, 8\], got \[9\]"):
        make_model().forecast(make_data(), trajectory_steps=[8, 9], num_steps=5, **DRAW)


def test_a_feature_that_was_never_observed_is_refused_by_name(make_model: Make, make_data: Make) -> None:
    data = make_data(features=2)
    mask = np.ones((3, 40, 2), dtype=bool)
    mask[1, :, 1] = False
    data = data.assign(observed=(data.target.dims, mask))

    for verb in ("forecast", "infer"):
        with pytest.raises(
            ValueError, match=r"'s1' has no observed value of 'y1'.*drop_sel\(series=\['s1'\]\)"
        ):
            getattr(make_model(num_features=2), verb)(data, **DRAW)


def test_a_series_that_ended_before_the_window_is_forecast_from_its_level(
    make_model: Make, make_data: Make
) -> None:
    # The window looks at the last 8 + 12 steps.
    data = make_data()
    mask = np.ones((3, 40), dtype=bool)
    mask[1, 20:] = False
    dead = data.assign(observed=(("series", "time"), mask))
    model = make_model()

    with pytest.warns(EarlyEndWarning, match="'s1' ends before the data do"):
        forecast = model.forecast(dead, **DRAW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a gap no longer than the forecast is none
        model.forecast(dead.isel(time=slice(0, 24)), **DRAW)
    with pytest.warns(EarlyEndWarning):
        louder = model.forecast(dead.assign(target=dead["target"] * 8), **DRAW)

    assert np.isfinite(forecast["target"]).all()
    np.testing.assert_allclose(louder["target"], 8 * forecast["target"], rtol=1e-5)
    alive = model.forecast(data, **DRAW).sel(series=["s0", "s2"])
    np.testing.assert_allclose(forecast["target"].sel(series=["s0", "s2"]), alive["target"], rtol=1e-4)
    with pytest.warns(UserWarning, match=r"1 of 3 series are observed in no window .* first is 's1'"):
        scores = seqdyn.evaluate(model, dead, num_windows=1, num_samples=2, seed=0, progress=False)
    assert (scores["num_observed"].sum("window") > 0).values.tolist() == [True, False, True]


def future_of(data: xr.Dataset, steps: int = 4) -> xr.DataArray:
    coords = {
        "series": data.series.values,
        "time": future_times(data, steps),
        "covariate": data.covariate.values,
    }
    return xr.DataArray(np.zeros((3, steps, 2)), dims=("series", "time", "covariate"), coords=coords)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda future: None, r"its 2 covariate\(s\) over the next 4 steps: pass future_covariates="),
        (
            lambda future: future.values,
            r"must be a DataArray with dims and coordinates.*got ndarray; name them",
        ),
        (lambda future: future.to_dataset(name="covariates"), r"must be a DataArray.*name them"),
        (lambda future: future.isel(covariate=0, drop=True), r"got \('series', 'time'\); name them"),
        (
            lambda future: future.drop_vars("series"),
            r"dims and coordinates \('series', 'time', 'covariate'\)",
        ),
        (
            lambda future: future.isel(time=slice(3)),
            r"cover every series and covariate.*2024-01-02T16.*missing",
        ),
        (lambda future: future.isel(series=[0, 1]), "cover every series and covariate"),
        (lambda future: future.isel(covariate=[0]), "cover every series and covariate"),
        (
            lambda future: future.where(future.time > future.time[0]),
            r"NaN or infinity; fill them.*ffill\('time'\)",
        ),
    ],
)
def test_covariates_of_the_future_that_do_not_fit_are_refused(
    make_model: Make, make_data: Make, change: Callable[[xr.DataArray], Any], message: str
) -> None:
    data = make_data(covariates=2)

    with pytest.raises(ValueError, match=message):
        make_model(num_covariates=2).forecast(data, future_covariates=change(future_of(data)), **DRAW)


def test_covariates_for_a_model_without_are_refused(make_model: Make, make_data: Make) -> None:
    future = future_of(make_data(covariates=2))

    with pytest.raises(ValueError, match="takes no covariates: leave out future_covariates"):
        make_model().forecast(make_data(), future_covariates=future, **DRAW)
    with pytest.raises(ValueError, match="takes no covariates: leave them out"):
        make_model().sample(1, covariates=future[0])


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        (None, r"pass covariates= with sizes {'time': 16, 'covariate': 2}, got NoneType"),
        (np.zeros((16, 2)), "got ndarray"),
        (xr.DataArray(np.zeros((15, 2)), dims=("time", "covariate")), r"got {'time': 15, 'covariate': 2}"),
        (xr.DataArray(np.zeros((16, 2)), dims=("time", "feature")), r"got {'time': 16, 'feature': 2}"),
        (
            xr.DataArray(np.full((16, 2), np.nan), dims=("time", "covariate")),
            r"NaN or infinity.*ffill\('time'\)",
        ),
    ],
)
def test_covariates_of_a_window_that_do_not_fit_are_refused(
    make_model: Make, covariates: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(num_covariates=2).sample(1, covariates=covariates, progress=False)


def test_series_too_short_to_train_on_are_refused_with_the_lengths(make_model: Make, make_data: Make) -> None:
    # Prior 8, context 12, forecast 4.
    with pytest.raises(ValueError, match="a window needs 24 steps, but the longest series"):
        make_model().fit(make_data(steps=23), max_epochs=1, seed=0, enable_progress_bar=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.assign_coords(feature=["other"]), r"the features \['other'\].*data.sel\(feature="),
        (lambda data: data.isel(time=slice(None, None, 2)), "frequency .* the training data had 'h'"),
    ],
)
@pytest.mark.parametrize("verb", ["forecast", "infer"])
def test_data_unlike_the_training_data_are_refused(
    change: Any, message: str, verb: str, make_model: Make, make_data: Make
) -> None:
    data, model = make_data(steps=100), make_model()
    model.data_info = describe(data)
    other = change(data)
    if "freq" in other.time.attrs and other.sizes["time"] < 100:
        other.time.attrs["freq"] = "2h"

    with pytest.raises(ValueError, match=message):
        getattr(model, verb)(other, **DRAW)


@pytest.mark.parametrize("verb", ["forecast", "infer", "sample"])
def test_verbs_need_a_fitted_model(verb: str, make_data: Make) -> None:
    model = TSDiff(context_length=8, prediction_length=4, hidden_size=8, num_blocks=1, state_size=8)

    with pytest.raises(NotFittedError, match=r"call model.fit\(data\)"):
        getattr(model, verb)(4 if verb == "sample" else make_data())


@pytest.mark.parametrize("length", [11, 13])
def test_windows_of_another_length_are_refused(length: int, make_model: Make, make_data: Make) -> None:
    model = make_model(lags=())
    wanted = model.window_length
    windows = SequenceDataModule(make_data(), length=wanted + length - 12)

    with pytest.raises(
        ValueError, match=rf"windows of {wanted + length - 12} steps, this model needs {wanted}"
    ):
        model.fit(windows, max_epochs=1, enable_progress_bar=False)
