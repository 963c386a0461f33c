"""Half squared distances between two sets of points, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Block", "Cost", "place"]

# Bytes of a block. Its exponentials fit into a core's cache; a GPU wants launches that fill it.
CPU_BLOCK, GPU_BLOCK = 2**20, 2**27
LEAST_ROWS = 16


class Block(NamedTuple):
    """Rows and columns of a matrix, and what stands there: (rows, cols)."""

    rows: slice
    cols: slice
    values: Tensor


class Cost:
    r"""The matrix :math:`C_{ij} = |x_i - y_j|^2 / 2` as blocks of rows.

    Of a symmetric matrix (no ``y``) only blocks on and right of the diagonal exist: the first columns of a
    block are its own rows, and what stands right of them stands mirrored below them.

    Args:
        x: Points, (N, D).
        y: Points, (M, D); ``None`` for the costs within ``x``.
        keep: Compute once and keep N M numbers, or half as many of a symmetric matrix; otherwise every pass
            computes each block afresh in one buffer, and memory is linear in N + M.
    """

    def __init__(self, x: Tensor, y: Tensor | None = None, *, keep: bool) -> None:
        self.symmetric = y is None
        self.x, self.y = x, x if y is None else y
        self._x_half, self._y_half = (points.square().sum(dim=1).div_(2) for points in (self.x, self.y))
        self._kept = list(self._compute(None)) if keep else None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns, N and M."""
        return len(self.x), len(self.y)

    @property
    def block_size(self) -> int:
        """Most entries of one block."""
        return self._block_rows * len(self.y)

    def __iter__(self) -> Iterator[Block]:
        """Blocks from the top down; their values hold until the next one is asked for."""
        if self._kept is not None:
            return iter(self._kept)
        return self._compute(self.x.new_empty(self.block_size))

    @property
    def _block_rows(self) -> int:
        size = CPU_BLOCK if self.x.device.type == "cpu" else GPU_BLOCK
        return min(len(self.x), max(LEAST_ROWS, size // (len(self.y) * self.x.element_size())))

    def _compute(self, buffer: Tensor | None) -> Iterator[Block]:
        for start in range(0, len(self.x), self._block_rows):
            rows = slice(start, min(start + self._block_rows, len(self.x)))
            cols = slice(start if self.symmetric else 0, len(self.y))
            out = place(buffer, rows, cols, like=self.x)
            torch.add(self._x_half[rows, None], self._y_half[cols], out=out)
            yield Block(rows, cols, out.addmm_(self.x[rows], self.y[cols].T, alpha=-1))


def place(buffer: Tensor | None, rows: slice, cols: slice, *, like: Tensor) -> Tensor:
    """Room for a block: the beginning of a flat buffer, or fresh where there is none."""
    shape = rows.stop - rows.start, cols.stop - cols.start
    return like.new_empty(shape) if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
