"""Entropic optimal transport between sets of points and of sequences."""

from __future__ import annotations

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "SinkhornResult": "divergence",
        "sinkhorn": "divergence",
        "sinkhorn_divergence": "divergence",
    },
)
