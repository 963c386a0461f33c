"""Principal components, projections, angles, speed fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.analysis import pca, project, subspace_angles


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
    ],
)
def test_arguments_are_checked(act: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()  # type: ignore[operator]
