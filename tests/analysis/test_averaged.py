"""The noise-averaged map against closed forms and draws (spec check D6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from seqdyn.analysis import fixed_points, jacobian, mean_map, silence
from seqdyn.analysis.stability import kinked
from seqdyn.dynamics import from_callable, from_torch

DOUBLE = torch.float64


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_d6_the_average_is_that_of_a_million_draws(nonlinearity: str) -> None:
    # 5 standard errors at 8 units: false-alarm rate below 1e-5; fixed seed.
    dynamics = from_torch(nn.RNN(3, 8, nonlinearity=nonlinearity).double())
    h = torch.randn(8, dtype=DOUBLE)
    draws = torch.cat([dynamics.step(h, 1.3 * torch.randn(100_000, 3, dtype=DOUBLE)) for _ in range(10)])

    mean = mean_map(dynamics, 1.3).step(h, None)

    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert bool(((draws.mean(dim=0) - mean).abs() < 5 * error).all())


def test_the_slope_of_the_averaged_rectifier_is_the_share_of_active_draws() -> None:
    module = nn.RNN(3, 8, nonlinearity="relu").double()
    dynamics, h = from_torch(module), torch.randn(8, dtype=DOUBLE)
    drive = dynamics.preactivation
    assert drive is not None

    found = jacobian(mean_map(dynamics, 0.8), h)

    spread = 0.8 * module.weight_ih_l0.detach().norm(dim=1)
    slope = torch.special.ndtr(drive(h, None) / spread)
    torch.testing.assert_close(found, slope[:, None] * module.weight_hh_l0.detach())


def test_quadrature_is_exact_for_a_polynomial() -> None:
    # E (m + s ξ)³ = m³ + 3 m s²; the input weight is 0.5, so s = σ / 2.
    dynamics = from_callable(
        lambda h, u: (h + 0.5 * u) ** 3,
        1,
        1,
        preactivation=lambda h, u: h + 0.5 * u,
        activation=lambda z: z**3,
    )
    h = torch.linspace(-2, 2, 9, dtype=torch.float32)[:, None]

    torch.testing.assert_close(mean_map(dynamics, 2.0).step(h, None), h**3 + 3 * h)


def test_without_noise_the_average_is_the_map() -> None:
    dynamics, h = from_torch(nn.RNN(2, 5, nonlinearity="relu")), torch.randn(4, 5)

    torch.testing.assert_close(mean_map(dynamics, 0.0).step(h, None), dynamics.step(h, None))


def test_units_without_input_keep_the_rectifier_and_finite_slopes() -> None:
    module = nn.RNN(2, 5, nonlinearity="relu").double()
    with torch.no_grad():
        module.weight_ih_l0[0] = 0.0
    dynamics, h = from_torch(module), torch.randn(4, 5, dtype=DOUBLE)
    averaged = mean_map(dynamics, 1.0)

    torch.testing.assert_close(averaged.step(h, None)[:, 0], dynamics.step(h, None)[:, 0])
    assert bool(jacobian(averaged, h).isfinite().all())
    torch.testing.assert_close(jacobian(averaged, h)[:, 0], jacobian(dynamics, h)[:, 0])


def test_silencing_and_averaging_commute_and_averages_add_up() -> None:
    dynamics, h = from_torch(nn.RNN(2, 5, nonlinearity="relu").double()), torch.randn(4, 5, dtype=DOUBLE)

    one, other = silence(mean_map(dynamics, 0.7), [1]), mean_map(silence(dynamics, [1]), 0.7)
    torch.testing.assert_close(one.step(h, None), other.step(h, None))
    twice = mean_map(mean_map(dynamics, 3.0), 4.0)
    torch.testing.assert_close(twice.step(h, None), mean_map(dynamics, 5.0).step(h, None))


def test_the_averaged_rectifier_is_smooth_and_its_rest_state_is_not_the_origin() -> None:
    # The noise pushes a rectifier up: the homogeneous map rests at 0, its average does not.
    dynamics = from_torch(nn.RNN(2, 6, nonlinearity="relu", bias=False).double())
    averaged = mean_map(dynamics, 1.0)

    data = fixed_points(averaged, torch.rand(20, 6, dtype=DOUBLE), seed=0)

    assert bool(data.smooth.all()) and (data.hidden.values > 0.05).any()
    assert not kinked(averaged, torch.zeros(1, 6, dtype=DOUBLE), None).any()
    points = torch.from_numpy(data.hidden.values)
    np.testing.assert_allclose(averaged.step(points, None), points, atol=1e-12)


def test_a_map_without_a_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="no preactivation"):
        mean_map(from_torch(nn.GRU(2, 5)), 1.0)
    with pytest.raises(ValueError, match="sigma must be a finite number from 0"):
        mean_map(from_torch(nn.RNN(2, 5)), -1.0)
