"""The main job on embedded real data: fit, forecast, compare, look."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import xarray as xr

from seqdyn import datasets, metrics, models, plot
from seqdyn.data.convert import to_netcdf

__all__ = ["main"]

SEASON = 24
EPOCHS = 24
NUM_STEPS = 20


def main(output: str | os.PathLike[str] = "demo", seed: int = 0) -> dict[str, float]:
    """Forecast the last day of the hourly departures of New York from the rest of the year.

    Fits ``TSDiff(preset="small")`` and every baseline on the panel without its last day, forecasts that day
    for all series, scores them and leaves ``forecast.png``, ``forecast.nc`` and the fitted ``model``.

    Args:
        output: Folder for the results; made if missing.
        seed: Seed of the fit and of the forecast.

    Returns:
        CRPS of every model, in the order in which they are printed.
    """
    start, folder = time.monotonic(), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    data = datasets.load("nyc_flights")
    train, day = data.isel(time=slice(0, -SEASON)), data.isel(time=slice(-SEASON, None))

    model = models.TSDiff(preset="small", lower=0.0).fit(train, max_epochs=EPOCHS, seed=seed)
    model.save(folder / "model")
    forecasts: dict[str, xr.Dataset] = {
        f"TSDiff(preset='small'), {EPOCHS} epochs": model.forecast(train, seed=seed, num_steps=NUM_STEPS)
    }
    for name, baseline in _baselines().items():
        forecasts[name] = baseline.fit(train).forecast(train, seed=seed)
    scores = {name: metrics.crps(forecast, day) for name, forecast in forecasts.items()}

    forecast = next(iter(forecasts.values()))
    to_netcdf(forecast, folder / "forecast.nc")
    axes = plot.forecast(
        forecast, history=train.isel(time=slice(-3 * SEASON, None)), truth=day, max_panels=18
    )
    axes.flat[0].figure.savefig(folder / "forecast.png", dpi=120, bbox_inches="tight")

    print(f"\nCRPS of the last day, all {data.sizes['series']} series, 100 sample paths (lower is better)")
    for name, score in scores.items():
        print(f"  {name:36s} {score:.4f}")
    print(f"TSDiff drew with {NUM_STEPS} of its 100 diffusion steps to be quick; num_steps=None uses all.")
    print(f"One day is one draw: seqdyn.evaluate scores many. Done in {time.monotonic() - start:.0f} s.\n")
    for name in ("forecast.png", "forecast.nc", "model"):
        print(folder / name)
    return scores


def _baselines() -> dict[str, Any]:
    return {
        "SeasonalNaive(24)": models.SeasonalNaive(season_length=24, prediction_length=SEASON),
        "SeasonalNaive(168)": models.SeasonalNaive(season_length=168, prediction_length=SEASON),
        "SeasonalEnsemble(24, 14 seasons)": models.SeasonalEnsemble(
            season_length=24, num_seasons=14, prediction_length=SEASON
        ),
        "LinearForecaster(336)": models.LinearForecaster(
            context_length=336, prediction_length=SEASON, lower=0.0
        ),
    }
