"""An estimated volatility: corrected once, after the weights that are kept are in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import xarray as xr
from torch import nn

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge, bridge_uncertainty
from seqdyn.sde.drifts import Linear, MLPDrift, OrnsteinUhlenbeck, Zero

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False, "accelerator": "cpu"}


def drifting(seed: int = 0) -> xr.Dataset:
    draw = np.random.default_rng(seed)
    return stack_snapshots([draw.normal(0.5 * k, 0.5, (20, 1)) for k in range(3)], times=range(3))


def fresh(reference: nn.Module | None = None) -> SchrodingerBridge:
    reference = OrnsteinUhlenbeck(1) if reference is None else reference
    return SchrodingerBridge(1, "estimate", reference, num_simulations=2, tolerance=1e-9, num_steps=4)


@pytest.fixture(scope="module")
def model() -> SchrodingerBridge:
    return fresh().fit(drifting(), max_epochs=3, **FIT)


def assert_corrected(model: SchrodingerBridge) -> None:
    found = model.volatility_estimate
    assert found.sizes["simulation"] == 2
    ratio = float(np.exp(np.median(np.log(found.ratio))))
    assert float(found.corrected) == pytest.approx(float(found.raw) / ratio, rel=1e-12)
    assert float(found.corrected) != float(found.raw)
    # The divergence is that of the corrected process.
    chain = model.view().chain
    assert float(model.divergence) == pytest.approx(float(chain.again(chain.reference).value.sum()), abs=1e-6)


def test_the_best_epoch_of_a_validation_is_corrected() -> None:
    model = fresh().fit(drifting(), val=drifting(5), max_epochs=4, **FIT)

    assert_corrected(model)
    best = int(model.history.val_loss.values.argmin())
    raw = float(model.history.train_volatility[best])
    assert float(model.volatility_estimate.raw) == pytest.approx(raw, rel=1e-9)


def test_a_trainer_of_the_users_corrects_too() -> None:
    model, data = fresh(), drifting()
    off = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}

    pl.Trainer(max_epochs=2, logger=False, accelerator="cpu", **off).fit(model, model.datamodule(data))

    assert_corrected(model)


@pytest.mark.parametrize("kind", ["zero", "frozen"])
def test_a_volatility_is_estimated_where_the_drift_is_given(kind: str) -> None:
    reference = Zero() if kind == "zero" else Linear(1).requires_grad_(False)

    model = fresh(reference).fit(drifting(), max_epochs=3, **FIT)

    assert_corrected(model)
    assert [name for name, p in model.process.named_parameters() if p.requires_grad] == ["log_factor"]


def test_a_fit_without_a_progress_bar_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def bar(items: Any, name: str, progress: bool) -> Any:
        shown.append((name, progress))
        return items

    monkeypatch.setattr(bridge_uncertainty, "_bar", bar)
    fresh().fit(drifting(), max_epochs=1, **FIT)
    fresh().fit(drifting(), max_epochs=1, seed=0, accelerator="cpu")

    assert shown == [("simulations", False), ("simulations", True)]


def test_the_course_of_the_parameters_ends_at_the_correction(model: SchrodingerBridge) -> None:
    found = model.reference_parameters

    assert found.sizes["refinement"] == 1 + model.history.sizes["epoch"] + 1
    np.testing.assert_array_equal(found.trace[-1], found.value)
    assert float(found.divergence[-1]) == float(model.divergence)
    assert float(found.trace.sel(parameter="volatility")[-2]) == float(model.history.train_volatility[-1])


def test_a_volatility_that_was_given_has_no_estimate() -> None:
    model = SchrodingerBridge(1, 0.5, num_steps=4).fit(drifting(), max_epochs=1, **FIT)

    with pytest.raises(ValueError, match="nothing was estimated. Build the model with volatility='estimate'"):
        _ = model.volatility_estimate


def test_a_network_leaves_the_volatility_as_it_is_and_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    draw = np.random.default_rng(0)
    data = stack_snapshots([draw.normal(0.5 * k, 0.5, (40, 1)) for k in range(3)], times=range(3))
    model = SchrodingerBridge(1, "estimate", MLPDrift(1, (22,)), num_steps=2, network_steps=1, num_paths=2)

    with caplog.at_level("WARNING", "seqdyn"):
        model.fit(data, max_epochs=1, **FIT)

    assert "on the large side; give a number" in caplog.text
    assert len(model.volatility_ratio) == 0
