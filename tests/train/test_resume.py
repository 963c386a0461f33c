"""A fit that was interrupted goes on bit for bit, and a run folder is never taken for another's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr
from torch.utils.data import DataLoader, TensorDataset

import seqdyn._files as files
from seqdyn.data.sequences import SequenceDataModule
from seqdyn.rng import fork_rng

FIT: dict[str, Any] = {"max_epochs": 3, "seed": 3, "ema_decay": 0.9, "enable_progress_bar": False}


def assert_equal(model: Any, reference: Any) -> None:
    """Weights and history agree to the last bit; seconds do not."""
    for (name, value), expected in zip(
        model.state_dict().items(), reference.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    xr.testing.assert_identical(model.history.drop_vars("seconds"), reference.history.drop_vars("seconds"))


@pytest.fixture
def fit(model_class: Any, data: xr.Dataset) -> Callable[..., Any]:
    def fit(**options: Any) -> Any:
        with fork_rng(
            None if options.get("seed", 0) is None else 99
        ):  # an ambient stream that must not matter
            return model_class().fit(data, val=data.isel(time=slice(20, None)), **{**FIT, **options})

    return fit


@pytest.mark.parametrize(
    ("hook", "number"),
    [
        *(("on_train_batch_start", n) for n in range(12)),
        ("on_train_batch_end", 3),
        *(("on_validation_end", n) for n in range(3)),
        *(("on_train_epoch_end", n) for n in range(3)),
        *(("on_train_epoch_start", n) for n in (1, 2)),
        ("on_train_end", 0),
    ],
)
def test_a_fit_goes_on_exactly_after_an_interruption_at_any_step(
    fit: Any, stop_at: Any, stopped: Any, tmp_path: Path, hook: str, number: int
) -> None:
    with pytest.raises(stopped):
        fit(run_dir=tmp_path / "run", checkpoint_every=1, callbacks=[stop_at(hook, number)])

    resumed = fit(run_dir=tmp_path / "run", checkpoint_every=1, resume=True)

    assert_equal(resumed, fit())


def test_a_finished_run_in_double_precision_comes_back_in_it(fit: Any, tmp_path: Path) -> None:
    options = {"run_dir": tmp_path / "run", "precision": "64-true"}
    reference = fit(**options)

    again = fit(resume=True, **options)

    assert again.dtype == torch.float64
    assert_equal(again, reference)


@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("number", [2, 4, 7])
def test_batches_after_the_last_checkpoint_are_repeated_exactly(
    fit: Any, stop_at: Any, stopped: Any, tmp_path: Path, every: int | None, number: int
) -> None:
    stop = stop_at("on_train_batch_start", number)
    with pytest.raises(stopped):
        fit(run_dir=tmp_path / "run", checkpoint_every=every, callbacks=[stop])

    assert_equal(fit(run_dir=tmp_path / "run", checkpoint_every=every, resume=True), fit())


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": 2},
        {"limit_train_batches": 3},
        {"accumulate_grad_batches": 3},
    ],
    ids=str,
)
def test_lightnings_options_do_not_break_exactness(
    fit: Any, stop_at: Any, stopped: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    reference = fit(**options)
    for number in range(2, 9):
        run = {"run_dir": tmp_path / str(number), "checkpoint_every": 1, **options}
        with pytest.raises(stopped):
            fit(callbacks=[stop_at("on_train_batch_start", number)], **run)

        assert_equal(fit(resume=True, **run), reference)


@pytest.mark.parametrize("batches_per_epoch", [4, None])
def test_a_fit_interrupted_at_every_batch_in_turn_goes_on_exactly(
    model_class: Any,
    data: xr.Dataset,
    stop_at: Any,
    stopped: Any,
    tmp_path: Path,
    batches_per_epoch: int | None,
) -> None:
    short = data.isel(time=slice(15))  # 24 windows: three batches a pass
    options = {**FIT, "val": data, "run_dir": tmp_path / "run", "checkpoint_every": 1}
    for _ in range(8):
        with pytest.raises(stopped):
            model = model_class(batches_per_epoch=batches_per_epoch)
            model.fit(short, **options, resume=True, callbacks=stop_at("on_train_batch_start", 1))

    resumed = model_class(batches_per_epoch=batches_per_epoch).fit(short, **options, resume=True)

    reference = model_class(batches_per_epoch=batches_per_epoch).fit(short, val=data, **FIT)
    assert_equal(resumed, reference)


def test_a_fit_without_seed_and_validation_goes_on_exactly(
    model_class: Any, data: xr.Dataset, stop_at: Any, stopped: Any, tmp_path: Path
) -> None:
    options = {**FIT, "seed": None, "ema_decay": None, "accumulate_grad_batches": 2}
    with fork_rng(5):
        reference = model_class().fit(data, **options)
    with fork_rng(5), pytest.raises(stopped):
        stop = stop_at("on_train_batch_start", 7)
        model_class().fit(data, run_dir=tmp_path / "run", checkpoint_every=1, callbacks=stop, **options)

    resumed = model_class().fit(data, run_dir=tmp_path / "run", resume=True, **options)

    assert_equal(resumed, reference)


def test_training_longer_is_as_if_it_had_been_asked_for_at_once(fit: Any, tmp_path: Path) -> None:
    fit(run_dir=tmp_path / "run", max_epochs=2)

    longer = fit(run_dir=tmp_path / "run", max_epochs=4, resume=True)

    assert_equal(longer, fit(max_epochs=4))


def test_a_finished_run_is_returned_without_training(fit: Any, stop_at: Any, tmp_path: Path) -> None:
    first = fit(run_dir=tmp_path / "run")
    model = tmp_path / "run" / "model" / "model.safetensors"
    written = model.stat().st_mtime_ns

    again = fit(run_dir=tmp_path / "run", resume=True, callbacks=stop_at("on_train_start", 0))

    assert_equal(again, first)
    assert not again.training
    assert again.data_info == first.data_info
    assert model.stat().st_mtime_ns == written


def test_a_run_that_stopped_early_stays_stopped(
    fit: Any, model_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_until_no_better(**options: Any) -> Any:
        early = pl.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10.0)
        return fit(callbacks=early, max_epochs=9, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(model_class, "save", _raise)
        fit_until_no_better(run_dir=tmp_path / "run")

    resumed = fit_until_no_better(run_dir=tmp_path / "run", resume=True)

    assert resumed.history.sizes["epoch"] == 2
    assert_equal(resumed, fit_until_no_better())


def _raise(*args: Any, **kwargs: Any) -> None:
    raise OSError("no space left")


def test_resuming_without_a_checkpoint_starts_from_the_beginning(
    fit: Any, stop_at: Any, stopped: Any, tmp_path: Path
) -> None:
    assert_equal(fit(run_dir=tmp_path / "new", resume=True), fit())
    with pytest.raises(stopped):
        fit(run_dir=tmp_path / "begun", callbacks=stop_at("on_train_batch_start", 2))
    assert not (tmp_path / "begun" / "last.ckpt").exists()

    assert_equal(fit(run_dir=tmp_path / "begun", resume=True), fit())


def test_what_interrupted_writes_left_is_removed_on_resuming(
    fit: Any, stop_at: Any, stopped: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(stopped):
        fit(run_dir=run, callbacks=stop_at("on_train_epoch_start", 1))
    (run / ".last.ckpt.tmp-0123456789ab").write_bytes(b"half a checkpoint")
    (run / ".model.tmp-0123456789ab").mkdir()
    (run / ".model.tmp-0123456789ab" / "model.safetensors").write_bytes(b"half a model")
    (run / "notes.txt").write_text("mine")

    fit(run_dir=run, resume=True)

    expected = {"config.yaml", "history.csv", "last.ckpt", "last.json", "model", "notes.txt"}
    assert {path.name for path in run.iterdir()} == expected


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_kill_between_the_note_of_a_checkpoint_and_the_checkpoint_leaves_a_usable_pair(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _fail_to_replace(monkeypatch, "last.ckpt", number)
    with pytest.raises(OSError, match="killed here"):
        fit(run_dir=tmp_path / "run", checkpoint_every=1)
    with pytest.raises(OSError, match="killed here"):  # and once more at the next checkpoint
        fit(run_dir=tmp_path / "run", checkpoint_every=1, resume=True)
    monkeypatch.undo()

    assert_equal(fit(run_dir=tmp_path / "run", checkpoint_every=1, resume=True), fit())


def _fail_to_replace(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let renames to ``name`` fail from the n-th on."""
    replace, calls = os.replace, []

    def replace_or_fail(source: Any, target: Any) -> None:
        if Path(target).name == name:
            calls.append(target)
            if len(calls) > number:
                raise OSError("killed here")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", replace_or_fail)


def test_an_interrupted_final_save_leaves_the_older_model_readable_and_the_run_resumable(
    fit: Any, model_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = tmp_path / "run"
    older = fit(run_dir=run, max_epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", lambda path: None)  # a killed process tidies nothing
        _fail_to_replace(patch, "model", 0)
        with pytest.raises(OSError, match="killed here"):
            fit(run_dir=run, resume=True)
    assert not (run / "model").exists()

    assert_equal(model_class.load(run), older)
    assert "left by an interrupted save" in caplog.text
    assert_equal(fit(run_dir=run, resume=True), fit())
    assert_equal(model_class.load(run / "model"), fit())
    assert not list(run.glob(".model*"))


def test_the_run_folder_holds_model_history_and_settings(fit: Any, model_class: Any, tmp_path: Path) -> None:
    model = fit(run_dir=tmp_path / "run")

    assert_equal(model_class.load(tmp_path / "run" / "model"), model)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,train_loss,train_error,train_size,val_loss") and len(lines) == 4
    config = (tmp_path / "run" / "config.yaml").read_text()
    for expected in ("class: Denoise", "hidden_size: 4", "seed: 3", "ema_decay: 0.9", "torch:", "freq: h"):
        assert expected in config


class Shuffled(pl.LightningDataModule):
    """A DataModule as anyone would write it: its order comes from the ambient stream."""

    def train_dataloader(self) -> DataLoader:
        x = torch.linspace(-1, 1, 24).reshape(24, 1, 1)
        return DataLoader(TensorDataset(x), batch_size=8, shuffle=True, collate_fn=self.collate)

    @staticmethod
    def collate(rows: list[tuple[torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"target": torch.stack([row[0] for row in rows])}


def test_a_shuffling_loader_of_the_users_is_resumed_exactly_between_epochs(
    model_class: Any, stop_at: Any, stopped: Any, tmp_path: Path
) -> None:
    reference = model_class().fit(Shuffled(), **FIT)
    with pytest.raises(stopped):
        stop = stop_at("on_train_batch_start", 4)
        model_class().fit(Shuffled(), run_dir=tmp_path / "run", callbacks=stop, **FIT)

    resumed = model_class().fit(Shuffled(), run_dir=tmp_path / "run", resume=True, **FIT)

    assert_equal(resumed, reference)


# Refusals
# ------------------------------------------------------------------------------------------------------


def test_checkpoints_within_an_epoch_need_a_loader_with_a_position(model_class: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DataLoader has no state_dict .* leave checkpoint_every out"):
        model_class().fit(Shuffled(), run_dir=tmp_path / "run", checkpoint_every=2, **FIT)


def test_a_state_that_could_not_be_read_back_is_refused_at_the_first_checkpoint(
    fit: Any, tmp_path: Path
) -> None:
    class Careless(pl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"path": tmp_path}

    with pytest.raises(ValueError, match="more than tensors and plain data .*change its state_dict or leave"):
        fit(run_dir=tmp_path / "run", callbacks=Careless())
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(fit: Any, tmp_path: Path) -> None:
    fit(run_dir=tmp_path / "run", max_epochs=1)

    with pytest.raises(ValueError, match=r"already holds a run of Denoise; .*resume=True"):
        fit(run_dir=tmp_path / "run", max_epochs=1)


@pytest.mark.parametrize("name", ["last.ckpt", "model", "config.yaml"])
def test_a_folder_with_files_of_these_names_is_not_overwritten(fit: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("something else")

    with pytest.raises(ValueError, match=f"holds '{name}'.*choose another run_dir"):
        fit(run_dir=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / name).read_text() == "something else"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 5}, "the run had hidden_size=4, now it is 5"),
        ({"seed": 4}, "the run had seed=3, now it is 4"),
        ({"ema_decay": None}, "the run had ema_decay=0.9, now it is None"),
        ({"accumulate_grad_batches": 2}, "the run had accumulate_grad_batches=None, now it is 2"),
        ({"max_epochs": 1}, "already in epoch 2, max_epochs=1 asks for fewer; resume with max_epochs=2"),
        ({"num_steps": 41}, "training data are not those of the run .*num_steps was 40, now 41"),
        ({"data_seed": 1}, r"training data are not those of the run \(values differ\)"),
        ({"val": None}, r"validation data are not those of the run"),
    ],
)
def test_a_run_is_not_resumed_with_something_else(
    model_class: Any, make_data: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    def fit(hidden_size: int = 4, num_steps: int = 40, data_seed: int = 0, **options: Any) -> None:
        data = make_data(num_steps, data_seed)
        options = {**FIT, "max_epochs": 2, "run_dir": tmp_path / "run", "val": make_data(), **options}
        model_class(hidden_size).fit(data, **options)

    fit()

    with pytest.raises(ValueError, match=message) as caught:
        fit(resume=True, **change)
    assert "run_dir" in str(caught.value)


def test_a_data_module_with_another_batch_size_is_refused(
    model_class: Any, data: xr.Dataset, tmp_path: Path
) -> None:
    options = {**FIT, "run_dir": tmp_path / "run"}
    module = SequenceDataModule(data, length=8, batch_size=8, batches_per_epoch=2)
    model_class().fit(module, **{**options, "max_epochs": 1})

    with pytest.raises(ValueError, match="the run had batch_size=8, this SequenceDataModule has 4"):
        other = SequenceDataModule(data, length=8, batch_size=4, batches_per_epoch=2)
        model_class().fit(other, **options, resume=True)


def test_a_plateau_scheduler_cannot_be_resumed_and_says_so(
    fit: Any, model_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configure(self: Any) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "train_loss"}}

    monkeypatch.setattr(model_class, "configure_optimizers", configure)
    assert np.isfinite(fit().history.train_loss).all()  # the logged mean is there to be monitored

    with pytest.raises(ValueError, match="reduces on a plateau .* leave run_dir out"):
        fit(run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, r"resume=True needs a folder .*run_dir='runs/first'"),
        ({"checkpoint_every": 5}, "checkpoint_every=5 needs a folder"),
        ({"checkpoint_every": 0, "run_dir": "run"}, "checkpoint_every must be .* at least 1, got 0;"),
        ({"checkpoint_every": 1.5, "run_dir": "run"}, "checkpoint_every must be a whole number .* got 1.5;"),
        ({"max_steps": 5, "run_dir": "run"}, "max_steps=5 cannot be resumed exactly; .* leave run_dir out"),
        ({"max_epochs": 0}, "max_epochs must be a whole number, at least 1, got 0;"),
        ({"max_epochs": 1.5}, "max_epochs must be a whole number, at least 1, got 1.5; -1 goes on until"),
        ({"seed": "0"}, "seed must be a whole number .* or None, got '0'; type for instance seed=0"),
        ({"seed": 1.5}, "seed must be a whole number .* got 1.5"),
        ({"seed": 2**70}, rf"seed must be a whole number from -2\*\*63 to .* got {2**70}"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(fit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_arguments_that_nobody_knows_are_refused_with_those_of_fit(fit: Any) -> None:
    with pytest.raises(TypeError, match=r"no argument 'epochs', did you mean 'max_epochs'\? Its own are"):
        fit(epochs=3)
    with pytest.raises(TypeError, match=r"'xyz'\? Its own are .*, seed, .* to pytorch_lightning.Trainer"):
        fit(xyz=1)


def test_a_file_is_no_run_folder(fit: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")

    with pytest.raises(ValueError, match="is a file; give the name of a folder"):
        fit(run_dir=tmp_path / "run")
