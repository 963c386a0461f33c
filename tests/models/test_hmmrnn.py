"""The recurrent network that emulates a hidden Markov model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import seqdyn
from seqdyn.datasets import hmm as processes
from seqdyn.errors import NonFiniteError, NotFittedError
from seqdyn.metrics import symbols
from seqdyn.models import HMMRNN

SMALL: dict[str, Any] = {
    "hidden_size": 16, "input_size": 4, "num_steps": 10, "batch_size": 64, "batches_per_epoch": 5,
}  # fmt: skip
QUIET: dict[str, Any] = {"enable_progress_bar": False}


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return processes.preset("three").sequences(500, 10, seed=0)


@pytest.fixture(scope="module")
def fitted(data: xr.Dataset) -> HMMRNN:
    return HMMRNN(3, **SMALL).fit(data, max_epochs=2, seed=0, **QUIET)


# Training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blur", "share"), [(0.2, 0.7), (2.0, 0.45)])
def test_t1_the_published_gradient_lowers_the_published_loss(blur: float, share: float) -> None:
    data = processes.preset("three").sequences(4000, 30, seed=0)
    model = HMMRNN(
        3, hidden_size=32, input_size=8, num_steps=30, gradient="straight-through", blur=blur,
        learning_rate=1e-3, decay_steps=None, batch_size=256, batches_per_epoch=1,
    )  # fmt: skip

    losses = model.fit(data, max_epochs=60, seed=0, **QUIET).history["train_loss"].values

    assert losses[-5:].mean() < share * losses[:3].mean()


def test_the_unbiased_gradient_learns_transitions_and_a_rare_symbol() -> None:
    # 500 steps at 256 sequences; the published network is within 0.045 after 1500 at 4096.
    model = HMMRNN.preset("three", batch_size=256, decay_steps=500, learning_rate=3e-3)

    model.fit(max_epochs=5, seed=0, **QUIET)
    drawn = model.sample(300, num_steps=600, burn_in=100, seed=0, keep=["symbol"])

    exact = model.hmm.output_statistics()
    found = symbols.transitions(drawn, 3)
    assert abs(found - exact.transition.numpy())[[0, 2]].max() < 0.03
    assert abs(symbols.frequencies(drawn, 3) - exact.frequency.numpy()).max() < 0.03
    assert symbols.frequencies(drawn, 3)[1] > 0.006


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_preset_as_it_comes_emulates_its_process(seed: int) -> None:
    model = HMMRNN.preset("three").fit(seed=seed, **QUIET)

    scores = seqdyn.metrics.emulation(model, model.hmm, num_steps=30, seed=seed)

    assert 0.95 <= scores.attrs["floor_ratio"] <= 1.2
    assert scores.attrs["largest_error"] <= 0.03


def test_the_gradient_is_that_of_the_expected_divergence(data: xr.Dataset) -> None:
    # Moving one logit up by h for all sequences: the mean change of the loss over draws, against the mean of
    # the gradient.
    model = HMMRNN(2, hidden_size=2, input_size=1, num_steps=3, bias=True, blur=1.0).double()
    model.data_cost.zero_()
    target = torch.nn.functional.one_hot(torch.randint(2, (200, 3)), 2).double()
    with torch.no_grad():
        model.network.readout_bias.copy_(torch.tensor([1.0, -0.5]))

    gradients = []
    for _ in range(60):
        model.zero_grad()
        model._unbiased_loss(target).backward()
        gradients.append(float(model.network.readout_bias.grad[0]))

    def mean_value(shift: float) -> float:
        with torch.no_grad():
            model.network.readout_bias[0] += shift
            values = [float(model._unbiased_loss(target)) for _ in range(400)]
            model.network.readout_bias[0] -= shift
        return float(np.mean(values))

    slope = (mean_value(0.4) - mean_value(-0.4)) / 0.8
    assert np.mean(gradients) == pytest.approx(slope, rel=0.15)


def test_epsilon_is_a_quarter_of_the_mean_distance_of_the_data(fitted: HMMRNN, data: xr.Dataset) -> None:
    one_hot = np.eye(3)[data["symbol"].values]
    distance = 10 - (one_hot.mean(0) ** 2).sum()

    assert float(fitted.epsilon) == pytest.approx(0.27 * distance, rel=0.02)
    assert float(HMMRNN(3, blur=0.5).epsilon) == 0.25


def test_a_fit_goes_on_bit_for_bit(data: xr.Dataset, tmp_path: Path) -> None:
    whole = HMMRNN(3, **SMALL).fit(data, max_epochs=3, seed=0, run_dir=tmp_path / "whole", **QUIET)
    where = {"run_dir": tmp_path / "run", **QUIET}
    HMMRNN(3, **SMALL).fit(data, max_epochs=1, seed=0, **where)
    resumed = HMMRNN(3, **SMALL).fit(
        data, max_epochs=3, seed=0, run_dir=tmp_path / "run", resume=True, **QUIET
    )

    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_a_preset_brings_its_process_and_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HMMRNN.preset("five", hidden_size=8, batch_size=32, batches_per_epoch=2)

    model.fit(max_epochs=1, seed=0, **QUIET)

    assert model.hparams.num_steps == 40 and model.hmm.num_states == 5
    assert model.sample(2, seed=0).sizes == {"sample": 2, "time": 40, "unit": 8, "outcome": 3}
    assert HMMRNN.preset("two", scale="paper").hparams.batch_size == 4096
    assert HMMRNN.preset("cyclic").gradient_clip_val == 0.3
    assert HMMRNN.preset("default").hparams.initial == "normal"


# Verbs ------------------------------------------------------------------------------------------------


def test_a_sample_has_the_documented_variables(fitted: HMMRNN) -> None:
    drawn = fitted.sample(4, num_steps=6, burn_in=3, sigma=0.5, seed=3)

    assert {name: drawn[name].dims for name in drawn} == {
        "symbol": ("sample", "time"),
        "hidden": ("sample", "time", "unit"),
        "logits": ("sample", "time", "outcome"),
    }
    assert drawn.attrs["model"] == "HMMRNN" and drawn.attrs["seed"] == 3 and drawn.attrs["sigma"] == 0.5
    hidden = torch.from_numpy(drawn["hidden"].values)
    np.testing.assert_allclose(drawn["logits"], fitted.network.logits(hidden).detach(), rtol=1e-5, atol=1e-6)
    xr.testing.assert_identical(fitted.sample(4, num_steps=6, burn_in=3, sigma=0.5, seed=3), drawn)
    assert list(fitted.sample(2, keep=["symbol"], seed=0)) == ["symbol"]


def test_symbols_follow_their_logits(fitted: HMMRNN) -> None:
    # 20 000 draws; 4.5 standard errors.
    drawn = fitted.sample(2000, seed=0)

    law = torch.from_numpy(drawn["logits"].values).softmax(-1).mean((0, 1)).numpy()
    found = symbols.frequencies(drawn, 3)

    assert abs(found - law).max() < 4.5 * np.sqrt(0.25 / 20_000)


def test_the_dynamics_are_the_network_frozen(fitted: HMMRNN) -> None:
    model = HMMRNN(3, **SMALL)
    model.was_trained = True
    dynamics = model.dynamics()
    h, u = torch.randn(5, 16), torch.randn(5, 4)
    step, logits = model.network.step(h, u).detach(), model.network.logits(h).detach()

    with torch.no_grad():
        model.network.recurrent.zero_()

    assert torch.equal(dynamics.step(h, u), step) and torch.equal(dynamics.readout(h), logits)
    assert torch.equal(torch.relu(dynamics.preactivation(h, u)), step)
    assert not dynamics.step(h, u).requires_grad
    assert dynamics.state_size == 16 and dynamics.input_size == 4
    assert all(p.requires_grad for p in model.network.parameters())


def test_an_unstable_network_says_so() -> None:
    model = HMMRNN(3, **SMALL)
    model.was_trained = True
    with torch.no_grad():
        model.network.recurrent.fill_(10.0)

    with pytest.raises(NonFiniteError, match="the network is unstable"):
        model.sample(2, num_steps=200, seed=0)


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_symbols": 1}, "num_symbols must be a whole number of at least 2, got 1"),
        ({"activation": "gelu"}, r"activation must be one of \('relu', 'tanh'\), got 'gelu'"),
        ({"initial": "one"}, "initial must be one of"),
        ({"gradient": "reinforce"}, "gradient must be one of"),
        ({"blur": 0.0}, "blur must be a positive number, got 0.0"),
        ({"temperature": -1.0}, "temperature must be a positive number"),
        ({"weight_penalty": -1.0}, "weight_penalty must be a finite number of at least 0"),
        ({"weight_penalty": "x"}, "weight_penalty must be a finite number of at least 0, got .x."),
        ({"num_steps": 0}, "num_steps must be a whole number"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HMMRNN(**{"num_symbols": 3, **arguments})


def test_what_does_not_fit_is_refused(fitted: HMMRNN, data: xr.Dataset) -> None:
    with pytest.raises(NotFittedError, match="neither fitted nor loaded"):
        HMMRNN(3).sample(3)
    with pytest.raises(ValueError, match=r"learns from data: model.fit\(data"):
        HMMRNN(3).fit()
    with pytest.raises(ValueError, match="not built for a known process"):
        _ = HMMRNN(3).hmm
    with pytest.raises(ValueError, match="hold symbol 2 .* num_symbols=3"):
        HMMRNN(2, num_steps=10).fit(data)
    with pytest.raises(ValueError, match="num_steps of at most 10"):
        HMMRNN(3, num_steps=11).fit(data)
    with pytest.raises(ValueError, match="sigma must be a finite number of at least 0"):
        fitted.sample(3, sigma=-1.0)
    with pytest.raises(ValueError, match="keep must list some of"):
        fitted.sample(3, keep="symbol")
    with pytest.raises(ValueError, match="there is no preset 'six'"):
        HMMRNN.preset("six")
    with pytest.raises(ValueError, match="scale must be one of"):
        HMMRNN.preset("two", scale="huge")
    with pytest.raises(ValueError, match=r"epsilon=0.04 is too small for sequences of 10 steps"):
        HMMRNN(3, num_steps=10, blur=0.2).fit(data, max_epochs=1, **QUIET)


def test_a_penalty_stands_beside_the_divergence(data: xr.Dataset) -> None:
    model = HMMRNN(3, **SMALL, weight_penalty=0.1).fit(data, max_epochs=1, seed=0, **QUIET)

    history = model.history.isel(epoch=0)
    assert float(history["train_loss"]) == pytest.approx(
        float(history["train_divergence"] + history["train_penalty"]), rel=1e-5
    )
    norms = sum(float(weight.detach().norm()) for weight in model.parameters())
    assert float(history["train_penalty"]) == pytest.approx(0.1 * norms, rel=0.05)


# Data of the user's ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled() -> xr.Dataset:
    rng = np.random.default_rng(0)
    return seqdyn.data.read_symbols([rng.choice(["down", "left", "up"], size).tolist() for size in (40, 60)])


def test_labels_of_the_data_come_back_with_draws(labelled: xr.Dataset, tmp_path: Path) -> None:
    model = HMMRNN(3, **SMALL).fit(labelled, max_epochs=1, seed=0, **QUIET)
    model.save(tmp_path / "model")

    for drawing in (model, seqdyn.load(tmp_path / "model")):
        assert drawing.sample(2, seed=0)["outcome"].values.tolist() == ["down", "left", "up"]


@pytest.mark.parametrize("num_symbols", [2, 4])
def test_another_number_of_symbols_than_the_labels_names_the_right_one(
    num_symbols: int, labelled: xr.Dataset
) -> None:
    with pytest.raises(
        ValueError, match="3 symbols .'down', 'left', 'up'. but .* build it with num_symbols=3"
    ):
        HMMRNN(num_symbols, **SMALL).fit(labelled, max_epochs=1)


def test_codes_must_mean_the_same_in_the_validation_data(labelled: xr.Dataset) -> None:
    other = labelled.assign_coords(outcome=["down", "up", "left"])

    with pytest.raises(ValueError, match="code k would not mean the same; read them with"):
        HMMRNN(3, **SMALL).fit(labelled, val=other, max_epochs=1)
