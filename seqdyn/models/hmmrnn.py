r"""HMMRNN: a recurrent network driven by noise alone that emulates a discrete process.

The network turns white noise into logits, symbols are drawn from them, and the *set* of sequences is compared
with the data by an entropic transport divergence: no data sequence belongs to a given noise.

The gradient is taken in one of two ways. ``"unbiased"``, the default, uses that symbols are independent given
the logits: it weighs what each possible symbol would do to the divergence by its probability, exactly, with
potentials of other draws (:mod:`seqdyn.ot.categorical`). ``"straight-through"`` is as published: a
Gumbel-softmax whose gradient is that of the soft sample, and the divergence between two batches. It has
biases that do not vanish with training: with a small blur the minimum is a process less variable than the
data, with a large one the gradient ends at a process that is more so.

Source: Torre et al. (2025), arXiv 2510.25674; the unbiased gradient is ours.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm.auto import tqdm

from seqdyn._arguments import check_amount, check_count
from seqdyn.data.convert import provenance
from seqdyn.data.schema import OUTCOME, SAMPLE, SYMBOL, TIME, check_sequences
from seqdyn.data.sequences import SequenceDataModule
from seqdyn.datasets import hmm as processes
from seqdyn.dynamics import MapDynamics
from seqdyn.dynamics.symbols import symbols_of
from seqdyn.errors import NonFiniteError
from seqdyn.models.base import Model
from seqdyn.nn.noise_rnn import ACTIVATIONS, NoiseRNN
from seqdyn.ot import auto_blur, sinkhorn_divergence
from seqdyn.ot.categorical import transport, witness
from seqdyn.rng import ambient_seed, fork_rng

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from seqdyn.inference.hmm import HMM

__all__ = ["HMMRNN"]

GRADIENTS = ("unbiased", "straight-through")
SCALES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 50, "input_size": 10, "batch_size": 1024},
    "paper": {"hidden_size": 150, "input_size": 100, "batch_size": 4096},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "default": {"initial": "normal"},
    "fully": {"gradient_clip": 0.3},
    "cyclic": {"gradient_clip": 0.3},
}
NUM_SERIES = 30_000  # sequences drawn of a process, as published
KEPT = ("symbol", "hidden", "logits")
UNIT = "unit"
_NUM_PAIRS = 4
_LAST_RATE = 0.02  # learning rate at the end, as a share of the first


class HMMRNN(Model):
    """Vanilla recurrent network that emulates a hidden Markov model, or any discrete process, from noise.

    Args:
        num_symbols: Symbols K.
        hidden_size: Units H. Paper: 150.
        input_size: Noise dimension X. Paper: 100.
        num_steps: Steps T of the sequences that are compared. ``None`` takes whole data series.
        activation: ``"relu"`` or ``"tanh"``.
        bias: Whether units and readout have biases. Paper: no.
        initial: ``"zero"`` starts every sequence from zero activity, ``"normal"`` from N(0, I).
        gradient: ``"unbiased"``, or ``"straight-through"`` as published.
        blur: Root of the regularisation of the transport, in root steps; ``None`` is chosen from the data, a
            quarter of their mean distance. With the unbiased gradient a smaller one is as right and sees
            short flickers better, at more noise: for slow processes try half of it (``model.epsilon`` is its
            square). Paper: 0.2, with ``gradient="straight-through"``.
        temperature: Of the soft sample of ``"straight-through"``.
        weight_penalty: Times the sum of the norms of the weights, added to the loss.
        learning_rate: Of Adam; falls along a cosine to 2 % within ``decay_steps`` steps.
        decay_steps: Steps over which the learning rate falls; ``None`` keeps it.
        gradient_clip: Norm to which gradients are clipped.
        batch_size: Sequences per training step, of the model and of the data.
        batches_per_epoch: Training steps called one epoch.
        process: Name of the hidden Markov model of :mod:`seqdyn.datasets.hmm` that ``fit()`` without data
            draws its sequences from; set by :meth:`preset`.

    Raises:
        ValueError: If an argument is out of range.
    """

    data_kind = "symbols"

    def __init__(
        self,
        num_symbols: int,
        hidden_size: int = 50,
        input_size: int = 10,
        num_steps: int | None = None,
        activation: str = "relu",
        bias: bool = False,
        initial: str = "zero",
        gradient: str = "unbiased",
        blur: float | None = None,
        temperature: float = 1.0,
        weight_penalty: float = 0.0,
        learning_rate: float = 2e-3,
        decay_steps: int | None = 2000,
        gradient_clip: float = 0.9,
        batch_size: int = 1024,
        batches_per_epoch: int = 100,
        process: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        self.gradient_clip_val = float(gradient_clip)
        self.network = NoiseRNN(num_symbols, hidden_size, input_size, activation, bias)
        # Regularisation in force, and half the mean transport cost between two sets of the data.
        self.register_buffer("epsilon", torch.tensor(math.nan if blur is None else blur**2))
        self.register_buffer("data_cost", torch.tensor(math.nan))

    epsilon: Tensor
    data_cost: Tensor

    @classmethod
    def preset(cls, name: str, scale: str = "small", **arguments: Any) -> Self:
        """A network for one of the published processes; ``fit()`` then needs no data.

        Args:
            name: ``"two"`` to ``"five"`` (linear chains), ``"fully"``, ``"cyclic"`` or ``"default"``.
            scale: ``"small"`` (50 units, noise dimension 10, batch 1024) or ``"paper"`` (150, 100, 4096).
            **arguments: Of the constructor; they win.

        Raises:
            ValueError: If there is no such process or scale.
        """
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {tuple(SCALES)}, got {scale!r}.")
        num_symbols = processes.preset(name).num_symbols
        own = {"num_symbols": num_symbols, "num_steps": processes.PRESETS[name].num_steps, "process": name}
        return cls(**{**own, **SCALES[scale], **PUBLISHED.get(name, {}), **arguments})

    @property
    def hmm(self) -> HMM:
        """The hidden Markov model that this network was built to emulate.

        Raises:
            ValueError: If it was built for none.
        """
        if self.hparams.process is None:
            raise ValueError("this network was not built for a known process; HMMRNN.preset('three') is.")
        return processes.preset(self.hparams.process)

    @property
    def is_homogeneous(self) -> bool:
        """Whether scaling noise and state scales everything: a rectifier without biases."""
        return self.hparams.activation == "relu" and not self.hparams.bias

    # Training -------------------------------------------------------------------------------------------

    def own_data(self) -> xr.Dataset:
        if self.hparams.process is None:
            return super().own_data()
        return self.hmm.sequences(NUM_SERIES, self.hparams.num_steps, seed=ambient_seed(None))

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        for part in (data, val):
            if part is not None:
                self._check_symbols(part)
        if val is not None and {OUTCOME} <= data.coords.keys() & val.coords.keys():
            _check_same_labels(data, val)
        return SequenceDataModule(
            data,
            length=data.sizes[TIME] if self.hparams.num_steps is None else self.hparams.num_steps,
            batch_size=self.hparams.batch_size,
            batches_per_epoch=self.hparams.batches_per_epoch,
            val=val,
        )

    def on_fit_start(self) -> None:
        if not bool(torch.isnan(self.data_cost)):
            return  # resumed, or fitted before
        loader = self.trainer.datamodule.train_dataloader()
        sets = [self._one_hot(batch[SYMBOL].to(self.device)) for batch in _first(loader, 2 * _NUM_PAIRS)]
        pairs = list(zip(sets[::2], sets[1::2], strict=True))
        if self.hparams.blur is None:
            self.epsilon.fill_(auto_blur(torch.cat(sets).flatten(1)) ** 2)
        costs = (transport(*pair, epsilon=float(self.epsilon)).value for pair in pairs)
        self.data_cost.fill_(mean(float(cost) for cost in costs) / 2 if self._unbiased else 0.0)

    def configure_optimizers(self) -> Any:
        hparams = self.hparams
        optimizer = torch.optim.Adam(self.parameters(), lr=hparams.learning_rate, betas=(0.9, 0.9))
        if hparams.decay_steps is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        done = min(step / self.hparams.decay_steps, 1.0)
        return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2

    @property
    def _unbiased(self) -> bool:
        return bool(self.hparams.gradient == "unbiased")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Divergence between the sequences of a batch and as many of the model.

        With the unbiased gradient the value is an unbiased estimate, which fluctuates around zero for a
        perfect model; otherwise that of the debiased divergence between two batches, which does not.
        """
        target = self._one_hot(batch[SYMBOL])
        loss = self._unbiased_loss(target) if self._unbiased else self._published_loss(target)
        if not self.hparams.weight_penalty:
            return {"loss": loss}
        penalty = self.hparams.weight_penalty * torch.stack([w.norm() for w in self.parameters()]).sum()
        return {"loss": loss + penalty, "divergence": loss.detach(), "penalty": penalty.detach()}

    def _unbiased_loss(self, target: Tensor) -> Tensor:
        size, num_steps, _ = target.shape
        with torch.no_grad():
            first, second = self._symbols(self._logits(2 * size, num_steps)).chunk(2)
        logits = self._logits(size, num_steps)
        with torch.no_grad():
            found = witness(self._symbols(logits), target, first, second, epsilon=float(self.epsilon))
        expected = (
            logits.softmax(dim=-1) * found.effects
        ).sum() / size  # its gradient is that of the divergence
        return found.value - self.data_cost + (expected - expected.detach())

    def _published_loss(self, target: Tensor) -> Tensor:
        size, num_steps, _ = target.shape
        noisy = self._logits(size, num_steps)
        noisy = noisy - noisy.new_empty(noisy.shape).exponential_().log()
        soft = (noisy / self.hparams.temperature).softmax(dim=-1)
        symbols = self._one_hot(noisy.argmax(dim=-1)) + (soft - soft.detach())
        return sinkhorn_divergence(
            symbols.flatten(1), target.flatten(1), epsilon=float(self.epsilon), mode="annealed"
        )

    def _logits(self, size: int, num_steps: int) -> Tensor:
        """Logits of fresh runs, (B, T, K)."""
        noise = self.epsilon.new_empty(num_steps, size, self.hparams.input_size).normal_()
        return self.network(noise, self._start(size)).logits.transpose(0, 1)

    def _start(self, size: int) -> Tensor:
        start = self.epsilon.new_zeros(size, self.hparams.hidden_size)
        return start.normal_() if self.hparams.initial == "normal" else start

    def _symbols(self, logits: Tensor) -> Tensor:
        """Symbols drawn from logits, one-hot."""
        return self._one_hot(symbols_of(logits, "sampled"))

    def _one_hot(self, symbols: Tensor) -> Tensor:
        return nn.functional.one_hot(symbols, self.hparams.num_symbols).to(self.dtype)

    # Verbs ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        num_steps: int | None = None,
        burn_in: int = 0,
        sigma: float = 1.0,
        seed: int | None = None,
        keep: Sequence[str] = KEPT,
        progress: bool = True,
    ) -> xr.Dataset:
        """Run the network under fresh noise.

        Args:
            num_samples: Independent runs.
            num_steps: Steps to return; by default those of the training sequences.
            burn_in: Steps before them that are not returned.
            sigma: Standard deviation of the noise; 1 in training.
            seed: Seed of noise and symbols; ``None`` takes one from the ambient stream.
            keep: Variables to return, among ``"symbol"``, ``"hidden"`` and ``"logits"``; memory grows with
                these only.
            progress: Show a progress bar.

        Returns:
            ``symbol (sample, time)``, ``hidden (sample, time, unit)`` and ``logits (sample, time, outcome)``;
            with the labels of the training data, if they had any, as the coordinate ``outcome``.

        Raises:
            NonFiniteError: If the activity grows without bound.
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If an argument is out of range.
        """
        self.require_fitted()
        steps = self.hparams.num_steps if num_steps is None else num_steps
        check_count(steps, "num_steps", hint="for instance num_steps=100")
        check_count(num_samples, "num_samples", hint="for instance num_samples=1000")
        check_count(burn_in, "burn_in", least=0)
        check_amount(sigma, "sigma")
        _check_kept(keep)
        seed = ambient_seed(seed)
        with fork_rng(seed):
            kept = self._simulate(num_samples, steps, burn_in, float(sigma), set(keep), progress)
        dims = {"symbol": (SAMPLE, TIME), "hidden": (SAMPLE, TIME, UNIT), "logits": (SAMPLE, TIME, OUTCOME)}
        labels = (self.data_info or {}).get("symbols")
        outcome = {} if labels is None else {OUTCOME: pd.Index(labels)}
        return xr.Dataset(
            {name: (dims[name], kept[name].numpy()) for name in KEPT if name in kept},
            {SAMPLE: range(num_samples), TIME: range(steps), **outcome},
            provenance(type(self).__name__, seed) | {"sigma": sigma, "burn_in": burn_in},
        )

    def _simulate(
        self, num_samples: int, num_steps: int, burn_in: int, sigma: float, keep: set[str], progress: bool
    ) -> dict[str, Tensor]:
        hidden, kept = self._start(num_samples), {name: list[Tensor]() for name in keep}
        bar = tqdm(range(burn_in + num_steps), desc="steps", leave=False, disable=None if progress else True)
        for step in bar:
            noise = hidden.new_empty(num_samples, self.hparams.input_size).normal_(std=sigma)
            hidden = self.network.step(hidden, noise)
            if step < burn_in:
                continue
            logits = self.network.logits(hidden)
            now = {"symbol": symbols_of(logits, "sampled"), "hidden": hidden, "logits": logits}
            for name, values in kept.items():
                values.append(now[name].cpu())
        if not bool(torch.isfinite(hidden).all()):
            raise NonFiniteError(
                f"the activity left the finite numbers within {burn_in + num_steps} steps: the network is "
                "unstable; train longer, or with a lower learning_rate."
            )
        return {name: torch.stack(values, dim=1) for name, values in kept.items()}

    def dynamics(self) -> MapDynamics:
        """The network as a map of its activity, driven by noise; weights as they are now, frozen."""
        network = copy.deepcopy(self.network).requires_grad_(False)
        return MapDynamics(
            step=network.step,
            readout=network.logits,
            state_size=self.hparams.hidden_size,
            input_size=self.hparams.input_size,
            preactivation=network.drive,
            activation=ACTIVATIONS[self.hparams.activation],
        )

    def _check_symbols(self, data: xr.Dataset) -> None:
        check_sequences(data, variable=SYMBOL)
        most, known = int(data[SYMBOL].max()), self.hparams.num_symbols
        if OUTCOME in data.coords and data.sizes[OUTCOME] != known:
            labels = data[OUTCOME].values.tolist()
            listed = ", ".join(map(repr, labels[:6])) + (", ..." if len(labels) > 6 else "")
            raise ValueError(
                f"the data have {len(labels)} symbols ({listed}) but the model was built with "
                f"num_symbols={known}; build it with num_symbols={len(labels)}, or read the data with "
                "symbols=[...], all labels of the model."
            )
        if most >= known:
            raise ValueError(
                f"the data hold symbol {most} but the model was built with num_symbols={known}; build it "
                f"with num_symbols={most + 1}."
            )


def _check_same_labels(data: xr.Dataset, val: xr.Dataset) -> None:
    if data[OUTCOME].values.tolist() != val[OUTCOME].values.tolist():
        raise ValueError(
            f"the validation data have the symbols {val[OUTCOME].values[:6].tolist()}, the training data "
            f"{data[OUTCOME].values[:6].tolist()}: code k would not mean the same; read them with "
            "read_symbols(..., symbols=data.outcome.values)."
        )


def _first(loader: Any, count: int) -> list[dict[str, Tensor]]:
    """The first batches of a loader, going round where an epoch has fewer."""
    batches: list[dict[str, Tensor]] = []
    while len(batches) < count:
        batches.extend(itertools.islice(iter(loader), count - len(batches)))
    return batches


def _check(hparams: Any) -> None:
    for name in ("num_symbols", "hidden_size", "input_size", "batch_size", "batches_per_epoch"):
        check_count(hparams[name], name, least=2 if name == "num_symbols" else 1)
    for name in ("num_steps", "decay_steps"):
        if hparams[name] is not None:
            check_count(hparams[name], name)
    choices = {"activation": tuple(ACTIVATIONS), "initial": ("zero", "normal"), "gradient": GRADIENTS}
    for name, known in choices.items():
        if hparams[name] not in known:
            raise ValueError(f"{name} must be one of {known}, got {hparams[name]!r}.")
    for name in ("temperature", "learning_rate", "gradient_clip", "blur"):
        if name != "blur" or hparams.blur is not None:
            check_amount(hparams[name], name, zero=False)
    check_amount(hparams.weight_penalty, "weight_penalty")


def _check_kept(keep: Sequence[str]) -> None:
    if isinstance(keep, str) or not set(keep) <= set(KEPT) or not keep:
        raise ValueError(f"keep must list some of {KEPT}, got {keep!r}; for instance keep=['symbol'].")
