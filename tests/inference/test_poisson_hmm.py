"""Poisson HMMs against scipy and against numbers of hmmlearn 0.3.3.

The frozen numbers are of ``hmmlearn.hmm.PoissonHMM`` without prior (``lambdas_prior=0``,
``lambdas_weight=0``) and without a tolerance, from the start that ``start`` builds: ``score``, then ``score``
and ``lambdas_`` after 20 iterations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from seqdyn.data.schema import check_sequences
from seqdyn.inference.hmm import PoissonHMM, fit_em, forward_backward, log_likelihood, viterbi

Sticky = Callable[[int], tuple[np.ndarray, np.ndarray]]


def start(x: np.ndarray, num_states: int, sticky: Sticky) -> PoissonHMM:
    """Rates half way between evenly spaced steps and the mean of all data."""
    rows = x[~np.isnan(x).any(axis=-1)]
    steps = rows[np.arange(num_states) * (len(rows) // num_states)]
    return PoissonHMM(*sticky(num_states), 0.5 * steps + 0.5 * rows.mean(axis=0))


@pytest.fixture
def model() -> PoissonHMM:
    rate = [[1.0, 5.0, 0.2], [4.0, 1.0, 2.0], [9.0, 9.0, 0.5], [0.3, 0.3, 7.0]]
    transition = np.full((4, 4), 0.1 / 3)
    np.fill_diagonal(transition, 0.9)
    return PoissonHMM(np.full(4, 0.25), transition, rate)


def test_likelihood_and_twenty_updates_are_those_of_hmmlearn(
    counts: np.ndarray, lengths: list[int], sticky: Sticky
) -> None:
    hmm = start(counts, 2, sticky)

    found = log_likelihood(hmm, counts, lengths)
    result = fit_em(hmm, counts, lengths, max_iters=20, tolerance=0)

    expected = [-237.94469586318849, -164.94648323602578, -96.27012450979362]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert float(result.log_likelihood[-1]) == pytest.approx(-469.64241908711085, rel=1e-9)
    rates = [[1.9943537402350162, 1.4283972223746457], [7.885164897839182, 1.528688497284053]]
    np.testing.assert_allclose(result.hmm.rate, rates, rtol=1e-9)
    stay = [0.9035150870554308, 0.8957203042496183]
    np.testing.assert_allclose(result.hmm.transition.diagonal(), stay, rtol=1e-9)


def test_on_simulated_counts_likelihood_and_twenty_updates_are_those_of_hmmlearn(
    model: PoissonHMM, sticky: Sticky
) -> None:
    x = model.sequences(5, 300, seed=0)["target"].values
    hmm = start(x.astype(float), 3, sticky)

    found = log_likelihood(hmm, x)
    result = fit_em(hmm, x, max_iters=20, tolerance=0)

    expected = [
        -2580.3351808020193, -2660.4460441146466, -3404.6502865760262, -2853.0813652512425,
        -3113.095513594269,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert float(result.log_likelihood[-1]) == pytest.approx(-8670.475003319945, rel=1e-9)
    np.testing.assert_allclose(
        result.hmm.rate[0], [8.95195441700758, 9.236141772764448, 0.48636940387436484], rtol=1e-8
    )


def test_probabilities_are_those_of_scipy(model: PoissonHMM) -> None:
    x = np.random.default_rng(0).integers(12, size=(2, 4, 3))

    found = model.log_emissions(model.prepare(x)[0])

    for k in range(4):
        np.testing.assert_allclose(found[..., k], poisson(model.rate[k]).logpmf(x).sum(axis=-1), rtol=1e-12)


def test_a_rate_of_zero_shows_no_event_and_stays() -> None:
    hmm = PoissonHMM([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], [[0.0], [3.0]])
    x = [[[0], [0], [2], [0], [4]]]

    smoothed = forward_backward(hmm, x).smoothed
    found = fit_em(hmm, x, max_iters=5, tolerance=0, prior={"rate": (1.0, 1.0)}).hmm

    assert smoothed[0, [2, 4], 0].tolist() == [0.0, 0.0] and smoothed.isfinite().all()
    assert float(found.rate[0]) == 0.0 and float(found.rate[1]) > 0
    alone = PoissonHMM([1.0], [[1.0]], [[0.0]])
    assert log_likelihood(alone, [[[0]], [[1]]]).tolist() == [0.0, -np.inf]


def test_a_prior_counts_as_events_in_further_steps() -> None:
    hmm = PoissonHMM([1.0], [[1.0]], [[5.0, 1.0]])

    result = fit_em(hmm, [[[1, 0], [3, 0]]], max_iters=1, tolerance=0, prior={"rate": (2.0, 4.0)})

    assert result.hmm.rate[0].tolist() == pytest.approx([6 / 6, 2 / 6])
    gap = result.objective[-1] - result.log_likelihood[-1]
    assert float(gap) == pytest.approx(2 * np.log(1.0) + 2 * np.log(1 / 3) - 4 * (1 + 1 / 3))


def test_missing_counts_are_left_out_feature_by_feature() -> None:
    hmm = PoissonHMM([1.0], [[1.0]], [[2.0, 2.0]])
    x = np.array([[[1.0, np.nan], [3.0, 7.0], [np.nan, np.nan]]])

    expected = poisson(2.0).logpmf([1, 3, 7]).sum()
    assert float(log_likelihood(hmm, x)) == pytest.approx(expected)
    assert fit_em(hmm, x, max_iters=1, tolerance=0).hmm.rate[0].tolist() == pytest.approx([2.0, 7.0])


def test_the_gradient_of_the_rates_is_the_finite_difference(model: PoissonHMM) -> None:
    x = model.sequences(2, 5, seed=1)["target"].values

    def value(rate: torch.Tensor) -> torch.Tensor:
        return log_likelihood(PoissonHMM(model.initial, model.transition, rate), x).sum()

    assert torch.autograd.gradcheck(value, (model.rate.clone().requires_grad_(),), rtol=1e-6)


def test_simulated_counts_follow_the_schema_and_are_decoded(model: PoissonHMM) -> None:
    data = model.sequences(3, 500, seed=2)

    check_sequences(data)
    assert data["target"].dtype == np.int64
    path = viterbi(model, data["target"].values).path.numpy()
    assert (path == data["hmm_state"].values).mean() > 0.9


def test_a_start_from_the_data_leads_to_the_truth(model: PoissonHMM) -> None:
    x = model.sequences(10, 300, seed=4)["target"].values

    found = fit_em(PoissonHMM.from_data(x, 4, seed=0), x, tolerance=1e-8).hmm

    order = found.rate[:, 0].argsort()
    truth = model.rate[model.rate[:, 0].argsort()]
    # About 750 steps a state: standard errors up to sqrt(9 / 750) = 0.11.
    torch.testing.assert_close(found.rate[order], truth, atol=0.5, rtol=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[[1.5]]], r"whole numbers of at least 0, or NaN where missing, got 1\.5 at index \(0, 0, 0\)"),
        ([[[0], [-1]]], r"got -1 at index \(0, 1, 0\)"),
        ([[1, 2]], r"shape \(series, time, 1\), got \(1, 2\); .* a single feature x\[\.\.\., None\]"),
    ],
)
def test_what_are_no_counts_is_refused(x: object, message: str) -> None:
    hmm = PoissonHMM([1.0], [[1.0]], [[2.0]])

    with pytest.raises(ValueError, match=message):
        log_likelihood(hmm, x)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [[[-1.0]], [[np.nan]], [[1.0], [2.0]], [1.0]])
def test_what_are_no_rates_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="rate must hold numbers of at least 0"):
        PoissonHMM([1.0], [[1.0]], rate)  # type: ignore[arg-type]


def test_a_wrong_prior_is_refused(model: PoissonHMM) -> None:
    for value in (1.0, (1.0, -1.0), (1.0, 2.0, 3.0)):
        with pytest.raises(ValueError, match=r"prior\['rate'\] must be \(count, exposure\)"):
            fit_em(model, np.zeros((1, 3, 3)), prior={"rate": value})
