"""What a backward recursion returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Posterior"]


class Posterior(NamedTuple):
    """Smoothed laws, and the derivatives (scores) of every series' log-likelihood.

    All are 0 for a series that the model cannot produce, and after the end of a series.

    Attributes:
        log_likelihood: (S,).
        smoothed: Law of the state given the whole series, (T, S, M); the derivative with respect to the log
            density of a step.
        initial_score: Derivative with respect to the law of the first state, (S, M).
        transition_score: Derivative with respect to the transition matrix, (S, M, M); times the matrix, the
            expected number of transitions.
        emission_score: Derivative with respect to the density of a step, (T, S, M), where asked for.
    """

    log_likelihood: Tensor
    smoothed: Tensor
    initial_score: Tensor
    transition_score: Tensor
    emission_score: Tensor | None

    def replace(self, series: Tensor, other: Posterior) -> None:
        """Overwrite the series (S,) that are true with those of ``other``, in place."""
        for name in ("log_likelihood", "initial_score", "transition_score"):
            getattr(self, name)[series] = getattr(other, name)
        self.smoothed[:, series] = other.smoothed
        if self.emission_score is not None and other.emission_score is not None:
            self.emission_score[:, series] = other.emission_score
