"""TSDiff: what is built, the windows it sees, how it learns, what is saved (D3, D7, D14, D15)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.metrics import crps
from seqdyn.models import TSDiff, tsdiff
from seqdyn.nn.s4 import S4Layer

Make = Callable[..., Any]
FIT: dict[str, Any] = {"max_epochs": 1, "enable_progress_bar": False}


# Construction
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_covariates", "expected"), [(0, 191_627), (8, 193_355)])
def test_d3_the_hourly_model_has_the_published_number_of_parameters(
    num_covariates: int, expected: int
) -> None:
    model = TSDiff(lags="hourly", num_covariates=num_covariates)

    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_defaults_are_the_papers() -> None:
    hparams = TSDiff().hparams

    paper = {
        "context_length": 336, "prediction_length": 24, "lags": (), "num_diffusion_steps": 100,
        "hidden_size": 64, "num_blocks": 3, "state_size": 128, "embedding_size": 128, "beta_end": 0.1,
        "kernel": "nplr-legs", "init_skip": False, "learning_rate": 1e-3, "batch_size": 64,
        "batches_per_epoch": 128, "lower": None, "num_features": 1, "num_covariates": 0,
    }  # fmt: skip
    assert dict(hparams) == paper
    assert TSDiff.gradient_clip_val == 0.5


def test_named_lags_are_stored_expanded() -> None:
    hourly, daily = (
        dict(TSDiff(lags=name, hidden_size=4, state_size=4).hparams) for name in ("hourly", "daily")
    )

    assert hourly["lags"] == (24, 48, 72, 96, 120, 144, 168, 336, 504, 672)
    assert daily["lags"] == (30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 360)


def test_the_small_preset_is_expanded_before_it_is_stored_and_explicit_arguments_win() -> None:
    small = dict(TSDiff(preset="small").hparams)
    changed = dict(TSDiff(preset="small", context_length=48, lags=(), state_size=16).hparams)

    assert "preset" not in small
    assert (small["context_length"], small["prediction_length"], small["hidden_size"]) == (168, 24, 32)
    assert (small["num_blocks"], small["state_size"], small["num_diffusion_steps"]) == (2, 128, 100)
    assert small["lags"] == (24, 48, 72, 96, 120, 144, 168, 336, 504, 672)
    assert changed == small | {"context_length": 48, "lags": (), "state_size": 16}


def test_numpy_numbers_are_taken_and_stored_as_plain_ones(make_model: Make) -> None:
    model = make_model(context_length=np.int64(12), lags=range(3, 9, 5), lower=np.float32(0.5))

    assert type(model.hparams.context_length) is int
    assert json.loads(json.dumps(dict(model.hparams)))["lags"] == [3, 8]
    assert model.hparams.lower == 0.5


@pytest.mark.parametrize(
    ("features", "lags", "channels"), [(1, (), 1), (1, (3, 8), 3), (2, (3, 8), 6), (3, (1,), 6)]
)
def test_every_feature_has_its_lags_as_channels(
    make_model: Make, features: int, lags: Any, channels: int
) -> None:
    model = make_model(num_features=features, lags=lags)

    assert model.network.num_channels == channels
    assert model.prior_length == max(lags, default=0) and model.window_length == 16


# Windows
# ---------------------------------------------------------------------------------------------------------


class Captured(Exception):
    """Ends a verb once its windows are known."""


def windows_of(
    model: TSDiff, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch, verb: str = "forecast"
) -> Any:
    """The scaled windows and the mask that a verb hands to the sampler."""
    found: list[Any] = []

    def capture(
        predict_noise: Any, schedule: Any, target: Any, observed: Any, *rest: Any, **options: Any
    ) -> Any:
        found.extend([target, observed])
        raise Captured

    monkeypatch.setattr(tsdiff, "draw_paths", capture)
    with pytest.raises(Captured):
        getattr(model, verb)(data, seed=0)
    return found


def test_d7_lag_channels_hold_the_values_and_flags_of_their_lag(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # s[j] = j + 1 over 100 steps, context 30, horizon 48: the window is the steps 70 to 147.
    data = make_data(series=1, steps=100)
    data["target"][0, :, 0] = np.arange(1.0, 101.0)
    model = make_model(context_length=30, prediction_length=48, lags=(24, 60)).double()

    values, observed = windows_of(model, data, monkeypatch)

    scale = np.arange(71, 101).mean()
    time = np.arange(70, 148)
    for channel, lag in enumerate((0, 24, 60)):
        known = time - lag < 100
        np.testing.assert_array_equal(observed[0, :, channel], known)
        expected = np.where(known, time - lag + 1, 0) / scale
        np.testing.assert_allclose(values[0, :, channel], expected, rtol=1e-12)
    assert (
        observed[0, -24:, 1].sum() == 0 and observed[0, :-24, 1].all()
    )  # of lag 24 the last 24 flags are false
    assert observed[0, :, 2].all()


def test_d7_missing_steps_are_missing_in_every_channel_that_shows_them(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(series=2, features=2)
    mask = np.ones((2, 40, 2), dtype=bool)
    mask[1, 30, 0] = False
    model = make_model(num_features=2)

    values, observed = windows_of(
        model, data.assign(observed=(("series", "time", "feature"), mask)), monkeypatch
    )

    # Window steps 28 … 43; channels: (y0, y1) now, 3 steps ago, 8 steps ago.
    missing = [tuple(cell) for cell in np.argwhere(~observed[1, :12].numpy())]
    assert missing == [(2, 0), (5, 2), (10, 4)]
    assert observed[0, :12].all()
    assert not values[~observed].any()


def test_features_are_scaled_by_their_own_context(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(series=2, features=2)
    data["target"][:, :, 1] *= -100.0

    values, _ = windows_of(make_model(num_features=2).double(), data, monkeypatch)

    np.testing.assert_allclose(values[:, :12, :2].abs().mean(1), 1.0)
    context = data.target.values[:, -12:]
    np.testing.assert_allclose(values[:, :12, :2], context / np.abs(context).mean(1, keepdims=True))


@pytest.mark.filterwarnings("ignore::seqdyn.errors.EarlyEndWarning")
@pytest.mark.parametrize("hidden", [1, 11, 12, 13, 25])  # of the window's last 12 + 8 steps
def test_a_series_that_ends_early_is_scaled_by_its_last_values(
    hidden: int, make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(series=1)
    mask = np.ones((1, 40), dtype=bool)
    mask[0, -hidden:] = False

    values, observed = windows_of(
        make_model().double(), data.assign(observed=(("series", "time"), mask)), monkeypatch
    )

    end = 40 - hidden
    series = data.target.values[0, :, 0]
    level = series[end - 12 : end].mean()
    seen = np.arange(20, 36) < end  # what lies 8 steps before the window's 16
    np.testing.assert_allclose(values[0, :, 2], np.where(seen, series[20:36], 0) / level)
    assert observed[0, :, 2].tolist() == seen.tolist()
    assert observed[0, :, 0].sum() == max(12 - hidden, 0)


def test_a_history_shorter_than_the_context_is_unobserved_on_the_left(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(series=2, steps=5)

    values, observed = windows_of(make_model(), data, monkeypatch)

    assert observed.shape == (2, 16, 3)
    assert observed[0, :, 0].tolist() == [False] * 7 + [True] * 5 + [False] * 4
    assert observed[0, :, 1].tolist() == [False] * 10 + [True] * 5 + [False]
    assert not values[~observed].any()


# Training
# ---------------------------------------------------------------------------------------------------------


def batch_of(model: TSDiff, data: xr.Dataset) -> dict[str, torch.Tensor]:
    loader = model.datamodule(data).train_dataloader()
    return next(iter(loader))


def test_the_loss_is_the_mean_squared_error_of_the_noise_over_observed_cells(
    make_model: Make, make_data: Make
) -> None:
    data = make_data(features=2, covariates=2)
    mask = np.random.default_rng(1).random((3, 40, 2)) < 0.8
    mask[:, [0, -1]] = True
    data = data.assign(target=data.target.where(mask), observed=(("series", "time", "feature"), mask))
    model = make_model(num_features=2, num_covariates=2).double()
    batch = batch_of(model, data)
    torch.manual_seed(5)

    loss = model.loss(batch)["loss"]

    torch.manual_seed(5)
    windows = model._windows(batch["target"].double(), batch["observed"])
    step = torch.randint(10, (len(windows.values),))
    noise = torch.randn_like(windows.values)
    x = model.schedule.add_noise(windows.values, step, noise)
    known = model.covariate_scaler(batch["covariates"].double())[:, 8:]
    error = (model.network(x, step, known) - noise).square()
    torch.testing.assert_close(loss, error[windows.observed].mean())
    assert not windows.observed.all()


def test_a_missing_value_has_no_say_in_the_loss(make_model: Make, make_data: Make) -> None:
    model = make_model()
    batch = batch_of(model, make_data())
    batch["observed"][:, 9] = batch["observed"][:, 20] = False
    losses = []
    for value in (0.0, 1e6):
        batch["target"][~batch["observed"]] = value
        torch.manual_seed(0)
        losses.append(model.loss(batch)["loss"])

    assert torch.equal(losses[0], losses[1])


def test_the_gradient_reaches_every_parameter_that_is_read(make_model: Make, make_data: Make) -> None:
    model = make_model(num_covariates=2)

    model.loss(batch_of(model, make_data(covariates=2)))["loss"].backward()

    unread = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert unread == {"network.blocks.1.residual.weight", "network.blocks.1.residual.bias"}


def test_the_kernel_is_evaluated_once_per_training_step_and_once_per_forecast(
    make_model: Make, make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    evaluate = S4Layer.kernel
    monkeypatch.setattr(S4Layer, "kernel", lambda self: calls.append(id(self)) or evaluate(self))
    model, data = make_model(), make_data()
    monkeypatch.setattr(type(model.network), "windows_at_a_time", lambda self, device: 1)  # many parts

    model.fit(data, seed=0, **FIT)
    assert len(calls) == 2 * 3  # two blocks, three steps
    calls.clear()
    model.forecast(data, num_samples=3, seed=0, batch_size=2, progress=False)

    assert len(calls) == 2


def test_covariates_are_standardised_by_the_training_data_once(make_model: Make, make_data: Make) -> None:
    data = make_data(covariates=2)
    model = make_model(num_covariates=2).fit(data, seed=0, **FIT)
    values = data.covariates.values.reshape(-1, 2)

    np.testing.assert_allclose(model.covariate_scaler.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.covariate_scaler.std, values.std(0), rtol=1e-6)
    model.fit(
        data.assign(covariates=data.covariates * 100), **FIT
    )  # goes on from its weights, hence its scaling
    np.testing.assert_allclose(model.covariate_scaler.mean, values.mean(0), rtol=1e-6)


def test_a_double_precision_model_trains_and_forecasts_in_double(make_model: Make, make_data: Make) -> None:
    model, data = make_model().double(), make_data()

    model.fit(data, seed=0, **FIT)

    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.forecast(data, num_samples=2, seed=0, progress=False).target.dtype == np.float64


def test_windows_without_missing_prior_are_long_enough_for_the_lags(
    make_model: Make, make_data: Make
) -> None:
    batch = batch_of(make_model(), make_data())

    assert batch["target"].shape == (4, 8 + 12 + 4, 1)


def test_d14_the_smoke_configuration_learns_noisy_daily_sines(smoke: Any) -> None:
    # CRPS over 8 series of 24 steps: 0.069 with a standard error near 0.002; the floor of the noise is 0.056,
    # seasonal naive has 0.116, a flat context mean 0.386.
    forecast = smoke.model.forecast(
        smoke.context, num_samples=20, seed=0, guidance_scale=2.0, batch_size=160, progress=False
    )

    assert float(smoke.model.history.train_loss[-1]) < 0.2
    assert float(smoke.model.history.train_loss[0]) > 0.5
    assert crps(forecast, smoke.truth) < 0.08


# Saving
# ---------------------------------------------------------------------------------------------------------


def test_d15_a_saved_model_samples_bit_for_bit_alike(smoke: Any, tmp_path: Path) -> None:
    smoke.model.save(tmp_path / "model")

    loaded = TSDiff.load(tmp_path / "model")

    assert dict(loaded.hparams) == dict(smoke.model.hparams)
    state, expected = loaded.state_dict(), smoke.model.state_dict()
    assert {"schedule.beta", "schedule.alpha_bar"} <= state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert [loaded.schedule.level(t) for t in range(-1, 50)] == [
        smoke.model.schedule.level(t) for t in range(-1, 50)
    ]
    options = {"seed": 3, "num_steps": 5, "progress": False}
    xr.testing.assert_identical(loaded.sample(4, **options), smoke.model.sample(4, **options))
    context = smoke.context.isel(series=[0])
    xr.testing.assert_identical(
        loaded.forecast(context, num_samples=4, **options),
        smoke.model.forecast(context, num_samples=4, **options),
    )


def test_d15_the_statistics_of_covariates_come_back(
    make_model: Make, make_data: Make, tmp_path: Path
) -> None:
    model = make_model(num_covariates=2).fit(make_data(covariates=2), seed=0, **FIT)
    model.save(tmp_path / "model")

    loaded = TSDiff.load(tmp_path / "model")

    assert torch.equal(loaded.covariate_scaler.mean, model.covariate_scaler.mean)
    assert torch.equal(loaded.covariate_scaler.std, model.covariate_scaler.std)
