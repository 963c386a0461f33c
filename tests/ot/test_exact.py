"""Exact transport against linear programming and assignment, and where POT alone goes wrong in silence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from seqdyn.errors import ConvergenceWarning
from seqdyn.ot import displacement, exact_cost, exact_plan
from seqdyn.ot._clouds import squared_distances


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def linear_program(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Cost of the best plan by a general solver of linear programs."""
    n, m = cost.shape
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b])).fun


# The optimum ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, -50.0, 1e6], ids=["positive", "negative", "far above 0"])
@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1.0, 1e20, 1e200])
def test_the_optimum_of_a_linear_program_at_any_offset_and_scale(
    rng: np.random.Generator, shift: float, scale: float
) -> None:
    # POT stops early at costs below 1e-16, 2.6 times above the optimum, and finds negative ones infeasible.
    cost, a, b = rng.random((8, 11)), rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(11))
    best = linear_program(cost, a, b)

    plan = exact_plan((cost + shift) * scale, a, b)

    assert (plan * cost).sum() == pytest.approx(best, rel=1e-8)
    assert exact_cost((cost + shift) * scale, a, b) == pytest.approx((best + shift) * scale, rel=1e-8)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-12)
    assert np.count_nonzero(plan) <= 8 + 11 - 1


def test_equal_weights_give_an_assignment(rng: np.random.Generator) -> None:
    cost = rng.random((30, 30))

    plan = exact_plan(cost)

    rows, columns = np.nonzero(plan)
    np.testing.assert_array_equal(columns[np.argsort(rows)], linear_sum_assignment(cost)[1])
    np.testing.assert_allclose(plan[rows, columns], 1 / 30)


@pytest.mark.parametrize("distance", [1e3, 1e8])
def test_one_far_point_does_not_spoil_the_matches_of_the_others(
    rng: np.random.Generator, distance: float
) -> None:
    # Costs of order 1 beside one of 1e16: POT alone matches the near points four times too dearly.
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    x[0, 0] = distance
    cost = squared_distances(x, y)
    taken = int(cost[0].argmin())
    best = squared_distances(x[1:], np.delete(y, taken, axis=0))

    plan = exact_plan(cost)

    assert plan[0, taken] == pytest.approx(1 / 60)
    assert (plan[1:] * cost[1:]).sum() * 60 == pytest.approx(
        best[linear_sum_assignment(best)].sum(), rel=1e-9
    )


def test_equal_costs_allow_any_plan_with_the_marginals() -> None:
    plan = exact_plan(np.full((3, 2), 7.0), [0.2, 0.3, 0.5], [0.5, 0.5])

    np.testing.assert_allclose(plan.sum(axis=1), [0.2, 0.3, 0.5])
    np.testing.assert_allclose(plan.sum(axis=0), [0.5, 0.5])


def test_a_point_without_weight_stays_where_it_is(rng: np.random.Generator) -> None:
    cost = rng.random((4, 5))
    a = np.array([0.5, 0.0, 0.25, 0.25])

    plan = exact_plan(cost, a)

    assert not plan[1].any()
    np.testing.assert_allclose(plan[[0, 2, 3]], exact_plan(cost[[0, 2, 3]], a[[0, 2, 3]]), atol=1e-15)


def test_one_point_on_either_side() -> None:
    np.testing.assert_allclose(exact_plan([[3.0, 1.0]], None, [0.25, 0.75]), [[0.25, 0.75]])
    assert exact_cost([[3.0]]) == 3.0


def test_a_thousand_points_agree_with_pot(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(1000, 3)), rng.normal(size=(700, 3)) + 1
    cost = squared_distances(x, y)

    assert exact_cost(cost) == pytest.approx(ot.emd2([], [], cost, numItermax=10**7), rel=1e-12)


def test_tensors_of_either_precision(rng: np.random.Generator) -> None:
    cost = torch.from_numpy(rng.random((4, 6))).float().requires_grad_()
    weights = torch.full((4,), 0.25)

    plan = exact_plan(cost, weights)

    assert plan.dtype == np.float64
    np.testing.assert_allclose(plan, exact_plan(cost.detach().numpy().astype(np.float64)), atol=1e-15)


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (np.empty((0, 3)), r"shape \(N, M\), both at least 1, got \(0, 3\)"),
        (np.empty((3, 0)), r"got \(3, 0\)"),
        (np.zeros(3), r"got \(3,\)"),
        (
            [[0.0, np.nan], [np.inf, 1.0]],
            r"2 of 4 entries .* \(first at cost\[0, 1\]: nan\); look at the poi",
        ),
        (
            [[0.0, 1.0], [-np.inf, 1.0]],
            r"first at cost\[1, 0\]: -inf\).*forbid a pair with a cost that is fi",
        ),
        ([[0.0, 1e305]], r"beyond 1e\+300"),
        ([["0", "1"]], r"cost must hold real numbers, got dtype <U1"),
    ],
)
def test_costs_that_pot_would_swallow_are_refused(cost: Any, message: str) -> None:
    # An empty support ends the process, NaN gives a plausible plan, infinity an empty one.
    for function in (exact_plan, exact_cost):
        with pytest.raises(ValueError, match=message):
            function(cost)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        ([0.5, 0.25, 0.25], r"a must have shape \(2,\), one weight per particle, got \(3,\)"),
        ([1.5, -0.5], r"a must be finite and not negative, got -0.5 at a\[1\]; type np.clip\(a, 0, None\)"),
        ([np.nan, 1.0], r"not negative, got nan at a\[0\]"),
        ([np.inf, 1.0], r"not negative, got inf at a\[0\]"),
        ([0.5, 0.4], r"a must sum to 1, got 0.9; type a / a.sum\(\)"),
        ([0.0, 0.0], r"a are all 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(a: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_plan(np.ones((2, 2)), a)
    with pytest.raises(ValueError, match=message.replace("a must", "b must").replace("a are", "b are")[:12]):
        exact_plan(np.ones((2, 2)), None, a)


def test_a_plan_that_does_not_carry_the_weights_is_an_error(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=r"marginals wrong by .*numItermax reached.*raise max_iters=3"):
            exact_plan(rng.random((60, 80)), max_iters=3)

    monkeypatch.setattr(ot, "emd", lambda a, b, cost, **_: (np.zeros_like(cost), {"warning": None}))
    with pytest.raises(RuntimeError, match=r"marginals wrong by 0.25 \(no reason given\)"):
        exact_plan(np.ones((4, 4)))


def test_a_plan_short_of_the_best_comes_with_a_warning(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfinished(a: np.ndarray, b: np.ndarray, cost: np.ndarray, **_: Any) -> tuple[np.ndarray, dict]:
        return np.outer(a, b), {"warning": "numItermax reached before optimality."}

    monkeypatch.setattr(ot, "emd", unfinished)
    with pytest.warns(ConvergenceWarning, match="stopped before the best plan.*raise max_iters=10000000"):
        assert exact_cost(np.eye(2)) == pytest.approx(0.5)


@pytest.mark.parametrize("number", [0, 2.5, True, None])
def test_the_bound_on_iterations_is_a_count(number: Any) -> None:
    with pytest.raises(ValueError, match="max_iters must be a whole number of at least 1"):
        exact_plan(np.ones((2, 2)), max_iters=number)


# Displacement interpolation (T16) -------------------------------------------------------------------------


def test_both_ends_are_the_snapshots(rng: np.random.Generator) -> None:
    x, y, a = rng.normal(size=(5, 2)), rng.normal(size=(7, 2)), rng.random(5)

    for fraction, cloud, expected in ((0, x, a / a.sum()), (1.0, y, np.full(7, 1 / 7))):
        points, weights = displacement(x, y, fraction, x_weights=a)

        np.testing.assert_array_equal(points, cloud)
        np.testing.assert_allclose(weights, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_path_is_a_geodesic(rng: np.random.Generator, weighted: bool) -> None:
    # W2 from x to the point s of the path is s W2(x, y), and (1 - s) W2(x, y) from there to y.
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) + 1
    a, b = (rng.random(20), rng.random(30)) if weighted else (None, None)
    a_share, b_share = (w if w is None else w / w.sum() for w in (a, b))
    whole = exact_cost(squared_distances(x, y), a_share, b_share) ** 0.5

    points, weights = displacement(x, y, 0.3, a, b)

    assert len(points) == len(weights) <= 20 + 30 - 1
    assert weights.sum() == pytest.approx(1)
    to_x = exact_cost(squared_distances(x, points), a_share, weights) ** 0.5
    to_y = exact_cost(squared_distances(points, y), weights, b_share) ** 0.5
    assert (to_x, to_y) == (pytest.approx(0.3 * whole), pytest.approx(0.7 * whole))


def test_the_middle_of_a_shifted_cloud_is_the_cloud_shifted_by_half(rng: np.random.Generator) -> None:
    x, shift = rng.normal(size=(40, 2)), np.array([3.0, -1.0])

    points, weights = displacement(x, rng.permutation(x + shift), 0.5)

    np.testing.assert_allclose(points, x + shift / 2)
    np.testing.assert_allclose(weights, 1 / 40)


def test_the_mean_moves_on_a_line(rng: np.random.Generator) -> None:
    x, y, a = rng.normal(size=(6, 2)), rng.normal(size=(9, 2)) + 4, rng.random(6)
    start, end = a / a.sum() @ x, y.mean(axis=0)

    points, weights = displacement(x, y, 0.25, x_weights=a)

    np.testing.assert_allclose(weights @ points, 0.75 * start + 0.25 * end)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_time_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must lie between 0 \(x\) and 1 \(y\), got"):
        displacement(np.zeros((2, 1)), np.ones((2, 1)), fraction)


def test_clouds_that_cannot_be_joined_are_refused() -> None:
    with pytest.raises(ValueError, match="same features, got 1 and 2"):
        displacement(np.zeros((2, 1)), np.ones((2, 2)), 0.5)
    with pytest.raises(ValueError, match=r"y has 1 of 2 particles with NaN.*first at y\[1\]: \[nan\]"):
        displacement(np.zeros((2, 1)), np.array([[0.0], [np.nan]]), 0.5)
