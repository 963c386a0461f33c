"""Building blocks of networks; they know nothing of training, data files or users."""

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "MeanScaler": "scalers",
        "S4Backbone": "backbone",
        "S4Layer": "s4",
        "Standardizer": "scalers",
        "StepEmbedding": "embeddings",
        "backbone": "backbone",
        "block": "block",
        "cauchy": "cauchy",
        "embeddings": "embeddings",
        "s4": "s4",
        "scalers": "scalers",
    },
)
