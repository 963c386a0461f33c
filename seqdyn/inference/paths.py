"""Single paths of the hidden states: the most probable one, and draws from the posterior."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.inference.checks import Values
from seqdyn.inference.markov import MarkovModel
from seqdyn.inference.posterior import blocks, time_first
from seqdyn.inference.recursions import filtered_logs
from seqdyn.rng import fork_rng

__all__ = ["ViterbiResult", "posterior_sample", "viterbi"]


class ViterbiResult(NamedTuple):
    """Result of :func:`viterbi`.

    Attributes:
        path: Most probable states, int64 (series, time); -1 after the end of a series and where the model
            cannot produce it.
        log_joint: Log probability of the observations together with that path, (series,).
    """

    path: Tensor
    log_joint: Tensor


@torch.no_grad()
def viterbi(hmm: MarkovModel, symbols: Values, lengths: Values | None = None) -> ViterbiResult:
    r"""Most probable path of the hidden states.

    .. math::
        \delta_t(j) = \max_i \left(\delta_{t-1}(i) + \log A_{ij}\right) + \log b_t(j)

    Where states tie, the lowest index is taken, at the last step and at every step back.

    Args:
        hmm: Model of any kind.
        symbols: Observations as for :func:`seqdyn.inference.hmm.log_likelihood`.
        lengths: Length of each series, (series,).

    Raises:
        ValueError: If observations or lengths do not fit the model.
    """
    values, active = hmm.prepare(symbols, lengths)
    parts = [
        _viterbi(hmm.initial.log(), hmm.transition.log(), time_first(hmm.log_emissions(x)), mask.T)
        for x, mask in blocks(hmm, values, active)
    ]
    path, log_joint = (torch.cat(part) for part in zip(*parts, strict=True))
    return ViterbiResult(path, log_joint)


def _viterbi(
    log_initial: Tensor, log_transition: Tensor, log_emissions: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    back = torch.empty(log_emissions.shape, dtype=torch.int64, device=log_emissions.device)
    stay = torch.arange(len(log_initial), device=back.device)
    into = log_transition.T.contiguous()
    score = log_initial + log_emissions[0]
    ragged = not bool(active.all())
    for emission, arrow, mask in zip(log_emissions[1:], back[1:], active[1:, :, None], strict=True):
        best, origin = (score[:, None, :] + into).max(dim=-1)
        if ragged:
            score = torch.where(mask, best + emission, score)
            torch.where(mask, origin, stay, out=arrow)
        else:
            score = best + emission
            arrow.copy_(origin)
    log_joint, state = score.max(dim=-1)
    states = [state]
    for arrow in reversed(back[1:].unbind(0)):
        state = arrow.gather(1, state[:, None])[:, 0]
        states.append(state)
    path = torch.stack(states[::-1])
    return torch.where(active & (log_joint > -torch.inf), path, -1).T, log_joint


@torch.no_grad()
def posterior_sample(
    hmm: MarkovModel,
    symbols: Values,
    num_samples: int = 1,
    seed: int | None = None,
    *,
    lengths: Values | None = None,
) -> Tensor:
    """Draw paths of the hidden states from their joint law given the observations.

    Filters forward and draws backward: z_T from its filtered law, then z_t with probability proportional to
    α_t(i) A[i, z_{t+1}].

    Args:
        hmm: Model of any kind.
        symbols: Observations as for :func:`seqdyn.inference.hmm.log_likelihood`.
        num_samples: Number of paths of each series.
        seed: Seed; ``None`` takes the ambient stream.
        lengths: Length of each series, (series,).

    Returns:
        int64 (sample, series, time); -1 after the end of a series and where the model cannot produce it.

    Raises:
        ValueError: If observations, lengths or ``num_samples`` are out of range.
    """
    check_count(num_samples, "num_samples", hint="type for instance num_samples=100")
    values, active = hmm.prepare(symbols, lengths)
    logs = filtered_logs(hmm.initial, hmm.transition, time_first(hmm.log_emissions(values)), active.T)
    into = hmm.transition.log().T.contiguous()
    states: list[Tensor] = []
    with fork_rng(seed):
        for step in reversed(range(len(logs))):
            weights = logs[step].expand(num_samples, -1, -1)
            if states:
                goes_on = active[:, step + 1, None]
                weights = weights + torch.where(goes_on, into[states[-1]], 0.0)
            # The smallest of exponential times with rates w_i is the i-th with probability w_i / Σ w.
            times = torch.empty_like(weights).exponential_()
            states.append((weights - times.log()).argmax(dim=-1))
    path = torch.stack(states[::-1], dim=-1)
    possible = (logs[-1] > -torch.inf).any(dim=-1)
    return torch.where(active & possible[:, None], path, -1)
