"""Lyapunov exponents of systems in which they are known (spec check D5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import lyapunov_spectrum, silence
from seqdyn.analysis.lyapunov import kaplan_yorke
from seqdyn.datasets import chaos
from seqdyn.dynamics import FlowDynamics, from_callable
from seqdyn.errors import ConvergenceWarning, NonFiniteError

DOUBLE = torch.float64


def starts(system: chaos.System, count: int, spread: float = 0.01) -> Tensor:
    return torch.tensor(system.start, dtype=DOUBLE) + spread * torch.randn(
        count, len(system.start), dtype=DOUBLE
    )


def test_the_exponents_of_lorenz_are_the_published_ones() -> None:
    system = chaos.lorenz()

    data = lyapunov_spectrum(
        system.dynamics, starts(system, 256), num_steps=2000, step_size=0.02, transient=500, seed=0
    )

    error = np.abs(data.exponent.values - [0.906, 0.0, -14.57])
    assert (error < [0.02, 0.01, 0.05]).all(), data.exponent.values
    assert (data.exponent_se.values < [0.01, 0.004, 0.01]).all()
    # The divergence of the drift is -(σ + 1 + β) everywhere.
    assert data.attrs["sum"] == pytest.approx(-(10 + 1 + 8 / 3), abs=3e-3)
    assert data.attrs["kaplan_yorke"] == pytest.approx(2.062, abs=2e-3)


def test_d5_the_exponents_of_henon() -> None:
    system = chaos.henon()

    data = lyapunov_spectrum(system.dynamics, starts(system, 1000), num_steps=1000, seed=0)

    np.testing.assert_allclose(data.exponent, [0.419, -1.623], atol=0.003)
    assert data.attrs["sum"] == pytest.approx(math.log(0.3), abs=1e-8)
    assert data.attrs["mean_log_det"] == pytest.approx(math.log(0.3), abs=1e-8)


def test_the_exponent_of_the_logistic_map_is_ln_2() -> None:
    system = chaos.logistic()

    data = lyapunov_spectrum(system.dynamics, starts(system, 1000), num_steps=1000, seed=0)

    assert float(data.exponent[0]) == pytest.approx(math.log(2), abs=5e-4)


def test_d5_a_linear_map_has_the_logarithms_of_its_eigenvalues() -> None:
    # Eigenvalues 2, -0.9, 0.3, 0.05 in a skew basis; the directions settle by a factor 0.45 a step.
    basis = torch.randn(4, 4, dtype=DOUBLE)
    values = torch.tensor([2.0, -0.9, 0.3, 0.05], dtype=DOUBLE)
    matrix = basis @ values.diag() @ torch.linalg.inv(basis)
    dynamics = from_callable(lambda h: h @ matrix.mT, 4)

    data = lyapunov_spectrum(dynamics, torch.zeros(4, dtype=DOUBLE), num_steps=200, seed=0)

    np.testing.assert_allclose(data.exponent, values.abs().log(), atol=1e-10)
    assert data.attrs["mean_log_det"] == pytest.approx(float(values.abs().log().sum()), abs=1e-10)


def test_a_linear_flow_has_the_real_parts_per_unit_of_time() -> None:
    # -0.1 ± 3i and -2: rotation by 3 per unit of time averages out exactly, as the turn is an isometry.
    matrix = torch.tensor([[-0.1, -3.0, 0.0], [3.0, -0.1, 0.0], [0.0, 0.0, -2.0]], dtype=DOUBLE)
    flow = FlowDynamics(lambda x, t: x @ matrix.mT, 0.0, 3)

    data = lyapunov_spectrum(flow, np.zeros(3), num_steps=2000, step_size=0.005, transient=2000, seed=0)

    np.testing.assert_allclose(data.exponent, [-0.1, -0.1, -2.0], atol=1e-6)
    np.testing.assert_allclose(data.time[-1], 10.0)


def test_a_flow_that_changes_with_time_is_followed_in_time() -> None:
    # dx/dt = cos(t) x over full periods: the exponent is the mean of cos, zero; at time 0 it would be 1.
    flow = FlowDynamics(lambda x, t: math.cos(t) * x, 0.0, 1)
    step = 2 * math.pi / 100

    data = lyapunov_spectrum(flow, np.ones(1), num_steps=300, step_size=step, transient=100, seed=0)

    assert float(data.exponent[0]) == pytest.approx(0.0, abs=1e-6)


def test_a_scheduled_map_is_followed_through_its_schedule() -> None:
    # 3h for 10 steps, silenced afterwards or never.
    dynamics = from_callable(lambda h: 3 * h, 1)
    options = {"num_steps": 20, "transient": 0, "seed": 0}

    late = lyapunov_spectrum(silence(dynamics, 0, start=100), np.zeros(1), **options)
    early = lyapunov_spectrum(silence(dynamics, 0, start=10), np.zeros(1), **options)

    assert float(late.exponent[0]) == pytest.approx(math.log(3), abs=1e-12)
    assert np.isneginf(early.exponent[0])


def test_the_leading_exponents_are_those_of_the_full_spectrum() -> None:
    system = chaos.lorenz()
    options = {"num_steps": 300, "step_size": 0.02, "transient": 300, "seed": 0}

    few = lyapunov_spectrum(system.dynamics, starts(system, 4), num_exponents=1, **options)

    assert few.sizes["mode"] == 1 and math.isnan(few.attrs["kaplan_yorke"])
    assert "mean_log_det" not in few.attrs
    assert few.finite_time.shape == (4, 1) and few.running.shape == (60, 1)
    np.testing.assert_allclose(few.running[-1], few.exponent)


def test_units_that_fall_silent_have_exponent_minus_infinity() -> None:
    # One unit of three is switched off by its bias; the others are the linear map diag(0.5, 0.25).
    gains = torch.tensor([0.5, 0.25, 0.9], dtype=DOUBLE)
    bias = torch.tensor([1.0, 1.0, -5.0], dtype=DOUBLE)
    dynamics = from_callable(lambda h: torch.relu(gains * h + bias), 3)

    data = lyapunov_spectrum(dynamics, np.ones((2, 3)), num_steps=100, seed=0)

    np.testing.assert_allclose(data.exponent[:2], np.log([0.5, 0.25]), atol=1e-10)
    assert np.isneginf(data.exponent[2]) and np.isnan(data.exponent_se[2])
    assert data.attrs["num_erased"] == 1
    assert data.attrs["sum"] == pytest.approx(math.log(0.125), abs=1e-10)


def test_noise_decides_the_exponents_of_a_driven_map() -> None:
    # tanh(2h + u) has the exponent mean log 2(1 - h²); strong noise saturates it. Two roads: the formula
    # along the trajectory, and the tool.
    dynamics = from_callable(lambda h, u: torch.tanh(2 * h + u), 1, 1)
    noise = torch.randn(64, 400, 1, dtype=DOUBLE)

    data = lyapunov_spectrum(
        dynamics, np.full((64, 1), 0.1), num_steps=300, transient=100, sigma=1.5, noise=noise
    )

    h, growth = torch.full((64, 1), 0.1, dtype=DOUBLE), []
    for step in range(400):
        h = torch.tanh(2 * h + 1.5 * noise[:, step])
        growth.append((2 * (1 - h * h)).log())
    assert float(data.exponent[0]) == pytest.approx(float(torch.stack(growth[100:]).mean()), abs=1e-10)


def test_growth_below_round_off_warns() -> None:
    dynamics = from_callable(lambda h: h * torch.tensor([1.0, 1e-18], dtype=DOUBLE), 2)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=DOUBLE) / math.sqrt(2)
    mixed = from_callable(lambda h: dynamics.step(h @ turn.mT, None) @ turn, 2)

    with pytest.warns(ConvergenceWarning, match="growth factors lie at round-off"):
        lyapunov_spectrum(mixed, np.ones(2), num_steps=10, seed=0)


def test_a_diverging_trajectory_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match="start 1 is not finite"):
        lyapunov_spectrum(chaos.henon().dynamics, [[0.0, 0.0], [9.0, 9.0]], num_steps=50)


def test_the_seed_decides_and_the_random_state_stays() -> None:
    system, state = chaos.henon(), torch.random.get_rng_state()

    first, again = (
        lyapunov_spectrum(system.dynamics, np.zeros((2, 2)), num_steps=50, seed=3) for _ in range(2)
    )

    assert first.identical(again)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_exponents": 3}, "at most the 2 units, got 3"),
        ({"interval": 6}, "interval must be 1 to 5 steps, got 6"),
        ({"step_size": 0.1}, "a map has no step size"),
        ({"num_steps": 0}, "num_steps must be"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lyapunov_spectrum(chaos.henon().dynamics, np.zeros(2), **{"num_steps": 10, **options})


@pytest.mark.parametrize(
    ("exponents", "size", "dimension"),
    [
        ([0.9, 0.0, -14.57], 3, 2 + 0.9 / 14.57),
        ([-0.1, -0.5], 2, 0.0),
        ([0.5, 0.1], 2, 2.0),
        ([0.5, 0.1], 3, math.nan),
        ([0.5, -math.inf], 2, 1.0),
    ],
)
def test_the_kaplan_yorke_dimension(exponents: list[float], size: int, dimension: float) -> None:
    assert kaplan_yorke(np.array(exponents), size) == pytest.approx(dimension, nan_ok=True)
