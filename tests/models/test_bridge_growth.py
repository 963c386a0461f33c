"""The growth prior: particles that multiply are not taken for particles that come from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.models.bridge_uncertainty import simulated
from seqdyn.sde.drifts import Linear, Zero
from seqdyn.sde.intervals import Snapshots, make_intervals
from seqdyn.sde.process import Process
from seqdyn.sde.solvers import Affine


def branches() -> tuple[xr.Dataset, np.ndarray]:
    """Progenitors become one of two kinds by time 1, and from then on the upper kind doubles.

    Returns:
        The snapshots, with 40, 20 + 20 and 40 + 20 particles, and the kind of each particle.
    """
    generator = np.random.default_rng(0)

    def around(place: float, count: int) -> np.ndarray:
        return generator.normal(place, 0.3, (count, 1))

    half = around(0.0, 20)
    clouds = [np.concatenate([half, -half])]
    clouds += [np.concatenate([around(2.0, count), around(-2.0, 20)]) for count in (20, 40)]
    data = stack_snapshots(clouds, times=[0, 1, 2])
    return data, np.where(data["x"].values[:, 0] > 0, "up", "down")


def doubling(data: xr.Dataset) -> xr.Dataset:
    """The same with the rate of growth of the upper kind."""
    grows = (data["time"].values == 1) & (data["x"].values[:, 0] > 0)
    return data.assign(growth=("particle", np.where(grows, np.log(2), 0.0)))


def bridge(data: xr.Dataset) -> SchrodingerBridge:
    model = SchrodingerBridge(1, 1.0, reference=Zero())
    return model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)


def test_fates_are_biased_towards_what_multiplies_unless_growth_is_known() -> None:
    data, kinds = branches()
    progenitors = {"time": data["time"].values == 0}
    lower = (data["time"].values == 1) & (kinds == "down")

    blind, aware = (bridge(part).fates(kinds)["fate"].sel(label="up") for part in (data, doubling(data)))

    # Without the prior a third of the lower kind must turn into the upper one, for 2 : 1 of it at the end.
    assert float(blind[lower].mean()) == pytest.approx(1 / 3, abs=0.01)
    assert float(blind[progenitors["time"]].mean()) == pytest.approx(2 / 3, abs=0.01)
    assert float(aware[lower].mean()) < 0.01
    assert float(aware[progenitors["time"]].mean()) == pytest.approx(1 / 2, abs=0.01)


def test_ancestors_of_the_final_population_are_not_biased_by_growth() -> None:
    data, kinds = branches()
    upper = (data["time"].values == 1) & (kinds == "up")

    blind, aware = (bridge(part).ancestors(kinds)["ancestry"] for part in (data, doubling(data)))

    assert float(blind.sel(label="up")[upper].sum()) == pytest.approx(3 / 4, abs=0.01)
    assert float(aware.sel(label="up")[upper].sum()) > 0.99


def test_the_population_grows_along_an_interval() -> None:
    # The upper kind has grown by the square root of 2 halfway; nothing crosses 0 there (distance 4, noise 1).
    data, _ = branches()
    model = bridge(doubling(data))

    x = model.marginal([0, 1.5, 2], num_samples=1000, seed=0)["x"][..., 0]

    # Draws are spread evenly over the particles at the beginning of an interval, each of which has one kind.
    share = (x > 0).mean("particle").values[1:]
    np.testing.assert_allclose(share, [2**0.5 / (1 + 2**0.5), 2 / 3], atol=0.003)
    assert set(np.unique(x[:, 0])) == set(data["x"].values[:40, 0])


def test_the_first_snapshot_is_drawn_with_its_weights_not_by_its_offspring() -> None:
    data = stack_snapshots([np.array([[-1.0], [1.0]]), np.array([[-1.0], [1.0]])], times=[0, 2])
    data = data.assign(growth=("particle", [0.0, 1.5, 0.0, 0.0]))

    x = bridge(data).marginal([0.0], num_samples=1000, seed=0)["x"]

    assert float((x > 0).mean()) == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize("solver", ["static", "ipf"])
def test_trajectories_are_lines_of_descent_of_the_last_snapshot(solver: str) -> None:
    # Nothing crosses 0 after time 1: two of three paths end, and were at time 1, in the upper kind.
    data, kinds = branches()
    data = doubling(data)
    model = SchrodingerBridge(1, 1.0, reference=Zero(), solver=solver, projection_paths=200, num_steps=8)
    model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)

    x = model.infer(data, [0, 1, 2], num_samples=1200, seed=0)["x"][..., 0].values

    within = 0.005 if solver == "static" else 0.04
    np.testing.assert_allclose((x > 0).mean(axis=0)[1:], [2 / 3, 2 / 3], atol=within)
    if solver == "static":  # they visit the ancestors
        ancestry = model.ancestors(np.full(len(kinds), "any"))["ancestry"][0].values
        counts = np.array([(x[:, :2] == place).sum() for place in data["x"].values[:80, 0]]) / len(x)
        np.testing.assert_allclose(counts, ancestry[:80], atol=0.01)
        assert len(np.unique(x[:, 2])) == 60


def test_no_trajectory_goes_through_a_particle_that_dies_out() -> None:
    both = np.array([[0.0], [1.0]])
    data = stack_snapshots([both, both, both], times=[0, 1, 2])
    data = data.assign(growth=("particle", [0.0, 0.0, 0.0, -800.0, 0.0, 0.0]))
    model = SchrodingerBridge(1, 0.1, reference=Zero())
    model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)

    x = model.infer(data, [0, 1, 2], num_samples=10, seed=0)["x"][..., 0].values

    np.testing.assert_array_equal(x[:, 1], 0)
    assert x[:, 2].mean() == 0.5


@pytest.fixture(scope="module")
def refined() -> SchrodingerBridge:
    return refine(branches()[0])


def refine(data: xr.Dataset) -> SchrodingerBridge:
    model = SchrodingerBridge(1, 1.0, reference=Linear(1), num_steps=10, num_paths=20)
    return model.fit(data, max_epochs=2, seed=0, enable_progress_bar=False)


@pytest.mark.parametrize("rate", [0.0, -3.0, 800.0])
def test_growth_that_is_the_same_for_all_changes_nothing(rate: float, refined: SchrodingerBridge) -> None:
    data, kinds = branches()

    grown = refine(data.assign(growth=("particle", np.full(data.sizes["particle"], rate))))

    np.testing.assert_array_equal(grown.reference_parameters["value"], refined.reference_parameters["value"])
    xr.testing.assert_identical(grown.coupling(1), refined.coupling(1))
    xr.testing.assert_identical(grown.fates(kinds), refined.fates(kinds))
    xr.testing.assert_identical(grown.marginal([0.5, 1.5], seed=0), refined.marginal([0.5, 1.5], seed=0))


def test_fast_growth_does_not_overflow() -> None:
    x = torch.zeros(2, 1, dtype=torch.float64)
    weight, growth = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([[1000.0, 1000.0 - np.log(3)]])
    snapshots = Snapshots(
        [x, x], list(weight.double()), [growth[0].double(), growth[0].double()],
        torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0, 0]),
    )  # fmt: skip

    intervals, _ = make_intervals(snapshots)

    torch.testing.assert_close(
        intervals.source_weight[0], torch.tensor([0.5, 0.5]).double(), rtol=0, atol=1e-4
    )


def test_simulations_for_the_volatility_count_particles_by_their_weights_and_do_not_grow() -> None:
    x = torch.randn(12, 1).double()
    weight = torch.full((12,), 1 / 12).double()
    twice, half = torch.cat([x, x]), torch.cat([weight, weight]) / 2
    uneven = torch.tensor([0.5, 0.5, *[0.0] * 10]).double()
    snapshots = Snapshots(
        [x, twice, x], [weight, half, uneven], [part.abs()[:, 0] for part in (x, twice, x)],
        torch.arange(3.0).double(), torch.zeros(3, dtype=torch.int64),
    )  # fmt: skip
    process = Process(Zero(), 1, False, True)

    found = simulated(process, Affine(), snapshots, 5)

    assert [len(part) for part in found.x] == [len(part) for part in found.weight] == [12, 12, 2]
    assert [part.tolist() for part in found.growth] == [[0.0] * 12, [0.0] * 12, [0.0] * 2]
    make_intervals(found)


def test_particles_that_are_listed_three_times_do_not_change_an_estimated_volatility() -> None:
    generator = np.random.default_rng(0)
    clouds = [generator.normal(place, 0.5, (15, 1)) for place in (0.0, 0.3, 0.6)]
    found = []
    for times in (1, 3):
        data = stack_snapshots([np.repeat(cloud, times, axis=0) for cloud in clouds], times=[0, 1, 2])
        model = SchrodingerBridge(1, "estimate", reference="OrnsteinUhlenbeck", num_simulations=3)
        model.fit(data, max_epochs=5, seed=0, enable_progress_bar=False)
        found.append(float(model.volatility_estimate["corrected"]))

    assert found[1] == pytest.approx(found[0], rel=1e-3)
