"""Change points, and the course of measurements over checkpoints that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from seqdyn.analysis import change_point, training_dynamics
from seqdyn.analysis.jacobians import EigenCounts, count_eigenvalues, spectra
from seqdyn.dynamics.maps import MapDynamics


def spiral(size: float, angle: float = 0.3, bound: float = math.inf) -> MapDynamics:
    matrix = size * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def drive(h: Tensor, u: Tensor | None) -> Tensor:
        return h @ matrix.T + (0 if u is None else u)

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return drive(h, u).clamp(-bound, bound)

    return MapDynamics(step, lambda h: torch.cat([h, -h], -1), 2, 2, preactivation=drive)


def counted(dynamics: MapDynamics, states: Tensor, input: Tensor | None = None) -> EigenCounts:
    return count_eigenvalues(spectra(dynamics, states, input))


@pytest.mark.parametrize("cut", [3, 10, 27])
def test_a_step_is_found_where_it_is(cut: int) -> None:
    curve = np.where(np.arange(30) < cut, 1.0, 2.0) + 0.1 * np.random.default_rng(cut).standard_normal(30)

    found = change_point(curve)

    assert found.place == cut
    assert found.gain > 20
    # Brute force over all cuts.
    squares = [curve[:k].var() * k + curve[k:].var() * (30 - k) for k in range(1, 30)]
    assert found.place == 1 + int(np.argmin(squares))
    assert found.gain == pytest.approx(15 * math.log(curve.var() * 30 / min(squares)))


def test_values_that_are_not_finite_are_skipped() -> None:
    assert change_point([0, 0, np.nan, 0, np.inf, 5, 5, np.nan, 5]).place == 5


@pytest.mark.parametrize("curve", [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 2.0, np.nan], []])
def test_no_change_is_no_place(curve: list[float]) -> None:
    found = change_point(curve)

    assert found.place == -1 and math.isnan(found.gain)


def test_eigenvalues_of_a_rotation_are_counted_once_a_pair() -> None:
    # Re m = (r^2 - 1) / |1 + lambda|^2, Im m = 2 r sin / |1 + lambda|^2: critical near r = 1, not at 0.5.
    states = torch.randn(3, 2)

    for size, unstable, critical in ((1.02, 2, 1), (0.98, 0, 1), (0.5, 0, 0), (1.5, 2, 0)):
        counts = counted(spiral(size), states, torch.zeros(3, 2))
        assert counts.unstable.tolist() == [unstable] * 3, size
        assert counts.critical.tolist() == [critical] * 3, size
    assert counted(spiral(1.02, angle=0.0), states).critical.tolist() == [0] * 3
    flipped = MapDynamics(lambda h, u: -h, None, 2, 0)  # the Moebius map has its pole at -1
    assert counted(flipped, states).critical.tolist() == [0] * 3


def test_linear_checkpoints_have_their_known_course() -> None:
    sizes = {0: 0.5, 10: 0.6, 20: 0.97, 30: 0.98, 40: 0.99}

    found = training_dynamics(
        {epoch: spiral(size) for epoch, size in sizes.items()},
        loss={0: 3.0, 10: 3.0, 20: 1.0, 30: 1.0, 40: 1.0},
        num_steps=1000,
        seed=0,
    )

    rates = np.log(list(sizes.values()))
    np.testing.assert_allclose(found.growth_rate, rates, atol=1e-5)
    np.testing.assert_allclose(found.lyapunov_driven, rates, atol=1e-5)
    np.testing.assert_allclose(found.lyapunov_autonomous, rates, atol=1e-5)
    np.testing.assert_allclose(found.spectral_radius, list(sizes.values()), rtol=1e-6)
    np.testing.assert_array_equal(found.critical_fraction, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.unstable_fraction, 0)
    assert float(found.transition_epoch) == 20
    assert found.change_epoch.sel(quantity="loss") == 20
    assert found.change_epoch.sel(quantity="growth_rate") == 20
    np.testing.assert_allclose(found.transition.sum("output_next"), 1)
    # A linear map is not moved by noise of mean zero: 1000 steps, standard error 0.03.
    np.testing.assert_allclose(found.noise_drift, 0, atol=0.13)


def test_a_diverged_checkpoint_stays_and_is_marked() -> None:
    found = training_dynamics({0: spiral(0.5), 1: spiral(3.0), 2: spiral(0.9)}, num_steps=1000, seed=0)

    np.testing.assert_array_equal(found.finite, [True, False, True])
    assert np.isnan(found.switch_rate[1]) and np.isfinite(found.switch_rate[[0, 2]]).all()
    assert "diverges at epoch [1]" in found.attrs["reason"]


def test_every_checkpoint_diverged() -> None:
    found = training_dynamics({0: spiral(3.0)}, num_steps=1000, seed=0)

    assert not found.finite.any() and "every checkpoint" in found.attrs["reason"]


def test_checkpoints_share_their_noise() -> None:
    found = training_dynamics({0: spiral(0.9), 1: spiral(0.9)}, num_steps=500, seed=0)

    for name in ("switch_rate", "scores", "num_critical", "lyapunov_driven"):
        np.testing.assert_array_equal(found[name][0], found[name][1])


def test_the_mean_of_reciprocals_is_not_the_rate() -> None:
    from seqdyn.analysis.training import _mean_reciprocal

    symbols = torch.tensor([[0, 1, 0, 0, 0, 0, 1, 1]])

    assert _mean_reciprocal(symbols) == pytest.approx((1 + 1 / 4) / 2)
    assert math.isnan(_mean_reciprocal(symbols[:, :2]))


def test_losses_are_read_by_epoch() -> None:
    history = xr.DataArray([5.0, 4.0], dims="epoch", coords={"epoch": [1, 2]})

    found = training_dynamics({0: spiral(0.5), 2: spiral(0.5)}, loss=history, num_steps=200, seed=0)

    np.testing.assert_array_equal(found.loss, [np.nan, 4.0])
    with pytest.raises(ValueError, match=r"loss=model\.history"):
        training_dynamics({0: spiral(0.5)}, loss=[1.0], num_steps=200)


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [({}, "got nothing"), ([spiral(0.5)], "got list"), ({0: "map"}, r"checkpoints\[0\] must be a Map"),
     ({-1: spiral(0.5)}, "an epoch of checkpoints")],
)  # fmt: skip
def test_checkpoints_are_checked(checkpoints: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_dynamics(checkpoints)  # type: ignore[arg-type]
