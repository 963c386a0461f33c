"""Tools that open learned dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.analysis.autonomous import autonomous_dynamics as autonomous_dynamics
    from seqdyn.analysis.autonomous import growth_rate as growth_rate
    from seqdyn.analysis.noise import noise_sweep as noise_sweep
    from seqdyn.analysis.orbits import orbit as orbit
    from seqdyn.analysis.pairs import composition as composition
    from seqdyn.analysis.readout import logit_gradients as logit_gradients
    from seqdyn.analysis.readout import readout_axes as readout_axes
    from seqdyn.analysis.speed import speed_field as speed_field
    from seqdyn.analysis.stochastic import resonance as resonance
    from seqdyn.analysis.training import change_point as change_point
    from seqdyn.analysis.training import training_dynamics as training_dynamics

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "autonomous_dynamics": "autonomous",
        "change_point": "training",
        "composition": "pairs",
        "growth_rate": "autonomous",
        "logit_gradients": "readout",
        "noise_sweep": "noise",
        "orbit": "orbits",
        "readout_axes": "readout",
        "resonance": "stochastic",
        "speed_field": "speed",
        "training_dynamics": "training",
    },
)
