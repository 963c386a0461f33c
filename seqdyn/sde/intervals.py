"""Pairs of neighbouring snapshots as padded batches, so that all intervals are worked on at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["Intervals", "Snapshots", "make_intervals"]


class Intervals(NamedTuple):
    """K intervals, each with the particles at its two ends; padding has weight 0 and a particle's position.

    Attributes:
        source: (K, N, C).
        target: (K, M, C).
        source_weight: (K, N), sum 1.
        target_weight: (K, M), sum 1.
        start: Times of the sources, (K,).
        duration: (K,).
    """

    source: Tensor
    target: Tensor
    source_weight: Tensor
    target_weight: Tensor
    start: Tensor
    duration: Tensor


class Snapshots(NamedTuple):
    """I marginals in working coordinates, by condition and, within each, by time.

    Attributes:
        x: Particles (N_i, C) of each.
        weight: Their weights (N_i,), sum 1.
        growth: Their rates of growth per unit of time, (N_i,).
        time: Times, (I,).
        condition: Numbers of the conditions, (I,).
    """

    x: list[Tensor]
    weight: list[Tensor]
    growth: list[Tensor]
    time: Tensor
    condition: Tensor


def make_intervals(snapshots: Snapshots) -> tuple[Intervals, list[int]]:
    r"""All K pairs of neighbours in time, and the number of the marginal at the beginning of each.

    A particle with growth rate g sends out the mass of :math:`w\, e^{g D}`, relative to the others.
    """
    count = len(snapshots.x)
    sources = [i for i in range(count - 1) if snapshots.condition[i] == snapshots.condition[i + 1]]
    start = snapshots.time[sources]
    duration = snapshots.time[[i + 1 for i in sources]] - start
    mass = [
        _offspring(snapshots.weight[i], snapshots.growth[i] * length)
        for i, length in zip(sources, duration, strict=True)
    ]
    intervals = Intervals(
        _padded([snapshots.x[i] for i in sources]),
        _padded([snapshots.x[i + 1] for i in sources]),
        pad_sequence([part / part.sum() for part in mass], batch_first=True),
        pad_sequence([snapshots.weight[i + 1] for i in sources], batch_first=True),
        start,
        duration,
    )
    return intervals, sources


def _offspring(weight: Tensor, growth: Tensor) -> Tensor:
    """Weights times the exponential of growth, relative to the largest, which else might overflow."""
    return weight * (growth - growth[weight > 0].max()).clamp(max=0).exp()


def _padded(clouds: Sequence[Tensor]) -> Tensor:
    """Clouds (K, N, C); the padding repeats a cloud's first particle, where every drift is defined."""
    most = max(map(len, clouds))
    return torch.stack([torch.cat([x, x[:1].expand(most - len(x), -1)]) for x in clouds])
