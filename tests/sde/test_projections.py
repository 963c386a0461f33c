"""Alternating half-bridges: against Gaussian bridges, the static solver and published snapshots.

Seeds are fixed. Tolerances are three standard errors or more of what few paths leave to chance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqdyn.datasets.population import lotka_volterra, ou_chain
from seqdyn.errors import NonFiniteError
from seqdyn.metrics import wasserstein
from seqdyn.rng import fork_rng
from seqdyn.sde.bridge import GaussianBridge, gaussian_bridge
from seqdyn.sde.chain import Chain, Reference
from seqdyn.sde.drifts import Linear, LotkaVolterra, Zero
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.noise import noise_covariance
from seqdyn.sde.process import Process
from seqdyn.sde.projections import ProjectedChain, Settings, project
from seqdyn.sde.refit import Refinement, refine, regress
from seqdyn.sde.regression import NetworkFit, get_parameters
from seqdyn.sde.solvers import Affine, Linearized, PairSolver

MakeIntervals = Callable[..., Intervals]
MIDDLE = torch.tensor([0.5], dtype=torch.float64)
TRUTH = (1.0, 0.4, 0.4, 0.1)


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def solve(
    drift: nn.Module,
    volatility: Any,
    intervals: Intervals,
    solver: PairSolver | None = None,
    seed: int = 0,
    **options: Any,
) -> ProjectedChain:
    solver = Affine() if solver is None else solver
    noise = noise_covariance(volatility, intervals.source.shape[-1], intervals.source)
    start = options.pop("start", None)
    return project(Reference(drift, noise, solver), intervals, Settings(**options), seed=seed, start=start)


def draw(chain: ProjectedChain, index: int, fractions: object, count: int = 4000, seed: int = 1) -> Tensor:
    with fork_rng(seed):
        return chain.sample(index, count, torch.as_tensor(fractions).to(chain.intervals.start))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=0), torch.cov(x.mT, correction=0)


def assert_covariances_within(share: float, found: Tensor, expected: Tensor) -> None:
    """All entries, relative to the standard deviations: an entry may be near zero by itself."""
    scale = expected.diagonal().sqrt()
    assert float(((found - expected) / (scale[:, None] * scale)).abs().max()) < share


def two_clouds(seed: int, count: int = 100) -> list[Tensor]:
    """The two Gaussians of the specification."""
    with fork_rng(seed):
        x, y = torch.randn(2, count, 2, dtype=torch.float64)
    left, right = tensor([[1, 0.3], [0.3, 0.5]]), tensor([[0.4, -0.1], [-0.1, 0.9]])
    return [
        x @ torch.linalg.cholesky(left).mT + tensor([-1, 0]),
        y @ torch.linalg.cholesky(right).mT + tensor([2, 1]),
    ]


def exact(clouds: list[Tensor], matrix: Tensor, offset: Tensor) -> GaussianBridge:
    return gaussian_bridge(*moments(clouds[0]), *moments(clouds[1]), matrix, offset, 0.8, 2.0)


def ends(chain: ProjectedChain, count: int = 4000) -> Tensor:
    """Where the forward process arrives in the first interval, (N, C)."""
    with fork_rng(2):
        x = chain.intervals.source[:1].repeat(1, count // chain.intervals.source.shape[1], 1)
        return chain.forward.run(x, torch.linspace(0, 1, chain.settings.num_steps + 1).to(x))[-1, 0]


STILL = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


# Gaussians
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_two_gaussians(make_intervals_of: MakeIntervals, seed: int) -> None:
    clouds = two_clouds(seed)
    bridge = exact(clouds, *STILL)
    chain = solve(Zero(), 0.8, make_intervals_of(clouds, [0.0, 2.0]), num_projections=5, num_steps=20)

    mean, covariance = moments(ends(chain))
    torch.testing.assert_close(mean, bridge.mean1, rtol=0, atol=0.1)
    assert_covariances_within(0.2, covariance, bridge.cov1)
    mean, covariance = moments(draw(chain, 0, [0.5])[0])
    torch.testing.assert_close(mean, bridge.mean(1.0), rtol=0, atol=0.1)
    torch.testing.assert_close(covariance, bridge.covariance(1.0), rtol=0, atol=0.15)
    assert chain.is_solved and chain.error.max() < 0.1


def test_the_reference_is_not_forgotten_over_the_projections(make_intervals_of: MakeIntervals) -> None:
    clouds = two_clouds(0)
    bridge = exact(clouds, *STILL)

    def miss(num_projections: int, *, refill: bool) -> float:
        intervals = make_intervals_of(clouds, [0.0, 2.0])
        options = {"num_projections": num_projections, "num_steps": 10, "num_paths": 200}
        chain = solve(Zero(), 0.8, intervals, refill=refill, **options)
        return float((draw(chain, 0, [0.5])[0].mean(dim=0) - bridge.mean(1.0)).norm())

    # The published form keeps the ends and loses the middle. With 400 paths and 1, 5, 10, 15 projections its
    # mean is off by .28 .28 .36 .48 and the first variance .78 .98 1.03 1.05, where .79 is right; ours are
    # off by .01 .03 .02 .04, and .79 .79 .76 .77 (means of three seeds).
    # Here, in four seeds: .02 to .13, and .25 to .66.
    assert all(miss(count, refill=True) < 0.15 for count in (1, 15))
    assert miss(15, refill=False) > 0.2


def test_a_rotating_reference(make_intervals_of: MakeIntervals) -> None:
    drift = Linear(2)
    with torch.no_grad():
        drift.matrix.copy_(tensor([[-0.5, -1.5], [1.5, -0.5]]))
        drift.offset.copy_(tensor([0.2, 0.0]))
    clouds = two_clouds(0)
    bridge = exact(clouds, drift.matrix.detach(), drift.offset.detach())

    chain = solve(drift, 0.8, make_intervals_of(clouds, [0.0, 2.0]), num_projections=5)

    for fraction in (0.25, 0.5):
        mean, covariance = moments(draw(chain, 0, [fraction])[0])
        torch.testing.assert_close(mean, bridge.mean(2 * fraction), rtol=0, atol=0.1)
        torch.testing.assert_close(covariance, bridge.covariance(2 * fraction), rtol=0, atol=0.15)


def test_the_relative_entropy_is_that_of_the_gaussian_bridge(make_intervals_of: MakeIntervals) -> None:
    clouds = two_clouds(0, 400)
    bridge = exact(clouds, *STILL)

    chain = solve(Zero(), 0.8, make_intervals_of(clouds, [0.0, 2.0]), num_projections=5, num_steps=20)

    # With 400 paths the three affine coefficients of each of 20 steps add half of 20 * 2 * 3 / 400.
    assert bridge.kl > 2
    assert 0 < float(chain.value[0]) - bridge.kl < 0.5


def test_the_forward_drift_of_a_brownian_bridge(make_intervals_of: MakeIntervals) -> None:
    # From a point at 0 to a standard normal cloud in unit time and noise: Brownian motion, without a drift.
    with fork_rng(0):
        y = torch.randn(1000, 1, dtype=torch.float64)
    y = (y - y.mean()) / y.std()
    intervals = make_intervals_of([torch.zeros(1, 1, dtype=torch.float64), 2 + y], [3.0, 4.0])
    chain = solve(Zero(), 1.0, intervals, num_projections=3, num_paths=1000)

    found = chain.drift(0, tensor([[0.5], [1.0], [1.5]]), 3.5)

    # Shifted by 2 it has that drift, everywhere.
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=0, atol=0.3)


# Other problems
# ------------------------------------------------------------------------------------------------------


def test_groups_that_part(make_intervals_of: MakeIntervals) -> None:
    with fork_rng(0):
        x, y = torch.randn(2, 200, 2, dtype=torch.float64)
    groups = tensor([[-2.0, 0.0]] * 100 + [[2.0, 0.0]] * 100)
    intervals = make_intervals_of([0.3 * x, 0.2 * y + groups], [0.0, 1.0])
    chain = solve(Zero(), 1.0, intervals, num_projections=4)

    first = ends(chain)[:, 0]

    # An affine drift would leave a normal cloud, with two fifths of it between the groups.
    assert (first.abs() < 1).double().mean() < 0.1
    assert (first > 0).double().mean() == pytest.approx(0.5, abs=0.05)
    # Some paths stay between the groups: 1.85-1.87 and .48-.50 in four data sets, where 2 and .2 are right.
    assert first.abs().mean() == pytest.approx(2, abs=0.2) and first.abs().std() < 0.6


def test_far_snapshots_meet_where_more_noise_comes_first(make_intervals_of: MakeIntervals) -> None:
    snapshots = lotka_volterra(40, times=(0, 2, 4, 6, 8), seed=0)
    clouds = [torch.from_numpy(snapshots.x.values[snapshots.time.values == t]) for t in (6, 8)]
    intervals = make_intervals_of(clouds, [6.0, 8.0])
    options = {"num_projections": 4, "num_paths": 200, "num_steps": 25}

    cold = solve(Zero(), 0.1, intervals, anneal=False, **options)
    warm = solve(Zero(), 0.1, intervals, **options)

    # Four units to go, with noise of a seventh: the plain half-bridges do not get there, and say so.
    assert float(cold.error) > 1 and not cold.is_solved
    assert float(warm.error) < 0.3 and warm.is_solved
    with fork_rng(0):
        static = Chain(warm.reference, intervals).sample(0, 1000, MIDDLE)[0]
    distances = [
        wasserstein(draw(chain, 0, [0.5], 1000)[0].numpy(), static.numpy()) for chain in (warm, cold)
    ]
    assert distances[0] < 0.15 < 0.3 < distances[1]


class Push(nn.Module):
    """b(x, t) = a t."""

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return torch.zeros_like(x) + 3 * t


def test_a_reference_that_depends_on_time(make_intervals_of: MakeIntervals) -> None:
    # From time 1 to 2 the push is 4.5 and from 2 to 4 it is 18; the noise is known.
    with fork_rng(0):
        x = torch.randn(200, 1, dtype=torch.float64)
    clouds = [x, 2**0.5 * x + 4.5, 2 * x + 22.5]
    intervals = make_intervals_of(clouds, [1.0, 2.0, 4.0])
    chain = solve(Push(), 1.0, intervals, Linearized(20), num_projections=3, num_steps=20)

    # The reference makes these snapshots itself, so that there is next to nothing to learn.
    assert (chain.value < 0.5).all() and (chain.error < 0.2).all()
    assert draw(chain, 0, [0.5])[0].mean() == pytest.approx(1.5 * (1.5**2 - 1), abs=0.15)
    assert draw(chain, 1, [0.5])[0].mean() == pytest.approx(4.5 + 1.5 * (9 - 4), abs=0.2)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_published_predators_under_their_true_parameters(
    make_intervals_of: MakeIntervals, data_dir: Path, seed: int
) -> None:
    path = data_dir / "sbirr" / "LV_data.npy"
    if not path.is_file():
        pytest.skip("SEQDYN_DATA has no sbirr/LV_data.npy")
    snapshots = torch.from_numpy(np.load(path)).double()
    intervals = make_intervals_of(list(snapshots[::2]), [0.0, 2.0, 4.0, 6.0, 8.0])

    chain = solve(LotkaVolterra(*TRUTH), 0.1, intervals, Linearized(50), seed)

    found = [
        wasserstein(draw(chain, k, [0.5], 1000, seed)[0].numpy(), snapshots[2 * k + 1].numpy())
        for k in range(4)
    ]
    # Measured: .051-.055 .064-.070 .108-.112 .27-.29; the published form has .06 .16 .20 .31.
    assert (np.array(found) < [0.08, 0.1, 0.14, 0.33]).all(), found


def test_predators_under_their_true_parameters(make_intervals_of: MakeIntervals) -> None:
    snapshots = lotka_volterra(50, times=range(9), seed=1)
    clouds = [torch.from_numpy(snapshots.x.values[snapshots.time.values == t]) for t in range(9)]
    intervals = make_intervals_of(clouds[::2], [0.0, 2.0, 4.0, 6.0, 8.0])
    options = {"num_projections": 2, "num_steps": 25, "num_paths": 200}

    chain = solve(LotkaVolterra(*TRUTH), 0.1, intervals, Linearized(25), **options)

    static = Chain(chain.reference, intervals)
    with fork_rng(1):
        expected = [static.sample(k, 1000, MIDDLE)[0] for k in range(4)]
    found = [wasserstein(draw(chain, k, [0.5], 1000)[0].numpy(), x.numpy()) for k, x in enumerate(expected)]
    assert (np.array(found) < [0.06, 0.08, 0.1, 0.2]).all(), found
    # What the reference explains costs next to nothing.
    assert (chain.value < 4).all()


# Paths
# ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clouds() -> list[Tensor]:
    with fork_rng(0):
        x = torch.randn(3, 30, 2, dtype=torch.float64)
    return [x[0], x[1][:20] + 1, x[2] + 3]


@pytest.fixture
def chain(make_intervals_of: MakeIntervals, clouds: list[Tensor]) -> ProjectedChain:
    intervals = make_intervals_of(clouds, [0.0, 1.0, 3.0])
    return solve(Zero(), 0.7, intervals, num_projections=2, num_steps=10, num_paths=60, num_centres=20)


def hits(x: Tensor, cloud: Tensor) -> Tensor:
    return (x[:, None] == cloud).all(dim=2).any(dim=1)


def test_a_path_visits_a_particle_of_one_snapshot(chain: ProjectedChain, clouds: list[Tensor]) -> None:
    whole = tensor([0.0, 1.0])

    with fork_rng(0):
        first, second = chain.walk([0, 1], 31, [whole, whole])

    visited = torch.stack([hits(first[0], clouds[0]), hits(first[1], clouds[1]), hits(second[1], clouds[2])])
    assert visited.sum(dim=0).tolist() == [1] * 31
    assert visited.sum(dim=1).tolist() == [10, 10, 11]
    # One path on both sides of a snapshot.
    torch.testing.assert_close(first[1], second[0], rtol=0, atol=0)


def test_paths_are_continuous_and_of_the_size_asked_for(chain: ProjectedChain) -> None:
    fine = torch.linspace(0, 1, 201, dtype=torch.float64)

    with fork_rng(0):
        first, second = chain.walk([0, 1], 5, [fine, fine[:0]])
        alone = chain.walk([1], 1, [fine[::50]])[0]

    assert first.shape == (201, 5, 2) and second.shape == (0, 5, 2) and alone.shape == (5, 1, 2)
    # Steps of a two hundredth have standard deviations of a twentieth.
    steps = first.diff(dim=0)
    assert steps.abs().max() < 0.35
    assert steps.std() == pytest.approx(0.7 / 200**0.5, rel=0.1)


def test_times_between_steps_have_the_law_of_those_on_them(chain: ProjectedChain) -> None:
    on, between = draw(chain, 0, [0.5, 0.513])

    assert (moments(on)[0] - moments(between)[0]).norm() < 0.05
    torch.testing.assert_close(moments(on)[1], moments(between)[1], rtol=0.05, atol=0.03)


def test_shares_weight_the_sources(chain: ProjectedChain) -> None:
    share = torch.zeros(30, dtype=torch.float64)
    share[[3, 7]] = tensor([1.0, 3.0])

    with fork_rng(0):
        found = chain.sample(0, 100, tensor([0.0, 1.0]), share)[0]

    source = chain.intervals.source[0]
    assert (found == source[3]).all(dim=1).sum() == 25 and (found == source[7]).all(dim=1).sum() == 75


def test_the_drift_is_kept_when_the_reference_is_refitted(make_intervals_of: MakeIntervals) -> None:
    drift = Linear(2)
    chain = solve(drift, 0.7, make_intervals_of(two_clouds(0), [0.0, 2.0]), num_projections=1, num_steps=5)
    x = torch.randn(4, 2, dtype=torch.float64)
    before = chain.drift(0, x, 0.9), draw(chain, 0, [0.5])

    with torch.no_grad():
        drift.offset.add_(100.0)

    torch.testing.assert_close((chain.drift(0, x, 0.9), draw(chain, 0, [0.5])), before, rtol=0, atol=0)
    assert not before[0].requires_grad


def test_paths_for_a_regression(chain: ProjectedChain, clouds: list[Tensor]) -> None:
    with fork_rng(0):
        paths = chain.paths(41, 8)

    assert paths.states.shape == (8 * 2 * 41, 2) and paths.velocities.shape == paths.states.shape
    times = paths.times.reshape(8, 2, 41)
    torch.testing.assert_close(times[:, 0, 0], torch.arange(8).double() / 8)
    torch.testing.assert_close(times[:, 1, 0], 1 + torch.arange(8).double() / 4)
    assert paths.weights.sum() == pytest.approx(3 * 41)
    # On the average the velocities lead from one snapshot to the next.
    led = (paths.velocities * paths.weights[:, None]).reshape(8, 2, 41, 2).sum(dim=0).mean(dim=1)
    way = [after.mean(dim=0) - before.mean(dim=0) for before, after in pairwise(clouds)]
    torch.testing.assert_close(led, torch.stack(way), rtol=0, atol=0.4)


# The alternation
# ------------------------------------------------------------------------------------------------------


def process_of(drift: nn.Module, volatility: float, size: int) -> Process:
    process = Process(drift, size, log=False, learn_volatility=False)
    process.volatility.copy_(volatility * torch.eye(size))
    return process


def test_refits_lower_the_entropy_and_find_the_drift_that_made_the_data(
    make_intervals_of: MakeIntervals,
) -> None:
    data = ou_chain(300, times=(0, 0.5, 1, 2), seed=0)
    times = np.unique(data.time.values)
    clouds = [torch.from_numpy(data.x.values[data.time.values == t]) for t in times]
    intervals = make_intervals_of(clouds, times.tolist())
    volatility = float(data.attrs["volatility"])
    processes = [process_of(Linear(clouds[0].shape[1]), volatility, clouds[0].shape[1]) for _ in range(2)]

    found = solve(processes[0].drift, volatility, intervals, num_projections=2, num_paths=200, num_steps=10)
    expected: Chain = Chain(processes[1].reference(Affine()), intervals)
    values = [float(found.value.sum())]
    for _ in range(4):
        with fork_rng(0):
            found = regress(processes[0], Affine(), found, 200, 20, NetworkFit())
            expected = regress(processes[1], Affine(), expected, 200, 20, NetworkFit())
        values.append(float(found.value.sum()))

    assert values == sorted(values, reverse=True) and values[-1] < values[0] / 2
    ours, static = (get_parameters(process) for process in processes)
    np.testing.assert_allclose(ours, static, rtol=0, atol=0.1)
    assert np.abs(static).max() > 0.7


@pytest.mark.slow
def test_predators_from_no_knowledge(make_intervals_of: MakeIntervals) -> None:
    snapshots = lotka_volterra(50, times=(0, 2, 4, 6, 8), seed=0)
    clouds = [torch.from_numpy(snapshots.x.values[snapshots.time.values == t]) for t in (0, 2, 4, 6, 8)]
    intervals = make_intervals_of(clouds, [0.0, 2.0, 4.0, 6.0, 8.0])
    process, solver = process_of(LotkaVolterra(), 0.1, 2), Linearized(50)
    chain = solve(process.drift, 0.1, intervals, solver, num_projections=3, num_paths=200)
    values = [float(chain.value.sum())]

    for _ in range(6):
        with fork_rng(0):
            settings = Refinement(200, 50, 200, 1e-2, 0.0)
            chain, gain = refine(process, solver, chain, settings, regression=True)
        values.append(float(chain.value.sum()))

    assert values == sorted(values, reverse=True) and values[0] - values[1] > 800 and gain >= 0
    np.testing.assert_allclose(get_parameters(process), TRUTH, rtol=0.08)
    assert chain.is_solved


def test_starting_from_a_similar_bridge(make_intervals_of: MakeIntervals) -> None:
    intervals = make_intervals_of(two_clouds(0), [0.0, 2.0])
    options = {"num_steps": 20, "num_paths": 100}
    similar = solve(Zero(), 0.25, intervals, num_projections=4, **options)

    cold, warm = (
        solve(Zero(), 0.2, intervals, num_projections=1, anneal=False, start=start, **options)
        for start in (None, similar)
    )

    assert float(warm.error) < 0.4 < 1 < float(cold.error)
    # Not the similar one: less noise costs more.
    assert float(warm.value) == pytest.approx(float(similar.value) * (0.25 / 0.2) ** 2, rel=0.15)


# Invariances and what is refused
# ------------------------------------------------------------------------------------------------------


def test_a_particle_of_twice_the_weight_is_two_particles(make_intervals_of: MakeIntervals) -> None:
    x, y = two_clouds(0, 12)
    weights = [torch.full((12,), 1 / 12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)]
    weights[1][3] = 2
    weights[1] /= 13
    options = {"num_projections": 2, "num_steps": 5, "num_paths": 26}

    weighted = solve(Zero(), 1.0, make_intervals_of([x, y], [0.0, 1.0], weights), **options)
    doubled = solve(Zero(), 1.0, make_intervals_of([x, torch.cat([y[:4], y[3:]])], [0.0, 1.0]), **options)

    torch.testing.assert_close(weighted.error, doubled.error, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(draw(weighted, 0, [0.5], 26), draw(doubled, 0, [0.5], 26))


def test_seeds(make_intervals_of: MakeIntervals) -> None:
    intervals = make_intervals_of(two_clouds(0, 20), [0.0, 1.0])
    options = {"num_projections": 1, "num_steps": 5, "num_paths": 20}

    first, same, other = (solve(Zero(), 1.0, intervals, seed=seed, **options) for seed in (0, 0, 1))

    assert torch.equal(first.value, same.value) and not torch.equal(first.value, other.value)
    assert torch.equal(draw(first, 0, [0.3, 1.0]), draw(same, 0, [0.3, 1.0]))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first.again(first.reference)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [x[:1], x[1:2] + 1],
        lambda x: [x, x],
        lambda x: [x.repeat(2, 1), x + 1],
        lambda x: [torch.cat([x / 20 - 5, x / 20 + 5]), torch.cat([x / 20 - 4, x / 20 + 4])],
        lambda x: [x.repeat(1, 8), x.repeat(1, 8) + torch.randn(12, 16, dtype=torch.float64)],
    ],
    ids=["one particle", "identical", "duplicated", "apart", "more features than particles"],
)
def test_snapshots_of_odd_shapes(
    make_intervals_of: MakeIntervals, make: Callable[[Tensor], list[Tensor]]
) -> None:
    with fork_rng(0):
        clouds = make(torch.randn(12, 2, dtype=torch.float64))
    options = {"num_projections": 3, "num_steps": 20, "num_paths": 100}

    chain = solve(Zero(), 0.5, make_intervals_of(clouds, [0.0, 1.0]), **options)

    assert float(chain.error) < 0.3
    assert torch.isfinite(chain.value).all()
    wanted = (clouds[0].mean(dim=0) + clouds[1].mean(dim=0)) / 2
    assert (draw(chain, 0, [0.5])[0].mean(dim=0) - wanted).norm() < 0.1 * len(wanted) ** 0.5 + 0.1


def test_single_precision(make_intervals_of: MakeIntervals) -> None:
    whole = make_intervals_of(two_clouds(0), [0.0, 2.0])
    intervals = Intervals(*(part.float() for part in whole))
    chain = solve(Zero(), 0.8, intervals, num_projections=3, num_steps=20)

    middle = draw(chain, 0, [0.5])[0]

    assert middle.dtype == torch.float32 and chain.drift(0, middle, 1.0).dtype == torch.float32
    mean = exact(two_clouds(0), *STILL).mean(1.0)
    torch.testing.assert_close(middle.mean(dim=0).double(), mean, rtol=0, atol=0.15)


@pytest.mark.parametrize("name", ["num_projections", "num_steps", "num_paths", "num_centres"])
def test_numbers_out_of_range(make_intervals_of: MakeIntervals, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least"):
        solve(Zero(), 1.0, make_intervals_of(two_clouds(0), [0.0, 1.0]), **{name: 0})


def test_too_few_paths_for_the_coordinates(make_intervals_of: MakeIntervals) -> None:
    with pytest.raises(ValueError, match="at least 8, got 7; 2 coordinates need as many"):
        solve(Zero(), 1.0, make_intervals_of(two_clouds(0), [0.0, 1.0]), num_paths=7)


class Explosion(nn.Module):
    def forward(self, x: Tensor, t: Any) -> Tensor:
        return 50 * x**3


def test_a_reference_that_runs_away(make_intervals_of: MakeIntervals) -> None:
    clouds = two_clouds(0)
    intervals = make_intervals_of([clouds[0] / 1e3, clouds[0] / 1e3, clouds[1]], [0.0, 1e-3, 2.0])

    with pytest.raises(NonFiniteError, match="leave the finite numbers in interval 1.*raise the volatility"):
        solve(Explosion(), 0.8, intervals, Linearized(10), num_projections=1)


def test_a_copy_of_the_reference_is_kept_not_its_gradients(make_intervals_of: MakeIntervals) -> None:
    drift = Linear(2)
    chain = solve(drift, 1.0, make_intervals_of(two_clouds(0), [0.0, 1.0]), num_projections=1, num_steps=5)

    assert chain.reference.drift is drift and all(p.requires_grad for p in drift.parameters())
    assert not chain.value.requires_grad
    copied = copy.deepcopy(chain)
    torch.testing.assert_close(draw(copied, 0, [0.5]), draw(chain, 0, [0.5]))
