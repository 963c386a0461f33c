"""Pictures: each function takes a Dataset and returns matplotlib axes."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "coverage": "calibration",
        "denoising": "forecasts",
        "forecast": "forecasts",
        "history": "training",
        "pit": "calibration",
        "autonomous_dynamics": "orbits",
        "composition": "orbits",
        "logit_gradients": "orbits",
        "noise_sweep": "sweeps",
        "orbit": "orbits",
        "readout_axes": "orbits",
        "resonance": "sweeps",
        "speed_field": "orbits",
        "training_dynamics": "sweeps",
    },
)
