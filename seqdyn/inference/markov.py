"""The hidden Markov chain that all kinds of emission share."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.inference.checks import Values, as_float64, check_laws
from seqdyn.rng import ambient_seed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MarkovModel", "Prior", "blended", "cumulated", "draw_index", "normalised", "sticky_chain"]

Prior = Mapping[str, Any]


@dataclass(frozen=True, eq=False, init=False)
class MarkovModel(abc.ABC):
    """A hidden Markov chain: z_1 ~ ``initial``, z_t ~ ``transition[z_{t-1}]``, x_t ~ emission of z_t.

    The first observation belongs to the first state; no transition comes before it. Everything is float64 on
    the device of the parameters, and stays attached to a graph that the caller's tensors belong to.

    Attributes:
        initial: Law of the first state, (M,).
        transition: ``transition[i, j]`` is the probability to go from i to j, (M, M).
    """

    initial: Tensor
    transition: Tensor

    emission_names: ClassVar[tuple[str, ...]] = ()

    def _set_chain(self, initial: Values, transition: Values) -> None:
        initial, transition = as_float64(initial), as_float64(transition)
        if initial.ndim != 1 or transition.shape != (len(initial), len(initial)):
            raise ValueError(
                "initial must have shape (M,) and transition (M, M) for M states, got "
                f"{tuple(initial.shape)} and {tuple(transition.shape)}."
            )
        check_laws(initial[None], "initial")
        check_laws(transition, "transition")
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "transition", transition)

    @property
    def num_states(self) -> int:
        """Number M of hidden states."""
        return len(self.initial)

    @abc.abstractmethod
    def prepare(self, symbols: Values, lengths: Values | None = None) -> tuple[Tensor, Tensor]:
        """Check observations; return them, missing after the end of a series, and the steps (S, T)."""

    @abc.abstractmethod
    def log_emissions(self, values: Tensor) -> Tensor:
        """Log density of prepared observations in every state, (S, T, M); 0 where missing."""

    def emission_probabilities(self, values: Tensor) -> Tensor | None:
        """Probabilities (S, T, M) where zeros among them may be differentiated; ``None`` for densities."""
        return None

    @abc.abstractmethod
    def draw(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one observation for every state of an integer array."""

    @abc.abstractmethod
    def statistics(self, values: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Sums over steps that :meth:`maximised` needs; ``weights`` are smoothed laws (S, T, M)."""

    @abc.abstractmethod
    def maximised(
        self, statistics: tuple[Tensor, ...], prior: Prior, fixed: Collection[str]
    ) -> dict[str, Tensor]:
        """Emission parameters that maximise the expected log density plus log prior, given the fixed ones."""

    def checked_prior(self, name: str, value: Any) -> Any:
        """Check the prior of an emission parameter that is no table of probabilities."""
        raise ValueError(f"there is no prior for {name!r}; leave it out of prior.")

    @abc.abstractmethod
    def log_prior(self, prior: Prior) -> Tensor:
        """Log density of the emission prior up to a constant."""

    @abc.abstractmethod
    def randomised(self, values: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Emission parameters for a random start of EM."""

    def replaced(self, **parameters: Tensor) -> Self:
        """A copy with some parameters replaced."""
        names = ("initial", "transition", *self.emission_names)
        return type(self)(**{name: parameters.get(name, getattr(self, name)) for name in names})

    def detached(self) -> Self:
        """A copy cut off from any graph."""
        names = ("initial", "transition", *self.emission_names)
        return self.replaced(**{name: getattr(self, name).detach() for name in names})

    def stationary(self) -> Tensor:
        r"""Law π* (M,) with :math:`\pi^* A = \pi^*`.

        Raises:
            ValueError: If there is more than one, because the chain falls apart.
        """
        eye = torch.eye(self.num_states, dtype=torch.float64, device=self.transition.device)
        rank = int(torch.linalg.matrix_rank(eye - self.transition.detach(), rtol=1e-12))
        if rank < self.num_states - 1:
            raise ValueError(
                f"the stationary law is not unique: the states fall into {self.num_states - rank} groups "
                "that never reach each other; connect them, or take each group as a chain of its own."
            )
        # π*(I - A) = 0 and π* sums to 1; adding a matrix of ones makes both one regular system.
        return torch.linalg.solve((eye - self.transition + 1.0).T, torch.ones_like(self.initial))

    def states(self, num_series: int, num_steps: int, rng: np.random.Generator) -> np.ndarray:
        """Draw hidden states, int64 (series, time), all series at once."""
        states = np.empty((num_steps, num_series), dtype=np.int64)
        first = draw_index(cumulated(self.initial[None]), np.zeros(num_series, dtype=np.int64), rng)
        transition = cumulated(self.transition)
        for step in range(num_steps):
            states[step] = first if step == 0 else draw_index(transition, states[step - 1], rng)
        return np.ascontiguousarray(states.T)

    def sequences(self, num_series: int, num_steps: int, seed: int | None = None) -> xr.Dataset:
        """Draw observed sequences and their hidden states.

        Args:
            num_series: Number of series.
            num_steps: Steps T of each.
            seed: Seed; ``None`` takes one from torch's ambient stream.

        Returns:
            ``hmm_state (series, time)`` and int64 ``symbol (series, time)``, or ``target (series, time,
            feature)`` for numbers and counts; ``attrs["seed"]`` is the seed.

        Raises:
            ValueError: If a number is below one.
        """
        import xarray as xr

        series = check_count(num_series, "num_series", hint="type for instance num_series=1000")
        steps = check_count(num_steps, "num_steps", hint="type for instance num_steps=100")
        seed = ambient_seed(seed)
        rng = np.random.default_rng(seed % 2**64)
        states = self.states(series, steps, rng)
        values = self.draw(states, rng)
        coords = {"series": np.arange(series), "time": np.arange(steps)}
        dims: tuple[str, ...] = ("series", "time")
        variables = {"hmm_state": (dims, states)}
        if values.ndim == 3:
            variables["target"] = ((*dims, "feature"), values)
            coords["feature"] = np.arange(values.shape[2])
        else:
            variables["symbol"] = (dims, values)
        return xr.Dataset(variables, coords=coords, attrs={"seed": seed})


def normalised(counts: Tensor, old: Tensor) -> Tensor:
    """Rows of ``counts`` divided by their sums; a row without any count stays as in ``old``."""
    total = counts.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, counts / torch.where(total > 0, total, 1.0), old)


def sticky_chain(num_states: int, stay_probability: float) -> tuple[Tensor, Tensor]:
    """Uniform start, and transitions that stay with one probability and share the rest evenly.

    Raises:
        ValueError: If the probability is not between 0 and 1.
    """
    if not 0 < stay_probability <= 1:
        raise ValueError(f"stay_probability must lie above 0 and not above 1, got {stay_probability}.")
    initial = torch.full((num_states,), 1 / num_states, dtype=torch.float64)
    if num_states == 1:
        return initial, torch.ones(1, 1, dtype=torch.float64)
    away = (1 - stay_probability) / (num_states - 1)
    transition = torch.full((num_states, num_states), away, dtype=torch.float64)
    return initial, transition.fill_diagonal_(stay_probability)


def blended(laws: Tensor, rng: np.random.Generator) -> Tensor:
    """Rows half as given, half drawn uniformly from all laws with the same zeros: random starts of EM."""
    drawn = torch.as_tensor(rng.standard_exponential(tuple(laws.shape)), device=laws.device) * (laws > 0)
    return (laws + drawn / drawn.sum(dim=-1, keepdim=True)) / 2


def draw_index(cumulative: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw from the law of each row number by inverting its :func:`cumulated` sum."""
    uniform = rng.random(rows.size)
    # One column after the other for many draws from short laws, all columns at once for a few.
    if rows.size < cumulative.shape[1]:
        return (cumulative[rows.ravel(), :-1] <= uniform[:, None]).sum(axis=1).reshape(rows.shape)
    index = np.zeros(rows.size, dtype=np.int64)
    for column in cumulative.T[:-1]:
        index += column[rows.ravel()] <= uniform
    return index.reshape(rows.shape)


def cumulated(laws: Tensor) -> np.ndarray:
    """Cumulative sums of laws in rows.

    Divided by its own end, the last column with any mass is exactly 1: no draw lands beyond it.
    """
    sums = laws.detach().cpu().numpy().cumsum(axis=-1)
    return sums / sums[..., -1:]
