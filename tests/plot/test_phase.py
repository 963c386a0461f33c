"""Portraits, spectra and exponents: what is drawn is what the Datasets hold."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn import plot
from seqdyn.analysis import fixed_points, local_spectra, lyapunov_spectrum, pca
from seqdyn.datasets import chaos
from seqdyn.dynamics import MapDynamics, from_callable, simulate

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def nine() -> MapDynamics:
    return from_callable(lambda h: torch.tanh(2 * h), 2)


@pytest.fixture
def activity(nine: MapDynamics) -> torch.Tensor:
    start = torch.randn(300, 2, dtype=DOUBLE)
    return torch.cat([start[:, None], simulate(nine, start, 5)], dim=1)


@pytest.fixture
def points(nine: MapDynamics, activity: torch.Tensor) -> xr.Dataset:
    return fixed_points(nine, activity[:, 0])


def legend(ax: plt.Axes) -> list[str]:
    found = ax.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def test_a_portrait_shows_points_by_stability_where_they_are(
    activity: torch.Tensor, points: xr.Dataset
) -> None:
    components = pca(activity)

    ax = plot.phase(components, points)

    assert legend(ax) == ["trajectories", "stable (4)", "saddle (4)", "source (1)"]
    drawn = np.concatenate([np.asarray(one.get_offsets()) for one in ax.collections])
    stable = points.hidden.values[points.stable.values] - components["mean"].values
    np.testing.assert_allclose(drawn[:4], stable @ components.components.values.T)
    assert ax.get_xlabel().startswith("PC 1 (")


def test_a_portrait_draws_the_unstable_directions_through_their_points(
    activity: torch.Tensor, points: xr.Dataset
) -> None:
    components = pca(activity)

    ax = plot.phase(components, points)

    bars = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 2]
    assert len(bars) == 4 * 1 + 2  # one for each saddle, two for the source
    middles = np.array([np.mean(bar, axis=0) for bar in bars])
    where = (points.hidden.values - components["mean"].values) @ components.components.values.T
    unstable = where[~points.stable.values]
    assert (np.abs(middles[:, None] - unstable).max(axis=2).min(axis=1) < 1e-12).all()


def test_a_portrait_without_points_and_of_one_trajectory(activity: torch.Tensor) -> None:
    ax = plot.phase(pca(activity[0]), pcs=(2, 1))

    assert len(ax.lines) == 1 and ax.get_xlabel().startswith("PC 2 (")


def test_a_portrait_of_kinks_has_no_directions() -> None:
    weights = torch.full((2, 2), 0.6, dtype=DOUBLE)
    dynamics = from_callable(lambda h: torch.relu(h @ weights), 2)
    found = fixed_points(dynamics, torch.rand(5, 2, dtype=DOUBLE), seed=0)

    ax = plot.phase(pca(torch.rand(20, 2, dtype=DOUBLE)), found)

    assert legend(ax) == ["trajectories", "unstable kink (1)"] and len(ax.lines) == 1
    spectrum = plot.fixed_points(found)
    assert spectrum.get_title() == "fixed points: 1 at a kink, without eigenvalues"
    assert not spectrum.collections


def test_a_portrait_checks_what_it_is_given(activity: torch.Tensor, points: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"seqdyn\.analysis\.pca\(hidden\)"):
        plot.phase(points)
    with pytest.raises(ValueError, match=r"components 1 to 2, got \(1, 3\)"):
        plot.phase(pca(activity), pcs=(1, 3))
    with pytest.raises(ValueError, match="points have 2 units, the components 3"):
        plot.phase(pca(torch.randn(5, 3)), points)


def test_eigenvalues_of_fixed_points_are_drawn_with_the_unit_circle(points: xr.Dataset) -> None:
    ax = plot.fixed_points(points)

    drawn = np.concatenate([np.asarray(one.get_offsets()) for one in ax.collections])
    assert len(drawn) == 9 * 2
    np.testing.assert_allclose(np.hypot(*ax.lines[0].get_xydata().T), 1.0)
    assert sorted(legend(ax)) == ["saddle (4)", "source (1)", "stable node (4)"]


def test_the_border_of_a_flow_is_the_imaginary_axis() -> None:
    system = chaos.lorenz()
    found = fixed_points(system.dynamics, 10 * torch.randn(50, 3, dtype=DOUBLE))

    ax = plot.fixed_points(found)

    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0.0, 0.0])


def test_exponents_are_drawn_as_they_settle() -> None:
    system = chaos.henon()
    data = lyapunov_spectrum(system.dynamics, np.zeros((4, 2)), num_steps=50, seed=0)

    ax = plot.lyapunov_spectrum(data)

    np.testing.assert_array_equal(ax.lines[0].get_ydata(), data.running[:, 0])
    assert ax.get_ylabel() == "exponent per step" and len(legend(ax)) == 2


def test_erased_directions_are_named() -> None:
    gains = torch.tensor([0.5, 0.9], dtype=DOUBLE)
    dynamics = from_callable(lambda h: torch.relu(gains * h - gains.new_tensor([-1.0, 5.0])), 2)
    data = lyapunov_spectrum(dynamics, np.ones(2), num_steps=20, seed=0)

    ax = plot.lyapunov_spectrum(data)

    assert ax.get_legend().get_title().get_text() == "1 of 2 exponents are -inf"


def test_local_spectra_have_their_counts_beside_them(nine: MapDynamics, activity: torch.Tensor) -> None:
    data = local_spectra(nine, activity[0])

    axes = plot.local_spectra(data)

    assert len(axes[0].collections[0].get_offsets()) == 6 * 2
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), data.num_unstable)
    np.testing.assert_array_equal(axes[1].lines[1].get_ydata(), data.num_critical)
