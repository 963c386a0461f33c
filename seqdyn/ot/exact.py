r"""Exact optimal transport through POT, and displacement interpolation along its plan.

.. math::
    \min_{P \ge 0} \sum_{ij} P_{ij} c_{ij} \quad\text{with}\quad \sum_j P_{ij} = a_i, \; \sum_i P_{ij} = b_j

Arrays go in and come out as NumPy, in float64: the network simplex runs there, and no gradient passes.
Tensors and lists are taken too.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from seqdyn._arguments import check_count
from seqdyn.errors import ConvergenceWarning
from seqdyn.ot._clouds import as_array, as_pair, as_weights, squared_distances

__all__ = ["displacement", "exact_cost", "exact_plan"]

_LARGEST = 1e300  # beyond it differences of costs overflow
_MARGINAL_TOLERANCE = 1e-6


def exact_plan(cost: Any, a: Any = None, b: Any = None, *, max_iters: int = 10_000_000) -> np.ndarray:
    """Find the cheapest plan that carries one set of weights to another.

    Args:
        cost: Cost of each pair, (N, M), of any sign and scale; as exact as float64 allows while the costs
            that matter are no smaller than 1e-15 of the largest.
        a: Weights of the rows, (N,), with the sum 1; equal ones by default.
        b: Weights of the columns, (M,), likewise.
        max_iters: Bound on the pivots of the network simplex.

    Returns:
        The plan P, (N, M), with the marginals a and b; at most N + M - 1 entries are not 0.

    Raises:
        ValueError: If there is no row or column, a cost is not finite, or weights do not fit.
        RuntimeError: If the solver found no plan with these marginals.

    Warns:
        ConvergenceWarning: If it stopped at ``max_iters`` with a plan that may be dearer than the best.
    """
    cost = _as_cost(cost)
    max_iters = check_count(max_iters, "max_iters")
    a = as_weights(a, cost.shape[0], "a", sum_to_one=True)
    b = as_weights(b, cost.shape[1], "b", sum_to_one=True)
    plan, trouble = _solve(_reduced(cost), a, b, max_iters)
    error = max(np.abs(plan.sum(axis=1) - a).max(), np.abs(plan.sum(axis=0) - b).max())
    limited = f"raise max_iters={max_iters}, or draw fewer particles"
    if not error <= _MARGINAL_TOLERANCE:
        raise RuntimeError(
            f"exact transport ended with marginals wrong by {error:.3g} ({trouble or 'no reason given'}); "
            f"{limited}."
        )
    if trouble is not None:
        warnings.warn(
            f"exact transport stopped before the best plan ({trouble}); {limited}.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return plan


def exact_cost(cost: Any, a: Any = None, b: Any = None, *, max_iters: int = 10_000_000) -> float:
    """Return the cost of :func:`exact_plan`, with the same arguments and errors, in the units of ``cost``."""
    return float((exact_plan(cost, a, b, max_iters=max_iters) * as_array(cost, "cost")).sum())


def displacement(
    x: Any, y: Any, fraction: float, x_weights: Any = None, y_weights: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Interpolate between two clouds along straight lines: the shortest path in 2-Wasserstein distance.

    .. math:: \sum_{ij} P_{ij}\, \delta\big((1 - s)\, x_i + s\, y_j\big)

    with the exact plan P for squared Euclidean costs.

    Args:
        x: Cloud at s = 0, (N, C).
        y: Cloud at s = 1, (M, C).
        fraction: The time s between them, from 0 to 1.
        x_weights: Non-negative weights of x, (N,), divided by their sum; equal ones by default.
        y_weights: The same of y, (M,).

    Returns:
        Points, (K, C), and their weights, (K,), with the sum 1. Inside K counts the pairs with mass, N if
        all weights are equal and N = M, at most N + M - 1; at s = 0 and s = 1 they are x and y themselves.

    Raises:
        ValueError: If the clouds or weights do not fit, or ``fraction`` is outside [0, 1].

    Source: McCann (1997).
    """
    x, y = as_pair(x, y)
    a, b = as_weights(x_weights, len(x), "x_weights"), as_weights(y_weights, len(y), "y_weights")
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"fraction must lie between 0 (x) and 1 (y), got {fraction}; the line ends at both clouds."
        )
    if fraction == 0:
        return x, a
    if fraction == 1:
        return y, b
    plan = exact_plan(squared_distances(x, y), a, b)
    i, j = np.nonzero(plan)
    return (1 - fraction) * x[i] + fraction * y[j], plan[i, j] / plan[i, j].sum()


def _as_cost(cost: Any) -> np.ndarray:
    cost = as_array(cost, "cost")
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(
            f"cost must have shape (N, M), both at least 1, got {cost.shape}; without points on both sides "
            "there is nothing to carry."
        )
    bad = ~(np.abs(cost) <= _LARGEST)  # NaN included
    if bad.any():
        i, j = (int(k) for k in np.unravel_index(int(bad.argmax()), bad.shape))
        raise ValueError(
            f"cost has {bad.sum()} of {bad.size} entries that are NaN, infinite or beyond {_LARGEST:g} "
            f"(first at cost[{i}, {j}]: {cost[i, j]}); look at the points {i} and {j}, and forbid a pair "
            "with a cost that is finite, some thousand times the largest."
        )
    return cost


def _reduced(cost: np.ndarray) -> np.ndarray:
    """Costs with the same best plan, from 0 to 1.

    POT takes reduced costs below about 1e-16 for 0 whatever the scale, and gives up on negative costs. What
    a row or column costs in any case changes no plan; without it small costs survive beside a far point.
    """
    cost = cost - cost.min(axis=1, keepdims=True)
    cost -= cost.min(axis=0)
    largest = cost.max()
    return cost / largest if largest > 0 else cost


def _solve(cost: np.ndarray, a: np.ndarray, b: np.ndarray, max_iters: int) -> tuple[np.ndarray, str | None]:
    import ot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it comes back in the record
        plan, record = ot.emd(a, b, np.ascontiguousarray(cost), numItermax=max_iters, log=True)
    return plan, record["warning"]
