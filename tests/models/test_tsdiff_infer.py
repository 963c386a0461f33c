"""TSDiff's other verbs: filling gaps with ``infer`` and drawing windows with ``sample``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from seqdyn.models import TSDiff, tsdiff

Make = Callable[..., Any]
DRAW: dict[str, Any] = {"num_samples": 3, "seed": 0, "progress": False}


def with_gaps(data: xr.Dataset, share: float = 0.2, seed: int = 0) -> xr.Dataset:
    """Some cells missing, the first and last step of every series observed."""
    mask = np.random.default_rng(seed).random(data.target.shape) >= share
    mask[:, [0, -1]] = True
    return data.assign(target=data.target.where(mask), observed=(data.target.dims, mask))


# Filling gaps
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 2])
def test_observed_values_come_back_as_they_are_and_gaps_are_filled(
    make_model: Make, make_data: Make, features: int
) -> None:
    data = with_gaps(make_data(features=features))

    filled = make_model(num_features=features).infer(data, **DRAW)

    assert filled.target.dims == ("sample", "series", "time", "feature")
    assert filled.target.sizes["sample"] == 3 and filled.target.attrs == {"units": "MW"}
    seen = data.observed.values
    for sample in filled.target.values:
        np.testing.assert_array_equal(sample[seen], data.target.values[seen])
    gaps = filled.target.values[:, ~seen]
    assert np.isfinite(gaps).all() and (np.ptp(gaps, axis=0) > 0).all()
    np.testing.assert_array_equal(filled.observed, seen)
    xr.testing.assert_identical(filled.time, data.time)
    expected = {
        "model": "TSDiff",
        "seed": 0,
        "guidance": "quantile",
        "guidance_scale": 4.0,
        "sampler": "ddpm",
    }
    assert expected.items() <= filled.attrs.items()


def test_the_data_handed_in_are_left_as_they_were(make_model: Make, make_data: Make) -> None:
    data = with_gaps(make_data())
    before = data.copy(deep=True)

    make_model().infer(data, **DRAW)

    xr.testing.assert_identical(data, before)


def test_what_lies_before_a_series_begins_and_after_it_ends_stays_missing(
    make_model: Make, make_data: Make
) -> None:
    data = make_data()
    mask = np.ones((3, 40, 1), dtype=bool)
    mask[0, :7] = mask[0, 20] = mask[1, 30:] = mask[1, 11:13] = False
    data = data.assign(target=data.target.where(mask), observed=(data.target.dims, mask))

    filled = make_model().infer(data, **DRAW)

    missing = np.isnan(filled.target.values).any(axis=0)[:, :, 0]
    assert np.flatnonzero(missing[0]).tolist() == list(range(7))
    assert np.flatnonzero(missing[1]).tolist() == list(range(30, 40))
    assert not missing[2].any()


def test_without_gaps_the_data_come_back_and_nothing_is_run(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("nothing is to be drawn")

    monkeypatch.setattr(tsdiff, "draw_paths", never)
    data = make_data()

    filled = make_model().infer(data, **DRAW)

    for sample in range(3):
        xr.testing.assert_equal(filled.target.isel(sample=sample, drop=True), data.target)
    assert filled.observed.all()


@pytest.mark.parametrize("steps", [3, 16, 17])
def test_series_shorter_than_a_window_are_filled_too(make_model: Make, make_data: Make, steps: int) -> None:
    data = make_data(steps=steps)
    mask = np.ones((3, steps, 1), dtype=bool)
    mask[:, 1] = False

    filled = make_model().infer(data.assign(observed=(data.target.dims, mask)), **DRAW)

    assert np.isfinite(filled.target).all()
    assert (filled.target[:, :, 1] != data.target[:, 1]).all()


@pytest.mark.parametrize("features", [1, 2])
def test_a_gap_longer_than_a_window_is_filled_at_the_level_before_it(
    make_model: Make, make_data: Make, features: int
) -> None:
    data = make_data(steps=200, features=features)
    mask = np.ones((3, 200, features), dtype=bool)
    mask[2, 40:180, 0] = False
    model = make_model(num_features=features)

    filled = model.infer(data.assign(observed=(data.target.dims, mask)), **DRAW)["target"]
    twice = model.infer((2 * data).assign(observed=(data.target.dims, mask)), **DRAW)["target"]

    assert np.isfinite(filled).all()
    np.testing.assert_allclose(twice, 2 * filled, rtol=1e-4)
    np.testing.assert_array_equal(filled[:, :2], np.broadcast_to(data["target"][:2], filled[:, :2].shape))


def test_draws_between_whole_numbers_stay_between_them(make_model: Make, make_data: Make) -> None:
    data = make_data(dtype=np.int64)
    mask = np.ones((3, 40), dtype=bool)
    mask[:, 5:20] = False

    filled = make_model().infer(data.assign(observed=(("series", "time"), mask)), **DRAW)

    assert filled.target.dtype == np.float64
    assert (filled.target[:, :, 5:20] % 1 != 0).all()
    np.testing.assert_array_equal(filled.target[0, :, :5], data.target[:, :5])


def test_the_filled_values_do_not_depend_on_batches_order_or_company(
    make_model: Make, make_data: Make
) -> None:
    model, data = make_model().double(), with_gaps(make_data())
    together = model.infer(data, batch_size=100, **DRAW).target

    for other in (
        model.infer(data, batch_size=2, **DRAW).target,
        model.infer(data.isel(series=[2, 0, 1]), **DRAW).target,
        model.infer(data.isel(series=[1]), **DRAW).target,
    ):
        expected = together.sel(series=other.series)
        scale = abs(data.target).mean("time").sel(series=other.series)
        assert float((abs(other - expected) / scale).max()) < 1e-8


def test_equal_seeds_fill_alike_and_others_differ(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), with_gaps(make_data())

    first = model.infer(data, **DRAW)

    xr.testing.assert_identical(model.infer(data, **DRAW), first)
    assert not first.target.equals(model.infer(data, **{**DRAW, "seed": 1}).target)


def test_what_stands_in_a_gap_changes_no_bit(make_model: Make, make_data: Make) -> None:
    model, data = make_model(), with_gaps(make_data())
    other = data.assign(target=data.target.fillna(1e9))

    first, second = (model.infer(d, **DRAW).target.values for d in (data, other))

    np.testing.assert_array_equal(first, second)


def test_a_lower_bound_holds_in_the_gaps_and_leaves_observations_alone(
    make_model: Make, make_data: Make
) -> None:
    data = with_gaps(make_data())
    seen = data.observed.values
    bound = float(make_model().infer(data, **DRAW).target.median())

    filled = make_model(lower=bound).infer(data, **DRAW).target.values

    assert filled[:, ~seen].min() == np.float32(bound)
    assert filled[:, seen].min() < bound


def test_values_near_a_gap_on_both_sides_have_a_say(make_model: Make, make_data: Make) -> None:
    data = make_data(series=1)
    mask = np.ones((1, 40), dtype=bool)
    mask[0, 20] = False
    data = data.assign(observed=(("series", "time"), mask))
    model = make_model()
    first = model.infer(data, **DRAW).target[:, 0, 20]

    for step in (19, 21):
        changed = data.copy(deep=True)
        changed["target"][0, step] *= 1.5
        assert not first.equals(model.infer(changed, **DRAW).target[:, 0, 20])


def test_covariates_have_a_say_in_the_gaps(make_model: Make, make_data: Make) -> None:
    data = with_gaps(make_data(covariates=2))
    model = make_model(num_covariates=2)
    first = model.infer(data, **DRAW).target

    other = model.infer(data.assign(covariates=data.covariates + 5), **DRAW).target

    assert np.isfinite(first).all() and not first.equals(other)


def smooth_covariance(length: int) -> np.ndarray:
    """Covariance of smooth Gaussian windows of mean absolute value 1."""
    n = np.arange(length)
    return np.pi / 2 * (0.98 * np.exp(-0.5 * ((n[:, None] - n) / 3) ** 2) + 0.02 * np.eye(length))


def test_with_an_exact_denoiser_gaps_are_filled_along_the_conditional_mean(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Self-guidance is not exact conditioning: it goes the right way, and most of it. 20 series, 20 draws.
    length, steps = 24, 100
    covariance = smooth_covariance(length)
    model = make_model(
        lags=(), context_length=20, prediction_length=4, num_diffusion_steps=steps, beta_end=0.1
    ).double()
    maps = []
    for level in map(model.schedule.level, range(steps)):
        total = level * covariance + (1 - level) * np.eye(length)
        clean = np.sqrt(level) * covariance @ np.linalg.inv(total)
        maps.append((np.eye(length) - np.sqrt(level) * clean) / np.sqrt(1 - level))
    table = torch.tensor(np.stack(maps))

    def predict_noise(x: Tensor, step: Tensor) -> Tensor:
        return torch.einsum("ij,bjc->bic", table[int(step[0])], x)

    monkeypatch.setattr(model, "_frozen", lambda: predict_noise)
    truth = 3 * np.random.default_rng(0).multivariate_normal(np.zeros(length), covariance, size=20)
    seen = np.ones(length, dtype=bool)
    seen[9:14] = False
    data = xr.Dataset(
        {
            "target": (("series", "time", "feature"), np.where(seen, truth, np.nan)[:, :, None]),
            "observed": (("series", "time"), np.tile(seen, (20, 1))),
        },
        {"series": np.arange(20), "time": np.arange(length), "feature": ["y"]},
    )

    filled = model.infer(data, guidance="square", guidance_scale=2.0, num_samples=20, seed=0, progress=False)

    draws = filled.target.values[:, :, ~seen, 0]
    weights = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, ~seen)])
    conditional = truth[:, seen] @ weights
    error = np.sqrt(np.mean((draws.mean(0) - conditional) ** 2))
    assert np.corrcoef(draws.mean(0).ravel(), conditional.ravel())[0, 1] > 0.9
    assert error < 0.45 * np.sqrt(np.mean(conditional**2))
    # Missing values are drawn together: steps between independent neighbours would be 1.4 times as large as
    # their deviation.
    deviation = draws - draws.mean(0)
    assert np.abs(np.diff(deviation)).mean() < 0.8 * np.abs(deviation).mean()


def test_a_trained_model_fills_half_a_period_of_a_sine(smoke: Any) -> None:
    # Noise of 0.5 around the sine; a straight line across the gap is off by 1.9 on average.
    clean = smoke.clean.isel(series=slice(4))
    data = xr.concat([smoke.context, smoke.truth], "time").isel(series=slice(4))
    mask = np.ones((4, data.sizes["time"]), dtype=bool)
    mask[:, 200:212] = False
    data = data.assign(observed=(("series", "time"), mask), target=data.target.where(mask[:, :, None]))

    filled = smoke.model.infer(data, num_samples=10, seed=0, num_steps=25, guidance_scale=2.0, progress=False)

    gap = slice(200, 212)
    error = filled.target.mean("sample")[:, gap] - clean.target[:, gap]
    straight = data.target.interpolate_na("time")[:, gap] - clean.target[:, gap]
    assert float((error**2).mean()) ** 0.5 < 0.6 < 1.0 < float((straight**2).mean()) ** 0.5


# Drawing windows
# ---------------------------------------------------------------------------------------------------------


def test_a_sample_has_windows_in_scaled_units(make_model: Make) -> None:
    sample = make_model(num_features=2).sample(5, seed=0, progress=False)

    assert sample.target.dims == ("sample", "time", "feature") and sample.target.shape == (5, 16, 2)
    assert sample.target.attrs == {"units": "scaled"}
    assert sample.time.values.tolist() == list(range(16))
    assert sample.feature.values.tolist() == ["feature_0", "feature_1"]
    expected = {"model": "TSDiff", "seed": 0, "guidance": "none", "sampler": "ddpm", "num_steps": "all"}
    assert expected.items() <= sample.attrs.items()
    assert np.isfinite(sample.target).all()


def test_a_fitted_model_names_the_features_it_has_seen(make_model: Make, make_data: Make) -> None:
    data = make_data(features=2).assign_coords(feature=["load", "wind"])
    model = make_model(num_features=2).fit(data, max_epochs=1, seed=0, enable_progress_bar=False)

    assert model.sample(1, seed=0, progress=False).feature.values.tolist() == ["load", "wind"]


def test_windows_of_a_trained_model_are_scaled_daily_sines(smoke: Any) -> None:
    # Scaled by about 5, windows are 1 + 0.6 sin + 0.1 noise: size 1 and a strong daily period.
    windows = smoke.model.sample(20, seed=0, num_steps=25, progress=False).target.values[:, :, 0]

    assert np.abs(windows[:, :96]).mean() == pytest.approx(1.0, abs=0.15)
    centred = windows - windows.mean(1, keepdims=True)
    variance = (centred**2).mean()
    assert variance == pytest.approx(0.5 * 0.6**2 + 0.1**2, rel=0.4)
    assert (centred[:, 24:] * centred[:, :-24]).mean() > 0.6 * variance
    assert (centred[:, 12:] * centred[:, :-12]).mean() < -0.4 * variance


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_windows_belong_to_seed_and_index(make_model: Make, sampler: str) -> None:
    model: TSDiff = make_model().double()
    options: dict[str, Any] = {"sampler": sampler, "progress": False}

    many = model.sample(6, seed=0, **options)

    xr.testing.assert_identical(model.sample(6, seed=0, **options), many)
    np.testing.assert_allclose(model.sample(3, seed=0, **options).target, many.target[:3], atol=1e-10)
    np.testing.assert_allclose(
        model.sample(6, seed=0, batch_size=4, **options).target, many.target, atol=1e-10
    )
    assert not np.isclose(model.sample(6, seed=1, **options).target, many.target).any()


def test_the_covariates_of_a_window_have_a_say_in_any_order_of_dims(make_model: Make) -> None:
    model = make_model(num_covariates=2)
    known = xr.DataArray(np.random.default_rng(0).normal(size=(16, 2)), dims=("time", "covariate"))
    options: dict[str, Any] = {"seed": 0, "progress": False}

    sample = model.sample(2, covariates=known, **options)

    xr.testing.assert_identical(model.sample(2, covariates=known.transpose(), **options), sample)
    assert not sample.target.equals(model.sample(2, covariates=known + 1, **options).target)
