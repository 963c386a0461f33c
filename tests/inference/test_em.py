"""Expectation-maximisation of categorical HMMs: one step in closed form, monotone, priors, restarts."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from seqdyn.datasets.hmm import linear_chain, preset
from seqdyn.errors import ConvergenceWarning
from seqdyn.inference.hmm import HMM, fit_em, forward_backward, log_likelihood, match_states


@pytest.fixture
def start() -> HMM:
    return HMM([0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]], [[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])


@pytest.fixture
def symbols() -> np.ndarray:
    return preset("two").sequences(20, 30, seed=0)["symbol"].values


def test_one_update_is_the_ratio_of_expected_counts_over_all_paths(start: HMM) -> None:
    series = [[0, 2, 1, 2], [1, 1, 0]]
    first, pairs, shown = np.zeros(2), np.zeros((2, 2)), np.zeros((2, 3))
    for symbols in series:
        paths = list(itertools.product(range(2), repeat=len(symbols)))
        weights = np.array([
            float(start.initial[z[0]])
            * np.prod([float(start.transition[i, j]) for i, j in itertools.pairwise(z)])
            * np.prod([float(start.emission[k, x]) for k, x in zip(z, symbols, strict=True)])
            for z in paths
        ])  # fmt: skip
        for z, w in zip(paths, weights / weights.sum(), strict=True):
            first[z[0]] += w
            for i, j in itertools.pairwise(z):
                pairs[i, j] += w
            for k, x in zip(z, symbols, strict=True):
                shown[k, x] += w

    found = fit_em(start, [[0, 2, 1, 2], [1, 1, 0, -1]], [4, 3], max_iters=1, tolerance=0).hmm

    np.testing.assert_allclose(found.initial, first / 2, rtol=1e-12)
    np.testing.assert_allclose(found.transition, pairs / pairs.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(found.emission, shown / shown.sum(axis=1, keepdims=True), rtol=1e-12)


def test_the_history_is_the_likelihood_of_each_model_and_rises(start: HMM, symbols: np.ndarray) -> None:
    result = fit_em(start, symbols, max_iters=30, tolerance=0)

    assert result.num_iters == 30 and not result.converged and len(result.log_likelihood) == 31
    assert float(result.log_likelihood[0]) == pytest.approx(float(log_likelihood(start, symbols).sum()))
    assert float(result.log_likelihood[-1]) == pytest.approx(float(log_likelihood(result.hmm, symbols).sum()))
    assert bool((result.log_likelihood.diff() > 0).all())


def test_fitting_the_series_in_blocks_changes_nothing(
    start: HMM, symbols: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_em(start, symbols, max_iters=5, tolerance=0)

    monkeypatch.setattr("seqdyn.inference.posterior._BLOCK", 7 * 30 * 2)
    parts = fit_em(start, symbols, max_iters=5, tolerance=0)

    torch.testing.assert_close(whole.hmm.transition, parts.hmm.transition, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.log_likelihood, parts.log_likelihood, rtol=1e-13, atol=0)


def test_it_converges_and_a_converged_model_is_a_stationary_point(start: HMM, symbols: np.ndarray) -> None:
    result = fit_em(start, symbols, max_iters=2000, tolerance=1e-12)

    again = fit_em(result.hmm, symbols, max_iters=1, tolerance=0).hmm
    assert result.converged and result.num_iters < 2000
    torch.testing.assert_close(again.transition, result.hmm.transition, atol=1e-5, rtol=0)


def test_too_few_updates_warn_with_the_gain_and_the_remedy(start: HMM, symbols: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match=r"max_iters=2 updates; .* tolerance=1e-12; raise max_iters"):
        fit_em(start, symbols, max_iters=2, tolerance=1e-12)


# 1000 series of 30 steps from the model itself, fixed seed; the largest standard error is about 0.004.
def test_the_parameters_of_a_model_are_found_again() -> None:
    truth = linear_chain(2, stay_probability=0.9)
    symbols = truth.sequences(1000, 30, seed=1)["symbol"].values
    rough = HMM([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], [[0.6, 0.2, 0.2], [0.2, 0.2, 0.6]])

    result = fit_em(rough, symbols, max_iters=500, tolerance=1e-9)

    assert result.log_likelihood[-1] > log_likelihood(truth, symbols).sum()
    torch.testing.assert_close(result.hmm.transition, truth.transition, atol=0.015, rtol=0)
    torch.testing.assert_close(result.hmm.emission, truth.emission, atol=0.015, rtol=0)


def test_zeros_stay_zero_also_with_pseudo_counts_and_restarts() -> None:
    hmm = preset("four")
    symbols = hmm.sequences(10, 20, seed=0)["symbol"].values
    prior = {"initial": 1.0, "transition": 2.0, "emission": 0.5}

    result = fit_em(hmm, symbols, max_iters=5, tolerance=0, prior=prior, restarts=2, seed=0)

    for name in ("transition", "emission"):
        assert torch.equal(getattr(result.hmm, name) == 0, getattr(hmm, name) == 0)
    assert (hmm.transition == 0).sum() == 6 and bool((result.hmm.initial > 0).all())


def test_pseudo_counts_are_added_to_the_expected_counts(start: HMM) -> None:
    symbols, extra = [[0, 2, 1, 2]], torch.tensor([[3.0, 0.0], [1.0, 5.0]], dtype=torch.float64)
    found = forward_backward(start, symbols)

    result = fit_em(start, symbols, max_iters=1, tolerance=0, prior={"transition": extra, "initial": 2.0})

    counts = found.transitions[0] + extra
    torch.testing.assert_close(result.hmm.transition, counts / counts.sum(dim=1, keepdim=True))
    first = found.smoothed[0, 0] + 2.0
    torch.testing.assert_close(result.hmm.initial, first / first.sum())
    gap = result.objective - result.log_likelihood
    expected = (extra * result.hmm.transition.log()).sum() + 2 * result.hmm.initial.log().sum()
    assert float(gap[-1]) == pytest.approx(float(expected))


def test_the_penalised_objective_rises_where_the_likelihood_may_fall(symbols: np.ndarray, start: HMM) -> None:
    best = fit_em(start, symbols, max_iters=500, tolerance=1e-9).hmm

    result = fit_em(best, symbols, max_iters=20, tolerance=0, prior={"emission": 50.0})

    assert bool((result.objective.diff() > -1e-9).all())
    assert bool((result.log_likelihood.diff() < 0).any())


@pytest.mark.parametrize("name", ["initial", "transition", "emission"])
def test_a_fixed_parameter_stays_and_the_others_move(name: str, start: HMM, symbols: np.ndarray) -> None:
    result = fit_em(start, symbols, max_iters=3, tolerance=0, fixed=(name,), restarts=1, seed=0)

    for other in ("initial", "transition", "emission"):
        assert torch.equal(getattr(result.hmm, other), getattr(start, other)) is (other == name)


def test_an_unvisited_state_keeps_its_parameters() -> None:
    hmm = HMM([1.0, 0.0], [[1.0, 0.0], [0.3, 0.7]], [[0.5, 0.5], [0.2, 0.8]])

    found = fit_em(hmm, [[0, 1, 1, 1]], max_iters=2, tolerance=0).hmm

    torch.testing.assert_close(found.emission[0], torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert torch.equal(found.transition[1], hmm.transition[1])
    assert torch.equal(found.emission[1], hmm.emission[1])


def test_missing_steps_are_left_out_of_the_emissions() -> None:
    hmm = HMM([1.0], [[1.0]], [[0.5, 0.5]])

    found = fit_em(hmm, [[0, -1, 1, -1, 1]], max_iters=1, tolerance=0).hmm

    torch.testing.assert_close(found.emission, torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64))


def test_restarts_escape_a_start_that_cannot_move(symbols: np.ndarray) -> None:
    # Equal states are a stationary point of EM: no better than one state.
    flat = HMM([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [[1 / 3] * 3] * 2)
    with pytest.raises(ValueError, match=r"all 2 states of the start emit alike.*HMM\.from_data"):
        fit_em(flat, symbols)
    stuck = fit_em(HMM([1.0], [[1.0]], [[1 / 3] * 3]), symbols)

    free, same = (fit_em(flat, symbols, max_iters=300, restarts=3, seed=1) for _ in range(2))

    assert free.log_likelihood[-1] > stuck.log_likelihood[-1] + 10
    assert torch.equal(free.hmm.transition, same.hmm.transition)
    close = match_states(free.hmm, preset("two"))
    assert bool((close.transition.diagonal() > 0.85).all())


def test_a_start_from_data_finds_the_process_and_misses_no_symbol(symbols: np.ndarray) -> None:
    gaps = np.where(np.random.default_rng(0).random(symbols.shape) < 0.1, -1, symbols)
    start = HMM.from_data(gaps, 2, seed=0)

    found = fit_em(start, gaps, max_iters=300, restarts=2, seed=0)

    assert start.num_symbols == 3 and bool((start.emission > 0).all())
    assert torch.equal(HMM.from_data(gaps, 2, seed=0).emission, start.emission)
    close = match_states(found.hmm, preset("two"))
    assert bool((close.transition.diagonal() > 0.85).all())


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (np.full((2, 3), -1), "nothing was seen"),
        ([[0, 1], [1]], r"unequal lengths; read them with seqdyn\.data\.read_symbols"),
        ([["a", "b"]], r"read names with seqdyn\.data\.read_symbols"),
    ],
)
def test_what_is_no_array_of_symbols_is_named(start: HMM, symbols: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_em(start, symbols)
    with pytest.raises(ValueError, match=message.replace("nothing", "no symbol")):
        HMM.from_data(symbols, 2)


def test_a_series_that_the_start_cannot_produce_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqdyn.inference.posterior._BLOCK", 1)
    hmm = HMM([0.5, 0.5], torch.eye(2), torch.eye(2))

    with pytest.raises(ValueError, match="cannot produce series 2"):
        fit_em(hmm, [[0, 0], [1, 1], [0, 1], [0, 1]])


def test_an_update_that_lowers_the_objective_raises(start: HMM, symbols: np.ndarray) -> None:
    class Wrong(HMM):
        def maximised(self, *_: object) -> dict[str, torch.Tensor]:
            return {"emission": self.emission.flip(1)}

    wrong = Wrong(start.initial, start.transition, [[0.9, 0.05, 0.05], [0.85, 0.05, 0.1]])

    with pytest.raises(RuntimeError, match="update [0-9]+ of EM lowered the objective from"):
        fit_em(wrong, symbols, max_iters=5)


def test_the_result_is_cut_off_from_the_callers_graph_and_raises_no_warning(symbols: np.ndarray) -> None:
    leaf = torch.full((2, 2), 0.5, dtype=torch.float64, requires_grad=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_em(HMM([0.9, 0.1], leaf, [[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]), symbols, max_iters=400).hmm

    assert not found.transition.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iters": 0}, "max_iters must be a whole number of at least 1, got 0"),
        ({"restarts": -1}, "restarts must be a whole number of at least 0"),
        ({"tolerance": -1.0}, "tolerance must be a number of at least 0"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"fixed": ("means",)}, r"fixed takes the names \('initial', 'transition', 'emission'\)"),
        ({"fixed": "emission"}, "fixed takes the names"),
        ({"prior": {"rate": 1.0}}, "prior takes the names"),
        ({"prior": {"emission": -1.0}}, r"prior\['emission'\] must be a pseudo-count of at least 0"),
        ({"prior": {"emission": [[1.0, 2.0]]}}, r"shape \(2, 3\)"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str, start: HMM) -> None:
    with pytest.raises(ValueError, match=message):
        fit_em(start, [[0, 1, 2]], **options)  # type: ignore[arg-type]
