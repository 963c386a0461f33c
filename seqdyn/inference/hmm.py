"""Hidden Markov models: the categorical one, and the verbs that work on every kind of emission.

``log_likelihood``, ``forward_backward``, ``viterbi``, ``posterior_sample``, ``filter_states`` and ``fit_em``
take an :class:`HMM`, a :class:`GaussianHMM` or a :class:`PoissonHMM` alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.inference.checks import Values, as_float64, as_tensor, check_laws, check_lengths
from seqdyn.inference.em import EMResult, fit_em
from seqdyn.inference.gaussian_hmm import GaussianHMM
from seqdyn.inference.markov import (
    MarkovModel,
    Prior,
    blended,
    cumulated,
    draw_index,
    normalised,
    sticky_chain,
)
from seqdyn.inference.paths import ViterbiResult, posterior_sample, viterbi
from seqdyn.inference.poisson_hmm import PoissonHMM
from seqdyn.inference.posterior import ForwardBackward, filter_states, forward_backward, log_likelihood
from seqdyn.inference.pyro_hmm import as_pyro_distribution, pyro_model
from seqdyn.rng import ambient_seed

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "EMResult",
    "ForwardBackward",
    "GaussianHMM",
    "HMM",
    "OutputStatistics",
    "PoissonHMM",
    "ViterbiResult",
    "as_pyro_distribution",
    "filter_states",
    "fit_em",
    "forward_backward",
    "log_likelihood",
    "match_states",
    "posterior_sample",
    "predict_symbols",
    "pyro_model",
    "viterbi",
]


class OutputStatistics(NamedTuple):
    r"""Exact statistics of the symbols of a stationary HMM.

    Attributes:
        frequency: :math:`p = E^\top \pi^*`, (K,).
        transition: ``transition[k, l]`` = P(next symbol l | symbol k), (K, K); NaN in the row of a symbol
            that never occurs.
        joint: :math:`J_k = E^\top \mathrm{diag}(\pi^*) A^k E` for lags k = 1 to L, (L, K, K).
    """

    frequency: Tensor
    transition: Tensor
    joint: Tensor

    def num_changes(self, num_steps: int) -> float:
        r"""Expected number of symbol changes in T symbols, :math:`V = (T-1)(1 - \mathrm{tr} J_1)`."""
        return float((num_steps - 1) * (1 - self.joint[0].detach().trace()))


@dataclass(frozen=True, eq=False, init=False)
class HMM(MarkovModel):
    """Hidden Markov model with categorical emissions.

    Observations are whole numbers from 0 to K - 1 with shape (series, time), -1 where missing.

    Args:
        initial: Law of the first state, (M,).
        transition: Rows are laws of the next state, (M, M).
        emission: Rows are laws of the symbol in each state, (M, K).

    Raises:
        ValueError: If a shape does not fit or a row is no probability distribution.
    """

    emission: Tensor

    emission_names: ClassVar[tuple[str, ...]] = ("emission",)

    def __init__(self, initial: Values, transition: Values, emission: Values) -> None:
        self._set_chain(initial, transition)
        table = as_float64(emission)
        if table.ndim != 2 or len(table) != self.num_states:
            raise ValueError(
                f"emission must have shape (M, K) for M = {self.num_states} states, got {tuple(table.shape)}."
            )
        check_laws(table, "emission")
        object.__setattr__(self, "emission", table)

    @classmethod
    def from_data(
        cls,
        symbols: Values,
        num_states: int,
        *,
        lengths: Values | None = None,
        stay_probability: float = 0.9,
        seed: int | None = None,
    ) -> Self:
        """A start for EM: the symbols' frequencies, blended in each state with a law drawn at random.

        States must differ at the start, or EM cannot tell them apart; give :func:`fit_em` some ``restarts``
        too.

        Args:
            symbols: Whole numbers (series, time), -1 where missing.
            num_states: Number M of states.
            lengths: Length of each series, (series,).
            stay_probability: Probability to stay in a state; the others share the rest.
            seed: Seed; ``None`` takes one from torch's ambient stream.

        Raises:
            ValueError: If an argument does not fit, or no symbol was seen.
        """
        check_count(num_states, "num_states", hint="type for instance num_states=3")
        values = as_tensor(symbols)
        size = int(values.max()) + 1 if values.numel() and not values.is_floating_point() else 1
        flat = np.full((1, max(size, 1)), 1 / max(size, 1))
        x, _ = cls([1.0], [[1.0]], flat).prepare(symbols, lengths)
        seen = x[x >= 0]
        if not len(seen):
            raise ValueError("no symbol was seen: all steps are missing (-1).")
        frequency = torch.bincount(seen, minlength=size).double() / len(seen)
        rng = np.random.default_rng(ambient_seed(seed) % 2**64)
        emission = blended(frequency.expand(num_states, -1), rng)
        return cls(*sticky_chain(num_states, stay_probability), emission)

    @property
    def num_symbols(self) -> int:
        """Number K of symbols."""
        return self.emission.shape[1]

    def output_statistics(self, lags: int = 1) -> OutputStatistics:
        """Frequencies, transitions and lagged joint laws of the symbols, for lags 1 to ``lags``.

        Raises:
            ValueError: If ``lags`` is below one or the stationary law is not unique.
        """
        check_count(lags, "lags", hint="type for instance lags=20")
        left = self.stationary()[:, None] * self.emission
        joints, right = [], self.emission
        for _ in range(lags):
            right = self.transition @ right
            joints.append(left.T @ right)
        frequency = left.sum(dim=0)
        return OutputStatistics(frequency, joints[0] / frequency[:, None], torch.stack(joints))

    def sequences(self, num_series: int, num_steps: int, seed: int | None = None) -> xr.Dataset:
        """Draw ``symbol`` and ``hmm_state``, int64 (series, time).

        Args:
            num_series: Number of series.
            num_steps: Steps T of each.
            seed: Seed; ``None`` takes one from torch's ambient stream.

        Returns:
            A Dataset with the seed and the parameters (as JSON) in ``attrs["seed"]`` and ``attrs["hmm"]``.

        Raises:
            ValueError: If a number is below one.
        """
        data = super().sequences(num_series, num_steps, seed)
        parameters = {name: getattr(self, name).tolist() for name in ("initial", "transition", "emission")}
        return data.assign_attrs(hmm=json.dumps(parameters))

    def prepare(self, symbols: Values, lengths: Values | None = None) -> tuple[Tensor, Tensor]:
        """Check symbols (S, T); return them, -1 where missing or after the end, and the mask of steps."""
        device = self.transition.device
        x = as_tensor(symbols)
        if x.ndim != 2 or x.shape[1] == 0 or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(
                f"symbols must be whole numbers with shape (series, time), got {x.dtype} with shape "
                f"{tuple(x.shape)}; one series is symbols[None], a missing step is -1."
            )
        x = x.to(device=device, dtype=torch.int64)
        active = check_lengths(lengths, x.shape[0], x.shape[1], device)
        x = torch.where(active, x, -1)
        wrong = (x < -1) | (x >= self.num_symbols)
        if wrong.any():
            row, step = (int(i) for i in wrong.nonzero()[0])
            raise ValueError(
                f"symbols must lie between 0 and {self.num_symbols - 1}, or be -1 where missing, got "
                f"{int(x[row, step])} at series={row}, time={step}."
            )
        return x, active

    def emission_probabilities(self, values: Tensor) -> Tensor:
        """Probability of every symbol in every state, (S, T, M); 1 where missing."""
        # Index -1, a missing symbol, reads the row of ones at the end.
        table = torch.cat([self.emission.T, torch.ones_like(self.initial)[None]])
        return table[values]

    def log_emissions(self, values: Tensor) -> Tensor:
        """Logarithm of :meth:`emission_probabilities`."""
        return self.emission_probabilities(values).log()

    def draw(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one symbol for every state."""
        return draw_index(cumulated(self.emission), states, rng)

    def statistics(self, values: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Expected number of times that each state shows each symbol, (M, K)."""
        counts = weights.new_zeros(self.num_symbols + 1, self.num_states)
        counts.index_add_(0, values.flatten() + 1, weights.flatten(0, 1))
        return (counts[1:].T,)

    def maximised(
        self, statistics: tuple[Tensor, ...], prior: Prior, fixed: Collection[str]
    ) -> dict[str, Tensor]:
        """Relative frequencies; ``prior["emission"]`` is added to the counts where symbols are possible."""
        extra = torch.where(self.emission > 0, prior.get("emission", 0.0), 0.0)
        return {"emission": normalised(statistics[0] + extra, self.emission)}

    def log_prior(self, prior: Prior) -> Tensor:
        """Log density of the Dirichlet prior of the emission rows."""
        return torch.special.xlogy(
            torch.where(self.emission > 0, prior.get("emission", 0.0), 0.0), self.emission
        ).sum()

    def randomised(self, values: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Rows half as given, half drawn uniformly from all laws on the same support."""
        return {"emission": blended(self.emission, rng)}


def predict_symbols(
    hmm: HMM, symbols: Values, lengths: Values | None = None, *, num_steps: int = 1
) -> Tensor:
    """Law of the symbols that follow each series.

    Args:
        hmm: Model.
        symbols: Whole numbers (series, time), -1 where missing.
        lengths: Length of each series, (series,); all steps by default.
        num_steps: How far to look ahead.

    Returns:
        P(symbol at step T + k | the series), float64 (series, num_steps, symbol); 0 where the model cannot
        produce the series.

    Raises:
        ValueError: If symbols, lengths or ``num_steps`` are out of range.
    """
    check_count(num_steps, "num_steps", hint="1 is the next symbol")
    _, active = hmm.prepare(symbols, lengths)
    law = filter_states(hmm, symbols, lengths)[torch.arange(len(active)), active.sum(dim=1) - 1]
    laws = []
    for _ in range(num_steps):
        law = law @ hmm.transition.detach()
        laws.append(law @ hmm.emission.detach())
    return torch.stack(laws, dim=1)


def match_states(hmm: HMM, reference: HMM) -> HMM:
    """Reorder the states of ``hmm`` so that emissions and transitions come closest to those of ``reference``.

    States are paired by the smallest total squared difference of their emission rows and of the probabilities
    to stay (an optimal assignment).

    Raises:
        ValueError: If the two differ in their number of states or symbols.
    """
    from scipy.optimize import linear_sum_assignment

    if hmm.emission.shape != reference.emission.shape:
        raise ValueError(
            f"both models must have the same shape of emission, got {tuple(hmm.emission.shape)} and "
            f"{tuple(reference.emission.shape)}."
        )
    features = [
        torch.cat([model.emission, model.transition.diagonal()[:, None]], dim=1).detach()
        for model in (hmm, reference)
    ]
    cost = torch.cdist(features[1], features[0]).square()
    order = torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=cost.device)
    return HMM(hmm.initial[order], hmm.transition[order][:, order], hmm.emission[order])
