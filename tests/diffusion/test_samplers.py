"""Samplers with the exact denoiser of a Gaussian: every chain is linear, hence known in closed form (D5).

A linear chain is known when its response to each noise is: rows of one batch carry one unit of noise each, at
one place and one step, and the sum of the outer products of what comes out is the exact covariance of the
samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.diffusion import Denoiser, NoiseSchedule, SquareGuidance, ddim, ddpm

Sampler = Callable[..., Tensor]


def exact_law(
    sampler: Sampler, gaussian: Any, guidance: Any = None, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (L,) and covariance (L, L) of a sampler's output, without sampling."""
    length = len(gaussian.covariance)
    steps = [None, *range(gaussian.schedule.num_diffusion_steps)]  # None: the noise a chain starts from
    rows = 1 + len(steps) * length  # the first row sees no noise at all: it is the mean
    units = torch.zeros(len(steps), rows, length, 1)
    for i in range(len(steps)):
        units[i, 1 + i * length : 1 + (i + 1) * length, :, 0] = torch.eye(length)
    built = None if guidance is None else guidance(rows)

    x = sampler(
        gaussian.denoiser, units[0], guidance=built, draw=lambda step, like: units[1 + step], **options
    )

    response = (x[1:, :, 0] - x[0, :, 0]).numpy()
    return x[0, :, 0].numpy(), response.T @ response


def figures(covariance: np.ndarray, target: np.ndarray) -> list[float]:
    """Mean variance, mean covariance at lags 1 and 6 relative to it, relative Frobenius error."""
    variance, *lags = (float(np.diag(covariance, lag).mean()) for lag in (0, 1, 6))
    error = float(np.linalg.norm(covariance - target) / np.linalg.norm(target))
    return [variance, *(lag / variance for lag in lags), error]


def covariance_recursion(gaussian: Any) -> np.ndarray:
    """P <- F P F' + σ² I from the identity, F = (I - β/sqrt(1 - ᾱ) E)/sqrt(α), as published."""
    covariance = np.eye(len(gaussian.covariance))
    betas = np.linspace(1e-4, 0.1, 100)
    levels = np.cumprod(1 - betas)
    for step in range(99, -1, -1):
        variance = betas[step] * (1 - (levels[step - 1] if step else 1.0)) / (1 - levels[step])
        scaled = betas[step] / np.sqrt(1 - levels[step]) * gaussian.noise_maps[step]
        move = (np.eye(len(covariance)) - scaled) / np.sqrt(1 - betas[step])
        covariance = move @ covariance @ move.T + variance * np.eye(len(covariance))
    return covariance


@pytest.mark.parametrize(
    ("law", "expected"),
    [("strong", [0.9475, 0.9073, 0.5368, 0.0449]), ("weak", [0.9438, 0.5078, 0.0159, 0.0507])],
)
def test_d5_ancestral_samples_have_the_known_covariance(
    law: str, expected: list[float], request: pytest.FixtureRequest
) -> None:
    gaussian = request.getfixturevalue(law)

    mean, covariance = exact_law(ddpm, gaussian)

    assert not mean.any()
    np.testing.assert_allclose(covariance, covariance_recursion(gaussian), rtol=0, atol=1e-10)
    np.testing.assert_allclose(figures(covariance, gaussian.covariance), expected, rtol=0, atol=5.1e-5)


@pytest.mark.parametrize("law", ["strong", "weak"])
def test_d5_twenty_thousand_samples_match_the_recursion(law: str, request: pytest.FixtureRequest) -> None:
    gaussian = request.getfixturevalue(law)
    expected, count = covariance_recursion(gaussian), 20_000
    length = len(expected)

    x = ddpm(gaussian.denoiser, torch.randn(count, length, 1, dtype=torch.float32))[..., 0].double().numpy()

    assert x.shape == (count, length)
    sample = x.T @ x / count
    # The mean variance has a relative standard error of 0.5 % (φ = 0.9) and 0.2 %: 2 % is at least 4 of them.
    assert np.diag(sample).mean() == pytest.approx(np.diag(expected).mean(), rel=0.02)
    # Single entries: standard error sqrt((P_ii P_jj + P_ij²)/n); 666 of them within 5, false-alarm rate 4e-4.
    deviation = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
    assert (np.abs(sample - expected) / deviation).max() < 5
    # And the mean: 36 entries within 5 standard errors, false-alarm rate 2e-5.
    assert np.abs(x.mean(0) / np.sqrt(np.diag(expected) / count)).max() < 5


@pytest.mark.parametrize(
    ("law", "num_steps", "expected", "digits"),
    [
        ("strong", None, 0.9388, 5.1e-5),
        ("weak", None, 0.9712, 5.1e-5),
        ("strong", 10, 0.729, 5.1e-4),
        ("weak", 10, 0.769, 5.1e-4),
    ],
)
def test_d5_deterministic_samples_have_the_known_variance(
    law: str, num_steps: int | None, expected: float, digits: float, request: pytest.FixtureRequest
) -> None:
    gaussian = request.getfixturevalue(law)

    mean, covariance = exact_law(ddim, gaussian, num_steps=num_steps)

    assert not mean.any()
    assert np.diag(covariance).mean() == pytest.approx(expected, abs=digits)


@pytest.mark.parametrize("num_steps", [None, 10, 1])
def test_ddim_with_all_of_the_noise_is_ancestral_sampling(strong: Any, num_steps: int | None) -> None:
    noise = torch.randn(7, 36, 1)
    draws = torch.randn(100, 7, 36, 1)

    def draw(step: int, like: Tensor) -> Tensor:
        return draws[step]

    x = ddim(strong.denoiser, noise, eta=1.0, num_steps=num_steps, draw=draw)

    torch.testing.assert_close(x, ddpm(strong.denoiser, noise, num_steps=num_steps, draw=draw))


def test_ddim_with_a_share_of_the_noise_lies_between(strong: Any) -> None:
    # Every eta keeps the marginal when x0 is known; check one step of the formula by hand.
    eta, x, xi = 0.4, torch.randn(2, 36, 1), torch.randn(2, 36, 1)
    states: dict[int, Tensor] = {}

    ddim(
        strong.denoiser,
        x,
        eta=eta,
        draw=lambda step, like: xi,
        callback=lambda step, x: states.update({step: x}),
    )

    now, then = strong.schedule.level(99), strong.schedule.level(98)
    c1 = eta * math.sqrt((1 - now / then) * (1 - then) / (1 - now))
    c2 = math.sqrt(1 - then - c1**2)
    index = torch.full((2,), 99)
    noise = strong.predict_noise(x, index)
    expected = math.sqrt(then) * strong.denoiser.x0(x, index) + c2 * noise + c1 * xi
    torch.testing.assert_close(states[99], expected)


OBSERVED = 9  # of the 12 steps of the law "short"


def square(gaussian: Any, scale: float, point: str = "proposal") -> Callable[[int], SquareGuidance]:
    target = torch.linspace(-1.0, 2.0, len(gaussian.covariance))[:, None]
    observed = (torch.arange(len(target)) < OBSERVED)[:, None]

    def build(rows: int) -> SquareGuidance:
        y, mask = (value.expand(rows, *value.shape) for value in (target, observed))
        return SquareGuidance(gaussian.denoiser, y, mask, scale, point)

    return build


def guided_recursion(
    gaussian: Any, scale: float, point: str, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the chain guided by s σ² ∇(-E), E = |M (y - D x)|²: linear algebra of a step."""
    length, stride = len(gaussian.covariance), 100 // num_steps
    eye, mask = np.eye(length), np.diag((np.arange(length) < OBSERVED).astype(float))
    y = np.linspace(-1.0, 2.0, length)
    mean, covariance = np.zeros(length), eye
    for step in range(100 - stride, -1, -stride):
        now, then = (gaussian.schedule.level(t) for t in (step, step - stride if step else -1))
        variance = (1 - now / then) * (1 - then) / (1 - now)
        noise_map, clean = gaussian.noise_maps[step], gaussian.clean_maps[step]
        move = (eye - (1 - now / then) / np.sqrt(1 - now) * noise_map) / np.sqrt(now / then)
        pull = 2 * scale * variance * clean.T @ mask
        if point == "xt":
            move, spread = move - pull @ clean, eye
        else:
            spread = eye - pull @ clean
            move = spread @ move
        mean = move @ mean + pull @ y
        covariance = move @ covariance @ move.T + variance * spread @ spread.T
    return mean, covariance


@pytest.mark.parametrize("point", ["proposal", "xt"])
@pytest.mark.parametrize(("scale", "num_steps"), [(0.1, 100), (1.0, 100), (4.0, 100), (0.5, 20)])
def test_d5_guided_samples_have_the_law_of_the_closed_form(
    short: Any, point: str, scale: float, num_steps: int
) -> None:
    mean, covariance = exact_law(ddpm, short, square(short, scale, point), num_steps=num_steps)

    expected_mean, expected_covariance = guided_recursion(short, scale, point, num_steps)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=0, atol=1e-9)


def test_the_two_gradient_points_are_close_but_not_equal(short: Any) -> None:
    proposal, at_x = (guided_recursion(short, 1.0, point, 100)[0] for point in ("proposal", "xt"))

    assert 1e-3 < np.abs(proposal - at_x).max() < 0.1


def test_guidance_pulls_towards_the_conditional_mean(short: Any) -> None:
    # Self-guidance is not exact conditioning, but the observed part must follow y and the rest its trend.
    target = np.linspace(-1.0, 2.0, 12)

    mean, _ = exact_law(ddpm, short, square(short, 4.0))

    seen = short.covariance[:OBSERVED, :OBSERVED]
    conditional = short.covariance[OBSERVED:, :OBSERVED] @ np.linalg.solve(seen, target[:OBSERVED])
    assert np.abs(mean[:OBSERVED] - target[:OBSERVED]).max() < 0.4
    assert np.abs(mean[OBSERVED:] - conditional).max() < 0.4
    assert conditional.min() > 0.8  # far from the unguided mean of 0


@pytest.mark.parametrize(("scale", "diverges"), [(4.0, False), (32.0, True)])
def test_square_guidance_diverges_where_the_theory_says(short: Any, scale: float, diverges: bool) -> None:
    # A step multiplies the observed part by 1 - 2 s σ² J'MJ, which at s = 32 lies below -1 for many steps.
    _, predicted = guided_recursion(short, scale, "proposal", 100)
    _, covariance = exact_law(ddpm, short, square(short, scale))

    for variance in (np.abs(np.diag(predicted)).max(), np.abs(np.diag(covariance)).max()):
        assert (variance > 1e6) if diverges else (variance < 1.0)


@pytest.mark.parametrize(("scale", "num_steps"), [(1.0, 100), (0.5, 20)])
def test_guided_ddim_follows_its_formula(short: Any, scale: float, num_steps: int) -> None:
    x = torch.randn(3, 12, 1)
    guidance = square(short, scale)(3)

    result = ddim(short.denoiser, x, num_steps=num_steps, guidance=guidance)

    state, y = x[..., 0].numpy(), np.linspace(-1.0, 2.0, 12)
    mask, stride = np.arange(12) < OBSERVED, 100 // num_steps
    for step in range(100 - stride, -1, -stride):
        now, then = (short.schedule.level(t) for t in (step, step - stride if step else -1))
        clean = state @ short.clean_maps[step].T
        score = 2 * scale * (mask * (y - clean)) @ short.clean_maps[step]
        noise = state @ short.noise_maps[step].T - math.sqrt(1 - now) * score
        estimate = (state - math.sqrt(1 - now) * noise) / math.sqrt(now)
        state = math.sqrt(then) * estimate + math.sqrt(1 - then) * noise
    np.testing.assert_allclose(result[..., 0].numpy(), state, rtol=0, atol=1e-9)


class Counting:
    """A noise predictor that counts its calls."""

    def __init__(self, gaussian: Any) -> None:
        self.calls, self._predict = 0, gaussian.predict_noise

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        self.calls += 1
        return self._predict(x, step)


# The last step has no variance, hence no guidance.
@pytest.mark.parametrize(
    ("sampler", "point", "calls"), [(ddpm, "proposal", 199), (ddpm, "xt", 100), (ddim, "proposal", 100)]
)
def test_the_network_is_passed_as_often_as_documented(
    short: Any, sampler: Sampler, point: str, calls: int
) -> None:
    predictor = Counting(short)
    denoiser = Denoiser(predictor, short.schedule)
    y = torch.zeros(2, 12, 1)
    guidance = SquareGuidance(denoiser, y, torch.ones_like(y, dtype=torch.bool), 0.1, point)

    sampler(denoiser, torch.randn(2, 12, 1), guidance=guidance)

    assert predictor.calls == calls


@pytest.mark.parametrize("sampler", [ddpm, ddim])
@pytest.mark.parametrize("point", ["proposal", "xt", None])
def test_any_callable_can_guide(short: Any, sampler: Sampler, point: str | None) -> None:
    # A guidance of another denoiser than the sampler's, or with no denoiser, is asked for its score alone.
    noise, draws = torch.randn(2, 12, 1), torch.randn(100, 2, 12, 1)
    reference = square(short, 0.3, point or "proposal")(2)

    class Wrapped:
        def __call__(self, x: Tensor, step: Tensor) -> Tensor:
            return reference(x, step)

    wrapped = Wrapped()
    if point is not None:
        wrapped.point = point  # type: ignore[attr-defined]

    x = sampler(short.denoiser, noise, guidance=wrapped, draw=lambda step, like: draws[step])

    expected = sampler(short.denoiser, noise, guidance=reference, draw=lambda step, like: draws[step])
    torch.testing.assert_close(x, expected)


def test_noise_is_asked_for_at_every_step_but_the_last(short: Any) -> None:
    asked: list[int] = []
    left: list[int] = []

    def draw(step: int, like: Tensor) -> Tensor:
        assert like.shape == (2, 12, 1)
        asked.append(step)
        return torch.zeros_like(like)

    ddpm(
        short.denoiser,
        torch.randn(2, 12, 1),
        num_steps=5,
        draw=draw,
        callback=lambda step, x: left.append(step),
    )

    assert asked == [80, 60, 40, 20]
    assert left == [80, 60, 40, 20, 0]


def test_the_last_state_handed_to_the_callback_is_the_result(short: Any) -> None:
    states: list[Tensor] = []

    x = ddpm(short.denoiser, torch.randn(2, 12, 1), callback=lambda step, x: states.append(x))

    assert len(states) == 100
    assert torch.equal(states[-1], x) and not torch.equal(states[-2], x)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_the_start_is_left_as_it_was_and_results_carry_no_graph(short: Any, sampler: Sampler) -> None:
    noise = torch.randn(2, 12, 1)
    before = noise.clone()

    x = sampler(short.denoiser, noise, guidance=square(short, 0.1)(2))

    assert torch.equal(noise, before)
    assert not x.requires_grad


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_the_default_noise_is_that_of_the_ambient_stream(short: Any, sampler: Sampler) -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(
            sampler(short.denoiser, torch.zeros(2, 12, 1), **({} if sampler is ddpm else {"eta": 0.5}))
        )

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_a_share_of_noise_outside_the_unit_interval_is_refused(short: Any, eta: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 \(deterministic\) and 1 \(ancestral\), got"):
        ddim(short.denoiser, torch.randn(2, 12, 1), eta=eta)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_a_number_of_steps_that_does_not_divide_is_refused(short: Any, sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="try num_steps=25 or 50"):
        sampler(short.denoiser, torch.randn(2, 12, 1), num_steps=30)


def test_one_diffusion_step_returns_the_denoisers_estimate() -> None:
    schedule = NoiseSchedule.linear(1)
    denoiser = Denoiser(lambda x, step: 0.1 * x, schedule)
    x = torch.randn(2, 3, 1)

    torch.testing.assert_close(ddpm(denoiser, x), denoiser.x0(x, torch.zeros(2, dtype=torch.int64)))
