"""A fit from beginning to end: what was understood, the run's folder, training, where things are."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from seqdyn._arguments import is_count
from seqdyn.persistence import read_folder
from seqdyn.train.run import Run, describe_data, summarize_data
from seqdyn.train.trainer import run_trainer

__all__ = ["fit_model"]

# With several processes one speaks for all.
_say = rank_zero_only(logging.getLogger("seqdyn").info)


def fit_model(
    model: Any,
    datamodule: pl.LightningDataModule,
    *,
    max_epochs: int,
    seed: int | None,
    run_dir: str | os.PathLike[str] | None,
    resume: bool,
    checkpoint_every: int | None,
    ema_decay: float | None,
    **trainer_options: Any,
) -> None:
    """Fit a model in place; the arguments are those of :meth:`seqdyn.models.base.Model.fit`.

    The caller has entered ``fork_rng(seed)``.

    Raises:
        TypeError: If an option is none of the trainer's.
        ValueError: If an argument is out of range, or ``run_dir`` cannot be used or resumed.
        NonFiniteError: If a loss or a gradient leaves the finite numbers.
    """
    _check_options(trainer_options, type(model).fit)
    _check_arguments(max_epochs, run_dir, resume, checkpoint_every, trainer_options.get("max_steps", -1))
    _check_precision(trainer_options.get("precision"))
    run = None
    if run_dir is not None:
        asked = {"max_epochs": max_epochs, "seed": seed, "ema_decay": ema_decay, **trainer_options}
        run = Run(run_dir, model, datamodule, fit=asked, resume=resume)
        if run.finished:
            model.restore(read_folder(run.model_path))
            _say("the run in %s is complete; its model is returned as it is.", run.folder)
            return
    start = _start(model, seed, run)
    count = sum(p.numel() for p in model.parameters())
    _say("%s, %s parameters, %s\n%s", type(model).__name__, f"{count:,}", start, summarize_data(datamodule))
    if run is not None:
        run.begin()
    history = run_trainer(
        model,
        datamodule,
        max_epochs=max_epochs,
        run=run,
        checkpoint_every=checkpoint_every,
        ema_decay=ema_decay,
        **trainer_options,
    )
    model.history, model.data_info = history, describe_data(datamodule)
    model.after_training(progress=trainer_options.get("enable_progress_bar", True))
    seconds = float(history["seconds"].sum()) if "seconds" in history else 0.0
    where = ""
    if run is not None:
        run.finish(model)
        where = f"; model in {run.model_path}, history beside it"
    _say("fitted in %.3g s, weights of %s%s", seconds, history.attrs["weights"], where)


def _check_arguments(
    max_epochs: int, run_dir: Any, resume: bool, checkpoint_every: int | None, max_steps: int
) -> None:
    if not is_count(max_epochs) and max_epochs != -1:
        raise ValueError(
            f"max_epochs must be a whole number, at least 1, got {max_epochs!r}; -1 goes on until "
            "max_time= or max_steps=."
        )
    if run_dir is None and (resume or checkpoint_every is not None):
        name = "resume=True" if resume else f"checkpoint_every={checkpoint_every}"
        raise ValueError(f"{name} needs a folder for checkpoints: fit(..., run_dir='runs/first').")
    if run_dir is not None and max_steps != -1:
        # Lightning loses count where an interruption falls between two epochs of such a fit.
        raise ValueError(
            f"max_steps={max_steps} cannot be resumed exactly; say how long to train with max_epochs, or "
            "leave run_dir out."
        )
    if checkpoint_every is not None and not is_count(checkpoint_every):
        raise ValueError(
            f"checkpoint_every must be a whole number of batches, at least 1, got {checkpoint_every!r}; None "
            "writes one an epoch."
        )


def _check_precision(precision: Any) -> None:
    kind, _, rest = str(precision).partition("-")
    if kind in ("bf16", "16") and rest == "true":
        raise ValueError(
            f"precision={precision!r} keeps the weights themselves in half precision, in which small steps "
            f"are lost; use precision='{kind}-mixed'."
        )


def _check_options(options: Iterable[str], fit: Any) -> None:
    """Refuse what neither ``fit`` nor the trainer knows."""
    own, trainers = (
        [name for name, p in inspect.signature(f).parameters.items() if p.kind is not p.VAR_KEYWORD]
        for f in (fit, pl.Trainer.__init__)
    )
    own, trainers = own[2:], trainers[1:]  # without self and data
    for name in options:
        if name not in trainers:
            near = difflib.get_close_matches(name, own) or difflib.get_close_matches(name, trainers)
            raise TypeError(
                f"fit has no argument {name!r}{f', did you mean {near[0]!r}' if near else ''}? Its own are "
                f"{', '.join(own)}; everything else is passed to pytorch_lightning.Trainer, which does not "
                "know it either."
            )


def _start(model: Any, seed: int | None, run: Run | None) -> str:
    """Settle the weights a fit begins with, and say what was done."""
    fresh = not model.was_trained
    if fresh and seed is not None:
        model.reinitialize()
    if run is not None and run.checkpoint is not None:
        return f"going on with the run in {run.folder}"
    if fresh:
        return "weights as constructed" if seed is None else f"initialised with seed {seed}"
    return "already fitted: going on from its weights"
