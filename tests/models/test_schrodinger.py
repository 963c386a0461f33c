"""SchrodingerBridge: its fit, its draws, what it keeps and what it refuses."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor, nn

import seqdyn
import seqdyn.sde.chain
from seqdyn.data import stack_snapshots
from seqdyn.datasets.population import lotka_volterra
from seqdyn.errors import ConvergenceWarning, NonFiniteError, NotFittedError
from seqdyn.metrics import wasserstein
from seqdyn.models import SchrodingerBridge
from seqdyn.ot.exact import exact_plan
from seqdyn.rng import fork_rng
from seqdyn.sde.bridge import gaussian_bridge
from seqdyn.sde.drifts import GradientField, Linear, LotkaVolterra, OrnsteinUhlenbeck, Sum, Zero

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False, "accelerator": "cpu"}


def clouds(*shifts: float, count: int = 12, size: int = 2, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(shift, 0.5, (count, size)) for shift in shifts]


def snapshots(*parts: np.ndarray, times: Any = None) -> xr.Dataset:
    return stack_snapshots(parts, times=range(len(parts)) if times is None else times)


def small(
    data: xr.Dataset, volatility: Any = 0.5, *, max_epochs: int = 1, **options: Any
) -> SchrodingerBridge:
    model = SchrodingerBridge(
        data.sizes["feature"], volatility, **{"num_steps": 8, "num_paths": 20, **options}
    )
    return model.fit(data, max_epochs=max_epochs, **FIT)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    """Three snapshots of unequal sizes, in no order, with units and uneven times."""
    parts = [part[: 12 - 2 * i] for i, part in enumerate(clouds(0, 1, 2))]
    found = snapshots(*parts, times=[0.0, 1.0, 3.0])
    found["x"].attrs["units"] = "mm"
    found = found.assign_coords(feature=["left", "right"])
    found["time"].attrs["units"] = "day"
    return found.isel(particle=np.random.default_rng(1).permutation(found.sizes["particle"]))


@pytest.fixture(scope="module")
def model(data: xr.Dataset) -> Iterator[SchrodingerBridge]:
    with fork_rng(0):
        yield small(data)


@pytest.fixture(scope="module")
def predators() -> xr.Dataset:
    return lotka_volterra(20, times=(0, 2, 4), seed=0)


@pytest.fixture(scope="module")
def hunter(predators: xr.Dataset) -> Iterator[SchrodingerBridge]:
    with fork_rng(0):
        yield small(predators, 0.1, reference=LotkaVolterra(), max_epochs=30, num_steps=20)


# What it finds
# ------------------------------------------------------------------------------------------------------


def gaussian(mean: Any, covariance: Any, count: int) -> np.ndarray:
    """A cloud with exactly these moments."""
    x = np.random.default_rng(int(abs(mean[0]) * 10)).standard_normal((count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / count)).T
    return x @ np.linalg.cholesky(np.asarray(covariance)).T + np.asarray(mean)


def test_a_marginal_is_that_of_its_time_not_of_its_number() -> None:
    means = [[0.0, 0.0], [3.0, -1.0], [-2.0, 4.0]]
    covariances = [[[1.0, 0.3], [0.3, 0.5]], [[0.4, -0.1], [-0.1, 0.9]], [[0.6, 0.0], [0.0, 0.3]]]
    parts = [gaussian(m, c, 400) for m, c in zip(means, covariances, strict=True)]
    model = SchrodingerBridge(2, 0.8, reference=Zero(), solver="linear")
    model.fit(snapshots(*parts, times=[0, 1, 3]), max_epochs=1, **FIT)
    still = torch.zeros(2, 2), torch.zeros(2)

    found = model.marginal([0.5, 0.75, 1.5, 2.25], num_samples=20_000, seed=0)

    def moments(time: float) -> tuple[np.ndarray, np.ndarray]:
        k, start, length = (0, 0.0, 1.0) if time < 1 else (1, 1.0, 2.0)
        ends = [torch.tensor(part) for i in (k, k + 1) for part in (means[i], covariances[i])]
        bridge = gaussian_bridge(*ends, *still, 0.8, length)
        return bridge.mean(time - start).numpy(), bridge.covariance(time - start).numpy()

    for time, other in ((0.5, 0.75), (1.5, 2.25)):
        x = found.x.sel(time=time).values
        mean, covariance = moments(time)
        np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.05)
        assert np.abs(x.mean(axis=0) - moments(other)[0]).max() > 0.5


def test_predators_and_prey_are_found_again(hunter: SchrodingerBridge, predators: xr.Dataset) -> None:
    truth = {name: predators.attrs[name] for name in ("alpha", "beta", "gamma", "delta")}

    found = hunter.reference_parameters

    # Three snapshots of 20 particles: .02 to .1 in five other data sets.
    for name, value in truth.items():
        assert float(found.value.sel(parameter=name)) == pytest.approx(value, rel=0.2)
    between = lotka_volterra(1000, times=(0, 1, 3), seed=5)
    for time in (1.0, 3.0):
        x = between.x.values[between.time.values == time]
        drawn = hunter.marginal([time], seed=0).x.values[:, 0]
        assert wasserstein(drawn, x) < 0.15


def test_refinements_never_raise_the_divergence(hunter: SchrodingerBridge) -> None:
    history = hunter.history

    assert (history.train_loss <= history.train_divergence_before + 1e-9).all()
    np.testing.assert_allclose(history.train_divergence_before[1:], history.train_loss[:-1], atol=1e-6)
    assert float(history.train_loss[-1]) < 0.1 * float(history.train_divergence_before[0])
    assert float(history.train_marginal_error.max()) < 1e-6


def test_a_fit_ends_where_nothing_changes(hunter: SchrodingerBridge) -> None:
    history = hunter.history

    assert 2 < history.sizes["epoch"] < 30
    for name in ("alpha", "beta", "gamma", "delta"):
        last = history[f"train_{name}"].values[-3:]
        assert np.ptp(last) < 1e-3 * abs(last[-1]) * 2.1
    assert np.ptp(history.train_loss.values[-3:]) < 0.02


def test_the_exact_solver_and_the_linearised_one_find_the_same_linear_drift(data: xr.Dataset) -> None:
    exact = small(data, solver="linear", max_epochs=5)
    found = small(data, solver="static", max_epochs=5, num_steps=30)

    np.testing.assert_allclose(
        found.reference_parameters.value, exact.reference_parameters.value, rtol=0.01, atol=0.01
    )
    assert float(found.history.train_loss[-1]) == pytest.approx(float(exact.history.train_loss[-1]), abs=0.01)


def test_parameters_that_are_frozen_stay() -> None:
    reference = LotkaVolterra(1.0, 0.1, 0.1, 0.1)
    reference.alpha.requires_grad_(False)
    reference.delta.requires_grad_(False)

    found = small(lotka_volterra(15, times=(0, 2, 4), seed=0), 0.1, reference=reference, max_epochs=10)

    values = found.reference_parameters.value
    assert float(values.sel(parameter="alpha")) == 1.0
    assert float(values.sel(parameter="delta")) == 0.1
    assert float(values.sel(parameter="beta")) == pytest.approx(0.4, rel=0.1)


def test_parameters_stay_within_their_bounds(data: xr.Dataset) -> None:
    # Nothing here grows or eats: the best rates would be negative.
    found = small(
        snapshots(*(np.abs(part) + 0.1 for part in clouds(3, 2, 1))), reference=LotkaVolterra(1, 1, 1, 1)
    )

    assert (found.reference_parameters.value >= 0).all()


def test_a_network_lowers_the_divergence(data: xr.Dataset) -> None:
    found = small(data, reference=GradientField(2, (8, 8)), max_epochs=3, network_steps=60)

    before = float(found.history.train_divergence_before[0])
    assert float(found.history.train_loss[-1]) < before - 1
    assert "trace" not in found.reference_parameters


def test_the_reference_handed_in_is_not_changed(predators: xr.Dataset) -> None:
    reference = LotkaVolterra()

    small(predators, 0.3, reference=reference)

    assert all(float(p.detach()) == 0 for p in reference.parameters())


# Draws
# ------------------------------------------------------------------------------------------------------


def test_trajectories_have_the_documented_form(model: SchrodingerBridge, data: xr.Dataset) -> None:
    found = model.infer(data, num_samples=7, seed=3)

    assert found.x.dims == ("particle", "time", "feature")
    assert found.sizes == {"particle": 7, "time": 21, "feature": 2}
    np.testing.assert_allclose(found.time, [*np.linspace(0, 1, 11), *np.linspace(1, 3, 11)[1:]])
    assert found.feature.values.tolist() == ["left", "right"]
    assert found.x.attrs["units"] == "mm" and found.time.attrs["units"] == "day"
    assert found.attrs["model"] == "SchrodingerBridge" and found.attrs["seed"] == 3
    assert found.x.dtype == np.float64
    np.testing.assert_array_equal(model.infer(data, [0.5, 2.5], seed=0).time, [0.5, 2.5])


def test_trajectories_visit_the_particles_given(model: SchrodingerBridge, data: xr.Dataset) -> None:
    found = model.infer(data, num_samples=50, seed=0)

    for time in (0.0, 1.0, 3.0):
        seen = data.x.values[data.time.values == time]
        x = found.x.sel(time=time).values
        assert np.abs(x[:, None] - seen).max(axis=2).min(axis=1).max() == 0
        assert len(np.unique(x, axis=0)) == len(seen)  # even draws: 50 paths see all


def test_trajectories_go_through_snapshots_that_the_fit_has_not_seen(model: SchrodingerBridge) -> None:
    others = snapshots(*clouds(0, 1, 2, 3, count=5, seed=9), times=[10.0, 10.5, 11.0, 12.0])

    found = model.infer(others.assign_coords(feature=["left", "right"]), [10.0, 11.5, 12.0], seed=0)

    assert np.isfinite(found.x).all()
    last = others.x.values[others.time.values == 12.0]
    assert np.abs(found.x.values[:, -1, None] - last).max(axis=2).min(axis=1).max() == 0


def test_marginals_at_the_snapshots_are_the_snapshots(model: SchrodingerBridge, data: xr.Dataset) -> None:
    found = model.marginal([0.0, 1.0 + 1e-10, 3.0], num_samples=400, seed=0)

    np.testing.assert_array_equal(found.time, [0, 1, 3])  # a time that nearly is one, is one
    for time in (0.0, 1.0, 3.0):
        seen = data.x.values[data.time.values == time]
        drawn = found.x.sel(time=time).values
        assert wasserstein(drawn, seen) < 0.1
        assert np.abs(drawn[:, None] - seen).max(axis=2).min(axis=1).max() == 0


def test_one_time_may_be_a_number(model: SchrodingerBridge) -> None:
    xr.testing.assert_identical(model.marginal(0.5, seed=0), model.marginal([0.5], seed=0))
    xr.testing.assert_identical(model.forecast(4, seed=0), model.forecast([4.0], seed=0))


def test_a_forecast_is_labelled_and_starts_from_the_snapshot(
    model: SchrodingerBridge, data: xr.Dataset
) -> None:
    soon = model.forecast([3.0 + 1e-6, 4.0], num_samples=200, seed=0)
    whole = model.forecast([1.0, 3.0, 5.0], start="first", num_samples=200, seed=0)

    assert soon.attrs["extrapolation_from"] == whole.attrs["extrapolation_from"] == 3.0
    last = data.x.values[data.time.values == 3.0]
    assert wasserstein(soon.x.values[:, 0], last) < 0.15
    assert soon.sizes == {"particle": 200, "time": 2, "feature": 2}
    # From the first snapshot the reference alone has to find the others; they move by 1 each.
    for time, mean in ((1.0, 1.0), (3.0, 2.0)):
        np.testing.assert_allclose(whole.x.sel(time=time).mean("particle"), mean, atol=0.4)


def test_a_forecast_of_a_linear_drift_has_its_law() -> None:
    parts = [gaussian([2.0, -1.0], np.eye(2), 300), gaussian([1.0, 1.0], np.eye(2) / 2, 300)]
    model = SchrodingerBridge(2, 0.5, solver="linear").fit(snapshots(*parts), max_epochs=10, **FIT)
    drift, offset = (p.detach() for p in model.process.drift.affine())

    found = model.forecast([1.8], num_samples=5000, seed=0).x.values[:, 0]

    from seqdyn.sde.transition import affine_transition

    move = affine_transition(drift, offset, 0.25 * torch.eye(2).double(), torch.tensor(0.8).double())
    mean = move.matrix @ torch.tensor([1.0, 1.0]).double() + move.offset
    covariance = move.matrix @ move.matrix.mT / 2 + move.covariance
    np.testing.assert_allclose(found.mean(axis=0), mean.numpy(), atol=0.05)
    np.testing.assert_allclose(np.cov(found.T), covariance.numpy(), atol=0.08, rtol=0.05)


def test_equal_seeds_give_equal_draws_and_others_differ(model: SchrodingerBridge, data: xr.Dataset) -> None:
    for draw in (
        lambda seed: model.infer(data, num_samples=5, seed=seed),
        lambda seed: model.marginal([0.5], num_samples=5, seed=seed),
        lambda seed: model.forecast([4.0], num_samples=5, seed=seed),
    ):
        xr.testing.assert_identical(draw(1), draw(1))
        assert not draw(1).x.equals(draw(2).x)
        ambient = draw(None)
        xr.testing.assert_identical(draw(ambient.attrs["seed"]), ambient)


def test_the_callers_random_state_is_left_as_it_was(data: xr.Dataset) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    found = small(data)
    found.infer(data, num_samples=3, seed=0)
    found.marginal([0.5], num_samples=3, seed=0)
    found.forecast([4.0], num_samples=3, seed=0)
    found.bridge_drift(data)
    found.coupling(0)

    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_the_drift_of_the_bridge_moves_the_population(model: SchrodingerBridge) -> None:
    before, now, after = (
        model.marginal([t], num_samples=4000, seed=0).x.values[:, 0] for t in (1.9, 2.0, 2.1)
    )

    found = model.bridge_drift(now, 2.0)

    rate = (after.mean(axis=0) - before.mean(axis=0)) / 0.2
    np.testing.assert_allclose(found.drift.mean("particle"), rate, atol=0.15)
    assert found.drift.attrs["units"] == "mm / day"
    np.testing.assert_array_equal(found.time, 2.0)


def test_the_drift_at_the_last_snapshot_is_that_of_the_reference(model: SchrodingerBridge) -> None:
    x = np.array([[1.0, 2.0], [0.0, -1.0]])

    found = model.bridge_drift(x, [3.0, 3.0]).drift.values

    matrix, offset = (p.detach().numpy() for p in model.process.drift.affine())
    np.testing.assert_allclose(found, x @ matrix.T + offset)


def test_a_coupling_has_the_weights_of_its_snapshots(data: xr.Dataset) -> None:
    weighted = data.assign(weight=("particle", np.random.default_rng(0).random(data.sizes["particle"])))
    found = small(weighted).coupling(1)

    assert found.dims == ("source", "target") and found.shape == (10, 8)
    assert found.attrs == {"start": 1.0, "end": 3.0}
    for dim, other, time in (("source", "target", 1.0), ("target", "source", 3.0)):
        weight = weighted.weight.isel(particle=found[dim].values)
        assert (weighted.time.values[found[dim].values] == time).all()
        np.testing.assert_allclose(found.sum(other), weight / weight.sum(), atol=1e-8)


def test_conditions_share_a_reference_and_are_bridged_apart() -> None:
    left, right = clouds(0, 1, 2), clouds(10, 11, 12, seed=1)
    parts = [np.concatenate(pair) for pair in zip(left, right, strict=True)]
    both = snapshots(*parts).assign_coords(condition=("particle", (["a"] * 12 + ["b"] * 12) * 3))
    found = small(both)

    drawn = found.marginal([0.5], num_samples=100, seed=0)
    assert drawn.condition.values.tolist() == ["a"] * 100 + ["b"] * 100
    x = drawn.x.values[:, 0, 0]
    assert x[:100].max() < 5 < x[100:].min()
    assert found.marginal([0.5], condition="b", num_samples=5, seed=0).x.values.min() > 5
    assert found.coupling(0, condition="a").shape == (12, 12)
    assert found.infer(both, num_samples=4, seed=0).sizes["particle"] == 8
    with pytest.raises(ValueError, match=r"no condition 'c'; the conditions are \['a', 'b'\]"):
        found.marginal([0.5], condition="c")
    with pytest.raises(ValueError, match=r"say which condition= is meant, of \['a', 'b'\]"):
        found.coupling(0)


# What it keeps
# ------------------------------------------------------------------------------------------------------


def test_it_comes_back_from_a_folder_bit_for_bit(
    model: SchrodingerBridge, data: xr.Dataset, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")

    loaded = seqdyn.load(tmp_path / "model")

    for draw in (
        lambda m: m.infer(data, num_samples=5, seed=1),
        lambda m: m.marginal([0.5, 2.0], num_samples=5, seed=1),
        lambda m: m.forecast([4.0], num_samples=5, seed=1),
        lambda m: m.bridge_drift(data),
        lambda m: m.coupling(1).to_dataset(name="coupling"),
        lambda m: m.reference_parameters,
    ):
        xr.testing.assert_identical(draw(loaded), draw(model))


def test_weights_and_unequal_sizes_come_back_from_a_folder(data: xr.Dataset, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    weighted = data.assign(weight=("particle", draw.random(30)), growth=("particle", draw.random(30)))
    found = small(weighted)
    found.save(tmp_path / "model")

    loaded = seqdyn.load(tmp_path / "model")

    plain = small(data)
    for verb in (
        lambda m: m.infer(weighted, num_samples=5, seed=1),
        lambda m: m.marginal([0.0, 0.5, 2.0], num_samples=50, seed=1),
        lambda m: m.forecast([4.0], num_samples=50, seed=1),
        lambda m: m.coupling(1).to_dataset(name="coupling"),
    ):
        xr.testing.assert_identical(verb(loaded), verb(found))
        assert not verb(found).equals(verb(plain))


def test_trajectories_come_back_from_netcdf(
    model: SchrodingerBridge, data: xr.Dataset, tmp_path: Path
) -> None:
    weighted = data.assign(weight=("particle", np.random.default_rng(0).random(data.sizes["particle"])))
    found = model.infer(weighted, num_samples=5, seed=1)
    seqdyn.data.to_netcdf(found, tmp_path / "paths.nc")
    seqdyn.data.to_netcdf(weighted, tmp_path / "data.nc")

    with xr.open_dataset(tmp_path / "paths.nc") as paths:
        xr.testing.assert_equal(paths.load(), found)
    with xr.open_dataset(tmp_path / "data.nc") as again:
        xr.testing.assert_equal(model.infer(again.load(), num_samples=5, seed=1), found)


def test_a_reference_of_the_users_is_handed_in_again(data: xr.Dataset, tmp_path: Path) -> None:
    class Wind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.speed = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor, t: Any) -> Tensor:
            return self.speed.expand_as(x)

    found = small(data, reference=Wind())
    found.save(tmp_path / "model")

    loaded = SchrodingerBridge.load(tmp_path / "model", reference=Wind())
    xr.testing.assert_identical(loaded.forecast([4.0], seed=0), found.forecast([4.0], seed=0))
    for modules in ({}, {"reference": Zero()}):
        with pytest.raises(ValueError, match=r"class was Wind, .*hand it in again: load\(path, reference="):
            SchrodingerBridge.load(tmp_path / "model", **modules)


def without_offset() -> Linear:
    reference = Linear(2)
    reference.offset.requires_grad_(False)
    return reference


@pytest.mark.parametrize(
    ("build", "difference"),
    [
        (lambda: Linear(2, ridge=3.0), "ridge was 3.0, here it is 0.0"),
        (without_offset, "requires_grad of offset was False, here it is True"),
        (LotkaVolterra, "class was LotkaVolterra, here it is Linear"),
        (lambda: Sum(LotkaVolterra(), Linear(2, ridge=2.0)), "class was Sum, here it is Linear"),
    ],
)
def test_a_reference_that_differs_is_not_taken_for_the_saved_one(
    build: Any, difference: str, data: xr.Dataset, tmp_path: Path
) -> None:
    found = small(data, reference=build())
    found.save(tmp_path / "model")

    loaded = seqdyn.load(tmp_path / "model", reference=build())
    xr.testing.assert_identical(loaded.forecast([4.0], seed=0), found.forecast([4.0], seed=0))
    free = [[name for name, p in m.process.named_parameters() if p.requires_grad] for m in (loaded, found)]
    assert free[0] == free[1]
    for modules in ({}, {"reference": Linear(2)}):
        with pytest.raises(ValueError, match=rf"{difference}.*; hand it in again: load\(path, reference="):
            seqdyn.load(tmp_path / "model", **modules)


@pytest.mark.parametrize(
    "options",
    [
        {"reference": Linear(2)},
        {"reference": "LotkaVolterra"},
        {"num_components": 1, "volatility": 0.3},
        {"coordinates": "log", "reference": "LotkaVolterra"},
        {"volatility": [[0.3, 0.1], [0.0, 0.2]]},
    ],
    ids=str,
)
def test_every_kind_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    positive = snapshots(*(np.exp(part) for part in clouds(0, 0.5, 1)))
    found = small(positive, **options)
    found.save(tmp_path / "model")

    loaded = seqdyn.load(tmp_path / "model")

    xr.testing.assert_identical(loaded.marginal([0.5], seed=0), found.marginal([0.5], seed=0))
    xr.testing.assert_identical(loaded.forecast([3.0], seed=0), found.forecast([3.0], seed=0))


def test_in_single_precision_it_answers_in_it_and_computes_in_double(
    model: SchrodingerBridge, data: xr.Dataset
) -> None:
    single = copy.deepcopy(model).float()

    assert model.dtype == torch.float64
    for draw in (
        lambda m: m.infer(data, num_samples=5, seed=1),
        lambda m: m.marginal([0.5, 2.0], num_samples=5, seed=1),
        lambda m: m.forecast([4.0], num_samples=5, seed=1),
    ):
        found, expected = draw(single), draw(model)
        assert found.x.dtype == np.float32
        # Not closer: a rounded potential moves a draw to its neighbour now and then.
        np.testing.assert_allclose(found.x.mean("particle"), expected.x.mean("particle"), atol=0.1)


def test_couplings_of_a_model_in_single_precision_have_their_marginals() -> None:
    """At little noise a plan of rounded potentials would miss its weights by parts in a hundred."""
    model = small(snapshots(*clouds(0, 1, 2)), 0.01, reference=Zero())

    plan, expected = copy.deepcopy(model).float().coupling(0), model.coupling(0)

    np.testing.assert_allclose(plan.sum("target"), 1 / 12, atol=1e-6)
    np.testing.assert_allclose(plan.sum("source"), 1 / 12, atol=1e-6)
    assert float(abs(plan - expected).sum()) < 0.01


def test_many_coordinates_are_warned_of_once() -> None:
    data = snapshots(*clouds(0, 1, 2, count=6, size=24))

    with pytest.warns(UserWarning, match="24 coordinates, with 0.25 particles for each .*num_comp") as seen:
        small(data, max_epochs=2)
    assert len([one for one in seen if "coordinates" in str(one.message)]) == 1
    with pytest.warns(UserWarning) as seen:
        small(data, num_components=2)
        warnings.warn("something", UserWarning, stacklevel=1)
    assert not [one for one in seen if "coordinates" in str(one.message)]


def test_data_in_single_precision_give_the_same(data: xr.Dataset, model: SchrodingerBridge) -> None:
    rounded = data.assign(x=data.x.astype(np.float32))

    found = small(rounded)

    np.testing.assert_allclose(
        found.reference_parameters.value, model.reference_parameters.value, rtol=1e-3, atol=1e-4
    )


class StopAt(pl.Callback):
    """Interrupt a fit at the n-th call of a hook, counted from zero."""

    def __init__(self, hook: str, number: int) -> None:
        calls = iter(range(1000))

        def stop(*args: Any, **kwargs: Any) -> None:
            if next(calls) == number:
                raise KeyError("interrupted")

        setattr(self, hook, stop)


@pytest.mark.parametrize(
    ("hook", "number"),
    [("on_train_batch_start", 1), ("on_train_batch_end", 1), ("on_train_epoch_end", 1), ("on_train_end", 0)],
)
@pytest.mark.parametrize("kind", ["formula", "network", "estimate"])
def test_a_fit_goes_on_exactly_after_an_interruption(
    predators: xr.Dataset, tmp_path: Path, hook: str, number: int, kind: str
) -> None:
    def fit(**options: Any) -> SchrodingerBridge:
        with fork_rng(1):
            reference = GradientField(2, (8, 8)) if kind == "network" else LotkaVolterra()
        volatility: Any = 0.3
        if kind == "estimate":
            volatility, reference = "estimate", OrnsteinUhlenbeck(2)
        model = SchrodingerBridge(
            2, volatility, reference, num_steps=4, num_paths=10, network_steps=5, num_simulations=2
        )
        return model.fit(predators, max_epochs=3, **FIT, **options)

    with pytest.raises(KeyError, match="interrupted"):
        fit(run_dir=tmp_path / "run", callbacks=[StopAt(hook, number)])
    resumed = fit(run_dir=tmp_path / "run", resume=True)
    expected = fit()

    for (name, value), other in zip(
        resumed.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    xr.testing.assert_identical(resumed.history.drop_vars("seconds"), expected.history.drop_vars("seconds"))
    xr.testing.assert_identical(resumed.marginal([1.0], seed=0), expected.marginal([1.0], seed=0))


def test_a_fit_of_a_fitted_model_goes_on(predators: xr.Dataset) -> None:
    def build() -> SchrodingerBridge:
        return SchrodingerBridge(2, 0.3, reference=LotkaVolterra(), num_steps=6, num_paths=10)

    twice = build().fit(predators, max_epochs=1, **FIT).fit(predators, max_epochs=1, **FIT)

    history = twice.history
    assert history.sizes["epoch"] == 2
    assert float(history.train_divergence_before[1]) == pytest.approx(float(history.train_loss[0]), abs=1e-6)


def test_a_fit_that_goes_on_takes_its_own_seed(predators: xr.Dataset) -> None:
    def found(seed: int) -> np.ndarray:
        model = SchrodingerBridge(2, 0.3, num_steps=4, num_paths=5)
        model.fit(predators, max_epochs=1, **FIT).fit(predators, max_epochs=1, **(FIT | {"seed": seed}))
        return model.reference_parameters.value.values

    np.testing.assert_array_equal(found(1), found(1))
    assert np.abs(found(1) - found(2)).max() > 1e-3


def test_the_record_of_a_fit(hunter: SchrodingerBridge) -> None:
    found = hunter.reference_parameters

    assert found.parameter.values.tolist() == ["alpha", "beta", "gamma", "delta"]
    assert found.attrs["reference"] == "LotkaVolterra"
    np.testing.assert_array_equal(found.volatility, 0.1 * np.eye(2))
    for name in ("alpha", "beta", "gamma", "delta"):
        assert float(found.value.sel(parameter=name)) == pytest.approx(
            float(hunter.history[f"train_{name}"][-1]), rel=1e-12
        )
    assert np.isfinite(hunter.history.to_array()).all()


def test_dynamics_are_those_of_the_reference(hunter: SchrodingerBridge) -> None:
    found = hunter.dynamics()

    x = torch.rand(5, 2, dtype=torch.float64) * 5
    torch.testing.assert_close(found.drift(x, 0.0), hunter.process.drift(x, 0.0).detach())
    assert not found.drift(x, 0.0).requires_grad
    torch.testing.assert_close(torch.as_tensor(found.volatility).double(), torch.full((2,), 0.1).double())


# Odd data
# ------------------------------------------------------------------------------------------------------


def assert_works(model: SchrodingerBridge, data: xr.Dataset) -> None:
    """All verbs give finite numbers."""
    start, end = float(data.time.min()), float(data.time.max())
    times = np.linspace(start, end, 4)
    assert np.isfinite(model.infer(data, num_samples=5, seed=0).x).all()
    assert np.isfinite(model.marginal(times, num_samples=5, seed=0).x).all()
    assert np.isfinite(model.forecast([end + 1], num_samples=5, seed=0).x).all()
    assert np.isfinite(model.bridge_drift(data).drift).all()
    assert np.isfinite(model.history.to_array()).all()


ONE, SAME = np.array([[1.0, 2.0]]), clouds(0)[0]


@pytest.mark.parametrize(
    "parts",
    [
        [ONE, ONE + 1, ONE + 1.5],
        [ONE, clouds(2)[0], ONE + 1],
        [SAME, SAME, SAME],
        [np.repeat(SAME, 3, axis=0), *clouds(1, 2)],
        [np.ones((5, 2)), np.ones((4, 2)), np.full((3, 2), 2.0)],
        [SAME, SAME + 1000],
        [np.concatenate([SAME, SAME + 100]), np.concatenate([SAME[:4], SAME + 101])],
        clouds(0, 1, 2, count=3, size=7),
    ],
    ids=["one particle each", "one particle at the ends", "identical", "repeated particles", "no spread",
         "far apart", "two parts of unequal mass", "more features than particles"],
)  # fmt: skip
def test_odd_snapshots_work(parts: list[np.ndarray]) -> None:
    data = snapshots(*parts)

    for solver in ("static", "linear"):
        assert_works(small(data, solver=solver), data)


def test_through_single_particles_there_is_one_path_up_to_noise() -> None:
    data = snapshots(ONE, ONE + 1, ONE + 1.5)

    found = small(data, 0.01, reference=Zero()).marginal([0.5], num_samples=400, seed=0).x.values[:, 0]

    np.testing.assert_allclose(found.mean(axis=0), [1.5, 2.5], atol=0.002)
    np.testing.assert_allclose(found.std(axis=0), 0.01 * 0.5, rtol=0.15)


def test_particles_of_one_time_are_one_snapshot(data: xr.Dataset) -> None:
    """Two snapshots that are said to be at equal times are merged."""
    parts = clouds(0, 1, 1, 2)
    merged = small(snapshots(*parts, times=[0.0, 1.0, 2.0, 3.0]).assign_coords(
        time=("particle", np.repeat([0.0, 1.0, 1.0, 2.0], 12))))  # fmt: skip

    assert merged.coupling(0).shape == (12, 24) and merged.coupling(1).shape == (24, 12)


def test_the_order_of_particles_and_times_does_not_matter(data: xr.Dataset, model: SchrodingerBridge) -> None:
    ordered = data.sortby("time")

    found = small(ordered)

    np.testing.assert_allclose(
        found.history.train_divergence_before[0], model.history.train_divergence_before[0]
    )
    places = np.argsort(data["time"].values, kind="stable")  # where the ordered data's particles were
    for k in range(2):
        plan, other = found.coupling(k), model.coupling(k)
        named = plan.assign_coords({dim: places[plan[dim].values] for dim in plan.dims})
        assert float(abs(named.sortby(["source", "target"]) - other).max()) < 1e-6
        assert float(other.max()) > 2 / other.size  # nor are they flat


def test_particles_without_weight_do_not_count(data: xr.Dataset) -> None:
    kept = (np.arange(data.sizes["particle"]) % 5) != 0
    weighted = data.assign(weight=("particle", kept.astype(float)))

    found, expected = small(weighted), small(data.isel(particle=kept))

    np.testing.assert_allclose(
        found.reference_parameters.value, expected.reference_parameters.value, rtol=1e-4, atol=1e-4
    )
    plan = found.coupling(0)
    assert float(plan.sel(source=[i for i in plan.source.values if not kept[i]]).sum()) == 0


def test_very_little_noise_is_solved(data: xr.Dataset) -> None:
    assert_works(small(data, 1e-5, reference=Zero()), data)


@pytest.mark.parametrize("count", [12, 8])
def test_at_next_to_no_noise_particles_are_joined_as_by_exact_transport(count: int) -> None:
    # There is no other solver for this case, and so no mark of it: the marginals are met all the same.
    data = snapshots(clouds(0)[0], clouds(1, seed=1)[0][:count])
    model = small(data, 1e-3, reference=Zero(), max_epochs=2)

    plan = model.coupling(0).values
    x, y = (data["x"].values[data["time"].values == time] for time in (0, 1))
    for cost in (model.view().chain.cost(0).numpy(), ((x[:, None] - y) ** 2).sum(axis=2)):
        np.testing.assert_allclose(plan, exact_plan(cost), atol=1e-6)
    assert float(model.convergence["marginal_error"].max()) < 1e-6
    assert_works(model, data)


# Refusals
# ------------------------------------------------------------------------------------------------------


class Failing(nn.Module):
    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.forward = forward


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volatility": 0.0}, "leave noise in every direction, got 0.0: .* give a small one, or"),
        ({"volatility": [0.5, 0]}, "leave noise in every direction"),
        ({"volatility": [[1, 1], [1, 1]]}, "leave noise in every direction"),
        ({"volatility": -1.0}, "volatility must be finite and not negative, got -1.0"),
        ({"volatility": "guess"}, "volatility must be a number, several, or 'estimate', got 'guess'"),
        ({"volatility": "0.2"}, "got '0.2'; type volatility=0.2, without quotes"),
        ({"volatility": -0.1}, "type a positive number, such as volatility=0.2, or volatility='estimate'"),
        ({"volatility": None}, "got None; type a positive number, .* or volatility='estimate'"),
        ({"volatility": True}, "volatility must be a number, several, or 'estimate', got True"),
        ({"volatility": None}, "volatility must be a number"),
        ({"volatility": [0.1, 0.2, 0.3]}, r"with 2 features, got shape \(3,\)"),
        ({"volatility": float("nan")}, "volatility is nan"),
        ({"volatility": [[0.3, 0.1], [0.1, 0.2]], "coordinates": "log"}, "as volatility, no matrix"),
        ({"num_components": 1, "coordinates": "log"}, "choose one: coordinates='log', or num_components="),
        ({"num_components": 3}, "at most num_features=2, got 3; None works on the features"),
        ({"num_components": 0}, "num_components must be a whole number of at least 1, got 0"),
        ({"num_features": 0}, "num_features must be a whole number of at least 1, got 0"),
        ({"solver": "exact"}, "solver must be one of .* got 'exact'"),
        ({"coordinates": "logs"}, "coordinates must be one of .* got 'logs'"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ({"tolerance": 0}, "tolerance must be a positive number, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0"),
        ({"solver": "linear", "reference": LotkaVolterra()}, "A x .* LotkaVolterra .*'static'"),
        ({"solver": "linear", "reference": Linear(2), "coordinates": "log"}, "Linear in log; use"),
        ({"solver": "linear", "reference": Failing(lambda x, t: x**2)}, "needs a reference A x"),
        ({"reference": "Lotka"}, "no reference 'Lotka'; give one of G"),
        ({"reference": LotkaVolterra}, r"got the class LotkaVolterra; make one: reference=LotkaVolterra\(\)"),
        ({"reference": lambda x, t: x}, r"got function; write it as the forward\(x, t\) of an nn.Module"),
        ({"reference": LotkaVolterra(), "num_features": 3}, r"LotkaVolterra failed on states \(3, 3\)"),
        ({"reference": Failing(lambda x, t: x[..., 0])}, r"gave torch.float64 \(3,\) for states"),
        ({"reference": Failing(lambda x: x)}, r"failed on states \(3, 2\) and times .* 2 were given"),
        ({"reference": Failing(lambda x, t: x.numpy())}, "use torch.exp and so on, not numpy"),
        ({"reference": Failing(lambda x, t: x.tolist())}, "gave list for states"),
        ({"reference": Failing(lambda x, t: x @ torch.ones(3, 3))}, r"failed on .*forward\(x, t\) must map"),
        ({"reference": Failing(lambda x, t: x.float())}, r"gave torch.float32 \(3, 2\) for states"),
        ({"reference": Failing(lambda x, t: x * float(t))}, r"failed on states \(3, 2\) and times \(3, 1\)"),
        ({"reference": Failing(lambda x, t: x * t.sin())}, r"failed on states \(3, 2\) and the time 0.0"),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SchrodingerBridge(**{"num_features": 2, "volatility": 0.5, **options})


class Cubic(Linear):
    def forward(self, x: Tensor, t: Any) -> Tensor:
        return super().forward(x, t) - x**3


class Clocked(Linear):
    def forward(self, x: Tensor, t: Any) -> Tensor:
        return super().forward(x, t) + torch.as_tensor(t)


class SaidNotToBeLinear(Cubic):
    affine = None  # type: ignore[assignment]
    solve = None  # type: ignore[assignment]


class WithLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.affine = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return self.affine(x)


class Lopsided(Linear):
    def affine(self) -> tuple[Tensor, Tensor]:
        return self.matrix[:, :1], self.offset


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Cubic(2), "Cubic has other velocities than the A x .* write affine = None and solve = None"),
        (Clocked(2), "Clocked has other velocities"),
        (WithLayer(), "WithLayer does not give a matrix .* rename a layer that is called affine"),
        (Lopsided(2), r"Lopsided does not give a matrix \(2, 2\)"),
    ],
)
def test_a_drift_that_is_not_the_linear_one_it_claims_is_refused(reference: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SchrodingerBridge(2, 0.5, reference=reference)


def test_a_drift_that_does_not_claim_to_be_linear_is_solved_as_it_is(data: xr.Dataset) -> None:
    with fork_rng(0):
        found, linear = small(data, reference=SaidNotToBeLinear(2)), small(data, reference=Linear(2))

    x = np.full((1, 2), 2.0)
    drift = found.process.drift(torch.tensor(x), 0.0).detach().numpy()
    np.testing.assert_allclose(found.bridge_drift(x, 3.0).drift, drift)
    assert abs(float(found.divergence) - float(linear.divergence)) > 1e-3


def with_bad_value(data: xr.Dataset) -> xr.Dataset:
    broken = data.copy(deep=True)
    broken["x"][3, 1] = np.nan
    return broken


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (with_bad_value, {}, r"'x' has 1 of 30 particles with NaN .* \(first at particle=3\); drop them"),
        (lambda d: d, {"num_features": 3}, "have 2 features but the model .*; build it with num_features=2"),
        (lambda d: d.isel(particle=d.time.values == 0), {}, r"at two or more times, got only \[0.*\]"),
        (lambda d: d, {"coordinates": "log"}, r"needs positive data, but 'x' is -.* at particle=\d+; drop"),
        (lambda d: d.assign(weight=("particle", 1.0 * (d.time.values > 0))), {}, "have weight 0; give"),
        (lambda d: d.assign(x=d.x[:, 0] + 0 * d.x), {"num_components": 2}, "vary in only 1 directions"),
        (lambda d: d.assign(x=0 * d.x), {"volatility": "estimate"}, "all snapshots coincide"),
        (lambda d: snapshots(ONE, ONE + 1, ONE + 2), {"volatility": "estimate"},
         "no volatility to estimate from 4 numbers, .* with 7 parameters, .* fewer parameters"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_refused(
    data: xr.Dataset, change: Any, options: dict[str, Any], message: str
) -> None:
    model = SchrodingerBridge(**{"num_features": 2, "volatility": 0.5, **options})

    with pytest.raises(ValueError, match=message):
        model.fit(change(data), max_epochs=1, **FIT)


def test_new_snapshots_are_checked_like_those_of_the_training(
    model: SchrodingerBridge, data: xr.Dataset
) -> None:
    with pytest.raises(ValueError, match=r"NaN .* \(first at particle=3\)"):
        model.infer(with_bad_value(data))
    with pytest.raises(
        ValueError, match=r"have 1 features but .* fitted to 2: \['left', 'right'\]; sel.* data.sel\(feature="
    ):
        model.infer(data.isel(feature=[0]))
    for verb in (model.infer, model.bridge_drift):
        with pytest.raises(ValueError, match=r"fitted to \['left', 'right'\]; select and order them"):
            verb(data.isel(feature=[1, 0]))


def test_drifts_are_asked_for_at_states_that_are_checked(model: SchrodingerBridge, data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"NaN .* \(first at particle=3\)"):
        model.bridge_drift(with_bad_value(data))
    with pytest.raises(ValueError, match=r"must have dims \('particle', 'feature'\)"):
        model.bridge_drift(data.transpose("feature", "particle"))
    one = data.isel(particle=data.time.values == 1)
    np.testing.assert_array_equal(
        model.bridge_drift(one).drift, model.bridge_drift(data).drift[data.time == 1]
    )


def test_logarithms_need_positive_states() -> None:
    found = small(snapshots(*clouds(5, 6, 7)), 0.1, coordinates="log")

    with pytest.raises(ValueError, match="state is not positive, but x is -1 at particle=1; drop"):
        found.bridge_drift([[1.0, 2.0], [-1.0, 2.0]], 0.5)
    with pytest.raises(ValueError, match="coordinates='log' needs positive data"):
        found.bridge_drift(snapshots(*clouds(0, 0, 0)))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_times_in_single_precision_are_found_by_their_names(offset: float) -> None:
    times = [offset + time for time in (0.1, 0.6, 1.1)]
    data = snapshots(*clouds(0, 1, 2), times=times)
    found = small(data.assign_coords(time=("particle", data.time.values.astype(np.float32))))

    for time in times:
        x = found.marginal(time, num_samples=5, seed=0).x.values[:, 0]
        assert (x[:, None] == data.x.values[data.time.values == time]).all(axis=2).any(axis=1).all()
    with pytest.raises(ValueError, match="lies outside"):
        found.marginal(offset + 1.101)


@pytest.mark.parametrize("verb", ["marginal", "forecast", "infer"])
@pytest.mark.parametrize(
    "times", [[5.0, 4.0], [4.0, 4.0], [np.nan], [np.inf], [], "noon", [[4.0, 5.0]]], ids=str
)
def test_times_must_increase(model: SchrodingerBridge, data: xr.Dataset, verb: str, times: Any) -> None:
    call = (data, times) if verb == "infer" else (times,)

    with pytest.raises(
        ValueError, match="times must be (increasing finite numbers, .*sorted|numbers in the unit)"
    ):
        getattr(model, verb)(*call)


def test_times_outside_are_refused_with_the_verb_that_takes_them(
    model: SchrodingerBridge, data: xr.Dataset
) -> None:
    for times in ([3.5], [-1.0]):
        with pytest.raises(ValueError, match=r"which go from 0 to 3; model.forecast\(times\) runs"):
            model.marginal(times)
        with pytest.raises(ValueError, match=r"which go from 0 to 3; model.forecast\(times\) runs"):
            model.infer(data, times)
    for times, start in (([3.0], "last"), ([2.0, 4.0], "last"), ([0.0], "first")):
        with pytest.raises(ValueError, match=r"is not after the snapshot at [03] .*model.marginal\(times\)"):
            model.forecast(times, start=start)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.marginal([0.5], num_samples=0), "num_samples must be a whole number .*num_samples=1000"),
        (lambda m: m.forecast([4.0], num_samples=1.5), "num_samples must be a whole number"),
        (lambda m: m.forecast([4.0], start="middle"), "start must be 'last' or 'first', .* got 'middle'"),
        (lambda m: m.marginal([0.5], condition="a"), "no condition 'a'; the snapshots have none"),
        (lambda m: m.marginal([0.5], seed="x"), "seed must be a whole number"),
        (lambda m: m.coupling(2), "there are 2 intervals, numbered from 0, got interval=2"),
        (lambda m: m.coupling("first"), "interval must be a whole number, got 'first'"),
        (lambda m: m.bridge_drift(np.zeros((3, 3)), 0.5), r"with 2 features, got shape \(3, 3\)"),
        (lambda m: m.bridge_drift(np.full((3, 2), np.nan), 0.5), "a finite array"),
        (lambda m: m.bridge_drift(np.zeros((3, 2))), "needs their times=, one number or one per particle"),
        (lambda m: m.bridge_drift(np.zeros((3, 2)), [0, 1]), r"one per particle, 3, got shape \(2,\)"),
        (lambda m: m.bridge_drift(np.zeros((3, 2)), 4.0), "time 4 lies outside the snapshots"),
    ],
)  # fmt: skip
def test_calls_out_of_range_are_refused(model: SchrodingerBridge, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_drift_at_snapshots_takes_no_other_times(model: SchrodingerBridge, data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="snapshots have times of their own; leave times out"):
        model.bridge_drift(data, 0.5)


def test_verbs_need_a_fit(data: xr.Dataset) -> None:
    fresh = SchrodingerBridge(2, 0.5)

    for verb in (lambda: fresh.marginal([0.5]), lambda: fresh.infer(data), lambda: fresh.forecast([4.0]),
                 lambda: fresh.coupling(0), lambda: fresh.bridge_drift(data), lambda: fresh.dynamics(),
                 lambda: fresh.reference_parameters):  # fmt: skip
        with pytest.raises(NotFittedError, match=re.escape("call model.fit(data) first")):
            verb()


def test_an_average_of_weights_makes_no_sense(data: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="leave ema_decay out"):
        SchrodingerBridge(2, 0.5).fit(data, ema_decay=0.9, **FIT)


def test_a_reference_that_runs_away_is_refused_with_a_remedy(predators: xr.Dataset) -> None:
    model = SchrodingerBridge(2, 0.5, reference=LotkaVolterra(50.0, 0.0, 0.0, 50.0))

    with pytest.raises(NonFiniteError, match="from time 0 to 2: .*parameters with a weaker drift"):
        model.fit(predators, max_epochs=1, **FIT)


def test_a_coupling_that_was_not_found_is_told(
    model: SchrodingerBridge, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqdyn.sde.chain, "_LOOSE", 0.0)

    with pytest.warns(ConvergenceWarning, match="misses their weights by .*Raise the volatility"):
        model.infer(data, num_samples=2, seed=0)
    with pytest.warns(ConvergenceWarning, match="misses their weights"):
        small(data)
