"""Guards, averages and kept weights of a fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr

from seqdyn.errors import NonFiniteError
from seqdyn.train.callbacks import AverageWeights

QUIET = {"enable_progress_bar": False, "seed": 0}


class Spoil(pl.Callback):
    """Count losses, and replace a term at one of them."""

    def __init__(self, model: Any, call: int, **terms: float) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        calls, loss = [], model.loss

        def spoiled(batch: Any) -> Any:
            calls.append(1)
            losses = loss(batch)
            if len(calls) == call:
                self.weights = {name: value.clone() for name, value in model.state_dict().items()}
                for name, value in terms.items():
                    losses[name] = losses[name] * value
            return losses

        model.loss = spoiled


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"loss": math.nan}, r"train_loss is nan in epoch 2, batch 3; lower the learning rate"),
        ({"loss": math.inf, "error": math.inf}, r"train_error is inf in epoch 2, batch 3"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_fit_before_it_reaches_the_weights(
    model_class: Any, data: xr.Dataset, terms: dict[str, float], message: str
) -> None:
    model = model_class()
    spoil = Spoil(model, 7, **terms)

    with pytest.raises(NonFiniteError, match=message):
        model.fit(data, max_epochs=3, **QUIET)

    for name, value in model.state_dict().items():
        assert torch.equal(value, spoil.weights[name])
    assert not model.training


def test_a_gradient_that_is_not_finite_stops_the_fit_though_the_loss_is_finite(
    model_class: Any, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # d sqrt(x) / dx is infinite at x = 0, where sqrt(x) is fine.
    def loss(self: Any, batch: Any) -> Any:
        return {"loss": (self.network[0].weight * 0).sum().sqrt()}

    monkeypatch.setattr(model_class, "loss", loss)
    model = model_class()

    with pytest.raises(
        NonFiniteError, match=r"gradient of 'network.0.weight' is not finite in epoch 1, batch 1"
    ):
        model.fit(data, max_epochs=1, **QUIET)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_gradients_too_large_for_a_norm_in_float32_stop_the_fit(
    model_class: Any, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(self: Any, batch: Any) -> Any:
        return {"loss": 1e30 * self.network[0].weight.sum()}

    monkeypatch.setattr(model_class, "loss", loss)

    with pytest.raises(NonFiniteError, match="the norm of the gradient is infinite in epoch 1, batch 1"):
        model_class().fit(data, max_epochs=1, **QUIET)


def test_a_validation_loss_that_is_not_finite_stops_the_fit(model_class: Any, data: xr.Dataset) -> None:
    model = model_class()
    Spoil(model, 6, loss=math.nan)  # four training batches and two of validation

    with pytest.raises(NonFiniteError, match="val_loss is nan in epoch 1, validation batch 2"):
        model.fit(data, val=data, max_epochs=2, **QUIET)


class Record(pl.Callback):
    """Copy the live parameters after every step and at every validation."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps.append(pl_module.network[0].weight.detach().clone())

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.validated.append(pl_module.network[0].weight.detach().clone())


def test_the_average_is_the_stated_recursion_and_is_what_is_validated_and_kept(
    model_class: Any, data: xr.Dataset
) -> None:
    record, initial = Record(), {}

    class Initial(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            initial["weight"] = pl_module.network[0].weight.detach().clone()

    val = data.isel(time=slice(32, None))  # one batch of validation an epoch
    callbacks = [record, Initial()]
    model = model_class().fit(data, val=val, max_epochs=2, ema_decay=0.5, callbacks=callbacks, **QUIET)

    average, averages = initial["weight"].double(), []
    for step, weight in enumerate(record.steps, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight.double()
        averages.append(average)
    for validated, expected in zip(record.validated, averages[3::4], strict=True):
        torch.testing.assert_close(validated.double(), expected, rtol=1e-5, atol=1e-6)
    kept = int(np.argmin(model.history.val_loss.values))
    assert torch.equal(model.network[0].weight, record.validated[kept])
    # The descent itself goes on from the live weights: it does not see the averages.
    plain = Record()
    model_class().fit(data, max_epochs=2, callbacks=[plain], **QUIET)
    assert torch.equal(plain.steps[-1], record.steps[-1])


def test_without_validation_the_last_average_is_kept(model_class: Any, data: xr.Dataset) -> None:
    model = model_class().fit(data, max_epochs=1, ema_decay=0.0, **QUIET)
    last = model_class().fit(data, max_epochs=1, **QUIET)

    # A decay of zero averages nothing, so that the average is the last weights.
    for value, expected in zip(model.parameters(), last.parameters(), strict=True):
        assert torch.equal(value, expected)
    assert model.history.attrs["weights"] == "epoch 1, last, averaged with decay 0"


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\).*None averages nothing"):
        AverageWeights(decay)


def test_the_best_weights_are_kept_and_not_the_last(model_class: Any, data: xr.Dataset) -> None:
    class Diverge(pl.Callback):
        """After the second epoch every step moves the weights away."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if trainer.current_epoch >= 2:
                with torch.no_grad():
                    pl_module.network[0].weight.add_(10.0)

    record = Record()
    val = data.isel(time=slice(32, None))
    model = model_class().fit(data, val=val, max_epochs=4, callbacks=[Diverge(), record], **QUIET)

    best = int(np.argmin(model.history.val_loss.values))
    assert best == 1
    assert torch.equal(model.network[0].weight, record.validated[best])
    assert model.history.attrs["weights"].startswith("epoch 2, best val_loss")


def test_validation_neither_disturbs_the_training_nor_changes_its_own_noise(
    model_class: Any, data: xr.Dataset
) -> None:
    plain = model_class().fit(data, max_epochs=3, **QUIET)
    validated = model_class().fit(data, val=data, max_epochs=3, **QUIET)
    frozen = model_class(learning_rate=0.0).fit(data, val=data, max_epochs=3, **QUIET)

    xr.testing.assert_equal(plain.history.train_loss, validated.history.train_loss)
    assert np.ptp(frozen.history.val_loss.values) == 0.0
    assert np.ptp(frozen.history.train_loss.values) > 0.0
