"""Scores of forecasts, :func:`evaluate` for rolling windows, and distances between clouds of particles."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Forecaster": "backtest",
        "coverage": "forecast",
        "coverage_curve": "forecast",
        "crps": "forecast",
        "emulation": "comparison",
        "crps_sample": "forecast",
        "energy_distance": "clouds",
        "energy_score": "forecast",
        "evaluate": "backtest",
        "interval_width": "forecast",
        "mase": "forecast",
        "mmd": "clouds",
        "nd": "forecast",
        "nrmse": "forecast",
        "pit": "forecast",
        "pool": "pooling",
        "quantile_loss": "forecast",
        "sliced_wasserstein": "clouds",
        "split_half": "clouds",
        "wasserstein": "clouds",
    },
)
