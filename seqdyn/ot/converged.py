r"""Potentials to a given accuracy.

The plan of fixed potentials is a matrix K of exponentials, computed once. Balancing it by factors u of its
rows and v of its columns takes only products with vectors,

.. math::
    u \leftarrow 1 / K (b v), \qquad v \leftarrow 1 / K^\top (a u),

and where the factors grow large they go into the potentials and K is computed anew. In logarithms the two
steps are block Gauss-Seidel on a concave problem, so that they are over-relaxed as soon as the rate at which
the error falls is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.ot.annealed import Solution, marginal_error
from seqdyn.ot.costs import Block
from seqdyn.ot.plan import Problem, accumulate, below, plan_blocks, reliable, sums

__all__ = ["Kernel", "Relaxation", "converge"]

# Beyond these factors, of a row and a column together, the kernel is computed anew: up to there what it lost
# by underflow is below 1e-13 of the plan.
LARGEST_LOG_FACTOR = 30.0
# The plan of a larger epsilon is only a start for the next.
START_TOLERANCE, START_ITERS = 0.1, 10
FINER = 1e-3
# An over-relaxed plan has larger errors than its potentials deserve: how often to look behind them.
LOOK_EVERY = 50
# Symmetric updates multiply errors by numbers from 1 - 2 step to 1 - step: at most 1/3 in size.
SYMMETRIC_STEP = 2 / 3


def converge(
    problem: Problem,
    epsilons: tuple[float, ...],
    *,
    tolerance: float,
    max_iters: int,
    keep: bool,
    row_means: bool = False,
    col_means: bool = False,
) -> Solution:
    """Iterate until the larger marginal error of the plan is below ``tolerance``.

    In float64 it goes on from there towards a thousandth of it, with no more than as many iterations again.

    Args:
        problem: Costs and weights.
        epsilons: The larger ones, one after the other, only make a start for the last.
        tolerance: Bound on the sum of absolute errors of a marginal.
        max_iters: Bound on the iterations at the last epsilon.
        keep: Keep the kernel, of the size of the costs, instead of computing it in every pass.
        row_means, col_means: Whether to compute what the gradients need.
    """
    start = _Balance(torch.zeros_like(problem.a), torch.zeros_like(problem.b), math.inf, 0)
    for epsilon in epsilons[:-1]:
        start = _balance(problem, start, epsilon, START_TOLERANCE, START_ITERS, keep)
    found = _balance(problem, start, epsilons[-1], tolerance, max_iters, keep)
    if found.error < tolerance and found.f.dtype == torch.float64:
        # Gradients are of first order in the error, values of second: while it is cheap, go on.
        finer = _balance(problem, found, epsilons[-1], FINER * tolerance, found.num_iters, keep)
        if finer.error < found.error:
            found = finer._replace(num_iters=found.num_iters + finer.num_iters)
    f, g, error, num_iters = found
    means: tuple[Tensor | None, Tensor | None] = (None, None)
    if row_means or col_means:
        means = sums(problem, f, g, epsilons[-1], row_means=row_means, col_means=col_means)[2:]
    return Solution(f, g, *means, f.new_tensor(error), num_iters)


class Kernel:
    """The plan of fixed potentials, as a matrix to multiply with."""

    def __init__(self, problem: Problem, f: Tensor, g: Tensor, epsilon: float, *, keep: bool) -> None:
        self.problem, self._potentials = problem, (f, g, epsilon)
        self._kept = list(plan_blocks(problem, f, g, epsilon, keep=True)) if keep else None

    def _blocks(self) -> Iterator[Block]:
        return plan_blocks(self.problem, *self._potentials) if self._kept is None else iter(self._kept)

    def rows(self, log_v: Tensor) -> Tensor:
        """Logarithms of the rows' sums when columns are multiplied by v, (N,)."""
        cost, a, b = self.problem
        out, values = torch.zeros_like(a), b * log_v.exp()
        for block in self._blocks():
            accumulate(out[block.rows], block.values, values[block.cols])
            if cost.symmetric:
                rows, mirrored = below(block, True)
                accumulate(out[rows], mirrored, values[block.rows])
        return out.log()

    def cols(self, log_u: Tensor) -> Tensor:
        """Logarithms of the columns' sums when rows are multiplied by u, (M,)."""
        if self.problem.cost.symmetric:
            return self.rows(log_u)
        _, a, b = self.problem
        out, values = torch.zeros_like(b), a * log_u.exp()
        for block in self._blocks():
            accumulate(out[block.cols], block.values.T, values[block.rows])
        return out.log()

    def reliable(self) -> bool:
        """Whether the kernel's sums are within the range in which they are exact."""
        _, a, b = self.problem
        return reliable(self.rows(torch.zeros_like(b)).exp()) and reliable(
            self.cols(torch.zeros_like(a)).exp()
        )


class Relaxation:
    """Factor of the updates, from the rate at which the error falls.

    Plain iteration with the rate theta is fastest with the factor 2 / (1 + sqrt(1 - theta)); with a factor
    w in use the rate is lambda where (lambda + w - 1)^2 = lambda w^2 theta.

    Source: Young (1954); for Sinkhorn's iteration Thibault et al. (2021), arXiv 1711.01851.
    """

    WINDOWS = 8, 64
    LARGEST = 1.998

    def __init__(self) -> None:
        self.factor = 1.0
        self._window = self.WINDOWS[0]
        self._errors: list[float] = []

    def update(self, error: float) -> None:
        """Take notice of one more iteration's error."""
        self._errors.append(error)
        if len(self._errors) <= 2 * self._window:
            return
        rate = (error / self._errors[-1 - self._window]) ** (1 / self._window)
        self._errors.clear()
        if not rate < 1:
            self.factor, self._window = 1.0, self.WINDOWS[0]
            return
        # What is left to find are slower and slower modes, which take longer to show.
        self._window = min(self.WINDOWS[1], self._window * 3 // 2)
        plain = (rate + self.factor - 1) ** 2 / (rate * self.factor**2)
        self.factor = min(self.LARGEST, 2 / (1 + math.sqrt(max(0.0, 1 - plain))))


class _Scaling(NamedTuple):
    """Factors of a kernel; an error of infinity says that they have grown large."""

    log_u: Tensor
    log_v: Tensor
    error: float
    num_iters: int


class _Balance(NamedTuple):
    """Potentials at one epsilon, their error and the number of iterations."""

    f: Tensor
    g: Tensor
    error: float
    num_iters: int


def _balance(
    problem: Problem, start: _Balance, epsilon: float, tolerance: float, max_iters: int, keep: bool
) -> _Balance:
    """Scale kernels one after the other, each until its factors are large or the marginals right."""
    scale = _scale_symmetric if problem.cost.symmetric else _scale
    relaxation, count, error = Relaxation(), 0, math.inf
    f, g = start.f, start.g
    while count < max_iters and not error < tolerance:
        kernel = Kernel(problem, f, g, epsilon, keep=keep)
        if kernel.reliable():
            found = scale(kernel, relaxation, tolerance, max_iters - count)
            f, g = f + epsilon * found.log_u, g + epsilon * found.log_v
            count, error = count + found.num_iters, found.error
        else:
            relaxation, count = Relaxation(), count + 1
            f, g, error = _step(problem, f, g, epsilon)
    return _Balance(f, g, error, count)


def _step(problem: Problem, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor, float]:
    """One plain iteration that no potential is too far off for."""
    if problem.cost.symmetric:
        found = sums(problem, f, f, epsilon)
        f = f - SYMMETRIC_STEP * epsilon * found.rows
        return f, f, float(marginal_error(found.rows, problem.a))
    g = g - epsilon * sums(problem, f, g, epsilon).cols
    f = f - epsilon * sums(problem, f, g, epsilon).rows
    return f, g, math.inf


def _scale(kernel: Kernel, relaxation: Relaxation, tolerance: float, max_iters: int) -> _Scaling:
    """Balance rows and columns in turn; ends with exact rows, so that the error is that of the columns."""
    _, a, b = kernel.problem
    log_u, log_v, error = torch.zeros_like(a), torch.zeros_like(b), math.inf
    for count in range(1, max_iters + 1):
        exact = error < tolerance or count == max_iters or count % LOOK_EVERY == 0
        factor = 1.0 if exact else relaxation.factor
        log_r = log_u + kernel.rows(log_v)
        log_u = log_u - factor * log_r
        log_c = log_v + kernel.cols(log_u)
        row_error, col_error = torch.stack([marginal_error(log_r, a), marginal_error(log_c, b)]).tolist()
        if exact and (col_error < tolerance or count == max_iters):
            return _Scaling(log_u, log_v, col_error, count)
        log_v = log_v - factor * log_c
        error = max(row_error, col_error)
        relaxation.update(error)
        if float(log_u.abs().max() + log_v.abs().max()) > LARGEST_LOG_FACTOR:
            break
    return _Scaling(log_u, log_v, math.inf, count)


def _scale_symmetric(kernel: Kernel, _: Relaxation, tolerance: float, max_iters: int) -> _Scaling:
    """Balance a symmetric kernel from both sides at once."""
    log_u, error = torch.zeros_like(kernel.problem.a), math.inf
    for count in range(1, max_iters + 1):
        log_r = log_u + kernel.rows(log_u)
        error = float(marginal_error(log_r, kernel.problem.a))
        if error < tolerance:
            # Half a step makes the value exact to second order in the error.
            log_u = log_u - log_r / 2
            return _Scaling(log_u, log_u, error, count)
        log_u = log_u - SYMMETRIC_STEP * log_r
        if float(log_u.abs().max()) > LARGEST_LOG_FACTOR / 2:
            return _Scaling(log_u, log_u, math.inf, count)
    return _Scaling(log_u, log_u, error, count)
