"""Fixed points: closed forms, honest labels, kinks, merging (spec checks D2 and D3)."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn.analysis import cone_growth, fixed_points, jacobian, silence
from seqdyn.data.convert import to_netcdf
from seqdyn.datasets import chaos
from seqdyn.dynamics import FlowDynamics, MapDynamics, from_callable, from_torch, simulate
from seqdyn.errors import ConvergenceWarning

DOUBLE = torch.float64


def random_tanh(seed: int, size: int = 50) -> MapDynamics:
    torch.manual_seed(seed)
    weights = 1.6 * torch.randn(size, size, dtype=DOUBLE) / math.sqrt(size)
    bias = 0.1 * torch.randn(size, dtype=DOUBLE)
    return from_callable(lambda h: torch.tanh(h @ weights.mT + bias), size)


def rectifier(weights: Tensor, bias: Tensor | float = 0.0) -> MapDynamics:
    def drive(h: Tensor) -> Tensor:
        return h @ weights.mT + bias

    return from_callable(lambda h: torch.relu(drive(h)), len(weights), preactivation=drive)


@pytest.fixture
def nine() -> MapDynamics:
    """tanh(2h) in two dimensions: coordinates 0 and ± the root of tanh(2r) = r."""
    return from_callable(lambda h: torch.tanh(2 * h), 2)


def test_d2_the_nine_fixed_points_of_tanh_2h(nine: MapDynamics) -> None:
    data = fixed_points(nine, torch.randn(200, 2, dtype=DOUBLE), seed=0)

    root = 0.957504024077
    expected = [[x, y] for x in (-root, 0.0, root) for y in (-root, 0.0, root)]
    found = data.hidden.values[np.lexsort(data.hidden.values.round(6).T[::-1])]
    np.testing.assert_allclose(found, expected, atol=1e-11)
    assert sorted(data.stability.values.tolist()) == ["saddle"] * 4 + ["source"] + ["stable node"] * 4
    eigenvalues = {name: data.eigenvalue[data.stability == name].values for name in ("stable node", "source")}
    np.testing.assert_allclose(eigenvalues["stable node"], 0.166372087752, atol=1e-11)
    np.testing.assert_allclose(eigenvalues["source"], 2.0, atol=1e-12)
    assert data.stable.values.tolist() == [name == "stable node" for name in data.stability.values]
    assert set(data.num_unstable.values[data.stability == "saddle"]) == {1}


def test_the_book_of_the_starts_adds_up(nine: MapDynamics) -> None:
    start = torch.randn(50, 2, dtype=DOUBLE)

    data = fixed_points(nine, start)

    assert data.sizes["start"] == 50
    fixed = data.kind.values == "fixed"
    assert int(data.basin_count.sum()) == fixed.sum()
    np.testing.assert_array_equal(data.assigned.values >= 0, fixed)
    ends = data.end_hidden.values[fixed]
    np.testing.assert_allclose(ends, data.hidden.values[data.assigned.values[fixed]], atol=1e-6)


def test_everything_is_computed_at_the_returned_point(nine: MapDynamics) -> None:
    data = fixed_points(nine, torch.randn(50, 2, dtype=DOUBLE))

    points = torch.from_numpy(data.hidden.values)
    np.testing.assert_array_equal(data.speed, (nine.step(points, None) - points).norm(dim=1))
    matrices = jacobian(nine, points).numpy()
    for matrix, values, vectors in zip(
        matrices, data.eigenvalue.values, data.eigenvector.values, strict=True
    ):
        np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-12)


def test_one_start_works_and_the_origin_is_always_looked_at(nine: MapDynamics) -> None:
    data = fixed_points(nine, torch.tensor([0.9, 0.9], dtype=DOUBLE))

    assert data.sizes["start"] == 1
    assert data.basin_count.values.tolist() == [1, 0]
    np.testing.assert_allclose(data.hidden.values[1], 0.0, atol=1e-12)


def test_float32_is_enough_to_find_them() -> None:
    dynamics = from_callable(lambda h: torch.tanh(2 * h), 2)

    data = fixed_points(dynamics, torch.randn(200, 2))

    assert data.hidden.dtype == np.float32 and data.sizes["point"] == 9
    assert data.attrs["tolerance"] == 1e-10


def test_a_slow_point_is_not_a_fixed_point() -> None:
    # x + 0.01 + x² comes closest to itself at x = 0, and has no fixed point.
    ghost = from_callable(lambda h: h + 0.01 + h * h, 1)

    with pytest.warns(ConvergenceWarning, match="no start reached a fixed point: the smallest q is 5e-05"):
        data = fixed_points(ghost, torch.linspace(-1, 1, 7, dtype=DOUBLE)[:, None])

    assert data.sizes["point"] == 0 and data.hidden.shape == (0, 1)
    assert set(data.kind.values) == {"slow"}
    np.testing.assert_allclose(data.end_hidden, 0.0, atol=1e-3)
    np.testing.assert_allclose(data.end_speed, 0.01, rtol=1e-4)


def test_a_search_that_is_cut_short_has_failed(nine: MapDynamics) -> None:
    data = fixed_points(nine, torch.full((1, 2), 0.5, dtype=DOUBLE), max_iters=1)

    assert data.kind.values.tolist() == ["failed"] and data.assigned.values.tolist() == [-1]


def test_a_root_without_a_slope_is_found_and_marginal() -> None:
    # h - h³ has F(h) - h = -h³: the Jacobian of the search vanishes at the root.
    rate = torch.tensor([1.0, 0.5], dtype=DOUBLE)
    dynamics = from_callable(lambda h: torch.stack([h[..., 0] - h[..., 0] ** 3, 0.5 * h[..., 1]], -1), 2)

    data = fixed_points(dynamics, 0.5 * rate[None], merge_tolerance=1e-2)

    assert data.kind.values.tolist() == ["fixed"]
    assert data.stability.values.tolist() == ["marginal"]


def test_points_are_merged_by_chains_and_scaled_tolerance() -> None:
    # Every state is fixed under the identity; starts in a chain of small gaps are one point.
    identity = from_callable(lambda h: h.clone(), 1)
    start = torch.tensor([1.0, 1.00015, 1.0003, 1.00045, 2.0], dtype=DOUBLE)[:, None]

    data = fixed_points(identity, start)

    assert data.basin_count.values.tolist() == [4, 1, 0]


def test_a_focus_turns_and_a_node_does_not() -> None:
    angle = 0.3
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=DOUBLE
    )
    for radius, name in ((0.9, "stable focus"), (1.1, "source"), (1.0, "marginal")):
        data = fixed_points(from_callable(lambda h, r=radius: r * h @ turn.mT, 2), np.ones((1, 2)))
        assert data.stability.values.tolist() == [name]
        np.testing.assert_allclose(np.abs(np.angle(data.eigenvalue)), angle)


@pytest.mark.parametrize("system", [chaos.lorenz(), chaos.rossler(), chaos.chua()], ids=lambda s: s.name)
def test_the_fixed_points_of_flows_are_the_published_ones(system: chaos.System) -> None:
    start = 10 * torch.randn(200, 3, dtype=DOUBLE)

    data = fixed_points(system.dynamics, start)

    expected = system.fixed_points
    assert data.sizes["point"] == len(expected)
    distance = np.abs(data.hidden.values[:, None] - expected).max(axis=2)
    np.testing.assert_allclose(distance.min(axis=0), 0.0, atol=1e-8)
    assert data.attrs["system"] == "flow"
    assert not data.stable.any()


def test_a_flow_is_stable_where_real_parts_are_negative() -> None:
    # Eigenvalues -3 ± 2i: stable for a flow, although their modulus is above 1.
    matrix = torch.tensor([[-3.0, -2.0], [2.0, -3.0]], dtype=DOUBLE)

    data = fixed_points(FlowDynamics(lambda x, t: x @ matrix.mT, 0.0, 2), np.ones((1, 2)))

    assert data.stability.values.tolist() == ["stable focus"]
    np.testing.assert_allclose(np.sort_complex(data.eigenvalue.values[0]), [-3 - 2j, -3 + 2j])


def test_a_batch_of_inputs_is_one_search_for_each() -> None:
    # h' = h/2 + u has its fixed point at 2u.
    dynamics = from_callable(lambda h, u: 0.5 * h + u, 2, 2)
    inputs = torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, 0.5]], dtype=DOUBLE)

    data = fixed_points(dynamics, torch.randn(5, 2, dtype=DOUBLE), input=inputs)

    assert data.condition.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(data.hidden, 2 * inputs, atol=1e-12)
    assert data.basin_count.values.tolist() == [5, 5, 5]
    assert data.start_condition.values.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    np.testing.assert_allclose(data.input_jacobian, np.broadcast_to(np.eye(2), (3, 2, 2)))
    one = fixed_points(dynamics, torch.randn(5, 2, dtype=DOUBLE), input=inputs[1])
    np.testing.assert_allclose(one.hidden, [[2.0, -2.0]], atol=1e-12)


def test_d3_a_contracting_cone_is_stable_whatever_the_spectral_radius() -> None:
    torch.manual_seed(0)
    size = 60
    weights = 0.8 * math.sqrt(2 / size) * torch.randn(size, size, dtype=DOUBLE)
    assert float(torch.linalg.eigvals(weights).abs().max()) > 1
    dynamics = rectifier(weights)

    growth = cone_growth(dynamics, weights, seed=0)
    data = fixed_points(dynamics, torch.rand(20, size, dtype=DOUBLE), seed=0)

    assert growth.attrs["max_growth_rate"] < 0 and growth.attrs["stable_origin"] == 1
    assert data.stability.values.tolist() == ["non-smooth stable"] and bool(data.stable.all())
    assert not data.smooth.any() and np.isnan(data.eigenvalue).all()


def test_d3_an_expanding_ray_makes_the_origin_unstable_though_autograd_sees_no_slope() -> None:
    weights = torch.full((4, 4), 0.3, dtype=DOUBLE)  # eigenvalue 1.2 along (1, 1, 1, 1)
    dynamics = rectifier(weights)

    data = fixed_points(dynamics, torch.rand(20, 4, dtype=DOUBLE), seed=0)

    assert not jacobian(dynamics, torch.zeros(4, dtype=DOUBLE)).any()
    assert data.stability.values.tolist() == ["non-smooth unstable"] and not data.stable.any()
    np.testing.assert_allclose(data.growth_rate, math.log(1.2), rtol=1e-10)


def test_dying_out_exactly_is_a_rate_of_minus_infinity() -> None:
    growth = cone_growth(rectifier(-torch.eye(3, dtype=DOUBLE)), torch.zeros(1, dtype=DOUBLE), seed=0)

    assert np.isneginf(growth.growth_rate).all()
    # A direction with a negative entry passes it on as a positive one, which the second step extinguishes.
    assert set(growth.hitting_time.values) <= {1.0, 2.0}


def test_cone_growth_is_for_homogeneous_maps_only(nine: MapDynamics) -> None:
    with pytest.raises(ValueError, match="cone growth is defined for rectifier networks without biases"):
        cone_growth(nine, torch.zeros(1, dtype=DOUBLE))


def test_a_rectifier_with_biases_is_solved_exactly_piece_by_piece() -> None:
    # By hand: with both units active, h = (I - W)⁻¹ b; with one silent, its drive must be negative.
    weights = torch.tensor([[0.5, -1.0], [-1.0, 0.5]], dtype=DOUBLE)
    bias = torch.tensor([1.0, 1.0], dtype=DOUBLE)

    data = fixed_points(rectifier(weights, bias), 3 * torch.rand(100, 2, dtype=DOUBLE), seed=0)

    found = data.hidden.values[np.lexsort(data.hidden.values.T[::-1])]
    np.testing.assert_allclose(found, [[0.0, 2.0], [2 / 3, 2 / 3], [2.0, 0.0]], atol=1e-15)
    kinds = dict(zip(data.hidden.values[:, 0].round(3).tolist(), data.stability.values, strict=True))
    assert kinds == {0.0: "stable node", 0.667: "saddle", 2.0: "stable node"}


def test_a_fixed_point_on_a_kink_is_judged_by_roll_outs() -> None:
    # relu(g h + 1 - g) has the fixed point 1; a second unit relu(c (h₂ + h₁ - 1)) sits on its kink there.
    for gain, name in ((0.8, "non-smooth stable"), (1.2, "non-smooth unstable")):
        weights = torch.tensor([[0.5, 0.0], [gain, gain]], dtype=DOUBLE)
        bias = torch.tensor([0.5, -gain], dtype=DOUBLE)
        data = fixed_points(rectifier(weights, bias), np.array([[1.0, 0.0]]), seed=0)
        at = np.abs(data.hidden.values - [1.0, 0.0]).max(axis=1).argmin()
        assert data.stability.values[at] == name
        np.testing.assert_allclose(data.growth_rate[at], math.log(gain), rtol=1e-5)


def test_silenced_rectifiers_are_not_taken_for_kinks() -> None:
    weights = 0.3 * torch.eye(3, dtype=DOUBLE)
    dynamics = silence(rectifier(weights, torch.ones(3, dtype=DOUBLE)), [0])

    data = fixed_points(dynamics, np.ones((2, 3)))

    np.testing.assert_allclose(data.hidden, [[0.0, 1 / 0.7, 1 / 0.7]])
    assert data.stability.values.tolist() == ["stable node"]


def test_a_wrapped_gru_has_fixed_points_under_an_input() -> None:
    dynamics = from_torch(nn.GRU(2, 8).double())
    u = torch.tensor([0.5, -0.2], dtype=DOUBLE)

    data = fixed_points(dynamics, torch.zeros(1, 8, dtype=DOUBLE), input=u)

    end = simulate(dynamics, torch.zeros(1, 8, dtype=DOUBLE), 2000, input=u)[0, -1]
    np.testing.assert_allclose(data.hidden.values[0], end, atol=1e-9)
    assert bool(data.stable[0]) and data.input_jacobian.shape[1:] == (8, 2)


def test_the_search_leaves_the_random_state_alone_and_follows_its_seed(nine: MapDynamics) -> None:
    start, state = torch.randn(20, 2, dtype=DOUBLE), torch.random.get_rng_state()

    first, again, other = (fixed_points(nine, start, jitter=0.5, seed=seed) for seed in (1, 1, 2))

    xr.testing.assert_identical(first, again)
    assert not np.array_equal(first.num_iters, other.num_iters)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_result_survives_a_file(nine: MapDynamics, tmp_path: Path) -> None:
    data = fixed_points(nine, torch.randn(20, 2, dtype=DOUBLE), seed=1)
    parts = {
        f"{name}_{part}": (data[name].dims, getattr(data[name].values, part))
        for name in ("eigenvalue", "eigenvector")
        for part in ("real", "imag")
    }

    to_netcdf(data.drop_vars(["eigenvalue", "eigenvector"]).assign(parts), tmp_path / "points.nc")

    with xr.open_dataset(tmp_path / "points.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read.hidden, data.hidden)
        np.testing.assert_array_equal(read.eigenvalue_real, data.eigenvalue.values.real)
        np.testing.assert_array_equal(read.stability, data.stability)
        assert read.attrs["seed"] == 1 and "seqdyn_version" in read.attrs


def test_a_scheduled_map_is_refused(nine: MapDynamics) -> None:
    with pytest.raises(ValueError, match=r"pick the map of one step: dynamics\.at\(0\)"):
        fixed_points(silence(nine, [0], start=3), np.ones((1, 2)))


def test_50_random_tanh_units_have_five_fixed_points_found_from_256_starts() -> None:
    # Seed 5; the number is that of 20,000 starts (slow test below).
    data = fixed_points(random_tanh(5), torch.randn(256, 50, dtype=DOUBLE), seed=0)

    assert data.sizes["point"] == 5
    assert float(data.speed.max()) < 1e-13


@pytest.mark.slow
def test_256_starts_find_what_20000_do() -> None:
    seconds = []
    for seed in range(1, 6):
        dynamics = random_tanh(seed)
        begun = time.process_time()
        few = fixed_points(dynamics, torch.randn(256, 50, dtype=DOUBLE), seed=0)
        seconds.append(time.process_time() - begun)
        many = fixed_points(dynamics, torch.randn(20_000, 50, dtype=DOUBLE), seed=0)

        assert float(many.speed.max()) ** 2 / 2 < 1e-20
        distance = np.abs(few.hidden.values[:, None] - many.hidden.values).max(axis=2)
        rare = many.basin_count.values < 200
        missed = distance.min(axis=0) > 1e-6
        assert not (missed & ~rare).any(), f"seed {seed} misses a point"
        assert (distance.min(axis=1) < 1e-6).all(), f"seed {seed} has a point of its own"
        print(
            f"seed {seed}: {few.sizes['point']} of {many.sizes['point']} points, {missed.sum()} rare missed"
        )
    print("CPU seconds:", np.round(seconds, 2))
    assert np.median(seconds) < 2


def test_the_kink_at_the_origin_is_judged_under_each_input_on_its_own() -> None:
    weights = torch.tensor([[1.5, 0.0], [0.0, 0.5]], dtype=DOUBLE)
    dynamics = from_callable(lambda h, u: torch.relu(h @ weights.mT + u), 2, 2)
    inputs = torch.tensor([[0.0, 0.0], [-0.1, -0.1]], dtype=DOUBLE)

    found = fixed_points(dynamics, 0.1 * torch.rand(5, 2, dtype=DOUBLE), input=inputs, seed=0)

    origin = found.isel(point=(found.hidden == 0).all("unit").values)
    names = dict(zip(origin.condition.values.tolist(), origin.stability.values, strict=True))
    assert names == {0: "non-smooth unstable", 1: "stable node"}


def test_starts_of_any_shape_are_a_set(nine: MapDynamics) -> None:
    states = simulate(nine, 2 * torch.randn(6, 2, dtype=DOUBLE), 40)[:, ::10]

    found = fixed_points(nine, states, seed=0)

    assert found.sizes["start"] == 24
    xr.testing.assert_equal(found, fixed_points(nine, states.flatten(0, 1), seed=0))
    with pytest.raises(ValueError, match="start holds no state"):
        fixed_points(nine, states[:0])
    with pytest.raises(ValueError, match=r"batch of conditions \(B, X\), got shape \(1, 2, 2\)"):
        fixed_points(from_callable(lambda h, u: h / 2 + u, 2, 2), states, input=torch.zeros(1, 2, 2))
