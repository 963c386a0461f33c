"""Learned systems as plain functions: a step map or a drift, and nothing else.

All of ``seqdyn.analysis`` works on these objects: on the networks of this package (``model.dynamics()``), on
a user's own recurrent network (:func:`from_torch`), on any function (:func:`from_callable`) and on the
textbook systems of ``seqdyn.datasets.chaos``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.dynamics.flows import FlowDynamics as FlowDynamics
    from seqdyn.dynamics.maps import MapDynamics as MapDynamics
    from seqdyn.dynamics.maps import from_callable as from_callable
    from seqdyn.dynamics.recurrent import from_torch as from_torch
    from seqdyn.dynamics.rollout import simulate as simulate

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "FlowDynamics": "flows",
        "MapDynamics": "maps",
        "from_callable": "maps",
        "from_torch": "recurrent",
        "simulate": "rollout",
    },
)
