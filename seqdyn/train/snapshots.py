"""Copies of the weights along a fit, for the analysis of training itself."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from seqdyn._arguments import check_count

__all__ = ["KeepWeights"]


class KeepWeights(pl.Callback):
    """Keep copies of the weights at regular times of a fit.

    ::

        keep = KeepWeights(every_n_epochs=5)
        model.fit(data, max_epochs=100, callbacks=[keep])
        seqdyn.analysis.training_dynamics(keep.dynamics(model), loss=model.history["train_loss"])

    Args:
        every_n_epochs: Epochs between copies; the weights before training count as epoch 0.
        every_n_steps: Optimiser steps between copies, instead of epochs.

    Attributes:
        weights: Copies of the state dict by the number of epochs, or steps, that the model had been trained
            for in this fit.

    Raises:
        ValueError: If both are given, or a number is below one.
    """

    def __init__(self, every_n_epochs: int | None = None, every_n_steps: int | None = None) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError("give every_n_epochs or every_n_steps, not both.")
        by_steps = every_n_steps is not None
        name = "every_n_steps" if by_steps else "every_n_epochs"
        given = every_n_steps if by_steps else every_n_epochs
        self._every = check_count(1 if given is None else given, name)
        self._by_steps = by_steps
        self.weights: dict[int, dict[str, Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"weights": {count: dict(weights) for count, weights in self.weights.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = {int(count): dict(weights) for count, weights in state["weights"].items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:  # a fresh fit, not one that is resumed
            self.weights = {}
            self._keep(0, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between optimiser steps, while gradients are accumulated, the count stands still.
        if self._by_steps and trainer.global_step not in self.weights:
            self._keep(trainer.global_step, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._by_steps:
            self._keep(trainer.current_epoch + 1, pl_module)

    def dynamics(self, model: Any) -> dict[int, Any]:
        """The model as a map or a flow with each of the kept weights; the model itself stays as it is.

        Args:
            model: The fitted model, with a method ``dynamics()`` that returns frozen copies of its weights.
        """
        own = _copied(model)
        found = {}
        try:
            for count, weights in self.weights.items():
                model.load_state_dict(weights)
                found[count] = model.dynamics()
        finally:
            model.load_state_dict(own)
        return found

    def _keep(self, count: int, model: pl.LightningModule) -> None:
        if count % self._every == 0:
            self.weights[count] = _copied(model)


def _copied(model: Any) -> dict[str, Tensor]:
    # Copies: the tensors of state_dict() are the live weights.
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
