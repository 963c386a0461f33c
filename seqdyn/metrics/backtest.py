"""Rolling evaluation: forecast the last windows of a panel, each from everything before it, and score
them."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from seqdyn._arguments import check_count
from seqdyn.data.schema import (
    COVARIATES,
    OBSERVED,
    SERIES,
    TARGET,
    TIME,
    WINDOW,
    X,
    check_sequences,
    check_snapshots,
    local_time,
    observed_mask,
)
from seqdyn.errors import EarlyEndWarning
from seqdyn.metrics.pooling import SUMS, pool, score_window

__all__ = ["Forecaster", "evaluate"]

_UNSCORED = {name: 0 for name in SUMS}  # of a series in a window in which it is not observed; the rest is NaN


@runtime_checkable
class LeaveOneOut(Protocol):
    """Anything that can be fitted to snapshots without one of them, and scored on that one."""

    def leave_one_out(self, snapshots: xr.Dataset, **options: Any) -> xr.Dataset:
        """Return ``score (method, time, metric)``."""
        ...


@runtime_checkable
class Forecaster(Protocol):
    """Anything that forecasts: a model of this package, a baseline, or an object of the caller."""

    def forecast(self, context: xr.Dataset, *, num_samples: int, seed: int | None) -> xr.Dataset:
        """Return ``target (sample, series, time, feature)``, continuing the times of ``context``."""
        ...


def evaluate(
    model: Forecaster | LeaveOneOut,
    data: xr.Dataset,
    *,
    num_windows: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    prediction_length: int | None = None,
    keep_forecasts: bool = False,
    progress: bool = True,
    **forecast_options: Any,
) -> xr.Dataset:
    """Score rolling forecasts of sequences, or snapshots left out one by one.

    Of snapshots ``x (particle, feature)`` each but the first and the last is predicted by a fit to the
    others: ``score (method, time, metric)``, see :meth:`seqdyn.models.SchrodingerBridge.leave_one_out`, which
    takes ``forecast_options``. The rest is about sequences, of which the last ``num_windows ·
    prediction_length`` steps are scored.

    Each window starts ``prediction_length`` steps after the one before, the last ends with the data, and each
    is forecast from everything before it. The model is never fitted here. Series are scored where they are
    observed; one that is unobserved in a whole window counts nothing there.

    Args:
        model: Has ``forecast(context, *, num_samples, seed)``; its ``prediction_length``, or that of its
            ``hparams``, is the window length. If its ``forecast`` takes ``future_covariates`` and ``data``
            has ``covariates``, those of the window are passed on.
        data: Sequences ``target (series, time, feature)`` with the truth of all windows.
        num_windows: Number of windows.
        num_samples: Sample paths per forecast, by default 100; of snapshots, particles drawn, by default as
            many as ``leave_one_out`` draws.
        seed: Seed of all draws. A window's own seed is derived from it and from the window's
            distance to the end, so that the last windows of a longer evaluation score the same. ``None``
            takes one from the ambient stream; it is recorded either way.
        prediction_length: Steps per window P: needed if the model states none, otherwise at most the model's
            own, of whose forecast the first P steps are scored.
        keep_forecasts: Also return ``forecast (sample, series, time, feature)``, the windows one after the
            other, which :mod:`seqdyn.metrics` and :mod:`seqdyn.plot` accept; NaN for a series in a window in
            which it is not observed, where it is not forecast.
        progress: Show a progress bar over windows; for a single window, the model's own.
        **forecast_options: Passed to ``model.forecast``.

    Returns:
        Sums over the observed cells of each series and window: ``quantile_loss (series, window, quantile)``,
        ``abs_target``, ``num_observed``, ``abs_error``, ``squared_error``, ``crps_sample (series, window)``,
        ``covered`` and ``interval_width (series, window, level)``; scores ``energy_score (series, window)``
        and ``pit (series, time, feature)``; coordinates ``start`` and ``end (window)``, first and last time
        of each window, in UTC where their ``attrs`` name the ``timezone`` of the data. ``attrs`` say what was
        evaluated and hold the scores of :func:`seqdyn.metrics.pool` over everything, in which ratios are
        formed after summing: ``crps``, ``nd``, ``nrmse``, ``crps_sample``, ``energy_score``, ``coverage_50``,
        ``coverage_80``, ``coverage_90`` and ``interval_width_80``. A pooled score whose denominator is
        zero is NaN.

    Raises:
        TypeError: If the model cannot forecast.
        ValueError: If the data are too short, the window length is unknown or longer than the model's, a
            forecast does not cover its window, a series has no past before the first window, or nothing is
            observed in any window.

    Warns:
        UserWarning: If the model was trained on data from the first window or later, or a series is observed
            in no window.
    """
    if getattr(model, "data_kind", None) == "snapshots":
        check_snapshots(data)
    if isinstance(data, xr.Dataset) and X in data and TARGET not in data:
        _refuse_windows(num_windows, prediction_length, keep_forecasts)
        drawn = {} if num_samples is None else {"num_samples": num_samples}
        return _leave_one_out(model, data, forecast_options | drawn | {"seed": seed, "progress": progress})
    if num_windows is None:
        raise ValueError("sequences are scored over rolling windows; pass num_windows=1 for the last one.")
    num_samples = 100 if num_samples is None else num_samples
    forecaster: Any = model
    plan = _plan(forecaster, data, num_windows, prediction_length, progress, forecast_options)
    _warn_if_trained_on(model, data, plan.first)
    from seqdyn.rng import ambient_seed  # loads torch

    seed = ambient_seed(seed)
    observed = observed_mask(data)
    _check_observed(data, observed, plan.first)
    _warn_of_unscored(data, observed, plan.first)
    truth = data[[name for name in (TARGET, OBSERVED) if name in data]]
    windows = []
    for index in _progress(num_windows, progress):
        steps = plan.steps(index)
        window_seed = _window_seed(seed, num_windows - 1 - index)
        scored = {SERIES: observed[:, steps].any(axis=(1, 2))}
        if not scored[SERIES].any():
            scored = {}
        forecast = _forecast(forecaster, data.isel(scored), steps, plan, num_samples, window_seed)
        known = truth.isel({TIME: steps, **scored})
        window = score_window(forecast, known, seed=window_seed, keep=keep_forecasts)
        windows.append(window.reindex({SERIES: data[SERIES].values}, fill_value=_UNSCORED))
    scores = _assemble(windows, data, plan)
    facts = {"model": type(model).__name__, "num_samples": num_samples, "num_windows": num_windows}
    scores.attrs = {**facts, "prediction_length": plan.length, "seed": seed}
    scores.attrs |= _pooled(scores)
    return _with_units(scores, data[TARGET].attrs.get("units"))


def _refuse_windows(num_windows: Any, prediction_length: Any, keep_forecasts: bool) -> None:
    given = {
        "num_windows": num_windows is not None,
        "prediction_length": prediction_length is not None,
        "keep_forecasts": keep_forecasts,
    }
    name = next((name for name, is_given in given.items() if is_given), None)
    if name is not None:
        raise ValueError(f"snapshots have no windows: each is left out once; leave {name} out.")


def _leave_one_out(model: Any, data: xr.Dataset, options: dict[str, Any]) -> xr.Dataset:
    if not isinstance(model, LeaveOneOut):
        raise TypeError(
            f"{type(model).__name__} has no method 'leave_one_out', so it cannot be evaluated on snapshots; "
            "SchrodingerBridge has."
        )
    return model.leave_one_out(data, **options)


class _Plan(NamedTuple):
    """The windows of one evaluation and how the model is asked for them."""

    length: int
    first: int
    options: dict[str, Any]
    takes_covariates: bool

    def steps(self, index: int) -> slice:
        start = self.first + index * self.length
        return slice(start, start + self.length)


def _plan(
    model: Forecaster,
    data: xr.Dataset,
    num_windows: int,
    prediction_length: int | None,
    progress: bool,
    options: dict[str, Any],
) -> _Plan:
    if inspect.isclass(model):
        raise TypeError(
            f"evaluate needs a fitted model, got the class {model.__name__}; pass an object, such as "
            f"{model.__name__}(...).fit(data) or seqdyn.load(FOLDER)."
        )
    if not isinstance(model, Forecaster):
        raise TypeError(
            f"{type(model).__name__} has no method 'forecast', so it cannot be evaluated; "
            "pass a model with forecast(context, *, num_samples, seed)."
        )
    check_sequences(data)
    check_count(num_windows, "num_windows", hint="pass num_windows=1 for the last window")
    parameters = inspect.signature(model.forecast).parameters
    length = _window_length(model, prediction_length)
    if prediction_length is not None and "prediction_length" in parameters:
        options = {"prediction_length": prediction_length, **options}
    if "progress" in parameters:  # one bar at a time
        options = {"progress": progress and num_windows == 1, **options}
    first = data.sizes[TIME] - num_windows * length
    if first < 1:
        possible = (data.sizes[TIME] - 1) // length
        raise ValueError(
            f"{num_windows} windows of {length} steps need more than {num_windows * length} steps, but the "
            f"data have {data.sizes[TIME]}; "
            + (f"use num_windows={possible}." if possible else "give a longer stretch of data.")
        )
    return _Plan(length, first, options, COVARIATES in data and "future_covariates" in parameters)


def _window_length(model: object, prediction_length: int | None) -> int:
    own = getattr(model, "prediction_length", None)
    own = own if own is not None else getattr(getattr(model, "hparams", None), "prediction_length", None)
    length = own if prediction_length is None else prediction_length
    if length is None:
        raise ValueError(
            f"{type(model).__name__} states no prediction_length, so the length of a window is unknown; "
            "pass it: evaluate(model, data, prediction_length=24, ...)."
        )
    length = check_count(length, "prediction_length", hint="a window is made of whole steps")
    if own is not None and length > own:
        raise ValueError(
            f"prediction_length must be at most {own}, the model's own, got {length}; leave it out to use it."
        )
    return length


def _warn_if_trained_on(model: object, data: xr.Dataset, first: int) -> None:
    info, start = getattr(model, "data_info", None) or {}, data[TIME].values[first]
    ends = [info[name] for name in ("time_end", "val_time_end") if info.get(name) is not None]
    if not ends or any(isinstance(end, str) != (start.dtype.kind == "M") for end in ends):
        return  # unknown, or another kind of clock
    seen_to = max(ends, key=lambda end: np.datetime64(end) if isinstance(end, str) else end)
    if (np.datetime64(seen_to) if isinstance(seen_to, str) else seen_to) >= start:
        warnings.warn(
            f"the model was trained on data up to {local_time(seen_to, data)}, but the first window starts "
            f"at {local_time(start, data)}: "
            f"scores of windows it has seen are too good. Train on data.isel(time=slice(0, {first})), from "
            f"the shell by seqdyn fit --holdout {data.sizes[TIME] - first}.",
            UserWarning,
            stacklevel=3,
        )


def _progress(num_windows: int, show: bool) -> Any:
    from tqdm.auto import tqdm

    # None: shown on a terminal and in a notebook, not in a log.
    disable = None if show and num_windows > 1 else True
    return tqdm(range(num_windows), desc="evaluate", unit="window", disable=disable, leave=False)


def _window_seed(seed: int, windows_after: int) -> int:
    # 62 bits: every generator and a netCDF attribute hold it.
    return int(np.random.SeedSequence([seed % 2**64, windows_after]).generate_state(1, np.uint64)[0]) >> 2


def _warn_of_unscored(data: xr.Dataset, observed: np.ndarray, first: int) -> None:
    unseen = ~observed[:, first:].any(axis=(1, 2))
    if unseen.any():
        label = data[SERIES].values.tolist()[int(np.argmax(unseen))]
        warnings.warn(
            f"{unseen.sum()} of {unseen.size} series are observed in no window and count nothing, the first "
            f"is {label!r}; the scores are those of the others.",
            UserWarning,
            stacklevel=3,
        )


def _check_observed(data: xr.Dataset, observed: np.ndarray, first: int) -> None:
    """Refuse windows in which nothing is observed, and a series that begins in one."""
    start = local_time(data[TIME].values[first], data)
    if not observed[:, first:].any():
        end = int(np.flatnonzero(observed.any(axis=(0, 2)))[-1]) + 1
        raise ValueError(
            f"no value is observed in the windows from {start} on, so there is nothing to score; cut them "
            f"at the last observed step: data.isel(time=slice(0, {end}))."
        )
    new = ~observed[:, :first].any(axis=(1, 2))
    if new.any():
        label = data[SERIES].values.tolist()[int(np.argmax(new))]
        raise ValueError(
            f"{new.sum()} series have no observed value before the first window, which starts {start}, "
            f"the first is {label!r}; use fewer windows or leave it out with "
            f"data.drop_sel(series=[{label!r}])."
        )


def _forecast(
    model: Forecaster, data: xr.Dataset, steps: slice, plan: _Plan, num_samples: int, seed: int
) -> xr.DataArray:
    extra = {"future_covariates": data[COVARIATES].isel({TIME: steps})} if plan.takes_covariates else {}
    context = data.isel({TIME: slice(0, steps.start)})
    with warnings.catch_warnings():  # what is not observed is not scored
        warnings.simplefilter("ignore", EarlyEndWarning)
        result = model.forecast(context, num_samples=num_samples, seed=seed, **plan.options, **extra)
    forecast = result[TARGET]
    if forecast.sizes[TIME] < plan.length:
        raise ValueError(
            f"the forecast for the window starting at {local_time(data[TIME].values[steps.start], data)} has "
            f"{forecast.sizes[TIME]} steps, but a window has {plan.length}; "
            f"pass prediction_length={forecast.sizes[TIME]}."
        )
    return forecast.isel({TIME: slice(0, plan.length)})


def _assemble(windows: list[xr.Dataset], data: xr.Dataset, plan: _Plan) -> xr.Dataset:
    """Put the windows side by side and state their times."""
    per_window = [*SUMS, "energy_score"]
    sums = xr.concat([window[per_window] for window in windows], WINDOW, join="exact")
    cells = xr.concat(
        [window[[name for name in ("pit", "forecast") if name in window]] for window in windows],
        TIME,
        join="exact",
    )
    starts = [plan.steps(index).start for index in range(len(windows))]
    times, zone = data[TIME].values, data[TIME].attrs.get("timezone")
    attrs = {} if zone is None else {"timezone": zone}
    scores = sums.transpose(SERIES, WINDOW, ...).merge(cells)
    scores[TIME].attrs = dict(data[TIME].attrs)
    return scores.assign_coords(
        {
            WINDOW: np.arange(len(windows)),
            "start": (WINDOW, times[starts], attrs),
            "end": (WINDOW, times[[start + plan.length - 1 for start in starts]], attrs),
        }
    )


def _pooled(scores: xr.Dataset) -> dict[str, float]:
    pooled = pool(scores)
    attrs = {name: float(pooled[name]) for name in ("crps", "nd", "nrmse", "crps_sample", "energy_score")}
    for level in (0.5, 0.8, 0.9):
        attrs[f"coverage_{100 * level:.0f}"] = float(pooled["coverage"].sel(level=level))
    return {**attrs, "interval_width_80": float(pooled["interval_width"].sel(level=0.8))}


def _with_units(scores: xr.Dataset, units: str | None) -> xr.Dataset:
    for name, (what, has_units) in SUMS.items():
        scores[name].attrs["long_name"] = f"sum of {what}"
        if units is not None and has_units:
            scores[name].attrs["units"] = units
    if units is not None:
        scores.attrs["units"] = units
        for name in {"energy_score", "forecast"} & set(scores):
            scores[name].attrs["units"] = units
    return scores
