"""One transport problem between points: its place, its memory, its solution; and targets to themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.ot._checks import check_points, check_weights
from seqdyn.ot.annealed import Solution, anneal
from seqdyn.ot.converged import converge
from seqdyn.ot.costs import Cost
from seqdyn.ot.plan import Problem
from seqdyn.ot.settings import Settings

__all__ = ["SelfTransport", "check_self_transport", "extent", "resting", "self_transport", "transport"]


class SelfTransport(NamedTuple):
    """The transport of targets to themselves, to be used with many x; made by :func:`self_transport`."""

    points: Tensor  # (M, D)
    weights: Tensor  # (M,)
    mode: str
    epsilons: tuple[float, ...]
    solution: Solution


def extent(*sets: Tensor) -> tuple[Tensor, float]:
    """Middle of the ranges of all coordinates, (D,), and the Euclidean norm of the ranges.

    Costs are computed from points about the middle: it loses no digits to a common offset, and one-hot
    points stay exact.
    """
    low = torch.stack([points.amin(dim=0) for points in sets]).amin(dim=0)
    high = torch.stack([points.amax(dim=0) for points in sets]).amax(dim=0)
    return low / 2 + high / 2, float((high.double() - low.double()).norm())


def transport(
    x: Tensor,
    y: Tensor | None,
    a: Tensor,
    b: Tensor,
    epsilons: tuple[float, ...],
    settings: Settings,
    *,
    row_means: bool = False,
    col_means: bool = False,
) -> Solution:
    """Solve the problem between x and y, or, without y, between x and itself."""
    entries = len(x) * len(y) if y is not None else len(x) * (len(x) + 1) // 2
    fit = settings.max_memory / (entries * x.element_size())  # matrices that may be kept
    if settings.mode == "annealed":
        problem = Problem(Cost(x, y, keep=fit >= 1), a, b)
        return anneal(problem, epsilons, row_means=row_means, col_means=col_means)
    # The kernel is read in every iteration, costs only now and then.
    return converge(
        Problem(Cost(x, y, keep=fit >= 2), a, b),
        epsilons,
        tolerance=settings.tolerance,
        max_iters=settings.max_iters,
        keep=fit >= 1,
        row_means=row_means,
        col_means=col_means,
    )


def resting(a: Tensor, b: Tensor) -> Solution:
    """The transport between points that all coincide."""
    return Solution(torch.zeros_like(a), torch.zeros_like(b), None, None, a.new_zeros(()), 0)


def self_transport(
    y: Tensor,
    *,
    epsilon: float,
    y_weights: Tensor | None = None,
    mode: str = "converged",
    scaling: float = 0.5,
    diameter: float | None = None,
    tolerance: float = 1e-6,
    max_iters: int = 5000,
    max_memory: float = 1e9,
) -> SelfTransport:
    """Transport targets to themselves once, to compare them with many x.

    Arguments as in :func:`seqdyn.ot.sinkhorn_divergence`, which takes the result as ``y_self`` and must be
    given the same ones. The schedule of ``"annealed"`` starts at a diameter that x takes part in, so that
    ``diameter`` must be given there.

    Raises:
        ValueError: As there, and if ``diameter`` is missing.
    """
    settings = Settings(epsilon, mode, scaling, diameter, tolerance, max_iters, max_memory)
    check_points(y, "y")
    weights = check_weights(y_weights, y, "y_weights")
    if mode == "annealed" and diameter is None:
        raise ValueError(
            "the annealed schedule starts at the diameter of x and y together; type diameter= here and in "
            "sinkhorn_divergence, for one-hot sequences diameter=y.shape[1]**0.5."
        )
    with torch.no_grad():
        centre, span = extent(y)
        epsilons = settings.epsilons(span, y.dtype)
        solution = (
            transport(y - centre, None, weights, weights, epsilons, settings)
            if span > 0
            else resting(weights, weights)
        )
    return SelfTransport(y.detach().clone(), weights, mode, epsilons, solution)


def check_self_transport(known: SelfTransport, y: Tensor, weights: Tensor, settings: Settings) -> None:
    """Check that a self-transport belongs to these targets and settings.

    Raises:
        ValueError: If it does not, or if targets need the gradient that it does not hold.
    """
    if torch.is_grad_enabled() and y.requires_grad:
        raise ValueError("y needs a gradient, which y_self does not hold; leave y_self out, or y.detach().")
    if not (
        known.points.shape == y.shape
        and known.points.dtype == y.dtype
        and known.points.device == y.device
        and torch.equal(known.points, y)
        and torch.equal(known.weights, weights)
    ):
        raise ValueError(
            "y_self belongs to other targets or weights; type y_self=self_transport(y, ...) anew."
        )
    if (known.mode, known.epsilons[-1]) != (settings.mode, settings.epsilon):
        raise ValueError(
            f"y_self was made with mode={known.mode!r}, epsilon={known.epsilons[-1]:g}, not with "
            f"mode={settings.mode!r}, epsilon={settings.epsilon:g}; type y_self=self_transport(y, ...) anew."
        )
    if settings.mode == "annealed" and (
        settings.diameter is None or known.epsilons != settings.epsilons(settings.diameter, y.dtype)
    ):
        raise ValueError(
            "y_self was made with another schedule; give the same diameter and scaling to self_transport and "
            f"here, diameter={known.epsilons[0] ** 0.5:.6g} for instance."
        )
