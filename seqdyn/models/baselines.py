r"""Small, honest comparisons under the verbs of the models: two seasonal forecasts and a linear one.

A baseline is a plain object: ``fit`` is closed form and reports no loss history, a forecast of one series
never depends on the others in the context, and ``save`` writes the same folder as any model.
"""

from __future__ import annotations

import abc
import math
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from seqdyn._arguments import check_count, check_lower
from seqdyn.data.alike import check_alike
from seqdyn.data.convert import forecast_dataset
from seqdyn.data.early_ends import warn_of_early_ends
from seqdyn.data.schema import (
    FEATURE,
    SERIES,
    TARGET,
    TIME,
    check_sequences,
    describe,
    observed_mask,
)
from seqdyn.errors import NotFittedError
from seqdyn.models.ridge import WindowRegression, fill_forward, fit_window_regression
from seqdyn.persistence import Record, read_folder, write_folder
from seqdyn.rng import NoiseSource, ambient_seed

__all__ = ["LinearForecaster", "SeasonalEnsemble", "SeasonalNaive"]


class _Baseline(abc.ABC):
    """What the baselines share: the description of the training data, checks, saving and loading."""

    history: None = None
    data_info: dict[str, Any] | None = None
    prediction_length: int

    def __init__(self, **hyperparameters: Any) -> None:
        self.hyperparameters = hyperparameters
        self._tensors: dict[str, torch.Tensor] = {}

    def fit(
        self,
        data: xr.Dataset,
        *,
        max_epochs: int | None = None,
        seed: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn from ``data``, in closed form.

        Args:
            data: Sequences ``target (series, time, feature)``.
            max_epochs: Accepted as by every model; there are no epochs here.
            seed: Accepted as by every model; nothing is drawn here.
            run_dir: Folder in which the fitted baseline is saved, as ``model``; an earlier one is replaced.
            resume: Accepted as by every model; there is nothing to go on with, the fit is made again.

        Returns:
            The fitted baseline.

        Raises:
            ValueError: If the data are malformed or too short.
        """
        check_sequences(data, min_length=self._min_length())
        self._tensors = self._learn(data)
        self.data_info = describe(data)
        if run_dir is not None:
            self.save(Path(run_dir) / "model")
        return self

    def forecast(
        self,
        context: xr.Dataset,
        *,
        num_samples: int = 100,
        seed: int | None = None,
        batch_size: int | None = None,
    ) -> xr.Dataset:
        """Continue ``context``.

        Args:
            context: Sequences with the features and the frequency of the training data; any series.
            num_samples: Sample paths S.
            seed: Seed of the draws; ``None`` takes one from the ambient stream. A path belongs to (seed,
                series label, sample index), whatever else is forecast.
            batch_size: Accepted as by every model; all series are computed at once here.

        Returns:
            ``target (sample, series, time, feature)``, the next ``prediction_length`` steps, in the units of
            ``context``.

        Raises:
            NotFittedError: If ``fit`` was not called.
            ValueError: If the context is malformed, too short, or unlike the training data.

        Warns:
            EarlyEndWarning: If a series ends more than ``prediction_length`` steps before the data do.
        """
        self.require_fitted()
        check_count(num_samples, "num_samples", hint="100 is usual")
        check_sequences(context, min_length=self._min_length())
        check_alike(context, self.data_info)
        warn_of_early_ends(context, self.prediction_length)
        seed = ambient_seed(seed)
        values = self._draw(context, num_samples, seed)
        return forecast_dataset(values, context, model=type(self).__name__, seed=seed)

    def require_fitted(self) -> None:
        """Refuse to go on without training data; verbs call it first.

        Raises:
            NotFittedError: If the baseline was neither fitted nor loaded.
        """
        if self.data_info is None:
            raise NotFittedError(
                f"this {type(self).__name__} was neither fitted nor loaded; call model.fit(data) first, or "
                "load a fitted one: model = seqdyn.load(path)."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the baseline as a model folder, atomically.

        Raises:
            NotFittedError: If ``fit`` was not called.
            ValueError: If ``path`` holds something that is not a model.
        """
        self.require_fitted()
        info = {"data_info": self.data_info}
        write_folder(path, Record(type(self).__name__, self.hyperparameters, self._tensors, info))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **modules: Any) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            path: Folder that :meth:`save` wrote, or the ``run_dir`` of a fit.
            **modules: Accepted as by every model; a baseline is built of no networks, so that there are none.

        Raises:
            ValueError: If the folder is missing, damaged, foreign, newer, or holds another class; if networks
                are handed in.
        """
        if modules:
            raise ValueError(
                f"a {cls.__name__} is built of no networks; leave out {', '.join(modules)}: "
                f"{cls.__name__}.load({str(path)!r})."
            )
        record = read_folder(path)
        if record.class_name != cls.__name__:
            raise ValueError(
                f"{path} holds a {record.class_name}, not a {cls.__name__}; use seqdyn.load({str(path)!r})."
            )
        try:
            baseline = cls(**record.hyperparameters)
        except TypeError as error:
            raise ValueError(
                f"{path} does not fit the {cls.__name__} of this version of seqdyn ({error}); fit it again."
            ) from error
        baseline._tensors = record.tensors
        baseline.data_info = record.info.get("data_info")
        if not {"features", "freq"} <= (baseline.data_info or {}).keys() or not baseline._fits(
            record.tensors
        ):
            raise ValueError(f"{path} does not hold what a fitted {cls.__name__} saves; fit it again.")
        return baseline

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.hyperparameters.items())})"

    @abc.abstractmethod
    def _min_length(self) -> int:
        """Fewest steps of a context."""

    @abc.abstractmethod
    def _draw(self, context: xr.Dataset, num_samples: int, seed: int) -> np.ndarray:
        """Sample paths of a checked context, (S, M, P, C)."""

    def _learn(self, data: xr.Dataset) -> dict[str, torch.Tensor]:
        """Estimate what the forecast needs beyond its context; nothing by default."""
        return {}

    def _fits(self, tensors: dict[str, torch.Tensor]) -> bool:
        """Whether tensors are of the names, shapes and type that :meth:`_learn` gives."""
        return not tensors


class SeasonalEnsemble(_Baseline):
    r"""The values of the last seasons at the same phase, taken as sample paths.

    .. math:: x_{k, T+h} = y_{T + ((h-1) \bmod m) + 1 - k m}, \qquad k = 1, \dots, K

    Path k repeats season k back, hence keeps its course within the season. With ``num_samples`` = K every
    season is one path; otherwise seasons are dealt like cards, K distinct ones at a time in an order drawn
    per series, so that each enters equally often up to one. Where a season has a missing value, the next
    older observed value at that phase stands in; where fewer than K exist, those that exist are repeated in
    turn.

    Args:
        season_length: Season m in steps.
        num_seasons: Number of seasons K.
        prediction_length: Steps to forecast; beyond one season the phases repeat.

    Raises:
        ValueError: If an argument is below 1.
    """

    def __init__(self, season_length: int, num_seasons: int, prediction_length: int) -> None:
        self.season_length = _count(season_length, "season_length")
        self.num_seasons = _count(num_seasons, "num_seasons")
        self.prediction_length = _count(prediction_length, "prediction_length")
        super().__init__(
            season_length=self.season_length,
            num_seasons=self.num_seasons,
            prediction_length=self.prediction_length,
        )

    def _min_length(self) -> int:
        return self.season_length

    def _draw(self, context: xr.Dataset, num_samples: int, seed: int) -> np.ndarray:
        lengths = self.season_length, self.num_seasons, self.prediction_length
        seasons = last_seasons(context, *lengths)  # (K, M, P, C)
        num_blocks = math.ceil(num_samples / self.num_seasons)
        keys = _normals(seed, context, num_blocks * self.num_seasons)  # (M, blocks * K)
        order = keys.reshape(len(keys), num_blocks, self.num_seasons).argsort(axis=2)
        chosen = order.reshape(len(keys), -1)[:, :num_samples].T  # (S, M)
        return np.take_along_axis(seasons, chosen[:, :, None, None], axis=0)


class SeasonalNaive(_Baseline):
    r"""The last season, repeated: :math:`x_{T+h} = y_{T + ((h-1) \bmod m) + 1 - m}`.

    A point forecast: all sample paths are equal, intervals have no width, and the CRPS is the normalised
    deviation. Where the last season has a missing value, the latest observed value at that phase stands in.

    Args:
        season_length: Season m in steps; 1 repeats the last value.
        prediction_length: Steps to forecast.

    Raises:
        ValueError: If an argument is below 1.
    """

    def __init__(self, season_length: int, prediction_length: int) -> None:
        self.season_length = _count(season_length, "season_length")
        self.prediction_length = _count(prediction_length, "prediction_length")
        super().__init__(season_length=self.season_length, prediction_length=self.prediction_length)

    def _min_length(self) -> int:
        return self.season_length

    def _draw(self, context: xr.Dataset, num_samples: int, seed: int) -> np.ndarray:
        last = last_seasons(context, self.season_length, 1, self.prediction_length)
        return last.repeat(num_samples, axis=0)


def last_seasons(
    context: xr.Dataset, season_length: int, num_seasons: int, prediction_length: int
) -> np.ndarray:
    """Return the last observed values at the phase of each future step, season by season.

    Args:
        context: Checked sequences.
        season_length: Season m in steps.
        num_seasons: Values per phase K.
        prediction_length: Future steps P.

    Returns:
        Values (K, M, P, C), the latest season first. A missing one is replaced by the next older observed
        value at its phase that is not yet among them, then by those that are, in turn.

    Raises:
        ValueError: If a series has no observed value at a phase.
    """
    recent = context.isel({TIME: slice(-num_seasons * season_length, None)})
    if observed_mask(recent).all():
        context = recent  # older seasons serve only where one of these is missing
    phases = min(season_length, prediction_length)
    # (N, M, phases, C)
    values, observed = (_by_season(part, season_length)[:, :, :phases] for part in _arrays(context))
    count = observed.sum(axis=0)
    if (count == 0).any():
        i, phase, j = (int(axis[0]) for axis in np.nonzero(count == 0))
        label = context[SERIES].values.tolist()[i]
        raise ValueError(
            f"series {label!r}, feature {context[FEATURE].values[j]!s}, has no observed value "
            f"{season_length - phase} steps before the end or whole seasons of {season_length} before; "
            f"give a longer context, or leave the series out with context.drop_sel(series=[{label!r}])."
        )
    latest_first = np.argsort(~observed, axis=0, kind="stable")  # observed seasons, then the others
    observed = _pad(observed[:num_seasons], num_seasons)
    kept = observed.cumsum(axis=0)
    # An observed season is itself; the missing ones continue the list of observed seasons where those end.
    rank = np.where(observed, kept - 1, kept[-1] + (~observed).cumsum(axis=0) - 1) % count
    seasons = np.take_along_axis(values, np.take_along_axis(latest_first, rank, axis=0), axis=0)
    return seasons[:, :, np.arange(prediction_length) % season_length]


def _pad(observed: np.ndarray, num_seasons: int) -> np.ndarray:
    missing = np.zeros((num_seasons - len(observed), *observed.shape[1:]), dtype=bool)
    return np.concatenate([observed, missing])


def _by_season(values: np.ndarray, season_length: int) -> np.ndarray:
    """Cut (M, T, C) into seasons, (N, M, m, C), counted from the end; the oldest is padded with 0."""
    num_series, num_steps, num_features = values.shape
    num_seasons = math.ceil(num_steps / season_length)
    padding = num_seasons * season_length - num_steps
    values = np.pad(values, ((0, 0), (padding, 0), (0, 0)))
    seasons = values.reshape(num_series, num_seasons, season_length, num_features)
    return seasons.swapaxes(0, 1)[::-1]


class LinearForecaster(_Baseline):
    r"""Ridge regression from the context to all future steps, with resampled residuals.

    .. math::
        \hat y = s\,(W x / s + b), \qquad s = \mathrm{mean}\,|x|, \qquad
        \min_{W, b} \sum \|y/s - W x/s - b\|^2 + \lambda \|W\|^2

    over all windows of all series and features, each divided by the mean absolute value s of its context x. A
    sample path adds the whole residual vector, in units of s, of a window drawn from the training data, which
    keeps the dependence between steps and features. The residuals come from fits to the other fifths of the
    training time, so that they are as wide as errors on new data; those of all hours and days share one law,
    so that intervals are too wide where a series is calm and too narrow where it is not. A context that is
    zero throughout is forecast as zero.

    A missing value of a context is replaced by the last one before it; windows whose future has a missing
    value do not enter the fit.

    Args:
        context_length: Steps of the regression's input.
        prediction_length: Steps to forecast.
        penalty: λ. The windows are many and scaled, so that it matters little; it is not tuned.
        lower: Smallest possible value, in the units of the data, to which draws are clipped: 0.0 for counts.

    Raises:
        ValueError: If a length is below 1, the penalty is not positive, or ``lower`` is not finite.
    """

    def __init__(
        self, context_length: int, prediction_length: int, penalty: float = 1.0, lower: float | None = None
    ) -> None:
        self.context_length = _count(context_length, "context_length")
        self.prediction_length = _count(prediction_length, "prediction_length")
        if not (penalty > 0 and math.isfinite(penalty)):
            raise ValueError(f"penalty must be positive and finite, got {penalty}; 1.0 is the default.")
        self.penalty, self.lower = float(penalty), check_lower(lower)
        super().__init__(
            context_length=self.context_length,
            prediction_length=self.prediction_length,
            penalty=self.penalty,
            lower=self.lower,
        )

    def _min_length(self) -> int:
        return self.context_length

    def _learn(self, data: xr.Dataset) -> dict[str, torch.Tensor]:
        values, observed = _arrays(data)
        lengths = self.context_length, self.prediction_length
        regression = fit_window_regression(values, observed, *lengths, penalty=self.penalty)
        return {name: torch.from_numpy(array) for name, array in regression._asdict().items()}

    def _fits(self, tensors: dict[str, torch.Tensor]) -> bool:
        if tensors.keys() != set(WindowRegression._fields):
            return False
        steps, features = self.prediction_length, len((self.data_info or {})["features"])
        shapes = (self.context_length, steps), (steps,), (len(tensors["residuals"]), steps, features)
        return min(shapes[2]) > 0 and all(
            tensors[name].shape == shape and tensors[name].dtype == torch.float64
            for name, shape in zip(WindowRegression._fields, shapes, strict=True)
        )

    def _draw(self, context: xr.Dataset, num_samples: int, seed: int) -> np.ndarray:
        regression = WindowRegression(**{name: tensor.numpy() for name, tensor in self._tensors.items()})
        values, observed = _arrays(context)
        _check_features_observed(context, observed)
        mean, scale = regression.predict(fill_forward(values, observed)[:, -self.context_length :])
        residuals = regression.residuals
        position = ndtr(_normals(seed, context, num_samples)).T * len(residuals)  # (S, M)
        chosen = np.minimum(position.astype(int), len(residuals) - 1)
        paths = scale * (mean + residuals[chosen])  # (S, M, P, C)
        return paths if self.lower is None else np.maximum(paths, self.lower)


def _count(value: int, name: str) -> int:
    return check_count(value, name, hint=f"for instance {name}=24")


def _arrays(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return values (M, T, C), float64, and their mask."""
    return data[TARGET].values.astype(np.float64), observed_mask(data)


def _normals(seed: int, context: xr.Dataset, count: int) -> np.ndarray:
    """Draw ``count`` normals for each series, (M, count), the first ones the same whatever their number."""
    labels = [(label,) for label in context[SERIES].values.tolist()]
    like = torch.empty(len(labels), count, dtype=torch.float64)
    return NoiseSource(seed, labels).normal(0, like).numpy()


def _check_features_observed(context: xr.Dataset, observed: np.ndarray) -> None:
    never = ~observed.any(axis=1)
    if never.any():
        i, j = (int(axis[0]) for axis in np.nonzero(never))
        label = context[SERIES].values.tolist()[i]
        raise ValueError(
            f"series {label!r}, feature {context[FEATURE].values[j]!s}, is never observed in the context; "
            f"give a longer one, or leave the series out with context.drop_sel(series=[{label!r}])."
        )
