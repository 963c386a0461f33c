"""Pictures: each function takes a Dataset and returns matplotlib axes."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "coverage": "calibration",
        "denoising": "forecasts",
        "fixed_points": "spectra",
        "forecast": "forecasts",
        "history": "training",
        "local_spectra": "spectra",
        "lyapunov_spectrum": "spectra",
        "phase": "portraits",
        "pit": "calibration",
        "speed_field": "portraits",
    },
)
