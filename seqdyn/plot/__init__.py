"""Pictures: each function takes a Dataset and returns matplotlib axes."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "autonomous_dynamics": "orbits",
        "composition": "orbits",
        "coverage": "calibration",
        "denoising": "forecasts",
        "forecast": "forecasts",
        "group_effect": "kicks",
        "history": "training",
        "kick_units": "kicks",
        "kick_zone": "kicks",
        "logit_gradients": "orbits",
        "noise_sensitivity": "spread",
        "noise_sweep": "sweeps",
        "orbit": "orbits",
        "pit": "calibration",
        "populations": "connectivity",
        "readout_axes": "orbits",
        "regimes": "dwelling",
        "residence": "dwelling",
        "resonance": "sweeps",
        "speed_field": "orbits",
        "training_dynamics": "sweeps",
    },
)
