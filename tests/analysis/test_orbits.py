"""Phase, winding and swept area against a rotation with noise, for which all are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import orbit
from seqdyn.analysis.orbits import winding
from seqdyn.dynamics.maps import MapDynamics

ANGLE, DECAY = 0.3, 0.95


def rotation(angle: float, readout: bool = False) -> MapDynamics:
    turn = DECAY * torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return h @ turn.T if u is None else h @ turn.T + u

    return MapDynamics(step, (lambda h: 5 * h) if readout else None, 2, 2)


def test_a_circle_winds_by_its_angle() -> None:
    time = 0.4 * torch.arange(1000, dtype=torch.float64)
    circle = torch.stack([time.cos(), time.sin()], dim=1)[None]
    circle = torch.cat([circle, -circle])  # the mean of both is zero

    found = winding(circle)

    torch.testing.assert_close(found.velocity, torch.full((2,), 0.4, dtype=torch.float64))
    torch.testing.assert_close(found.phase[0], time)
    torch.testing.assert_close(found.area, torch.full((2, 999), 0.5 * math.sin(0.4), dtype=torch.float64))


@pytest.mark.parametrize("angle", [ANGLE, -ANGLE])
def test_a_noisy_rotation_has_the_known_area_rate(angle: float) -> None:
    r"""E[u v' - v u'] / 2 = decay sin(angle) Var / 2 per coordinate pair, Var = 1 / (1 - decay^2) each."""
    found = orbit(rotation(angle), num_chains=200, num_steps=100_000, seed=0)

    variance = 1 / (1 - DECAY**2)
    exact = DECAY * math.sin(angle) * variance
    # The plane may be mirrored: the sign of its handedness goes with it.
    handed = np.linalg.det(found.component)
    # Standard error from the spread of 200 chains is about 0.02.
    assert float(found.area_rate) * handed == pytest.approx(exact, abs=0.1)
    # Symmetric noise turns the angle to either side alike; rare passages by the centre wash it out.
    assert float(found.angular_velocity) * handed == pytest.approx(angle, rel=0.1)
    assert float(found.winding_rate) == pytest.approx(1000 * float(found.angular_velocity) / (2 * math.pi))
    low, high = found.angular_velocity_interval.values
    assert low < float(found.angular_velocity) < high
    assert (found.p_value < 0.01).all()


def test_without_rotation_neither_null_is_left() -> None:
    found = orbit(rotation(0.0), num_chains=100, num_steps=30_000, seed=0)

    assert (found.p_value > 0.05).all()  # false alarms: 5 % each, at this fixed seed none
    assert abs(float(found.directedness)) < 0.05


def test_the_nulls_have_the_spread_of_the_area_rate() -> None:
    rates, widths = [], []
    for seed in range(20):
        found = orbit(rotation(0.0), num_chains=30, num_steps=9000, num_shuffles=100, seed=seed)
        rates.append(float(found.area_rate))
        widths.append(found.area_rate_null.std("shuffle").values)

    # The standard deviation of 20 rates is known to 16 %.
    np.testing.assert_allclose(np.mean(widths, axis=0), np.std(rates), rtol=0.5)


def test_profiles_of_a_rotation_are_flat_and_name_the_symbol() -> None:
    found = orbit(rotation(ANGLE, readout=True), num_chains=200, num_steps=100_000, num_bins=8, seed=0)

    np.testing.assert_allclose(found.profile_occupancy, 1 / 8, rtol=0.1)
    assert float(found.profile_occupancy.sum()) == pytest.approx(1)
    radius = math.sqrt(2 * math.log(2) / (1 - DECAY**2))  # median of a Rayleigh law
    np.testing.assert_allclose(found.profile_radius, radius, rtol=0.1)
    np.testing.assert_allclose(found.profile_phase_speed, found.angular_velocity, rtol=0.25)
    np.testing.assert_allclose(found.profile_prob.sum("output"), 1)
    # The first output is the first unit, and its phase that of the direction (1, 0) in the plane.
    best = float(found.phase_bin[int(np.argmax(found.profile_prob.values[:, 0]))])
    direction = found.component.values @ [1.0, -1.0]
    assert math.cos(best - math.atan2(direction[1], direction[0])) > 0.7


def test_a_still_system_has_a_reason() -> None:
    found = orbit(
        MapDynamics(lambda h, u: h, None, 3, 0), start=torch.zeros(4, 3), sigma=0.0, num_steps=40, burn_in=0
    )

    assert "nothing moves" in found.attrs["reason"]
    assert np.isnan(found.directedness)


def test_other_components_can_be_looked_at() -> None:
    turn = rotation(ANGLE)

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        u = torch.zeros_like(h) if u is None else u
        return torch.cat([0.99 * h[..., :1] + 3 * u[..., :1], turn.step(h[..., 1:], u[..., 1:])], dim=-1)

    dynamics = MapDynamics(step, None, 3, 3)
    runs = {axes: orbit(dynamics, axes=axes, start=torch.zeros(64, 3, dtype=torch.float64), seed=0)
            for axes in ((1, 2), (2, 3))}  # fmt: skip

    assert abs(float(runs[2, 3].winding_rate)) > 5 * abs(float(runs[1, 2].winding_rate))
    with pytest.raises(ValueError, match=r"axes must be the numbers of two components"):
        orbit(dynamics, axes=(0, 1))


def test_given_runs_are_taken_as_they_are() -> None:
    runs = torch.randn(5, 40, 2, dtype=torch.float64)

    found = orbit(rotation(ANGLE), reference=runs, seed=0)

    centred = (runs - runs.flatten(0, 1).mean(0)).numpy()
    np.testing.assert_allclose(found.scores, centred @ found.component.values.T)
    with pytest.raises(ValueError, match="at least 3 steps"):
        orbit(rotation(ANGLE), reference=runs[:, :2])
