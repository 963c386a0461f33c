"""Pairs of neighbouring snapshots as padded batches, so that all intervals are worked on at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["Intervals", "make_intervals"]


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


def make_intervals(
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    source_weights: Sequence[Tensor],
    target_weights: Sequence[Tensor],
    start: Tensor,
    duration: Tensor,
) -> Intervals:
    """Pad K pairs of clouds (N_k, C) and (M_k, C) with their weights."""
    return Intervals(
        _padded(sources),
        _padded(targets),
        pad_sequence(list(source_weights), batch_first=True),
        pad_sequence(list(target_weights), batch_first=True),
        start,
        duration,
    )


def _padded(clouds: Sequence[Tensor]) -> Tensor:
    """Clouds (K, N, C); the padding repeats a cloud's first particle, where every drift is defined."""
    most = max(map(len, clouds))
    return torch.stack([torch.cat([x, x[:1].expand(most - len(x), -1)]) for x in clouds])
