"""Replicates of a bootstrap that fail: they are told and left out, not hidden."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from seqdyn.data import stack_snapshots
from seqdyn.errors import ConvergenceWarning, NonFiniteError
from seqdyn.models import SchrodingerBridge, bridge_uncertainty
from seqdyn.sde.drifts import OrnsteinUhlenbeck


@pytest.fixture(scope="module")
def model() -> SchrodingerBridge:
    draw = np.random.default_rng(0)
    data = stack_snapshots([draw.normal(0.3 * k, 0.5, (15, 1)) for k in range(3)], times=[0, 1, 2])
    model = SchrodingerBridge(1, "estimate", reference=OrnsteinUhlenbeck(1), num_simulations=0, num_steps=4)
    return model.fit(data, max_epochs=3, seed=0, enable_progress_bar=False)


def failing(monkeypatch: pytest.MonkeyPatch, outcomes: list[str]) -> None:
    """Let refits end as listed: at rest, without rest, or without a bridge."""
    refitted, left = bridge_uncertainty.refitted, iter(outcomes)

    def refit(*args: Any) -> Any:
        outcome = next(left)
        if outcome == "lost":
            raise NonFiniteError("no bridge.")
        return refitted(*args)[0], outcome == "rest"

    monkeypatch.setattr(bridge_uncertainty, "refitted", refit)


def test_replicates_at_rest_are_no_matter_for_a_warning(model: SchrodingerBridge) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found = model.bootstrap(3, seed=0, progress=False)

    assert found["converged"].dims == ("replicate",)
    assert found["converged"].values.tolist() == [True, True, True]


def test_failures_are_counted_and_left_out(model: SchrodingerBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.bootstrap(4, seed=0, progress=False)
    failing(monkeypatch, ["rest", "lost", "restless", "rest"])

    with pytest.warns(ConvergenceWarning, match="of 4 replicates 1 did not come to rest and 1 have no brid"):
        found = model.bootstrap(4, seed=0, progress=False)

    draws, names = found["parameter_draw"], ["rate[0]", "offset[0]"]
    assert found["converged"].values.tolist() == [True, False, False, True]
    assert np.isnan(draws[1]).all() and np.isfinite(draws[[0, 2, 3]]).all()
    np.testing.assert_allclose(
        draws.sel(parameter=names)[[0, 2, 3]], whole["parameter_draw"].sel(parameter=names)[[0, 2, 3]]
    )
    np.testing.assert_allclose(found["lower"], np.quantile(draws[[0, 2, 3]], 0.05, axis=0))
    volatility = draws.sel(parameter="volatility")[[0, 2, 3]]
    assert float(volatility.median()) == pytest.approx(float(found["estimate"][-1]), rel=1e-12)


def test_failures_of_all_are_an_error(model: SchrodingerBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ["lost", "lost"])

    with pytest.raises(NonFiniteError, match="none of 2 resampled data sets .*raise the volatility"):
        model.bootstrap(2, seed=0, progress=False)
