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
        "fixed_points": "spectra",
        "forecast": "forecasts",
        "group_effect": "kicks",
        "history": "training",
        "kick_units": "kicks",
        "kick_zone": "kicks",
        "local_spectra": "spectra",
        "logit_gradients": "orbits",
        "lyapunov_spectrum": "spectra",
        "noise_sensitivity": "spread",
        "noise_sweep": "sweeps",
        "orbit": "orbits",
        "phase": "portraits",
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
