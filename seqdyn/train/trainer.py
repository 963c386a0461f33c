"""The only place that builds a trainer: quiet, guarded, resumable, and it says what it does."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import xarray as xr
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from seqdyn.train.callbacks import AverageWeights, KeepBest, ProgressLine, StopOnNonFinite
from seqdyn.train.checkpoint import SaveProgress, VerifiedIO
from seqdyn.train.history import History
from seqdyn.train.run import Run

__all__ = ["run_trainer"]

logger = logging.getLogger("seqdyn")

# Harmless in every small fit: loaders over memory need no workers, validation data are optional, and a
# machine may have an accelerator that was not asked for; a model that alternates has no optimiser.
_HARMLESS = (
    r"Total length of `list` across ranks is zero",
    r"You defined a `validation_step` but have no `val_dataloader`",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '\w+' does not have many workers which may be a bottleneck",
    r"GPU available but not used",
    r"MPS available but not used",
    r".*configure_optimizers.* returned `None`",
)


def run_trainer(
    model: Any,
    datamodule: pl.LightningDataModule,
    *,
    max_epochs: int,
    run: Run | None = None,
    checkpoint_every: int | None = None,
    ema_decay: float | None = None,
    enable_progress_bar: bool = True,
    callbacks: Sequence[pl.Callback] | pl.Callback | None = None,
    plugins: Any = None,
    **options: Any,
) -> xr.Dataset:
    """Train a model in place and put its final weights in place: the best, the averaged or the last ones.

    Args:
        model: A :class:`seqdyn.models.base.Model`; left in eval mode on the device it was trained on.
        datamodule: Its loaders. Validation data make the weights with the lowest ``val_loss`` those that are
            kept.
        max_epochs: Passes over the training loader.
        run: Folder for checkpoints, and the checkpoint to go on from.
        checkpoint_every: Batches between checkpoints within an epoch.
        ema_decay: Decay of the average of the weights; ``None`` for none.
        enable_progress_bar: Whether progress is shown.
        callbacks: More callbacks.
        plugins: More plugins.
        **options: To :class:`pytorch_lightning.Trainer`, verbatim; they win over the defaults chosen here.

    Returns:
        History, dim ``epoch``; ``attrs["weights"]`` says which weights were kept.

    Raises:
        NonFiniteError: If a loss or a gradient leaves the finite numbers.
    """
    history = History(model.history)
    best, average = KeepBest(history), None if ema_decay is None else AverageWeights(ema_decay)
    others = [callbacks] if isinstance(callbacks, pl.Callback) else list(callbacks or ())
    everyone = [history, StopOnNonFinite(), best, *([] if average is None else [average]), *others]
    own_bar = any(isinstance(callback, ProgressBar) for callback in others)
    if enable_progress_bar and not own_bar:
        everyone.append(ProgressLine(history))
    plugins = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    resume_from = None
    if run is not None:
        everyone.append(SaveProgress(run.file.path, checkpoint_every))
        plugins.append(VerifiedIO(run.file, run.checkpoint))
        resume_from = None if run.checkpoint is None else run.file.path
        run.checkpoint = None  # it may be large, and is needed only until it is restored
    defaults = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": model.gradient_clip_val,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in everyone),
        "max_epochs": max_epochs,
        "enable_progress_bar": enable_progress_bar and own_bar,
    }
    with _quiet():
        trainer = pl.Trainer(**{**defaults, **options}, callbacks=everyone, plugins=plugins or None)
        _train(trainer, model, datamodule, resume_from)
    return history.dataset({"weights": _keep(model, history, best, average)})


def _train(
    trainer: pl.Trainer, model: Any, datamodule: pl.LightningDataModule, resume_from: Path | None
) -> None:
    """Fit, and leave the model detached from the trainer, in eval mode."""
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            "a strategy that spawns or forks its processes cannot hand history and kept weights back; run a "
            "script with strategy='ddp', or train with devices=1."
        )
    if trainer.is_global_zero:
        logger.info("training on %s", trainer.strategy.root_device)
    model.train()
    try:
        with _interruptible():
            trainer.fit(model, datamodule=datamodule, ckpt_path=resume_from)
        model.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    finally:
        model.eval()
        model.trainer = None


def _keep(model: Any, history: History, best: KeepBest, average: AverageWeights | None) -> str:
    """Put the weights that are kept in place, and say which they are."""
    averaged = "" if average is None else f", averaged with decay {average.decay:g}"
    if best.weights:
        model.load_state_dict(best.weights)
        return f"epoch {best.epoch}, best val_loss {best.value:.6g}{averaged}"
    if average is not None:
        average.apply(model)
    return f"epoch {len(history.rows)}, last{averaged}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and tips from the user; its errors and other warnings pass."""
    names = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for text in _HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt; Lightning ends the process instead, deaf to the next one."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)
