"""Snapshots as marginals: one cloud per condition and time."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from seqdyn.data.marginals import condition_labels, describe_snapshots, marginals, summarize_snapshots


def snapshots(dtype: type = float) -> xr.Dataset:
    """Eight particles, mixed up: condition b at the times 2 and 0, condition a at 0, 1 and 5."""
    condition = list("bababaab")
    time = [2, 5, 0, 0, 2, 1, 0, 2]
    x = np.arange(16.0).reshape(8, 2).astype(dtype)
    return xr.Dataset(
        {
            "x": (("particle", "feature"), x, {"units": "mm"}),
            "weight": ("particle", np.array([1, 1, 1, 2, 1, 3, 6, 2], dtype=np.float32)),
            "growth": ("particle", np.arange(8) / 8),
        },
        {
            "time": ("particle", time, {"units": "h"}),
            "condition": ("particle", condition),
            "feature": ["u", "v"],
        },
    )


def test_marginals_are_ordered_by_condition_and_time_and_keep_the_order_of_particles() -> None:
    parts = marginals(snapshots())

    assert [(p.condition, p.time, p.particle.tolist()) for p in parts] == [
        (0, 0.0, [2]), (0, 2.0, [0, 4, 7]), (1, 0.0, [3, 6]), (1, 1.0, [5]), (1, 5.0, [1]),
    ]  # fmt: skip
    for part in parts:
        np.testing.assert_array_equal(part.x, snapshots()["x"].values[part.particle])
        np.testing.assert_array_equal(part.growth, part.particle / 8)
        assert part.weight.sum() == pytest.approx(1)
    np.testing.assert_allclose(parts[1].weight, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(parts[2].weight, [0.25, 0.75])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_everything_is_float64(dtype: type) -> None:
    for part in marginals(snapshots(dtype)):
        assert part.x.dtype == part.weight.dtype == part.growth.dtype == np.float64


def test_without_weight_growth_and_condition_all_particles_count_alike() -> None:
    data = snapshots().drop_vars(["weight", "growth", "condition"])

    parts = marginals(data)

    assert [(p.condition, p.time, len(p.x)) for p in parts] == [(0, 0, 3), (0, 1, 1), (0, 2, 3), (0, 5, 1)]
    for part in parts:
        np.testing.assert_array_equal(part.weight, 1 / len(part.x))
        np.testing.assert_array_equal(part.growth, 0)
    assert condition_labels(data) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(list("bababaab"), ["b", "a"]), ([7, 3] * 4, [7, 3]), ([2.5] * 8, [2.5])],
)
def test_labels_of_conditions_are_plain_and_in_the_order_of_their_first_particles(
    labels: list[object], expected: list[object]
) -> None:
    found = condition_labels(snapshots().assign_coords(condition=("particle", labels)))

    assert found == expected
    assert {type(label) for label in found} <= {str, int, float}


def test_facts_and_their_summary() -> None:
    facts = describe_snapshots(snapshots())

    assert facts == {
        "features": ["u", "v"],
        "units": "mm",
        "time_units": "h",
        "conditions": ["b", "a"],
        "snapshot_times": [0.0, 2.0, 0.0, 1.0, 5.0],
        "num_particles": [1, 3, 2, 1, 1],
    }
    assert summarize_snapshots(snapshots()) == (
        "5 snapshots of 1 to 3 particles, 2 conditions, 2 features: u, v [mm]\nat times 0, 1, 2, 5 h"
    )
    plain = snapshots().drop_vars(["feature", "condition"])
    assert describe_snapshots(plain)["features"] == [0, 1]
