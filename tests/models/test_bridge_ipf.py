"""SchrodingerBridge with ``solver="ipf"``: the same verbs on half-bridges, and what these cannot tell."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import seqdyn
from seqdyn import datasets
from seqdyn.data import stack_snapshots
from seqdyn.datasets.population import ou_chain
from seqdyn.errors import ConvergenceWarning
from seqdyn.models import SchrodingerBridge
from seqdyn.rng import fork_rng
from seqdyn.sde.drifts import Linear, LotkaVolterra, Zero

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False, "accelerator": "cpu"}
FEW: dict[str, Any] = {"num_steps": 8, "num_projections": 2, "projection_paths": 60}
WITHOUT: dict[str, Callable[[SchrodingerBridge], Any]] = {
    "coupling": lambda model: model.coupling(0),
    "fates": lambda model: model.fates(["a"] * 28),
    "ancestors": lambda model: model.ancestors(["a"] * 28),
    "bootstrap": lambda model: model.bootstrap(2, seed=0),
}


def ipf(data: xr.Dataset, volatility: Any = 0.5, *, max_epochs: int = 1, **options: Any) -> SchrodingerBridge:
    options = FEW | {"solver": "ipf"} | options
    model = SchrodingerBridge(data.sizes["feature"], volatility, **options)
    return model.fit(data, max_epochs=max_epochs, **FIT)


def moving(*sizes: int, size: int = 2, seed: int = 0, times: Any = None) -> xr.Dataset:
    """Clouds that move by one unit in each direction from snapshot to snapshot."""
    draw = np.random.default_rng(seed)
    parts = [draw.normal(i, 0.5, (count, size)) for i, count in enumerate(sizes)]
    return stack_snapshots(parts, times=range(len(parts)) if times is None else times)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return moving(30, 24, 28, times=[0.0, 1.0, 3.0])


@pytest.fixture(scope="module")
def model(data: xr.Dataset) -> SchrodingerBridge:
    with fork_rng(0):
        return ipf(data, max_epochs=3)


# What it finds
# ------------------------------------------------------------------------------------------------------


def test_it_finds_the_bridge_and_the_drift_that_couplings_find() -> None:
    data = ou_chain(200, times=(0, 0.5, 1, 2), seed=0)
    volatility = float(data.attrs["volatility"])
    options = {"num_steps": 10, "num_projections": 2, "projection_paths": 200, "max_epochs": 4}
    found = ipf(data, volatility, **options)
    static = ipf(data, volatility, solver="static", **options)

    ours, theirs = (model.reference_parameters.value.values for model in (found, static))
    np.testing.assert_allclose(ours, theirs, atol=0.15)
    assert np.abs(theirs).max() > 0.7
    for time in (0.25, 1.5):
        ours, theirs = (m.marginal(time, num_samples=4000, seed=0).x.values[:, 0] for m in (found, static))
        np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_predators_from_their_true_parameters(seed: int, data_dir: Path) -> None:
    if not (data_dir / "sbirr" / "LV_data.npy").is_file():
        pytest.skip("SEQDYN_DATA has no sbirr/LV_data.npy")
    snapshots = datasets.load("lotka_volterra_published")
    even = np.isin(snapshots.time.values, [0, 2, 4, 6, 8])
    model = SchrodingerBridge(2, 0.1, reference=LotkaVolterra(1.0, 0.4, 0.4, 0.1), solver="ipf")
    model.fit(snapshots.isel(particle=even), seed=seed, enable_progress_bar=False)

    found = model.score(snapshots.isel(particle=~even), seed=seed).score.sel({"method": "model"})

    # The published form: .06 .16 .20 .31.
    assert (found.values.ravel() < [0.07, 0.1, 0.14, 0.31]).all(), found.values


def test_refinements_never_raise_the_divergence(model: SchrodingerBridge) -> None:
    history = model.history

    assert (history.train_loss <= history.train_divergence_before).all()
    # A refinement goes on from the very bridge that the last one found.
    np.testing.assert_array_equal(history.train_divergence_before[1:], history.train_loss[:-1])
    assert float(history.train_loss[-1]) < 0.7 * float(history.train_divergence_before[0])
    assert float(model.divergence) == float(history.train_loss[-1])


def test_each_interval_has_a_record(model: SchrodingerBridge) -> None:
    found = model.convergence

    assert found.divergence.dims == found.marginal_error.dims == ("interval",)
    assert found.start.values.tolist() == [0, 1] and found.end.values.tolist() == [1, 3]
    assert float(found.divergence.sum()) == pytest.approx(float(model.divergence))
    assert 0 < float(found.marginal_error.max()) < 0.3
    assert float(found.marginal_error.max()) == float(model.history.train_marginal_error[-1])


def test_half_bridges_that_do_not_meet_are_told() -> None:
    # Far away, under a reference that pulls back hard, in one projection.
    data = moving(20, 20)
    data["x"].values[20:] *= 40
    pull = Linear(2)
    with torch.no_grad():
        pull.matrix.copy_(-8 * torch.eye(2))
    pull.requires_grad_(False)  # a refit would soon lead there

    with pytest.warns(ConvergenceWarning, match="half-bridges end .*they do not meet.*use solver='static'"):
        found = ipf(data, 0.2, reference=pull, num_projections=1)
    assert float(found.convergence.marginal_error.max()) > 0.5


# Verbs
# ------------------------------------------------------------------------------------------------------


def test_a_path_goes_through_a_particle_of_one_snapshot(model: SchrodingerBridge, data: xr.Dataset) -> None:
    found = model.infer(data, times=[0, 0.5, 1, 2, 3], num_samples=30, seed=0)

    assert found.x.dims == ("particle", "time", "feature") and found.x.shape == (30, 5, 2)
    visits = np.zeros(30, dtype=int)
    for time in (0, 1, 3):
        cloud = data.x.values[data.time.values == time]
        at = found.x.sel(time=time).values
        visits += np.isclose(at[:, None], cloud, atol=1e-9).all(axis=2).any(axis=1)
        np.testing.assert_allclose(at.mean(axis=0), cloud.mean(axis=0), atol=0.35)
    assert visits.tolist() == [1] * 30


def test_trajectories_go_through_snapshots_that_the_fit_has_not_seen(model: SchrodingerBridge) -> None:
    others = moving(15, 12, seed=5)
    others["x"] += 3

    found = model.infer(others, times=[0.0, 1.0], num_samples=40, seed=0)

    np.testing.assert_allclose(found.x.mean("particle"), [[3, 3], [4, 4]], atol=0.3)


def test_the_drift_moves_the_population(model: SchrodingerBridge) -> None:
    times = np.linspace(0, 1, 9)
    x = model.marginal(times, num_samples=2000, seed=0).x.transpose("time", ...).values

    # Of the clouds at eight times, each an eighth before the next.
    drifts = [
        model.bridge_drift(cloud, t).drift.values.mean(axis=0)
        for cloud, t in zip(x, times[:-1], strict=False)
    ]
    np.testing.assert_allclose(np.mean(drifts, axis=0), (x[-1] - x[0]).mean(axis=0), atol=0.1)
    last = model.bridge_drift([[3.0, 3.0]], 3.0).drift.values
    np.testing.assert_allclose(last[0], model.dynamics().drift(torch.full((1, 2), 3.0).double(), 3.0)[0])


def test_forecasts_and_scores(model: SchrodingerBridge, data: xr.Dataset) -> None:
    ahead = model.forecast([4.0], num_samples=50, seed=0)
    held_out = data.isel(particle=data.time.values == 1).assign_coords(time=lambda d: d.time + 0.5)

    scores = model.score(held_out, ("w2", "energy"), num_samples=50, seed=0)

    assert ahead.x.shape == (50, 1, 2) and ahead.attrs["extrapolation_from"] == 3
    assert np.isfinite(scores.score).all()
    # Half a unit of time on, of a move of half a unit of time.
    assert scores.score.sel({"method": "model", "metric": "w2"}).item() < 1


def test_validation_is_the_divergence_of_other_snapshots(data: xr.Dataset) -> None:
    model = SchrodingerBridge(2, 0.5, reference=Zero(), solver="ipf", **FEW)
    model.fit(data, val=data, max_epochs=1, **FIT)

    assert float(model.history.val_loss[0]) == pytest.approx(float(model.history.train_loss[0]))


@pytest.mark.parametrize("verb", WITHOUT)
def test_what_takes_a_coupling_is_refused(model: SchrodingerBridge, verb: str) -> None:
    with pytest.raises(ValueError, match="solver='ipf' has no .*solver='static'"):
        WITHOUT[verb](model)


# Seeds and files
# ------------------------------------------------------------------------------------------------------


def assert_same(first: SchrodingerBridge, second: SchrodingerBridge, data: xr.Dataset) -> None:
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    for draw in (
        lambda m: m.marginal([0.5, 2.0], num_samples=9, seed=1),
        lambda m: m.infer(data, num_samples=5, seed=1),
        lambda m: m.bridge_drift(data),
        lambda m: m.convergence,
        lambda m: m.reference_parameters,
    ):
        xr.testing.assert_identical(draw(first), draw(second))


def test_it_comes_back_from_a_folder_bit_for_bit(
    model: SchrodingerBridge, data: xr.Dataset, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")

    assert_same(seqdyn.load(tmp_path / "model"), model, data)


def test_equal_seeds_give_equal_fits(model: SchrodingerBridge, data: xr.Dataset) -> None:
    assert_same(ipf(data, max_epochs=3), model, data)

    other = SchrodingerBridge(2, 0.5, solver="ipf", **FEW).fit(data, max_epochs=1, **(FIT | {"seed": 1}))
    assert float(other.history.train_loss[0]) != float(model.history.train_loss[0])


def test_a_fit_goes_on_exactly_after_an_interruption(
    model: SchrodingerBridge, data: xr.Dataset, tmp_path: Path
) -> None:
    ipf(data, max_epochs=2)  # a fit in between leaves no trace
    run = {"run_dir": tmp_path / "run"}
    SchrodingerBridge(2, 0.5, solver="ipf", **FEW).fit(data, max_epochs=1, **run, **FIT)

    resumed = SchrodingerBridge(2, 0.5, solver="ipf", **FEW)
    resumed.fit(data, max_epochs=3, resume=True, **run, **FIT)

    assert_same(resumed, model, data)


def test_in_single_precision_it_answers_in_it(model: SchrodingerBridge) -> None:
    found, expected = (
        m.marginal(0.5, num_samples=50, seed=1).x for m in (copy.deepcopy(model).float(), model)
    )

    assert found.dtype == np.float32 and expected.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-3)


# Other data
# ------------------------------------------------------------------------------------------------------


def test_it_works_in_logarithms() -> None:
    data = moving(40, 40)
    data["x"] = np.exp(data.x)

    found = ipf(data, 0.5, coordinates="log", reference=LotkaVolterra(1.0, 0.0, 0.0, 0.0))

    # The reference lets the prey grow by e in unit time, as they do; the predators are led there.
    middle = np.log(found.marginal(0.5, num_samples=2000, seed=0).x.values[:, 0])
    np.testing.assert_allclose(middle.mean(axis=0), [0.5, 0.5], atol=0.15)
    assert (found.convergence.marginal_error < 0.3).all()


def test_it_works_on_components_of_more_features_than_particles() -> None:
    found = ipf(moving(12, 12, size=30), num_components=3, reference=Zero())

    middle = found.marginal(0.5, num_samples=500, seed=0).x.values[:, 0]
    assert middle.shape == (500, 30)
    assert middle.mean() == pytest.approx(0.5, abs=0.1)


def test_single_particles_are_joined_up_to_the_noise() -> None:
    data = stack_snapshots([np.zeros((1, 2)), np.ones((1, 2)), np.zeros((1, 2))], times=[0, 1, 2])

    found = ipf(data, 0.2, reference=Zero()).marginal([0.5, 1.5], num_samples=400, seed=0).x

    np.testing.assert_allclose(found.mean("particle"), 0.5, atol=0.05)
    np.testing.assert_allclose(found.std("particle"), 0.1, atol=0.03)


def test_conditions_have_bridges_of_their_own() -> None:
    parts = [moving(20, 20), -moving(16, 12, 20, seed=1)]
    parts = [
        part.assign_coords(condition=("particle", [label] * part.sizes["particle"]))
        for part, label in zip(parts, ("up", "down"), strict=True)
    ]
    found = ipf(xr.concat(parts, "particle"), reference=Zero())

    for label, sign in (("up", 1), ("down", -1)):
        middle = found.marginal(0.5, condition=label, seed=0).x.values
        np.testing.assert_allclose(middle.mean(axis=(0, 1)), sign * 0.5, atol=0.2)
    assert found.convergence.condition.values.tolist() == ["up", "down", "down"]


def test_growth_weights_the_sources() -> None:
    draw = np.random.default_rng(0)
    groups = np.repeat([-2.0, 2.0], 20)[:, None]
    clouds = [draw.normal(groups, 0.2), draw.normal(np.repeat([-2.0, 2.0, 2.0], 20)[:, None], 0.2)]
    data = stack_snapshots(clouds, times=[0, 1])
    rates = np.where((data.time.values == 0) & (data.x.values[:, 0] > 0), math.log(2), 0)
    found = ipf(data.assign(growth=("particle", rates)), 0.3, reference=Zero(), projection_paths=200)

    shares = [(found.marginal(t, seed=0).x.values > 0).mean() for t in (0.0, 0.5)]
    # Two of the upper kind to one of the lower at the end, one to one at the beginning.
    assert shares[0] == pytest.approx(1 / 2, abs=0.01)
    assert shares[1] == pytest.approx(2**0.5 / (1 + 2**0.5), abs=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volatility": "estimate"}, "cannot estimate the volatility.*solver='static'"),
        ({"projection_paths": 7}, "projection_paths must .*at least 8, got 7; solver='ipf' needs as many"),
        ({"num_projections": 0}, "num_projections must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SchrodingerBridge(2, **({"volatility": 0.5, "solver": "ipf"} | options))
