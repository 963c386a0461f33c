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

__all__ = ["Coupling", "couple", "entropic_plan"]

_COOLING = 4.0  # factor from one temperature to the next
_WARM_NATS = 10.0  # mean cost, in temperatures, at which annealing begins
_SINKHORN_ITERS = 10  # before the Newton steps at each temperature
_NEWTON_SIZE = 1500  # largest number of targets for which Newton's linear system is solved
_HALVINGS = 12


class Coupling(NamedTuple):
    """Potentials of K transport problems, and their record.

    Attributes:
        f: Potentials of the sources, (K, N).
        g: Potentials of the targets, (K, M).
        value: Minimal value of each problem in nats, (K,).
        error: Sum of absolute errors of the marginals, (K,).
        num_iters: Newton steps and Sinkhorn iterations taken.
    """

    f: Tensor
    g: Tensor
    value: Tensor
    error: Tensor
    num_iters: int


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
        start: Potentials g (K, M) of a similar problem; without them the problems are annealed.
        tolerance: Sum of absolute errors of the marginals at which to stop.
        max_iters: Bound on the Newton steps (Sinkhorn iterations for large problems) at each temperature.
    """
    num_iters, temperature = 0, 1.0
    g = torch.zeros_like(b) if start is None else start
    if start is None:
        mean = float(((cost * b[:, None, :]).sum(dim=2) * a).sum(dim=1).sub(_least(cost, b, a)).max())
        temperature = max(1.0, mean / _WARM_NATS)
    while True:
        bound = tolerance if temperature == 1.0 else 1e-2
        g, steps = _solve(cost / temperature, a, b, g / temperature, bound, max_iters)
        g, num_iters = g * temperature, num_iters + steps
        if temperature == 1.0:
            break
        temperature = max(1.0, temperature / _COOLING)
    f = _sources(cost, b, g)
    # One constant is free; this one makes the sums of both potentials equal.
    shift = ((a * f).sum(dim=1) - (b * g).sum(dim=1))[:, None] / 2
    f, g = f - shift, g + shift
    error = (entropic_plan(cost, a, b, f, g).sum(dim=1) - b).abs().sum(dim=1)
    return Coupling(f, g, (a * f).sum(dim=1) + (b * g).sum(dim=1), error, num_iters)


def entropic_plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """The plan (..., N, M) of potentials f (..., N) and g (..., M)."""
    return (f[..., :, None] + g[..., None, :] - cost + a.log()[..., :, None] + b.log()[..., None, :]).exp()


def _least(cost: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """Mean over the sources of the least cost to any target, (K,)."""
    masked = cost.masked_fill((b == 0)[:, None, :], torch.inf)
    return (masked.amin(dim=2) * a).sum(dim=1)


def _sources(cost: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return -((g + b.log())[:, None, :] - cost).logsumexp(dim=2)


def _targets(cost: Tensor, a: Tensor, f: Tensor) -> Tensor:
    return -((f + a.log())[:, :, None] - cost).logsumexp(dim=1)


def _solve(
    cost: Tensor, a: Tensor, b: Tensor, g: Tensor, tolerance: float, max_iters: int
) -> tuple[Tensor, int]:
    """Maximise the semi-dual at one temperature from potentials g."""
    large = b.shape[1] > _NEWTON_SIZE
    padded = b == 0
    g = g.masked_fill(padded, 0.0)
    steps = 0
    for steps in range(max_iters):
        f = _sources(cost, b, g)
        plan = entropic_plan(cost, a, b, f, g)
        columns = plan.sum(dim=1)
        residual = b - columns
        error = residual.abs().sum(dim=1)
        if bool((error < tolerance).all()):
            break
        if large or steps < _SINKHORN_ITERS and bool((error > 0.1).any()):
            g = _targets(cost, a, f).masked_fill(padded, 0.0)
            continue
        direction = _newton(plan, a, columns, residual, error, padded)
        g = _line_search(cost, a, b, f, g, direction, error)
    return g, steps + 1


def _newton(
    plan: Tensor, a: Tensor, columns: Tensor, residual: Tensor, error: Tensor, padded: Tensor
) -> Tensor:
    """Newton direction of the semi-dual, (K, M); damped in proportion to the error."""
    scaled = plan / a.masked_fill(a == 0, 1.0)[:, :, None]
    hessian = torch.diag_embed(columns) - plan.mT @ scaled
    damping = columns.mean(dim=1) * (1e-3 * error).clamp(min=1e-12)
    hessian.diagonal(dim1=1, dim2=2).add_(damping[:, None] + padded.to(plan.dtype))
    return torch.linalg.solve(hessian, residual)


def _line_search(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, direction: Tensor, error: Tensor
) -> Tensor:
    """Halve each problem's step until its semi-dual does not fall; a Sinkhorn step where none helps."""
    value = (a * f).sum(dim=1) + (b * g).sum(dim=1)
    slack = 1e-12 * (1 + value.abs())
    size = torch.ones_like(value)
    for _ in range(_HALVINGS):
        tried = g + size[:, None] * direction
        found = (a * _sources(cost, b, tried)).sum(dim=1) + (b * tried).sum(dim=1)
        better = found >= value - slack
        if bool(better.all()):
            return tried
        size = torch.where(better, size, size / 2)
    return torch.where(better[:, None], tried, _targets(cost, a, f).masked_fill(b == 0, 0.0))
