"""Stochastic differential equations: drifts, simulation, transitions, pinned paths and regression."""

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "bridge": "bridge",
        "drifts": "drifts",
        "gaussian_bridge": "bridge",
        "simulate": "integrate",
    },
)
