"""Exact inference in hidden Markov models: likelihood, smoothing, most probable paths, fitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.inference import hmm as hmm
    from seqdyn.inference.hmm import HMM as HMM
    from seqdyn.inference.hmm import GaussianHMM as GaussianHMM
    from seqdyn.inference.hmm import PoissonHMM as PoissonHMM

__getattr__, __dir__, __all__ = attach(
    __name__, {"GaussianHMM": "hmm", "HMM": "hmm", "PoissonHMM": "hmm", "hmm": "hmm"}
)
