"""Speed fields against an Ornstein-Uhlenbeck map, whose drift and diffusion are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import speed_field
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics

A = torch.tensor([[0.9, 0.1], [-0.2, 0.8]], dtype=torch.float64)


def step(h: Tensor, u: Tensor | None) -> Tensor:
    return h @ A.T if u is None else h @ A.T + u


OU = MapDynamics(step, None, 2, 2)


def test_drift_and_diffusion_of_an_ornstein_uhlenbeck_map() -> None:
    found = speed_field(OU, num_chains=100, num_steps=200_000, sigma=0.5, num_bins=12, min_visits=500, seed=0)

    # In the plane A turns into V A V^T; the field is taken at the mean of the visits.
    turned = _turned()
    known = np.isfinite(found.drift.values).all(axis=-1)
    expected = found.center.values[known] @ turned.T
    # 500 visits and more: standard error of a mean displacement below 0.5 / sqrt(500) = 0.022.
    np.testing.assert_allclose(found.drift.values[known], expected, atol=0.09)
    assert known.sum() > 40
    heavy = found["count"].values > 3000
    np.testing.assert_allclose(
        found.diffusion.values[heavy], np.broadcast_to(0.25 * np.eye(2), (heavy.sum(), 2, 2)), atol=0.03
    )
    inner = heavy & np.isfinite(found.divergence.values)
    assert float(found.divergence.values[inner].mean()) == pytest.approx(np.trace(turned), abs=0.04)


def test_the_three_speeds() -> None:
    found = speed_field(OU, num_chains=100, num_steps=100_000, sigma=0.5, num_bins=10, min_visits=500, seed=0)

    known = np.isfinite(found.speed.values)
    still = np.linalg.norm(found.center.values[known] @ _turned().T, axis=1)
    # A linear map under noise of mean zero: its mean is the noise-free map.
    np.testing.assert_allclose(
        found.mean_map_speed.values[known], found.autonomous_speed.values[known], rtol=0.2
    )
    np.testing.assert_allclose(found.autonomous_speed.values[known], still, atol=0.08)
    assert (found.speed.values[known] > found.autonomous_speed.values[known]).all()


def test_the_mean_map_of_a_rectifier_is_not_the_noise_free_one() -> None:
    def rectifier(h: Tensor, u: Tensor | None) -> Tensor:
        return torch.relu(torch.zeros_like(h) if u is None else u) + 0 * h

    found = speed_field(
        MapDynamics(rectifier, None, 2, 2), reference=1e-3 * torch.randn(4, 4000, 2), num_bins=3,
        min_visits=100, num_repeats=40, seed=0,
    )  # fmt: skip

    # E relu(xi) = 1 / sqrt(2 pi) in both units.
    expected = np.sqrt(2 / (2 * np.pi))
    np.testing.assert_allclose(found.mean_map_speed.values[1, 1], expected, rtol=0.03)
    assert float(found.autonomous_speed.max()) < 0.01


def test_a_flow_without_noise_has_its_own_field() -> None:
    found = speed_field(
        FlowDynamics(lambda x, t: -x, 0.0, 2), sigma=0.0, start=torch.randn(500, 2), burn_in=0,
        num_steps=10_000, step_size=0.1, num_bins=5, min_visits=5,
    )  # fmt: skip

    known = np.isfinite(found.drift.values).all(axis=-1)
    shrink = np.exp(-0.1) - 1
    np.testing.assert_allclose(found.drift.values[known], shrink * found.center.values[known], atol=0.02)
    # Root mean square against mean over a bin.
    np.testing.assert_allclose(found.mean_map_speed, found.autonomous_speed, atol=0.02)


def test_too_few_visits_are_said() -> None:
    found = speed_field(OU, num_chains=2, num_steps=10, min_visits=100, seed=0)

    assert "no bin has 100 visits" in found.attrs["reason"]
    assert np.isnan(found.speed).all() and int(found["count"].sum()) == 8


def _covariance() -> np.ndarray:
    a, c = A.numpy(), np.zeros((2, 2))
    for _ in range(500):
        c = a @ c @ a.T + 0.25 * np.eye(2)
    return c


def _turned() -> np.ndarray:
    _, vectors = np.linalg.eigh(_covariance())
    v = vectors.T[::-1]
    v = v * np.sign([max(row, key=abs) for row in v])[:, None]
    return v @ A.numpy() @ v.T - np.eye(2)
