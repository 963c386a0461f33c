"""The recursions in logarithms: slower than scaled probabilities, and right in any range of numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.inference.scores import Posterior

__all__ = ["LogForward", "log_forward", "log_posterior"]

_MAX_LOG = 690.0  # bounds derivatives at probabilities that are 0, where they may exceed the number range


class LogForward(NamedTuple):
    """``log_likelihood`` (S,); ``log_predicted`` and ``log_alpha``, not normalised, (T, S, M)."""

    log_likelihood: Tensor
    log_predicted: Tensor
    log_alpha: Tensor


def log_forward(initial: Tensor, transition: Tensor, log_emissions: Tensor, active: Tensor) -> LogForward:
    r"""Forward recursion.

    .. math::
        \log\alpha_t(j) = \log b_t(j) + \log\sum_i \exp(\log\alpha_{t-1}(i) + \log A_{ij})

    Arguments as for :func:`seqdyn.inference.recursions.forward`. After the end of a series α stays as it is.
    """
    log_transition = transition.log()
    predicted, alpha = torch.empty_like(log_emissions), torch.empty_like(log_emissions)
    predicted[0] = initial.log()
    alpha[0] = predicted[0] + log_emissions[0]
    for t in range(1, len(log_emissions)):
        predicted[t] = torch.logsumexp(alpha[t - 1][:, :, None] + log_transition, dim=1)
        alpha[t] = torch.where(active[t][:, None], predicted[t] + log_emissions[t], alpha[t - 1])
    return LogForward(torch.logsumexp(alpha[-1], dim=-1), predicted, alpha)


def log_posterior(initial: Tensor, transition: Tensor, log_emissions: Tensor, active: Tensor) -> Posterior:
    """Forward and backward recursion; arguments as for :func:`seqdyn.inference.recursions.posterior`."""
    run = log_forward(initial, transition, log_emissions, active)
    log_transition, total = transition.log(), run.log_likelihood
    possible = total > -torch.inf
    norm = torch.where(possible, total, 0.0)[:, None]
    future = torch.zeros_like(log_emissions[0])
    smoothed, score = torch.zeros_like(log_emissions), torch.zeros_like(log_emissions)
    pairs = log_emissions.new_zeros(len(norm), *transition.shape)
    for t in reversed(range(len(log_emissions))):
        counted = (active[t] & possible)[:, None]
        smoothed[t] = torch.where(counted, (run.log_alpha[t] + future - norm).exp(), 0.0)
        score[t] = torch.where(counted, _bounded_exp(run.log_predicted[t] + future - norm), 0.0)
        message = log_emissions[t] + future
        if t:
            pair = _bounded_exp(run.log_alpha[t - 1][:, :, None] + (message - norm)[:, None, :])
            pairs += torch.where(counted[:, None], pair, 0.0)
            before = torch.logsumexp(log_transition + message[:, None, :], dim=-1)
            future = torch.where(active[t][:, None], before, 0.0)
    first = torch.where(possible[:, None], _bounded_exp(message - norm), 0.0)
    return Posterior(total, smoothed, first, pairs, score)


def _bounded_exp(x: Tensor) -> Tensor:
    return x.clamp_max(_MAX_LOG).exp()
