"""The reference run: what is counted, from where it starts, what drove it; and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn.analysis import (
    autonomous_dynamics,
    composition,
    fixed_points,
    group_effect,
    kick_units,
    orbit,
    readout_axes,
    reference_run,
    regimes,
    residence,
    speed_field,
)
from seqdyn.dynamics import FlowDynamics, MapDynamics, from_callable, from_torch, simulate
from seqdyn.errors import NonFiniteError

STARTS = torch.arange(24.0).reshape(4, 6) / 24


@pytest.fixture
def dynamics() -> MapDynamics:
    return from_torch(nn.RNN(2, 6), nn.Linear(6, 3))


def test_steps_count_over_all_chains_and_are_rounded_up(dynamics: MapDynamics) -> None:
    run = reference_run(dynamics, num_steps=100, num_chains=8, burn_in=5, seed=0)

    assert run.hidden.shape == (8, 14, 6) and run.noise.shape == (8, 13, 2)
    assert run.symbol is not None and run.symbol.shape == (8, 14)
    assert torch.equal(run.states, run.hidden[:, 1:])


def test_the_recorded_noise_leads_from_state_to_state(dynamics: MapDynamics) -> None:
    u = torch.tensor([0.5, -1.0])

    run = reference_run(dynamics, num_steps=100, num_chains=8, burn_in=5, sigma=0.3, input=u, seed=0)

    torch.testing.assert_close(dynamics.step(run.hidden[:, :-1], run.noise), run.states)
    assert dynamics.readout is not None
    assert torch.equal(run.symbol, dynamics.readout(run.hidden).argmax(-1))
    assert float((run.noise - u).std()) == pytest.approx(0.3, rel=0.2)


def test_a_run_is_a_roll_out_under_the_same_seed(dynamics: MapDynamics) -> None:
    state = torch.random.get_rng_state()

    run = reference_run(dynamics, num_steps=12, burn_in=7, start=STARTS, seed=3)

    assert torch.equal(run.states, simulate(dynamics, STARTS, 3, sigma=1.0, burn_in=7, seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_state_starts_all_chains_and_several_set_their_number(dynamics: MapDynamics) -> None:
    one = reference_run(dynamics, num_steps=12, num_chains=3, burn_in=0, start=STARTS[1])
    many = reference_run(dynamics, num_steps=12, num_chains=64, burn_in=0, start=STARTS)

    assert torch.equal(one.hidden[:, 0], STARTS[1].expand(3, 6)) and one.hidden.shape == (3, 5, 6)
    assert torch.equal(many.hidden[:, 0], STARTS) and many.hidden.shape == (4, 4, 6)


def test_flows_and_maps_without_readout_have_no_symbols() -> None:
    flow = FlowDynamics(lambda x, t: -x, 0.5, 2)
    run = reference_run(flow, num_steps=80, num_chains=8, burn_in=3, step_size=0.1, seed=0)

    assert run.symbol is None
    moved = run.hidden[:, :-1] * 0.9 + 0.1**0.5 * run.noise
    torch.testing.assert_close(run.states, moved)
    assert reference_run(from_callable(lambda h: h, 2), num_steps=8, sigma=0.0).symbol is None


def test_sampled_symbols_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, np.log(3.0)])
    fixed = from_callable(lambda h, u: 0 * h, 1, 1, lambda h: logits.expand(*h.shape[:-1], 2))

    run = reference_run(fixed, num_steps=20_000, symbol="sampled", seed=0)

    assert run.symbol is not None
    assert float(run.symbol.double().mean()) == pytest.approx(0.75, abs=4 * (0.1875 / 20_000) ** 0.5)
    with pytest.raises(ValueError, match="'argmax' or 'sampled'"):
        reference_run(fixed, num_steps=64, symbol="drawn")  # type: ignore[arg-type]


TOOLS: dict[str, Callable[..., xr.Dataset]] = {
    "autonomous_dynamics": lambda d, **o: autonomous_dynamics(d, STARTS, num_steps=20, seed=0, **o),
    "orbit": lambda d, **o: orbit(d, num_steps=800, num_shuffles=5, seed=0, **o),
    "readout_axes": lambda d, **o: readout_axes(d, num_steps=800, seed=0, **o),
    "speed_field": lambda d, **o: speed_field(d, num_steps=800, num_bins=4, seed=0, **o),
}


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_a_run_and_its_states_can_be_given(name: str, dynamics: MapDynamics) -> None:
    run = reference_run(dynamics, num_steps=800, seed=0)

    found = TOOLS[name](dynamics, reference=run)

    xr.testing.assert_identical(found, TOOLS[name](dynamics, reference=run.states))
    if name in ("orbit", "readout_axes"):  # which make the same run under the same seed
        np.testing.assert_array_equal(found["mean"], TOOLS[name](dynamics)["mean"])


def unstable() -> MapDynamics:
    return from_callable(lambda h, u: 1e9 * h + u, 2, 2, lambda h: h, preactivation=lambda h, u: 1e9 * h + u)


@pytest.mark.parametrize(
    "tool",
    [
        lambda d: reference_run(d, num_steps=64),
        lambda d: regimes(d, num_steps=64),
        lambda d: kick_units(d, num_steps=64),
        lambda d: group_effect(d, [0], num_steps=64, num_random=1),
        lambda d: orbit(d),
        lambda d: speed_field(d),
        lambda d: composition(d),
    ],
)
def test_divergence_is_an_error_of_its_own(tool: Callable[[MapDynamics], Any]) -> None:
    with pytest.raises(NonFiniteError, match="left the finite numbers in 64 of 64|in 32 of 32"):
        tool(unstable())


def test_too_few_steps_say_what_to_type(dynamics: MapDynamics) -> None:
    with pytest.raises(ValueError, match=r"fewer than 3 steps; type num_steps=192 or more"):
        orbit(dynamics, num_steps=100)
    with pytest.raises(ValueError, match=r"start must be \(unit\) or \(chain, unit\)"):
        reference_run(dynamics, num_steps=9, start=torch.zeros(2, 2, 6))


@pytest.mark.parametrize("input", [None, torch.tensor([0.5, -0.5])])
def test_a_function_in_double_precision_needs_no_more_words(input: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    inputs, out = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))

    def drive(h: Tensor, u: Tensor) -> Tensor:  # einsum says "scalar type", where others say "dtype"
        return torch.einsum("ij,...j->...i", weights, h) + torch.einsum("ij,...j->...i", inputs, u)

    dynamics = from_callable(
        lambda h, u: torch.tanh(drive(h, u)), 4, 2, lambda h: h @ out, preactivation=drive, input=input
    )

    assert reference_run(dynamics, num_steps=64, input=None).hidden.dtype == torch.float64
    states = torch.zeros(3, 4, dtype=torch.float64)
    for found in (
        kick_units(dynamics, num_steps=2000, min_switches=1, num_states=20),
        residence(dynamics, states, num_runs=2),
        autonomous_dynamics(dynamics, num_starts=3, num_steps=10),
        fixed_points(dynamics, states),
    ):
        assert found.attrs["dtype"] == "float64"
    with pytest.raises(ValueError, match=r"start\.to\(torch\.float64\)"):
        fixed_points(dynamics, states.float())
