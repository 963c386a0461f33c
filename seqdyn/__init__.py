"""Learned dynamics of sequences: forecasting, generation and analysis with uncertainty.

Submodules load on first use: ``import seqdyn`` needs the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach
from seqdyn._logging import show_messages

if TYPE_CHECKING:  # what the lazy names below are, for type checkers and editors
    from seqdyn import analysis as analysis
    from seqdyn import data as data
    from seqdyn import datasets as datasets
    from seqdyn import diffusion as diffusion
    from seqdyn import dynamics as dynamics
    from seqdyn import errors as errors
    from seqdyn import inference as inference
    from seqdyn import metrics as metrics
    from seqdyn import models as models
    from seqdyn import nn as nn
    from seqdyn import ot as ot
    from seqdyn import persistence as persistence
    from seqdyn import plot as plot
    from seqdyn import rng as rng
    from seqdyn import train as train
    from seqdyn.metrics.backtest import evaluate as evaluate
    from seqdyn.models.loading import load as load

__version__ = "0.1.0"

_SUBMODULES = (
    "analysis",
    "data",
    "datasets",
    "diffusion",
    "dynamics",
    "errors",
    "inference",
    "metrics",
    "models",
    "nn",
    "ot",
    "persistence",
    "plot",
    "rng",
    "train",
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {"evaluate": "metrics.backtest", "load": "models.loading", **{name: name for name in _SUBMODULES}},
)

show_messages()
