"""The same model in Pyro, with enumerated states and as a distribution (spec check H3)."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, infer_discrete

from seqdyn.datasets.hmm import preset
from seqdyn.inference.hmm import (
    HMM,
    as_pyro_distribution,
    forward_backward,
    log_likelihood,
    pyro_model,
    viterbi,
)


@pytest.fixture
def textbook() -> HMM:
    return HMM([0.6, 0.4], [[0.9, 0.1], [0.3, 0.7]], [[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]])


def enumerated_log_likelihood(*args: object, **options: object) -> float:
    def guide(*_: object, **__: object) -> None:
        """No latent variable is left over: all are summed out."""

    return -TraceEnum_ELBO(max_plate_nesting=1).loss(pyro_model, guide, *args, **options)


def test_h3_the_three_published_numbers(textbook: HMM) -> None:
    symbols = [[0, 0, 2, 1, 2]]
    as_is = dist.DiscreteHMM(
        textbook.initial.log(), textbook.transition.log(), dist.Categorical(textbook.emission)
    )

    assert float(log_likelihood(textbook, symbols)) == pytest.approx(-5.959335942842, abs=1e-12)
    assert float(as_is.log_prob(torch.tensor(symbols))) == pytest.approx(-5.878857680285, abs=1e-12)
    compensated = as_pyro_distribution(textbook).log_prob(torch.tensor(symbols))
    assert float(compensated) == pytest.approx(-5.959335942842, abs=1e-10)


@pytest.mark.parametrize("name", ["two", "four", "cyclic"])
def test_the_wrapped_distribution_has_the_likelihood_of_the_model(name: str) -> None:
    hmm = preset(name)
    symbols = torch.as_tensor(hmm.sequences(4, 12, seed=0)["symbol"].values)

    torch.testing.assert_close(
        as_pyro_distribution(hmm).log_prob(symbols), log_likelihood(hmm, symbols), rtol=1e-9, atol=1e-9
    )


def test_a_start_that_no_transition_reaches_is_refused() -> None:
    hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.4, 0.6]], np.eye(2))

    with pytest.raises(
        ValueError, match=r"leads to initial=\[1\.0, 0\.0\] in one transition .* use pyro_model"
    ):
        as_pyro_distribution(hmm)


@pytest.mark.parametrize("name", ["three", "four", "cyclic"])
def test_enumerated_states_agree_with_the_recursion(name: str) -> None:
    hmm = preset(name)
    symbols = hmm.sequences(3, 7, seed=2)["symbol"].values
    symbols[0, 2:4] = symbols[1, 0] = -1
    lengths = [7, 4, 1]

    expected = float(log_likelihood(hmm, symbols, lengths).sum())

    assert enumerated_log_likelihood(hmm, symbols, lengths) == pytest.approx(expected, abs=1e-8)


def test_an_impossible_series_is_impossible_in_pyro_too() -> None:
    hmm = HMM([1.0, 0.0], np.eye(2), np.eye(2))

    assert enumerated_log_likelihood(hmm, [[0, 1]]) == -np.inf


def test_the_most_probable_states_of_pyro_are_those_of_viterbi() -> None:
    hmm = preset("four")
    symbols = [[0, 0, 2, 1, 2, 2, 0, 2]]
    decoded = infer_discrete(pyro_model, first_available_dim=-2, temperature=0)

    trace = poutine.trace(decoded).get_trace(hmm, symbols)

    path = [int(trace.nodes[f"hmm_state_{step}"]["value"]) for step in range(8)]
    assert path == viterbi(hmm, symbols).path[0].tolist()


# 1000 draws at one step, 4 standard errors at 4 values: false-alarm rate 0.03 %, fixed seed.
def test_posterior_draws_of_pyro_have_the_smoothed_law() -> None:
    hmm, count = preset("four"), 1000
    symbols = [[0, 2, 1, 2]]
    decoded = infer_discrete(pyro_model, first_available_dim=-2, temperature=1)

    trace = poutine.trace(decoded).get_trace(hmm, symbols * count)

    law = forward_backward(hmm, symbols).smoothed[0, 1]
    share = torch.bincount(trace.nodes["hmm_state_1"]["value"], minlength=4) / count
    assert bool(((share - law).abs() <= 4 * (law * (1 - law) / count).sqrt()).all())


def test_with_priors_the_rows_are_random_and_sticky(textbook: HMM) -> None:
    pyro.clear_param_store()
    options = {"concentration": 2.0, "sticky": 10.0}
    trace = poutine.trace(poutine.block(pyro_model, expose=["initial", "transition", "emission"])).get_trace(
        textbook, [[0, 1, 2]], **options
    )
    drawn = {name: trace.nodes[name]["value"] for name in ("initial", "transition", "emission")}
    parameters = poutine.condition(pyro_model, data=drawn)

    def guide(*_: object, **__: object) -> None: ...

    joint = -TraceEnum_ELBO(max_plate_nesting=1).loss(parameters, guide, textbook, [[0, 1, 2]], **options)

    two, three = torch.full((2,), 2.0).double(), torch.full((3,), 2.0).double()
    prior = dist.Dirichlet(two).log_prob(drawn["initial"])
    prior += dist.Dirichlet(2.0 + 10.0 * torch.eye(2).double()).log_prob(drawn["transition"]).sum()
    prior += dist.Dirichlet(three).log_prob(drawn["emission"]).sum()
    expected = prior + log_likelihood(HMM(**drawn), [[0, 1, 2]])
    assert joint == pytest.approx(float(expected), abs=1e-8)


def test_a_concentration_of_zero_is_refused(textbook: HMM) -> None:
    with pytest.raises(ValueError, match="concentration must be positive"):
        pyro_model(textbook, [[0]], concentration=0.0)
