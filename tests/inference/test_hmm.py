"""Categorical HMMs: every verb against brute force over all paths, published numbers (spec check H1)."""

from __future__ import annotations

import itertools
import json
import warnings

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data import from_numpy, read_symbols
from seqdyn.data.schema import check_sequences
from seqdyn.datasets.hmm import preset
from seqdyn.inference import hmm as hmm_module
from seqdyn.inference.hmm import (
    HMM,
    GaussianHMM,
    filter_states,
    fit_em,
    forward_backward,
    log_likelihood,
    match_states,
    posterior_sample,
    predict_symbols,
    viterbi,
)

OBSERVED = [[0, 0, 2, 1, 2, 2, 0, 2]]


def random_hmm(num_states: int, num_symbols: int, seed: int, zeros: float = 0.0) -> HMM:
    """Dirichlet rows in which about a share ``zeros`` of the entries is 0."""
    rng = np.random.default_rng(seed)

    def laws(rows: int, columns: int) -> np.ndarray:
        table = rng.exponential(size=(rows, columns)) * (rng.random((rows, columns)) >= zeros)
        table[np.arange(rows), rng.integers(columns, size=rows)] += 0.3
        return table / table.sum(axis=1, keepdims=True)

    return HMM(laws(1, num_states)[0], laws(num_states, num_states), laws(num_states, num_symbols))


def all_paths(hmm: HMM, symbols: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every path (P, T) and its probability together with the symbols (P,), multiplied out."""
    pi, a, e = hmm.initial.numpy(), hmm.transition.numpy(), hmm.emission.numpy()
    paths = np.array(list(itertools.product(range(hmm.num_states), repeat=len(symbols))))
    joint = pi[paths[:, 0]] * a[paths[:, :-1], paths[:, 1:]].prod(axis=1)
    for z, symbol in zip(paths.T, symbols, strict=True):
        joint = joint * (e[z, symbol] if symbol >= 0 else 1.0)
    return paths, joint


@pytest.fixture
def four() -> HMM:
    return preset("four")


def test_h1_the_likelihood_is_the_published_one(four: HMM) -> None:
    assert float(log_likelihood(four, OBSERVED)) == pytest.approx(-10.372085942948, abs=1e-12)


def test_h1_the_most_probable_path_has_the_published_joint(four: HMM) -> None:
    assert float(viterbi(four, OBSERVED).log_joint) == pytest.approx(-13.883254493020, abs=1e-12)


def test_h1_the_smoothed_law_of_the_first_step_is_the_published_one(four: HMM) -> None:
    smoothed = forward_backward(four, OBSERVED).smoothed

    np.testing.assert_allclose(smoothed[0, 0], [0.42434156, 0.40846128, 0.16719715, 0.0], atol=5e-9)


@pytest.mark.parametrize("case", ["four", "zeros", "missing", "all missing", "one step"])
def test_h1_all_verbs_agree_with_brute_force(case: str, four: HMM) -> None:
    hmm = random_hmm(4, 3, seed=1, zeros=0.4) if case == "zeros" else four
    symbols = {"missing": [-1, 0, -1, -1, 2, 1, -1], "all missing": [-1] * 5, "one step": [1]}.get(
        case, OBSERVED[0]
    )
    paths, joint = all_paths(hmm, symbols)
    total, top = joint.sum(), joint.max()
    weights, at = joint / total, (paths[:, :, None] == np.arange(4)).astype(float)

    found, best = forward_backward(hmm, [symbols]), viterbi(hmm, [symbols])

    assert float(log_likelihood(hmm, [symbols])) == pytest.approx(np.log(total), abs=1e-12)
    assert float(found.log_likelihood) == pytest.approx(np.log(total), abs=1e-12)
    np.testing.assert_allclose(found.smoothed[0], np.einsum("p,ptk->tk", weights, at), atol=1e-12)
    pairs = np.einsum("p,pti,ptj->ij", weights, at[:, :-1], at[:, 1:])
    np.testing.assert_allclose(found.transitions[0], pairs, atol=1e-12)
    np.testing.assert_allclose(filter_states(hmm, [symbols])[0, -1], weights @ at[:, -1], atol=1e-12)
    assert float(best.log_joint) == pytest.approx(np.log(top), abs=1e-12)
    # Paths that tie on paper may differ in the last digit of a product or of a sum of logarithms.
    tied = paths[joint > top * (1 - 1e-12)].tolist()
    assert best.path[0].tolist() in tied


def test_ties_go_to_the_lowest_state_at_every_step() -> None:
    hmm = HMM([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [[1.0], [1.0]])

    assert viterbi(hmm, [[0, 0, 0, 0]]).path.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_any_integer_array_or_tensor_is_taken(dtype: type, four: HMM) -> None:
    symbols = np.array(OBSERVED, dtype=dtype)

    assert log_likelihood(four, symbols).dtype == torch.float64
    assert torch.equal(log_likelihood(four, symbols), log_likelihood(four, torch.as_tensor(symbols)))


def test_reversed_read_only_and_labelled_arrays_are_taken(four: HMM) -> None:
    data = four.sequences(3, 6, seed=0)["symbol"]
    reverse = data.values[:, ::-1]
    reverse.flags.writeable = False

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(log_likelihood(four, data), log_likelihood(four, data.values.tolist()))
        torch.testing.assert_close(log_likelihood(four, reverse), log_likelihood(four, reverse.copy()))


def test_a_batch_of_unequal_lengths_is_its_series_one_by_one(four: HMM) -> None:
    symbols = four.sequences(5, 9, seed=3)["symbol"].values
    lengths = [9, 1, 4, 7, 2]
    padded = symbols.copy()
    padded[1, 1:] = 77  # what follows the end is ignored, whatever it is

    found, best = forward_backward(four, padded, lengths), viterbi(four, padded, lengths)
    totals, filtered = log_likelihood(four, padded, lengths), filter_states(four, padded, lengths)

    for row, n in enumerate(lengths):
        alone = forward_backward(four, symbols[row : row + 1, :n])
        path = viterbi(four, symbols[row : row + 1, :n])
        torch.testing.assert_close(totals[row], alone.log_likelihood[0], atol=1e-13, rtol=0)
        torch.testing.assert_close(found.smoothed[row, :n], alone.smoothed[0], atol=1e-13, rtol=0)
        torch.testing.assert_close(found.transitions[row], alone.transitions[0], atol=1e-13, rtol=0)
        assert best.path[row, :n].tolist() == path.path[0].tolist()
        assert best.log_joint[row] == path.log_joint[0]
        assert bool((found.smoothed[row, n:] == 0).all()) and bool((filtered[row, n:] == 0).all())
        assert bool((best.path[row, n:] == -1).all())
        torch.testing.assert_close(
            filtered[row, :n], filter_states(four, symbols[row : row + 1, :n])[0], atol=1e-13, rtol=0
        )


def test_cutting_a_batch_into_blocks_changes_nothing(four: HMM, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = four.sequences(7, 20, seed=0)["symbol"].values
    whole = [log_likelihood(four, symbols), *forward_backward(four, symbols), *viterbi(four, symbols)]

    monkeypatch.setattr("seqdyn.inference.posterior._BLOCK", 3 * 20 * 4)
    parts = [log_likelihood(four, symbols), *forward_backward(four, symbols), *viterbi(four, symbols)]

    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


def test_missing_steps_contribute_nothing_and_all_missing_has_likelihood_one(four: HMM) -> None:
    assert float(log_likelihood(four, [[-1, -1, -1]])) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("missing", [[], [1, 2], [0]])
def test_an_impossible_series_is_minus_infinity_without_nan(missing: list[int]) -> None:
    hmm = HMM([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]).detached()
    symbols = np.array([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    symbols[:, missing] = -1

    found, best = forward_backward(hmm, symbols), viterbi(hmm, symbols)

    assert log_likelihood(hmm, symbols).tolist() == [-np.inf, 0.0]
    assert found.log_likelihood.tolist() == best.log_joint.tolist() == [-np.inf, 0.0]
    assert best.path.tolist() == [[-1] * 5, [0] * 5]
    assert bool((found.smoothed[0] == 0).all()) and bool((found.transitions[0] == 0).all())
    assert bool((found.smoothed[1, :, 0] == 1).all())
    assert filter_states(hmm, symbols).isfinite().all()
    assert posterior_sample(hmm, symbols, 3, seed=0)[:, 0].unique().tolist() == [-1]


# Gradients: naive automatic differentiation through the recursion in probabilities.


def naive_log_likelihood(hmm: HMM, symbols: list[int]) -> torch.Tensor:
    alpha = hmm.initial
    for step, symbol in enumerate(symbols):
        alpha = alpha if step == 0 else alpha @ hmm.transition
        alpha = alpha * hmm.emission[:, symbol] if symbol >= 0 else alpha
    return alpha.sum().log()


@pytest.mark.parametrize(("num_states", "zeros"), [(3, 0.0), (4, 0.5)])
def test_gradients_are_those_of_automatic_differentiation_also_at_zeros(
    num_states: int, zeros: float
) -> None:
    base = random_hmm(num_states, 3, seed=5, zeros=zeros)
    symbols = base.sequences(2, 7, seed=0)["symbol"].values
    symbols[0, 3] = -1
    lengths, weights = [7, 5], torch.tensor([1.0, 2.5], dtype=torch.float64)
    leaves = [getattr(base, name).clone().requires_grad_() for name in ("initial", "transition", "emission")]

    found = torch.autograd.grad((weights * log_likelihood(HMM(*leaves), symbols, lengths)).sum(), leaves)

    hmm = HMM(*leaves)
    each = [naive_log_likelihood(hmm, row[:n].tolist()) for row, n in zip(symbols, lengths, strict=True)]
    expected = torch.autograd.grad((weights * torch.stack(each)).sum(), leaves)
    assert (base.emission == 0).any() == (zeros > 0)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradients_reach_float32_logits_and_stay_out_of_the_graph_without_them() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    transition = torch.softmax(logits.double(), dim=-1)

    value = log_likelihood(HMM([0.5, 0.5], transition, [[0.9, 0.1], [0.2, 0.8]]), [[0, 0, 1, 1, 1]])
    value.sum().backward()

    assert logits.grad is not None and logits.grad.dtype == torch.float32 and bool((logits.grad != 0).all())
    assert not log_likelihood(preset("two"), [[0, 1]]).requires_grad


def test_an_impossible_series_has_no_gradient() -> None:
    leaf = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    hmm = HMM(leaf, torch.eye(2), torch.eye(2))

    log_likelihood(hmm, [[0, 1], [0, 0]])[1].backward()

    assert leaf.grad is not None and leaf.grad.isfinite().all()


# Draws: 4,000 paths, 4 standard errors at each of 8 x 4 cells: false-alarm rate 0.2 %, fixed seed.
def test_posterior_draws_have_the_smoothed_law_and_the_pairwise_law(four: HMM) -> None:
    count = 4000
    found = forward_backward(four, OBSERVED)

    paths = posterior_sample(four, OBSERVED, count, seed=7)[:, 0]

    share = (paths[..., None] == torch.arange(4)).double().mean(dim=0)
    error = (found.smoothed[0] * (1 - found.smoothed[0]) / count).sqrt()
    assert bool(((share - found.smoothed[0]).abs() <= 4 * error).all())
    pairs = torch.zeros(4, 4, dtype=torch.float64)
    for i, j in itertools.pairwise(paths.unbind(1)):
        pairs.index_put_((i, j), torch.ones(count, dtype=torch.float64), accumulate=True)
    assert bool((pairs[four.transition == 0] == 0).all())
    torch.testing.assert_close(pairs / count, found.transitions[0], atol=4 * (7 / 4 / count) ** 0.5, rtol=0)


def test_posterior_draws_follow_seed_and_lengths_and_leave_the_random_state_alone(four: HMM) -> None:
    before = torch.get_rng_state()

    a, b = (posterior_sample(four, OBSERVED * 2, 5, seed=1, lengths=[8, 3]) for _ in range(2))

    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(a, posterior_sample(four, OBSERVED * 2, 5, seed=2, lengths=[8, 3]))
    assert a.shape == (5, 2, 8) and bool((a[:, 1, 3:] == -1).all()) and bool((a[:, 1, :3] >= 0).all())


def test_predictions_are_ratios_of_likelihoods(four: HMM) -> None:
    past = [0, 0, 2]
    law = predict_symbols(four, [[*past, 1, 1]], [3], num_steps=2)

    base = log_likelihood(four, [past])
    for k in range(3):
        one = (log_likelihood(four, [[*past, k]]) - base).exp()
        two = (log_likelihood(four, [[*past, -1, k]]) - base).exp()
        assert law[0, 0, k].item() == pytest.approx(one.item(), abs=1e-13)
        assert law[0, 1, k].item() == pytest.approx(two.item(), abs=1e-13)


def test_stationary_and_output_statistics_of_an_asymmetric_model() -> None:
    hmm = random_hmm(4, 3, seed=2)
    long_run = torch.linalg.matrix_power(hmm.transition, 200)[0]

    statistics = hmm.output_statistics(lags=3)

    torch.testing.assert_close(hmm.stationary(), long_run, atol=1e-14, rtol=0)
    for lag in (1, 2, 3):
        for k, m in itertools.product(range(3), repeat=2):
            gap = [-1] * (lag - 1)
            stationary = HMM(long_run, hmm.transition, hmm.emission)
            pair = float(log_likelihood(stationary, [[k, *gap, m]]).exp())
            assert float(statistics.joint[lag - 1, k, m]) == pytest.approx(pair, abs=1e-13)
    torch.testing.assert_close(statistics.transition.sum(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(statistics.frequency, statistics.joint[0].sum(dim=0))


def test_expected_changes_are_those_of_the_brute_force_law_of_words() -> None:
    hmm = preset("three")
    words = list(itertools.product(range(3), repeat=4))
    p = log_likelihood(hmm, words).exp()
    changes = torch.tensor([sum(a != b for a, b in itertools.pairwise(word)) for word in words])

    assert float(p.sum()) == pytest.approx(1.0)
    assert hmm.output_statistics().num_changes(4) == pytest.approx(float((p * changes).sum()), abs=1e-12)


def test_a_chain_in_two_parts_has_no_single_stationary_law() -> None:
    hmm = HMM([0.5, 0.5], torch.eye(2), torch.eye(2))

    with pytest.raises(ValueError, match="fall into 2 groups"):
        hmm.stationary()


def test_a_transient_state_has_no_stationary_weight() -> None:
    hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], torch.eye(2))

    assert hmm.stationary().tolist() == pytest.approx([0.0, 1.0], abs=1e-15)


def test_sequences_follow_the_schema_and_carry_seed_and_parameters(four: HMM) -> None:
    data = four.sequences(6, 12, seed=4)

    check_sequences(data, variable="symbol")
    assert data["symbol"].dims == data["hmm_state"].dims == ("series", "time")
    assert data["symbol"].dtype == data["hmm_state"].dtype == np.int64
    assert data.attrs["seed"] == 4
    again = HMM(**json.loads(data.attrs["hmm"]))
    assert torch.equal(again.transition, four.transition) and torch.equal(again.emission, four.emission)
    assert data.identical(four.sequences(6, 12, seed=4))
    assert not data.equals(four.sequences(6, 12, seed=5))


def test_sequences_round_trip_through_netcdf(four: HMM, tmp_path: object) -> None:
    import xarray as xr

    data = four.sequences(2, 3, seed=0)
    path = f"{tmp_path}/symbols.nc"
    data.to_netcdf(path, engine="h5netcdf")

    with xr.open_dataset(path, engine="h5netcdf") as read:
        assert read.load().equals(data) and read.attrs["seed"] == 0


def test_sequences_never_draw_what_has_no_probability() -> None:
    # Rows whose cumulative sum ends below 1 by rounding, with a 0 at the end and at the start.
    law = np.array([0.0, *[0.1] * 10, 0.0])
    hmm = HMM(law / law.sum(), np.tile(law / law.sum(), (12, 1)), np.eye(12))

    class Extreme:
        def random(self, size: int) -> np.ndarray:
            return np.where(np.arange(size) % 2, 0.0, np.nextafter(1.0, 0.0))

    states = hmm.states(4, 3, Extreme())  # type: ignore[arg-type]

    assert set(np.unique(states)) == {1, 10}


def test_unseeded_sequences_follow_the_ambient_stream(four: HMM) -> None:
    torch.manual_seed(0)
    a, b = four.sequences(1, 30), four.sequences(1, 30)
    torch.manual_seed(0)

    assert not a.equals(b) and a.identical(four.sequences(1, 30))


def test_states_are_matched_whatever_their_order() -> None:
    hmm = random_hmm(5, 4, seed=0)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = HMM(hmm.initial[order], hmm.transition[order][:, order], hmm.emission[order])

    matched = match_states(shuffled, hmm)

    assert torch.equal(matched.transition, hmm.transition) and torch.equal(matched.emission, hmm.emission)


@pytest.mark.parametrize(
    ("initial", "transition", "emission", "message"),
    [
        ([0.5, 0.4], np.eye(2), np.eye(2), r"initial must sum to 1 within 1e-8, its sum is 0\.9"),
        ([0.5, 0.5], [[1, 0], [0.2, 0.7]], np.eye(2), r"transition\[1\] must sum to 1 .* is 0\.9;"),
        ([0.5, 0.5], [[1.1, -0.1], [0, 1]], np.eye(2), r"transition\[0\] must hold probabilities"),
        ([0.5, 0.5], np.eye(2), [[0.5, 0.5], [np.nan, 1]], r"emission\[1\] must hold probabilities"),
        ([0.5, 0.5], np.eye(2), [[1, 0], [1, 1e-7]], r"emission\[1\] must sum to 1"),
        ([0.5, 0.5], np.eye(3), np.eye(2), r"got \(2,\) and \(3, 3\)"),
        ([0.5, 0.5], np.eye(2), np.eye(3), r"\(M, K\) for M = 2 states, got \(3, 3\)"),
    ],
)
def test_what_is_no_hmm_is_refused_with_the_row(
    initial: object, transition: object, emission: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HMM(initial, transition, emission)  # type: ignore[arg-type]


def test_a_model_cannot_be_changed(four: HMM) -> None:
    with pytest.raises(AttributeError):
        four.emission = torch.eye(4)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("symbols", "lengths", "message"),
    [
        ([[0, 3]], None, r"between 0 and 2, .* got 3 at series=0, time=1"),
        ([[0, 1], [-2, 0]], None, r"got -2 at series=1, time=0"),
        ([0, 1], None, r"shape \(2,\); one series is symbols\[None\]"),
        ([[0.0, 1.0]], None, "whole numbers"),
        (np.empty((2, 0), dtype=int), None, r"shape \(2, 0\)"),
        ([[0, 1]], [3], "between 1 and the 2 steps of the array, got 3 for series 0"),
        ([[0, 1]], [0], "got 0 for series 0"),
        ([[0, 1]], [1, 1], r"each of the 1 series, got shape \(2,\)"),
        ([[0, 1]], [1.0], "whole number"),
    ],
)
def test_symbols_that_do_not_fit_are_refused_with_their_place(
    symbols: object, lengths: object, message: str, four: HMM
) -> None:
    for verb in (log_likelihood, forward_backward, viterbi, filter_states, predict_symbols):
        with pytest.raises(ValueError, match=message):
            verb(four, symbols, lengths)  # type: ignore[operator]


def test_all_public_names_are_there() -> None:
    assert all(hasattr(hmm_module, name) for name in hmm_module.__all__)


def test_datasets_are_taken_as_they_are_read(four: HMM) -> None:
    rows = [[0, 0, 2, 1, 2], [2, None, 0]]
    data = read_symbols(rows)
    padded = np.array([[0, 0, 2, 1, 2], [2, -1, 0, -1, -1]])
    hidden = data.assign(symbol=data["symbol"].where(data["observed"], 1), observed=data["observed"])

    expected = log_likelihood(four, padded)

    for source in (data, hidden, data.transpose("time", "series", ...)):
        torch.testing.assert_close(log_likelihood(four, source), expected)
    assert viterbi(four, data).path.shape == (2, 5)
    assert fit_em(four, data, max_iters=1, tolerance=0).num_iters == 1


def test_numbers_of_a_dataset_are_missing_where_they_are_not_observed() -> None:
    model = GaussianHMM([0.5, 0.5], np.full((2, 2), 0.5), [[0.0], [1.0]], np.ones((2, 1, 1)))
    values = np.array([[0.3, np.nan, 2.0]])
    seen = ~np.isnan(values)  # whatever stands under the mask must not count
    data = from_numpy(np.where(seen, values, 1e3)).assign(observed=(("series", "time"), seen))

    torch.testing.assert_close(log_likelihood(model, data), log_likelihood(model, values[..., None]))


def test_a_dataset_of_another_kind_is_refused(four: HMM) -> None:
    with pytest.raises(ValueError, match=r"needs 'symbol' or 'target', found \['x'\]"):
        log_likelihood(four, xr.Dataset({"x": ("time", [0])}))
