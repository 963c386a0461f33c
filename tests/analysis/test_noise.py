"""Noise sweeps: identities of homogeneous maps, and the closed form of a linear one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import noise_sweep
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.errors import NonFiniteError
from seqdyn.models import HMMRNN


def test_homogeneous_networks_scale_to_the_last_bit() -> None:
    # Check D1 and identity 2: exact for powers of two, in rounding for others.
    found = noise_sweep(HMMRNN(3).dynamics(), [0.25, 0.3, 1.0, 4.0], num_steps=1000, seed=0)

    np.testing.assert_array_equal(found.deviation[[0, 2, 3]], 0)
    assert 0 < float(found.deviation[1]) < 1e-5
    assert found.attrs["homogeneous"] == 1
    radius = found.radius_mean.values
    np.testing.assert_allclose(radius, radius[2] * found.sigma, rtol=1e-5)
    assert float(found.linear_fit_r2) == pytest.approx(1)
    assert float(found.linear_fit_intercept) == pytest.approx(0, abs=1e-5 * radius.max())


@pytest.mark.parametrize("arguments", [{"bias": True}, {"activation": "tanh"}])
def test_with_bias_or_tanh_the_identity_fails(arguments: dict[str, object]) -> None:
    found = noise_sweep(HMMRNN(3, **arguments).dynamics(), [0.5, 1.0, 4.0], num_steps=1000, seed=0)

    assert found.attrs["homogeneous"] == 0
    assert float(found.deviation[1]) == 0  # the reference itself
    assert (found.deviation[[0, 2]] > 0.01).all()


def test_radius_of_white_noise_is_that_of_a_rayleigh_law() -> None:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return torch.zeros_like(h) if u is None else u

    found = noise_sweep(MapDynamics(step, None, 2, 2), [1.0, 2.0], num_chains=20, num_steps=40_000, seed=0)

    # 40,000 independent draws: standard errors are about 0.4 % of the mean.
    sigma = found.sigma.values
    np.testing.assert_allclose(found.radius_mean, np.sqrt(np.pi / 2) * sigma, rtol=0.02)
    np.testing.assert_allclose(found.radius_q95, np.sqrt(-2 * np.log(0.05)) * sigma, rtol=0.02)
    # Kernel density of 1000 points: three times Scott's factor 1000 ** (-1/6) widens the law to variance
    # 1 + 0.9 there; 5 % of the points lie below exp(-r95^2 / 2 / 1.9) / (2 pi 1.9).
    factor = (3 * 1000 ** (-1 / 6)) ** 2 + 1
    level = np.exp(np.log(0.05) / factor) / (2 * np.pi * factor)
    assert float(found.contour_level.sel(sigma=1.0, mass=0.05)) == pytest.approx(level, rel=0.1)


def test_density_integrates_to_one() -> None:
    found = noise_sweep(HMMRNN(3).dynamics(), [1.0, 2.0], num_steps=2000, seed=0)

    for one in range(2):
        cell = np.diff(found.grid_pc1[one])[0] * np.diff(found.grid_pc2[one])[0]
        assert float(found.density[one].sum()) * cell == pytest.approx(1, abs=0.03)


def test_a_flow_scales_its_volatility() -> None:
    flow = FlowDynamics(lambda x, t: -x, 0.5, 2)

    found = noise_sweep(flow, [1.0, 2.0], step_size=0.1, num_steps=500, seed=0)

    np.testing.assert_allclose(found.deviation, 0, atol=1e-6)


def test_divergence_is_marked_with_its_reason() -> None:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return 0.5 * h + 0.01 * h**3 + (0 if u is None else u)

    found = noise_sweep(MapDynamics(step, None, 2, 2), [0.1, 1.0, 9.0], num_steps=500, seed=0)

    assert "sigma = 9" in found.attrs["reason"]
    assert np.isnan(found.radius_mean[2]) and np.isfinite(found.radius_mean[:2]).all()
    assert np.isfinite(found.linear_fit_slope)
    with pytest.raises(NonFiniteError, match="diverges at sigma=9; sweep smaller sigmas"):
        noise_sweep(MapDynamics(step, None, 2, 2), [9.0], num_steps=500, seed=0)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([], "positive numbers"),
        ([0.0, 1.0], "positive numbers"),
        ([2.0, 1.0], "must rise"),
        (1.0, "positive"),
    ],
)
def test_sigmas_are_checked(sigmas: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise_sweep(HMMRNN(3).dynamics(), sigmas)  # type: ignore[arg-type]


def test_maps_without_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="take none"):
        noise_sweep(MapDynamics(lambda h, u: 0.5 * h, None, 2, 0))
