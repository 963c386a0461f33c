"""Textbook systems: what is stored beside them holds, and their trajectories are sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqdyn.analysis import lyapunov_spectrum
from seqdyn.data.schema import check_sequences
from seqdyn.datasets import chaos
from seqdyn.dynamics import FlowDynamics

MAKERS = [
    chaos.chua, chaos.duffing, chaos.henon, chaos.ikeda, chaos.logistic, chaos.lorenz, chaos.lorenz96,
    chaos.rossler, chaos.van_der_pol,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_the_stored_fixed_points_are_fixed(make: object) -> None:
    system = make()  # type: ignore[operator]
    points = torch.from_numpy(system.fixed_points)

    if isinstance(system.dynamics, FlowDynamics):
        moved = system.dynamics.drift(points, 0.0)
    else:
        moved = system.dynamics.step(points, None) - points

    assert points.shape[1] == len(system.start) == len(system.features) == system.dynamics.state_size
    np.testing.assert_allclose(moved, 0.0, atol=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_trajectories_are_sequences_that_stay_bounded(make: object) -> None:
    system = make()  # type: ignore[operator]

    data = chaos.trajectory(system, 200, num_series=3, seed=0)

    check_sequences(data)
    assert data.target.shape == (3, 200, len(system.features))
    assert data.feature.values.tolist() == list(system.features)
    assert float(data.time[1] - data.time[0]) == (1.0 if system.step_size is None else system.step_size)
    assert data.attrs["seed"] == 0 and data.attrs["system"] == system.name
    assert not np.array_equal(data.target[0], data.target[1])


def test_a_trajectory_follows_its_map_and_its_seed() -> None:
    system = chaos.henon()

    data, again = (chaos.trajectory(system, 50, num_series=2, seed=1) for _ in range(2))

    x, y = data.target.values[..., 0], data.target.values[..., 1]
    np.testing.assert_allclose(x[:, 1:], 1 - 1.4 * x[:, :-1] ** 2 + y[:, :-1], atol=1e-12)
    assert data.identical(again)
    every = chaos.trajectory(system, 10, num_series=2, sample_every=5, seed=1)
    np.testing.assert_array_equal(every.target, data.target[:, :46:5])
    assert every.time.values.tolist() == [float(5 * i) for i in range(10)]


def test_a_diverging_series_is_refused() -> None:
    with pytest.raises(ValueError, match="series 0 of Hénon diverges; give a smaller spread"):
        chaos.trajectory(chaos.henon(), 10, spread=50.0, seed=0)


def test_exponents_are_left_out_for_other_parameters() -> None:
    assert chaos.lorenz(rho=20.0).exponents == ()
    assert chaos.lorenz().exponents == pytest.approx((0.906, 0.0, -14.57), abs=3e-3)
    assert len(chaos.lorenz(rho=0.5).fixed_points) == 1


def test_the_stored_exponents_have_the_sums_that_the_equations_give() -> None:
    assert sum(chaos.ikeda().exponents) == pytest.approx(2 * math.log(0.9), abs=2e-4)
    assert sum(chaos.henon().exponents) == pytest.approx(math.log(0.3), abs=1e-4)
    assert sum(chaos.duffing().exponents) == pytest.approx(-0.25, abs=1e-4)
    assert sum(chaos.lorenz().exponents) == pytest.approx(-(11 + 8 / 3), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "num_steps", "tolerance"),
    [
        (chaos.ikeda, 2000, 0.004),
        (chaos.rossler, 40_000, 0.02),
        (chaos.duffing, 20_000, 0.02),
        (chaos.chua, 20_000, 0.04),
    ],
)
def test_the_stored_exponents_are_measured(make: object, num_steps: int, tolerance: float) -> None:
    system = make()  # type: ignore[operator]
    start = chaos.trajectory(system, 2, num_series=64, transient=20_000, seed=0).target.values[:, -1]

    data = lyapunov_spectrum(
        system.dynamics, start, num_steps=num_steps, step_size=system.step_size, transient=4000, seed=0
    )

    np.testing.assert_allclose(data.exponent, system.exponents, atol=tolerance)


@pytest.mark.slow
def test_the_largest_exponent_of_lorenz_96_is_the_published_one() -> None:
    system = chaos.lorenz96()
    start = chaos.trajectory(system, 2, num_series=32, transient=2000, seed=0).target.values[:, -1]

    data = lyapunov_spectrum(
        system.dynamics, start, num_steps=1500, num_exponents=2, step_size=0.02, transient=500, seed=0
    )

    assert float(data.exponent[0]) == pytest.approx(system.exponents[0], abs=0.05)
