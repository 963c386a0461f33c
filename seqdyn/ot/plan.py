r"""Row and column sums of a transport plan that is given by its potentials.

.. math::
    P_{ij} = \exp\{(f_i + g_j - C_{ij}) / \epsilon\}, \qquad
    r_i = \sum_j b_j P_{ij}, \qquad c_j = \sum_i a_i P_{ij}

The plan moves the mass :math:`a_i b_j P_{ij}` from point i to point j and has the right marginals where r = c
= 1. A row's soft minimum is :math:`f_i - \epsilon \log r_i`, so that one exponential per pair of points gives
the updates of both potentials, and in a symmetric problem one per two pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.ot.costs import Block, Cost, place

__all__ = ["Problem", "Sums", "accumulate", "below", "plan_blocks", "reliable", "sums"]


class Problem(NamedTuple):
    """One entropic transport problem; of a symmetric one rows and columns are the same points."""

    cost: Cost
    a: Tensor  # weights of the rows, (N,)
    b: Tensor  # weights of the columns, (M,)


class Sums(NamedTuple):
    """Logarithms of a plan's sums, and the mean point that each row or column is moved to."""

    rows: Tensor  # log r, (N,)
    cols: Tensor  # log c, (M,)
    row_means: Tensor | None  # sum_j b_j P_ij y_j / r_i, (N, D)
    col_means: Tensor | None  # sum_i a_i P_ij x_i / c_j, (M, D)


def sums(
    problem: Problem,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    *,
    row_means: bool = False,
    col_means: bool = False,
) -> Sums:
    """Sums of the plan, and its means where asked for; a symmetric problem takes both by ``row_means``.

    Plain sums serve as long as the potentials nearly balance the plan. Where one leaves the range in which
    it is exact, and on a GPU, where looking would stop the queue, the largest exponent of every row and
    column is taken out first.
    """
    cost, a, b = problem
    ones = torch.ones_like
    if may_look(f.device):
        row_values, col_values = _values(cost.y, b, row_means), _values(cost.x, a, col_means)
        rows, cols = _plain(problem, f, g, epsilon, row_values, col_values)
        if reliable(_first(rows)) and reliable(_first(cols)):
            return Sums(_first(rows).log(), _first(cols).log(), _means(rows), _means(cols))
    row_values, col_values = _values(cost.y, ones(b), row_means), _values(cost.x, ones(a), col_means)
    by_row, by_col = _shifted(problem, f, g, epsilon, row_values, col_values)
    return Sums(by_row.log(), by_col.log(), _means(by_row.total), _means(by_col.total))


def plan_blocks(
    problem: Problem, f: Tensor, g: Tensor, epsilon: float, *, keep: bool = False
) -> Iterator[Block]:
    """Blocks of P, each in its own memory or all in one buffer.

    Exponents end at 0.7 times the least that the dtype can hold: tiny numbers, and products of them, take a
    hundred times as long as others. The sums that this adds are below 1e-26.
    """
    floor = least_exponent(f.dtype)
    f, g = f / epsilon, g / epsilon
    buffer = None if keep else f.new_empty(problem.cost.block_size)
    for rows, cols, values in problem.cost:
        out = place(buffer, rows, cols, like=f)
        torch.add(g[cols], values, alpha=-1 / epsilon, out=out)
        yield Block(rows, cols, out.add_(f[rows, None]).clamp_(min=floor).exp_())


def may_look(device: torch.device) -> bool:
    """Whether a look at numbers does not make the program wait for the device."""
    return device.type == "cpu"


def least_exponent(dtype: torch.dtype) -> float:
    """Where :func:`plan_blocks` ends exponents: -61 in float32, -496 in float64."""
    return 0.7 * math.log(torch.finfo(dtype).tiny)


def reliable(total: Tensor) -> bool:
    """Whether sums are far from overflow, and what :func:`plan_blocks` adds to them is below rounding."""
    limits = torch.finfo(total.dtype)
    least, most = math.exp(least_exponent(total.dtype)) / limits.eps, limits.max**0.75
    return bool(((total > least) & (total < most)).all())


def accumulate(out: Tensor, matrix: Tensor, values: Tensor) -> None:
    """Add the product of a matrix and a vector, or of two matrices, in place."""
    if values.ndim == 1:
        out.addmv_(matrix, values)
    else:
        out.addmm_(matrix, values)


def below(block: Block, symmetric: bool) -> tuple[slice, Tensor]:
    """The columns of a block that also stand below the diagonal, or all of them, as rows."""
    skip = block.rows.stop - block.rows.start if symmetric else 0
    return slice(block.cols.start + skip, block.cols.stop), block.values[:, skip:].T


def _values(points: Tensor, weights: Tensor, means: bool) -> Tensor:
    """What is summed, times the weights: 1, or 1 and the points."""
    return torch.cat([weights[:, None], weights[:, None] * points], dim=1) if means else weights


def _first(total: Tensor) -> Tensor:
    return total if total.ndim == 1 else total[:, 0]


def _means(total: Tensor) -> Tensor | None:
    return None if total.ndim == 1 else total[:, 1:] / total[:, :1]


def _plain(
    problem: Problem, f: Tensor, g: Tensor, epsilon: float, row_values: Tensor, col_values: Tensor
) -> tuple[Tensor, Tensor]:
    symmetric = problem.cost.symmetric
    rows_out = f.new_zeros(len(f), *row_values.shape[1:])
    cols_out = rows_out if symmetric else g.new_zeros(len(g), *col_values.shape[1:])
    col_values = row_values if symmetric else col_values
    for block in plan_blocks(problem, f, g, epsilon):
        accumulate(rows_out[block.rows], block.values, row_values[block.cols])
        cols, mirrored = below(block, symmetric)
        accumulate(cols_out[cols], mirrored, col_values[block.rows])
    return rows_out, cols_out


class _Shifted:
    """Sums of exp(exponent) times values, by row, with each row's largest exponent kept apart."""

    def __init__(self, num_rows: int, values: Tensor) -> None:
        self.total = values.new_zeros(num_rows, *values.shape[1:])
        self.top = values.new_full((num_rows,), torch.finfo(values.dtype).min)

    def add(self, rows: slice, exponents: Tensor, values: Tensor) -> None:
        if exponents.numel() == 0:
            return
        top = torch.maximum(self.top[rows], exponents.amax(dim=1))
        fade = torch.exp(self.top[rows] - top)
        self.total[rows] *= fade if values.ndim == 1 else fade[:, None]
        accumulate(self.total[rows], torch.exp(exponents - top[:, None]), values)
        self.top[rows] = top

    def log(self) -> Tensor:
        return _first(self.total).log() + self.top


def _shifted(
    problem: Problem, f: Tensor, g: Tensor, epsilon: float, row_values: Tensor, col_values: Tensor
) -> tuple[_Shifted, _Shifted]:
    symmetric = problem.cost.symmetric
    by_row = _Shifted(len(f), row_values)
    by_col = by_row if symmetric else _Shifted(len(g), col_values)
    col_values = row_values if symmetric else col_values
    f, g = f / epsilon, g / epsilon
    # A weight of zero must lose against any other, and still be a number.
    least = torch.finfo(f.dtype).min / 4
    log_a, log_b = (weights.log().clamp_(min=least) for weights in (problem.a, problem.b))
    for block in problem.cost:
        rows, cols, values = block
        exponents = g[cols] + f[rows, None] - values / epsilon
        by_row.add(rows, exponents + log_b[cols], row_values[cols])
        cols, mirrored = below(Block(rows, cols, exponents), symmetric)
        by_col.add(cols, mirrored + log_a[rows], col_values[rows])
    return by_row, by_col
