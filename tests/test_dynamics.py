"""Dynamics objects: wrapped networks against torch, roll-outs, schedules, checks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqdyn import analysis
from seqdyn.dynamics import FlowDynamics, MapDynamics, from_callable, from_torch, simulate
from seqdyn.dynamics.flows import runge_kutta
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.dynamics.maps import activation_of, example
from seqdyn.dynamics.symbols import gumbel_like, symbols_of
from seqdyn.models import HMMRNN


def rectifier(bias: bool = False, size: int = 6, inputs: int = 2) -> MapDynamics:
    return from_torch(nn.RNN(inputs, size, nonlinearity="relu", bias=bias).double())


def joined(state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """State of a torch network as the dynamics object holds it: layers, and h and c, side by side."""
    parts = state if isinstance(state, tuple) else (state,)
    return torch.cat([part[layer] for layer in range(len(parts[0])) for part in parts], dim=-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_wrapped_network_steps_as_torch_does(kind: type[nn.RNNBase], layers: int, bias: bool) -> None:
    module = kind(3, 5, num_layers=layers, bias=bias, batch_first=True).double()
    readout = nn.Linear(5, 2).double()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    output, state = module(x)
    dynamics = from_torch(module, readout)

    h = x.new_zeros(4, dynamics.state_size)
    for u in x.unbind(1):
        h = dynamics.step(h, u)

    torch.testing.assert_close(h, joined(state))
    torch.testing.assert_close(dynamics.readout(h), readout(output[:, -1]))


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_wrapped_cell_steps_as_torch_does(kind: type[nn.RNNCellBase]) -> None:
    cell = kind(3, 5)
    x, h = torch.randn(4, 3), torch.randn(4, 5)
    state = (h, torch.randn(4, 5)) if kind is nn.LSTMCell else h
    after = cell(x, state)

    found = from_torch(cell).step(torch.cat(state, 1) if isinstance(state, tuple) else state, x)

    torch.testing.assert_close(found, torch.cat(after, 1) if isinstance(after, tuple) else after)


def test_simulating_under_an_input_is_running_the_network_on_it() -> None:
    module = nn.GRU(2, 4, batch_first=True)
    u = torch.tensor([0.3, -1.0])

    hidden = simulate(from_torch(module), torch.zeros(3, 4), 6, input=u)

    torch.testing.assert_close(hidden, module(u.expand(3, 6, 2))[0].detach())


def test_the_copy_is_frozen_and_the_module_untouched() -> None:
    module = nn.GRU(2, 4, dropout=0.0).train()
    dynamics, h = from_torch(module), torch.randn(3, 4)
    before = dynamics.step(h, None)

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()

    assert torch.equal(dynamics.step(h, None), before) and not before.requires_grad
    assert module.training and all(parameter.requires_grad for parameter in module.parameters())


def test_a_gru_without_input_is_one_with_zeros() -> None:
    dynamics, h = from_torch(nn.GRU(2, 4)), torch.randn(3, 4)

    torch.testing.assert_close(dynamics.step(h, None), dynamics.step(h, torch.zeros(3, 2)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 2), "got Linear; give the recurrent layer"),
        (nn.GRU(2, 2, bidirectional=True), "bidirectional"),
        (nn.LSTM(2, 4, proj_size=2), "proj_size=2"),
    ],
)
def test_other_modules_are_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_torch(module)


def test_only_one_plain_layer_has_a_preactivation() -> None:
    assert from_torch(nn.GRU(2, 3)).preactivation is None
    assert from_torch(nn.RNN(2, 3, num_layers=2)).preactivation is None
    dynamics, h, u = from_torch(nn.RNNCell(2, 3)), torch.randn(4, 3), torch.randn(4, 2)
    assert dynamics.preactivation is not None
    torch.testing.assert_close(torch.tanh(dynamics.preactivation(h, u)), dynamics.step(h, u))


def test_a_function_of_the_state_alone_is_a_map() -> None:
    dynamics = from_callable(lambda h: 0.5 * h, 2)

    hidden = simulate(dynamics, [1.0, -2.0], 3)

    torch.testing.assert_close(hidden, torch.tensor([[0.5, -1.0], [0.25, -0.5], [0.125, -0.25]]).to(hidden))


def test_a_function_with_inputs_sees_zeros_where_there_are_none() -> None:
    weights = torch.eye(2, dtype=torch.float64)
    dynamics = from_callable(lambda h, u: h @ weights + u, 2, 2)
    h = torch.ones(3, 2, dtype=torch.float64)

    assert torch.equal(dynamics.step(h, None), h)
    assert example(dynamics).dtype == torch.float64


def test_a_function_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"turned \(2, 3\) into \(2,\)"):
        from_callable(lambda h: h.sum(-1), 3)


def test_d1_a_rectifier_without_biases_scales_with_its_noise_to_the_last_bit() -> None:
    noise = torch.randn(5, 40, 2, dtype=torch.float64)
    start = torch.rand(5, 6, dtype=torch.float64)

    for bias, same in ((False, True), (True, False)):
        dynamics = rectifier(bias)
        once = simulate(dynamics, start, 40, sigma=0.5, noise=noise)
        assert torch.equal(simulate(dynamics, 4 * start, 40, sigma=2.0, noise=noise), 4 * once) is same
        assert is_homogeneous(dynamics, start) is same
    assert not is_homogeneous(from_torch(nn.RNN(2, 6, bias=False).double()), start)
    assert is_homogeneous(from_callable(lambda h: 0.5 * h, 6), start)
    driven = torch.ones(2, dtype=torch.float64)
    assert not is_homogeneous(rectifier(), start, driven) and is_homogeneous(rectifier(), start, 0 * driven)
    assert not is_homogeneous(dataclasses.replace(rectifier(), input=driven), start)


def test_the_nonlinearity_is_recognised_or_asked_for() -> None:
    like = torch.zeros(1, 4)
    for known in (torch.relu, torch.tanh):
        dynamics = from_callable(lambda h, f=known: f(2 * h), 4, preactivation=lambda h: 2 * h)
        assert activation_of(dynamics, like)[1] is known
    odd = from_callable(lambda h: torch.sigmoid(2 * h), 4, preactivation=lambda h: 2 * h)
    with pytest.raises(ValueError, match=r"dataclasses\.replace\(dynamics, activation=torch\.sigmoid\)"):
        activation_of(odd, like)
    assert activation_of(dataclasses.replace(odd, activation=torch.sigmoid), like)[1] is torch.sigmoid
    with pytest.raises(ValueError, match="no preactivation"):
        activation_of(from_torch(nn.GRU(2, 4)), like)


def test_noise_is_drawn_under_the_seed_and_acts_from_the_first_step() -> None:
    dynamics, start = rectifier(), torch.zeros(3, 6, dtype=torch.float64)
    state = torch.random.get_rng_state()

    first, again, other = (simulate(dynamics, start, 5, sigma=1.0, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bool(first[:, 0].any())


def test_burning_in_leaves_out_the_first_steps() -> None:
    dynamics, start = rectifier(), torch.rand(3, 6, dtype=torch.float64)

    all_steps = simulate(dynamics, start, 9, sigma=1.0, seed=1)

    assert torch.equal(simulate(dynamics, start, 5, burn_in=4, sigma=1.0, seed=1), all_steps[:, 4:])
    assert torch.equal(simulate(dynamics, start, 5, burn_in=4, sigma=1.0, seed=1)[:, -1], all_steps[:, -1])


def test_the_own_input_of_a_map_holds_where_none_is_given() -> None:
    dynamics, u = rectifier(), torch.tensor([1.0, 2.0], dtype=torch.float64)
    start = torch.rand(3, 6, dtype=torch.float64)

    own = simulate(dataclasses.replace(dynamics, input=u), start, 4)

    assert torch.equal(own, simulate(dynamics, start, 4, input=u))
    assert torch.equal(own, simulate(dynamics, start, 4, input=u.expand(3, 2)))


def test_a_flow_is_integrated_to_fourth_order() -> None:
    decay = FlowDynamics(lambda x, t: -x, 0.0, 1)
    errors = []
    for num_steps in (10, 20):
        end = simulate(decay, np.ones((1, 1)), num_steps, step_size=1 / num_steps)[0, -1, 0]
        errors.append(abs(float(end) - np.exp(-1)))

    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)


def test_a_flow_sees_its_time() -> None:
    # dx/dt = t from 0 has x(1) = 1/2; Runge-Kutta is exact for it.
    flow = FlowDynamics(lambda x, t: torch.full_like(x, t), 0.0, 1)

    assert float(simulate(flow, np.zeros((1, 1)), 4, step_size=0.25)[0, -1, 0]) == pytest.approx(0.5)
    assert float(runge_kutta(flow.drift, torch.zeros(1), 1.0, 1.0)) == pytest.approx(1.5)


def test_the_noise_of_a_flow_has_the_variance_of_its_volatility() -> None:
    # A Wiener process at time 1: variance g², 4000 paths; the standard error of it is g² sqrt(2/4000).
    flow = FlowDynamics(lambda x, t: torch.zeros_like(x), 0.7, 1)

    end = simulate(flow, np.zeros((4000, 1)), 20, step_size=0.05, sigma=1.0, seed=0)[:, -1, 0]

    assert float(end.var()) == pytest.approx(0.49, abs=4 * 0.49 * np.sqrt(2 / 4000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": np.zeros((2, 5))}, r"hidden must have 6 columns, .* shape \(2, 5\)"),
        ({"hidden": np.full((2, 6), np.nan)}, "2 of 2 states with NaN"),
        ({"hidden": np.zeros((2, 6), dtype=np.float32)}, r"hidden\.to\(torch\.float64\)"),
        ({"hidden": np.zeros((2, 6), dtype=int)}, r"type hidden\.float\(\)"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1"),
        ({"sigma": -1.0}, "sigma must be a standard deviation"),
        ({"sigma": 1.0, "noise": torch.zeros(2, 4, 1)}, r"noise must have shape \(2, 4, 2\)"),
        ({"noise": torch.zeros(2, 4, 2)}, "sigma, which is 0"),
        ({"input": np.zeros(3)}, "input must have 2 columns"),
        ({"input": np.full(2, np.inf)}, "input holds NaN or infinity"),
        ({"step_size": 0.1}, "a map has no step size"),
    ],
)
def test_a_roll_out_checks_its_arguments(options: dict[str, object], message: str) -> None:
    arguments = {"hidden": np.zeros((2, 6)), "num_steps": 4, **options}

    with pytest.raises(ValueError, match=message):
        simulate(rectifier(), **arguments)  # type: ignore[arg-type]


def test_systems_that_cannot_take_an_argument_say_so() -> None:
    autonomous = from_callable(lambda h: h, 2)
    with pytest.raises(ValueError, match="take no input"):
        simulate(autonomous, np.zeros((1, 2)), 2, input=np.zeros(1))
    with pytest.raises(ValueError, match="sigma= acts on the inputs"):
        simulate(autonomous, np.zeros((1, 2)), 2, sigma=1.0)
    with pytest.raises(ValueError, match=r"type step_size=0\.01"):
        simulate(FlowDynamics(lambda x, t: x, 0.0, 2), np.zeros((1, 2)), 2)
    with pytest.raises(ValueError, match=r"got GRU; use model\.dynamics\(\)"):
        simulate(nn.GRU(2, 2), np.zeros((1, 2)), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one value for each of the 0 inputs"):
        dataclasses.replace(autonomous, input=torch.zeros(2))


def test_what_is_wrong_in_either_precision_is_said_by_the_step_itself() -> None:
    weights = torch.zeros(3, 3)
    broken = MapDynamics(lambda h, u: h @ weights, None, 2, 0)

    with pytest.raises(RuntimeError, match="shapes"):
        simulate(broken, torch.zeros(1, 2), 1)
    with pytest.raises(ValueError, match="neither in float32 nor in float64: mat1 and mat2 shapes"):
        example(broken)
    with pytest.raises(ValueError, match=r"it returns torch\.int64 for torch\.float32"):
        from_callable(lambda h: h.long(), 2)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_trained_network_names_its_nonlinearity(name: str) -> None:
    dynamics, h, u = HMMRNN(3, 8, 2, activation=name).dynamics(), torch.randn(5, 8), torch.randn(5, 2)

    assert dynamics.activation is getattr(torch, name) and dynamics.preactivation is not None
    assert torch.equal(dynamics.activation(dynamics.preactivation(h, u)), dynamics.step(h, u))


def test_symbols_are_the_likeliest_or_drawn_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(30_000, 3)

    drawn = symbols_of(logits, "sampled")

    assert symbols_of(logits[:2]).tolist() == [2, 2]
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(share, logits[0].softmax(0), atol=4 * 0.5 / 30_000**0.5, rtol=0)
    shared = gumbel_like(logits)
    assert torch.equal(symbols_of(logits, "sampled", shared), symbols_of(logits, "sampled", shared))


class _Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.dropout = nn.GRUCell(2, 5), nn.Dropout(0.5)

    def forward(self, h: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return self.cell(u, h)


CELL = _Cell()
BAD_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, str]] = {
    "detached": (lambda h: torch.tanh(2 * h).detach(), 0, "not that of its values"),
    "no_grad": (torch.no_grad()(lambda h: torch.tanh(2 * h)), 0, "Remove torch.no_grad"),
    "no_grad cell": (torch.no_grad()(CELL), 2, "Remove torch.no_grad"),
    "random": (lambda h: CELL.dropout(torch.tanh(h)), 0, "nor draw random numbers"),
    "branching": (lambda h: torch.tanh(h) if h.sum() > 0 else h, 0, "neither branch on values"),
    "arity": (lambda h, u: h, 0, r"TypeError.*It must take h \(..., 5\), tensors"),
    "arity with input": (lambda h: h, 2, r"must take h \(..., 5\) and u \(..., 2\)"),
    "one state": (lambda h: h[0], 0, "write it for batches of states"),
    "logarithm": (torch.log, 0, "not finite at random states"),
    "input cut off": (
        lambda h, u: torch.tanh(h + (u @ torch.ones(2, 5)).detach()),
        2,
        "not that of its values",
    ),
    "attribute": (lambda h: h.nothing, 0, "step failed on a batch of two states: AttributeError"),
}


@pytest.mark.parametrize("name", BAD_FUNCTIONS)
def test_a_function_whose_derivative_is_not_its_own_is_refused(name: str) -> None:
    step, inputs, message = BAD_FUNCTIONS[name]

    with pytest.raises(ValueError, match=message):
        from_callable(step, 5, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinks_steps_and_flat_parts_are_no_wrong_derivative(dtype: torch.dtype) -> None:
    weights = 2 * torch.randn(5, 5, dtype=dtype)

    for step in (lambda h: torch.relu(h @ weights), lambda h: (h @ weights).sign(), torch.zeros_like):
        assert from_callable(step, 5).state_size == 5


@pytest.mark.parametrize(
    "readout", [nn.Linear(4, 2), nn.Linear(5, 2).double(), lambda h: h.unknown, lambda h, u: h]
)
def test_a_readout_that_does_not_take_the_state_is_refused(readout: Any) -> None:
    with pytest.raises(ValueError, match=r"readout failed on .* two states \(2, 5\) in torch.float32"):
        from_torch(nn.GRU(3, 5), readout)


@pytest.mark.parametrize("readout", [lambda h: h[..., 0], lambda h: h.sum(), lambda h: "high"])
def test_a_readout_without_an_axis_of_outputs_is_refused(readout: Any) -> None:
    with pytest.raises(ValueError, match=r"outputs \(..., K\), but turned \(2, 5\) into"):
        from_callable(torch.tanh, 5, 0, readout)


def test_a_cell_of_torch_is_called_with_plain_batches_only() -> None:
    cell = nn.GRUCell(2, 5)
    dynamics = from_callable(lambda h, u: cell(u, h), 5, 2)
    h, u = torch.randn(3, 4, 5), torch.randn(4, 2)

    found = dynamics.step(h, u)

    torch.testing.assert_close(found[1], cell(u, h[1]))
    torch.testing.assert_close(dynamics.step(h[0, 0], None), cell(torch.zeros(1, 2), h[0, :1])[0])


def test_a_drive_that_is_not_that_of_the_step_is_refused() -> None:
    weights = torch.randn(3, 3)
    with pytest.raises(ValueError, match=r"step\(h, u\) is not activation\(preactivation\(h, u\)\)"):
        from_callable(
            lambda h: torch.tanh(h @ weights),
            3,
            preactivation=lambda h: 3 * h @ weights,
            activation=torch.tanh,
        )


def test_a_scheduled_map_is_changed_once_and_known_to_every_tool() -> None:
    weights = torch.randn(3, 3, dtype=torch.float64)
    dynamics = MapDynamics(lambda h, u: torch.tanh(h @ weights), None, 3, 0, lambda h, u: h @ weights)
    scheduled = analysis.silence(dynamics, [0], start=10)

    assert scheduled.at(20) is scheduled.at(30) and scheduled.at(3) is dynamics
    spectrum = analysis.lyapunov_spectrum(
        scheduled, torch.ones(3, dtype=torch.float64), num_steps=200, seed=0
    )
    always = analysis.lyapunov_spectrum(
        analysis.silence(dynamics, [0]), torch.ones(3, dtype=torch.float64), num_steps=200, seed=0
    )
    np.testing.assert_allclose(spectrum.exponent[:2], always.exponent[:2], atol=0.05)


@pytest.mark.parametrize("tool", ["fixed_points", "jacobian", "local_spectra", "speed_field"])
def test_what_asks_about_one_system_refuses_one_that_changes_with_time(tool: str) -> None:
    flow = FlowDynamics(lambda x, t: 5 * math.cos(t) - x, 0.0, 2)
    states = torch.zeros(3, 2)
    options = (
        {"num_steps": 640, "sigma": 0.0, "step_size": 0.01} if tool == "speed_field" else {"hidden": states}
    )
    options = {"start": states} if tool == "fixed_points" else options

    with pytest.raises(ValueError, match="the drift depends on time"):
        getattr(analysis, tool)(flow, **options)


@pytest.mark.parametrize("tool", ["growth_rate", "mean_map", "drive_matrices", "cone_growth", "silence"])
def test_what_needs_a_map_says_how_to_make_one_of_a_flow(tool: str) -> None:
    arguments = {
        "mean_map": {"sigma": 1.0},
        "silence": {"units": [0]},
        "growth_rate": {"start": torch.zeros(1, 2)},
    }

    with pytest.raises(ValueError, match="a map is needed here, got a flow; wrap one step of it"):
        getattr(analysis, tool)(
            FlowDynamics(lambda x, t: -x, 0.0, 2), **arguments.get(tool, {"like": torch.zeros(1)})
        )
