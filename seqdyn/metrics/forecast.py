r"""Scores of probabilistic forecasts: one number over everything given.

Every function takes a forecast with dims (sample, series, time, feature) and the truth with dims (series,
time, feature), as Datasets with the variable ``target`` or as DataArrays, matched by label: the truth may be
longer than the forecast, nothing else may be missing on either side. A sum runs over all observed cells
(series, step, feature) and ratios are formed after summing, so long or large series weigh more. Cells whose
truth is NaN or marked unobserved do not count; to score some cells only, hide the others with
``truth.where(condition)``.

Below, :math:`y` is the truth, :math:`x_1 \le \dots \le x_S` are the draws of one cell in order, and the
quantile at level :math:`q` is :math:`f_q = x_{1 + \mathrm{round}((S-1) q)}` with ties rounded to the even
rank, as GluonTS does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from seqdyn.data.schema import FEATURE, SERIES, TIME
from seqdyn.metrics import ensemble
from seqdyn.metrics.align import Aligned, align, draws_of, values_of

__all__ = [
    "coverage",
    "coverage_curve",
    "crps",
    "crps_sample",
    "energy_score",
    "interval_width",
    "mase",
    "nd",
    "nrmse",
    "pit",
    "quantile_loss",
]

Data = xr.Dataset | xr.DataArray


def crps(forecast: Data, truth: Data) -> float:
    r"""Return the mean weighted quantile loss, the "CRPS" of GluonTS and of most forecasting papers.

    .. math::
        \mathrm{CRPS} = \frac19 \sum_{q \in \{0.1, \dots, 0.9\}}
        \frac{2 \sum |(f_q - y)(1[y \le f_q] - q)|}{\sum |y|}

    Args:
        forecast: Draws with dim ``sample``. A single draw gives :func:`nd`.
        truth: What happened.

    Returns:
        A ratio without unit; smaller is better.

    Raises:
        ValueError: If labels do not match or all observed truth is zero.
    """
    return float(quantile_loss(forecast, truth).mean())


def quantile_loss(
    forecast: Data, truth: Data, levels: Sequence[float] = ensemble.QUANTILE_LEVELS
) -> xr.DataArray:
    r"""Return :math:`2 \sum |(f_q - y)(1[y \le f_q] - q)| / \sum |y|`, the weighted quantile loss, at each q.

    Args:
        forecast: Draws with dim ``sample``.
        truth: What happened.
        levels: Quantile levels q, between 0 and 1.

    Returns:
        Ratios without unit, dim ``quantile``.

    Raises:
        ValueError: If labels do not match, a level is outside [0, 1], or all observed truth is zero.
    """
    levels = [_fraction(level, "level") for level in levels]
    draws, actual = _cells(_pair(forecast, truth))
    losses = ensemble.quantile_losses(np.sort(draws, axis=0), actual, levels).sum(axis=1)
    return xr.DataArray(
        losses / _total(actual), dims="quantile", coords={"quantile": levels}, name="quantile_loss"
    )


def nd(forecast: Data, truth: Data) -> float:
    r"""Return the normalised deviation of the median, :math:`\sum |f_{0.5} - y| / \sum |y|`, without unit."""
    return float(quantile_loss(forecast, truth, levels=(0.5,)).item())


def nrmse(forecast: Data, truth: Data) -> float:
    r"""Return the root mean squared error of the mean path over the mean size of the truth, without unit.

    .. math:: \mathrm{NRMSE} = \sqrt{\mathrm{mean}\,(\bar x - y)^2} \;/\; \mathrm{mean}\,|y|
    """
    draws, actual = _cells(_pair(forecast, truth))
    return float(np.sqrt(np.mean((draws.mean(axis=0) - actual) ** 2)) / (_total(actual) / len(actual)))


def mase(forecast: Data, truth: Data, history: Data, *, season_length: int = 1) -> float:
    r"""Return the mean absolute scaled error of the median.

    .. math::
        \mathrm{MASE} = \mathrm{mean}\, \frac{|f_{0.5} - y|}{s}, \qquad
        s = \mathrm{mean}_t\, |h_t - h_{t-m}|

    with one scale s per series and feature, taken over the steps of the history where both values are
    observed.

    Args:
        forecast: Draws with dim ``sample``.
        truth: What happened.
        history: Values before the forecast, dims (series, time, feature), with the forecast's series and
            features.
        season_length: Season m in steps; 1 compares with the last value.

    Returns:
        A ratio without unit; 1 is as good as the seasonal naive forecast was inside the history.

    Raises:
        ValueError: If labels do not match, the history reaches into the forecast, or a scored series never
            changes from season to season, so that its scale is zero or unknown.

    Source: Hyndman & Koehler (2006).
    """
    pair = _pair(forecast, truth)
    scale = _seasonal_error(history, pair.forecast, season_length)
    scored = pair.observed.any(axis=1)
    bad = scored & ~(scale > 0)
    if bad.any():
        i, j = (int(axis[0]) for axis in np.nonzero(bad))
        label = pair.forecast[SERIES].values.tolist()[i]
        raise ValueError(
            f"MASE is undefined for {bad.sum()} series, the first is {label!r} (feature "
            f"{pair.forecast[FEATURE].values[j]}): its history has no pair of values {season_length} steps "
            "apart that differ; leave such series out of forecast, truth and history with "
            ".drop_sel(series=[...]), or score them with seqdyn.metrics.crps_sample."
        )
    median = ensemble.order_statistic(np.sort(pair.draws, axis=0), 0.5)
    scaled = np.abs(median - pair.truth) / np.where(scored, scale, 1.0)[:, None, :]
    return float(scaled[pair.observed].mean())


def crps_sample(forecast: Data, truth: Data) -> float:
    r"""Return the mean continuous ranked probability score of the empirical law of the draws.

    .. math::
        \mathrm{mean} \int (F(z) - 1[y \le z])^2 \, dz
        = \mathrm{mean} \left( \frac1S \sum_i |x_i - y| - \frac{1}{2 S^2} \sum_{i,j} |x_i - x_j| \right)

    Unlike :func:`crps` it weighs all levels, in the units of the target, and needs no division: it also
    scores series that are all zero.
    """
    draws, actual = _cells(_pair(forecast, truth))
    return float(ensemble.ensemble_crps(np.sort(draws, axis=0), actual).mean())


def energy_score(forecast: Data, truth: Data) -> float:
    r"""Return the energy score of whole paths, averaged over series.

    .. math::
        \mathrm{mean}_{series} \left( \frac1S \sum_i \|x_i - y\|
        - \frac{1}{2 S^2} \sum_{i,j} \|x_i - x_j\| \right)

    Each series' vector holds all its observed cells over the forecast's steps and features, in the units of
    the target. It rewards the right dependence between steps, which :func:`crps` cannot see; features of
    different size are not balanced, so scale them first.
    """
    pair = _pair(forecast, truth)
    vectors = (values.reshape(*values.shape[:-2], -1) for values in (pair.draws, pair.truth, pair.observed))
    return float(np.nanmean(ensemble.ensemble_energy(*vectors)))


def coverage(forecast: Data, truth: Data, level: float = 0.8) -> float:
    """Return the share of observed cells inside the central interval, ends included.

    The interval runs from order statistic k to S-1-k, counted from zero, with k = round((S-1)(1-level)/2).
    With a calibrated forecast of S draws the expected share is (S-1-2k)/(S+1), slightly below ``level``; with
    counts, whose draws tie, it is above.

    Args:
        forecast: Draws with dim ``sample``.
        truth: What happened.
        level: Nominal share, between 0 and 1.
    """
    return float(_share(coverage_curve(forecast, truth, levels=(level,)))[0])


def coverage_curve(
    forecast: Data, truth: Data, levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
) -> xr.Dataset:
    """Count the observed cells inside the central interval of each level, for :func:`seqdyn.plot.coverage`.

    Returns:
        ``covered (level)`` and ``num_observed``; their ratio is :func:`coverage`.
    """
    levels = [_fraction(level, "level") for level in levels]
    draws, actual = _cells(_pair(forecast, truth))
    ordered = np.sort(draws, axis=0)
    bounds = (ensemble.interval(ordered, level) for level in levels)
    covered = [int(((lower <= actual) & (actual <= upper)).sum()) for lower, upper in bounds]
    return xr.Dataset(
        {"covered": ("level", covered), "num_observed": len(actual)},
        coords={"level": levels},
        attrs={"num_samples": len(draws)},
    )


def interval_width(forecast: Data, truth: Data | None = None, level: float = 0.8) -> float:
    """Return the mean width of the central interval of :func:`coverage`, in the units of the target.

    Args:
        forecast: Draws with dim ``sample``.
        truth: If given, only cells with an observed truth count, so that width and coverage speak of the same
            cells.
        level: Nominal share, between 0 and 1.
    """
    if truth is None:
        draws = draws_of(forecast).values.astype(np.float64)
    else:
        draws, _ = _cells(_pair(forecast, truth))
    lower, upper = ensemble.interval(np.sort(draws, axis=0), _fraction(level, "level"))
    return float((upper - lower).mean())


def pit(forecast: Data, truth: Data, *, seed: int = 0) -> xr.Dataset:
    r"""Return the probability integral transform of every observed cell, for :func:`seqdyn.plot.pit`.

    .. math:: u = \frac{\#\{x_i < y\} + V (1 + \#\{x_i = y\})}{S + 1}, \qquad V \sim \mathrm{Uniform}(0, 1)

    Uniform on (0, 1) if truth and draws are exchangeable, for counts too: V spreads tied values evenly.

    Args:
        forecast: Draws with dim ``sample``.
        truth: What happened.
        seed: Seed of V.

    Returns:
        ``pit (series, time, feature)``, NaN where the truth is unobserved.
    """
    pair = _pair(forecast, truth)
    u = ensemble.randomised_pit(pair.draws, pair.truth, np.random.default_rng(seed))
    values = xr.DataArray(
        np.where(pair.observed, u, np.nan),
        coords={dim: pair.forecast[dim] for dim in (SERIES, TIME, FEATURE)},
        dims=(SERIES, TIME, FEATURE),
    )
    return xr.Dataset({"pit": values}, attrs={"num_samples": len(pair.draws), "seed": seed})


def _pair(forecast: Data, truth: Data) -> Aligned:
    """Align both and refuse to score nothing."""
    pair = align(forecast, truth)
    if not pair.observed.any():
        raise ValueError(
            "the truth has no observed value at the times of the forecast, so there is nothing to score; "
            "pass data that reach past the forecast's first step."
        )
    return pair


def _cells(pair: Aligned) -> tuple[np.ndarray, np.ndarray]:
    """Return draws (S, n) and truth (n,) of the observed cells."""
    return pair.draws[:, pair.observed], pair.truth[pair.observed]


def _total(actual: np.ndarray) -> float:
    """Return the sum of |y|, the denominator of the weighted scores."""
    total = float(np.abs(actual).sum())
    if total == 0:
        raise ValueError(
            f"all {len(actual)} observed values of the truth are zero, so a score relative to sum |y| is "
            "undefined; "
            "use seqdyn.metrics.crps_sample(forecast, truth), which is in the units of the target."
        )
    return total


def _share(curve: xr.Dataset) -> np.ndarray:
    return (curve["covered"] / curve["num_observed"]).values


def _fraction(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}; write 0.8 for 80 %.")
    return float(value)


def _seasonal_error(history: Data, forecast: xr.DataArray, season_length: int) -> np.ndarray:
    """Return the mean absolute seasonal difference of each series and feature, (M, C); NaN without a pair."""
    values, observed = values_of(history)
    if season_length < 1:
        raise ValueError(
            f"season_length must be at least 1 step, got {season_length}; use 1 for the last value."
        )
    for dim in (SERIES, FEATURE):
        if set(values[dim].values.tolist()) != set(forecast[dim].values.tolist()):
            raise ValueError(
                f"history and forecast differ along {dim!r}; cut the history with "
                f"history.sel({dim}=forecast.{dim})."
            )
    if values.sizes[TIME] and values[TIME].values[-1] >= forecast[TIME].values[0]:
        raise ValueError(
            f"the history ends at {values[TIME].values[-1]}, inside the forecast, which starts at "
            f"{forecast[TIME].values[0]}; cut it with history.sel(time=history.time < forecast.time[0])."
        )
    order = np.ix_(
        values.indexes[SERIES].get_indexer(forecast.indexes[SERIES]),
        range(values.sizes[TIME]),
        values.indexes[FEATURE].get_indexer(forecast.indexes[FEATURE]),
    )
    past, known = values.values.astype(np.float64)[order], observed[order]
    both = known[:, season_length:] & known[:, :-season_length]
    change = np.where(both, np.abs(past[:, season_length:] - past[:, :-season_length]), 0.0)
    return np.where(both.any(axis=1), change.sum(axis=1) / np.maximum(both.sum(axis=1), 1), np.nan)
