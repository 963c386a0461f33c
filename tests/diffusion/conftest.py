"""A data law whose perfect denoiser is known: a stationary Gaussian autoregression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.diffusion import Denoiser, NoiseSchedule

LENGTH = 36


class Gaussian(NamedTuple):
    """Zero-mean windows with covariance Σ; E[noise | x_t] = E_t x_t and E[x_0 | x_t] = D_t x_t."""

    covariance: np.ndarray  # (L, L)
    schedule: NoiseSchedule
    noise_maps: np.ndarray  # E, (T, L, L)
    clean_maps: np.ndarray  # D, (T, L, L)

    def predict_noise(self, x: Tensor, step: Tensor) -> Tensor:
        maps = torch.as_tensor(self.noise_maps, dtype=x.dtype)
        if bool((step == step[0]).all()):
            return torch.einsum("ij,bjc->bic", maps[int(step[0])], x)
        return torch.einsum("bij,bjc->bic", maps[step], x)

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(self.predict_noise, self.schedule)


def autoregression(phi: float, schedule: NoiseSchedule, length: int = LENGTH) -> Gaussian:
    """AR(1) with unit variance: Σ_ij = φ^|i-j|."""
    n = np.arange(length)
    covariance = phi ** np.abs(n[:, None] - n)
    noise_maps, clean_maps = [], []
    for step in range(schedule.num_diffusion_steps):
        level = schedule.level(step)
        total = level * covariance + (1 - level) * np.eye(length)
        clean = np.sqrt(level) * covariance @ np.linalg.inv(total)
        clean_maps.append(clean)
        noise_maps.append((np.eye(length) - np.sqrt(level) * clean) / np.sqrt(1 - level))
    return Gaussian(covariance, schedule, np.stack(noise_maps), np.stack(clean_maps))


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Tables and draws in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def strong(double_precision: None) -> Gaussian:
    """φ = 0.9 under the published schedule."""
    return autoregression(0.9, NoiseSchedule.linear(100))


@pytest.fixture
def weak(double_precision: None) -> Gaussian:
    """φ = 0.5 under the published schedule."""
    return autoregression(0.5, NoiseSchedule.linear(100))


@pytest.fixture
def short(double_precision: None) -> Gaussian:
    """φ = 0.9 and only 12 steps, under the published schedule."""
    return autoregression(0.9, NoiseSchedule.linear(100), length=12)
