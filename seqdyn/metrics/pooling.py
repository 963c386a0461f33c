"""Scores of one forecast window as sums, and ratios formed from such sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from seqdyn.data.schema import FEATURE, SAMPLE, SERIES, TIME, WINDOW
from seqdyn.metrics import ensemble
from seqdyn.metrics.align import align

__all__ = ["INTERVAL_LEVELS", "SUMS", "pool", "score_window"]

INTERVAL_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

# Every variable that adds up over cells, with what it sums and whether that carries the target's units.
SUMS = {
    "quantile_loss": ("twice the pinball loss", True),
    "abs_target": ("absolute truth", True),
    "num_observed": ("observed cells", False),
    "abs_error": ("absolute error of the median", True),
    "squared_error": ("squared error of the mean path", False),
    "crps_sample": ("CRPS of the draws", True),
    "covered": ("cells inside the central interval", False),
    "interval_width": ("width of the central interval", True),
}


def score_window(
    forecast: xr.DataArray, truth: xr.Dataset, *, seed: int = 0, keep: bool = False
) -> xr.Dataset:
    """Score the forecast of one window.

    Args:
        forecast: Draws with dims sample, series, time, feature.
        truth: Sequences at the same times.
        seed: Seed of the randomised ties of ``pit``.
        keep: Also return the draws, as ``forecast``.

    Returns:
        Sums over the observed cells of each series, all of :data:`SUMS`; ``energy_score (series)``, NaN for a
        series without observed cell; ``pit (series, time, feature)``.
    """
    pair = align(forecast, truth)
    draws, actual, observed = pair.draws, pair.truth, pair.observed
    ordered = np.sort(draws, axis=0)

    def total(cells: np.ndarray) -> np.ndarray:
        return np.where(observed, cells, 0).sum(axis=(-2, -1)).T

    losses = ensemble.quantile_losses(ordered, actual, ensemble.QUANTILE_LEVELS)
    ends = [ensemble.interval(ordered, level) for level in INTERVAL_LEVELS]
    inside = np.stack([(lower <= actual) & (actual <= upper) for lower, upper in ends])
    widths = np.stack([upper - lower for lower, upper in ends])
    median = ensemble.order_statistic(ordered, 0.5)
    vectors = (values.reshape(*values.shape[:-2], -1) for values in (draws, actual, observed))
    u = ensemble.randomised_pit(draws, actual, np.random.default_rng(seed))
    cells = (SERIES, TIME, FEATURE)
    variables = {
        "quantile_loss": ((SERIES, "quantile"), total(losses)),
        "abs_target": (SERIES, total(np.abs(actual))),
        "num_observed": (SERIES, observed.sum(axis=(1, 2))),
        "abs_error": (SERIES, total(np.abs(median - actual))),
        "squared_error": (SERIES, total((draws.mean(axis=0) - actual) ** 2)),
        "crps_sample": (SERIES, total(ensemble.ensemble_crps(ordered, actual))),
        "covered": ((SERIES, "level"), total(inside)),
        "interval_width": ((SERIES, "level"), total(widths)),
        "energy_score": (SERIES, ensemble.ensemble_energy(*vectors)),
        "pit": (cells, np.where(observed, u, np.nan)),
    }
    if keep:
        variables["forecast"] = ((SAMPLE, *cells), pair.forecast.values)
    coords = {dim: pair.forecast[dim].values for dim in cells}
    levels = {"quantile": list(ensemble.QUANTILE_LEVELS), "level": list(INTERVAL_LEVELS)}
    return xr.Dataset(variables, coords={**coords, **levels})


def pool(
    scores: xr.Dataset | Sequence[xr.Dataset], dim: str | Sequence[str] = (SERIES, WINDOW)
) -> xr.Dataset:
    """Form ratios from the sums of :func:`seqdyn.evaluate`, summing over ``dim`` first.

    ``pool(scores)`` is the score of everything, ``pool(scores, "window")`` of each series, ``pool(scores,
    "series")`` of each window, ``pool(scores.isel(window=slice(0, 7)))`` of the first seven windows,
    ``pool([one, other])`` of two evaluations together.

    Args:
        scores: Result of :func:`seqdyn.evaluate`, a selection of it, or several with the same series.
        dim: Dims to sum over: ``"series"``, ``"window"`` or both.

    Returns:
        ``crps``, ``nd``, ``nrmse`` (without unit), ``crps_sample``, ``energy_score`` (mean over the pooled
        series and windows) and ``interval_width (level)`` (in the units of the target), ``coverage (level)``.
        A score whose denominator is zero is NaN.
    """
    names = [*SUMS, "energy_score"]
    if isinstance(scores, xr.Dataset):
        chosen = scores[names]
    else:
        chosen = xr.concat(
            [one[names] for one in scores], WINDOW, join="exact", combine_attrs="drop_conflicts"
        )
    dims = [dim] if isinstance(dim, str) else list(dim)
    sums = chosen[list(SUMS)].sum(dims)
    size, count = (sums[name].where(sums[name] > 0) for name in ("abs_target", "num_observed"))
    return xr.Dataset(
        {
            "crps": sums["quantile_loss"].mean("quantile") / size,
            "nd": sums["abs_error"] / size,
            "nrmse": np.sqrt(sums["squared_error"] / count) / (size / count),
            "crps_sample": sums["crps_sample"] / count,
            "energy_score": chosen["energy_score"].mean(dims),
            "coverage": sums["covered"] / count,
            "interval_width": sums["interval_width"] / count,
        }
    )
