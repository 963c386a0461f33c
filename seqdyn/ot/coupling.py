r"""Entropic coupling of two finite measures under any cost, with the entropy's weight 1.

.. math::
    \pi = \arg\min_{\pi \in \Pi(a, b)} \langle \pi, C \rangle + KL(\pi \,\|\, a b^\top),
    \qquad \pi_{ij} = a_i b_j\, e^{f_i + g_j - C_{ij}}

With :math:`C_{ij} = -\log p(y_j | x_i)` this is the static form of a Schrödinger bridge: the cost is in nats,
and there is no scale to choose. Where the noise is small against the distances Sinkhorn's iteration takes
many thousand rounds; Newton's method takes a few. It is applied to the concave semi-dual in g alone,

.. math::
    D(g) = \langle a, f(g) \rangle + \langle b, g \rangle, \quad
    f_i(g) = -\log \sum_j b_j e^{g_j - C_{ij}}, \quad
    \nabla D = b - \pi^\top 1, \quad
    -\nabla^2 D = \mathrm{diag}(\pi^\top 1) - \pi^\top \mathrm{diag}(a)^{-1} \pi,

after the cost was divided by a temperature that falls to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.errors import NonFiniteError

__all__ = ["Coupling", "couple", "entropic_plan"]

_COOLING = 4.0  # factor from one temperature to the next
_WARM_NATS = 10.0  # mean cost, in temperatures, at which annealing begins
_SINKHORN_ITERS = 10  # before the Newton steps at each temperature
_WARM_ITERS = 30  # from given potentials, after which it is quicker to anneal
_SMALL = 1000  # targets up to which Newton's linear system is factorised at once
_LARGE = 4000  # targets beyond which it never is
_INNER_ITERS = 40  # of conjugate gradients, which take as long as a factorisation
_HALVINGS = 12
_ROUGH = 1e-2  # tolerance above the last temperature
_SMALLEST = 1e-200  # below which a quotient may overflow
_ROUNDING = 1e-15  # of the potentials: error of the marginals that no iteration removes


class Coupling(NamedTuple):
    """Potentials of K transport problems, and their record.

    Attributes:
        f: Potentials of the sources, (K, N).
        g: Potentials of the targets, (K, M).
        value: Minimal value of each problem in nats, (K,).
        error: Sum of absolute errors of the marginals, (K,). Where it is not small the value is too low.
        num_iters: Newton steps and Sinkhorn iterations taken.
    """

    f: Tensor
    g: Tensor
    value: Tensor
    error: Tensor
    num_iters: int


class _Point(NamedTuple):
    """Potentials g (K, M) of the targets and what follows from them."""

    g: Tensor
    f: Tensor
    plan: Tensor
    columns: Tensor
    value: Tensor


@torch.no_grad()
def couple(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-9,
    max_iters: int = 200,
) -> Coupling:
    """Solve K transport problems of one padded size at once.

    Args:
        cost: Costs in nats, (K, N, M), float64; finite, also where weights are 0.
        a: Weights of the sources, (K, N), sum 1; 0 for padding.
        b: Weights of the targets, (K, M), likewise.
        start: Potentials g (K, M) of a similar problem. Problems without them, or which they do not help,
            are annealed.
        tolerance: Sum of absolute errors of the marginals at which to stop; rounding may stop it before.
        max_iters: Bound on the Newton steps and Sinkhorn iterations at each temperature.

    Raises:
        NonFiniteError: If a cost is not finite.
    """
    if not bool(torch.isfinite(cost).all()):
        raise NonFiniteError(
            "a cost of transport is NaN or infinite: give finite costs; of snapshots, look for extreme "
            "values in the data, or raise the volatility."
        )
    reduced, rows, columns = _reduced(cost, a, b)
    if start is None:
        point, num_iters = _anneal(reduced, a, b, tolerance, max_iters)
    else:
        begin = (start - columns).masked_fill(b == 0, 0.0)
        point, num_iters = _maximise(reduced, a, b, begin, tolerance, min(_WARM_ITERS, max_iters))
        slow = ~_done(point, a, b, tolerance)
        if bool(slow.any()):
            found, more = _anneal(reduced[slow], a[slow], b[slow], tolerance, max_iters)
            for old, new in zip(point, found, strict=True):
                old[slow] = new
            num_iters += more
    f, g = point.f + rows, point.g + columns
    # One constant is free; this one makes the sums of both potentials equal.
    shift = ((a * f).sum(dim=1) - (b * g).sum(dim=1))[:, None] / 2
    value = (a * f).sum(dim=1) + (b * g).sum(dim=1)
    return Coupling(f - shift, g + shift, value, _error(point, b), num_iters)


def entropic_plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """The plan (..., N, M) of potentials f (..., N) and g (..., M)."""
    return (f[..., :, None] + g[..., None, :] - cost + a.log()[..., :, None] + b.log()[..., None, :]).exp()


def _reduced(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs less what a row (K, N) and a column (K, M) cost in any case: the same plan, less rounding."""
    rows = cost.masked_fill((b == 0)[:, None, :], torch.inf).amin(dim=2)
    reduced = cost - rows[:, :, None]
    columns = reduced.masked_fill((a == 0)[:, :, None], torch.inf).amin(dim=1)
    return reduced.sub_(columns[:, None, :]), rows, columns


def _anneal(cost: Tensor, a: Tensor, b: Tensor, tolerance: float, max_iters: int) -> tuple[_Point, int]:
    """Lower the temperature from one at which the problem is easy to 1."""
    # Rows have their least cost at 0: the mean is what is left to choose.
    mean = (cost * b[:, None, :]).sum(dim=2).mul(a).sum(dim=1).max()
    temperature = max(1.0, float(mean) / _WARM_NATS)
    g, num_iters = torch.zeros_like(b), 0
    while temperature > 1:
        point, steps = _maximise(cost / temperature, a, b, g / temperature, _ROUGH, max_iters)
        g, num_iters = point.g * temperature, num_iters + steps
        temperature = max(1.0, temperature / _COOLING)
    point, steps = _maximise(cost, a, b, g, tolerance, max_iters)
    return point, num_iters + steps


def _maximise(
    cost: Tensor, a: Tensor, b: Tensor, g: Tensor, tolerance: float, max_iters: int
) -> tuple[_Point, int]:
    """Maximise the semi-dual from potentials g."""
    point = _at(cost, a, b, g)
    for steps in range(max_iters):
        if bool(_done(point, a, b, tolerance).all()):
            return point, steps
        error = _error(point, b)
        if steps < _SINKHORN_ITERS and bool((error > 0.1).any()):
            point = _at(cost, a, b, _sinkhorn(cost, a, b, point))
        else:
            point = _line_search(cost, a, b, point, _newton(a, b, point, error))
    return point, max_iters


def _at(cost: Tensor, a: Tensor, b: Tensor, g: Tensor) -> _Point:
    exponent = (g + b.log())[:, None, :] - cost
    top = exponent.amax(dim=2)
    plan = exponent.sub_(top[:, :, None]).exp_()
    total = plan.sum(dim=2)
    f = -(total.log() + top)
    plan.mul_((a / total)[:, :, None])
    return _Point(g, f, plan, plan.sum(dim=1), (a * f).sum(dim=1) + (b * g).sum(dim=1))


def _error(point: _Point, b: Tensor) -> Tensor:
    return (b - point.columns).abs().sum(dim=1)


def _done(point: _Point, a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """Whether each problem is solved, (K,): to the tolerance, or to the rounding of its potentials."""
    size = (a * point.f.abs()).sum(dim=1) + (b * point.g.abs()).sum(dim=1)
    return _error(point, b) < (_ROUNDING * size).clamp(min=tolerance)


def _sinkhorn(cost: Tensor, a: Tensor, b: Tensor, point: _Point) -> Tensor:
    """Potentials g with which the targets have their weights."""
    padded = b == 0
    if bool((point.columns.masked_fill(padded, 1.0) > _SMALLEST).all()):
        return point.g + (b / point.columns).masked_fill(padded, 1.0).log()
    g = -((point.f + a.log())[:, :, None] - cost).logsumexp(dim=1)
    return g.masked_fill(padded, 0.0)


def _newton(a: Tensor, b: Tensor, point: _Point, error: Tensor) -> Tensor:
    """Newton direction of the semi-dual, (K, M); damped in proportion to the error."""
    damping = point.columns.mean(dim=1) * (1e-3 * error).clamp(min=1e-12)
    diagonal = point.columns + damping[:, None] + (b == 0).to(b.dtype)
    residual = b - point.columns
    inverse = 1 / a.masked_fill(a == 0, 1.0)
    if b.shape[1] > _SMALL:
        found, is_exact = _conjugate_gradients(point.plan, inverse, diagonal, residual, error)
        if is_exact or b.shape[1] > _LARGE:
            return found
    hessian = torch.diag_embed(diagonal) - point.plan.mT @ (point.plan * inverse[:, :, None])
    return torch.linalg.solve(hessian, residual)


def _conjugate_gradients(
    plan: Tensor, inverse: Tensor, diagonal: Tensor, residual: Tensor, error: Tensor
) -> tuple[Tensor, bool]:
    """The same direction without the matrix, the more exact the smaller the error; and whether it is."""
    goal = error * error.clamp(max=0.1)
    found, search, last = torch.zeros_like(residual), torch.zeros_like(residual), torch.ones_like(error)
    for _ in range(_INNER_ITERS):
        scaled = residual / diagonal
        square = (residual * scaled).sum(dim=1)
        if bool((residual.abs().sum(dim=1) <= goal).all()):
            return found, True
        search = scaled + (square / last)[:, None] * search
        across = (plan @ search[:, :, None])[:, :, 0] * inverse
        moved = diagonal * search - (across[:, None, :] @ plan)[:, 0]
        size = (square / (search * moved).sum(dim=1).clamp(min=_SMALLEST))[:, None]
        found, residual, last = found + size * search, residual - size * moved, square.clamp(min=_SMALLEST)
    return found, False


def _line_search(cost: Tensor, a: Tensor, b: Tensor, point: _Point, direction: Tensor) -> _Point:
    """Halve each problem's step until its semi-dual does not fall; a Sinkhorn step where none helps."""
    slack = 1e-12 * (1 + point.value.abs())
    size = torch.ones_like(point.value)
    for _ in range(_HALVINGS):
        tried = _at(cost, a, b, point.g + size[:, None] * direction)
        better = tried.value >= point.value - slack
        if bool(better.all()):
            return tried
        size = torch.where(better, size, size / 2)
    return _at(cost, a, b, torch.where(better[:, None], tried.g, _sinkhorn(cost, a, b, point)))
