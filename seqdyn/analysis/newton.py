r"""Roots of a vector-valued function from many starts at once: Levenberg-Marquardt with damping per start.

Minimises :math:`q(h) = |r(h)|^2 / 2`. Each start solves :math:`(J^T J + \mu I)\, \delta = -J^T r`, moves only
where q falls, and has its own damping :math:`\mu`; as that vanishes the steps become Newton's. Starts leave
the batch when they are done, so that a slow one holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Roots", "find_roots"]

Residual = Callable[[Tensor, Tensor], Tensor]

_MAX_DAMPING = 1e8
# |J'r| / (|J| |r|), with the largest |J| on the way, below which q has hardly a direction left to fall in.
_FLAT = 1e-4
# At a root with a singular Jacobian the gradient vanishes too, but there q still falls by a factor each step.
_STALLED = 3


class Roots(NamedTuple):
    """Where the starts ended.

    Attributes:
        hidden: End points, (N, H).
        error: q at the end points, (N,).
        flat: Whether the gradient of q is nearly zero there though q is not: a local minimum, (N,).
        num_iters: Iterations of each start, (N,).
        converged: Whether q is below the tolerance, (N,).
    """

    hidden: Tensor
    error: Tensor
    flat: Tensor
    num_iters: Tensor
    converged: Tensor


@torch.no_grad()
def find_roots(
    residual: Residual,
    jacobian: Residual,
    start: Tensor,
    *,
    tolerance: float,
    max_iters: int = 200,
    batch_size: int = 1024,
) -> Roots:
    """Solve residual(h) = 0 from every start.

    Args:
        residual: ``residual(h, rows)`` of states (n, H) that belong to the given rows of ``start``; (n, H).
        jacobian: Likewise its Jacobians, (n, H, H).
        start: Starts, (N, H).
        tolerance: q below which a point counts as a root.
        max_iters: Most iterations of a start.
        batch_size: Starts in memory at once.

    Returns:
        The end points. Where q meets the tolerance, undamped Newton steps go on as long as q falls.
    """
    parts = []
    for rows in torch.arange(len(start), device=start.device).split(batch_size):
        parts.append(_solve(residual, jacobian, start[rows], rows, tolerance, max_iters))
    return Roots(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _solve(
    residual: Residual, jacobian: Residual, start: Tensor, rows: Tensor, tolerance: float, max_iters: int
) -> Roots:
    end = _Ends(start, rows)
    h, r = start, residual(start, rows)
    q, matrix = _half_square(r), jacobian(start, rows)
    here = torch.arange(len(start), device=start.device)
    damping, stalled = torch.full_like(q, 1e-2), torch.zeros_like(here)
    steepest = torch.zeros_like(q)
    for iteration in range(max_iters + 1):
        gradient = (matrix.mT @ r.unsqueeze(-1)).squeeze(-1)
        scale = matrix.square().sum(dim=(1, 2))
        steepest = torch.maximum(steepest, scale.sqrt())
        flat = gradient.norm(dim=1) <= _FLAT * steepest * r.norm(dim=1)
        hopeless = (damping > _MAX_DAMPING) | ~torch.isfinite(q)
        done = (q < tolerance) | (flat & (stalled >= _STALLED)) | hopeless | (iteration == max_iters)
        if bool(done.any()):
            end.store(here[done], h[done], q[done], flat[done], iteration)
            keep = ~done
            here, h, r, q, damping, stalled, steepest, matrix, gradient, scale = (
                value[keep] for value in (here, h, r, q, damping, stalled, steepest, matrix, gradient, scale)
            )
        if len(here) == 0:
            break
        delta, solvable = _damped_step(matrix, gradient, damping * scale / h.shape[1])
        trial = h + delta
        r_trial = residual(trial, rows[here])
        q_trial = _half_square(r_trial)
        better = solvable & (q_trial < q)
        damping = torch.where(better, (damping * 0.1).clamp_min(1e-15), damping * 8)
        stalled = torch.where(better & (q_trial < 0.9 * q), 0, stalled + 1)
        h, r = (torch.where(better[:, None], new, old) for new, old in ((trial, h), (r_trial, r)))
        q = torch.where(better, q_trial, q)
        if bool(better.any()):
            matrix[better] = jacobian(h[better], rows[here[better]])
    return end.polished(residual, jacobian, tolerance)


def _damped_step(matrix: Tensor, gradient: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    normal = matrix.mT @ matrix
    normal.diagonal(dim1=-2, dim2=-1).add_(damping[:, None])
    factor, info = torch.linalg.cholesky_ex(normal)
    # Without pivot the factor is undefined: the identity stands in, and the step is not taken.
    factor = torch.where((info == 0)[:, None, None], factor, torch.eye(factor.shape[-1]).to(factor))
    return -torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1), info == 0


def _half_square(r: Tensor) -> Tensor:
    return 0.5 * r.square().sum(dim=1)


class _Ends:
    """End points of the starts, filled in as they are reached."""

    def __init__(self, start: Tensor, rows: Tensor) -> None:
        self.rows, self.hidden, self.error = rows, start.clone(), start.new_zeros(len(start))
        self.flat = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.num_iters = torch.zeros(len(start), dtype=torch.int64, device=start.device)

    def store(self, here: Tensor, h: Tensor, q: Tensor, flat: Tensor, iteration: int) -> None:
        self.hidden[here], self.error[here], self.flat[here] = h, q, flat
        self.num_iters[here] = iteration

    def polished(self, residual: Residual, jacobian: Residual, tolerance: float) -> Roots:
        """Take Newton steps from the roots: exact for a piecewise linear function, its piece being known."""
        active = (self.error < tolerance).nonzero().squeeze(1)
        for _ in range(5):
            if len(active) == 0:
                break
            h, rows = self.hidden[active], self.rows[active]
            step, info = torch.linalg.solve_ex(jacobian(h, rows), residual(h, rows))
            trial = h - step
            q = _half_square(residual(trial, rows))
            better = (info == 0) & (q < self.error[active])
            active = active[better]
            self.hidden[active], self.error[active] = trial[better], q[better]
        converged = self.error < tolerance
        return Roots(self.hidden, self.error, self.flat & ~converged, self.num_iters, converged)
