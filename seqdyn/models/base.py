"""The one base between Lightning and a model: fit, save, load, history."""

from __future__ import annotations

import abc
import contextlib
import copy
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import pytorch_lightning as pl
from torch import Tensor

from seqdyn._files import plain_data
from seqdyn.errors import NotFittedError
from seqdyn.models.building import WithinSize
from seqdyn.persistence import Record, read_folder, write_folder
from seqdyn.rng import ambient_seed, fork_rng
from seqdyn.train.fit import fit_model
from seqdyn.train.history import History, history_from_json, history_to_json

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Model"]


class Model(pl.LightningModule, abc.ABC):
    """A model is one final subclass: hyperparameters, networks, ``loss`` and its verbs.

    A subclass's ``__init__`` takes plain data (numbers, strings, tuples), calls ``super().__init__()`` and
    ``self.save_hyperparameters()``, and builds its networks. A network handed in by the user is a constructor
    argument named in ``save_hyperparameters(ignore=[...])``; it is handed in again at :meth:`load`. A
    ``training_step`` of its own ends with ``return self._log("train", batch, losses)``.

    Attributes:
        data_kind: What it learns from: ``seqdyn.data.read_<data_kind>`` reads its files.
        history: Dim ``epoch``: ``train_loss`` and its parts, ``val_loss``, ``seconds``; ``None`` before the
            first fit.
        data_info: What :func:`seqdyn.data.schema.describe` says of the training data; ``None`` where it is
            unknown.
        default_epochs: Passes over the data unless ``fit(max_epochs=)`` says otherwise.
        gradient_clip_val: Norm to which gradients are clipped unless ``fit(gradient_clip_val=)`` says
            otherwise.
    """

    data_kind: Literal["sequences", "symbols", "snapshots"] = "sequences"
    history: xr.Dataset | None = None
    data_info: dict[str, Any] | None = None
    gradient_clip_val: float | None = None
    default_epochs: ClassVar[int] = 20
    _has_weights = False
    _handed_in: Mapping[str, Any] = {}
    latest_losses: Mapping[
        str, Tensor
    ] = {}  # of the latest step, for the callbacks that record and guard them

    @abc.abstractmethod
    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        """Turn checked data into loaders of the windows, snapshots or episodes this model trains on."""

    @abc.abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalar ``loss`` of a batch and its detached parts; draws noise, changes nothing."""

    @abc.abstractmethod
    def configure_optimizers(self) -> Any:
        """The optimiser, as Lightning takes it."""

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Remember the constructor's arguments, as Lightning does, and check that they can be saved.

        Raises:
            TypeError: If an argument is not plain data.
            ValueError: If a number is NaN or infinite.
        """
        frame = sys._getframe(1)  # the constructor's, whose arguments are saved
        super().save_hyperparameters(*args, **{"frame": frame, "logger": False, **kwargs})
        for name, value in self.hparams.items():
            self.hparams[name] = plain_data(value, name)
        # Modules and functions of the user: in a plain dict a module is not registered a second time.
        others = inspect.signature(type(self).__init__).parameters.keys() - self.hparams.keys() - {"self"}
        given = {name: frame.f_locals.get(name) for name in others}
        self._handed_in = {name: value for name, value in given.items() if callable(value)}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        # Several processes share one random stream, which goes on alike in all of them; the noise of a batch
        # comes from a stream of each one's own.
        seed = None if self.trainer.world_size == 1 else ambient_seed(None) + self.global_rank
        with fork_rng(seed):
            return self._log("train", batch, self.loss(batch))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        # Common random numbers: each validation batch sees the same noise every epoch, and the training
        # stream goes on as if there were no validation.
        with fork_rng(batch_idx):
            return self._log("val", batch, self.loss(batch))

    def _log(self, stage: str, batch: Mapping[str, Tensor], losses: Mapping[str, Tensor]) -> Tensor:
        """Keep the parts for the callbacks, log them as ``train_*`` or ``val_*``, return the loss."""
        self.latest_losses = {name: value.detach() for name, value in losses.items()}
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, History) for callback in callbacks):  # which logs the means itself
            named = {f"{stage}_{name}": value for name, value in self.latest_losses.items()}
            self.log_dict(named, on_step=False, on_epoch=True, batch_size=len(next(iter(batch.values()))))
        return losses["loss"]

    def fit(
        self,
        data: xr.Dataset | pl.LightningDataModule | None = None,
        *,
        max_epochs: int | None = None,
        val: xr.Dataset | None = None,
        seed: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        checkpoint_every: int | None = None,
        ema_decay: float | None = None,
        **trainer_options: Any,
    ) -> Self:
        """Learn the parameters.

        A model that was never fitted is first initialised anew under ``seed``, so that equal seeds give
        bit-equal weights whatever was drawn before; with ``seed=None`` its weights are taken as they are. A
        fitted model goes on from its weights. Nothing is written anywhere unless ``run_dir`` is given.

        Args:
            data: Training data, or a DataModule that holds it; may be left out where the model has data of
                its own, such as an emulator that was built for a known system.
            max_epochs: Passes over the training data; by default ``default_epochs`` of the model.
            val: Validation data; the weights of the epoch with the lowest ``val_loss`` are kept.
            seed: Seed of initialisation, order of the data and noise; the caller's random state is left
                untouched. ``None`` draws from the ambient stream.
            run_dir: Folder for the fitted model (``model``), ``history.csv``, ``config.yaml`` and the last
                checkpoint.
            resume: Go on with the run in ``run_dir``, bit for bit as if it had not been interrupted. Needs
                the same data and hyperparameters; ``max_epochs`` may be larger than before.
            checkpoint_every: Write a checkpoint every so many batches too, not only after each epoch.
            ema_decay: Keep an exponential moving average of the weights with this decay; it is what is
                validated, kept and saved.
            **trainer_options: Passed to :class:`pytorch_lightning.Trainer` verbatim. With ``strategy="ddp"``
                and several ``devices`` a script trains in as many processes, which share each batch.

        Returns:
            The model, in eval mode, on the device it was trained on: verbs run where the model is, and
            ``model.to("cpu")`` moves it. :func:`seqdyn.load` gives models on the CPU.

        Raises:
            TypeError: If an option is none of the trainer's.
            ValueError: If an argument is out of range, the data does not fit the model, or ``run_dir`` cannot
                be used or resumed.
            NonFiniteError: If a loss or a gradient leaves the finite numbers.
        """
        if isinstance(data, pl.LightningDataModule) and val is not None:
            raise ValueError("a DataModule brings its own validation data; leave val= out.")
        with fork_rng(seed):
            data = self.own_data() if data is None else data
            fit_model(
                self,
                data if isinstance(data, pl.LightningDataModule) else self.datamodule(data, val),
                max_epochs=self.default_epochs if max_epochs is None else max_epochs,
                seed=seed,
                run_dir=run_dir,
                resume=resume,
                checkpoint_every=checkpoint_every,
                ema_decay=ema_decay,
                **trainer_options,
            )
        return self

    def after_training(self, *, progress: bool) -> None:
        """What a model does once the weights that :meth:`fit` keeps are in place; nothing by default.

        A run counts as finished, and its model is written, after this only.

        Args:
            progress: Whether the fit shows progress.
        """

    def own_data(self) -> xr.Dataset:
        """Training data of a model that knows what it is to learn, drawn from the ambient stream.

        Raises:
            ValueError: If it does not.
        """
        raise ValueError(f"{type(self).__name__} learns from data: model.fit(data, ...).")

    @property
    def was_trained(self) -> bool:
        """Whether a fit, here or by a trainer of your own, or a file has set the weights.

        Set it to ``True`` where they came another way, for instance by ``load_state_dict``.
        """
        trainer = self._trainer
        by_trainer = trainer is not None and (trainer.state.fn == "fit" or trainer.global_step > 0)
        return self._has_weights or self.history is not None or by_trainer

    @was_trained.setter
    def was_trained(self, value: bool) -> None:
        self._has_weights = value

    def require_fitted(self) -> None:
        """Refuse to go on with weights that are still those of the constructor; verbs call it first.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        if not self.was_trained:
            name = type(self).__name__
            raise NotFittedError(
                f"this {name} was neither fitted nor loaded, its weights are random; call model.fit(data) "
                "first, or load a fitted one: model = seqdyn.load(path)."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._has_weights = True  # one of Lightning's

    def reinitialize(self) -> None:
        """Draw all parameters anew, as the constructor does; modules handed in by the user keep theirs."""
        self.load_state_dict(self.fresh().state_dict())

    def fresh(self, **changes: Any) -> Self:
        """A model of the same settings that was never fitted.

        Args:
            **changes: Arguments of the constructor that are to differ.
        """
        return type(self)(**{**self.hparams, **copy.deepcopy(dict(self._handed_in)), **changes})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a folder, atomically: ``model.safetensors`` and ``model.json``, no pickle.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If ``path`` holds something that is not a model.
        """
        self.require_fitted()
        info = {"data_info": self.data_info, "history": history_to_json(self.history), **self.facts()}
        write_folder(path, Record(type(self).__name__, dict(self.hparams), self.state_dict(), info))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **modules: Any) -> Self:
        """Read a model folder; nothing in it is executed.

        Args:
            path: Folder that :meth:`save` wrote, or the ``run_dir`` of a fit.
            **modules: Networks that were handed in to the constructor, again.

        Raises:
            ValueError: If the folder is missing, damaged, foreign, newer, or holds another class.
        """
        record = read_folder(path)
        if record.class_name != cls.__name__:
            raise ValueError(
                f"{path} holds a {record.class_name}, not a {cls.__name__}; use seqdyn.load({str(path)!r})."
            )
        for name in record.hyperparameters.keys() & modules.keys():
            raise ValueError(
                f"{path} knows its own {name}, {record.hyperparameters[name]!r}; leave {name}= out. Only "
                "modules that were handed in to the constructor are handed in again."
            )
        numbers = sum(value.numel() for value in record.tensors.values())
        with _fitting(path, cls.__name__), fork_rng(0), WithinSize(numbers, len(record.tensors)):
            model = cls(**record.hyperparameters, **modules)
        model.check_facts(record.info)
        with _fitting(path, cls.__name__):
            model.restore(record)
        return model

    def facts(self) -> dict[str, Any]:
        """What a model adds to its record, as plain data: what its modules are that a user may hand in."""
        return {}

    def check_facts(self, info: Mapping[str, Any]) -> None:
        """Check a model that was built for a record against the :meth:`facts` in it.

        Raises:
            ValueError: If a module that was handed in is missing or differs.
        """

    def restore(self, record: Record) -> None:
        """Take weights, history and description of the data from a record; leaves the model in eval mode.

        The model is cast to the precision of the record first, so that its draws are those of the saved one.
        """
        own = self.state_dict()
        others = {
            value.dtype
            for name, value in record.tensors.items()
            if name in own and value.is_floating_point() and value.dtype != own[name].dtype
        }
        if others:
            self.to(max(others, key=lambda dtype: dtype.itemsize))
        self.load_state_dict(record.tensors)
        self.data_info = record.info.get("data_info")
        self.history = history_from_json(record.info.get("history"))
        self._has_weights = True
        self.eval()


@contextlib.contextmanager
def _fitting(path: Any, name: str) -> Iterator[None]:
    """Say of whatever goes wrong that a folder does not fit a class."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split("\n")[:2]).replace("\t", "")  # torch lists every tensor
        raise ValueError(
            f"{path} does not fit {name} of this version of seqdyn ({reason}); if the model was built with "
            f"networks of your own, hand them in again: {name}.load(path, NAME=network)."
        ) from error
