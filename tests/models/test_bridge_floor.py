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


@pytest.fixture(scope="module")
def model() -> SchrodingerBridge:
    draw = np.random.default_rng(0)
    data = stack_snapshots([draw.normal(k, 0.5, (12, 2)) for k in range(2)], times=[0, 1])
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
