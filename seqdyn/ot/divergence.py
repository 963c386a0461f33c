r"""The debiased Sinkhorn divergence between two weighted sets of points.

With :math:`C(x, y) = |x - y|^2 / 2` and the relative entropy taken to the product of the weights,

.. math::
    \mathrm{OT}_\varepsilon(\alpha, \beta) = \min_P \langle P, C \rangle
    + \varepsilon \mathrm{KL}(P \| a \otimes b) = \langle a, f \rangle + \langle b, g \rangle

    S_\varepsilon(\alpha, \beta) = \mathrm{OT}_\varepsilon(\alpha, \beta)
    - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta)
    = \langle a, f_{xy} - f_{xx} \rangle + \langle b, g_{xy} - g_{yy} \rangle

at the solution. Its gradient needs no differentiation of the iteration (envelope theorem): a point is drawn
to the points of y that it is matched to, and away from those of x,

.. math::
    \partial S / \partial x_i = a_i \left( \sum_k v_{ik} x_k - \sum_j w_{ij} y_j \right),

with the rows v, w of the two plans. Other libraries call the transport cost alone a Sinkhorn divergence, or
take the squared distance without the half.

Source: Feydy et al. (2019), arXiv 1810.08278; the annealed schedule is that of Torre et al. (2025), arXiv
2510.25674.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.errors import ConvergenceWarning
from seqdyn.ot.costs import Plan

__all__ = ["SinkhornResult", "sinkhorn", "sinkhorn_divergence"]

MODES = ("converged", "annealed")
_CHECK_EVERY = 5
_ABSORB = 30.0  # logarithm of a scaling above which it goes into the potentials


class SinkhornResult(NamedTuple):
    """What :func:`sinkhorn` found.

    Attributes:
        value: The divergence, scalar.
        x_potential: Potential f of x against y, (N,).
        y_potential: Potential g of y against x, (M,).
        x_self: Potential of x against itself, (N,).
        y_self: Potential of y against itself, (M,).
        error: Largest relative deviation of a marginal of the three plans.
        num_iters: Updates of all potentials.
        converged: Whether ``error`` is below the tolerance; always false in the annealed mode, which stops
            after a fixed schedule.
    """

    value: Tensor
    x_potential: Tensor
    y_potential: Tensor
    x_self: Tensor
    y_self: Tensor
    error: Tensor
    num_iters: int
    converged: bool


def sinkhorn_divergence(x: Tensor, y: Tensor, *, epsilon: float, **options: Any) -> Tensor:
    """The divergence, differentiable in both sets of points and their weights.

    Args:
        x: Points (N, D).
        y: Points (M, D).
        epsilon: Regularisation, in units of the cost; the square of what is called blur.
        **options: Of :func:`sinkhorn`.

    Returns:
        Scalar, in the precision of the points.

    Raises:
        ValueError: As :func:`sinkhorn`.

    Warns:
        ConvergenceWarning: As :func:`sinkhorn`.
    """
    settings = _Settings(epsilon=epsilon, **options)
    points = _checked(x, y, settings)
    with torch.no_grad():
        found = _solve(_Problem(*(part.detach() for part in points)), settings)
        gradients = _gradients(points, found, settings)
    _warn_unless_converged(found.result, settings)
    return _Envelope.apply(found.result.value, gradients, *points)


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
    tolerance: float | None = None,
    max_iters: int = 10_000,
    max_memory: float = 1e9,
) -> SinkhornResult:
    """Potentials and value of the divergence, without gradient.

    Args:
        x: Points (N, D).
        y: Points (M, D).
        epsilon: Regularisation, in units of the cost.
        x_weights: Weights of x that sum to one, (N,); equal ones by default.
        y_weights: Weights of y, (M,).
        mode: ``"converged"``, or ``"annealed"``: the published short schedule, which is not converged.
        scaling: Factor of the blur from step to step of the annealing.
        diameter: Where the annealing starts; by default the norm of the ranges of all coordinates.
        tolerance: Largest relative deviation of a marginal at which to stop; by default 1e-6 in double and
            1e-5 in single precision.
        max_iters: Most updates in the converged mode, after the annealing.
        max_memory: Bytes that matrices of costs may take; beyond, they are computed anew block by block and
            memory is linear in the number of points.

    Returns:
        The potentials, the value and the record of the iteration.

    Raises:
        ValueError: If points or weights are malformed or an option is out of range.

    Warns:
        ConvergenceWarning: If the converged mode stops above the tolerance.
    """
    settings = _Settings(
        epsilon, x_weights, y_weights, mode, scaling, diameter, tolerance, max_iters, max_memory
    )
    with torch.no_grad():
        result = _solve(_checked(x, y, settings), settings).result
    _warn_unless_converged(result, settings)
    return result


class _Settings(NamedTuple):
    """Options of a call."""

    epsilon: float
    x_weights: Tensor | None = None
    y_weights: Tensor | None = None
    mode: str = "converged"
    scaling: float = 0.5
    diameter: float | None = None
    tolerance: float | None = None
    max_iters: int = 10_000
    max_memory: float = 1e9


class _Problem(NamedTuple):
    """Checked points and weights."""

    x: Tensor
    y: Tensor
    x_weights: Tensor
    y_weights: Tensor


class _Solution(NamedTuple):
    """A result, and the plans and potentials that its gradient is taken from."""

    result: SinkhornResult
    plans: tuple[Plan, Plan, Plan]
    entering: tuple[Tensor, Tensor, Tensor, Tensor]


class _Envelope(torch.autograd.Function):
    """A value with given gradients with respect to points and weights; keeps those and nothing else."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *points: Tensor) -> Tensor:
        ctx.known = [gradient is not None for gradient in gradients]
        ctx.save_for_backward(*(gradient for gradient in gradients if gradient is not None))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        kept = iter(ctx.saved_tensors)
        return (None, None, *(outer * next(kept) if known else None for known in ctx.known))


def _gradients(points: _Problem, found: _Solution, settings: _Settings) -> list[Tensor | None]:
    """Gradients with respect to points and weights, of those that need one."""
    x, y, a, b = points
    (between, within_x, within_y), (f, g, f_self, g_self) = found.plans, found.entering
    result, epsilon = found.result, settings.epsilon
    gradients: list[Tensor | None] = [None] * 4
    if x.requires_grad:
        pull = within_x.barycentres(f_self, epsilon).sub_(between.barycentres(g, epsilon))
        gradients[0] = pull.mul_(a[:, None])
    if y.requires_grad:
        pull = within_y.barycentres(g_self, epsilon).sub_(between.transposed().barycentres(f, epsilon))
        gradients[1] = pull.mul_(b[:, None])
    if a.requires_grad:
        gradients[2] = result.x_potential - result.x_self
    if b.requires_grad:
        gradients[3] = result.y_potential - result.y_self
    return gradients


def _solve(problem: _Problem, settings: _Settings) -> _Solution:
    x, y, a, b = problem
    # A shift of both sets changes nothing, and costs are more exact near the origin.
    middle = b @ y
    x, y = x - middle, y - middle
    bytes_needed = (len(x) * len(y) + len(x) ** 2 + len(y) ** 2) * x.element_size()
    keep = bytes_needed <= settings.max_memory
    plans = Plan(x, y, a, b, keep), Plan(x, None, a, a, keep), Plan(y, None, b, b, keep)
    schedule = _schedule(x, y, settings)
    if not schedule:  # all points coincide
        zeros = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(a), torch.zeros_like(b)
        nothing = x.new_zeros(())
        done = SinkhornResult(
            nothing, *zeros, error=nothing, num_iters=0, converged=settings.mode == "converged"
        )
        return _Solution(done, plans, zeros)
    potentials = _anneal(plans, schedule)
    epsilon = settings.epsilon
    if settings.mode == "annealed":
        final, deviations = _update(plans, potentials, epsilon)
        count, error, converged = len(schedule) + 1, torch.stack([d.max() for d in deviations]).max(), False
        potentials, entering = final, potentials
    else:
        potentials, error, count, converged = _polish(plans, potentials, settings)
        entering, count = potentials, count + len(schedule)
    f, g, f_self, g_self = potentials
    value = a @ (f - f_self) + b @ (g - g_self)
    return _Solution(SinkhornResult(value, *potentials, error, count, converged), plans, entering)


Potentials = tuple[Tensor, Tensor, Tensor, Tensor]  # f of x, g of y, those of x and of y against themselves


def _schedule(x: Tensor, y: Tensor, settings: _Settings) -> list[float]:
    """Values of epsilon, from the squared diameter down; empty where all points coincide."""
    diameter = settings.diameter
    if diameter is None:
        ranges = torch.maximum(x.amax(0), y.amax(0)) - torch.minimum(x.amin(0), y.amin(0))
        diameter = float(ranges.norm())
    if diameter == 0:
        return []
    above, factor = [diameter**2], settings.scaling**2
    while above[-1] > settings.epsilon * (1 + 1e-12):
        above.append(above[-1] * factor)
    return [diameter**2, *above[:-1], settings.epsilon]


def _anneal(plans: tuple[Plan, Plan, Plan], schedule: list[float]) -> Potentials:
    """Averaged simultaneous updates, one at each epsilon."""
    between, within_x, within_y = plans
    zero_x, zero_y = torch.zeros_like(between.x_weights), torch.zeros_like(between.y_weights)
    potentials, _ = _update(plans, (zero_x, zero_y, zero_x, zero_y), schedule[0])
    for epsilon in schedule:
        new, _ = _update(plans, potentials, epsilon)
        f, g, f_self, g_self = ((one + other) / 2 for one, other in zip(potentials, new, strict=True))
        potentials = f, g, f_self, g_self
    return potentials


def _update(
    plans: tuple[Plan, Plan, Plan], potentials: Potentials, epsilon: float
) -> tuple[Potentials, list[Tensor]]:
    """Soft minima of all potentials at once, and by how much the marginals were off."""
    between, within_x, within_y = plans
    f, g, f_self, g_self = potentials
    (new_f, by_row), (new_g, by_column) = _both(between, f, g, epsilon)
    (new_f_self, by_x), _ = _both(within_x, f_self, f_self, epsilon)
    (new_g_self, by_y), _ = _both(within_y, g_self, g_self, epsilon)
    deviations = [(sums - 1).abs() for sums in (by_row, by_column, by_x, by_y)]
    return (new_f, new_g, new_f_self, new_g_self), deviations


def _both(
    plan: Plan, f: Tensor, g: Tensor, epsilon: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Soft minima for f and g with the marginals before them: by sums of the plan, or where these fail,
    safely.

    The sums of the plan share one exponential, but leave the numbers where a step of epsilon was too long. On
    an accelerator they are not tried, because to look at them would wait for it.
    """
    if not f.is_cuda:
        by_row, by_column = plan.sums(f, g, epsilon)
        if bool(_usable(by_row).all()) and bool(_usable(by_column).all()):
            return (f - epsilon * by_row.log(), by_row), (g - epsilon * by_column.log(), by_column)
    new_f = plan.softmin(g, epsilon)
    new_g = new_f if plan.symmetric else plan.transposed().softmin(f, epsilon)
    return (new_f, ((f - new_f) / epsilon).exp()), (new_g, ((g - new_g) / epsilon).exp())


def _usable(sums: Tensor) -> Tensor:
    # A sum of numbers near the smallest ones has lost its digits.
    return torch.isfinite(sums) & (sums > 1e4 * torch.finfo(sums.dtype).tiny)


def _polish(
    plans: tuple[Plan, Plan, Plan], potentials: Potentials, settings: _Settings
) -> tuple[Potentials, Tensor, int, bool]:
    """Iterate at the last epsilon until the marginals hold."""
    tolerance = _tolerance(settings, plans[0].x.dtype)
    f, g, f_self, g_self = potentials
    runs = [
        _balance(plan, *pair, settings, tolerance)
        for plan, pair in zip(plans, ((f, g), (f_self, f_self), (g_self, g_self)), strict=True)
    ]
    error, count = torch.stack([run.error for run in runs]).max(), max(run.num_iters for run in runs)
    return (runs[0].f, runs[0].g, runs[1].f, runs[2].f), error, count, bool(error < tolerance)


def _tolerance(settings: _Settings, dtype: torch.dtype) -> float:
    if settings.tolerance is not None:
        return settings.tolerance
    return 1e-6 if dtype == torch.float64 else 1e-5


def _warn_unless_converged(result: SinkhornResult, settings: _Settings) -> None:
    if result.converged or settings.mode == "annealed":
        return
    warnings.warn(
        f"Sinkhorn's iteration stopped after {result.num_iters} updates with marginals off by "
        f"{float(result.error):.2g}, the tolerance is {_tolerance(settings, result.value.dtype):.2g}; raise "
        "max_iters, tolerance or epsilon.",
        ConvergenceWarning,
        stacklevel=3,
    )


class _Balanced(NamedTuple):
    f: Tensor
    g: Tensor
    error: Tensor
    num_iters: int


def _balance(plan: Plan, f: Tensor, g: Tensor, settings: _Settings, tolerance: float) -> _Balanced:
    """Balance one plan; by scalings of its kernel where that may be kept, else by soft minima."""
    if plan.kept:
        found = _balance_kernel(plan, f, g, settings, tolerance)
        if bool(torch.isfinite(found.f).all()) and bool(torch.isfinite(found.g).all()):
            return found
    epsilon, error, count = settings.epsilon, f.new_tensor(math.inf), 0
    for count in range(1, settings.max_iters + 1):  # noqa: B007 (it is returned)
        if plan.symmetric:
            new = plan.softmin(f, epsilon)
            error = ((f - new) / epsilon).expm1().abs().max()
            f = g = (f + new) / 2
        else:
            g = plan.transposed().softmin(f, epsilon)
            new = plan.softmin(g, epsilon)
            error, f = ((f - new) / epsilon).expm1().abs().max(), new
        if bool(error < tolerance):
            break
    return _Balanced(f, g, error, count)


def _balance_kernel(plan: Plan, f: Tensor, g: Tensor, settings: _Settings, tolerance: float) -> _Balanced:
    epsilon, a, b = settings.epsilon, plan.x_weights, plan.y_weights
    kernel, left, right = plan.kernel(f, g, epsilon), torch.ones_like(a), torch.ones_like(b)
    error, count = f.new_tensor(math.inf), 0
    for count in range(1, settings.max_iters + 1):
        look = count % _CHECK_EVERY == 0 or count == settings.max_iters
        if plan.symmetric:
            sums = left * (kernel @ (a * left))
            error = (sums - 1).abs().max() if look else error
            left = right = left / sums.sqrt()
        else:
            left = (kernel @ (b * right)).reciprocal()
            columns = (a * left) @ kernel
            error = (right * columns - 1).abs().max() if look else error
            right = columns.reciprocal()
        if not look:
            continue
        if not bool(error >= tolerance):  # below, or not a number
            break
        if max(float(left.log().abs().max()), float(right.log().abs().max())) > _ABSORB:
            f, g = f + epsilon * left.log(), g + epsilon * right.log()
            kernel, left, right = plan.kernel(f, g, epsilon), torch.ones_like(a), torch.ones_like(b)
    return _Balanced(f + epsilon * left.log(), g + epsilon * right.log(), error, count)


def _checked(x: Tensor, y: Tensor, settings: _Settings) -> _Problem:
    for points, name in ((x, "x"), (y, "y")):
        if not isinstance(points, Tensor) or points.ndim != 2 or 0 in points.shape:
            found = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise ValueError(
                f"{name} must be a tensor of points (N, D), got {found}; sequences are flattened: "
                f"{name}.flatten(1)."
            )
        if not points.is_floating_point():
            raise ValueError(
                f"{name} must hold floating-point numbers, got {points.dtype}; type {name}.float()."
            )
        bad = ~torch.isfinite(points.detach()).all(dim=1)
        if bool(bad.any()):
            raise ValueError(
                f"{name} has {int(bad.sum())} points with NaN or infinity, the first is "
                f"{int(bad.int().argmax())}."
            )
    if x.shape[1] != y.shape[1] or x.dtype != y.dtype:
        raise ValueError(
            f"x and y must agree in dimension and precision, got {x.shape[1]} and {y.shape[1]}, {x.dtype} "
            f"and {y.dtype}; convert one: y.to(x.dtype)."
        )
    _check_settings(settings)
    weights = (
        _checked_weights(given, points, name)
        for given, points, name in (
            (settings.x_weights, x, "x_weights"),
            (settings.y_weights, y, "y_weights"),
        )
    )
    return _Problem(x, y, *weights)


def _checked_weights(weights: Tensor | None, points: Tensor, name: str) -> Tensor:
    if weights is None:
        return points.new_full((len(points),), 1 / len(points))
    if tuple(weights.shape) != (len(points),):
        raise ValueError(
            f"{name} must hold one weight for each of {len(points)} points, got {tuple(weights.shape)}."
        )
    values = weights.detach()
    if not bool((values >= 0).all()) or abs(float(values.double().sum()) - 1) > 1e-4:
        raise ValueError(
            f"{name} must be at least 0 and sum to one, got a sum of {float(values.double().sum()):.6g} and "
            f"a smallest one of {float(values.min()):.3g}; type {name} / {name}.sum()."
        )
    return weights.to(points)


def _check_settings(settings: _Settings) -> None:
    if settings.mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {settings.mode!r}.")
    for name in ("epsilon", "diameter", "tolerance", "max_memory"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}.")
    if not 0 < settings.scaling < 1:
        raise ValueError(f"scaling must lie between 0 and 1, got {settings.scaling!r}; 0.5 is usual.")
    check_count(settings.max_iters, "max_iters")
