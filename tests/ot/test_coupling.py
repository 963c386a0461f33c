"""The entropic coupling of finite measures, against Sinkhorn's iteration, linear programs and invariances."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize
from torch import Tensor

import seqdyn.ot.coupling as module
from seqdyn.errors import NonFiniteError
from seqdyn.ot.coupling import Coupling, couple, entropic_plan
from seqdyn.ot.exact import exact_plan


def weights(count: int, *, equal: bool = False) -> Tensor:
    """Random weights with the sum 1."""
    found = torch.ones(count).double() if equal else torch.rand(count, dtype=torch.float64) + 0.1
    return found / found.sum()


def solve(cost: Tensor, a: Tensor, b: Tensor, **options: object) -> tuple[Tensor, Coupling]:
    """Plan and record of one problem."""
    found = couple(cost[None], a[None], b[None], **options)
    return entropic_plan(cost, a, b, found.f[0], found.g[0]), found


def squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y).square()


def assert_marginals(plan: Tensor, a: Tensor, b: Tensor, tolerance: float = 1e-6) -> None:
    assert float((plan.sum(dim=1) - a).abs().sum()) < tolerance
    assert float((plan.sum(dim=0) - b).abs().sum()) < tolerance


@pytest.fixture
def clouds() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64) + 1
    return x, y, weights(30), weights(40)


@pytest.mark.parametrize(("sigma", "duration"), [(1.0, 1.0), (0.6, 0.5), (0.4, 2.0)])
def test_the_brownian_coupling_is_that_of_sinkhorns_iteration(
    clouds: tuple[Tensor, ...], sigma: float, duration: float
) -> None:
    x, y, a, b = clouds
    scale = sigma**2 * duration

    plan, found = solve(squares(x, y) / (2 * scale), a, b)

    expected = ot.sinkhorn(
        a.numpy(), b.numpy(), squares(x, y).numpy(), reg=2 * scale, method="sinkhorn_log",
        numItermax=50_000, stopThr=1e-12,
    )  # fmt: skip
    assert float((plan - torch.from_numpy(expected)).abs().sum()) < 1e-6
    assert_marginals(plan, a, b)
    assert found.f.dtype == torch.float64


def test_the_value_is_the_least_of_the_objective_over_all_plans() -> None:
    # Brute force: the objective as a function of the free entries of the plan.
    cost = 3 * torch.rand(3, 3, dtype=torch.float64)
    a, b = weights(3), weights(3)
    product = np.outer(a, b)

    def plan_of(free: np.ndarray) -> np.ndarray:
        plan = np.zeros((3, 3))
        plan[:2, :2] = free.reshape(2, 2)
        plan[:2, 2] = a[:2].numpy() - plan[:2].sum(axis=1)
        plan[2] = b.numpy() - plan[:2].sum(axis=0)
        return plan

    def objective(free: np.ndarray) -> float:
        plan = plan_of(free)
        if plan.min() <= 0:
            return 1e6
        return float((plan * cost.numpy() + plan * np.log(plan / product)).sum())

    best = minimize(objective, product[:2, :2].ravel(), method="Nelder-Mead", tol=1e-12)
    plan, found = solve(cost, a, b)

    assert float(found.value[0]) == pytest.approx(best.fun, abs=1e-8)
    np.testing.assert_allclose(plan.numpy(), plan_of(best.x), atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_value_is_that_of_the_plan(clouds: tuple[Tensor, ...], scale: float) -> None:
    x, y, a, b = clouds
    cost = scale * squares(x, y)

    plan, found = solve(cost, a, b)

    divergence = torch.special.xlogy(plan, plan / (a[:, None] * b)).sum()
    assert float(found.value[0]) == pytest.approx(float((plan * cost).sum() + divergence), rel=1e-8)


def test_a_batch_of_problems_of_several_sizes_is_each_alone() -> None:
    sizes = [(5, 9), (12, 3), (1, 7), (8, 1), (20, 20)]
    costs = [
        scale * torch.rand(n, m, dtype=torch.float64)
        for (n, m), scale in zip(sizes, (1, 50, 9, 3, 1e4), strict=True)
    ]
    a, b = [weights(n) for n, _ in sizes], [weights(m) for _, m in sizes]
    cost = torch.full((5, 20, 20), 7.0, dtype=torch.float64)  # what stands in the padding does not matter
    padded_a, padded_b = torch.zeros(5, 20).double(), torch.zeros(5, 20).double()
    for k, (n, m) in enumerate(sizes):
        cost[k, :n, :m], padded_a[k, :n], padded_b[k, :m] = costs[k], a[k], b[k]

    found = couple(cost, padded_a, padded_b)
    plans = entropic_plan(cost, padded_a, padded_b, found.f, found.g)

    for k, (n, m) in enumerate(sizes):
        alone, record = solve(costs[k], a[k], b[k])
        torch.testing.assert_close(plans[k, :n, :m], alone, rtol=0, atol=1e-8)
        assert float(plans[k].sum()) == pytest.approx(1, abs=1e-8)
        assert float(found.value[k]) == pytest.approx(float(record.value[0]), abs=1e-7)
    assert torch.isfinite(found.f).all() and torch.isfinite(found.g).all()


def test_particles_without_weight_get_nothing_and_change_nothing(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    a[3], b[[0, 5]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost = 20 * squares(x, y)
    kept, others = torch.arange(30) != 3, torch.tensor([i not in (0, 5) for i in range(40)])

    plan, _ = solve(cost, a, b)
    without, _ = solve(cost[kept][:, others], a[kept], b[others])

    assert float(plan[3].sum()) == float(plan[:, [0, 5]].sum()) == 0
    torch.testing.assert_close(plan[kept][:, others], without, rtol=0, atol=1e-9)


def test_a_particle_that_is_there_twice_shares_its_mass(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    twice = torch.cat([x, x])

    plan, found = solve(10 * squares(x, y), a, b)
    doubled, record = solve(10 * squares(twice, y), torch.cat([a, a]) / 2, b)

    torch.testing.assert_close(doubled[:30] + doubled[30:], plan, rtol=0, atol=1e-9)
    assert float(record.value[0]) == pytest.approx(float(found.value[0]), abs=1e-9)


def test_the_order_of_the_particles_does_not_matter(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    i, j = torch.randperm(30), torch.randperm(40)

    plan, _ = solve(30 * squares(x, y), a, b)
    permuted, _ = solve(30 * squares(x[i], y[j]), a[i], b[j])

    torch.testing.assert_close(permuted, plan[i][:, j], rtol=0, atol=1e-9)


def test_turned_round_it_is_the_transpose(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    cost = 30 * squares(x, y)

    plan, found = solve(cost, a, b)
    turned, record = solve(cost.mT, b, a)

    torch.testing.assert_close(turned, plan.mT, rtol=0, atol=1e-8)
    torch.testing.assert_close(record.f, found.g, rtol=0, atol=1e-5)


def test_what_a_row_or_a_column_costs_in_any_case_does_not_matter(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    cost = 30 * squares(x, y)
    rows, columns = 1e5 * torch.randn(30, 1, dtype=torch.float64), 1e5 * torch.randn(40, dtype=torch.float64)

    plan, found = solve(cost, a, b)
    moved, record = solve(cost + rows + columns, a, b)

    torch.testing.assert_close(moved, plan, rtol=0, atol=1e-9)
    extra = float(rows[:, 0] @ a + columns @ b)
    assert float(record.value[0]) == pytest.approx(float(found.value[0]) + extra, rel=1e-10)
    assert record.num_iters < 1.5 * found.num_iters


# Little noise
# ------------------------------------------------------------------------------------------------------


def test_with_hardly_any_noise_it_is_exact_transport() -> None:
    x, y = torch.rand(60, 2, dtype=torch.float64), torch.rand(60, 2, dtype=torch.float64)
    a = weights(60, equal=True)
    cost = squares(x, y) / (2 * 1e-4**2)

    plan, found = solve(cost, a, a)

    rows, columns = linear_sum_assignment(cost.numpy())
    expected = torch.zeros(60, 60, dtype=torch.float64)
    expected[rows, columns] = 1 / 60
    torch.testing.assert_close(plan, expected, rtol=0, atol=1e-8)
    assert float(found.error[0]) < 1e-8


def test_with_hardly_any_noise_and_unequal_weights_it_costs_what_exact_transport_does() -> None:
    x, y, a, b = torch.rand(50, 2), torch.rand(70, 2), weights(50), weights(70)
    cost = squares(x, y).double() / (2 * 1e-3**2)

    plan, _ = solve(cost, a, b)

    best = (torch.from_numpy(exact_plan(cost.numpy(), a.numpy(), b.numpy())) * cost).sum()
    # Entropy, in nats, is all that may be gained by spreading.
    assert float(best) - 1e-6 < float((plan * cost).sum()) < float(best) + np.log(70)
    assert_marginals(plan, a, b)


def hard_problems() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=draw)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    equal, lattice = weights(100, equal=True), torch.cartesian_prod(*2 * [torch.arange(10.0).double()])
    uneven = uniform(100)
    uneven[::3] = 1e-12
    tiny = 10 ** (-30 * uniform(100))
    apart = torch.tensor([1000.0, 0.0])
    left, right = normal(100, 2), normal(100, 2)
    left[:60] += apart
    right[:40] += apart
    near = 0.01 * normal(100, 2)
    return {
        "random": (1e7 * uniform(100, 100), equal, equal),
        "many ties": (1e7 * squares(lattice, lattice + apart / 1000), equal, equal),
        "weights from 1e-12": (1e6 * uniform(100, 100), uneven / uneven.sum(), equal),
        "weights from 1e-30": (1e4 * uniform(100, 100), tiny / tiny.sum(), tiny.flip(0) / tiny.sum()),
        "two far parts of unequal mass": (50 * squares(left, right), equal, equal),
        "far moved": (squares(near, near[:80] + 5) / 2e-8, equal, weights(80, equal=True)),
        "one far particle": (50 * squares(torch.cat([near[1:], apart[None]]), near), equal, equal),
        "negative": (-1e4 * uniform(100, 100), equal, equal),
    }


@pytest.mark.parametrize("name", hard_problems())
def test_hard_problems_are_solved(name: str) -> None:
    cost, a, b = hard_problems()[name]

    plan, found = solve(cost, a, b)

    assert float(found.error[0]) < 1e-6
    assert_marginals(plan, a, b, 1e-5)
    assert found.num_iters < 150


def test_mass_between_parts_that_are_far_apart_is_no_more_than_it_must_be() -> None:
    cost, a, b = hard_problems()["two far parts of unequal mass"]

    plan, _ = solve(cost, a, b)

    # 60 of 100 particles are far at first and 40 later: 20 have to travel.
    assert float(plan[:60, 40:].sum()) == pytest.approx(0.2, abs=1e-6)
    assert float(plan[60:, :40].sum()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e8])
def test_a_cloud_that_does_not_move_stays(scale: float) -> None:
    x, a = torch.randn(40, 2, dtype=torch.float64), weights(40)

    plan, _ = solve(scale * squares(x, x), a, a)

    torch.testing.assert_close(plan, plan.mT, rtol=0, atol=1e-9)
    if scale > 1:
        torch.testing.assert_close(plan, torch.diag(a), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_one_particle_has_one_plan(shape: tuple[int, int]) -> None:
    a, b = weights(shape[0]), weights(shape[1])

    plan, found = solve(1e5 * torch.rand(shape, dtype=torch.float64), a, b)

    torch.testing.assert_close(plan, a[:, None] * b)
    assert float(found.error[0]) < 1e-9


def test_clouds_that_are_one_point_give_the_product() -> None:
    a, b = weights(7), weights(9)

    plan, found = solve(torch.zeros(7, 9, dtype=torch.float64), a, b)

    torch.testing.assert_close(plan, a[:, None] * b)
    assert float(found.value[0]) == pytest.approx(0, abs=1e-12)


# Starts
# ------------------------------------------------------------------------------------------------------


def test_a_warm_start_leads_to_the_same_plan_sooner(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    before = solve(1e3 * squares(x, y), a, b)[1]
    cost = 1e3 * squares(x, y + 0.01)

    cold, record = solve(cost, a, b)
    warm, again = solve(cost, a, b, start=before.g)

    torch.testing.assert_close(warm, cold, rtol=0, atol=1e-8)
    assert again.num_iters < record.num_iters
    assert solve(cost, a, b, start=record.g)[1].num_iters == 0


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_a_start_that_is_far_off_does_no_harm(clouds: tuple[Tensor, ...], scale: float) -> None:
    # From wrong potentials the value, a lower bound, would pretend to a better reference.
    x, y, a, b = clouds
    cost = scale * squares(x, y)
    wrong = scale * torch.randn(1, 40, dtype=torch.float64)

    cold, record = solve(cost, a, b)
    warm, again = solve(cost, a, b, start=wrong)

    torch.testing.assert_close(warm, cold, rtol=0, atol=1e-7)
    assert float(again.value[0]) == pytest.approx(float(record.value[0]), rel=1e-9)


def test_only_the_problems_that_a_start_does_not_help_are_annealed(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    cost = 1e5 * torch.stack([squares(x, y), squares(x, y + 1)])
    a, b = a.expand(2, -1), b.expand(2, -1)
    cold = couple(cost, a, b)
    start = torch.stack([cold.g[0], 1e5 * torch.randn(40, dtype=torch.float64)])

    found = couple(cost, a, b, start=start)

    torch.testing.assert_close(found.g[0], cold.g[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(found.value, cold.value, rtol=1e-9, atol=0)
    assert float(found.error.max()) < 1e-8


def test_arguments_are_left_as_they_were(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds
    cost, start = 1e4 * squares(x, y), torch.randn(1, 40, dtype=torch.float64)
    copies = [part.clone() for part in (cost, a, b, start)]

    solve(cost, a, b, start=start)

    for part, copy in zip((cost, a, b, start), copies, strict=True):
        assert torch.equal(part, copy)


# Large problems, and failure
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("largest", [10, 10_000])
def test_conjugate_gradients_find_the_same_plan(
    clouds: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch, scale: float, largest: int
) -> None:
    x, y, a, b = clouds
    cost = scale * squares(x, y)
    expected, _ = solve(cost, a, b)
    monkeypatch.setattr(module, "_SMALL", 10)
    monkeypatch.setattr(module, "_LARGE", largest)

    plan, found = solve(cost, a, b)

    torch.testing.assert_close(plan, expected, rtol=0, atol=1e-8)
    assert float(found.error[0]) < 1e-9


def test_the_error_tells_of_a_search_that_was_cut_off(clouds: tuple[Tensor, ...]) -> None:
    x, y, a, b = clouds

    plan, found = solve(1e4 * squares(x, y), a, b, max_iters=2)

    wrong = float((plan.sum(dim=0) - b).abs().sum())
    assert float(found.error[0]) == pytest.approx(wrong, rel=1e-6)
    assert wrong > 1e-3


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_cost_that_is_no_number_is_refused(bad: float) -> None:
    cost = torch.rand(1, 4, 4, dtype=torch.float64)
    cost[0, 2, 1] = bad
    a = weights(4)[None]

    with pytest.raises(NonFiniteError, match="cost of transport is NaN or infinite: .*raise the volat"):
        couple(cost, a, a)
