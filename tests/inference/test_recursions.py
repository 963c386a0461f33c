"""Scaled recursions: equal to logarithms, also where weights leave the range of floating-point numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.datasets.hmm import fully_connected
from seqdyn.inference import recursions
from seqdyn.inference.hmm import HMM, GaussianHMM, forward_backward, log_likelihood, posterior_sample, viterbi
from seqdyn.inference.log_recursions import log_forward, log_posterior
from seqdyn.inference.recursions import filtered_logs, forward_log_likelihood, posterior


def random_problem(seed: int, zeros: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    initial, transition = rng.exponential(size=4), rng.exponential(size=(4, 4))
    transition *= (rng.random((4, 4)) >= zeros) | np.eye(4, dtype=bool)
    logs = rng.normal(scale=3.0, size=(30, 5, 4))
    logs[rng.random(logs.shape) < zeros / 4] = -np.inf
    active = np.arange(30)[:, None] < np.array([30, 1, 17, 30, 5])
    logs[~active] = 0.0
    return (
        torch.as_tensor(initial / initial.sum()),
        torch.as_tensor(transition / transition.sum(axis=1, keepdims=True)),
        torch.as_tensor(logs),
        torch.as_tensor(active),
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_scaled_and_logarithmic_recursions_agree(seed: int, zeros: float) -> None:
    problem = random_problem(seed, zeros)

    scaled, logs = posterior(*problem, emission_score=True), log_posterior(*problem)

    for a, b in zip(scaled, logs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward_log_likelihood(*problem), logs.log_likelihood, rtol=1e-13, atol=1e-12)


def extreme_problem(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities down to e^-400 and favourites that change every ten steps by factors up to e^15000."""
    rng = np.random.default_rng(seed)
    transition = np.exp(-rng.exponential(size=(3, 3)) * 10 ** rng.uniform(0, 2.6))
    transition = transition * (rng.random((3, 3)) >= rng.choice([0, 0.3, 0.6])) + 0.1 * np.eye(3)
    initial = np.exp(-rng.exponential(size=3) * 50)
    logs = -rng.exponential(size=(40, 6, 3)) * 10 ** rng.uniform(0, 3.2, size=(1, 6, 1))
    favourite = rng.integers(3, size=(4, 6)).repeat(10, axis=0)[:, :, None] == np.arange(3)
    logs = np.where(favourite, logs / 100, logs) + rng.normal(scale=100, size=(40, 6, 1))
    return (
        torch.as_tensor(initial / initial.sum()),
        torch.as_tensor(transition / transition.sum(axis=1, keepdims=True)),
        torch.as_tensor(logs),
        torch.ones(40, 6, dtype=torch.bool),
    )


def test_they_agree_where_weights_span_thousands_of_orders_of_magnitude(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = []

    def count(*problem: Tensor) -> object:
        again.append(problem[2].shape[1])
        return log_posterior(*problem)

    monkeypatch.setattr(recursions, "log_posterior", count)
    for seed in range(30):
        problem = extreme_problem(seed)
        mixed, logs = posterior(*problem, emission_score=True), log_posterior(*problem)
        torch.testing.assert_close(mixed.log_likelihood, logs.log_likelihood, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(mixed.smoothed, logs.smoothed, rtol=0, atol=1e-10)
        pairs = [found.transition_score * problem[1] for found in (mixed, logs)]
        torch.testing.assert_close(*pairs, rtol=0, atol=1e-9)
    # Both ways were taken, so both were compared.
    assert 10 < sum(again) < 120


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_ordinary_problems_need_no_logarithms(zeros: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(recursions, "log_posterior")

    assert posterior(*random_problem(0, zeros)).smoothed.isfinite().all()


def two_sides(distance: float) -> tuple[GaussianHMM, Tensor]:
    """Two states that never meet; the data first favour one by far, then the other by more."""
    hmm = GaussianHMM([0.5, 0.5], torch.eye(2), [[0.0], [distance]], [[1.0], [1.0]])
    return hmm, torch.tensor([0.0] * 4 + [distance] * 6, dtype=torch.float64)[None, :, None]


@pytest.mark.parametrize("distance", [5.0, 30.0, 45.0, 200.0])
def test_a_state_that_underflowed_comes_back_when_later_steps_favour_it(distance: float) -> None:
    # Closed form: the path is constant, so the likelihood is the mean of two products. At distance 30 the
    # second state falls to e^-1800 after four steps, far below the smallest number, and wins in the end.
    hmm, x = two_sides(distance)
    losses = [-0.5 * 6 * distance**2, -0.5 * 4 * distance**2]
    expected = -5 * math.log(2 * math.pi) + np.logaddexp(*losses) + math.log(0.5)

    found = forward_backward(hmm, x)

    assert float(log_likelihood(hmm, x)) == pytest.approx(expected, rel=1e-14)
    assert found.smoothed[0, :, 1].numpy() == pytest.approx(np.exp(losses[1] - np.logaddexp(*losses)))
    assert viterbi(hmm, x).path.tolist() == [[1] * 10]
    assert posterior_sample(hmm, x, 4, seed=0).unique().tolist() == [1]


def test_only_the_series_in_need_are_computed_in_logarithms(monkeypatch: pytest.MonkeyPatch) -> None:
    hmm, x = two_sides(30.0)
    widths = []

    def count(*problem: Tensor) -> object:
        widths.append(problem[2].shape[1])
        return log_posterior(*problem)

    monkeypatch.setattr(recursions, "log_posterior", count)
    easy = torch.full_like(x, 15.0)

    both = forward_backward(hmm, torch.cat([easy, x]))

    assert widths == [1]
    torch.testing.assert_close(both.smoothed[0], forward_backward(hmm, easy).smoothed[0])
    assert float(both.smoothed[1, 0, 1]) == pytest.approx(1.0)


def test_gradients_survive_underflow() -> None:
    # d log L / d mean_k = Σ_t P(state k | data) (x_t - mean_k): here all weight is on the second state.
    hmm, x = two_sides(30.0)
    mean = hmm.mean.clone().requires_grad_()

    log_likelihood(GaussianHMM(hmm.initial, hmm.transition, mean, hmm.covariance), x).sum().backward()

    assert mean.grad is not None
    assert mean.grad[:, 0].tolist() == pytest.approx([0.0, -4 * 30.0])


def test_gradients_of_a_table_survive_underflow() -> None:
    # The path is constant; 400 zeros put state 1 at 9^-400 = e^-879, then 800 ones bring it back.
    leaves = [
        torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for value in ([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.1, 0.9]])
    ]
    symbols = np.repeat([[0, 1]], [400, 800], axis=1)

    value = log_likelihood(HMM(*leaves), symbols)
    initial, transition, emission = torch.autograd.grad(value.sum(), leaves)

    assert float(value.detach()) == pytest.approx(
        math.log(0.5) + 400 * math.log(0.1) + 800 * math.log(0.9), rel=1e-13
    )
    assert initial.tolist() == pytest.approx([0.0, 2.0], abs=1e-9)
    assert transition.diagonal().tolist() == pytest.approx([0.0, 1199.0], abs=1e-6)
    assert emission.numpy() == pytest.approx(np.array([[0, 0], [400 / 0.1, 800 / 0.9]]), rel=1e-9, abs=1e-9)
    # To switch on at the right step is better by 9^400: beyond the numbers, bounded instead of infinite.
    assert 1e250 < float(transition[0, 1]) < math.inf


def test_an_outlier_of_the_only_reachable_state_does_not_make_a_series_impossible() -> None:
    hmm = GaussianHMM([1.0, 0.0], torch.eye(2), [[0.0], [100.0]], [[1.0], [1.0]])

    # The second state would explain the step e^5000 times better but is never reached.
    assert float(log_likelihood(hmm, [[[100.0]]])) == pytest.approx(-5000 - 0.5 * math.log(2 * math.pi))


def test_a_state_that_is_never_reached_may_explain_the_data_infinitely_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(recursions, "log_posterior")
    hmm = GaussianHMM([1.0, 0.0], torch.eye(2), [[0.0], [30.0]], [[1.0], [1.0]])

    # Its backward weight passes e^4500; multiplied by a transition of probability 0 it must stay 0.
    found = forward_backward(hmm, torch.full((1, 10, 1), 30.0))

    assert found.smoothed[0].tolist() == [[1.0, 0.0]] * 10
    assert found.transitions[0].tolist() == [[9.0, 0.0], [0.0, 0.0]]


def test_padding_changes_nothing_even_where_rows_sum_to_one_in_eight_digits_only() -> None:
    transition = np.array([[0.9, 0.1], [0.2, 0.8]]) * [[1 + 9e-9], [1 - 9e-9]]
    hmm = HMM([0.5, 0.5], transition, [[0.7, 0.3], [0.4, 0.6]])

    alone = forward_backward(hmm, [[0, 1, 1]])
    padded = forward_backward(hmm, [[0, 1, 1, *[0] * 500]], [3])

    torch.testing.assert_close(padded.smoothed[:, :3], alone.smoothed, rtol=1e-14, atol=0)
    torch.testing.assert_close(padded.transitions, alone.transitions, rtol=1e-14, atol=0)
    torch.testing.assert_close(padded.log_likelihood, alone.log_likelihood, rtol=1e-14, atol=0)


def test_well_separated_states_with_many_transitions_stay_in_the_fast_recursion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(recursions, "log_forward")
    hmm = GaussianHMM([0.5, 0.5], [[0.9, 0.1], [1e-9, 1 - 1e-9]], [[0.0], [100.0]], [[1.0], [1.0]])
    data = hmm.sequences(3, 200, seed=0)

    assert log_likelihood(hmm, data["target"].values).isfinite().all()


def test_filtered_logs_agree_in_both_recursions() -> None:
    initial, transition, logs, active = random_problem(2, 0.5)

    again = log_forward(initial, transition, logs, active).log_alpha
    again = again - again.logsumexp(dim=-1, keepdim=True)

    mask = active & again.isfinite().any(dim=-1)
    found = filtered_logs(initial, transition, logs, active)
    torch.testing.assert_close(found[mask].exp(), again[mask].exp(), rtol=1e-11, atol=1e-13)


def test_many_steps_are_as_exact_as_their_parts() -> None:
    # With equal rows of the transition matrix the steps are independent: log L = Σ log p(symbol).
    law, emission = np.array([0.2, 0.3, 0.5]), np.array([[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]])
    hmm = HMM(law, np.tile(law, (3, 1)), emission)
    symbols = np.random.default_rng(0).integers(2, size=(1, 20_000))

    expected = np.log((law @ emission)[symbols]).sum()

    assert float(log_likelihood(hmm, symbols)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_a_hundred_thousand_steps_of_fifty_states_run() -> None:
    hmm = fully_connected(50)
    data = hmm.sequences(1, 100_000, seed=0)

    found, best = forward_backward(hmm, data["symbol"].values), viterbi(hmm, data["symbol"].values)

    assert float(found.transitions.sum()) == pytest.approx(99_999)
    assert bool((best.path.numpy() == data["hmm_state"].values).mean() > 0.95)
