"""Tools that open learned dynamics."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "greedy_group": "groups",
        "group_effect": "groups",
        "kick_units": "kicks",
        "noise_sensitivity": "sensitivity",
        "populations": "connectivity",
        "reference_run": "events",
        "regimes": "segments",
        "residence": "stays",
    },
)
