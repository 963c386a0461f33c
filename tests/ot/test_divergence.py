"""The debiased Sinkhorn divergence."""

from __future__ import annotations

import math
import warnings
from typing import Any

import ot
import pytest
import torch
from torch import Tensor

from seqdyn.datasets import hmm as processes
from seqdyn.errors import ConvergenceWarning
from seqdyn.ot import sinkhorn, sinkhorn_divergence
from seqdyn.ot.categorical import divergence
from seqdyn.ot.costs import Plan

X = torch.tensor([(0, 0), (1, 0), (0, 2), (1.5, 1)], dtype=torch.float64)
Y = torch.tensor([(0.5, 0.5), (2, 0), (0, 1), (1, 3), (2, 2)], dtype=torch.float64)
EPSILONS = (0.04, 0.25, 1.0, 4.0)


def cloud(size: int, seed: int, dim: int = 3) -> Tensor:
    return torch.randn(size, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(size: int, seed: int) -> Tensor:
    values = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1
    return values / values.sum()


# Values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epsilon", "value"), zip(EPSILONS, (0.56225746, 0.48381742, 0.36534955, 0.28707636), strict=True)
)
def test_s2_converged_values(epsilon: float, value: float) -> None:
    found = sinkhorn(X, Y, epsilon=epsilon, tolerance=1e-9)

    assert float(found.value) == pytest.approx(value, abs=1e-7)
    assert found.converged and found.error < 1e-9


@pytest.mark.parametrize(
    ("epsilon", "value"), zip(EPSILONS, (0.42785490, 0.42956499, 0.36238591, 0.28696907), strict=True)
)
def test_s3_annealed_values(epsilon: float, value: float) -> None:
    found = sinkhorn(X, Y, epsilon=epsilon, mode="annealed", scaling=0.5)

    assert float(found.value) == pytest.approx(value, abs=1e-7)
    assert not found.converged


def test_the_published_schedule_has_nine_values_of_epsilon() -> None:
    # 100 steps of 3 symbols, a diameter of the root of 300, down to a blur of 0.2; and the last update.
    points = torch.eye(300, dtype=torch.float64)

    assert sinkhorn(points[:150], points[150:], epsilon=0.04, mode="annealed").num_iters == 9 + 1


@pytest.mark.parametrize("epsilon", [0.5, 5.0])
def test_potentials_are_those_of_another_library(epsilon: float) -> None:
    a, b = weights(12, 2), weights(9, 3)
    x, y = cloud(12, 0), cloud(9, 1)

    found = sinkhorn(x, y, epsilon=epsilon, x_weights=a, y_weights=b, tolerance=1e-10)

    def cost(one: Tensor, other: Tensor, left: Tensor, right: Tensor) -> float:
        matrix = torch.cdist(one, other).square().numpy() / 2
        plan = ot.bregman.sinkhorn_log(
            left.numpy(), right.numpy(), matrix, epsilon, numItermax=100_000, stopThr=1e-9
        )
        product = left.numpy()[:, None] * right.numpy()
        positive = plan > 0
        entropy = (plan[positive] * torch.from_numpy(plan[positive] / product[positive]).log().numpy()).sum()
        return float((plan * matrix).sum() + epsilon * entropy)

    expected = cost(x, y, a, b) - cost(x, x, a, a) / 2 - cost(y, y, b, b) / 2
    assert float(found.value) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mode", ["converged", "annealed"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_s1_of_a_set_and_itself_it_is_zero_and_it_is_symmetric(epsilon: float, mode: str) -> None:
    x, y = cloud(15, 0), cloud(11, 1)

    assert float(sinkhorn(x, x, epsilon=epsilon, mode=mode).value) == pytest.approx(0, abs=1e-6)
    there, back = (float(sinkhorn(*pair, epsilon=epsilon, mode=mode).value) for pair in ((x, y), (y, x)))
    assert there == pytest.approx(back, abs=1e-6) and there > -1e-6


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 20.0])
def test_of_a_translated_cloud_it_is_half_the_squared_shift(epsilon: float) -> None:
    # Exact for every epsilon: a shift v adds |v|²/2 to the transport between the clouds, nothing to the
    # others.
    shift = torch.tensor([0.3, -1.2, 0.5], dtype=torch.float64)

    value = sinkhorn_divergence(cloud(40, 0), cloud(40, 0) + shift, epsilon=epsilon)

    torch.testing.assert_close(value, 0.5 * shift.square().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_origin_it_is_the_same(dtype: torch.dtype) -> None:
    x, y = cloud(30, 0).to(dtype), cloud(20, 1).to(dtype)

    near, far = (sinkhorn_divergence(x + s, y + s, epsilon=0.5) for s in (0.0, 256.0))

    torch.testing.assert_close(near, far, rtol=1e-4, atol=0)
    assert near.dtype == dtype


def test_weights_are_repeated_points() -> None:
    x = cloud(6, 0)
    counts = torch.tensor([1, 3, 2, 1, 1, 2])
    repeated = x.repeat_interleave(counts, dim=0)

    heavy = sinkhorn_divergence(x, cloud(8, 1), epsilon=0.3, x_weights=counts.double() / 10)

    torch.testing.assert_close(
        heavy, sinkhorn_divergence(repeated, cloud(8, 1), epsilon=0.3), rtol=1e-5, atol=0
    )


def test_a_point_without_weight_does_not_count() -> None:
    x, far = cloud(6, 0), torch.full((1, 3), 50.0, dtype=torch.float64)
    uniform = torch.tensor([1 / 6] * 6 + [0.0], dtype=torch.float64)

    value = sinkhorn_divergence(torch.cat([x, far]), cloud(8, 1), epsilon=0.3, x_weights=uniform)

    torch.testing.assert_close(value, sinkhorn_divergence(x, cloud(8, 1), epsilon=0.3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("mode", ["converged", "annealed"])
def test_if_all_points_coincide_it_is_zero_without_gradient(mode: str) -> None:
    x = torch.ones(5, 2, requires_grad=True)

    value = sinkhorn_divergence(x, torch.ones(3, 2), epsilon=0.1, mode=mode)
    value.backward()

    assert float(value) == 0 and x.grad is not None and torch.equal(x.grad, torch.zeros(5, 2))


def test_on_one_hot_sequences_it_is_the_divergence_of_sequences() -> None:
    hmm = processes.preset("three")
    x, y = (
        torch.nn.functional.one_hot(torch.from_numpy(hmm.sequences(60, 8, seed).symbol.values), 3).double()
        for seed in (0, 1)
    )

    general = sinkhorn(x.flatten(1), y.flatten(1), epsilon=0.7, tolerance=1e-9).value

    torch.testing.assert_close(divergence(x, y, epsilon=0.7, tolerance=1e-9), general, rtol=1e-6, atol=1e-8)


# Gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.2, 2.0])
def test_s1_the_gradient_is_that_of_central_differences(epsilon: float) -> None:
    points = [cloud(5, 0).requires_grad_(), cloud(4, 1).requires_grad_()]
    a, b = weights(5, 2), weights(4, 3)

    def value(x: Tensor, y: Tensor) -> Tensor:
        return sinkhorn_divergence(x, y, epsilon=epsilon, x_weights=a, y_weights=b, tolerance=1e-12)

    assert torch.autograd.gradcheck(value, points, eps=1e-4, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_the_weights_is_a_difference_of_potentials() -> None:
    a = weights(5, 0).requires_grad_()
    other = weights(5, 1)

    sinkhorn_divergence(cloud(5, 0), cloud(4, 1), epsilon=0.5, x_weights=a, tolerance=1e-12).backward()

    def value(step: float) -> float:
        shifted = (1 - step) * a.detach() + step * other
        return float(
            sinkhorn_divergence(cloud(5, 0), cloud(4, 1), epsilon=0.5, x_weights=shifted, tolerance=1e-12)
        )

    assert a.grad is not None
    slope = (value(1e-4) - value(-1e-4)) / 2e-4
    assert float(a.grad @ (other - a.detach())) == pytest.approx(slope, rel=1e-5)


def test_the_grad_mode_is_left_as_it_was() -> None:
    for mode in ("converged", "annealed"):
        with torch.no_grad():
            assert not sinkhorn_divergence(cloud(5, 0), cloud(4, 1), epsilon=0.5, mode=mode).requires_grad
            assert not torch.is_grad_enabled()
        sinkhorn(cloud(5, 0), cloud(4, 1), epsilon=0.5, mode=mode)
        assert torch.is_grad_enabled()


# How it computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["converged", "annealed"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_costs_that_are_computed_anew_give_the_same(mode: str, symmetric: bool) -> None:
    x, y = cloud(700, 0), cloud(700 if symmetric else 500, 1)  # several blocks
    results = []
    for max_memory in (1e9, 1.0):
        z = x.clone().requires_grad_()
        value = sinkhorn_divergence(z, y, epsilon=0.3, mode=mode, max_memory=max_memory)
        value.backward()
        results.append((value.detach(), z.grad))

    for kept, computed in zip(*results, strict=True):
        torch.testing.assert_close(computed, kept, rtol=1e-5, atol=1e-9)


def test_sums_of_blocks_are_sums_of_the_whole_plan() -> None:
    x, y, f, g = cloud(700, 0), cloud(600, 1), cloud(700, 2, 1)[:, 0], cloud(600, 3, 1)[:, 0]
    a, b = weights(700, 4), weights(600, 5)
    entries = ((f[:, None] + g - torch.cdist(x, y).square() / 2) / 0.7).exp()
    within = ((f[:, None] + f - torch.cdist(x, x).square() / 2) / 0.7).exp()

    by_row, by_column = Plan(x, y, a, b, keep=True).sums(f, g, 0.7)
    own, _ = Plan(x, None, a, a, keep=False).sums(f, f, 0.7)

    torch.testing.assert_close(by_row, entries @ b)
    torch.testing.assert_close(by_column, a @ entries)
    torch.testing.assert_close(own, within @ a, rtol=1e-6, atol=0)
    plan = Plan(x, y, a, b, keep=True)
    torch.testing.assert_close(plan.softmin(g, 0.7), f - 0.7 * by_row.log())
    torch.testing.assert_close(plan.transposed().softmin(f, 0.7), g - 0.7 * by_column.log())
    torch.testing.assert_close(plan.barycentres(g, 0.7), (entries * b) @ y / by_row[:, None])


def test_where_the_quick_sums_leave_the_numbers_the_result_is_still_right() -> None:
    # Two clouds a thousand blurs apart: exponents of -1e6 in either precision.
    x, y = cloud(20, 0), cloud(20, 1) + 100

    annealed = [
        sinkhorn(x.to(d), y.to(d), epsilon=0.01, mode="annealed").value
        for d in (torch.float32, torch.float64)
    ]

    assert float(annealed[0]) == pytest.approx(float(annealed[1]), rel=1e-5)
    assert float(annealed[1]) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum()) / 2, rel=1e-3)


def test_without_convergence_it_warns_with_the_remedy() -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"stopped after \d+ updates with marginals off by .* raise max_iters"
    ) as w:
        found = sinkhorn(X, Y, epsilon=0.04, max_iters=3)

    assert not found.converged and found.error > 1e-6
    assert w[0].filename == __file__


# The bias of finite sets ------------------------------------------------------------------------------------


def chain(crossing: float, num_states: int) -> processes.HMM:
    return processes.linear_chain(num_states, crossing ** (num_states - 1))


@pytest.mark.parametrize(
    ("num_states", "num_steps", "candidates", "best"),
    [(2, 100, (0.03, 0.04, 0.05, 0.06, 0.07), 2), (3, 30, (0.14, 0.18, 0.2236, 0.27, 0.32), 2)],
)
def test_s4_a_large_blur_has_its_minimum_at_the_truth_and_a_small_one_below(
    num_states: int, num_steps: int, candidates: tuple[float, ...], best: int
) -> None:
    size, draws, seeds = 512, 4, iter(range(1000))

    def one_hot(hmm: processes.HMM) -> Tensor:
        drawn = torch.from_numpy(hmm.sequences(size, num_steps, next(seeds)).symbol.values)
        return torch.nn.functional.one_hot(drawn, 3).float().flatten(1)

    def values(epsilon: float, mode: str) -> list[float]:
        truth = processes.linear_chain(num_states)
        return [
            sum(
                float(
                    sinkhorn(one_hot(chain(q, num_states)), one_hot(truth), epsilon=epsilon, mode=mode).value
                )
                for _ in range(draws)
            )
            / draws
            for q in candidates
        ]

    small, large = values(0.04, "annealed"), values({2: 3.71, 3: 2.03}[num_states] ** 2, "converged")

    assert small[0] < small[best]
    assert min(range(5), key=large.__getitem__) == best


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X[0], {}, r"x must be a tensor of points \(N, D\), got \(2,\)"),
        (X.numpy(), {}, "got ndarray"),
        (X.long(), {}, r"floating-point numbers, got torch.int64; type x.float\(\)"),
        (torch.cat([X, X[:1] * math.nan]), {}, "1 points with NaN or infinity, the first is 4"),
        (X.float(), {}, r"agree in dimension and precision.*y.to\(x.dtype\)"),
        (X[:, :1], {}, "got 1 and 2"),
        (X, {"epsilon": 0.0}, "epsilon must be a positive number, got 0.0"),
        (X, {"diameter": -1.0}, "diameter must be a positive number"),
        (X, {"mode": "quick"}, "mode must be one of"),
        (X, {"scaling": 1.0}, "scaling must lie between 0 and 1"),
        (X, {"max_iters": 0}, "max_iters must be a whole number"),
        (
            X,
            {"x_weights": torch.ones(4)},
            r"sum to one, got a sum of 4 .* type x_weights / x_weights.sum\(\)",
        ),
        (X, {"x_weights": torch.tensor([1.5, -0.5, 0, 0])}, "smallest one of -0.5"),
        (X, {"y_weights": torch.ones(4) / 4}, "one weight for each of 5 points"),
    ],
)
def test_what_makes_no_sense_is_refused(x: Any, options: dict[str, Any], message: str) -> None:
    for function in (sinkhorn, sinkhorn_divergence):
        with pytest.raises(ValueError, match=message), warnings.catch_warnings():
            function(x, Y, **{"epsilon": 0.1, **options})
