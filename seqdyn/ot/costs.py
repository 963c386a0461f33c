r"""Sums over the plan :math:`e^{(f_i + g_j - C_ij) / \varepsilon}` of two sets of points, block by block.

The cost is :math:`C_ij = |x_i - y_j|^2 / 2`. Its matrix is kept where it fits the memory allowed, and
computed anew for each block of rows otherwise. One exponential serves the sums over rows and over columns,
and half the blocks serve a set and itself, since that matrix is symmetric. No temporary is larger than a
block.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Plan"]

_BLOCK = 2**18  # entries of a block: about the second-level cache of one core


class Plan:
    """The points of a transport problem, and how its plan is summed.

    Args:
        x: Points (N, D).
        y: Points (M, D); ``None`` for those of ``x``.
        x_weights: Weights a, (N,).
        y_weights: Weights b, (M,).
        keep: Whether the matrix of costs is kept.
    """

    def __init__(self, x: Tensor, y: Tensor | None, x_weights: Tensor, y_weights: Tensor, keep: bool) -> None:
        self.symmetric = y is None
        self.x, self.y = x, x if y is None else y
        self.x_weights, self.y_weights = x_weights, y_weights
        self._x_norms, self._y_norms = (points.square().sum(1) / 2 for points in (self.x, self.y))
        rows = max(1, _BLOCK // len(self.y))
        self._blocks = [slice(i, min(i + rows, len(x))) for i in range(0, len(x), rows)]
        self._buffer = x.new_empty(min(rows, len(x)), len(self.y))
        self._costs: Tensor | None = None
        if keep:
            self._costs = x.new_empty(len(x), len(self.y))
            for block in self._blocks:
                self._compute(block, self._costs[block])

    @property
    def kept(self) -> bool:
        """Whether the matrix of costs is kept."""
        return self._costs is not None

    def sums(self, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Sums over columns (N,), weighted by b, and over rows (M,), weighted by a.

        The potentials should be near those of the problem: sums then lie near one.
        """
        by_row, by_column = torch.zeros_like(f), torch.zeros_like(g)
        for block in self._blocks:
            first = block.start if self.symmetric else 0
            entries = self._entries(block, f, g, epsilon, first)
            by_row[block] += entries @ self.y_weights[first:]
            start = block.stop if self.symmetric else 0  # the block on the diagonal is whole already
            by_column[start:] += self.x_weights[block] @ entries[:, start - first :]
        return (by_row + by_column, by_row + by_column) if self.symmetric else (by_row, by_column)

    def softmin(self, g: Tensor, epsilon: float) -> Tensor:
        r"""Potential of x, :math:`-\varepsilon \log \sum_j b_j e^{(g_j - C_ij) / \varepsilon}`, for any g."""
        drive = g / epsilon + self.y_weights.log()
        out = g.new_empty(len(self.x))
        for block in self._blocks:
            entries = torch.add(drive, self._block(block), alpha=-1 / epsilon, out=self._rows(block))
            highest = entries.amax(dim=1, keepdim=True)
            total = entries.sub_(highest).exp_().sum(dim=1)
            out[block] = -epsilon * (highest[:, 0] + total.log())
        return out

    def transposed(self) -> Plan:
        """The same problem with x and y in each other's place."""
        plan = Plan.__new__(Plan)
        plan.__dict__.update(self.__dict__)
        if not self.symmetric:
            plan.x, plan.y, plan.x_weights, plan.y_weights = self.y, self.x, self.y_weights, self.x_weights
            plan._x_norms, plan._y_norms = self._y_norms, self._x_norms
            rows = max(1, _BLOCK // len(plan.y))
            plan._blocks = [slice(i, min(i + rows, len(plan.x))) for i in range(0, len(plan.x), rows)]
            plan._buffer = self.x.new_empty(min(rows, len(plan.x)), len(plan.y))
            plan._costs = None if self._costs is None else self._costs.t()
        return plan

    def barycentres(self, g: Tensor, epsilon: float) -> Tensor:
        """Mean of the points that each point of x is matched to, (N, D)."""
        drive = g / epsilon + self.y_weights.log()
        out = torch.empty_like(self.x)
        for block in self._blocks:
            entries = torch.add(drive, self._block(block), alpha=-1 / epsilon, out=self._rows(block))
            entries.sub_(entries.amax(dim=1, keepdim=True)).exp_()
            torch.div(entries @ self.y, entries.sum(dim=1, keepdim=True), out=out[block])
        return out

    def kernel(self, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
        """The whole plan without weights, (N, M)."""
        out = self.x.new_empty(len(self.x), len(self.y))
        for block in self._blocks:
            out[block] = self._entries(block, f, g, epsilon, 0)
        return out

    def _entries(self, block: slice, f: Tensor, g: Tensor, epsilon: float, first: int) -> Tensor:
        entries = torch.sub(f[block, None], self._block(block, first), out=self._rows(block, first))
        return entries.add_(g[first:]).mul_(1 / epsilon).exp_()

    def _block(self, block: slice, first: int = 0) -> Tensor:
        """Costs of some rows, from column ``first`` on; in the buffer where they are not kept."""
        if self._costs is not None:
            return self._costs[block, first:]
        return self._compute(block, self._rows(block, first), first)

    def _compute(self, block: slice, out: Tensor, first: int = 0) -> Tensor:
        norms = self._x_norms[block, None] + self._y_norms[first:]
        # Rounding can leave a distance below zero; it cannot be.
        return torch.addmm(norms, self.x[block], self.y[first:].t(), alpha=-1, out=out).clamp_(min=0)

    def _rows(self, block: slice, first: int = 0) -> Tensor:
        """Room for the entries of a block."""
        rows, columns = block.stop - block.start, len(self.y) - first
        return self._buffer.view(-1)[: rows * columns].view(rows, columns)
