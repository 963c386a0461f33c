"""The base of all models: seeds, saving and loading, modules of the user's, what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor, nn

import seqdyn
from seqdyn.data.sequences import SequenceDataModule
from seqdyn.errors import NotFittedError
from seqdyn.models.base import Model
from seqdyn.persistence import Record, write_folder
from seqdyn.rng import fork_rng


class Smooth(Model):
    """Predicts each value from its neighbours; its first layer may be the user's."""

    def __init__(
        self, hidden_size: int = 3, lags: tuple[int, ...] = (1, 2), encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["encoder"])
        self.encoder = nn.Linear(1, hidden_size) if encoder is None else encoder
        self.decoder = nn.Linear(hidden_size, 1)
        self.register_buffer("scale", torch.ones(1))

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        return SequenceDataModule(data, length=6, batch_size=8, batches_per_epoch=3, val=val)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["target"]
        hidden = self.encoder(x + torch.randn_like(x))
        return {"loss": (self.decoder(hidden) - x).square().mean()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


FIT: dict[str, Any] = {"max_epochs": 2, "enable_progress_bar": False}


@pytest.fixture
def data() -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((2, 30, 1))
    time = pd.date_range("2024-01-01", periods=30, freq="D")
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values, {"units": "m"})},
        {"series": ["a", "b"], "time": ("time", time, {"freq": "D"}), "feature": ["y"]},
    )


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


# Seeds
# ---------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_bit_equal_weights_whatever_was_drawn_before(data: xr.Dataset) -> None:
    first = Smooth()
    torch.randn(7)
    second = Smooth()
    assert not equal(first, second)

    first.fit(data, seed=1, **FIT)
    torch.randn(3)
    second.fit(data, seed=1, **FIT)

    assert equal(first, second)
    assert not equal(first, Smooth().fit(data, seed=2, **FIT))


def test_the_callers_random_state_is_left_untouched(data: xr.Dataset, tmp_path: Path) -> None:
    model = Smooth().fit(data, seed=0, **FIT)
    model.save(tmp_path / "model")

    def draw() -> list[float]:
        return [torch.rand(()).item(), np.random.random(), random.random()]

    with fork_rng(1):
        expected = draw()
    with fork_rng(1):
        model.fit(data, seed=5, val=data, **FIT)
        Smooth.load(tmp_path / "model")
        assert draw() == expected


def test_without_a_seed_the_constructed_weights_and_the_ambient_stream_decide(data: xr.Dataset) -> None:
    def fit(ambient: int) -> Smooth:
        with fork_rng(0):
            model = Smooth()
        with fork_rng(ambient):
            return model.fit(data, **FIT)

    assert equal(fit(1), fit(1))
    assert not equal(fit(1), fit(2))
    with fork_rng(0):
        frozen = Smooth()
        expected = frozen.decoder.weight.detach().clone()
    frozen.configure_optimizers = lambda: torch.optim.SGD(frozen.parameters(), lr=0.0)
    assert torch.equal(frozen.fit(data, **FIT).decoder.weight, expected)


def test_a_fitted_model_goes_on_from_its_weights_and_says_so(data: xr.Dataset, caplog: Any) -> None:
    caplog.set_level("INFO", "seqdyn")
    once = Smooth().fit(data, seed=1, **FIT)
    weights = once.decoder.weight.detach().clone()
    start: list[Tensor] = []

    class Start(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            start.append(pl_module.decoder.weight.detach().clone())

    once.fit(data, seed=1, callbacks=Start(), **FIT)

    assert torch.equal(start[0], weights)
    assert "already fitted: going on from its weights" in caplog.text


def test_a_failed_first_fit_does_not_count_as_a_fit(data: xr.Dataset) -> None:
    class Fail(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise OSError("gone")

    model = Smooth()
    with pytest.raises(OSError, match="gone"):
        model.fit(data, seed=1, callbacks=Fail(), **FIT)

    assert equal(model.fit(data, seed=1, **FIT), Smooth().fit(data, seed=1, **FIT))


# Data
# ----------------------------------------------------------------------------------------------------------


def test_a_dataset_and_its_data_module_give_the_same_fit(data: xr.Dataset) -> None:
    from_data = Smooth().fit(data, val=data, seed=1, **FIT)
    from_module = Smooth().fit(Smooth().datamodule(data, data), seed=1, **FIT)

    assert equal(from_data, from_module)
    assert from_data.data_info == from_module.data_info


def test_the_data_are_described_with_the_end_of_the_validation_data(data: xr.Dataset) -> None:
    facts = seqdyn.data.schema.describe(data.isel(time=slice(0, 20)))

    model = Smooth().fit(data.isel(time=slice(0, 20)), val=data.isel(time=slice(8, 28)), **FIT)

    assert model.data_info == facts | {"val_time_end": "2024-01-28"}
    assert Smooth().fit(data.isel(time=slice(0, 20)), **FIT).data_info == facts


def test_validation_data_beside_a_data_module_are_refused(data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="brings its own validation data; leave val= out"):
        Smooth().fit(Smooth().datamodule(data), val=data, **FIT)


# Saving and loading
# --------------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(data: xr.Dataset, tmp_path: Path) -> None:
    model = Smooth(hidden_size=4, lags=(1, 7)).fit(data, val=data, seed=0, **FIT)
    model.scale.fill_(2.0)
    model.save(tmp_path / "model")

    loaded = Smooth.load(tmp_path / "model")

    assert equal(loaded, model)
    assert dict(loaded.hparams) == {"hidden_size": 4, "lags": (1, 7)}
    assert not loaded.training
    assert loaded.data_info == model.data_info
    xr.testing.assert_identical(loaded.history, model.history)


def test_an_unfitted_model_is_not_saved(tmp_path: Path) -> None:
    message = r"this Smooth was neither fitted nor loaded, .* call model.fit\(data\) first, or load"
    with pytest.raises(NotFittedError, match=message):
        Smooth().save(tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def plain_trainer(max_epochs: int) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=max_epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip


def test_a_fit_by_a_plain_trainer_counts_and_a_validation_does_not(data: xr.Dataset, tmp_path: Path) -> None:
    model, trainer = Smooth(), plain_trainer(1)
    plain_trainer(1).validate(model, model.datamodule(data, data), verbose=False)
    assert not model.was_trained

    trainer.fit(model, model.datamodule(data, data))
    model.save(tmp_path / "model")

    loaded = Smooth.load(tmp_path / "model")
    assert equal(loaded, model) and loaded.history is None and loaded.data_info is None
    loaded.require_fitted()
    loaded.save(tmp_path / "again")
    trainer.save_checkpoint(tmp_path / "lightning.ckpt")
    assert Smooth.load_from_checkpoint(tmp_path / "lightning.ckpt").was_trained


def test_a_network_of_the_users_is_handed_in_again(data: xr.Dataset, tmp_path: Path) -> None:
    encoder = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3))
    given = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = Smooth(encoder=encoder)
    model.reinitialize()
    for name, value in encoder.state_dict().items():  # what the user brings keeps its weights
        assert torch.equal(value, given[name])
    model.fit(data, seed=0, **FIT).save(tmp_path / "model")

    other = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3))
    assert equal(Smooth.load(tmp_path / "model", encoder=other), model)
    with pytest.raises(ValueError, match=r"hand them in again: Smooth.load\(path, NAME=network\)"):
        Smooth.load(tmp_path / "model")
    with pytest.raises(ValueError, match="does not fit Smooth of this version"):
        Smooth.load(tmp_path / "model", decodre=other)


def test_another_class_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", Record("Rough", {}, {}, {}))

    with pytest.raises(ValueError, match=r"holds a Rough, not a Smooth; use seqdyn.load\("):
        Smooth.load(tmp_path / "model")


def test_a_class_of_the_users_is_not_in_the_namespace(tmp_path: Path) -> None:
    model = Smooth()
    model.was_trained = True
    model.save(tmp_path / "model")

    with pytest.raises(
        ValueError, match=r"holds a 'Smooth', .* for a class of your own use YourModel.load\(path\)"
    ):
        seqdyn.load(tmp_path / "model")


# What a model must be
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lags": np.array([1, 2])}, TypeError, "lags is a ndarray; pass plain data"),
        ({"lags": {1, 2}}, TypeError, "lags is a set"),
        ({"lags": (1, float("inf"))}, ValueError, r"lags\[1\] is inf"),
    ],
)
def test_hyperparameters_are_plain_data(arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Smooth(**arguments)


def test_numpy_numbers_become_plain_hyperparameters() -> None:
    hparams = Smooth(hidden_size=np.int64(2), lags=(np.int32(1),)).hparams

    assert type(hparams.hidden_size) is int and type(hparams.lags[0]) is int


def test_an_incomplete_model_cannot_be_made() -> None:
    class Incomplete(Model):
        def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {}

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()
