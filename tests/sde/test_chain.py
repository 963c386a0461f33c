"""The bridge through snapshots: against bridges between Gaussians, invariances and finite differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor, nn

import seqdyn.sde.chain as module
from seqdyn.errors import NonFiniteError
from seqdyn.metrics import wasserstein
from seqdyn.rng import fork_rng
from seqdyn.sde.bridge import GaussianBridge, gaussian_bridge
from seqdyn.sde.chain import Chain, Reference, gradient, objective
from seqdyn.sde.drifts import GradientField, Linear, LotkaVolterra, Zero
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.process import Process
from seqdyn.sde.sampling import systematic
from seqdyn.sde.solvers import Affine, Linearized
from seqdyn.sde.transition import Transition, affine_transition

MakeChain = Callable[..., Chain]
LEFT = ([-1.0, 0.0], [[1.0, 0.3], [0.3, 0.5]])
RIGHT = ([2.0, 1.0], [[0.4, -0.1], [-0.1, 0.9]])


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def nearest(x: Tensor, cloud: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest particle, exact where it is 0, and its number."""
    found = (x[:, None] - cloud).abs().amax(dim=2).min(dim=1)
    return found.values, found.indices


def linear(matrix: Any, offset: Any) -> Linear:
    drift = Linear(len(offset))
    with torch.no_grad():
        drift.matrix.copy_(tensor(matrix))
        drift.offset.copy_(tensor(offset))
    return drift


STILL = ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
TURNING = ([[-0.5, -1.5], [1.5, -0.5]], [0.2, 0.0])


def gaussian(mean: Any, covariance: Any, count: int) -> Tensor:
    """A cloud with exactly this mean and covariance, so that only its shape is left to chance."""
    x = torch.randn(count, len(mean), dtype=torch.float64)
    x = x - x.mean(dim=0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.mT @ x / count)).mT
    return x @ torch.linalg.cholesky(tensor(covariance)).mT + tensor(mean)


def plane(matrix: Any, offset: Any) -> GaussianBridge:
    """The bridge between LEFT and RIGHT."""
    ends = [tensor(part) for part in (*LEFT, *RIGHT)]
    return gaussian_bridge(*ends, tensor(matrix), tensor(offset), 0.8, 2.0)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=0), torch.cov(x.mT)


def cross_covariance(chain: Chain, index: int = 0) -> Tensor:
    plan, intervals = chain.plan(index), chain.intervals
    a, b = intervals.source[index], intervals.target[index]
    a = a - intervals.source_weight[index] @ a
    return a.mT @ plan @ (b - intervals.target_weight[index] @ b)


# Against closed forms
# ------------------------------------------------------------------------------------------------------


def test_a_brownian_bridge_in_one_dimension(make_chain: MakeChain) -> None:
    clouds = [torch.randn(1000, 1, dtype=torch.float64) for _ in range(2)]

    chain = make_chain(Zero(), 1.0, clouds, [0.0, 1.0])
    middle = chain.sample(0, 10_000, tensor([0.5]))[0]

    # Four other pairs of clouds gave .604 to .627.
    assert float(cross_covariance(chain)) == pytest.approx((math.sqrt(5) - 1) / 2, abs=0.04)
    # Of 10,000 draws 5 standard errors, below one failure in a million, and .02 for the finite clouds.
    assert float(middle.var()) == pytest.approx(1.059017, abs=0.075 + 0.02)


@pytest.mark.parametrize("kind", ["affine", "linearized", "of the user"])
@pytest.mark.parametrize("law", [STILL, TURNING])
def test_bridges_in_the_plane(make_chain: MakeChain, user_drift: Any, kind: str, law: Any) -> None:
    clouds = [gaussian(*LEFT, 400), gaussian(*RIGHT, 400)]
    drift = user_drift(*law) if kind == "of the user" else linear(*law)
    solver = Affine() if kind == "affine" else Linearized(30)
    expected = plane(*law)

    chain = make_chain(drift, 0.8, clouds, [3.0, 5.0], solver)
    states = chain.sample(0, 4000, tensor([0.25, 0.5]))

    torch.testing.assert_close(cross_covariance(chain), expected.cross_covariance, rtol=0, atol=0.04)
    for x, time in zip(states, (0.5, 1.0), strict=True):
        mean, covariance = moments(x)
        # Standard errors of 4000 draws: .015 and .018; the coupling of 400 particles adds its own.
        torch.testing.assert_close(mean, expected.mean(time), rtol=0, atol=0.06)
        torch.testing.assert_close(covariance, expected.covariance(time), rtol=0, atol=0.09)


@pytest.mark.parametrize(("law", "count"), [(STILL, 4000), (TURNING, 20_000)])
def test_the_linearised_solver_agrees_with_the_exact_one(
    make_chain: MakeChain, user_drift: Any, law: Any, count: int
) -> None:
    """One hundred particles on each side: the same finite problem, solved in two ways."""
    clouds = [gaussian(*LEFT, 100), gaussian(*RIGHT, 100)]
    exact = make_chain(linear(*law), 0.8, clouds, [0.0, 2.0], Affine())
    found = make_chain(user_drift(*law), 0.8, clouds, [0.0, 2.0], Linearized(50))

    torch.testing.assert_close(found.plan(0), exact.plan(0), rtol=0, atol=2e-5)
    assert float(found.value[0]) == pytest.approx(float(exact.value[0]), abs=1e-2)
    means, covariances = [], []
    for chain in (found, exact):
        with fork_rng(0):  # the same pairs; only the noise between them is drawn apart
            mean, covariance = moments(chain.sample(0, count, tensor([0.5]))[0])
        means.append(mean)
        covariances.append(covariance)
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=0.03)
    # An entry off the diagonal may be smaller than its standard error, so that all are relative to the
    # standard deviations.
    scale = covariances[1].diagonal().sqrt()
    assert float(((covariances[0] - covariances[1]) / (scale[:, None] * scale)).abs().max()) < 0.05


def test_the_divergence_of_gaussian_clouds_is_that_of_their_laws(make_chain: MakeChain) -> None:
    # L counts the entropy of the coupling against the product of finite clouds; the closed form that against
    # the transition: they differ by the entropy of the end, whatever the reference.
    clouds = [gaussian(*LEFT, 1500), gaussian(*RIGHT, 1500)]
    entropy = float(torch.distributions.MultivariateNormal(tensor(RIGHT[0]), tensor(RIGHT[1])).entropy())

    for law in (STILL, TURNING):
        chain = make_chain(linear(*law), 0.8, clouds, [0.0, 2.0], Affine())
        assert float(chain.value[0]) == pytest.approx(plane(*law).kl + entropy, abs=0.05)


def test_the_drift_of_the_bridge_is_that_of_the_gaussian_bridge(make_chain: MakeChain) -> None:
    r"""In closed form it is the pinned drift towards the mean of the end given the state, E[X_1 | X_t]."""
    clouds, time, duration = [gaussian(*LEFT, 800), gaussian(*RIGHT, 800)], 1.2, 2.0
    chain = make_chain(linear(*TURNING), 0.8, clouds, [0.0, duration], Affine())
    bridge = plane(*TURNING)
    # Cov(X_t, X_1) = U Cov(x_0, x_1) + V Cov(x_1).
    from_start, from_end, _, _ = bridge._pinned(time)
    both = from_start @ bridge.cross_covariance + from_end @ bridge.cov1
    states = gaussian(bridge.mean(time), bridge.covariance(time), 20)
    ends = bridge.mean1 + (states - bridge.mean(time)) @ torch.linalg.solve(bridge.covariance(time), both)
    noise = 0.64 * torch.eye(2, dtype=torch.float64)
    left = affine_transition(tensor(TURNING[0]), tensor(TURNING[1]), noise, tensor(duration - time))
    missing = ends - states @ left.matrix.mT - left.offset
    expected = states @ tensor(TURNING[0]).mT + tensor(TURNING[1])
    expected = expected + missing @ torch.linalg.solve(left.covariance, left.matrix) @ noise

    found = chain.drift(0, states, time)

    # What is found knows 800 particles, not their law.
    assert float((found - expected).abs().mean()) < 0.1
    assert float((found - expected).abs().mean()) < 0.1 * float(
        (expected - expected.mean(dim=0)).abs().mean()
    )


@pytest.mark.parametrize("solver", [Affine(), Linearized(40)], ids=["affine", "linearized"])
def test_the_drift_carries_one_snapshot_into_the_next(make_chain: MakeChain, solver: Any) -> None:
    clouds = [gaussian(*LEFT, 150), gaussian(*RIGHT, 150)]
    chain = make_chain(linear(*TURNING), 0.8, clouds, [1.0, 3.0], solver)
    x, steps = clouds[0].repeat(3, 1), 60
    for step in range(steps):
        h = 2.0 / steps
        x = x + h * chain.drift(0, x, 1.0 + step * h) + 0.8 * math.sqrt(h) * torch.randn_like(x)

    # Euler's last step leaves noise 0.8 sqrt(h) = .15 around the particles of the second snapshot.
    assert wasserstein(x.numpy(), clouds[1].numpy()) < 0.35
    mean, covariance = moments(x)
    torch.testing.assert_close(mean, tensor(RIGHT[0]), rtol=0, atol=0.12)
    torch.testing.assert_close(covariance, tensor(RIGHT[1]), rtol=0, atol=0.2)


@pytest.mark.parametrize("solver", [Affine(), Linearized(40)], ids=["affine", "linearized"])
def test_the_drift_is_the_mean_velocity_of_the_paths(make_chain: MakeChain, solver: Any) -> None:
    """Mean of b* over the marginal = rate at which the mean of the paths moves."""
    clouds = [gaussian(*LEFT, 200), gaussian(*RIGHT, 200)]
    chain = make_chain(linear(*TURNING), 0.8, clouds, [0.0, 2.0], solver)
    states = chain.sample(0, 4000, tensor([0.49, 0.5, 0.51]))

    rate = (plane(*TURNING).mean(1.02) - plane(*TURNING).mean(0.98)) / 0.04
    found = chain.drift(0, states[1], 1.0).mean(dim=0)

    torch.testing.assert_close(found, rate, rtol=0, atol=0.1)


@pytest.mark.parametrize("solver", [Affine(), Linearized(10)], ids=["affine", "linearized"])
def test_the_drift_knows_the_weights_of_the_targets(make_intervals_of: Any, solver: Any) -> None:
    """A particle of double weight pulls like two; padding and particles without weight not at all."""
    clouds = [torch.randn(n, 2, dtype=torch.float64) for n in (6, 4, 9)]
    weights = [torch.full((len(x),), 1 / len(x), dtype=torch.float64) for x in clouds]
    weights[1] = tensor([0.4, 0.4, 0.2, 0.0])
    twice = [clouds[0], clouds[1][[0, 0, 1, 1, 2]], clouds[2]]
    reference = Reference(linear(*TURNING), 0.49 * torch.eye(2).double(), solver)
    chain = Chain(reference, make_intervals_of(clouds, [0.0, 1.0, 2.0], weights))
    other = Chain(reference, make_intervals_of(twice, [0.0, 1.0, 2.0]))
    x = torch.randn(7, 2, dtype=torch.float64)

    torch.testing.assert_close(chain.drift(0, x, 0.6), other.drift(0, x, 0.6), rtol=0, atol=1e-7)


# Ends
# ------------------------------------------------------------------------------------------------------


@pytest.fixture
def predators() -> list[Tensor]:
    """Clouds of unequal sizes along a curve."""
    centres = [(5.0, 4.0), (2.0, 4.5), (1.0, 2.0), (2.5, 0.8)]
    sizes = (30, 45, 25, 40)
    return [
        tensor(centre) + 0.2 * torch.randn(n, 2, dtype=torch.float64)
        for centre, n in zip(centres, sizes, strict=True)
    ]


TIMES = [0.0, 0.7, 1.9, 3.0]


def known_drift() -> LotkaVolterra:
    return LotkaVolterra(1.0, 0.4, 0.4, 0.1)


def test_paths_visit_particles_at_the_snapshots(make_chain: MakeChain, predators: list[Tensor]) -> None:
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    ends = [tensor([0.0, 1.0])] * 3

    states = chain.walk([0, 1, 2], 500, ends)

    for index, (begin, end) in enumerate(states):
        for x, cloud in ((begin, predators[index]), (end, predators[index + 1])):
            assert float(nearest(x, cloud)[0].max()) == 0
            # Closer to the snapshot than a bootstrap of it, which has as many particles as the snapshot.
            resampled = cloud[torch.randint(len(cloud), (len(cloud),))]
            assert wasserstein(x.numpy(), cloud.numpy()) < wasserstein(resampled.numpy(), cloud.numpy())
    assert torch.equal(states[0][1], states[1][0]) and torch.equal(states[1][1], states[2][0])


def test_past_and_future_are_independent_given_the_snapshot(make_chain: MakeChain) -> None:
    sizes, count = (5, 6, 4), 20_000
    clouds = [torch.randn(n, 2, dtype=torch.float64) for n in sizes]
    chain = make_chain(Zero(), 0.7, clouds, [0.0, 1.0, 2.0], Affine())
    states = chain.walk([0, 1], count, [tensor([0.0, 1.0]), tensor([1.0])])
    visits = zip((states[0][0], states[0][1], states[1][0]), clouds, strict=True)
    numbers = tuple(nearest(x, cloud)[1] for x, cloud in visits)
    joint = torch.zeros(sizes, dtype=torch.float64)
    joint.index_put_(numbers, torch.full((count,), 1 / count, dtype=torch.float64), accumulate=True)

    first, second = chain.plan(0)[:5, :6], chain.plan(1)[:6, :4]
    expected = first[:, :, None] * second[None] * 6

    # Mean sum of absolute errors of so many independent draws; even ones do better.
    scale = float((2 * expected / (math.pi * count)).sqrt().sum())
    assert float((joint - expected).abs().sum()) < 1.2 * scale
    # It could tell: a chain that forgets where it came from, or does not, is many times as far.
    forgetful = expected.sum(dim=2, keepdim=True) * expected.sum(dim=(0, 1))
    assert float((expected - forgetful).abs().sum()) > 5 * scale


def test_pairs_and_walks_have_the_same_marginals(make_chain: MakeChain, predators: list[Tensor]) -> None:
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    middle = tensor([0.5])

    alone = [chain.sample(index, 1000, middle)[0] for index in range(3)]
    walked = [states[0] for states in chain.walk([0, 1, 2], 1000, [middle] * 3)]

    for x, y in zip(alone, walked, strict=True):
        again = torch.cat([x[::2], y[::2]])
        floor = wasserstein(again[::2].numpy(), again[1::2].numpy())
        assert wasserstein(x.numpy(), y.numpy()) < 2 * floor


def test_the_bridge_runs_backwards_as_it_does_forwards(make_chain: MakeChain) -> None:
    """Brownian motion is reversible: the chain through the snapshots in reverse is the same process."""
    clouds = [gaussian(*LEFT, 60), gaussian(*RIGHT, 80), gaussian([0.0, -1.0], LEFT[1], 50)]
    forward = make_chain(Zero(), 0.8, clouds, [0.0, 1.0, 3.0], Affine())
    backward = make_chain(Zero(), 0.8, clouds[::-1], [0.0, 2.0, 3.0], Affine())

    torch.testing.assert_close(forward.plan(0)[:60, :80], backward.plan(1)[:80, :60].mT, rtol=0, atol=1e-9)
    torch.testing.assert_close(forward.value, backward.value.flip(0), rtol=1e-8, atol=0)
    x, y = forward.sample(1, 1000, tensor([0.3]))[0], backward.sample(0, 1000, tensor([0.7]))[0]
    again = forward.sample(1, 1000, tensor([0.3]))[0]
    assert wasserstein(x.numpy(), y.numpy()) < 2 * wasserstein(x.numpy(), again.numpy())


def test_particles_are_drawn_with_their_weights(make_intervals_of: Any) -> None:
    clouds = [torch.randn(6, 2, dtype=torch.float64) for _ in range(2)]
    weights = [tensor([0.0, 0.1, 0.4, 0.2, 0.3, 0.0]), tensor([0.5, 0.0, 0.1, 0.1, 0.1, 0.2])]
    intervals = make_intervals_of(clouds, [0.0, 1.0], weights)
    chain = Chain(Reference(Zero(), torch.eye(2).double(), Affine()), intervals)

    begin, end = chain.sample(0, 1000, tensor([0.0, 1.0]))

    for x, cloud, weight in ((begin, clouds[0], weights[0]), (end, clouds[1], weights[1])):
        shares = torch.bincount(torch.cdist(x, cloud).argmin(dim=1), minlength=6).double() / 1000
        torch.testing.assert_close(shares, weight, rtol=0, atol=0.021)
        assert (shares[weight == 0] == 0).all()


def test_systematic_draws_are_within_one_of_what_is_expected_and_unbiased() -> None:
    weights = tensor([0.05, 0.0, 0.3, 0.25, 0.4, 0.0])

    counts = torch.stack([torch.bincount(systematic(weights, 7), minlength=6) for _ in range(4000)]).double()

    assert ((counts - 7 * weights).abs() < 1).all()
    # Standard error of a mean of 4000 counts with variance below 1/4: .008.
    torch.testing.assert_close(counts.mean(dim=0), 7 * weights, rtol=0, atol=0.04)
    assert (counts[:, [1, 5]] == 0).all()


# Invariances
# ------------------------------------------------------------------------------------------------------


def test_a_snapshot_twice_over_changes_nothing(make_chain: MakeChain, predators: list[Tensor]) -> None:
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    doubled = [predators[0], predators[1].repeat(2, 1), *predators[2:]]
    twice = make_chain(known_drift(), 0.3, doubled, TIMES)

    torch.testing.assert_close(twice.value, chain.value, rtol=0, atol=1e-6)
    for index, plan in ((0, twice.plan(0)[:, :45] + twice.plan(0)[:, 45:90]),
                        (1, twice.plan(1)[:45] + twice.plan(1)[45:90])):  # fmt: skip
        expected = chain.plan(index)
        n, m = len(predators[index]), len(predators[index + 1])
        torch.testing.assert_close(plan[:n, :m], expected[:n, :m], rtol=0, atol=1e-6)


def test_the_order_of_particles_changes_nothing(make_chain: MakeChain, predators: list[Tensor]) -> None:
    orders = [torch.randperm(len(x)) for x in predators]
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    permuted = make_chain(known_drift(), 0.3, [x[i] for x, i in zip(predators, orders, strict=True)], TIMES)

    torch.testing.assert_close(permuted.value, chain.value, rtol=0, atol=1e-6)
    for k in range(3):
        n, m = len(predators[k]), len(predators[k + 1])
        expected = chain.plan(k)[:n, :m][orders[k]][:, orders[k + 1]]
        torch.testing.assert_close(permuted.plan(k)[:n, :m], expected, rtol=0, atol=1e-6)


def test_another_unit_of_time_changes_nothing(make_chain: MakeChain, predators: list[Tensor]) -> None:
    factor = 60.0
    slower = LotkaVolterra(*(value / factor for value in (1.0, 0.4, 0.4, 0.1)))

    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    other = make_chain(slower, 0.3 / math.sqrt(factor), predators, [factor * t for t in TIMES])

    for k in range(3):
        torch.testing.assert_close(other.plan(k), chain.plan(k), rtol=0, atol=1e-6)
    torch.testing.assert_close(other.value, chain.value, rtol=0, atol=1e-6)
    x = predators[1][:5]
    torch.testing.assert_close(factor * other.drift(1, x, 60.0), chain.drift(1, x, 1.0), rtol=1e-6, atol=1e-6)


def test_another_origin_of_time_changes_nothing(make_chain: MakeChain, predators: list[Tensor]) -> None:
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    later = make_chain(known_drift(), 0.3, predators, [1000 + t for t in TIMES])

    torch.testing.assert_close(later.value, chain.value, rtol=0, atol=1e-6)
    torch.testing.assert_close(later.plan(1), chain.plan(1), rtol=0, atol=1e-6)


def test_another_unit_of_length_moves_the_divergence_by_its_logarithm(
    make_chain: MakeChain, predators: list[Tensor]
) -> None:
    chain = make_chain(Zero(), 0.3, predators, TIMES)
    other = make_chain(Zero(), 3.0, [10 * x for x in predators], TIMES)

    torch.testing.assert_close(other.value, chain.value + 2 * math.log(10), rtol=0, atol=1e-6)
    torch.testing.assert_close(other.plan(2), chain.plan(2), rtol=0, atol=1e-6)


def test_a_drift_that_depends_on_time_is_asked_at_the_times_of_the_intervals(make_chain: MakeChain) -> None:
    class Wind(nn.Module):
        def forward(self, x: Tensor, t: Any) -> Tensor:
            return torch.as_tensor(t, dtype=x.dtype).expand(x[..., :1].shape).expand(x.shape)

    # Carried by the wind t from 2 to 5: exactly (25 - 4) / 2, whatever the interval.
    clouds = [torch.randn(20, 2, dtype=torch.float64) for _ in range(3)]
    moved = [clouds[0], clouds[1] + (9 - 4) / 2, clouds[2] + (25 - 4) / 2]

    chain = make_chain(Wind(), 0.5, moved, [2.0, 3.0, 5.0])
    still = make_chain(Zero(), 0.5, clouds, [2.0, 3.0, 5.0])

    for k in range(2):
        torch.testing.assert_close(chain.plan(k), still.plan(k), rtol=0, atol=1e-9)
    x = torch.randn(4, 2, dtype=torch.float64)
    drift = chain.drift(1, x + (16 - 4) / 2, 4.0)
    torch.testing.assert_close(drift, still.drift(1, x, 4.0) + 4, rtol=0, atol=1e-8)


def test_many_intervals_at_once_are_each_alone(
    make_chain: MakeChain, predators: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = make_chain(known_drift(), 0.3, predators, TIMES)
    reference, intervals = together.reference, together.intervals
    value, coupling = objective(reference, intervals, None)
    monkeypatch.setattr(module, "_ENTRIES", 1)  # no room for two

    alone = make_chain(known_drift(), 0.3, predators, TIMES)
    torch.testing.assert_close(alone.value, together.value, rtol=0, atol=1e-8)
    for k in range(3):
        torch.testing.assert_close(alone.plan(k), together.plan(k), rtol=0, atol=1e-9)
    again, others = objective(reference, intervals, together.coupling.g)
    assert float(again.detach()) == pytest.approx(float(value.detach()), abs=1e-8)
    torch.testing.assert_close(others.error, coupling.error, rtol=0, atol=1e-8)


# In bounded memory
# ------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A drift that remembers the most states it was asked for at once."""

    def __init__(self, drift: nn.Module) -> None:
        super().__init__()
        self.drift, self.most = drift, 0

    def forward(self, x: Tensor, t: Any) -> Tensor:
        self.most = max(self.most, x[..., 0].numel())
        return self.drift(x, t)


def test_a_drift_sees_a_bounded_number_of_states_at_once(make_intervals_of: Any) -> None:
    drift = Watched(Linear(2))
    intervals = make_intervals_of([torch.randn(300, 2).double() for _ in range(3)], [0.0, 1.0, 2.0])

    chain = Chain(Reference(drift, torch.eye(2).double(), Linearized(30)), intervals)
    chain.sample(0, 500, tensor([0.5]))
    chain.paths(200, 30)

    assert 4900 < drift.most <= 5000  # of 18,000 states of all sources, and 15,000 and 12,000 of all paths


def test_parts_of_the_states_give_what_all_of_them_give(
    predators: list[Tensor], make_intervals_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = make_intervals_of(predators, TIMES)

    def found() -> list[Tensor]:
        with fork_rng(0):
            chain = Chain(Reference(known_drift(), 0.09 * torch.eye(2).double(), Linearized(20)), intervals)
            drawn = [chain.sample(1, 40, tensor([0.3, 1.0])), *chain.paths(15, 20)]
        return [*chain.transitions, chain.value, *drawn]

    whole = found()
    monkeypatch.setattr("seqdyn.sde.transition._COORDINATES", 480)  # of four sources in 60 steps

    for part, expected in zip(found(), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-9)

    monkeypatch.setattr(module, "_MATRICES", 4 * 20 * 12)  # of twelve sources in all, and as many paths
    apart = found()
    for part, expected in zip(apart[:4], whole[:4], strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-9)
    for part, expected in zip(apart[4:], whole[4:], strict=True):  # whose noise is drawn in another order
        assert part.shape == expected.shape and torch.isfinite(part).all()
    ends = predators[2]
    assert nearest(apart[4][1], ends)[0].max() == 0


class Counting(Linearized):
    """A solver that remembers of how many sources it followed derivatives at once."""

    def transitions(self, drift: nn.Module, noise: Tensor, intervals: Intervals) -> Transition:
        if torch.is_grad_enabled():
            self.most = max(getattr(self, "most", 0), intervals.source.shape[1])
        return super().transitions(drift, noise, intervals)


def test_derivatives_of_a_network_are_followed_from_fewer_states(make_intervals_of: Any) -> None:
    """Each takes about 100 kB; those of a drift with few parameters a hundredth of it."""
    intervals = make_intervals_of([torch.randn(40, 2).double() for _ in range(2)], [0.0, 1.0])
    for hidden, expected in (((8,), 40), ((16, 16), 20)):
        drift, solver = GradientField(2, hidden), Counting(50)
        reference = Reference(drift, torch.eye(2).double(), solver)
        gradient(reference, intervals, None, list(drift.parameters()))
        assert solver.most == expected


# The objective's gradient
# ------------------------------------------------------------------------------------------------------


def process_of(drift: nn.Module, volatility: float, *, log: bool = False) -> Process:
    process = Process(drift, 2, log, learn_volatility=True)
    process.volatility.copy_(volatility * torch.eye(2))
    return process


@pytest.mark.parametrize(
    ("drift", "solver", "log"),
    [
        (LotkaVolterra(0.9, 0.35, 0.5, 0.12), Linearized(20), False),
        (LotkaVolterra(0.9, 0.35, 0.5, 0.12), Linearized(20), True),
        (linear([[-0.3, -0.5], [0.4, -0.2]], [0.4, 0.3]), Affine(), False),
        (linear([[-0.3, -0.5], [0.4, -0.2]], [0.4, 0.3]), Linearized(20), False),
    ],
    ids=["predators", "predators, proportional noise", "linear, exact", "linear"],
)
def test_the_gradient_of_the_divergence_is_that_of_finite_differences(
    make_intervals_of: Any, predators: list[Tensor], drift: nn.Module, solver: Any, log: bool
) -> None:
    process = process_of(copy.deepcopy(drift), 0.25, log=log)
    intervals = make_intervals_of([x.log() if log else x for x in predators], TIMES)

    value, _ = objective(process.reference(solver, frozen=False), intervals, None)
    found = torch.autograd.grad(value, list(process.parameters()))

    def at(parameter: nn.Parameter, index: tuple[int, ...], shift: float) -> float:
        with torch.no_grad():
            before = parameter[index].clone()
            parameter[index] += shift
            chain = Chain(process.reference(solver), intervals)
            parameter[index] = before
        return float(chain.value.sum())

    assert float(value.detach()) == pytest.approx(at(process.log_factor, (), 0.0), abs=1e-7)
    for parameter, slopes in zip(process.parameters(), found, strict=True):
        for index in np.ndindex(*parameter.shape):
            step = 1e-4
            slope = (at(parameter, index, step) - at(parameter, index, -step)) / (2 * step)
            assert float(slopes[index]) == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_the_divergence_is_no_larger_than_that_of_any_other_coupling(
    make_chain: MakeChain, predators: list[Tensor]
) -> None:
    chain = make_chain(known_drift(), 0.3, predators, TIMES)
    n, m = 30, 45
    cost = -chain.plan(0)[:n, :m].log() + chain.coupling.f[0, :n, None] + chain.coupling.g[0, :m]
    cost = cost - math.log(n * m)  # -log(a b)
    exact = torch.from_numpy(ot.emd([], [], cost.numpy()))
    product = torch.full((n, m), 1 / (n * m), dtype=torch.float64)
    for other in (exact, product, (exact + product) / 2):
        value = (other * cost).sum() + torch.special.xlogy(other, other * n * m).sum()
        assert float(value) > float(chain.value[0])


# What has no bridge
# ------------------------------------------------------------------------------------------------------


class Explosive(nn.Module):
    def forward(self, x: Tensor, t: Any) -> Tensor:
        return 50 * x**3


@pytest.mark.filterwarnings("error")
def test_a_drift_that_runs_away_is_refused_with_the_interval(make_chain: MakeChain) -> None:
    clouds = [torch.zeros(5, 2, dtype=torch.float64), *(3 + torch.rand(5, 2).double() for _ in range(2))]

    with pytest.raises(NonFiniteError, match=r"no transition density from time 1 to 2.5: .*weaker drift"):
        make_chain(Explosive(), 0.5, clouds, [0.0, 1.0, 2.5])
