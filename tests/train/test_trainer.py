"""The one place that builds a trainer: what it passes on, what it says, what it leaves."""

from __future__ import annotations

import copy
import logging
import os
import signal
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr

from seqdyn.data.schema import summary
from seqdyn.rng import fork_rng
from seqdyn.train import run_trainer


class Watch(pl.Callback):
    """Keep what the trainer was built with."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.clip, self.accumulate = trainer.gradient_clip_val, trainer.accumulate_grad_batches
        self.modes = {module.training for module in pl_module.modules()}
        self.callbacks = list(trainer.callbacks)


def test_options_reach_lightning_verbatim_and_are_not_changed(model_class: Any, data: xr.Dataset) -> None:
    watch = Watch()
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.25, "callbacks": [watch], "plugins": []}
    before = copy.copy(options), list(options["callbacks"])

    model_class().fit(data, max_epochs=1, enable_progress_bar=False, **options)

    assert (watch.clip, watch.accumulate) == (0.25, 2)
    assert (options, options["callbacks"]) == before


def test_the_model_says_how_gradients_are_clipped_unless_the_caller_does(
    model_class: Any, data: xr.Dataset
) -> None:
    watch = Watch()

    model_class().fit(data, max_epochs=1, callbacks=watch, enable_progress_bar=False)

    assert watch.clip == model_class.gradient_clip_val == 1.0


def test_the_model_is_trained_in_training_mode_and_left_in_eval_mode(
    model_class: Any, data: xr.Dataset
) -> None:
    watch = Watch()
    model = model_class().eval()

    model.fit(data, max_epochs=1, callbacks=watch, enable_progress_bar=False)

    assert watch.modes == {True}
    assert not any(module.training for module in model.modules())
    copy.deepcopy(model)  # it holds on to no trainer


def test_it_returns_the_history_of_a_model_and_data_module(model_class: Any, data: xr.Dataset) -> None:
    model = model_class()

    history = run_trainer(model, model.datamodule(data), max_epochs=2, enable_progress_bar=False)

    assert history.sizes == {"epoch": 2}
    assert np.isfinite(history.train_loss).all()


def test_a_fit_says_what_it_understood_and_where_things_are(
    model_class: Any, data: xr.Dataset, tmp_path: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "seqdyn")

    model_class().fit(data, max_epochs=3, seed=1, run_dir=tmp_path / "run")

    text = caplog.text
    for expected in (
        "Denoise, 13 parameters, initialised with seed 1",
        summary(data),
        "training on cpu",
        "epoch 3 of 3: train_loss ",
        "weights of epoch 3, last",
        f"model in {tmp_path / 'run' / 'model'}",
    ):
        assert expected in text
    assert text.count("epoch ") == 4  # one line an epoch, one at the end


def test_a_long_fit_writes_at_most_twenty_lines_to_a_log(
    model_class: Any, data: xr.Dataset, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "seqdyn")

    model_class().fit(data, max_epochs=41, limit_train_batches=1)

    assert 10 <= caplog.text.count(" of 41: ") <= 20


def test_a_terminal_gets_one_line_with_the_losses(
    model_class: Any, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    model_class().fit(data, val=data, max_epochs=2)

    shown = capsys.readouterr()
    last = shown.err.rstrip().rsplit("\r", 1)[-1]
    assert shown.out == ""
    assert "epoch 2/2" in last and "8/8" in last
    assert "train_loss" in last and "val_loss" in last
    assert "\n" not in shown.err.rstrip()


def test_lightning_says_nothing_and_its_logging_is_left_as_it_was(
    model_class: Any, data: xr.Dataset, capsys: Any, caplog: Any
) -> None:
    level = logging.getLogger("pytorch_lightning").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        model_class().fit(data, val=data, max_epochs=1, enable_progress_bar=False)
        model_class().fit(data, max_epochs=1, enable_progress_bar=False)
        assert list(warnings.filters) == before

    assert [str(warning.message) for warning in caught] == []
    assert capsys.readouterr() == ("", "")
    assert {record.name for record in caplog.records} <= {"seqdyn"}
    assert logging.getLogger("pytorch_lightning").level == level


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_weights_in_half_precision_are_refused(model_class: Any, data: xr.Dataset, precision: str) -> None:
    with pytest.raises(ValueError, match=f"use precision='{precision}-mixed'"):
        model_class().fit(data, max_epochs=1, precision=f"{precision}-true")


def test_other_warnings_pass(model_class: Any, data: xr.Dataset) -> None:
    class Warn(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            warnings.warn("something of the user's", stacklevel=1)

    with pytest.warns(UserWarning, match="something of the user's"):
        model_class().fit(data, max_epochs=1, callbacks=Warn(), enable_progress_bar=False)


def test_a_progress_bar_of_the_users_takes_the_place_of_ours(model_class: Any, data: xr.Dataset) -> None:
    watch = Watch()
    bar = pl.callbacks.TQDMProgressBar(refresh_rate=0)

    model_class().fit(data, max_epochs=1, callbacks=[bar, watch])

    assert bar in watch.callbacks
    assert "ProgressLine" not in {type(callback).__name__ for callback in watch.callbacks}


def test_interrupting_a_fit_is_a_keyboard_interrupt_and_can_be_done_again(
    model_class: Any, data: xr.Dataset
) -> None:
    class Interrupt(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    # A shell starts its background jobs with the signal ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                model_class().fit(data, max_epochs=1, callbacks=Interrupt(), enable_progress_bar=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_trainer_of_the_users_trains_and_logs_too(model_class: Any, data: xr.Dataset) -> None:
    model = model_class()
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip

    trainer.fit(model, model.datamodule(data, data))

    assert {"train_loss", "train_error", "val_loss"} <= trainer.callback_metrics.keys()
    assert model.was_trained


def test_each_of_several_processes_draws_noise_of_its_own_from_a_common_stream(
    model_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_class()
    monkeypatch.setattr(model, "loss", lambda batch: {"loss": float(torch.rand(()))})
    monkeypatch.setattr(model, "_log", lambda stage, batch, losses: losses["loss"])

    def noise(rank: int, size: int) -> tuple[float, float]:
        """A draw of the loss and the next one of the common stream."""
        model._trainer = SimpleNamespace(world_size=size, global_rank=rank)
        with fork_rng(4):
            return model.training_step({}, 0), float(torch.rand(()))

    first, second = noise(0, 2), noise(1, 2)

    assert first[0] != second[0] and first[1] == second[1]
    with fork_rng(4):  # one process draws from the stream itself
        assert noise(0, 1) == (float(torch.rand(())), float(torch.rand(())))


def test_processes_that_cannot_hand_the_history_back_are_refused(model_class: Any, data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="cannot hand history .* back; run a script with strategy='ddp'"):
        model_class().fit(data, max_epochs=1, strategy="ddp_spawn", accelerator="cpu", devices=2)


@pytest.mark.gpu
def test_a_fit_on_a_gpu_leaves_the_model_there_and_goes_on_exactly(
    model_class: Any, data: xr.Dataset, stop_at: Any, stopped: Any, tmp_path: Any
) -> None:
    options = {"max_epochs": 2, "seed": 1, "ema_decay": 0.9, "val": data, "accelerator": "gpu"}
    reference = model_class().fit(data, **options)
    with pytest.raises(stopped):
        stop = stop_at("on_train_batch_start", 6)
        model_class().fit(data, run_dir=tmp_path / "run", checkpoint_every=1, callbacks=stop, **options)

    with fork_rng(8):
        resumed = model_class().fit(data, run_dir=tmp_path / "run", resume=True, **options)

    assert resumed.device.type == "cuda"
    for value, expected in zip(resumed.parameters(), reference.parameters(), strict=True):
        assert torch.equal(value, expected)
