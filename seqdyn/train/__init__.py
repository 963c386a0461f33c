"""Training: the one place that builds a trainer, and its callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.train.trainer import run_trainer as run_trainer

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AverageWeights": "callbacks",
        "KeepBest": "callbacks",
        "KeepWeights": "snapshots",
        "ProgressLine": "callbacks",
        "StopOnNonFinite": "callbacks",
        "History": "history",
        "run_trainer": "trainer",
    },
)
