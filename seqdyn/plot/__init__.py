"""Pictures: each function takes a Dataset and returns matplotlib axes."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "coverage": "calibration",
        "denoising": "forecasts",
        "forecast": "forecasts",
        "group_effect": "kicks",
        "history": "training",
        "kick_units": "kicks",
        "kick_zone": "kicks",
        "noise_sensitivity": "spread",
        "pit": "calibration",
        "populations": "connectivity",
        "regimes": "dwelling",
        "residence": "dwelling",
    },
)
