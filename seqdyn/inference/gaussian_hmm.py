"""Hidden Markov model with Gaussian emissions, for recordings of real numbers."""

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
from seqdyn.inference.markov import MarkovModel, Prior, sticky_chain
from seqdyn.rng import ambient_seed

__all__ = ["GaussianHMM"]

_COLLAPSE = (
    "in EM a state has then closed in on too few observations: use fewer states or a diagonal covariance, or "
    "add prior={'covariance': (weight, covariance)}."
)


@dataclass(frozen=True, eq=False, init=False)
class GaussianHMM(MarkovModel):
    """Hidden Markov model with a Gaussian in each state.

    Observations are numbers with shape (series, time, feature), NaN where missing. With diagonal covariances
    single features may be missing, with full ones a step is seen or missing as a whole.

    In :func:`seqdyn.inference.hmm.fit_em`, ``prior={"covariance": (weight, matrix)}`` counts in each state as
    ``weight`` further observations with that scatter around the mean.

    Args:
        initial: Law of the first state, (M,).
        transition: Rows are laws of the next state, (M, M).
        mean: (M, C), in the units of the data.
        covariance: Full (M, C, C), or diagonal: variances (M, C).

    Raises:
        ValueError: If a shape does not fit, or a covariance is not symmetric and positive definite.
    """

    mean: Tensor
    covariance: Tensor

    emission_names: ClassVar[tuple[str, ...]] = ("mean", "covariance")

    def __init__(self, initial: Values, transition: Values, mean: Values, covariance: Values) -> None:
        self._set_chain(initial, transition)
        centre, spread = as_float64(mean), as_float64(covariance)
        if centre.ndim != 2 or len(centre) != self.num_states or not bool(centre.detach().isfinite().all()):
            raise ValueError(
                f"mean must hold finite numbers with shape (M, C) for M = {self.num_states} states, got "
                f"shape {tuple(centre.shape)}."
            )
        shape = tuple(centre.shape)
        if spread.shape not in (shape, (*shape, shape[1])):
            raise ValueError(
                f"covariance must have shape {(*shape, shape[1])} (full) or {shape} (diagonal), got "
                f"{tuple(spread.shape)}."
            )
        _check_covariance(spread.detach())
        object.__setattr__(self, "mean", centre)
        object.__setattr__(self, "covariance", spread)

    @classmethod
    def from_data(
        cls,
        observations: Values,
        num_states: int,
        *,
        lengths: Values | None = None,
        covariance: str = "full",
        stay_probability: float = 0.9,
        seed: int | None = None,
    ) -> Self:
        """A start for EM: means of k-means clusters, and one covariance for all states.

        It is the covariance within clusters plus a hundredth of that of all data, so that clusters of equal
        steps are a start too.

        Args:
            observations: Numbers (series, time, feature); steps with a NaN are left out.
            num_states: Number M of states.
            lengths: Length of each series, (series,).
            covariance: "full" or "diagonal".
            stay_probability: Probability to stay in a state; the others share the rest.
            seed: Seed; ``None`` takes one from torch's ambient stream.

        Raises:
            ValueError: If an argument does not fit, the data have too few different steps, or a feature is
                constant or depends linearly on others.
        """
        check_count(num_states, "num_states", hint="type for instance num_states=5")
        if covariance not in ("full", "diagonal"):
            raise ValueError(f"covariance must be 'full' or 'diagonal', got {covariance!r}.")
        x = complete_steps(observations, lengths)
        labels = clusters(x, num_states, np.random.default_rng(ambient_seed(seed) % 2**64))
        mean = np.stack([x[labels == k].mean(axis=0) for k in range(num_states)])
        within = x - mean[labels]
        total = np.atleast_2d(np.cov(x.T, bias=True))
        _check_spread(total if covariance == "full" else np.diag(total.diagonal()))
        scatter = within.T @ within / len(x) + 0.01 * total
        spread = scatter if covariance == "full" else scatter.diagonal()
        return cls(*sticky_chain(num_states, stay_probability), mean, np.stack([spread] * num_states))

    @property
    def num_features(self) -> int:
        """Number C of features."""
        return self.mean.shape[1]

    @property
    def is_diagonal(self) -> bool:
        """Whether the covariances are diagonal."""
        return self.covariance.ndim == 2

    def prepare(self, symbols: Values, lengths: Values | None = None) -> tuple[Tensor, Tensor]:
        """Check numbers (S, T, C); return them, NaN after the end, and the mask of steps (S, T)."""
        x, active = check_features(symbols, lengths, self.num_features, self.mean.device)
        missing = x.isnan()
        partly = missing.any(dim=-1) & ~missing.all(dim=-1)
        if not self.is_diagonal and partly.any():
            raise ValueError(
                "with full covariances a step is seen or missing as a whole, but only some features are NaN "
                f"at (series, time) = {tuple(int(i) for i in partly.nonzero()[0])}; use diagonal "
                "covariances, or set the whole step to NaN."
            )
        return x, active

    def log_emissions(self, values: Tensor) -> Tensor:
        """Log density of the seen features in every state, (S, T, M); 0 where none is."""
        seen = ~values.isnan()
        x = torch.where(seen, values, 0.0)
        states = zip(self.mean, self.covariance, strict=True)
        if self.is_diagonal:
            terms = [seen * ((x - mu).square() / v + v.log()) for mu, v in states]
            quadratic = torch.stack([term.sum(dim=-1) for term in terms], dim=-1)
        else:
            quadratic = torch.stack([_full(x, mu, c) for mu, c in states], dim=-1) * seen.all(
                -1, keepdim=True
            )
        # A count times a number would be float32.
        count = seen.sum(dim=-1, keepdim=True, dtype=torch.float64)
        return -0.5 * (quadratic + math.log(2 * math.pi) * count)

    def draw(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one vector for every state, (..., C)."""
        noise = torch.as_tensor(rng.standard_normal((*states.shape, self.num_features)))
        mean, spread = self.mean.detach().cpu()[states], self.covariance.detach().cpu()
        if self.is_diagonal:
            return (mean + spread.sqrt()[states] * noise).numpy()
        root = torch.linalg.cholesky(spread)
        drawn = torch.empty_like(mean)
        for k in range(self.num_states):
            here = torch.as_tensor(states == k)
            drawn[here] = mean[here] + noise[here] @ root[k].T
        return drawn.numpy()

    def statistics(self, values: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Weight, first and second moment around the present means.

        Around the means rather than 0, the moments keep their precision where the data lie far from 0.
        """
        seen = ~values.isnan()
        x, seen = torch.where(seen, values, 0.0).flatten(0, 1), seen.flatten(0, 1).to(torch.float64)
        weights = weights.flatten(0, 1)
        sums = []
        for mu, weight in zip(self.mean, weights.T, strict=True):
            gap = (x - mu) * seen
            weighted = gap * weight[:, None]
            if self.is_diagonal:
                sums.append((weight @ seen, weighted.sum(dim=0), (weighted * gap).sum(dim=0)))
            else:
                sums.append((weight @ seen[:, 0], weighted.sum(dim=0), weighted.T @ gap))
        return tuple(torch.stack(part) for part in zip(*sums, strict=True))

    def maximised(
        self, statistics: tuple[Tensor, ...], prior: Prior, fixed: Collection[str]
    ) -> dict[str, Tensor]:
        """Weighted means and covariances; a state without weight keeps its own."""
        weight, first, second = statistics
        total = weight if self.is_diagonal else weight[:, None]
        visited = total > 0
        shift = torch.where(visited, first / torch.where(visited, total, 1.0), 0.0)
        if "mean" in fixed:
            shift = torch.zeros_like(shift)
        if self.is_diagonal:
            scatter = second - shift * (2 * first - total * shift)
        else:
            cross = first[:, :, None] * shift[:, None, :]
            square = shift[:, :, None] * shift[:, None, :]
            scatter = second - cross - cross.mT + total[..., None] * square
            total = total[..., None]
        strength, pseudo = prior.get("covariance", (0.0, torch.zeros_like(self.covariance[0])))
        total = total + strength
        spread = (scatter + strength * pseudo) / torch.where(total > 0, total, 1.0)
        return {
            "mean": self.mean + shift,
            "covariance": torch.where(total > 0, spread, self.covariance),
        }

    def checked_prior(self, name: str, value: Any) -> Any:
        """Check ``(weight, matrix)`` of the covariance."""
        if name != "covariance":
            return super().checked_prior(name, value)
        shape = tuple(self.covariance.shape[1:])
        try:
            weight, matrix = value
            strength, spread = float(weight), as_float64(matrix).to(self.mean.device)
        except (TypeError, ValueError):
            strength, spread = math.nan, torch.empty(0)
        if not (math.isfinite(strength) and strength >= 0) or tuple(spread.shape) != shape:
            raise ValueError(
                "prior['covariance'] must be (weight, covariance): a number of at least 0 and an array with "
                f"shape {shape}, got {value!r}."
            )
        _check_covariance(spread[None])
        return strength, spread

    def log_prior(self, prior: Prior) -> Tensor:
        """Log density of the inverse Wishart law that the pseudo-observations stand for."""
        if "covariance" not in prior:
            return self.mean.new_zeros(())
        strength, pseudo = prior["covariance"]
        if self.is_diagonal:
            return -0.5 * strength * (self.covariance.log() + pseudo / self.covariance).sum()
        trace = torch.linalg.solve(self.covariance, pseudo).diagonal(dim1=-2, dim2=-1).sum()
        return -0.5 * strength * (torch.linalg.slogdet(self.covariance).logabsdet.sum() + trace)

    def randomised(self, values: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Means at steps drawn from the data; covariances as they are."""
        x = values.flatten(0, 1)
        x = x[~x.isnan().any(dim=-1)]
        return {"mean": x[torch.as_tensor(rng.integers(len(x), size=self.num_states), device=x.device)]}


def complete_steps(observations: Values, lengths: Values | None) -> np.ndarray:
    """Steps (N, C) of all series without a missing value.

    Raises:
        ValueError: If there is none, or the observations are no array (S, T, C).
    """
    values = as_float64(observations)
    x, _ = check_features(values, lengths, values.shape[-1] if values.ndim == 3 else 1, values.device)
    x = x.flatten(0, 1)
    x = x[~x.isnan().any(dim=-1)]
    if not len(x):
        raise ValueError("every step misses a feature; a start needs complete steps, give the parameters.")
    return x.cpu().numpy()


def _check_spread(covariance: np.ndarray) -> None:
    """Refuse data in which a feature is constant or a linear combination of others, whatever their units."""
    scale = np.sqrt(covariance.diagonal())
    if not scale.all():
        raise ValueError(f"feature {int((scale == 0).argmax())} is constant; drop it.")
    correlation = covariance / np.outer(scale, scale)
    if np.linalg.matrix_rank(correlation, hermitian=True) < len(scale):
        raise ValueError("a feature depends linearly on others; drop it, or use covariance='diagonal'.")


def _full(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Squared Mahalanobis distance plus log determinant, (S, T)."""
    root = torch.linalg.cholesky(covariance)
    gap = (x - mean).flatten(0, -2).T
    scaled = torch.linalg.solve_triangular(root, gap, upper=False)
    return scaled.square().sum(dim=0).view(x.shape[:-1]) + 2 * root.diagonal().log().sum()


def _check_covariance(covariance: Tensor) -> None:
    if covariance.ndim == 2:
        bad = ~((covariance > 0) & covariance.isfinite()).all(dim=-1)
    else:
        size = covariance.abs().amax(dim=(-2, -1))
        skew = (covariance - covariance.mT).abs().amax(dim=(-2, -1)) > 1e-8 * size
        finite = covariance.isfinite().all(dim=-1).all(dim=-1)
        bad = skew | ~finite
        bad[~bad] = torch.linalg.cholesky_ex(covariance[~bad]).info != 0
    if bad.any():
        raise ValueError(
            f"covariance[{int(bad.int().argmax())}] is not symmetric and positive definite; {_COLLAPSE}"
        )
