r"""A penalty for drifts that vary more than the data ask for: few snapshots determine a drift badly.

A drift, or a term of a :class:`seqdyn.sde.drifts.Sum`, with the attribute ``ridge`` adds to the divergence

.. math::
    \frac{\lambda}{2} \int E \sum_j s_j^2\, \big| \partial b(X_t, t) / \partial x_j \big|^2_{S^{-1}} dt

in nats, with the standard deviations :math:`s_j` of the coordinates over all snapshots. It is zero for a
constant drift, which no bridge feels. Of a linear drift it is a ridge on the slopes of standardised
coordinates, and of any other the same for its slopes where the particles are. Nothing depends on units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from seqdyn.sde.fields import Sum
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.lamperti import InLogCoordinates
from seqdyn.sde.transition import whitener

__all__ = ["has_ridge", "on_snapshots", "penalty"]


def has_ridge(drift: nn.Module) -> bool:
    """Whether some term of a drift is penalised."""
    return any(True for _ in _penalised(drift))


def on_snapshots(drift: nn.Module, noise: Tensor, intervals: Intervals) -> Tensor:
    """The penalty of a drift in nats, its expectation taken over the snapshots; differentiable.

    Args:
        drift: ``drift(x, t)`` in working coordinates.
        noise: S = σσᵀ, (C, C).
        intervals: The snapshots; each end of an interval stands for half of it.
    """
    ends = [
        (intervals.source, intervals.source_weight, intervals.start),
        (intervals.target, intervals.target_weight, intervals.start + intervals.duration),
    ]
    x = torch.cat([cloud.flatten(0, 1) for cloud, _, _ in ends])
    weight = torch.cat([(share * intervals.duration[:, None] / 2).flatten() for _, share, _ in ends])
    t = torch.cat([time[:, None].expand_as(share).flatten() for _, share, time in ends])
    real = weight > 0
    return penalty(drift, x[real], t[real, None], weight[real], noise)


def penalty(drift: nn.Module, x: Tensor, t: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """The penalty of a drift in nats; differentiable in its parameters.

    Args:
        drift: ``drift(x, t)``.
        x: States, (N, C).
        t: Times, (N, 1).
        weight: Times that are spent near them, (N,).
        noise: S = σσᵀ, (C, C).
    """
    total = x.new_zeros(())
    inverse, _ = whitener(noise)
    share = (weight / weight.sum())[:, None]
    spread = (share * (x - (share * x).sum(dim=0)).square()).sum(dim=0).sqrt()
    for ridge, term in _penalised(drift):
        slopes = inverse @ _slopes(term, x, t) * spread
        total = total + ridge / 2 * (weight @ slopes.square().sum(dim=(1, 2)))
    return total


def _penalised(drift: nn.Module) -> Iterator[tuple[float, nn.Module]]:
    """Terms of a drift that are penalised, with the strength."""
    if isinstance(drift, Sum):
        for term in drift.terms:
            yield from _penalised(term)
    elif isinstance(drift, InLogCoordinates):
        for ridge, term in _penalised(cast("nn.Module", drift.drift)):
            yield ridge, InLogCoordinates(term, 0.0)
    elif (ridge := float(getattr(drift, "ridge", 0.0))) > 0:
        yield ridge, drift


def _slopes(drift: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Derivatives (N, C, C) of velocities in the states, differentiable in the parameters."""
    affine = getattr(drift, "affine", None)
    if affine is not None:
        return affine()[0].to(x).expand(len(x), -1, -1)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        rows = [
            torch.autograd.grad(one.sum(), x, create_graph=keep, retain_graph=True)[0]
            for one in drift(x, t).unbind(-1)
        ]
    return torch.stack(rows, dim=-2)
