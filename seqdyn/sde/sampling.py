"""Draws from weights that spread evenly: fewer surprises than independent ones, the same law for each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["pick", "systematic"]

_ENTRIES = 2**22  # of cumulative weights that are held at once


def systematic(weights: Tensor, num_samples: int) -> Tensor:
    """Numbers (S,) drawn with given weights (N,), each within one of its expected count; in random order."""
    total = weights.cumsum(0)
    offset = torch.rand(1, dtype=weights.dtype, device=weights.device)
    places = (torch.arange(num_samples, dtype=weights.dtype, device=weights.device) + offset) / num_samples
    chosen = _locate(total, places * total[-1])
    return chosen[torch.randperm(num_samples, device=weights.device)]


def pick(plan: Tensor, rows: Tensor) -> Tensor:
    """Draw for each given row (S,) of a plan (N, M) a column by its weights; evenly for equal rows.

    Raises:
        ValueError: If a row that is drawn from has no weight.
    """
    shuffled = torch.randperm(len(rows), device=rows.device)
    ordered, order = rows[shuffled].sort()
    present, group, counts = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    offset = torch.rand(len(present), dtype=plan.dtype, device=plan.device)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(rows), device=rows.device) - first[group]
    places = (rank + offset[group]) / counts[group]
    found = [
        _locate(total, (part * total[:, -1])[:, None])[:, 0]
        for total, part in _cumulative(plan, ordered, places)
    ]
    columns = torch.empty_like(rows)
    columns[shuffled[order]] = torch.cat(found)
    return columns


def _cumulative(plan: Tensor, rows: Tensor, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cumulative weights (P, M) of some rows and their places (P,), a part at a time."""
    size = max(1, _ENTRIES // plan.shape[1])
    for some, part in zip(rows.split(size), places.split(size), strict=True):
        total = plan[some].cumsum(1)
        empty = ~(total[:, -1] > 0)
        if bool(empty.any()):
            raise ValueError(
                f"row {int(some[empty.int().argmax()])} of a plan has no weight to draw a column by; draw "
                "rows by their sums."
            )
        yield total, part


def _locate(total: Tensor, places: Tensor) -> Tensor:
    """First entry whose cumulative weight exceeds each place; never one without weight."""
    last = torch.searchsorted(total, total[..., -1:].contiguous())  # the first to reach the full weight
    return torch.searchsorted(total, places, right=True).minimum(last)
