"""What every model of the namespace promises, one line a model.

A line gives a factory, the arguments of its fit, and the verbs it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import safetensors.torch
import torch
import xarray as xr

import seqdyn
from seqdyn.data import stack_snapshots
from seqdyn.datasets import hmm as processes
from seqdyn.errors import EarlyEndWarning
from seqdyn.models import (
    HMMRNN,
    LinearForecaster,
    SchrodingerBridge,
    SeasonalEnsemble,
    SeasonalNaive,
    TSDiff,
)
from seqdyn.models.base import Model


def tsdiff() -> TSDiff:
    return TSDiff(
        context_length=24, prediction_length=6, lags=(), hidden_size=8, num_blocks=1, state_size=8,
        embedding_size=8, num_diffusion_steps=8, batch_size=8, batches_per_epoch=4,
    )  # fmt: skip


def hmmrnn() -> HMMRNN:
    return HMMRNN(3, hidden_size=8, input_size=2, num_steps=12, batch_size=8, batches_per_epoch=4)


def make_data(dtype: type = np.float32) -> xr.Dataset:
    time = pd.date_range("2024-03-30", periods=96, freq="h")
    wave = np.sin(2 * np.pi * np.arange(96) / 6)[None, :, None] * np.array([1.0, 5.0, 0.2])[:, None, None]
    values = wave + np.random.default_rng(0).normal(3.0, 0.1, (3, 96, 1))
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values.astype(dtype), {"units": "MW"})},
        {"series": ["north", "south", "west"], "time": ("time", time, {"freq": "h"}), "feature": ["load"]},
    )


def make_symbols(dtype: type = np.float32) -> xr.Dataset:
    return processes.preset("three").sequences(40, 12, seed=0)


def make_snapshots(dtype: type = np.float32) -> xr.Dataset:
    draw = np.random.default_rng(0)
    clouds = [draw.normal(shift, 0.5, (10, 2)).astype(np.float32).astype(dtype) for shift in (0, 1, 2)]
    return stack_snapshots(clouds, times=[0.0, 1.0, 3.0])


class Line(NamedTuple):
    """One model of the contract.

    Attributes:
        make: Builds the model.
        draws: Whether results differ between seeds.
        data: Makes what it learns from, in a floating-point type.
        verb: Its drawing verb: ``forecast`` of the data, ``marginal`` at a time, or ``sample``.
        result: A variable of what the verb returns.
        is_keyed: Whether its noise is the same on every device.
    """

    make: Callable[[], Any]
    draws: bool = True
    data: Callable[..., xr.Dataset] = make_data
    verb: str = "forecast"
    result: str = "target"
    is_keyed: bool = True


MODELS = {
    "TSDiff": Line(tsdiff),
    "HMMRNN": Line(hmmrnn, data=make_symbols, verb="sample", result="hidden"),
    "LinearForecaster": Line(lambda: LinearForecaster(context_length=24, prediction_length=6)),
    "SchrodingerBridge": Line(
        lambda: SchrodingerBridge(2, 0.5, num_steps=5, num_paths=10),
        data=make_snapshots,
        verb="marginal",
        result="x",
        is_keyed=False,
    ),  # fmt: skip
    "SeasonalEnsemble": Line(lambda: SeasonalEnsemble(season_length=6, num_seasons=3, prediction_length=6)),
    "SeasonalNaive": Line(lambda: SeasonalNaive(season_length=6, prediction_length=6), draws=False),
}


only_forecasters = pytest.mark.parametrize(
    "line",
    [name for name, line in MODELS.items() if line.verb == "forecast"],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module", params=MODELS)
def line(request: pytest.FixtureRequest) -> Line:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def data(line: Line) -> xr.Dataset:
    return line.data()


def fit(line: Line, data: xr.Dataset, seed: int = 0, model: Any = None) -> Any:
    model = line.make() if model is None else model
    options = {"enable_progress_bar": False} if isinstance(model, pl.LightningModule) else {}
    return model.fit(data, max_epochs=2, seed=seed, **options)


@pytest.fixture(scope="module")
def fitted(line: Line, data: xr.Dataset) -> Iterator[Any]:
    with seqdyn.rng.fork_rng(0):
        yield fit(line, data)


def draw(line: Line, model: Any, context: xr.Dataset, seed: int | None = 0) -> xr.Dataset:
    if line.verb == "sample":
        return model.sample(5, seed=seed)
    if line.verb == "marginal":
        return model.marginal([0.5, 2.0], num_samples=5, seed=seed)
    return model.forecast(context, num_samples=5, seed=seed)


def test_every_model_of_the_namespace_has_a_line() -> None:
    names = {name for name in seqdyn.models.__all__ if isinstance(getattr(seqdyn.models, name), type)}

    assert names - {"Model"} == MODELS.keys()


def test_fitting_returns_the_model_with_a_finite_history_and_what_it_saw(
    fitted: Any, data: xr.Dataset
) -> None:
    if isinstance(fitted, Model):
        assert fitted.history.sizes == {"epoch": 2}
        assert all(np.isfinite(values).all() for values in fitted.history.data_vars.values())
    else:
        assert fitted.history is None  # closed form: no loss was descended
    if "target" in data:
        assert fitted.data_info == json.loads(json.dumps(seqdyn.data.schema.describe(data)))


def test_a_fitted_model_sits_in_eval_mode_and_needs_no_gradients(
    fitted: Any, line: Line, data: xr.Dataset
) -> None:
    if isinstance(fitted, torch.nn.Module):
        assert not any(module.training for module in fitted.modules())
        draw(line, fitted, data)
        assert not any(module.training for module in fitted.modules())
        assert all(parameter.grad is None for parameter in fitted.parameters())


def test_equal_seeds_give_bit_equal_fits(line: Line, fitted: Any, data: xr.Dataset) -> None:
    torch.randn(3)
    again, other = fit(line, data), fit(line, data, seed=1)

    xr.testing.assert_identical(draw(line, again, data), draw(line, fitted, data))
    if isinstance(fitted, torch.nn.Module):
        for value, expected in zip(again.parameters(), fitted.parameters(), strict=True):
            assert torch.equal(value, expected)
        pairs = zip(other.parameters(), fitted.parameters(), strict=True)
        assert not all(torch.equal(value, expected) for value, expected in pairs)


@only_forecasters
def test_a_forecast_has_the_documented_dims_coords_and_attributes(
    line: Line, fitted: Any, data: xr.Dataset
) -> None:
    result = draw(line, fitted, data)

    assert result["target"].dims == ("sample", "series", "time", "feature")
    assert result["target"].shape == (5, 3, 6, 1)
    assert result["target"].attrs["units"] == "MW"
    assert result["series"].values.tolist() == ["north", "south", "west"]
    assert result["feature"].values.tolist() == ["load"]
    expected = pd.date_range("2024-04-03", periods=6, freq="h")
    np.testing.assert_array_equal(result["time"].values, expected.values)
    assert result.attrs["model"] == type(fitted).__name__
    assert result.attrs["seqdyn_version"] == seqdyn.__version__
    assert result.attrs["seed"] == 0
    assert np.isfinite(result["target"]).all()


def test_equal_seeds_give_equal_draws_and_others_differ(line: Line, fitted: Any, data: xr.Dataset) -> None:
    first = draw(line, fitted, data)

    xr.testing.assert_identical(draw(line, fitted, data), first)
    assert first[line.result].equals(draw(line, fitted, data, seed=1)[line.result]) is not line.draws


def test_a_draw_without_a_seed_says_which_one_it_took(line: Line, fitted: Any, data: xr.Dataset) -> None:
    with seqdyn.rng.fork_rng(11):
        first, second = (draw(line, fitted, data, seed=None) for _ in range(2))

    assert first[line.result].equals(second[line.result]) is not line.draws
    xr.testing.assert_identical(draw(line, fitted, data, seed=first.attrs["seed"]), first)


@only_forecasters
def test_a_series_that_ends_early_is_named_on_the_callers_line(
    line: Line, fitted: Any, data: xr.Dataset
) -> None:
    observed = xr.ones_like(data["target"], dtype=bool)
    observed[1, -7:] = False  # longer than the forecast

    with pytest.warns(EarlyEndWarning) as record:
        draw(line, fitted, data.assign(observed=observed))

    assert record[0].filename == __file__


def test_the_callers_random_state_is_untouched(line: Line, fitted: Any, data: xr.Dataset) -> None:
    model = line.make()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    draw(line, fitted, data)
    fit(line, data, model=model)

    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_a_saved_model_comes_back_with_identical_draws(
    line: Line, fitted: Any, data: xr.Dataset, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    with seqdyn.rng.fork_rng(5):
        before = torch.get_rng_state()
        loaded = seqdyn.load(tmp_path / "model")
        assert torch.equal(torch.get_rng_state(), before)
    if isinstance(fitted, Model):  # a fit leaves it on the device, loading on the CPU
        loaded = loaded.to(fitted.device)

    assert type(loaded) is type(fitted)
    xr.testing.assert_identical(draw(line, loaded, data), draw(line, fitted, data))
    assert loaded.data_info == fitted.data_info
    if fitted.history is not None:
        xr.testing.assert_identical(loaded.history, fitted.history)


def test_a_model_in_double_precision_comes_back_in_it(line: Line, data: xr.Dataset, tmp_path: Path) -> None:
    model = line.make()
    if not isinstance(model, Model):
        pytest.skip("computes with NumPy, in double precision")
    model.fit(data, max_epochs=1, seed=0, precision="64-true", accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "model")

    loaded = seqdyn.load(tmp_path / "model")

    assert loaded.dtype == model.dtype == torch.float64
    for value, expected in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True):
        assert value.dtype == expected.dtype and torch.equal(value, expected)
    xr.testing.assert_identical(draw(line, loaded, data), draw(line, model, data))
    assert draw(line, loaded.float(), data)[line.result].dtype == np.float32


def test_its_weights_are_safetensors_and_its_description_is_json(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")

    tensors = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    content = json.loads((tmp_path / "model" / "model.json").read_text())

    assert content["class"] == type(fitted).__name__
    if isinstance(fitted, torch.nn.Module):
        assert tensors.keys() == fitted.state_dict().keys()


def test_data_in_double_precision_work(line: Line, fitted: Any, data: xr.Dataset) -> None:
    double = line.data(np.float64)
    model = fit(line, double)

    difference = draw(line, model, double) - draw(line, fitted, data)

    # The same values in two types: results agree to the rounding of float32.
    assert float(abs(difference[line.result]).max()) < 1e-3


@only_forecasters
@pytest.mark.parametrize("verb", ["fit", "forecast"])
def test_nan_is_refused_with_its_place(line: Line, fitted: Any, data: xr.Dataset, verb: str) -> None:
    broken = data.copy(deep=True)
    broken["target"][1, 40, 0] = np.nan

    with pytest.raises(ValueError, match=r"NaN at series='south' \(index 1\), time='2024-03-31 16:00:00'"):
        fit(line, broken) if verb == "fit" else draw(line, fitted, broken)


@pytest.mark.gpu
def test_it_works_on_a_gpu(line: Line, fitted: Any, data: xr.Dataset, tmp_path: Path) -> None:
    if not isinstance(fitted, torch.nn.Module):
        pytest.skip("computes with NumPy")
    fitted.save(tmp_path / "model")
    on_cpu, on_gpu = seqdyn.load(tmp_path / "model"), seqdyn.load(tmp_path / "model").to("cuda")

    drawn = draw(line, on_gpu, data)
    difference = drawn - draw(line, on_cpu, data)

    assert (on_cpu.device.type, on_gpu.device.type) == ("cpu", "cuda")
    assert np.isfinite(drawn[line.result]).all()
    assert not line.is_keyed or float(abs(difference[line.result]).quantile(0.99)) < 1e-3
    assert fit(line, data).device.type == "cuda"
