"""Expectation-maximisation (Baum-Welch) for every kind of hidden Markov model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.errors import ConvergenceWarning
from seqdyn.inference.checks import Values
from seqdyn.inference.markov import MarkovModel, Prior, blended, normalised
from seqdyn.inference.posterior import blocks, time_first
from seqdyn.inference.recursions import posterior
from seqdyn.rng import ambient_seed

__all__ = ["EMResult", "fit_em"]

M = TypeVar("M", bound=MarkovModel)

_ROUNDING = 1e-10  # relative to the objective: what sums over many steps may lose


class EMResult(NamedTuple, Generic[M]):
    """Result of :func:`fit_em`.

    Attributes:
        hmm: The fitted model.
        log_likelihood: Total log-likelihood of all series at the start and after each iteration, (num_iters +
            1,).
        objective: The same plus the log prior; it never falls.
        num_iters: Number of updates.
        converged: Whether the tolerance was reached.
    """

    hmm: M
    log_likelihood: Tensor
    objective: Tensor
    num_iters: int
    converged: bool


@torch.no_grad()
def fit_em(
    hmm: M,
    symbols: Values,
    lengths: Values | None = None,
    *,
    max_iters: int = 200,
    tolerance: float = 1e-7,
    prior: Prior | None = None,
    fixed: Collection[str] = (),
    restarts: int = 0,
    seed: int | None = None,
) -> EMResult[M]:
    """Fit a model to one or more series by expectation-maximisation.

    Probabilities of 0 stay 0. A state that no series visits keeps its parameters.

    Args:
        hmm: Start.
        symbols: Observations as for :func:`seqdyn.inference.hmm.log_likelihood`.
        lengths: Length of each series, (series,).
        max_iters: Largest number of updates.
        tolerance: Stop when an update raises the objective by less than this times its size; 0 does exactly
            ``max_iters`` updates.
        prior: What to add, by the name of the parameter: pseudo-counts, a number or an array, for
            ``initial``, ``transition`` and ``emission`` (Dirichlet concentration less 1); for ``covariance``
            and ``rate`` see the models. None by default: maximum likelihood.
        fixed: Names of parameters to leave as they are.
        restarts: Number of further random starts, in which probabilities are half the given ones; the best
            result counts.
        seed: Seed of the random starts; ``None`` takes one from torch's ambient stream.

    Returns:
        See :class:`EMResult`.

    Raises:
        ValueError: If an argument does not fit, or the model cannot produce one of the series.
        RuntimeError: If an update lowers the objective, which only a wrong prior or lost precision can do.

    Warns:
        ConvergenceWarning: If ``max_iters`` is not enough.
    """
    check_count(max_iters, "max_iters", hint="type for instance max_iters=200")
    check_count(restarts, "restarts", least=0, hint="0 starts from the given model only")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a number of at least 0, got {tolerance!r}; type tolerance=1e-7.")
    hmm = hmm.detached()
    prior = _checked_prior(hmm, prior)
    _check_names(hmm, fixed, "fixed")
    values, active = hmm.prepare(symbols, lengths)
    _check_start(hmm, values, fixed, restarts)
    starts = [hmm]
    if restarts:
        rng = np.random.default_rng(ambient_seed(seed) % 2**64)
        starts += [_random_start(hmm, values, rng, fixed) for _ in range(restarts)]
    results = [_climb(start, values, active, max_iters, tolerance, prior, fixed) for start in starts]
    best = max(results, key=lambda result: float(result.objective[-1]))
    if tolerance > 0 and not best.converged:
        gain = float(best.objective[-1] - best.objective[-2]) / max(1.0, abs(float(best.objective[-1])))
        warnings.warn(
            f"EM stopped after max_iters={max_iters} updates; the last one raised the objective by a "
            f"relative {gain:.2g}, tolerance={tolerance:.2g}; raise max_iters, or go on from the hmm found.",
            ConvergenceWarning,
            stacklevel=3,  # past torch's decorator
        )
    return best


def _check_start(hmm: MarkovModel, values: Tensor, fixed: Collection[str], restarts: int) -> None:
    """Check that something was seen, and that the states differ in what they emit."""
    missing = values.isnan() if values.is_floating_point() else values < 0
    if bool(missing.all()):
        raise ValueError("nothing was seen: all steps are missing.")
    tables = [getattr(hmm, name) for name in hmm.emission_names]
    alike = hmm.num_states > 1 and all(bool((table == table[:1]).all()) for table in tables)
    if alike and not restarts and not set(hmm.emission_names) & set(fixed):
        raise ValueError(
            f"all {hmm.num_states} states of the start emit alike, so that EM cannot tell them apart; start "
            f"from {type(hmm).__name__}.from_data(...), or type restarts=10."
        )


def _climb(
    hmm: M,
    values: Tensor,
    active: Tensor,
    max_iters: int,
    tolerance: float,
    prior: Prior,
    fixed: Collection[str],
) -> EMResult[M]:
    likelihoods, objectives = [], []
    converged = False
    for iteration in range(max_iters + 1):
        total, chain, statistics = _expect(hmm, values, active)
        likelihoods.append(total)
        objectives.append(total + _log_prior(hmm, prior))
        if iteration:
            gain, size = float(objectives[-1] - objectives[-2]), max(1.0, abs(float(objectives[-1])))
            if not gain >= -_ROUNDING * size:
                raise RuntimeError(
                    f"update {iteration} of EM lowered the objective from {float(objectives[-2]):.12g} to "
                    f"{float(objectives[-1]):.12g}; scale the data to unit variance, or add a prior."
                )
            converged = tolerance > 0 and gain < tolerance * size
        if converged or iteration == max_iters:
            break
        hmm = _maximise(hmm, chain, statistics, prior, fixed)
    return EMResult(hmm, torch.stack(likelihoods), torch.stack(objectives), len(likelihoods) - 1, converged)


def _expect(
    hmm: MarkovModel, values: Tensor, active: Tensor
) -> tuple[Tensor, list[Tensor], tuple[Tensor, ...]]:
    """Total log-likelihood, expected counts of first states and transitions, sums of the emissions."""
    sums: list[Tensor] = []
    first_row = 0
    for x, mask in blocks(hmm, values, active):
        found = posterior(hmm.initial, hmm.transition, time_first(hmm.log_emissions(x)), mask.T)
        impossible = found.log_likelihood == -torch.inf
        if impossible.any():
            raise ValueError(
                f"the model cannot produce series {first_row + int(impossible.int().argmax())}: its "
                "likelihood is 0; start from a model without zeros among the probabilities that it needs."
            )
        first_row += len(x)
        parts = [
            found.log_likelihood.sum(),
            found.smoothed[0].sum(dim=0),
            found.transition_score.sum(dim=0) * hmm.transition,
            *hmm.statistics(x, found.smoothed.transpose(0, 1)),
        ]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    return sums[0], sums[1:3], tuple(sums[3:])


def _maximise(
    hmm: M, chain: list[Tensor], statistics: tuple[Tensor, ...], prior: Prior, fixed: Collection[str]
) -> M:
    new = hmm.maximised(statistics, prior, fixed)
    for name, counts in zip(("initial", "transition"), chain, strict=True):
        old = getattr(hmm, name)
        new[name] = normalised(counts + torch.where(old > 0, prior.get(name, 0.0), 0.0), old)
    return hmm.replaced(**{name: value for name, value in new.items() if name not in fixed})


def _log_prior(hmm: MarkovModel, prior: Prior) -> Tensor:
    total = hmm.log_prior(prior)
    for name in ("initial", "transition"):
        law = getattr(hmm, name)
        total = total + torch.special.xlogy(torch.where(law > 0, prior.get(name, 0.0), 0.0), law).sum()
    return total


def _random_start(hmm: M, values: Tensor, rng: np.random.Generator, fixed: Collection[str]) -> M:
    new = {
        "initial": blended(hmm.initial, rng),
        "transition": blended(hmm.transition, rng),
        **hmm.randomised(values, rng),
    }
    return hmm.replaced(**{name: value for name, value in new.items() if name not in fixed})


def _checked_prior(hmm: MarkovModel, prior: Prior | None) -> Prior:
    if prior is None:
        return {}
    _check_names(hmm, prior, "prior")
    return {name: _pseudo_counts(hmm, name, value) for name, value in prior.items()}


def _pseudo_counts(hmm: MarkovModel, name: str, value: object) -> object:
    if name not in ("initial", "transition", "emission"):
        return hmm.checked_prior(name, value)
    shape = tuple(getattr(hmm, name).shape)
    counts = torch.as_tensor(value, dtype=torch.float64, device=hmm.initial.device)
    try:
        counts = counts.expand(shape)
    except RuntimeError:
        counts = counts.new_full((1,), torch.nan)
    if not bool((counts >= 0).all()) or not bool(counts.isfinite().all()):
        raise ValueError(
            f"prior[{name!r}] must be a pseudo-count of at least 0, or an array of them with shape {shape}, "
            f"got {value!r}."
        )
    return counts


def _check_names(hmm: MarkovModel, names: Collection[str], argument: str) -> None:
    known = ("initial", "transition", *hmm.emission_names)
    wrong = [name for name in names if name not in known]
    if isinstance(names, str) or wrong:
        raise ValueError(f"{argument} takes the names {known}, got {names!r}.")
