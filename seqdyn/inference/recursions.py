r"""Forward and backward recursions of hidden Markov models, in scaled probabilities, exact to rounding.

Arrays stand time first: ``log_emissions (T, S, M)`` for T steps, S series and M states, and ``active (T,
S)``, true where a step belongs to its series. With the likelihood b of a step divided by its largest value,

.. math::
    p_t = \alpha_{t-1} A, \quad c_t = p_t \cdot b_t, \quad \alpha_t = p_t b_t / c_t, \qquad
    r_t = b_t \beta_t / c_t, \quad \beta_{t-1} = A\, r_t

so that Σ log c_t is the log-likelihood, α β the smoothed law and α_{t-1}(i) A_ij r_t(j) that of a transition.

Scaled probabilities are about three times faster than logarithms, but a state whose weight leaves the
floating-point range is lost for good even if later steps favour it. Sums of products of non-negative numbers
keep relative errors, so nothing is lost as long as every state that can be reached keeps a predicted weight
far above what underflow may have taken; series where this fails are computed again in logarithms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.inference.log_recursions import log_forward, log_posterior
from seqdyn.inference.scores import Posterior

__all__ = ["Forward", "filtered_logs", "forward", "forward_log_likelihood", "posterior"]

_TINY = 1e-300  # a divisor that leaves 0 / 0 at 0
_HUGE = 1e300  # bounds the weight of states that cannot be reached, which only multiplies zeros
_SAFE = 1e-288  # underflow takes at most 2.3e-308 a state: a relative 1e-20 of this
_POSITIVE = 1e-100  # with every transition above this, only the evidence of a step can be too small


class Forward(NamedTuple):
    """Result of :func:`forward`: (T, S, M); ``log_likelihood`` (S,); ``evidence`` and ``peak`` (T, S)."""

    log_likelihood: Tensor
    predicted: Tensor
    filtered: Tensor
    evidence: Tensor
    likelihood: Tensor
    peak: Tensor


def forward(initial: Tensor, transition: Tensor, log_emissions: Tensor, active: Tensor) -> Forward:
    """Filter in scaled probabilities.

    Args:
        initial: Law of the first state, (M,).
        transition: Rows are laws of the next state, (M, M).
        log_emissions: Log density of every step in every state, (T, S, M); 0 where nothing was seen.
        active: Steps that belong to their series, (T, S).
    """
    highest = log_emissions.amax(dim=-1, keepdim=True)
    highest.masked_fill_(highest == -torch.inf, 0.0)
    likelihood = (log_emissions - highest).exp_()
    predicted, filtered = torch.empty_like(likelihood), torch.empty_like(likelihood)
    evidence = likelihood.new_empty((*likelihood.shape[:2], 1))
    predicted[0] = initial
    steps = zip(predicted, likelihood, filtered, evidence, [*predicted[1:], None], strict=True)
    for p, b, alpha, c, following in steps:
        torch.mul(p, b, out=alpha)
        torch.sum(alpha, -1, keepdim=True, out=c)
        alpha.div_(c.clamp_min(_TINY))
        if following is not None:
            torch.mm(alpha, transition, out=following)
    evidence, peak = evidence[..., 0], highest[..., 0]
    total = (evidence.log() + peak).masked_fill_(~active, 0.0).sum(dim=0)
    return Forward(total, predicted, filtered, evidence, likelihood, peak)


def forward_log_likelihood(
    initial: Tensor, transition: Tensor, log_emissions: Tensor, active: Tensor
) -> Tensor:
    """Log-likelihood of every series, (S,); -inf where the model cannot produce it."""
    run = forward(initial, transition, log_emissions, active)
    lost = _lost(run, transition, log_emissions, active)
    if lost.any():
        again = log_forward(initial, transition, log_emissions[:, lost], active[:, lost])
        run.log_likelihood[lost] = again.log_likelihood
    return run.log_likelihood


def filtered_logs(initial: Tensor, transition: Tensor, log_emissions: Tensor, active: Tensor) -> Tensor:
    """Logarithm of the filtered law of every step, (T, S, M); -inf everywhere once a series is impossible."""
    run = forward(initial, transition, log_emissions, active)
    logs = run.filtered.log()
    lost = _lost(run, transition, log_emissions, active)
    if lost.any():
        again = log_forward(initial, transition, log_emissions[:, lost], active[:, lost]).log_alpha
        total = again.logsumexp(dim=-1, keepdim=True)
        logs[:, lost] = torch.where(total > -torch.inf, again - total, -torch.inf)
    return logs


def posterior(
    initial: Tensor,
    transition: Tensor,
    log_emissions: Tensor,
    active: Tensor,
    *,
    emission_score: bool = False,
) -> Posterior:
    """Smooth, and differentiate the log-likelihood with respect to what it depends on.

    Args:
        initial: Law of the first state, (M,).
        transition: Rows are laws of the next state, (M, M).
        log_emissions: Log density of every step in every state, (T, S, M); 0 where nothing was seen.
        active: Steps that belong to their series, (T, S).
        emission_score: Whether to differentiate with respect to densities, not only to their logarithms.
    """
    run = forward(initial, transition, log_emissions, active)
    result = _backward(transition, run, active, emission_score)
    lost = _lost(run, transition, log_emissions, active)
    if lost.any():
        result.replace(lost, log_posterior(initial, transition, log_emissions[:, lost], active[:, lost]))
    return result


def _backward(transition: Tensor, run: Forward, active: Tensor, emission_score: bool) -> Posterior:
    evidence = run.evidence.clamp_min(_TINY)[..., None]
    weight = run.likelihood / evidence
    future, ratio = torch.empty_like(weight), torch.empty_like(weight)
    future[-1] = 1.0
    back, ends = transition.T.contiguous(), _ends(active)
    steps = list(zip(weight, future, ratio, [None, *future[:-1]], ends, strict=True))
    for w, beta, r, before, ended in reversed(steps):
        torch.mul(w, beta, out=r).clamp_(max=_HUGE)
        if before is not None:
            torch.mm(r, back, out=before)
            if ended is not None:
                before.masked_fill_(ended, 1.0)
    unused = ~(active & (run.log_likelihood > -torch.inf))[..., None]
    wanted = [run.filtered * future, ratio]
    if emission_score:
        density = evidence * run.peak[..., None].exp().clamp_min(_TINY)
        wanted.append(run.predicted * future / density)
    if unused.any():
        for values in wanted:
            values.masked_fill_(unused, 0.0)
    pairs = run.filtered[:-1].permute(1, 2, 0) @ ratio[1:].transpose(0, 1)
    score = wanted[2] if emission_score else None
    return Posterior(run.log_likelihood, wanted[0], ratio[0], pairs, score)


def _ends(active: Tensor) -> list[Tensor | None]:
    """For every step the series (S, 1) that ended before it; ``None`` where all go on."""
    over = ~active[..., None]
    return [
        step if some else None for step, some in zip(over, over.flatten(1).any(dim=1).tolist(), strict=True)
    ]


def _lost(run: Forward, transition: Tensor, log_emissions: Tensor, active: Tensor) -> Tensor:
    """Series (S,) in which underflow may have taken more than a relative 1e-20 of a weight that matters."""
    floor = len(transition) * _SAFE
    everywhere = bool((transition > _POSITIVE).all())
    if everywhere and bool((run.evidence > floor / _POSITIVE).all()):
        return torch.zeros_like(active[0])
    possible = (run.predicted > 0) & (log_emissions > -torch.inf)
    lost = (possible.any(dim=-1) & (run.evidence < floor) & active).any(dim=0)
    links = (transition > 0).to(transition.dtype)
    reachable = possible[:-1].to(transition.dtype) @ links > 0
    least = floor / run.evidence[:-1].clamp_min(_TINY)[..., None]
    hidden = (reachable & (run.predicted[1:] < least)).any(dim=-1)
    return lost | (hidden & active[1:]).any(dim=0)
