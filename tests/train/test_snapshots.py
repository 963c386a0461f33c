"""Weights kept along a fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqdyn.datasets.hmm import linear_chain
from seqdyn.models import HMMRNN
from seqdyn.train.snapshots import KeepWeights


def model() -> HMMRNN:
    return HMMRNN(3, hidden_size=4, input_size=2, num_steps=5, batch_size=8, batches_per_epoch=3, blur=1.0,
                  gradient="straight-through")  # fmt: skip


@pytest.fixture(autouse=True)
def a_loss_that_needs_no_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(self: HMMRNN, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self._logits(len(batch["symbol"]), 5).square().mean()}

    monkeypatch.setattr(HMMRNN, "loss", loss)
    monkeypatch.setattr(HMMRNN, "on_fit_start", lambda self: None)


def fitted(keep: KeepWeights, **options: object) -> HMMRNN:
    data = linear_chain(3).sequences(50, 5, seed=0)
    return model().fit(data, **{"max_epochs": 4, "seed": 0, "callbacks": [keep], **options})  # type: ignore[arg-type]


def test_epochs_are_kept_from_the_first_weights_on() -> None:
    keep = KeepWeights(every_n_epochs=2)

    last = fitted(keep)

    assert list(keep.weights) == [0, 2, 4]
    for name, tensor in last.state_dict().items():
        torch.testing.assert_close(keep.weights[4][name], tensor, equal_nan=True)
    kept = [keep.weights[epoch]["network.recurrent"] for epoch in (0, 2, 4)]
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[1], kept[2])


def test_steps_are_kept() -> None:
    keep = KeepWeights(every_n_steps=5)

    fitted(keep)

    assert list(keep.weights) == [0, 5, 10]


def test_dynamics_have_the_kept_weights_and_the_model_its_own() -> None:
    keep = KeepWeights(every_n_epochs=2)
    last = fitted(keep)
    before = {name: tensor.clone() for name, tensor in last.state_dict().items()}

    found = keep.dynamics(last)

    h = torch.randn(3, 4)
    for epoch, dynamics in found.items():
        expected = torch.relu(h @ keep.weights[epoch]["network.recurrent"].T)
        torch.testing.assert_close(dynamics.step(h, None), expected)
    for name, tensor in last.state_dict().items():
        assert torch.equal(tensor, before[name]) or tensor.isnan().all()


def test_a_resumed_fit_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, first, second = KeepWeights(), KeepWeights(), KeepWeights()
    fitted(whole)
    fitted(first, max_epochs=2, run_dir=tmp_path / "run")
    fitted(second, max_epochs=4, run_dir=tmp_path / "run", resume=True)

    assert list(second.weights) == list(whole.weights) == [0, 1, 2, 3, 4]
    for epoch in whole.weights:
        for name, tensor in whole.weights[epoch].items():
            torch.testing.assert_close(second.weights[epoch][name], tensor, rtol=0, atol=0, equal_nan=True)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="not both"):
        KeepWeights(every_n_epochs=1, every_n_steps=1)
    with pytest.raises(ValueError, match="every_n_steps must be a whole number"):
        KeepWeights(every_n_steps=0)
