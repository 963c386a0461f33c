"""Pinned paths, against the closed-form law of a linear process given both ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.sde.drifts import LotkaVolterra, Zero
from seqdyn.sde.integrate import simulate
from seqdyn.sde.pinned import PinnedPaths, affine_pinned_paths, pinned_paths
from seqdyn.sde.transition import affine_transition

COUNT = 5000


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


MATRIX, OFFSET = tensor([[-0.5, -1.5], [1.5, -0.5]]), tensor([0.2, 0.0])
NOISE = tensor([[0.5, 0.1], [0.1, 0.3]])
BEGIN, END, DURATION = tensor([-1.0, 0.4]), tensor([0.8, 1.0]), 1.5
REGULAR = torch.linspace(0, 1, 61, dtype=torch.float64)
# Steps a hundred times as long as others.
IRREGULAR = torch.cat(
    [tensor([0.0, 0.001, 0.002]), torch.linspace(0.05, 0.9, 50).double(), tensor([0.999, 1])]
)


def law(time: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of X_t given the ends."""
    before, after, whole = (
        affine_transition(MATRIX, OFFSET, NOISE, tensor(t)) for t in (time, DURATION - time, DURATION)
    )
    gain = before.covariance @ after.matrix.mT @ torch.linalg.inv(whole.covariance)
    mean = before.matrix @ BEGIN + before.offset
    mean = mean + gain @ (END - whole.matrix @ BEGIN - whole.offset)
    return mean, before.covariance - gain @ whole.covariance @ gain.mT


def draw(kind: str, grid: Tensor, user_drift: Any, count: int = COUNT) -> PinnedPaths:
    """Many paths between the same two ends."""
    a, b = (end.expand(1, count, 2) for end in (BEGIN, END))
    if kind == "affine":
        return affine_pinned_paths(MATRIX, OFFSET, NOISE, a, b, tensor([DURATION]), grid)
    one = torch.ones(1, count, 1, dtype=torch.float64)
    return pinned_paths(user_drift(MATRIX, OFFSET), NOISE, a, b, 0 * one, DURATION * one, grid)


@pytest.mark.parametrize("kind", ["affine", "guided"])
@pytest.mark.parametrize("grid", [REGULAR, IRREGULAR], ids=["regular", "irregular"])
def test_paths_of_a_linear_drift_have_the_law_of_the_process_given_its_ends(
    user_drift: Any, kind: str, grid: Tensor
) -> None:
    found = draw(kind, grid, user_drift)

    for index in (1, 10, len(grid) // 2, len(grid) - 10, len(grid) - 2):
        mean, covariance = law(float(grid[index]) * DURATION)
        x = found.states[index, 0]
        spread = covariance.diagonal().sqrt()
        # 5 standard errors of 5000 draws: below one failure in 10,000 runs. The steps' own error, of second
        # order, is smaller.
        slack = 0.0 if kind == "affine" else 2e-3
        assert ((x.mean(dim=0) - mean).abs() < 5 * spread / COUNT**0.5 + slack).all()
        bound = 5 * 2**0.5 * spread[:, None] * spread / COUNT**0.5 + slack * covariance.abs().max()
        assert ((torch.cov(x.mT) - covariance).abs() < bound).all()


@pytest.mark.parametrize("kind", ["affine", "guided"])
def test_increments_have_the_noise_of_the_process(user_drift: Any, kind: str) -> None:
    """The quadratic variation of a pinned path is that of the free one."""
    found = draw(kind, torch.linspace(0, 1, 1001, dtype=torch.float64), user_drift, 50)
    steps = found.states.diff(dim=0)[:-1, 0]

    variation = torch.einsum("tnc,tnd->cd", steps, steps) / (50 * DURATION)

    # Steps so short that their drift is small; 50,000 increments: 5 standard errors are 3 %.
    torch.testing.assert_close(variation, NOISE, rtol=0.05, atol=0.02)


def test_an_affine_path_may_have_any_grid(user_drift: Any) -> None:
    """Two steps are enough: each is exact."""
    x = draw("affine", tensor([0.0, 0.3, 1.0]), user_drift).states[1, 0]

    mean, covariance = law(0.3 * DURATION)

    torch.testing.assert_close(x.mean(dim=0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(x.mT), covariance, rtol=0, atol=0.03)


@pytest.mark.parametrize("kind", ["affine", "guided"])
def test_the_ends_are_those_given_to_the_last_bit(user_drift: Any, kind: str) -> None:
    states = draw(kind, REGULAR, user_drift, 30).states[:, 0]

    assert torch.equal(states[0], BEGIN.expand(30, 2))
    assert torch.equal(states[-1], END.expand(30, 2))


@pytest.mark.parametrize("kind", ["affine", "guided"])
def test_the_pull_and_the_drift_are_the_mean_velocity(user_drift: Any, kind: str) -> None:
    found = draw(kind, REGULAR, user_drift)
    step = DURATION / 60

    for index in (5, 30, 54):
        x = found.states[index, 0]
        velocity = (x @ MATRIX.mT + OFFSET + found.pull[index, 0] / step).mean(dim=0)
        time = float(REGULAR[index]) * DURATION
        expected = (law(time + step)[0] - law(time)[0]) / step
        # The pull scatters with the state, by up to 1 / sqrt(time left).
        torch.testing.assert_close(velocity, expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["affine", "guided"])
def test_the_pull_is_what_is_left_of_the_way(user_drift: Any, kind: str) -> None:
    """In closed form: S F' R^-1 (end - where the process would end), per unit of time."""
    found = draw(kind, torch.linspace(0, 1, 601, dtype=torch.float64), user_drift, 20)
    index = 360
    ahead = affine_transition(MATRIX, OFFSET, NOISE, tensor(0.4 * DURATION))
    x = found.states[index, 0]

    missing = END - x @ ahead.matrix.mT - ahead.offset
    expected = missing @ torch.linalg.solve(ahead.covariance, ahead.matrix) @ NOISE

    torch.testing.assert_close(found.pull[index, 0] / (DURATION / 600), expected, rtol=0.01, atol=0.02)


def test_pairs_and_durations_of_a_batch_are_each_their_own(user_drift: Any) -> None:
    a, b = torch.randn(3, 40, 2, dtype=torch.float64), torch.randn(3, 40, 2, dtype=torch.float64)
    durations, starts = tensor([0.1, 1.0, 30.0]), tensor([0.0, 5.0, 1.0])
    one = torch.ones(3, 40, 1, dtype=torch.float64)

    exact = affine_pinned_paths(MATRIX, OFFSET, NOISE, a, b, durations, REGULAR)
    guided = pinned_paths(
        user_drift(MATRIX, OFFSET), NOISE, a, b, starts[:, None, None] * one, durations[:, None, None] * one,
        torch.linspace(0, 1, 301, dtype=torch.float64),
    )  # fmt: skip

    for found in (exact.states, guided.states):
        assert torch.equal(found[0], a) and torch.equal(found[-1], b)
        assert torch.isfinite(found).all()
        # Of the shortest, the middle lies between the ends, within its noise .5 * .1 / 4.
        middle = found[len(found) // 2, 0]
        assert float((middle - (a[0] + b[0]) / 2).abs().max()) < 0.6
        # Of the longest, it forgot them: the stationary law, of variance about 1/2.
        assert float((found[len(found) // 2, 2]).abs().max()) < 4


def test_between_equal_ends_a_brownian_path_is_a_loop() -> None:
    a = torch.zeros(1, COUNT, 2, dtype=torch.float64)
    one = torch.ones(1, COUNT, 1, dtype=torch.float64)

    states = pinned_paths(Zero(), NOISE, a, a, 0 * one, 2 * one, REGULAR).states

    middle = torch.cov(states[30, 0].mT)
    torch.testing.assert_close(middle, NOISE * 2 / 4, rtol=0, atol=0.02)


def test_guided_paths_of_a_curved_drift_are_those_of_rejection() -> None:
    """Paths of predators and prey that happen to end near a point, against paths that are led there."""
    drift, x0 = LotkaVolterra(1.0, 0.4, 0.4, 0.1), tensor([[3.0, 2.0]])
    free = simulate(drift, 0.4, x0.expand(60_000, 2), [0.0, 0.5, 1.0], step_size=0.05, seed=0)
    end = free[:, 2].mean(dim=0) + tensor([0.4, -0.2])
    near = (free[:, 2] - end).norm(dim=1) < 0.06
    expected = free[near, 1]

    a, b = x0.expand(1, len(expected), 2), free[near, 2][None]
    one = torch.ones(1, len(expected), 1, dtype=torch.float64)
    found = pinned_paths(drift, 0.16 * torch.eye(2).double(), a, b, 0 * one, one, REGULAR).states[30, 0]

    assert len(expected) > 300
    # Five standard errors of the difference of two means of so many draws.
    error = 5 * (2 * expected.var(dim=0) / len(expected)).sqrt()
    assert ((found.mean(dim=0) - expected.mean(dim=0)).abs() < error).all()
    torch.testing.assert_close(torch.cov(found.mT), torch.cov(expected.mT), rtol=0.2, atol=0.01)


def test_with_little_noise_guided_paths_follow_the_curve_not_the_chord() -> None:
    drift, x0 = LotkaVolterra(1.0, 0.4, 0.4, 0.1), tensor([[5.0, 4.0]])
    path = simulate(drift, 0.0, x0, (2 * REGULAR).tolist(), step_size=1.0)[0]

    one = torch.ones(1, 50, 1, dtype=torch.float64)
    a, b = x0.expand(1, 50, 2), path[-1].expand(1, 50, 2)
    found = pinned_paths(drift, 1e-6 * torch.eye(2).double(), a, b, 0 * one, 2 * one, REGULAR).states[:, 0]

    # Noise of .001 over two units of time; the chord is up to 1.3 away.
    assert float((found - path[:, None]).abs().max()) < 0.005
    assert float((found.mean(dim=1) - path).abs().max()) < 0.001


def test_paths_do_not_depend_on_what_autograd_records(user_drift: Any) -> None:
    found = draw("guided", REGULAR, user_drift, 3)

    assert not found.states.requires_grad and not found.pull.requires_grad
