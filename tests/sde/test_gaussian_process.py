"""Regression of velocities: against the dense formula, exact invariants, changes of units, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.sde.gaussian_process import GaussianProcess, fit_process

NOISE = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)
EXACT = {"rtol": 0, "atol": 1e-6}


def cloud(count: int, batch: int = 1) -> Tensor:
    mixing = torch.tensor([[2.0, 0.0], [1.0, 0.3]], dtype=torch.float64)
    return torch.randn(batch, count, 2, dtype=torch.float64) @ mixing.mT + torch.tensor([30.0, -5.0])


def bent(x: Tensor) -> Tensor:
    """A velocity that is not affine."""
    first, second = (x - torch.tensor([30.0, -5.0])).unbind(-1)
    return torch.stack([first + torch.sin(second), 2 - first * second / 4], dim=-1)


def fit(
    x: Tensor, velocities: Tensor, increments: Tensor | None = None, *, noise: Tensor = NOISE, num: int = 40
) -> GaussianProcess:
    increments = velocities if increments is None else increments
    batch = torch.ones(len(x), dtype=torch.float64)
    return fit_process(x, velocities, increments, noise, 4 * batch, 0.01 * batch, num)


def inputs(x: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(x[..., :1]), x], dim=-1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_an_affine_velocity_is_found_exactly_and_continued_far_from_the_cloud() -> None:
    matrix = torch.tensor([[0.3, -2.0], [1.0, 0.4]], dtype=torch.float64)
    x = cloud(60)
    far = 50 * torch.randn(1, 5, 2, dtype=torch.float64)

    found = fit(x, x @ matrix.mT + 7).at(far)

    torch.testing.assert_close(found, far @ matrix.mT + 7, rtol=1e-6, atol=1e-5)


def test_with_all_states_as_centres_it_is_the_dense_formula() -> None:
    x, new = cloud(50), cloud(7)[0].numpy()
    y = bent(x) + 0.1 * torch.randn_like(x)
    process = fit(x, y, num=50)

    # The local part by the textbook, on whitened states and in units of the noise; then the affine part.
    points, targets, noise = x[0].numpy(), y[0].numpy(), NOISE.numpy()
    mean = points.mean(0)
    factor = np.linalg.cholesky(np.cov(points.T, bias=True) + 0.01 * noise)
    z, z_new = (np.linalg.solve(factor, (p - mean).T).T for p in (points, new))
    scale = np.linalg.cholesky(noise)
    units = np.linalg.solve(scale, targets.T).T
    affine, affine_new = (np.c_[np.ones(len(p)), p] for p in (z, z_new))
    rest = units - affine @ np.linalg.lstsq(affine, units, rcond=None)[0]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r = np.sqrt(5) * np.linalg.norm(a[:, None] - b, axis=2) / (2.8 * np.sqrt(2))
        return (1 + r + r**2 / 3) * np.exp(-r)

    ratio = 4 / float(process.variance)
    weights = np.linalg.solve(kernel(z, z) + ratio * np.eye(50), rest)
    coefficients = np.linalg.lstsq(affine, units - kernel(z, z) @ weights, rcond=None)[0]
    expected = (affine_new @ coefficients + kernel(z_new, z) @ weights) @ scale.T
    # The ridge, which the textbook does not have, takes a few ten-thousandths.
    found = process.at(torch.from_numpy(new)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert np.abs(affine_new @ coefficients @ scale.T - expected).max() > 0.1


def test_it_has_the_mean_and_the_regression_coefficients_of_the_increments() -> None:
    x = cloud(80, batch=3)
    velocities = bent(x)
    increments = velocities + 5 * torch.randn_like(x)

    found = fit(x, velocities, increments, num=20).at(x)

    design = inputs(x - x.mean(dim=1, keepdim=True))
    torch.testing.assert_close(design.mT @ found, design.mT @ increments, rtol=0, atol=1e-4)
    assert not torch.allclose(design.mT @ found, design.mT @ velocities, rtol=0, atol=10)


def test_what_is_not_affine_is_learned_through_noise() -> None:
    # The noise has the standard deviations 1.4 and 1.1; with 2000 states some 15 numbers are estimated, so
    # that the error is about 1.3 * sqrt(15 / 2000) = 0.11.
    x, new = cloud(2000), cloud(500)
    noisy = bent(x) + 2 * torch.randn_like(x) @ torch.linalg.cholesky(NOISE).mT
    process = fit(x, noisy)

    error = (process.at(new) - bent(new)).square().mean().sqrt()
    affine = inputs(x[0])
    straight = inputs(new[0]) @ torch.linalg.lstsq(affine, bent(x)[0]).solution

    assert error < 0.2
    assert (straight - bent(new)[0]).square().mean().sqrt() > 0.5


def test_units_change_nothing() -> None:
    x, new = cloud(60), cloud(9)
    units = torch.tensor([[1e3, 0.0], [0.0, 1e-3]], dtype=torch.float64)
    y = bent(x) + torch.randn_like(x)

    plain = fit(x, y).at(new)
    scaled = fit(x @ units + 4, y @ units, noise=units @ NOISE @ units).at(new @ units + 4)

    torch.testing.assert_close(scaled @ torch.linalg.inv(units), plain, rtol=1e-5, atol=1e-5)


def test_clouds_of_a_batch_do_not_know_each_other() -> None:
    x, new = cloud(40, batch=3), cloud(5, batch=3)
    whole = fit(x, bent(x))

    alone = fit(x[1:2], bent(x[1:2])).at(new[1:2])

    torch.testing.assert_close(whole.at(new)[1:2], alone, **EXACT)
    torch.testing.assert_close(whole.only(1).at(new[1:2]), alone, **EXACT)


def test_states_that_coincide_have_the_mean_velocity() -> None:
    x = torch.ones(1, 30, 2, dtype=torch.float64)
    y = torch.randn_like(x)

    process = fit(x, y)

    torch.testing.assert_close(process.at(x[:, :1])[0, 0], y[0].mean(dim=0), **EXACT)
    assert torch.isfinite(process.at(x + 100)).all()


def test_single_precision_loses_no_more_than_its_digits() -> None:
    x, new = cloud(60), cloud(9)
    process = fit(x.float(), bent(x).float(), noise=NOISE.float())

    found = process.at(new.float())

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), fit(x, bent(x)).at(new), rtol=1e-3, atol=1e-3)
