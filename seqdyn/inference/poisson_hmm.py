"""Hidden Markov model with Poisson emissions, for spike counts and other counts."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.inference.checks import Values, as_float64, check_features
from seqdyn.inference.clusters import clusters
from seqdyn.inference.gaussian_hmm import complete_steps
from seqdyn.inference.markov import MarkovModel, Prior, sticky_chain
from seqdyn.rng import ambient_seed

__all__ = ["PoissonHMM"]


@dataclass(frozen=True, eq=False, init=False)
class PoissonHMM(MarkovModel):
    """Hidden Markov model with independent Poisson counts in each state.

    Observations are counts with shape (series, time, feature), NaN where missing.

    In :func:`seqdyn.inference.hmm.fit_em`, ``prior={"rate": (count, exposure)}`` adds ``count`` events in
    ``exposure`` further steps to each state and feature (a Gamma prior); counts need not be whole.

    Args:
        initial: Law of the first state, (M,).
        transition: Rows are laws of the next state, (M, M).
        rate: Expected count in a step, (M, C).

    Raises:
        ValueError: If a shape does not fit or a rate is negative.
    """

    rate: Tensor

    emission_names: ClassVar[tuple[str, ...]] = ("rate",)

    def __init__(self, initial: Values, transition: Values, rate: Values) -> None:
        self._set_chain(initial, transition)
        rates = as_float64(rate)
        known = rates.detach()
        fits = known.ndim == 2 and len(known) == self.num_states
        if not fits or not bool(((known >= 0) & known.isfinite()).all()):
            raise ValueError(
                f"rate must hold numbers of at least 0 with shape (M, C) for M = {self.num_states} states, "
                f"got shape {tuple(rates.shape)}{f', minimum {float(known.min()):.3g}' if fits else ''}."
            )
        object.__setattr__(self, "rate", rates)

    @classmethod
    def from_data(
        cls,
        observations: Values,
        num_states: int,
        *,
        lengths: Values | None = None,
        stay_probability: float = 0.9,
        seed: int | None = None,
    ) -> Self:
        """A start for EM: mean counts of k-means clusters of their square roots, whose variance is even.

        Nine tenths of a rate come from the cluster, one tenth from all data, so that no count is impossible.

        Args:
            observations: Counts (series, time, feature); steps with a NaN are left out.
            num_states: Number M of states.
            lengths: Length of each series, (series,).
            stay_probability: Probability to stay in a state; the others share the rest.
            seed: Seed; ``None`` takes one from torch's ambient stream.

        Raises:
            ValueError: If an argument does not fit, or the data have too few different steps.
        """
        check_count(num_states, "num_states", hint="type for instance num_states=5")
        x = complete_steps(observations, lengths)
        _check_counts(torch.as_tensor(x))
        labels = clusters(np.sqrt(x), num_states, np.random.default_rng(ambient_seed(seed) % 2**64))
        rate = np.stack([x[labels == k].mean(axis=0) for k in range(num_states)])
        return cls(*sticky_chain(num_states, stay_probability), 0.9 * rate + 0.1 * x.mean(axis=0))

    @property
    def num_features(self) -> int:
        """Number C of features."""
        return self.rate.shape[1]

    def prepare(self, symbols: Values, lengths: Values | None = None) -> tuple[Tensor, Tensor]:
        """Check counts (S, T, C); return them, NaN after the end, and the mask of steps (S, T)."""
        x, active = check_features(symbols, lengths, self.num_features, self.rate.device)
        _check_counts(x)
        return x, active

    def log_emissions(self, values: Tensor) -> Tensor:
        """Log probability of the seen counts in every state, (S, T, M); 0 where none is."""
        seen = ~values.isnan()
        x = torch.where(seen, values, 0.0)
        terms = [(torch.special.xlogy(x, rate) - rate * seen).sum(dim=-1) for rate in self.rate]
        return torch.stack(terms, dim=-1) - torch.lgamma(x + 1).sum(dim=-1, keepdim=True)

    def draw(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw int64 counts for every state, (..., C)."""
        return rng.poisson(self.rate.detach().cpu().numpy()[states])

    def statistics(self, values: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Expected number of steps and of events of every state and feature, (M, C)."""
        seen = ~values.isnan()
        x = torch.where(seen, values, 0.0)
        weights = weights.flatten(0, 1).T
        return weights @ seen.flatten(0, 1).to(torch.float64), weights @ x.flatten(0, 1)

    def maximised(
        self, statistics: tuple[Tensor, ...], prior: Prior, fixed: Collection[str]
    ) -> dict[str, Tensor]:
        """Events a step; a state without weight keeps its rates, and a rate of 0 stays 0."""
        events, exposure = prior.get("rate", (0.0, 0.0))
        steps, counts = statistics[0] + exposure, statistics[1] + events
        rate = torch.where(steps > 0, counts / torch.where(steps > 0, steps, 1.0), self.rate)
        return {"rate": torch.where(self.rate > 0, rate, 0.0)}

    def checked_prior(self, name: str, value: Any) -> Any:
        """Check ``(count, exposure)`` of the rate."""
        if name != "rate":
            return super().checked_prior(name, value)
        try:
            events, exposure = (float(part) for part in value)
        except (TypeError, ValueError):
            events = exposure = math.nan
        if not (math.isfinite(events) and math.isfinite(exposure) and events >= 0 and exposure >= 0):
            raise ValueError(
                f"prior['rate'] must be (count, exposure), two numbers of at least 0, got {value!r}."
            )
        return events, exposure

    def log_prior(self, prior: Prior) -> Tensor:
        """Log density of the Gamma law that the added events stand for."""
        events, exposure = prior.get("rate", (0.0, 0.0))
        possible = self.rate[self.rate > 0]
        return (events * possible.log() - exposure * possible).sum()

    def randomised(self, values: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Rates half way between the mean of the data and steps drawn from them."""
        x = values.flatten(0, 1)
        x = x[~x.isnan().any(dim=-1)]
        drawn = x[torch.as_tensor(rng.integers(len(x), size=self.num_states), device=x.device)]
        return {"rate": torch.where(self.rate > 0, (drawn + x.mean(dim=0)) / 2, 0.0)}


def _check_counts(x: Tensor) -> None:
    wrong = ~x.isnan() & ((x < 0) | (x != x.round()))
    if wrong.any():
        raise ValueError(
            "observations must be whole numbers of at least 0, or NaN where missing, got "
            f"{float(x[wrong][0]):g} at index {tuple(int(i) for i in wrong.nonzero()[0])}."
        )
