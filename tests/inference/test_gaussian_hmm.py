"""Gaussian HMMs against scipy and against numbers of hmmlearn 0.3.3.

The frozen numbers are of ``hmmlearn.hmm.GaussianHMM`` without any prior (``min_covar=0``, ``covars_prior=0``,
``covars_weight`` the number of features, 1 for diagonal ones) and without a tolerance, from the start that
``start`` builds: ``score`` of every series, then ``score`` and ``means_`` after 20 iterations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from seqdyn.data.schema import check_sequences
from seqdyn.datasets import load
from seqdyn.inference.hmm import (
    HMM,
    GaussianHMM,
    filter_states,
    fit_em,
    forward_backward,
    log_likelihood,
    posterior_sample,
    viterbi,
)

Sticky = Callable[[int], tuple[np.ndarray, np.ndarray]]


def start(x: np.ndarray, num_states: int, sticky: Sticky, *, diagonal: bool) -> GaussianHMM:
    """Means at evenly spaced steps, the variances of all data."""
    rows = x[~np.isnan(x).any(axis=-1)]
    mean, variance = rows[np.arange(num_states) * (len(rows) // num_states)], rows.var(axis=0)
    covariance = np.stack([variance if diagonal else np.diag(variance)] * num_states)
    return GaussianHMM(*sticky(num_states), mean, covariance)


@pytest.fixture
def model() -> GaussianHMM:
    covariance = [[[1.0, 0.3], [0.3, 0.5]], [[0.2, -0.1], [-0.1, 0.4]]]
    return GaussianHMM([0.3, 0.7], [[0.8, 0.2], [0.1, 0.9]], [[0.0, 1.0], [2.0, -1.0]], covariance)


@pytest.mark.parametrize(
    ("diagonal", "after", "mean"),
    [
        (False, -196.07434967592033, [-0.7535239183001092, 0.6033718983935122, 0.4516137169161061]),
        (True, -197.34164271764018, [-0.7581155452154182, 0.5915715213850842, 0.4536717240552006]),
    ],
)
def test_likelihood_and_twenty_updates_are_those_of_hmmlearn(
    diagonal: bool, after: float, mean: list[float], curves: np.ndarray, lengths: list[int], sticky: Sticky
) -> None:
    hmm = start(curves, 3, sticky, diagonal=diagonal)

    found = log_likelihood(hmm, curves, lengths)
    result = fit_em(hmm, curves, lengths, max_iters=20, tolerance=0)

    expected = [-186.2922823982854, -130.20959024848207, -74.31081136903394]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert float(result.log_likelihood[-1]) == pytest.approx(after, rel=1e-9)
    np.testing.assert_allclose(result.hmm.mean[:, 0], mean, rtol=1e-9)


@pytest.mark.parametrize(
    ("diagonal", "after", "stay", "mean"),
    [
        (
            False,
            -78518.54202184592,
            [0.93416909, 0.89665674, 0.95227720, 0.95092489, 0.92432752, 0.92852414],
            [-1.53395200, 0.56687138, -0.20411753, 0.67495467, 0.37257684, 0.27492787],
        ),
        (
            True,
            -87803.5943229157,
            [0.88374889, 0.90359418, 0.95063695, 0.90003206, 0.92521945, 0.91231576],
            [-5.34552372, 0.45551789, 0.21874327, 0.84601876, 0.31418836, 0.20501615],
        ),
    ],
)
def test_on_motion_capture_likelihood_and_twenty_updates_are_those_of_hmmlearn(
    diagonal: bool, after: float, stay: list[float], mean: list[float], sticky: Sticky, data_dir: object
) -> None:
    x = load("mocap6", download=False)["target"].values
    lengths = (~np.isnan(x).any(axis=-1)).sum(axis=1)
    hmm = start(x, 6, sticky, diagonal=diagonal)

    found = log_likelihood(hmm, x, lengths)
    result = fit_em(hmm, x, lengths, max_iters=20, tolerance=0)

    expected = [
        -18871.58649301747, -9801.954917710369, -11857.130967657979, -21582.79470298413, -18472.413593396752,
        -18025.178087219592,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert float(result.log_likelihood[-1]) == pytest.approx(after, rel=1e-10)
    np.testing.assert_allclose(result.hmm.transition.diagonal(), stay, atol=1e-7)
    np.testing.assert_allclose(result.hmm.mean[:, 0], mean, atol=1e-7)


@pytest.mark.parametrize("diagonal", [True, False])
def test_densities_are_those_of_scipy(diagonal: bool, model: GaussianHMM) -> None:
    hmm = GaussianHMM(
        model.initial,
        model.transition,
        model.mean,
        model.covariance.diagonal(dim1=1, dim2=2) if diagonal else model.covariance,
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 2))

    found = hmm.log_emissions(hmm.prepare(x)[0])

    for k in range(2):
        covariance = np.diag(hmm.covariance[k]) if diagonal else hmm.covariance[k].numpy()
        expected = multivariate_normal(hmm.mean[k].numpy(), covariance).logpdf(x)
        np.testing.assert_allclose(found[..., k], expected, rtol=1e-12)


def test_a_missing_feature_of_a_diagonal_model_is_the_model_without_it() -> None:
    # Independent features: with one missing throughout, a series says what the other says alone.
    chain = ([0.3, 0.7], [[0.8, 0.2], [0.1, 0.9]])
    both = GaussianHMM(*chain, [[0.0, 1.0], [2.0, -1.0]], [[1.0, 0.5], [0.2, 0.4]])
    first = GaussianHMM(*chain, [[0.0], [2.0]], [[1.0], [0.2]])
    x = both.sequences(3, 9, seed=0)["target"].values
    x[:, :, 1] = np.nan

    torch.testing.assert_close(log_likelihood(both, x), log_likelihood(first, x[:, :, :1]))
    a, b = (fit_em(h, v, max_iters=4, tolerance=0).hmm for h, v in ((both, x), (first, x[:, :, :1])))
    torch.testing.assert_close(a.mean[:, 0], b.mean[:, 0])
    torch.testing.assert_close(a.covariance[:, 0], b.covariance[:, 0])
    assert torch.equal(a.mean[:, 1], both.mean[:, 1])


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_missing_step_is_a_step_that_says_nothing(diagonal: bool, model: GaussianHMM) -> None:
    covariance = model.covariance.diagonal(dim1=1, dim2=2) if diagonal else model.covariance
    hmm = GaussianHMM(model.initial, model.transition, model.mean, covariance)
    x = hmm.sequences(1, 4, seed=0)["target"].values
    x[0, 1:3] = np.nan
    jump = torch.linalg.matrix_power(hmm.transition, 3)

    found = log_likelihood(hmm, x)

    e = hmm.log_emissions(hmm.prepare(x)[0])[0].exp()
    expected = ((hmm.initial * e[0]) @ jump * e[3]).sum().log()
    assert float(found) == pytest.approx(float(expected), rel=1e-13)


def test_gradients_of_means_and_covariances_are_finite_differences(model: GaussianHMM) -> None:
    x = model.sequences(2, 6, seed=1)["target"].values
    root = torch.linalg.cholesky(model.covariance).detach()

    def value(mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        hmm = GaussianHMM(model.initial, model.transition, mean, root @ root.mT)
        return log_likelihood(hmm, x, [6, 4]).sum()

    inputs = (model.mean.clone().requires_grad_(), root.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs, rtol=1e-5)


def test_every_verb_takes_numbers(model: GaussianHMM) -> None:
    data = model.sequences(4, 300, seed=0)
    x, states = data["target"].values, torch.as_tensor(data["hmm_state"].values)

    check_sequences(data)
    assert bool((viterbi(model, x).path == states).double().mean() > 0.97)
    assert bool((filter_states(model, x).argmax(dim=-1) == states).double().mean() > 0.95)
    drawn = (posterior_sample(model, x, 5, seed=0) == states).double().mean()
    right = forward_backward(model, x).smoothed.gather(2, states[..., None]).mean()
    assert float(drawn) == pytest.approx(float(right), abs=0.01)


# 20,000 steps: 4 standard errors of a mean or covariance in a state; fixed seed.
@pytest.mark.parametrize("diagonal", [True, False])
def test_sequences_have_the_moments_of_the_model(diagonal: bool, model: GaussianHMM) -> None:
    covariance = model.covariance.diagonal(dim1=1, dim2=2) if diagonal else model.covariance
    hmm = GaussianHMM(model.initial, model.transition, model.mean, covariance)
    data = hmm.sequences(20, 1000, seed=0)
    x, z = data["target"].values.reshape(-1, 2), data["hmm_state"].values.ravel()

    for k in range(2):
        truth = np.diag(covariance[k]) if diagonal else covariance[k].numpy()
        here, scale = x[z == k], np.sqrt(np.diag(truth))
        error = 4 / np.sqrt(len(here))
        assert (np.abs(here.mean(axis=0) - hmm.mean[k].numpy()) <= error * scale).all()
        assert (np.abs(np.cov(here.T) - truth) <= 1.5 * error * np.outer(scale, scale)).all()


def test_a_start_from_the_data_leads_to_the_truth(model: GaussianHMM) -> None:
    data = model.sequences(10, 400, seed=3)["target"].values
    rough = GaussianHMM.from_data(data, 2, seed=0)

    found = fit_em(rough, data, max_iters=200, tolerance=1e-8).hmm

    order = found.mean[:, 0].argsort()
    torch.testing.assert_close(found.mean[order], model.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(found.covariance[order], model.covariance, atol=0.1, rtol=0)
    torch.testing.assert_close(found.transition[order][:, order], model.transition, atol=0.03, rtol=0)


def test_a_start_is_the_clusters_and_the_covariance_within_them() -> None:
    x = np.array([[0.0, 0.0], [1.0, 2.0], [10.0, 0.0], [11.0, 2.0], [np.nan, 1.0], [99.0, 99.0]])[None]

    hmm = GaussianHMM.from_data(x, 2, lengths=[5], stay_probability=0.8, seed=1)
    diagonal = GaussianHMM.from_data(x, 2, lengths=[5], covariance="diagonal", seed=1)

    first = hmm.mean[:, 0].argsort()
    assert hmm.mean[first].tolist() == [[0.5, 1.0], [10.5, 1.0]]
    within, total = np.array([[0.25, 0.5], [0.5, 1.0]]), np.array([[25.25, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(hmm.covariance, [within + 0.01 * total] * 2)
    np.testing.assert_allclose(diagonal.covariance[0], np.diag(within + 0.01 * total))
    assert hmm.transition.tolist() == [[0.8, pytest.approx(0.2)], [pytest.approx(0.2), 0.8]]


def test_data_far_from_zero_lose_no_precision(curves: np.ndarray, lengths: list[int], sticky: Sticky) -> None:
    near, far = start(curves, 3, sticky, diagonal=False), curves + 1e6
    hmm = GaussianHMM(near.initial, near.transition, near.mean + 1e6, near.covariance)

    a = fit_em(near, curves, lengths, max_iters=10, tolerance=0).hmm
    b = fit_em(hmm, far, lengths, max_iters=10, tolerance=0).hmm

    torch.testing.assert_close(a.covariance, b.covariance, rtol=1e-6, atol=1e-8)


def test_a_prior_counts_as_further_observations() -> None:
    x = np.array([[[0.0], [2.0]]])
    hmm = GaussianHMM([1.0], [[1.0]], [[5.0]], [[[1.0]]])

    result = fit_em(hmm, x, max_iters=1, tolerance=0, prior={"covariance": (3.0, [[4.0]])})

    assert float(result.hmm.mean) == pytest.approx(1.0)
    assert float(result.hmm.covariance) == pytest.approx((2 * 1.0 + 3 * 4.0) / 5)


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_objective_with_a_prior_never_falls(
    diagonal: bool, curves: np.ndarray, lengths: list[int], sticky: Sticky
) -> None:
    hmm = start(curves, 3, sticky, diagonal=diagonal)
    pseudo = np.ones(2) if diagonal else np.eye(2)

    result = fit_em(hmm, curves, lengths, max_iters=40, tolerance=0, prior={"covariance": (5.0, pseudo)})

    assert bool((result.objective.diff() > -1e-9).all())


@pytest.mark.parametrize("fixed", ["mean", "covariance"])
def test_a_fixed_parameter_stays_and_the_likelihood_still_rises(
    fixed: str, curves: np.ndarray, lengths: list[int], sticky: Sticky
) -> None:
    hmm = start(curves, 3, sticky, diagonal=False)

    result = fit_em(hmm, curves, lengths, max_iters=15, tolerance=0, fixed=[fixed])

    assert torch.equal(getattr(result.hmm, fixed), getattr(hmm, fixed))
    assert bool((result.log_likelihood.diff() > 0).all())


def test_restarts_find_a_better_optimum_than_a_bad_start(curves: np.ndarray, lengths: list[int]) -> None:
    flat = GaussianHMM([0.5, 0.5], [[0.5, 0.5]] * 2, [[0.0, 1.0]] * 2, [np.eye(2)] * 2)
    with pytest.raises(ValueError, match=r"emit alike.*GaussianHMM\.from_data"):
        fit_em(flat, curves, lengths)
    stuck = fit_em(GaussianHMM([1.0], [[1.0]], [[0.0, 1.0]], [np.eye(2)]), curves, lengths)

    free = fit_em(flat, curves, lengths, max_iters=200, tolerance=1e-6, restarts=3, seed=0)

    assert free.log_likelihood[-1] > stuck.log_likelihood[-1] + 10


def test_a_state_that_closes_in_on_one_step_is_an_error_with_remedies() -> None:
    x = np.array([[[0.0], [0.1], [-0.1], [50.0]]])
    hmm = GaussianHMM([0.5, 0.5], [[0.5, 0.5]] * 2, [[0.0], [50.0]], [[[1.0]], [[1.0]]])

    with pytest.raises(ValueError, match=r"covariance\[1\] is not .* add prior=\{'covariance'"):
        fit_em(hmm, x)
    safe = fit_em(hmm, x, prior={"covariance": (1.0, [[1.0]])})
    assert safe.converged


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([[0.0], [np.nan]], np.ones((2, 1)), "mean must hold finite numbers"),
        (np.zeros((3, 1)), np.ones((3, 1)), r"for M = 2 states, got shape \(3, 1\)"),
        (
            np.zeros((2, 2)),
            np.ones((2, 3)),
            r"shape \(2, 2, 2\) \(full\) or \(2, 2\) \(diagonal\), got \(2, 3\)",
        ),
        (np.zeros((2, 1)), [[1.0], [0.0]], r"covariance\[1\] is not symmetric and positive definite"),
        (np.zeros((2, 2)), [np.eye(2), [[1, 2], [2, 1]]], r"covariance\[1\] is not symmetric and positive"),
        (np.zeros((2, 2)), [[[1, 0.5], [0.4, 1]], np.eye(2)], r"covariance\[0\] is not symmetric"),
        (np.zeros((2, 2)), [np.eye(2), np.full((2, 2), np.nan)], r"covariance\[1\] is not"),
    ],
)
def test_parameters_that_are_no_gaussian_are_refused(mean: object, covariance: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianHMM([0.5, 0.5], np.eye(2), mean, np.asarray(covariance))  # type: ignore[arg-type]


def test_data_that_do_not_fit_are_refused_with_their_place(model: GaussianHMM) -> None:
    x = np.zeros((2, 3, 2))
    x[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"\(series, time\) = \(1, 2\); use diagonal covariances"):
        log_likelihood(model, x)
    x[1, 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"got inf at \(series, time, feature\) = \(1, 2, 0\)"):
        log_likelihood(model, x)
    assert log_likelihood(model, x, [3, 2]).isfinite().all()
    with pytest.raises(ValueError, match=r"shape \(series, time, 2\), got \(2, 3\); one series is x\[None\]"):
        log_likelihood(model, x[..., 0])
    with pytest.raises(ValueError, match=r"only 1 different observation\(s\), fewer than num_states=2"):
        GaussianHMM.from_data(np.zeros((1, 5, 2)), 2)
    with pytest.raises(ValueError, match="a feature depends linearly on others; drop it, or use"):
        GaussianHMM.from_data(np.arange(10.0).reshape(1, 5, 2), 2)
    with pytest.raises(ValueError, match="feature 1 is constant; drop it"):
        GaussianHMM.from_data(np.stack([np.arange(5.0), np.ones(5)], axis=1)[None], 2)
    with pytest.raises(ValueError, match="covariance must be 'full' or 'diagonal'"):
        GaussianHMM.from_data(x, 2, covariance="tied")
    with pytest.raises(ValueError, match="every step misses a feature"):
        GaussianHMM.from_data(np.full((1, 5, 2), np.nan), 2)
    for value in (1.0, (1.0, np.eye(3)), (-1.0, np.eye(2))):
        with pytest.raises(ValueError, match=r"prior\['covariance'\] must be \(weight, covariance\)"):
            fit_em(model, np.zeros((1, 3, 2)), prior={"covariance": value})
    with pytest.raises(ValueError, match="no prior for 'mean'"):
        fit_em(model, np.zeros((1, 3, 2)), prior={"mean": 1.0})


def test_float32_data_are_taken_as_their_float64_values(model: GaussianHMM) -> None:
    x = model.sequences(2, 5, seed=0)["target"].values.astype(np.float32)

    assert torch.equal(log_likelihood(model, x), log_likelihood(model, x.astype(np.float64)))


def test_a_gaussian_on_two_points_is_a_categorical_model() -> None:
    # Density ratios of the two values are those of the emission table; densities differ by a factor a step.
    gauss = GaussianHMM([0.4, 0.6], [[0.7, 0.3], [0.2, 0.8]], [[0.0], [1.0]], [[1.0], [1.0]])
    x = np.array([[0, 1, 1, 0]])
    table = np.exp(-0.5 * (np.array([0.0, 1.0])[None, :] - np.array([0.0, 1.0])[:, None]) ** 2)
    scale = table.sum(axis=1)[0]
    hmm = HMM(gauss.initial, gauss.transition, table / scale)

    expected = log_likelihood(hmm, x) + 4 * np.log(scale / np.sqrt(2 * np.pi))
    torch.testing.assert_close(log_likelihood(gauss, x[..., None]), expected)
