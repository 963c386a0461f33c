"""Network drifts: the gradient by hand against autograd, precisions, starts, sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqdyn.sde import drifts
from seqdyn.sde.fields import GradientField, MLPDrift, Sum

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "gradient": lambda: GradientField(3, (8, 5)),
    "mlp": lambda: MLPDrift(3, (8, 5)),
    "mlp with time": lambda: MLPDrift(3, (8, 5), time_input=True),
    "sum": lambda: Sum(drifts.Repressilator(10.0, 3.0), GradientField(3, (6,)), MLPDrift(3, (4,))),
}


@pytest.fixture(params=MAKERS)
def drift(request: pytest.FixtureRequest) -> nn.Module:
    return awake(MAKERS[request.param]())


def awake(drift: nn.Module) -> nn.Module:
    """The drift with weights of usual size, where nothing is nearly zero."""
    with torch.no_grad():
        for parameter in drift.parameters():
            if parameter.ndim == 2:
                parameter.copy_(0.7 * torch.randn_like(parameter))
    return drift


def states(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, dtype=dtype) + 0.5


@pytest.mark.parametrize("hidden_sizes", [(7,), (8, 5), (6, 5, 4)])
def test_the_gradient_by_hand_is_the_gradient_of_the_potential(hidden_sizes: tuple[int, ...]) -> None:
    field = awake(GradientField(3, hidden_sizes))
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)

    expected = torch.autograd.grad(field.potential(x).sum(), x)[0]

    assert field.potential(x).shape == (4, 6)
    assert float(expected.abs().min()) > 1e-6
    torch.testing.assert_close(field(x, 0.0), expected, rtol=1e-12, atol=1e-14)


def test_the_drift_is_a_gradient_its_jacobian_is_symmetric_and_equals_finite_differences() -> None:
    field = awake(GradientField(3, (8, 5)))
    x = torch.randn(3, dtype=torch.float64)

    jacobian = torch.func.jacrev(lambda x: field(x, 0.0))(x)

    steps = 1e-6 * torch.eye(3, dtype=torch.float64)
    numerical = torch.stack([(field(x + h, 0.0) - field(x - h, 0.0)) / 2e-6 for h in steps], dim=1)
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(jacobian, numerical, rtol=1e-7, atol=1e-8)
    assert float(jacobian.detach().abs().min()) > 1e-3


def test_parameters_get_the_gradient_that_double_autograd_gives() -> None:
    field = awake(GradientField(2, (6, 5)))
    x = torch.randn(10, 2, dtype=torch.float64, requires_grad=True)
    parameters = list(field.parameters())

    by_hand = torch.autograd.grad(field(x, 0.0).pow(3).sum(), parameters, allow_unused=True)
    slope = torch.autograd.grad(field.potential(x).sum(), x, create_graph=True)[0]
    twice = torch.autograd.grad(slope.pow(3).sum(), parameters, allow_unused=True)

    for first, second in zip(by_hand, twice, strict=True):
        assert first is not None and second is not None
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


def test_third_derivatives_exist() -> None:
    field = awake(GradientField(2, (6, 5)))

    assert torch.autograd.gradgradcheck(lambda x: field(x, 0.0), states(2, 2).requires_grad_())


def test_drifts_work_under_vmap_jvp_and_no_grad(drift: nn.Module) -> None:
    x, direction = states(5, 3), torch.randn(5, 3, dtype=torch.float64)
    value = drift(x, 0.2)

    mapped = torch.func.vmap(lambda row: drift(row, 0.2))(x)
    along = torch.func.jvp(lambda x: drift(x, 0.2), (x,), (direction,))[1]
    with torch.no_grad():
        alone = drift(x, 0.2)

    torch.testing.assert_close(mapped, value)
    torch.testing.assert_close(alone, value)
    assert not alone.requires_grad
    shifted = (drift(x + 1e-6 * direction, 0.2) - drift(x - 1e-6 * direction, 0.2)) / 2e-6
    torch.testing.assert_close(along, shifted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3)])
def test_any_batch_shape_is_a_batch_of_single_states(drift: nn.Module, shape: tuple[int, ...]) -> None:
    x = states(*shape)

    value = drift(x, 0.1)

    assert value.shape == shape and value.dtype == torch.float64
    rows = x.reshape(-1, 3)
    single = [drift(row, 0.1) for row in rows]
    torch.testing.assert_close(value, torch.stack(single).reshape(shape) if single else value)


def test_states_in_single_precision_give_velocities_in_single_precision(drift: nn.Module) -> None:
    x = states(6, 3)

    value = drift(x.float(), 0.1)

    assert value.dtype == torch.float32
    torch.testing.assert_close(value, drift(x, 0.1).float(), rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_every_parameter(drift: nn.Module) -> None:
    drift(states(6, 3), 0.3).square().sum().backward()

    for name, parameter in drift.named_parameters():
        assert parameter.dtype == torch.float64
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("make", [GradientField, MLPDrift])
def test_networks_start_nearly_at_rest_and_equal_for_equal_seeds(make: Callable[..., nn.Module]) -> None:
    torch.manual_seed(3)
    first = make(4)
    torch.manual_seed(3)
    second = make(4)
    other = make(4)

    x = torch.randn(100, 4, dtype=torch.float64)
    assert 0 < float(first(x, 0.0).abs().max()) < 2e-3
    torch.testing.assert_close(first(x, 0.0), second(x, 0.0), rtol=0, atol=0)
    assert not torch.equal(first(x, 0.0), other(x, 0.0))


def test_a_drift_with_time_input_reads_the_time_in_all_its_forms() -> None:
    drift = awake(MLPDrift(3, (8,), time_input=True))
    x = states(5, 3)
    times = torch.linspace(0, 2, 5, dtype=torch.float64)[:, None]

    at_once = drift(x, times)

    for row, time in enumerate(times[:, 0].tolist()):
        torch.testing.assert_close(at_once[row], drift(x[row], time))
        torch.testing.assert_close(at_once[row], drift(x, torch.tensor(time))[row])
    assert not torch.allclose(drift(x, 0.0), drift(x, 1.0))


def test_a_sum_is_the_sum_with_parameters_and_bounds_under_dotted_names() -> None:
    known, rest = drifts.LotkaVolterra(1.0, 0.4, 0.4, 0.1), awake(MLPDrift(2, (5,)))
    both = Sum(known, rest)
    x = states(7, 2)

    torch.testing.assert_close(both(x, 0.0), known(x, 0.0) + rest(x, 0.0))
    names = dict(both.named_parameters())
    assert both.lower_bounds == {f"terms.0.{name}": 0.0 for name in ("alpha", "beta", "gamma", "delta")}
    assert both.lower_bounds.keys() <= names.keys()
    assert names["terms.0.alpha"] is known.alpha


def test_a_sum_in_a_sum_keeps_its_bounds() -> None:
    nested = Sum(Sum(drifts.LotkaVolterra(), drifts.Zero()), drifts.Vortex())

    assert nested.lower_bounds.keys() <= dict(nested.named_parameters()).keys()
    assert {"terms.0.terms.0.alpha", "terms.1.core"} <= nested.lower_bounds.keys()


@pytest.mark.parametrize("make", [GradientField, MLPDrift])
@pytest.mark.parametrize("sizes", [(), (0,), (4, 2.5), 64, (True,)])
def test_wrong_layers_are_refused(make: Callable[..., nn.Module], sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"hidden_sizes must be one or more whole numbers.*\(64, 64\)"):
        make(2, sizes)


@pytest.mark.parametrize("make", [GradientField, MLPDrift])
def test_a_drift_of_no_features_is_refused(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="num_features must be a whole number of at least 1, got 0"):
        make(0)


@pytest.mark.parametrize("terms", [(), (lambda x, t: x,)])
def test_a_sum_of_nothing_or_of_functions_is_refused(terms: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"Sum\(LotkaVolterra\(\), MLPDrift\(2\)\)"):
        Sum(*terms)


def test_the_networks_are_found_among_the_drifts() -> None:
    assert drifts.GradientField is GradientField
    assert drifts.MLPDrift is MLPDrift
    assert drifts.Sum is Sum
