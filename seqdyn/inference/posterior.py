"""What a hidden Markov model says of given sequences: likelihood, filtered and smoothed laws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdyn.inference.checks import Values
from seqdyn.inference.markov import MarkovModel
from seqdyn.inference.recursions import filtered_logs, forward_log_likelihood, posterior

__all__ = ["ForwardBackward", "blocks", "filter_states", "forward_backward", "log_likelihood", "time_first"]

_BLOCK = 2**19  # numbers in one (T, S, M) array: keeps memory flat and the working set of a step in the cache


class ForwardBackward(NamedTuple):
    """Result of :func:`forward_backward`.

    Attributes:
        log_likelihood: (series,).
        smoothed: Law of the state given the whole series, (series, time, state).
        transitions: Expected number of transitions, summed over time, (series, state, state).
    """

    log_likelihood: Tensor
    smoothed: Tensor
    transitions: Tensor


def log_likelihood(hmm: MarkovModel, symbols: Values, lengths: Values | None = None) -> Tensor:
    """Log-likelihood of every series.

    Differentiable once with respect to the model's tensors (by the exact smoothed laws, not through the
    loop); probabilities of 0 have their true one-sided derivative.

    Args:
        hmm: Model of any kind.
        symbols: Whole numbers (series, time), -1 where missing, for an ``HMM``; numbers or counts (series,
            time, feature), NaN where missing, for the others; or a Dataset of sequences that holds them.
        lengths: Length of each series, (series,); what follows is ignored. All steps by default.

    Returns:
        Natural logarithm, float64 (series,); -inf where the model cannot produce the series, 0 where nothing
        was observed.

    Raises:
        ValueError: If observations or lengths do not fit the model.
    """
    values, active = hmm.prepare(symbols, lengths)
    parts = []
    for x, mask in blocks(hmm, values, active):
        probabilities = hmm.emission_probabilities(x)
        logs = hmm.log_emissions(x) if probabilities is None else probabilities.detach().log()
        inputs = (hmm.initial, hmm.transition, time_first(logs), probabilities)
        if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs):
            parts.append(_LogLikelihood.apply(*inputs, mask.T))
        else:
            parts.append(forward_log_likelihood(*inputs[:3], mask.T))
    return torch.cat(parts)


@torch.no_grad()
def forward_backward(hmm: MarkovModel, symbols: Values, lengths: Values | None = None) -> ForwardBackward:
    """Smoothed laws of the states and expected transitions.

    Args:
        hmm: Model of any kind.
        symbols: Observations as for :func:`log_likelihood`.
        lengths: Length of each series, (series,).

    Returns:
        See :class:`ForwardBackward`; 0 after the end of a series and for one that the model cannot produce.

    Raises:
        ValueError: If observations or lengths do not fit the model.
    """
    values, active = hmm.prepare(symbols, lengths)
    parts = []
    for x, mask in blocks(hmm, values, active):
        found = posterior(hmm.initial, hmm.transition, time_first(hmm.log_emissions(x)), mask.T)
        transitions = found.transition_score * hmm.transition
        parts.append((found.log_likelihood, found.smoothed.transpose(0, 1), transitions))
    return ForwardBackward(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def filter_states(hmm: MarkovModel, symbols: Values, lengths: Values | None = None) -> Tensor:
    """Law of the state at each step given the series up to that step, float64 (series, time, state).

    It is 0 after the end of a series and from the first step that the model cannot produce.

    Args:
        hmm: Model of any kind.
        symbols: Observations as for :func:`log_likelihood`.
        lengths: Length of each series, (series,).

    Raises:
        ValueError: If observations or lengths do not fit the model.
    """
    values, active = hmm.prepare(symbols, lengths)
    parts = [
        filtered_logs(hmm.initial, hmm.transition, time_first(hmm.log_emissions(x)), mask.T)
        .transpose(0, 1)
        .exp()
        for x, mask in blocks(hmm, values, active)
    ]
    return torch.where(active[..., None], torch.cat(parts), 0.0)


def blocks(hmm: MarkovModel, values: Tensor, active: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Prepared observations and their mask, a limited number of series at a time."""
    size = max(1, _BLOCK // (active.shape[1] * hmm.num_states))
    return zip(values.split(size), active.split(size), strict=True)


def time_first(logs: Tensor) -> Tensor:
    """(S, T, M) as contiguous (T, S, M)."""
    return logs.transpose(0, 1).contiguous()


class _LogLikelihood(torch.autograd.Function):
    """Log-likelihood whose gradient is read off the smoothed laws (Fisher's identity)."""

    @staticmethod
    def forward(
        ctx: Any,
        initial: Tensor,
        transition: Tensor,
        log_emissions: Tensor,
        probabilities: Tensor | None,
        active: Tensor,
    ) -> Tensor:
        ctx.table = probabilities is not None
        found = posterior(initial, transition, log_emissions, active, emission_score=ctx.table)
        per_step = found.emission_score if ctx.table else found.smoothed
        ctx.save_for_backward(found.initial_score, found.transition_score, per_step)
        return found.log_likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, pairs, per_step = ctx.saved_tensors
        per_step = per_step * gradient[None, :, None]
        initial, transition = gradient @ first, torch.einsum("s,sij->ij", gradient, pairs)
        if ctx.table:
            return initial, transition, None, per_step.transpose(0, 1), None
        return initial, transition, per_step, None, None
