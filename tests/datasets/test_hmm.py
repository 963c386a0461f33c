"""Families of HMMs and presets: published tables, exact statistics (spec check H2), simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqdyn.datasets import hmm as families
from seqdyn.datasets.hmm import (
    HMM,
    PRESETS,
    cyclic,
    fully_connected,
    gaussian_emission,
    linear_chain,
    linear_emission,
    preset,
    triangular_emission,
)
from seqdyn.inference import hmm as inference

# preset: frequency, rows of the output transition matrix, expected changes, second modulus of the transitions
TABLE = {
    "two": (
        [0.495, 0.01, 0.495],
        [[0.9405, 0.01, 0.0495], [0.495, 0.01, 0.495], [0.0495, 0.01, 0.9405]],
        6.8117,
        0.9,
    ),
    "three": (
        [0.495, 0.01, 0.495],
        [[0.75121, 0.01, 0.23879], [0.495, 0.01, 0.495], [0.23879, 0.01, 0.75121]],
        7.4299,
        0.7764,
    ),
    "four": (
        [0.495, 0.01, 0.495],
        [[0.70921, 0.01, 0.28079], [0.495, 0.01, 0.495], [0.28079, 0.01, 0.70921]],
        8.6356,
        0.7842,
    ),
    "five": (
        [0.495, 0.01, 0.495],
        [[0.69569, 0.01, 0.29431], [0.495, 0.01, 0.495], [0.29431, 0.01, 0.69569]],
        12.1357,
        0.8194,
    ),
    "fully": (
        [1 / 3] * 3,
        [[0.91355, 0.04322, 0.04322], [0.04322, 0.91355, 0.04322], [0.04322, 0.04322, 0.91355]],
        2.5069,
        0.925,
    ),
    "cyclic": (
        [0.25, 0.5, 0.25],
        [[0.7835, 0.212, 0.0045], [0.106, 0.788, 0.106], [0.0045, 0.212, 0.7835]],
        8.3557,
        0.95,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_h2_the_exact_statistics_are_the_published_table(name: str) -> None:
    frequency, transition, changes, modulus = TABLE[name]
    hmm, statistics = preset(name), preset(name).output_statistics()

    np.testing.assert_allclose(statistics.frequency, frequency, atol=1e-12)
    np.testing.assert_allclose(statistics.transition, transition, atol=6e-6)
    # The table rounds the fifth value of 'cyclic', 8.35575, down.
    assert statistics.num_changes(PRESETS[name].num_steps) == pytest.approx(changes, abs=5.1e-5)
    assert torch.linalg.eigvals(hmm.transition).abs().sort().values[-2].item() == pytest.approx(
        modulus, abs=5e-5
    )


# 2,000 series of 1,000 steps: 4 standard errors, taken between series, of 3 + 9 + 1 numbers: false-alarm rate
# 0.1 % for each preset, fixed seed. All presets start in their stationary law.
@pytest.mark.parametrize("name", TABLE)
def test_h2_two_million_symbols_agree_with_the_exact_statistics(name: str) -> None:
    hmm = preset(name)
    symbols = hmm.sequences(2000, 1000, seed=0)["symbol"].values
    exact = hmm.output_statistics()

    shown = symbols[:, :, None] == np.arange(3)
    pairs = np.einsum("sti,stj->sij", shown[:, :-1], shown[:, 1:], dtype=np.float32, optimize=True) / 999
    changes = (symbols[:, 1:] != symbols[:, :-1]).sum(axis=1)

    for sample, truth in (
        (shown.mean(axis=1), exact.frequency),
        (pairs, exact.joint[0]),
        (changes, exact.num_changes(1000)),
    ):
        error = sample.std(axis=0) / np.sqrt(2000)
        assert bool((np.abs(sample.mean(axis=0) - np.asarray(truth)) <= 4 * error).all())


def test_hidden_states_follow_the_transition_matrix() -> None:
    hmm = linear_chain(4)
    states = hmm.sequences(2000, 50, seed=1)["hmm_state"].values

    counts = np.zeros((4, 4))
    np.add.at(counts, (states[:, :-1], states[:, 1:]), 1)
    share, law = counts / counts.sum(axis=1, keepdims=True), hmm.transition.numpy()

    assert ((counts == 0) == (law == 0)).all()
    assert (np.abs(share - law) <= 4 * np.sqrt(law * (1 - law) / counts.sum(axis=1, keepdims=True))).all()
    first = np.bincount(states[:, 0], minlength=4) / 2000
    assert (np.abs(first - 0.25) <= 4 * np.sqrt(0.25 * 0.75 / 2000)).all()


@pytest.mark.parametrize(("num_states", "step"), [(2, 0.05), (3, 0.2236), (4, 0.3684), (5, 0.4729)])
def test_a_chain_is_crossed_straight_with_the_given_probability(num_states: int, step: float) -> None:
    transition = linear_chain(num_states).transition

    steps = [float(transition[i, i + 1]) for i in range(num_states - 1)]
    assert np.prod(steps) == pytest.approx(0.05)
    assert steps == pytest.approx([step] * (num_states - 1), abs=5e-5)
    assert torch.equal(transition, transition.T) and bool((transition.triu(2) == 0).all())


def test_a_chain_by_stay_probability_leaves_to_its_neighbours_evenly() -> None:
    expected = [[0.9, 0.1, 0, 0], [0.05, 0.9, 0.05, 0], [0, 0.05, 0.9, 0.05], [0, 0, 0.1, 0.9]]

    np.testing.assert_allclose(linear_chain(4, stay_probability=0.9).transition, expected, atol=1e-15)


def test_six_states_cannot_be_crossed_so_easily() -> None:
    with pytest.raises(ValueError, match=r"0\.5493 to each of two neighbours.* below 0\.03125, or give stay"):
        linear_chain(6)
    assert linear_chain(6, crossing_probability=0.03).num_states == 6


def test_fully_connected_and_cyclic_chains_have_their_matrices() -> None:
    np.testing.assert_allclose(
        fully_connected(3, 0.9).transition, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    )
    ring = [
        [0.95, 0.025, 0, 0.025],
        [0.025, 0.95, 0.025, 0],
        [0, 0.025, 0.95, 0.025],
        [0.025, 0, 0.025, 0.95],
    ]
    np.testing.assert_allclose(cyclic(4).transition, ring, atol=1e-15)
    assert cyclic(5).num_symbols == 5 and fully_connected(5).num_symbols == 5
    assert cyclic(4).emission.tolist() == [[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0.1, 0.9], [0, 0.9, 0.1]]


def test_linear_emissions_go_from_the_first_symbol_to_the_last() -> None:
    np.testing.assert_allclose(
        linear_emission(3), [[0.99, 0.01, 0], [0.495, 0.01, 0.495], [0, 0.01, 0.99]], atol=1e-15
    )
    five = linear_emission(2, 5)
    np.testing.assert_allclose(five[0], np.array([4, 3, 2, 1, 0]) / 10, atol=1e-15)
    np.testing.assert_allclose(linear_emission(4, 2).sum(axis=1), 1)


def test_gaussian_emissions_have_their_width() -> None:
    # Three symbols lie 1 apart, 0.1 (K - 1) is 0.2: neighbours get exp(-0.2 · 25).
    weights = np.exp(-0.2 * np.array([0, 5, 10]) ** 2)

    np.testing.assert_allclose(gaussian_emission(3)[0], weights / weights.sum())
    np.testing.assert_allclose(gaussian_emission(3)[1], [weights[1], 1, weights[1]] / (1 + 2 * weights[1]))
    assert np.isfinite(gaussian_emission(50, 400)).all()


def test_triangular_emissions_share_the_error() -> None:
    np.testing.assert_allclose(triangular_emission(3)[1], [0.01, 0.98, 0.01])
    np.testing.assert_allclose(triangular_emission(5, 0.2)[0], [0.8, 0.05, 0.05, 0.05, 0.05])


def test_an_emission_of_ones_own_is_taken() -> None:
    assert linear_chain(2, emission=[[0.5, 0.5], [0.1, 0.9]]).num_symbols == 2


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_of_the_published_size_and_start_uniformly(name: str) -> None:
    sizes = {
        "default": (3, 150), "two": (2, 100), "three": (3, 30), "four": (4, 30), "five": (5, 40),
        "fully": (3, 30), "cyclic": (4, 40),
    }  # fmt: skip
    hmm = preset(name)

    assert (hmm.num_states, PRESETS[name].num_steps) == sizes[name] and hmm.num_symbols == 3
    assert hmm.initial.tolist() == pytest.approx([1 / hmm.num_states] * hmm.num_states)
    if name != "default":
        torch.testing.assert_close(hmm.stationary(), hmm.initial)


def test_the_default_preset_stays_and_shows_bumps() -> None:
    hmm = preset("default")

    # Its ends are left twice as often as entered: the uniform start is not the stationary law.
    assert hmm.stationary().tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert hmm.transition.diagonal().tolist() == pytest.approx([0.95] * 3)
    np.testing.assert_allclose(hmm.emission, gaussian_emission(3))


def test_the_model_is_the_one_of_inference() -> None:
    assert HMM is inference.HMM is families.HMM


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_chain(1), "num_states must be a whole number of at least 2, got 1"),
        (lambda: linear_chain(3, 0.0), "crossing_probability must lie above 0"),
        (lambda: linear_chain(3, 1.5), "crossing_probability must lie above 0 and not above 1, got 1.5"),
        (lambda: linear_chain(3, stay_probability=1.1), "stay_probability must be a probability"),
        (lambda: fully_connected(1), "at least 2"),
        (lambda: cyclic(2), "at least 3"),
        (lambda: cyclic(4, -0.1), "stay_probability must be a probability"),
        (lambda: linear_emission(3, 1), "num_symbols must be a whole number of at least 2"),
        (lambda: triangular_emission(3, 2.0), "error_probability must be a probability"),
        (lambda: preset("six"), "no preset 'six'; choose from default, two, three"),
        (lambda: linear_chain(3).sequences(0, 5), "num_series must be a whole number of at least 1"),
        (lambda: linear_chain(3).sequences(5, 2.5), "num_steps must be a whole number"),
        (lambda: linear_chain(3).sequences(5, 5, seed=0.5), "seed must be a whole number"),
        (lambda: linear_chain(3).output_statistics(0), "lags must be a whole number of at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
