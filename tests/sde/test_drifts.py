"""Drifts against their formulas by hand; precision, batches, gradients at awkward points, least squares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqdyn.sde.drifts import (
    Linear,
    LotkaVolterra,
    OrnsteinUhlenbeck,
    QuadraticPotential,
    Repressilator,
    Rotation,
    Vortex,
    Zero,
)


def linear(matrix: list[list[float]], offset: list[float]) -> Linear:
    drift = Linear(len(offset))
    with torch.no_grad():
        drift.matrix.copy_(torch.tensor(matrix))
        drift.offset.copy_(torch.tensor(offset))
    return drift


def trap() -> QuadraticPotential:
    drift = QuadraticPotential(2)
    with torch.no_grad():
        drift.stiffness.copy_(torch.tensor([1.5, -0.5, 2.0]))
        drift.offset.copy_(torch.tensor([0.25, -1.0]))
    return drift


def apart() -> OrnsteinUhlenbeck:
    drift = OrnsteinUhlenbeck(2)
    with torch.no_grad():
        drift.rate.copy_(torch.tensor([1.5, -0.5]))
        drift.offset.copy_(torch.tensor([0.25, -1.0]))
    return drift


def linear_formula(x: list[float]) -> list[float]:
    return [-0.5 * x[0] + 2.0 * x[1] + 0.25, 0.75 * x[0] - 1.5 * x[1] - 1.0]


def predators(x: list[float]) -> list[float]:
    return [1.1 * x[0] - 0.4 * x[0] * x[1], 0.1 * x[0] * x[1] - 0.3 * x[1]]


def genes(x: list[float]) -> list[float]:
    before = [x[2], x[0], x[1]]
    return [10.0 / (1 + (before[i] / 1.5) ** 3) - 0.8 * x[i] for i in range(3)]


def ellipse(x: list[float]) -> list[float]:
    return [0.5 * x[1] + 0.1, -2.0 * x[0] - 0.3]


def whirl(x: list[float]) -> list[float]:
    dx, dy = x[0] - 0.5, x[1] + 0.2
    r = math.hypot(dx, dy) / 0.7
    size, angle = 1.3 * (1 - math.exp(-(r**2))) / r, math.atan2(dy, dx)
    return [-size * math.sin(angle), size * math.cos(angle)]


CASES: dict[str, tuple[Callable[[], nn.Module], int, Callable[[list[float]], list[float]]]] = {
    "zero": (Zero, 2, lambda x: [0.0, 0.0]),
    "linear": (lambda: linear([[-0.5, 2.0], [0.75, -1.5]], [0.25, -1.0]), 2, linear_formula),
    "quadratic": (trap, 2, lambda x: [0.25 - 1.5 * x[0] + 0.5 * x[1], -1.0 + 0.5 * x[0] - 2.0 * x[1]]),
    "ornstein-uhlenbeck": (apart, 2, lambda x: [0.25 - 1.5 * x[0], -1.0 + 0.5 * x[1]]),
    "lotka-volterra": (lambda: LotkaVolterra(1.1, 0.4, 0.3, 0.1), 2, predators),
    "repressilator": (lambda: Repressilator(10.0, 3.0, 1.5, 0.8), 3, genes),
    "rotation": (lambda: Rotation(0.5, 2.0, 0.1, -0.3), 2, ellipse),
    "vortex": (lambda: Vortex(1.3, 0.5, -0.2, 0.7), 2, whirl),
}
FAMILIES = [LotkaVolterra, Repressilator, Rotation, Vortex]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, int, Callable[[list[float]], list[float]]]:
    make, size, formula = CASES[request.param]
    return make(), size, formula


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_a_drift_follows_its_formula_in_the_precision_and_shape_of_the_states(
    case: Any, dtype: torch.dtype, tolerance: float, batch: tuple[int, ...]
) -> None:
    drift, size, formula = case
    x = (torch.rand(*batch, size, dtype=torch.float64) * 3 + 0.2).to(dtype)

    value = drift(x, 0.0)

    assert value.shape == x.shape and value.dtype == dtype
    expected = [formula(row) for row in x.double().reshape(-1, size).tolist()]
    expected = torch.tensor(expected, dtype=dtype).reshape(x.shape)
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


def test_drifts_work_row_by_row_with_jacobians_in_either_precision(case: Any) -> None:
    drift, size, _ = case
    x = torch.rand(4, size, dtype=torch.float64) + 0.5

    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-3)):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: drift(row, 0.0)))(x.to(dtype))
        steps = 1e-6 * torch.eye(size, dtype=torch.float64)
        numerical = torch.stack([(drift(x + h, 0.0) - drift(x - h, 0.0)) / 2e-6 for h in steps], dim=-1)
        assert jacobian.dtype == dtype
        torch.testing.assert_close(jacobian.double(), numerical, rtol=tolerance, atol=tolerance)


def test_a_gradient_reaches_every_parameter(case: Any) -> None:
    drift, size, _ = case
    x = torch.rand(6, size, dtype=torch.float64) + 0.5

    if list(drift.parameters()):
        drift(x, 0.0).square().sum().backward()

    for name, parameter in drift.named_parameters():
        assert parameter.dtype == torch.float64
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("drift", "x"),
    [
        (Repressilator(10.0, 3.0, 1.0, 1.0), [[0.0, 1.0, -2.0], [-1.0, 0.0, 0.0]]),
        # Powers that overflow: (5 / 1e-6)^80 and its inverse.
        (Repressilator(10.0, 80.0, 1e-6, 1.0), [[5.0, 1e-8, 0.0]]),
        (Repressilator(10.0, 0.0, 1.0, 1.0), [[0.0, 1.0, 2.0]]),
        (Vortex(1.0, 0.5, -0.25, 1.0), [[0.5, -0.25], [0.5, -0.25 + 1e-9], [1e6, 1e6]]),
        (LotkaVolterra(), [[0.0, 0.0]]),
    ],
)
def test_values_and_gradients_are_finite_at_awkward_points(
    drift: nn.Module, x: list[list[float]], dtype: torch.dtype
) -> None:
    drift.zero_grad()
    states = torch.tensor(x, dtype=dtype, requires_grad=True)

    value = drift(states, 0.0)
    value.square().sum().backward()

    assert bool(torch.isfinite(value).all())
    assert states.grad is not None and bool(torch.isfinite(states.grad).all())
    for name, parameter in drift.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad)), name


def test_concentrations_below_zero_count_as_zero() -> None:
    drift = Repressilator(10.0, 3.0, 1.0, 1.0)

    value = drift(torch.tensor([[-5.0, 0.0, 1.0]], dtype=torch.float64), 0.0)

    expected = torch.tensor([[5.0, 10.0, 10.0 - 1.0]], dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-7)


def test_a_vortex_turns_rigidly_at_its_centre_and_stands_still_in_it() -> None:
    drift = Vortex(2.0, 0.5, -0.2, 0.4)
    centre = torch.tensor([0.5, -0.2], dtype=torch.float64)

    jacobian = torch.func.jacrev(lambda x: drift(x, 0.0))(centre)

    # b = (circulation / core) (-(y - y_0), x - x_0) to first order
    torch.testing.assert_close(drift(centre, 0.0), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(jacobian, torch.tensor([[0.0, -5.0], [5.0, 0.0]], dtype=torch.float64))


def test_a_rotation_is_the_published_family_in_other_parameters() -> None:
    # (s e^{-l} (y - y0), -s (x - x0))
    s, log_ratio, x0, y0 = 1.5, 0.4, 0.3, -0.6
    x = torch.randn(10, 2, dtype=torch.float64)
    rate = s * math.exp(-log_ratio)

    drift = Rotation(rate, s, -rate * y0, s * x0)

    expected = torch.stack([rate * (x[:, 1] - y0), -s * (x[:, 0] - x0)], dim=-1)
    torch.testing.assert_close(drift(x, 0.0), expected)
    centre = torch.tensor([x0, y0], dtype=torch.float64)
    torch.testing.assert_close(drift(centre, 0.0), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["linear", "rotation", "quadratic", "ornstein-uhlenbeck"])
def test_affine_drifts_give_their_matrix_and_offset(name: str) -> None:
    drift = CASES[name][0]()
    x = torch.randn(7, 2, dtype=torch.float64)

    matrix, offset = drift.affine()

    torch.testing.assert_close(x @ matrix.mT + offset, drift(x, 0.0))
    # They belong to the parameters, so that an objective in them can be differentiated.
    assert matrix.requires_grad and offset.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_lower_bounds_name_parameters_and_hold_at_the_start(family: Callable[..., Any]) -> None:
    drift = family()

    bounds = getattr(drift, "lower_bounds", {})
    values = {name: parameter.item() for name, parameter in drift.named_parameters()}
    assert bounds.keys() <= values.keys()
    assert all(values[name] >= bound for name, bound in bounds.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
def test_what_is_no_finite_number_is_refused(family: Callable[..., nn.Module], value: Any) -> None:
    name = next(iter(dict(family().named_parameters())))

    with pytest.raises(ValueError, match=f"{name} must be a finite number, got {value!r}"):
        family(**{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LotkaVolterra(gamma=-0.1), "gamma must be at least 0, got -0.1"),
        (lambda: Repressilator(k=0.0), "k must be at least 1e-06, got 0.0"),
        (lambda: Vortex(core=-1.0), "core must be at least 1e-06, got -1.0"),
        (lambda: Linear(0), "num_features must be a whole number of at least 1, got 0"),
        (lambda: Linear(2, ridge=-1.0), "ridge must be a finite number of at least 0, got -1.0"),
    ],
)
def test_parameters_below_their_bounds_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_with_another_number_of_coordinates_are_refused(family: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match=rf"{family.__name__} is a drift of \d coordinates.*have 4"):  # type: ignore[attr-defined]
        family()(torch.ones(5, 4), 0.0)


def test_numbers_of_numpy_are_numbers() -> None:
    assert LotkaVolterra(alpha=np.float64(0.5), beta=np.float32(0.25)).beta.item() == 0.25


# -- least squares ------------------------------------------------------------------------------------


def regression_data(count: int = 60) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = torch.randn(count, 3, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.01]) + torch.tensor(
        [0.0, 5, 2]
    )
    target = torch.randn(count, 3, dtype=torch.float64)
    weight = torch.rand(count, dtype=torch.float64) + 0.1
    return x, torch.zeros(count, dtype=torch.float64), target, weight


def test_the_solution_is_that_of_weighted_least_squares() -> None:
    x, t, target, weight = regression_data()
    drift = Linear(3)

    drift.solve(x, t, target, weight)

    inputs = np.column_stack([x, np.ones(len(x))]) * np.sqrt(weight.numpy())[:, None]
    found = np.linalg.lstsq(inputs, target.numpy() * np.sqrt(weight.numpy())[:, None], rcond=None)[0]
    np.testing.assert_allclose(drift.matrix.detach(), found[:3].T, rtol=1e-8)
    np.testing.assert_allclose(drift.offset.detach(), found[3], rtol=1e-8)


def test_exact_data_give_the_drift_back_far_from_the_origin_and_in_single_precision() -> None:
    truth = linear([[-1.0, 0.5], [0.2, -2.0]], [3.0, -4.0])
    x = torch.randn(50, 2, dtype=torch.float64) + torch.tensor([1e4, -1e4])
    t, weight = torch.zeros(50), torch.ones(50)
    far, single = Linear(2), Linear(2)

    far.solve(x, t, truth(x, 0.0).detach(), weight)
    near = (x - x.mean(dim=0)).float()
    single.solve(near, t, truth(near, 0.0).detach(), weight)

    torch.testing.assert_close(far.matrix, truth.matrix, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(far(x, 0.0), truth(x, 0.0), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(single.matrix, truth.matrix, rtol=1e-5, atol=1e-5)


def test_a_weight_of_two_is_the_particle_twice() -> None:
    x, t, target, _ = regression_data(20)
    weight = torch.ones(20, dtype=torch.float64)
    weight[3] = 2.0
    weighted, repeated = Linear(3), Linear(3)

    weighted.solve(x, t, target, weight)
    twice = torch.cat([torch.arange(20), torch.tensor([3])])
    repeated.solve(x[twice], t[twice], target[twice], torch.ones(21, dtype=torch.float64))

    torch.testing.assert_close(weighted.matrix, repeated.matrix)
    torch.testing.assert_close(weighted.offset, repeated.offset)


def test_the_fit_does_not_depend_on_units_or_origin_even_with_a_ridge() -> None:
    x, t, target, weight = regression_data()
    scale, shift = torch.tensor([2.0, 0.1, 30.0], dtype=torch.float64), torch.tensor([1.0, -3, 5])
    plain, moved = Linear(3, ridge=0.1), Linear(3, ridge=0.1)

    plain.solve(x, t, target, weight)
    moved.solve(x * scale + shift, t, target, weight)

    torch.testing.assert_close(moved(x * scale + shift, 0.0), plain(x, 0.0))


def test_a_ridge_shrinks_by_its_formula() -> None:
    # One coordinate: A = cov / (var (1 + ridge)), and the line still goes through the means.
    x = torch.randn(30, 1, dtype=torch.float64) * 3 + 1
    target = 2 * x + torch.randn(30, 1, dtype=torch.float64)
    drift = Linear(1, ridge=0.5)

    drift.solve(x, torch.zeros(30), target, torch.ones(30))

    slope = float(((x - x.mean()) * target).mean() / x.var(correction=0)) / 1.5
    assert drift.matrix.item() == pytest.approx(slope, rel=1e-10)
    assert drift(x.mean(dim=0), 0.0).item() == pytest.approx(float(target.mean()), rel=1e-10)


@pytest.mark.parametrize("kind", ["constant", "repeated", "one state", "fewer states than features"])
def test_directions_without_variation_get_no_slope(kind: str) -> None:
    x = torch.randn(30, 3, dtype=torch.float64)
    if kind == "constant":
        x[:, 1] = 1000.1  # its weighted mean is not exact: the spread found is 1e-13, not 0
    if kind == "repeated":
        x[:, 1] = x[:, 0]
    x = x[:1] if kind == "one state" else x[:2] if kind.startswith("fewer") else x
    target = x @ torch.tensor([[1.0, 0.01, 0.5]], dtype=torch.float64).mT.expand(3, 3) + 0.5
    drift = Linear(3)

    drift.solve(x, torch.zeros(len(x)), target, torch.rand(len(x), dtype=torch.float64) + 0.1)

    assert float(drift.matrix.detach().abs().max()) < 10
    torch.testing.assert_close(drift(x, 0.0), target, rtol=1e-8, atol=1e-8)
    if kind == "one state":
        assert float(drift.matrix.detach().abs().max()) == 0.0
