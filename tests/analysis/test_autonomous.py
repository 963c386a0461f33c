"""Runs without noise: growth of cones, and ends sorted by attractor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import autonomous_dynamics, clamp, growth_rate
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics


def linear(matrix: Tensor) -> MapDynamics:
    return MapDynamics(lambda h, u: h @ matrix.T, None, len(matrix), 0)


def rectified(matrix: Tensor) -> MapDynamics:
    return MapDynamics(lambda h, u: torch.relu(h @ matrix.T), None, len(matrix), 0)


@pytest.mark.parametrize("modulus", [0.2, 0.9, 3.0])
def test_growth_of_a_linear_map_is_the_log_of_its_largest_eigenvalue(modulus: float) -> None:
    # 500 steps at 0.2 or 3 leave the range of float32.
    matrix = torch.diag(torch.tensor([modulus, 0.1 * modulus]))

    growth = growth_rate(linear(matrix), torch.rand(5, 2) + 0.1)

    np.testing.assert_allclose(growth.growth_rate, math.log(modulus), rtol=1e-5)
    assert np.isnan(growth.hitting_time).all()


def test_a_cone_map_can_contract_though_the_spectral_radius_exceeds_one() -> None:
    # Check D3: a rotation by a quarter turn times 1.2 leaves the positive cone at once.
    turning = 1.2 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert torch.linalg.eigvals(turning).abs().max() > 1

    growth = growth_rate(rectified(turning), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    assert (growth.growth_rate == -np.inf).all()
    np.testing.assert_array_equal(growth.hitting_time, [2, 1])


def test_random_cone_maps_of_check_d3_contract() -> None:
    weights = 0.8 * math.sqrt(2 / 200) * torch.randn(200, 200, dtype=torch.float64)
    assert torch.linalg.eigvals(weights).abs().max() > 1

    growth = growth_rate(rectified(weights), torch.rand(10, 200, dtype=torch.float64))

    assert (growth.growth_rate < 0).all()


def test_an_expanding_ray_grows() -> None:
    growth = growth_rate(rectified(torch.full((3, 3), 0.5)), torch.rand(4, 3))

    np.testing.assert_allclose(growth.growth_rate, math.log(1.5), rtol=1e-5)


def test_growth_is_counted_against_the_state_before_it_without_homogeneity() -> None:
    biased = MapDynamics(lambda h, u: 0.5 * h + 1, None, 1, 0)

    growth = growth_rate(biased, torch.tensor([[5.0]]))

    np.testing.assert_allclose(growth.growth_rate, 0.0, atol=1e-6)


def test_nine_fixed_points_leave_four_attractors() -> None:
    # Check D2: tanh(2h) in two dimensions has four stable points, coordinates +-0.957504024077.
    dynamics = MapDynamics(lambda h, u: torch.tanh(2 * h), None, 2, 0)

    found = autonomous_dynamics(dynamics, 2 * torch.randn(200, 2, dtype=torch.float64), num_steps=200)

    assert found.attrs["num_attractors"] == 4
    np.testing.assert_allclose(np.abs(found.attractor_hidden), 0.957504024077, atol=1e-9)
    assert set(found.attractor_kind.values) == {"fixed"}
    assert int(found.basin_count.sum()) == 200
    signs = np.sign(found.attractor_hidden.values)[found.attractor_id.values]
    np.testing.assert_array_equal(signs, np.sign(found.end_hidden))
    # The fixed points searched from the ends are those four, and the origin, which is searched from too.
    assert sorted(found.point_stability.values) == ["source"] + ["stable node"] * 4
    assert int(found.point_basin_count.sum()) == 200 and (found.point_speed < 1e-9).all()
    np.testing.assert_allclose(found.point_hidden.values[found.end_point.values], found.end_hidden, atol=1e-9)
    # Slope 2 / cosh(2h)^2 = 2 (1 - h^2), in both directions.
    np.testing.assert_allclose(
        found.point_eigenvalue.values[found.point_stable.values], 2 * (1 - 0.957504024077**2), atol=1e-9
    )


def test_all_phases_of_a_cycle_are_one_attractor() -> None:
    # A quarter turn on the unit circle, radii contracting to one: cycles of period four in every direction;
    # starts on the axes meet the same one.
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        size = h.norm(dim=-1, keepdim=True)
        return torch.stack([-h[..., 1], h[..., 0]], dim=-1) * size ** (-0.5)

    starts = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.5, 0.0], [0.0, -3.0]], dtype=torch.float64)

    found = autonomous_dynamics(MapDynamics(step, None, 2, 0), starts, num_steps=201)

    assert found.attrs["num_attractors"] == 1
    assert (found.attractor_kind.item(), found.period.item(), found.basin_count.item()) == ("cycle", 4, 4)


def test_the_two_ends_are_not_averaged() -> None:
    dynamics = MapDynamics(lambda h, u: torch.tanh(2 * h), None, 1, 0)

    found = autonomous_dynamics(dynamics, torch.tensor([[1.0], [-1.0], [0.5]]))

    np.testing.assert_allclose(
        sorted(found.attractor_hidden.values.ravel()), [-0.957504, 0.957504], atol=1e-5
    )
    np.testing.assert_array_equal(found.attractor_id, [0, 1, 0])


def test_divergence_is_marked() -> None:
    dynamics = MapDynamics(lambda h, u: h**2, None, 2, 0)

    found = autonomous_dynamics(dynamics, torch.tensor([[0.5, 0.5], [2.0, 2.0]]))

    np.testing.assert_array_equal(found.attractor_id, [0, -1])
    assert "1 of 2 runs diverged" in found.attrs["reason"]
    assert np.isnan(found.trajectory_pc[1, -1]).all()
    assert found.end_point.values.tolist() == [0, -1]


def test_a_diverged_run_has_no_point_and_a_schedule_that_of_its_end() -> None:
    doubled = MapDynamics(lambda h, u: 2 * h, None, 2, 0)
    assert autonomous_dynamics(doubled, torch.ones(3, 2), num_steps=200).end_point.values.tolist() == [-1] * 3

    held = clamp(MapDynamics(lambda h, u: 0.5 * h, None, 2, 0), 0, 3.0, start=5)
    found = autonomous_dynamics(held, torch.ones(3, 2), num_steps=60)

    np.testing.assert_allclose(found.point_hidden, [[3.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(found.end_hidden, [[3.0, 0.0]] * 3, atol=1e-6)


def test_a_batch_of_inputs_gives_the_points_of_each() -> None:
    dynamics = MapDynamics(lambda h, u: torch.tanh(2 * h + (0 if u is None else u)), None, 1, 1)

    found = autonomous_dynamics(dynamics, torch.tensor([[1.0], [-1.0]]), input=[[0.0], [5.0]])

    # Under the large input one of the three points is left.
    assert found.sizes["point"] == 3
    assert np.isfinite(found.point_speed).sum("point").values.tolist() == [3, 1]
    assert found.end_point.values.tolist()[1] == [0, 0]
    assert found.num_attractors.values.tolist() == [2, 1]


def test_a_flow_ends_on_its_limit_cycle() -> None:
    def drift(x: Tensor, time: float) -> Tensor:
        turned = torch.stack([-x[..., 1], x[..., 0]], dim=-1)
        return turned + x * (1 - x.square().sum(dim=-1, keepdim=True))

    found = autonomous_dynamics(
        FlowDynamics(drift, 0.0, 2), torch.randn(20, 2), step_size=0.1, num_steps=400, tail=100
    )

    assert found.attrs["num_attractors"] == 1
    assert found.attractor_kind.item() != "fixed"
    np.testing.assert_allclose(np.linalg.norm(found.end_hidden, axis=1), 1, atol=1e-3)


def test_the_origin_of_a_cone_stays_there() -> None:
    growth = growth_rate(rectified(torch.full((3, 3), 0.5)), torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))

    assert growth.hitting_time[0] == 0 and growth.growth_rate[0] == -np.inf
    assert np.isnan(growth.hitting_time[1]) and growth.growth_rate[1] == pytest.approx(math.log(1.5))
