"""What a fit does beside descending: it guards its numbers, averages and keeps weights, shows progress."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm.std import tqdm

from seqdyn.errors import NonFiniteError
from seqdyn.train.history import SECONDS, History

__all__ = ["AverageWeights", "KeepBest", "ProgressLine", "StopOnNonFinite"]

logger = logging.getLogger("seqdyn")

_REMEDY = (
    "lower the learning rate, clip gradients with fit(..., gradient_clip_val=1.0), or look for extreme "
    "values in the data."
)


class StopOnNonFinite(pl.Callback):
    """Raise before a loss or a gradient that is not finite reaches the weights."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        if not torch.isfinite(loss).all():
            terms = {**pl_module.latest_losses} or {"loss": loss}
            raise NonFiniteError(f"{_terms('train', terms)} {_place(trainer)}; {_REMEDY}")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        terms = pl_module.latest_losses
        if not torch.isfinite(terms["loss"]).all():
            place = f"in epoch {trainer.current_epoch + 1}, validation batch {batch_idx + 1}"
            raise NonFiniteError(f"{_terms('val', terms)} {place}; {_REMEDY}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # half precision: its gradient scaler skips such steps itself
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        if torch.isfinite(nn.utils.get_total_norm(list(gradients.values()))):
            return
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        what = f"the gradient of {bad[0]!r} is not finite" if bad else "the norm of the gradient is infinite"
        raise NonFiniteError(f"{what} {_place(trainer)}; {_REMEDY}")


def _terms(stage: str, losses: Mapping[str, Tensor]) -> str:
    """Name the terms that are not finite, the parts before their sum."""
    values = {name: float(value) for name, value in losses.items()}
    bad = [name for name in values if not math.isfinite(values[name])]
    bad = sorted(bad, key=lambda name: name == "loss") or ["loss"]
    return f"{stage}_{bad[0]} is {values.get(bad[0], math.nan)}"


def _place(trainer: pl.Trainer) -> str:
    return f"in epoch {trainer.current_epoch + 1}, batch {trainer.fit_loop.batch_idx + 1}"


class AverageWeights(pl.Callback):
    r"""Keep an exponential moving average of the parameters, which is what is validated.

    .. math::
        \bar\theta_k = d_k\, \bar\theta_{k-1} + (1 - d_k)\, \theta_k, \qquad d_k = \min(d, (1 + k) / (10 + k))

    after each optimiser step k, starting from the initial weights; the growing decay lets them be forgotten
    in short fits. Buffers are taken as they are.

    Args:
        decay: d, in [0, 1).

    Raises:
        ValueError: If the decay is outside [0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"ema_decay must lie in [0, 1), got {decay}; 0.999 is usual, None averages nothing."
            )
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self._updates = 0
        self._live: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"averages": dict(self.averages), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages, self._updates = dict(state["averages"]), state["updates"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.averages:
            self._updates = trainer.global_step
            self.averages = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        self.averages = {name: value.to(pl_module.device) for name, value in self.averages.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._updates:
            return  # gradients are still being accumulated
        self._updates = trainer.global_step
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        parameters = dict(pl_module.named_parameters())
        torch._foreach_lerp_(
            list(self.averages.values()), [parameters[name] for name in self.averages], 1 - decay
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.averages:
            self._live = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
            self.apply(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _set_parameters(pl_module, self._live)
        self._live = {}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.on_validation_end(trainer, pl_module)

    def apply(self, model: nn.Module) -> None:
        """Put the averages in the place of the model's parameters."""
        _set_parameters(model, self.averages)


@torch.no_grad()
def _set_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)


class KeepBest(pl.Callback):
    """Keep a copy of the weights with the lowest validation loss.

    Must stand before :class:`AverageWeights` among the callbacks, so that the averages are still in place.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.epoch: int | None = None
        self.value = math.inf
        self.weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "value": self.value, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.value, self.weights = state["epoch"], state["value"], dict(state["weights"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = self._history.val_loss(trainer)
        if value < self.value:
            self.epoch, self.value = len(self._history.rows) + 1, value
            # Copies: the tensors of state_dict() are the live weights.
            self.weights = {name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()}


class ProgressLine(pl.Callback):
    """One line with epoch and losses; in a log, where no line can be overwritten, at most twenty a fit."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A notebook's stream is no terminal, but overwrites its line all the same.
        if not trainer.is_global_zero or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            return
        batches, epochs = trainer.num_training_batches, trainer.max_epochs or 0
        known = math.isfinite(batches) and epochs > 0
        done = trainer.fit_loop.total_batch_idx + 1
        self._bar = tqdm(
            total=int(batches) * epochs if known else None, initial=done, unit="batch", dynamic_ncols=True
        )
        self._describe(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._describe(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The loss is fetched from the device only when the line was redrawn just now.
        if self._bar is not None and self._bar.update() and pl_module.latest_losses:
            self._bar.set_postfix_str(f"loss {float(pl_module.latest_losses['loss']):.4g}", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = self._history.rows[-1]
        losses = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != SECONDS)
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        if self._bar is not None:
            self._bar.set_postfix_str(losses)
        elif trainer.is_global_zero and (epoch % max(1, math.ceil(epochs / 20)) == 0 or epoch == epochs):
            logger.info("epoch %d of %d: %s (%.3g s)", epoch, epochs, losses, row[SECONDS])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _describe(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
