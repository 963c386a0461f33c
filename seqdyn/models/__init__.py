"""The models; this namespace is the registry that :func:`seqdyn.load` looks in."""

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "LinearForecaster": "baselines",
        "Model": "base",
        "SchrodingerBridge": "schrodinger",
        "SeasonalEnsemble": "baselines",
        "SeasonalNaive": "baselines",
        "HMMRNN": "hmmrnn",
        "TSDiff": "tsdiff",
        "load": "loading",
    },
)
