"""The denoiser: noise estimates to clean windows."""

from __future__ import annotations

import math
from typing import Any

import torch

from seqdyn.diffusion import Denoiser, NoiseSchedule


def test_a_perfect_noise_estimate_gives_the_clean_window_back() -> None:
    schedule = NoiseSchedule.linear(100)
    x0, noise = torch.randn(4, 5, 2, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    step = torch.tensor([0, 99, 50, 3])

    denoiser = Denoiser(lambda x, step: noise, schedule)

    torch.testing.assert_close(denoiser.x0(schedule.add_noise(x0, step, noise), step), x0)


def test_nothing_is_clipped() -> None:
    schedule = NoiseSchedule.linear(100)
    denoiser = Denoiser(lambda x, step: torch.zeros_like(x), schedule)
    step = torch.tensor([99])

    estimate = denoiser.x0(torch.full((1, 1, 1), 1e6), step)

    torch.testing.assert_close(float(estimate), 1e6 / math.sqrt(schedule.level(99)), rtol=1e-4, atol=0)


def test_the_exact_denoiser_is_the_regression_of_the_clean_on_the_noised_window(strong: Any) -> None:
    # The law of tests in this folder, checked by Tweedie's other road: E[x0 | x] = Cov(x0, x) Cov(x)^-1 x.
    x = torch.randn(3, 36, 1)
    for step in (0, 40, 99):
        level = strong.schedule.level(step)
        covariance = torch.as_tensor(strong.covariance)
        total = level * covariance + (1 - level) * torch.eye(36)
        expected = math.sqrt(level) * covariance @ torch.linalg.solve(total, x)

        torch.testing.assert_close(strong.denoiser.x0(x, torch.full((3,), step)), expected)
