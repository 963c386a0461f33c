"""Draws from weights that spread evenly: fewer surprises than independent ones, the same law for each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pick", "systematic"]


def systematic(weights: Tensor, num_samples: int) -> Tensor:
    """Numbers (S,) drawn with given weights (N,), each within one of its expected count; in random order."""
    total = weights.cumsum(0)
    offset = torch.rand(1, dtype=weights.dtype, device=weights.device)
    places = (torch.arange(num_samples, dtype=weights.dtype, device=weights.device) + offset) / num_samples
    chosen = _locate(total, places * total[-1])
    return chosen[torch.randperm(num_samples, device=weights.device)]


def pick(plan: Tensor, rows: Tensor) -> Tensor:
    """Draw for each given row (S,) of a plan (N, M) a column by its weights; evenly for equal rows."""
    columns = torch.empty_like(rows)
    for row in rows.unique():
        here = (rows == row).nonzero()[:, 0]
        columns[here] = systematic(plan[row], len(here))
    return columns


def _locate(total: Tensor, places: Tensor) -> Tensor:
    """First entry whose cumulative weight exceeds each place; never one without weight."""
    last = torch.searchsorted(total, total[-1:])  # the first to reach the full weight
    return torch.searchsorted(total, places, right=True).minimum(last)
