"""Principal components, projections, angles, speed fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.analysis import pca, project, speed_field, subspace_angles
from seqdyn.dynamics import FlowDynamics, from_callable, simulate


@pytest.fixture
def activity() -> torch.Tensor:
    return torch.randn(4, 50, 3, dtype=torch.float64) @ torch.randn(3, 8, dtype=torch.float64) + 5.0


def test_components_are_the_eigenvectors_of_the_covariance(activity: torch.Tensor) -> None:
    data = pca(activity)

    rows = activity.reshape(-1, 8).numpy()
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(data.explained_variance[:3], values[::-1][:3])
    np.testing.assert_allclose(
        np.abs(data.components.values[:3] @ vectors[:, ::-1][:, :3]), np.eye(3), atol=1e-9
    )
    np.testing.assert_allclose(data.explained_variance_ratio.sum(), 1.0)
    np.testing.assert_allclose(data["mean"], rows.mean(axis=0))


def test_scores_rebuild_the_activity_and_projecting_gives_them(activity: torch.Tensor) -> None:
    data = pca(activity, 3)

    assert data.scores.dims == ("start", "time", "pc") and data.sizes["pc"] == 3
    rebuilt = data.scores.values @ data.components.values + data["mean"].values
    np.testing.assert_allclose(rebuilt, activity, atol=1e-10)
    xr.testing.assert_allclose(project(data, activity), data.scores)
    assert project(data, activity[0]).dims == ("time", "pc") and project(data, activity[0, 0]).dims == ("pc",)


def test_the_largest_loading_is_positive_and_the_sign_of_the_data_does_not_matter(
    activity: torch.Tensor,
) -> None:
    data, mirrored = pca(activity, 3), pca(-activity, 3)

    loadings = data.components.values
    assert (loadings[np.arange(3), np.abs(loadings).argmax(axis=1)] > 0).all()
    np.testing.assert_allclose(mirrored.components, loadings, atol=1e-9)


def test_angles_between_subspaces() -> None:
    # The plane of x and y against one turned by 30° about x: angles 0 and 30°.
    turned = [[1.0, 0.0, 0.0], [0.0, math.cos(math.pi / 6), math.sin(math.pi / 6)]]

    angles = subspace_angles(np.eye(3)[:2], turned)

    np.testing.assert_allclose(angles.angle, [0.0, 30.0], atol=1e-6)
    assert angles.angle.attrs["units"] == "degree"
    same = pca(torch.randn(30, 5), 2)
    np.testing.assert_allclose(subspace_angles(same, same).angle, 0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: pca(np.ones((5, 3))), "all states are the same"),
        (lambda: pca(np.ones((1, 3))), "two or more states"),
        (lambda: pca(np.ones(3)), r"got shape \(3,\)"),
        (lambda: pca(np.full((5, 3), np.nan)), "5 of 5 states with NaN"),
        (lambda: project(pca(np.random.randn(5, 3)), np.ones((2, 4))), "belong to 3 units, but hidden has 4"),
        (lambda: subspace_angles(np.eye(3), np.eye(4)), "spaces of 3 and 4 units"),
        (
            lambda: speed_field(from_callable(lambda h: h, 2), np.ones((5, 2))),
            r"must be \(start, time, unit\)",
        ),
    ],
)
def test_arguments_are_checked(act: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()  # type: ignore[operator]


def test_the_speed_field_of_a_linear_map_is_linear() -> None:
    # h' = 0.9 h: displacement -0.1 h, divergence -0.2 in the plane.
    dynamics = from_callable(lambda h: 0.9 * h, 2)
    start = torch.randn(4000, 2, dtype=torch.float64) * torch.tensor([2.0, 1.0], dtype=torch.float64)
    hidden = torch.cat([start[:, None], simulate(dynamics, start, 20)], dim=1)

    data = speed_field(dynamics, hidden, num_bins=20, min_count=20)

    seen = data["count"].values >= 20
    centres = np.stack(np.meshgrid(data.bin_pc1, data.bin_pc2, indexing="ij"), axis=-1)
    mean = project(pca(hidden, 2), torch.zeros(2, dtype=torch.float64)).values
    expected = -0.1 * (centres - mean)
    width = max(np.diff(data.bin_pc1)[0], np.diff(data.bin_pc2)[0])
    np.testing.assert_allclose(data.drift.values[seen], expected[seen], atol=0.1 * width / 2 + 1e-9)
    assert np.isnan(data.drift.values[~seen]).all() and (~seen).any()
    np.testing.assert_allclose(data.autonomous_speed.values[seen], data.speed.values[seen])
    assert float(data.divergence.median()) == pytest.approx(-0.2, abs=0.05)
    assert int(data["count"].sum()) == 4000 * 20


def test_the_speed_of_a_flow_is_that_of_its_drift() -> None:
    flow = FlowDynamics(lambda x, t: -x, 0.0, 2)
    hidden = simulate(flow, torch.randn(500, 2, dtype=torch.float64), 50, step_size=0.01)

    data = speed_field(flow, hidden, num_bins=10, min_count=5)

    ratio = (data.speed / data.autonomous_speed).values
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 0.01, rtol=0.01)
