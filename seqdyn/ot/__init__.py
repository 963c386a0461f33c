"""Optimal transport between finite sets of points: exact, and the debiased Sinkhorn divergence."""

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Potentials": "sinkhorn",
        "SelfTransport": "transport",
        "SinkhornResult": "sinkhorn",
        "auto_blur": "blur",
        "displacement": "exact",
        "exact_cost": "exact",
        "exact_plan": "exact",
        "self_transport": "transport",
        "sinkhorn": "sinkhorn",
        "sinkhorn_divergence": "sinkhorn",
    },
)
