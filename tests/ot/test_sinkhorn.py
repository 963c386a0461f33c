"""Values of the divergence against published numbers, closed forms and the primal problem (S1 to S3)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.errors import ConvergenceWarning
from seqdyn.ot import self_transport, sinkhorn, sinkhorn_divergence

EPSILONS = [0.04, 0.25, 1.0, 4.0]
MODES = ["converged", "annealed"]


@pytest.mark.parametrize("max_memory", [1e9, 1.0])
@pytest.mark.parametrize(
    ("epsilon", "value"), list(zip(EPSILONS, [0.56225746, 0.48381742, 0.36534955, 0.28707636], strict=True))
)
def test_s2_converged_values(example: Any, epsilon: float, value: float, max_memory: float) -> None:
    result = sinkhorn(example.x, example.y, epsilon=epsilon, max_memory=max_memory)

    assert float(result.value) == pytest.approx(value, abs=1e-8)
    assert result.converged and result.error < 1e-6
    assert result.num_iters < 100  # plain iteration needs thousands at 0.04


def test_s2_the_entropic_cost_and_the_variant_of_transport_costs_alone(example: Any) -> None:
    x, y = example.x, example.y
    potentials = sinkhorn(x, y, epsilon=1.0).potentials

    def parts(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> tuple[float, float]:
        """Entropic cost (with the relative entropy), and the transport cost of its plan."""
        cost = torch.cdist(x, y).square() / 2
        plan = (f[:, None] + g - cost).exp() / cost.numel()
        return float(f.mean() + g.mean() - plan.sum() + 1), float((plan * cost).sum())

    between = parts(x, y, potentials.x, potentials.y)
    own = [parts(p, p, f, f) for p, f in ((x, potentials.x_self), (y, potentials.y_self))]

    assert between[0] == pytest.approx(1.27445368, abs=1e-7)
    assert between[1] - (own[0][1] + own[1][1]) / 2 == pytest.approx(0.45538189, abs=1e-6)


@pytest.mark.parametrize("max_memory", [1e9, 1.0])
@pytest.mark.parametrize(
    ("epsilon", "value"), list(zip(EPSILONS, [0.42785490, 0.42956499, 0.36238591, 0.28696907], strict=True))
)
def test_s3_annealed_values(example: Any, epsilon: float, value: float, max_memory: float) -> None:
    result = sinkhorn(
        example.x, example.y, epsilon=epsilon, mode="annealed", scaling=0.5, max_memory=max_memory
    )

    assert float(result.value) == pytest.approx(value, abs=1e-8)
    assert not result.converged


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_s1_a_set_has_no_divergence_from_itself(example: Any, epsilon: float, mode: str) -> None:
    assert abs(float(sinkhorn_divergence(example.x, example.x.flip(0), epsilon=epsilon, mode=mode))) < 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_s1_the_divergence_is_symmetric(example: Any, epsilon: float, mode: str) -> None:
    x, y, a, b = example
    forth = sinkhorn_divergence(x, y, epsilon=epsilon, x_weights=a, y_weights=b, mode=mode)
    back = sinkhorn_divergence(y, x, epsilon=epsilon, x_weights=b, y_weights=a, mode=mode)

    torch.testing.assert_close(forth, back, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_s1_the_converged_divergence_is_not_negative(dtype: torch.dtype) -> None:
    for num_points in (1, 2, 7, 40):
        for scale in (1e-3, 0.1, 1.0):
            x = torch.randn(num_points, 3, dtype=dtype)
            y = x + scale * torch.randn(num_points, 3, dtype=dtype)
            assert sinkhorn_divergence(x, y, epsilon=1.0) > -1e-6


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("mode", MODES)
def test_divergence_of_a_translated_cloud_is_half_the_squared_shift(epsilon: float, mode: str) -> None:
    # Exact for every epsilon when converged: with the cost |x - y|²/2 a shift by v adds |v|²/2 to the
    # transport cost between the clouds and nothing to either self-transport term.
    x = torch.randn(40, 3, dtype=torch.float64)
    shift = torch.tensor([0.3, -1.2, 0.5], dtype=torch.float64)

    divergence = sinkhorn_divergence(x, x + shift, epsilon=epsilon, mode=mode)

    tolerance = 1e-9 if mode == "converged" else 0.05
    torch.testing.assert_close(divergence, 0.5 * shift.square().sum(), rtol=tolerance, atol=0.0)


def test_between_two_points_it_is_their_cost() -> None:
    for mode in MODES:
        value = sinkhorn_divergence(torch.tensor([[3.0]]), torch.tensor([[-1.0]]), epsilon=0.1, mode=mode)
        assert float(value) == pytest.approx(8.0, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_weights_and_unequal_numbers_against_the_primal_problem(
    example: Any, oracle: Callable[..., float], epsilon: float
) -> None:
    x, y, a, b = example

    value = sinkhorn_divergence(x, y, epsilon=epsilon, x_weights=a, y_weights=b)

    assert float(value) == pytest.approx(oracle(x, y, a, b, epsilon), abs=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_a_point_of_weight_zero_is_none_and_one_of_double_weight_is_two(example: Any, mode: str) -> None:
    x, y, a, b = example
    value = sinkhorn_divergence(x, y, epsilon=0.3, x_weights=a, y_weights=b, mode=mode)
    x_more = torch.cat([x, x[:1], x[:1] + 0.5])
    a_more = torch.cat([a / torch.tensor([2.0, 1.0, 1.0, 1.0]), a[:1] / 2, a.new_zeros(1)])

    more = sinkhorn_divergence(x_more, y, epsilon=0.3, x_weights=a_more, y_weights=b, mode=mode)

    torch.testing.assert_close(more, value, rtol=1e-8, atol=0)


def test_potentials_give_a_plan_with_the_right_marginals(example: Any) -> None:
    x, y, a, b = example
    f, g, f_self, g_self = sinkhorn(x, y, epsilon=0.1, x_weights=a, y_weights=b).potentials

    for (u, p, one), (v, q, other) in (
        ((x, a, f), (y, b, g)),
        ((x, a, f_self),) * 2,
        ((y, b, g_self),) * 2,
    ):
        plan = p[:, None] * q * ((one[:, None] + other - torch.cdist(u, v) ** 2 / 2) / 0.1).exp()
        torch.testing.assert_close(plan.sum(dim=1), p, rtol=0, atol=1e-7)
        torch.testing.assert_close(plan.sum(dim=0), q, rtol=0, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_float32_is_float64_to_its_precision(
    make_chain: Callable[..., Tensor], mode: str, weighted: bool
) -> None:
    x, y = make_chain(0.05, 2, 150, 40, seed=1), make_chain(0.05, 2, 130, 40, seed=2)
    a, b = (torch.rand(len(points)) if weighted else torch.ones(len(points)) for points in (x, y))
    options: dict[str, Any] = {"epsilon": 0.5, "mode": mode}

    single = sinkhorn_divergence(x, y, x_weights=a / a.sum(), y_weights=b / b.sum(), **options)
    a, b = a.double(), b.double()
    double = sinkhorn_divergence(
        x.double(), y.double(), x_weights=a / a.sum(), y_weights=b / b.sum(), **options
    )

    assert single.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)


def test_autocast_changes_nothing() -> None:
    x, y = torch.randn(50, 3), torch.randn(60, 3)
    for mode in MODES:
        value = sinkhorn_divergence(x, y, epsilon=1.0, mode=mode)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(sinkhorn_divergence(x, y, epsilon=1.0, mode=mode), value)


def test_a_large_common_offset_costs_no_digits() -> None:
    x, y = torch.randn(50, 3), torch.randn(60, 3)
    value = sinkhorn_divergence(x, y, epsilon=1.0)

    moved = sinkhorn_divergence((x + 4096).round(decimals=3), (y + 4096).round(decimals=3), epsilon=1.0)

    # Points are rounded to 2^-11 there; costs of 4096² would be rounded to 2.
    torch.testing.assert_close(moved, value, rtol=0, atol=2e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coincident_points_have_divergence_and_gradient_zero(mode: str, dtype: torch.dtype) -> None:
    x = torch.full((4, 3), 0.7, dtype=dtype, requires_grad=True)
    y = torch.full((5, 3), 0.7, dtype=dtype, requires_grad=True)

    result = sinkhorn(x, y, epsilon=0.04, mode=mode)
    result.value.backward()

    assert float(result.value.detach()) == 0.0 and result.converged
    for points in (x, y):
        assert points.grad is not None and not points.grad.any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e-4])
def test_nearly_coincident_points_are_no_trouble(mode: str, scale: float) -> None:
    x = (scale * torch.randn(6, 2)).requires_grad_()

    value = sinkhorn_divergence(x, scale * torch.randn(5, 2), epsilon=1.0, mode=mode)
    value.backward()

    assert abs(float(value.detach())) < 1e-6
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_stopping_early_warns_with_error_tolerance_and_remedy(example: Any) -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"max_iters=3 .* error 0\.\d+, above tolerance=1e-06; raise max_iters"
    ) as record:
        result = sinkhorn(example.x, example.y, epsilon=0.04, max_iters=3)

    assert record[0].filename == __file__
    assert not result.converged and result.error > 1e-6 and result.num_iters == 3
    with pytest.warns(ConvergenceWarning) as record:
        sinkhorn_divergence(example.x, example.y, epsilon=0.04, max_iters=3)
    assert record[0].filename == __file__


def test_the_error_is_that_of_the_plan(example: Any) -> None:
    x, y, *_ = example
    for tolerance in (1e-1, 1e-2, 1e-3):
        result = sinkhorn(x.float(), y.float(), epsilon=0.1, tolerance=tolerance)
        f, g = result.potentials.x.double(), result.potentials.y.double()
        plan = ((f[:, None] + g - torch.cdist(x, y) ** 2 / 2) / 0.1).exp() / 20

        errors = (plan.sum(dim=0) - 1 / 5).abs().sum(), (plan.sum(dim=1) - 1 / 4).abs().sum()
        assert float(max(errors)) <= result.error + 1e-5
        assert result.error < tolerance


def test_a_smaller_tolerance_brings_the_value_nearer(example: Any) -> None:
    def value(tolerance: float) -> float:
        x, y = example.x.float(), example.y.float()
        return float(sinkhorn_divergence(x, y, epsilon=0.04, tolerance=tolerance))

    assert abs(value(1e-1) - 0.56225746) > 1e-4
    assert abs(value(1e-6) - 0.56225746) < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_targets_that_serve_twice_transport_themselves_once(
    example: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, a, b = example
    x = x.clone().requires_grad_()
    options: dict[str, Any] = {"epsilon": 0.2, "y_weights": b, "mode": mode, "diameter": 4.0}
    plain = sinkhorn_divergence(x, y, x_weights=a, **options)

    known = self_transport(y, **options)
    value = sinkhorn_divergence(x, y, x_weights=a, y_self=known, **options)

    torch.testing.assert_close(value, plain, rtol=1e-8, atol=0)
    gradients = [torch.autograd.grad(one, x)[0] for one in (plain, value)]
    torch.testing.assert_close(*gradients)


def test_the_name_is_a_function_before_and_after_its_module_is_imported() -> None:
    code = (
        "import torch, seqdyn.ot; x, y = torch.eye(3), 2 * torch.eye(3); "
        "one = seqdyn.ot.sinkhorn(x, y, epsilon=1.0).value; import seqdyn.ot.sinkhorn; "
        "other = seqdyn.ot.sinkhorn(x, y, epsilon=1.0).value; from seqdyn.ot.sinkhorn import sinkhorn; "
        "assert one == other == sinkhorn(x, y, epsilon=1.0).value"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=60)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_gives_the_same(make_chain: Callable[..., Tensor], mode: str) -> None:
    x, y = make_chain(0.05, 2, 300, 40, seed=1), make_chain(0.05, 2, 200, 40, seed=2)
    found = []
    for device in ("cpu", "cuda"):
        points = x.to(device).requires_grad_()
        value = sinkhorn_divergence(points, y.to(device), epsilon=0.5, mode=mode)
        assert value.device.type == device
        found.append((value.cpu(), torch.autograd.grad(value, points)[0].cpu()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)
