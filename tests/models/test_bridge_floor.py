"""Scores of odd held-out snapshots: weights count, and what is not defined is NaN alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge


def held_out(x: np.ndarray, **columns: Any) -> xr.Dataset:
    both = stack_snapshots([x, x], times=[0.5, 5.0]).assign(columns)
    return both.isel(particle=both["time"].values == 0.5)


def training() -> xr.Dataset:
    draw = np.random.default_rng(0)
    return stack_snapshots([draw.normal(k, 0.5, (12, 2)) for k in range(2)], times=[0, 1])


@pytest.fixture(scope="module")
def model() -> SchrodingerBridge:
    data = training()
    model = SchrodingerBridge(2, 0.5, num_steps=6, num_paths=10)
    return model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)


def test_the_floor_does_not_count_particles_without_weight(model: SchrodingerBridge) -> None:
    draw = np.random.default_rng(1)
    x, far = draw.normal(0.5, 0.1, (20, 2)), draw.normal(50, 0.1, (20, 2))
    weight = np.tile(np.repeat([1.0, 0.0], 20), 2)

    found = model.score(
        held_out(np.concatenate([x, far]), weight=("particle", weight)), num_samples=50, seed=0
    )
    expected = model.score(held_out(x), num_samples=50, seed=0)

    np.testing.assert_allclose(found["score"], expected["score"])


def test_coincident_particles_leave_a_gap_where_a_metric_is_not_defined(model: SchrodingerBridge) -> None:
    found = model.score(held_out(np.ones((6, 2))), ("w2", "mmd2", "energy"), num_samples=50, seed=0)

    scores = found["score"].isel(time=0)
    assert np.isnan(scores.sel(metric="mmd2")).all()
    assert np.isfinite(scores.sel(metric=["w2", "energy"])).all()
    assert float(scores.sel({"method": "floor", "metric": "w2"})) == 0


def test_a_score_of_training_snapshots_is_warned_of(
    model: SchrodingerBridge, recwarn: pytest.WarningsRecorder
) -> None:
    data = training()
    some = data.isel(particle=[14, 12, 20])  # in another order, not all

    for given, times in ((data, "0, 1"), (some, "1")):
        with pytest.warns(
            UserWarning, match=rf"at {times} are training snapshots: .*leave them out"
        ) as caught:
            model.score(given, num_samples=10, seed=0)
        assert caught[0].filename == __file__

    recwarn.clear()
    others = data.assign(
        x=data["x"].where(xr.DataArray(np.arange(24) != 12, dims="particle"), 0.25)
    )  # one other at time 1
    model.score(others.isel(particle=data["time"].values == 1), num_samples=10, seed=0)
    model.score(data.assign_coords(time=data["time"] * 0 + 0.5), num_samples=10, seed=0)
    model.score(data.isel(particle=[12, 12]), num_samples=10, seed=0)  # twice: no sample of the training
    assert not [w for w in recwarn if "training snapshots" in str(w.message)]
