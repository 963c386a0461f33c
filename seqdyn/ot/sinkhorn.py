r"""The debiased Sinkhorn divergence between two weighted sets of points.

With the cost :math:`C(x, y) = |x - y|^2 / 2` and the measures :math:`\alpha = \sum_i a_i \delta_{x_i}`,
:math:`\beta = \sum_j b_j \delta_{y_j}`,

.. math::
    OT_\epsilon(\alpha, \beta) &= \min_P \langle P, C \rangle + \epsilon\, KL(P \| a b^\top)
        = \max_{f, g} \langle a, f \rangle + \langle b, g \rangle
        - \epsilon \langle a b^\top, \exp\{(f \oplus g - C) / \epsilon\} - 1 \rangle \\
    S_\epsilon(\alpha, \beta) &= OT_\epsilon(\alpha, \beta) - \tfrac12 OT_\epsilon(\alpha, \alpha)
        - \tfrac12 OT_\epsilon(\beta, \beta)
        = \langle a, f_{xy} - f_{xx} \rangle + \langle b, g_{xy} - g_{yy} \rangle .

By the envelope theorem the derivative in x sees the potentials as constants: a point is drawn to the mean of
where the plan moves it in y, and pushed from where it moves it in x,

.. math::
    \partial S / \partial x_i = a_i \Big(\sum_k v_{ik} x_k - \sum_j w_{ij} y_j\Big), \quad
    w_{ij} \propto b_j e^{(g_j - C_{ij}) / \epsilon}, \quad
    v_{ik} \propto a_k e^{(f_{xx,k} - C_{ik}) / \epsilon} .

Source: Feydy et al. (2019), arXiv 1810.08278.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqdyn.errors import ConvergenceWarning
from seqdyn.ot._checks import check_pair, check_points, check_weights
from seqdyn.ot.annealed import Solution
from seqdyn.ot.settings import Settings
from seqdyn.ot.transport import SelfTransport, check_self_transport, extent, resting, transport

__all__ = ["Potentials", "SinkhornResult", "sinkhorn", "sinkhorn_divergence"]


class Potentials(NamedTuple):
    """Dual potentials, in the units of the cost; those of x and y are determined up to a constant."""

    x: Tensor  # f_xy, (N,)
    y: Tensor  # g_xy, (M,)
    x_self: Tensor  # f_xx, (N,)
    y_self: Tensor  # g_yy, (M,)


class SinkhornResult(NamedTuple):
    """A divergence and how it was found.

    ``error`` is the largest sum of absolute errors of a marginal among the three plans, ``num_iters`` the
    most iterations one of them took, ``converged`` whether the error is below the tolerance.
    """

    value: Tensor  # scalar
    potentials: Potentials
    error: float
    num_iters: int
    converged: bool


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    mode: str = "converged",
    scaling: float = 0.5,
    diameter: float | None = None,
    tolerance: float = 1e-6,
    max_iters: int = 5000,
    max_memory: float = 1e9,
    y_self: SelfTransport | None = None,
) -> Tensor:
    """Debiased Sinkhorn divergence, differentiable in points and weights.

    Args:
        x: Points, (N, D), float32 or float64; everything of the size N M is computed in this dtype.
        y: Points, (M, D).
        epsilon: Strength of the entropy in units of the cost, the square of the blur.
        x_weights: Non-negative weights with the sum 1, (N,); equal ones by default.
        y_weights: The same of y, (M,).
        mode: ``"converged"`` iterates to ``tolerance``; ``"annealed"`` runs the fixed short schedule of the
            published method, the value of which is another.
        scaling: Factor from one blur, the square root of epsilon, to the next of the schedule.
        diameter: Where the schedule starts, in the units of the points; the norm of the ranges of all
            coordinates by default. A fixed one, for one-hot sequences the root of the number of coordinates,
            keeps the annealed value from jumping with a single point.
        tolerance: Bound on the marginals' error, the sum of absolute differences; in float64 iteration
            goes on beyond it while that is cheap.
        max_iters: Bound on the iterations.
        max_memory: Bytes up to which a matrix of the size N M is kept. Beyond it every pass computes the
            costs a few rows at a time, and memory is linear in N + M.
        y_self: The transport of y to itself by :func:`self_transport`, if y serves many times.

    Returns:
        The divergence, a scalar in the units of the cost, in the dtype and on the device of x. Its gradient
        in the points is that of the exact value; its gradient in the weights, up to a constant, likewise.

    Raises:
        ValueError: If points, weights or settings do not fit; the message says what to type.

    Warns:
        ConvergenceWarning: If ``"converged"`` did not reach the tolerance.
    """
    settings = Settings(epsilon, mode, scaling, diameter, tolerance, max_iters, max_memory)
    return _sinkhorn(x, y, x_weights, y_weights, settings, y_self).value


def sinkhorn(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    mode: str = "converged",
    scaling: float = 0.5,
    diameter: float | None = None,
    tolerance: float = 1e-6,
    max_iters: int = 5000,
    max_memory: float = 1e9,
    y_self: SelfTransport | None = None,
) -> SinkhornResult:
    """The divergence of :func:`sinkhorn_divergence`, with the same arguments, potentials and a record.

    Potentials are constants for autograd. In ``"annealed"`` mode the error is that of the plan before the
    last update, and there is no warning.
    """
    settings = Settings(epsilon, mode, scaling, diameter, tolerance, max_iters, max_memory)
    return _sinkhorn(x, y, x_weights, y_weights, settings, y_self)


def _sinkhorn(
    x: Tensor,
    y: Tensor,
    x_weights: Tensor | None,
    y_weights: Tensor | None,
    settings: Settings,
    y_self: SelfTransport | None,
) -> SinkhornResult:
    check_points(x, "x")
    check_points(y, "y")
    check_pair(x, y)
    a, b = check_weights(x_weights, x, "x_weights"), check_weights(y_weights, y, "y_weights")
    if y_self is not None:
        check_self_transport(y_self, y, b, settings)
    inputs = [x, y, x_weights, y_weights]
    needed = [torch.is_grad_enabled() and one is not None and one.requires_grad for one in inputs]
    with torch.no_grad():
        solutions = _solutions(x, y, a, b, settings, y_self, needed[0], needed[1])
        potentials = Potentials(solutions[0].f, solutions[0].g, solutions[1].f, solutions[2].f)
        x_slope, y_slope = potentials.x - potentials.x_self, potentials.y - potentials.y_self
        # Not as products of vectors, which autocast would take in half precision.
        value = (a * x_slope).sum() + (b * y_slope).sum()
        gradients = [*_point_gradients(x, y, a, b, *solutions), x_slope, y_slope]
    for one, gradient, wanted in zip(inputs, gradients, needed, strict=True):
        if wanted:
            value = _Envelope.apply(value, one, gradient)
    error = float(torch.stack([solution.error for solution in solutions]).max())
    converged = error < settings.tolerance
    if settings.mode == "converged" and not converged:
        warnings.warn(
            f"Sinkhorn stopped after max_iters={settings.max_iters} at the marginal error {error:.3g}, above "
            f"tolerance={settings.tolerance:g}; raise max_iters, tolerance or epsilon={settings.epsilon:g}.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return SinkhornResult(value, potentials, error, max(one.num_iters for one in solutions), converged)


def _solutions(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    settings: Settings,
    y_self: SelfTransport | None,
    x_grad: bool,
    y_grad: bool,
) -> tuple[Solution, Solution, Solution]:
    """The transports from x to y, x to x and y to y, with the means that gradients need."""
    centre, span = extent(x, y)
    epsilons = settings.epsilons(span, x.dtype)
    if span == 0:
        return resting(a, b), resting(a, a), resting(b, b)
    x, y = x - centre, y - centre
    cross = transport(x, y, a, b, epsilons, settings, row_means=x_grad, col_means=y_grad)
    of_x = transport(x, None, a, a, epsilons, settings, row_means=x_grad)
    if y_self is not None:
        return cross, of_x, y_self.solution
    return cross, of_x, transport(y, None, b, b, epsilons, settings, row_means=y_grad)


def _point_gradients(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, cross: Solution, of_x: Solution, of_y: Solution
) -> tuple[Tensor | None, Tensor | None]:
    """Pull to where the plan between the sets moves a point, push from where the one within does."""

    def gradient(points: Tensor, weights: Tensor, within: Tensor | None, between: Tensor | None) -> Tensor:
        if within is None or between is None:  # all points coincide, or nobody asks
            return torch.zeros_like(points)
        return weights[:, None] * (within - between)

    return gradient(x, a, of_x.row_means, cross.row_means), gradient(y, b, of_y.row_means, cross.col_means)


class _Envelope(torch.autograd.Function):
    """A known value with a known gradient, which is all that is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient.to(inputs.dtype))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return upstream, upstream * gradient, None


class _CallableModule(types.ModuleType):
    __call__ = staticmethod(sinkhorn)


# The package exports the function under the name of this module, which stands in its place once imported.
sys.modules[__name__].__class__ = _CallableModule
