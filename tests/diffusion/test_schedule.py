"""Noise schedules: published values, the forward process, transitions (spec checks D3 and D4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from seqdyn.diffusion import NoiseSchedule


@pytest.fixture
def schedule() -> NoiseSchedule:
    return NoiseSchedule.linear(100)


def test_d3_the_levels_are_the_published_ones(schedule: NoiseSchedule) -> None:
    expected = {0: 0.9999, 1: 0.998791, 10: 0.944780, 20: 0.806132, 50: 0.268675, 99: 0.00561876}

    for step, level in expected.items():
        assert schedule.level(step) == pytest.approx(level, rel=1e-5)
        assert float(schedule.alpha_bar[step]) == pytest.approx(level, rel=1e-5)
    assert schedule.level(-1) == 1.0
    assert schedule.num_diffusion_steps == len(schedule.beta) == 100
    torch.testing.assert_close(schedule.beta[[0, 99]], torch.tensor([1e-4, 0.1]))


def test_d3_the_posterior_variances_are_the_published_ones(schedule: NoiseSchedule) -> None:
    variance = {step: schedule.transition(step, step - 1).variance for step in (0, 1, 50, 99)}

    assert variance[0] == 0.0
    # The published 9.1754e-5 was computed in float32, where 1 - ᾱ_0 is off by 2e-4; exact is 9.17377e-5.
    assert variance[1] == pytest.approx(9.1754e-5, rel=3e-4)
    assert variance[1] == pytest.approx(9.17377e-5, rel=1e-6)
    assert [variance[50], variance[99]] == pytest.approx([0.0495656, 0.0999372], rel=1e-5)


def test_the_levels_are_the_products_of_the_definition(schedule: NoiseSchedule) -> None:
    betas = np.linspace(1e-4, 0.1, 100)

    for step in range(100):
        assert schedule.level(step) == pytest.approx(np.prod(1 - betas[: step + 1]), rel=1e-12)


def test_the_cosine_schedule_follows_its_formula_and_is_clipped() -> None:
    schedule = NoiseSchedule.cosine(50)

    def level(u: float) -> float:
        return math.cos((u / 50 + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [1 - level(u + 1) / level(u) for u in range(50)]
    assert betas[-1] > 0.9999 and betas[0] > 1e-4
    np.testing.assert_allclose(schedule.beta, np.clip(betas, 1e-4, 0.9999), rtol=1e-5)


# 20,000 draws; 3 standard errors of mean and variance at five steps: false-alarm rate 2.7 %, fixed seed.
@pytest.mark.parametrize("step", [0, 10, 30, 60, 99])
def test_d4_the_forward_process_has_the_mean_and_the_variance_of_its_formula(
    schedule: NoiseSchedule, step: int
) -> None:
    count, x0 = 20_000, 2.0
    clean = torch.full((count, 1, 1), x0, dtype=torch.float64)

    x = schedule.add_noise(clean, torch.full((count,), step), torch.randn(count, 1, 1, dtype=torch.float64))

    level = schedule.level(step)
    spread = 1 - level
    assert abs(float(x.mean()) - math.sqrt(level) * x0) < 3 * math.sqrt(spread / count)
    assert abs(float(x.var()) - spread) < 3 * spread * math.sqrt(2 / count)


def test_every_window_is_noised_to_its_own_step(schedule: NoiseSchedule) -> None:
    x0, noise = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    step = torch.tensor([0, 99, 40])

    x = schedule.add_noise(x0, step, noise)

    for i, level in enumerate(schedule.level(int(t)) for t in step):
        torch.testing.assert_close(x[i], math.sqrt(level) * x0[i] + math.sqrt(1 - level) * noise[i])


def test_one_step_is_the_usual_ancestral_one(schedule: NoiseSchedule) -> None:
    # x_{t-1} = (x - β/sqrt(1 - ᾱ_t) ε)/sqrt(α) with x = sqrt(ᾱ_t) x0 + sqrt(1 - ᾱ_t) ε, for any x0 and ε.
    x0, noise = 0.7, -1.3
    for step in range(100):
        beta, level = np.linspace(1e-4, 0.1, 100)[step], schedule.level(step)
        x = math.sqrt(level) * x0 + math.sqrt(1 - level) * noise
        estimate, current, variance = schedule.transition(step, step - 1)

        mean = (x - beta / math.sqrt(1 - level) * noise) / math.sqrt(1 - beta)
        assert estimate * x0 + current * x == pytest.approx(mean, rel=1e-9)
        assert variance == pytest.approx(beta * (1 - schedule.level(step - 1)) / (1 - level), rel=1e-9)


@pytest.mark.parametrize(("start", "middle", "end"), [(99, 98, 97), (90, 40, 10), (99, 50, -1), (50, 3, 0)])
def test_transitions_compose(schedule: NoiseSchedule, start: int, middle: int, end: int) -> None:
    # Given x_0, going from t to u and on to v is going from t to v at once.
    first, second = schedule.transition(start, middle), schedule.transition(middle, end)
    at_once = schedule.transition(start, end)

    assert second.estimate + second.current * first.estimate == pytest.approx(at_once.estimate, rel=1e-12)
    assert second.current * first.current == pytest.approx(at_once.current, rel=1e-12)
    composed = second.variance + second.current**2 * first.variance
    assert composed == pytest.approx(at_once.variance, rel=1e-12)


@pytest.mark.parametrize(("start", "end"), [(99, 98), (60, 20), (0, -1)])
def test_a_transition_keeps_the_marginals(schedule: NoiseSchedule, start: int, end: int) -> None:
    # x_t ~ N(sqrt(ᾱ_t) x0, 1 - ᾱ_t) goes to N(sqrt(ᾱ_u) x0, 1 - ᾱ_u).
    step, now = schedule.transition(start, end), schedule.level(start)

    assert step.estimate + step.current * math.sqrt(now) == pytest.approx(math.sqrt(schedule.level(end)))
    assert step.variance + step.current**2 * (1 - now) == pytest.approx(1 - schedule.level(end))


def test_all_steps_are_visited_in_reverse_order(schedule: NoiseSchedule) -> None:
    assert schedule.reverse_steps() == [(step, step - 1) for step in range(99, -1, -1)]
    assert schedule.reverse_steps(100) == schedule.reverse_steps()


def test_ten_of_a_hundred_steps_are_0_10_to_90(schedule: NoiseSchedule) -> None:
    assert schedule.reverse_steps(10) == [(90, 80), (80, 70), (70, 60), (60, 50), (50, 40), (40, 30)] + [
        (30, 20), (20, 10), (10, 0), (0, -1),
    ]  # fmt: skip
    assert schedule.reverse_steps(1) == [(0, -1)]


@pytest.mark.parametrize(
    ("count", "near"),
    [(30, "25 or 50"), (101, "100"), (70, "50 or 100"), (12, "10 or 20")],
)
def test_a_number_of_steps_that_does_not_divide_is_refused_with_the_nearest_that_do(
    schedule: NoiseSchedule, count: int, near: str
) -> None:
    with pytest.raises(
        ValueError, match=rf"divide the 100 diffusion steps, got {count}; try num_steps={near}\."
    ):
        schedule.reverse_steps(count)


@pytest.mark.parametrize("count", [0, -5, 10.0, True])
def test_what_counts_no_steps_is_refused(schedule: NoiseSchedule, count: Any) -> None:
    with pytest.raises(ValueError, match=f"num_steps must be a whole number .* got {count!r}; all are 100"):
        schedule.reverse_steps(count)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.1, 1.0], r"beta\[1\] = 1;.*NoiseSchedule\.linear\(100\)"),
        ([0.0], r"beta\[0\] = 0;"),
        ([], r"shape \(0,\)"),
        ([[0.1]], r"shape \(1, 1\)"),
        ([0.1, float("nan")], r"beta\[1\] = nan"),
    ],
)
def test_betas_outside_the_unit_interval_are_refused(betas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(betas)


@pytest.mark.parametrize("make", [NoiseSchedule.linear, NoiseSchedule.cosine])
def test_a_schedule_without_steps_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0; the usual number is 100"):
        make(0)  # type: ignore[operator]


def test_a_single_step_is_a_schedule() -> None:
    assert NoiseSchedule.linear(1).reverse_steps() == [(0, -1)]


def test_d15_the_tables_are_buffers_that_are_saved_and_move_with_the_model(schedule: NoiseSchedule) -> None:
    assert schedule.state_dict().keys() == {"beta", "alpha_bar"}
    assert schedule.double().alpha_bar.dtype == torch.float64
