"""The penalty on a drift's slopes, and fits that mind it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seqdyn.sde.chain as chain_module
from seqdyn.sde.chain import Chain, gradient, objective
from seqdyn.sde.drifts import GradientField, Linear, LotkaVolterra, MLPDrift, OrnsteinUhlenbeck, Sum
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.lamperti import InLogCoordinates
from seqdyn.sde.process import Process
from seqdyn.sde.refit import Refinement, descend, refine
from seqdyn.sde.regression import fit_drift, get_parameters, set_parameters
from seqdyn.sde.roughness import has_ridge, on_snapshots, penalty
from seqdyn.sde.solvers import Affine, Linearized

MakeIntervals = Callable[..., Intervals]
MATRIX = torch.tensor([[-0.5, 1.5], [0.2, -0.3]], dtype=torch.float64)
NOISE = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)


def linear(ridge: float, matrix: Tensor = MATRIX) -> Linear:
    drift = Linear(len(matrix), ridge)
    with torch.no_grad():
        drift.matrix.copy_(matrix)
    return drift


def states(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """States of unequal spread, their times and weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 3.0]) + 5
    weight = torch.rand(count, dtype=torch.float64, generator=generator)
    return x.double(), torch.zeros(count, 1, dtype=torch.float64), weight


def clouds() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shifts = torch.tensor([[0.0, 2.0], [1.5, 1.0], [1.0, -1.0]], dtype=torch.float64)
    return [torch.randn(n, 2, dtype=torch.float64, generator=generator) / 3 + s
            for n, s in zip((12, 9, 11), shifts, strict=True)]  # fmt: skip


def process_of(drift: nn.Module, volatility: float = 0.4) -> Process:
    process = Process(drift, 2, log=False, learn_volatility=False)
    process.volatility.mul_(volatility)
    return process


def total(process: Process, chain: Chain) -> float:
    more = on_snapshots(process.drift, chain.reference.noise, chain.intervals)
    return float(chain.value.sum() + more)


def test_the_penalty_of_a_linear_drift_is_a_ridge_on_standardised_slopes() -> None:
    x, t, weight = states()
    spread = np.sqrt(np.diag(np.cov(x.numpy().T, aweights=weight.numpy(), ddof=0)))
    slopes = MATRIX.numpy() * spread
    expected = 0.3 / 2 * float(weight.sum()) * np.trace(slopes.T @ np.linalg.inv(NOISE.numpy()) @ slopes)

    assert float(penalty(linear(0.3), x, t, weight, NOISE)) == pytest.approx(expected, rel=1e-12)
    assert float(penalty(linear(0.0), x, t, weight, NOISE)) == 0
    assert has_ridge(linear(0.3)) and not has_ridge(linear(0.0)) and not has_ridge(LotkaVolterra())


def test_a_linear_drift_and_the_same_formula_without_closed_form_are_penalised_alike(
    user_drift: type[nn.Module],
) -> None:
    known, unknown = linear(0.3), user_drift(MATRIX, [0.0, 0.0])
    unknown.ridge = 0.3

    torch.testing.assert_close(penalty(unknown, *states(), NOISE), penalty(known, *states(), NOISE))


@pytest.mark.parametrize("family", [Linear, OrnsteinUhlenbeck])
def test_a_closed_form_of_the_regression_has_the_same_penalty(family: type[Linear]) -> None:
    x, t, weight = states()
    target = torch.sin(x)
    found = family(2, ridge=0.2)

    found.solve(x, t, target, weight)

    def loss(drift: Linear) -> Tensor:  # in a noise that is a multiple of one, so that it does not matter
        misfit = weight @ (drift(x, t) - target).square().sum(dim=1) / 2
        return misfit + penalty(drift, x, t, weight, torch.eye(2, dtype=torch.float64))

    slopes = torch.autograd.grad(loss(found), list(found.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-9
    assert max(float(p.detach().abs().max()) for p in found.parameters()) > 0.1


def test_the_penalty_does_not_depend_on_units() -> None:
    x, t, weight = states()
    scale = torch.diag(torch.tensor([10.0, 0.1], dtype=torch.float64))
    other = scale @ MATRIX @ torch.linalg.inv(scale)

    scaled = penalty(linear(0.3, other), x @ scale, t, weight, scale @ NOISE @ scale)
    # Time in other units: rates fall as durations grow.
    slower = penalty(linear(0.3, MATRIX / 7), x, t, weight * 7, NOISE / 7)

    torch.testing.assert_close(scaled, penalty(linear(0.3), x, t, weight, NOISE))
    torch.testing.assert_close(slower, scaled)


def test_only_terms_with_a_ridge_are_penalised() -> None:
    torch.manual_seed(0)
    residual = GradientField(2, (5,), ridge=2.0)
    whole = Sum(LotkaVolterra(1.0, 0.4, 0.4, 0.1), Sum(linear(0.0), residual))

    assert has_ridge(whole)
    torch.testing.assert_close(penalty(whole, *states(), NOISE), penalty(residual, *states(), NOISE))
    assert float(penalty(residual, *states(), NOISE)) > 0


def test_in_logarithms_the_slopes_are_those_of_the_logarithms() -> None:
    x, t, weight = states()
    z, inner = x.abs().log(), MLPDrift(2, (6,), ridge=0.7)
    with torch.no_grad():
        inner.last.weight.mul_(1000)
    share = (weight / weight.sum())[:, None]
    spread = (share * (z - (share * z).sum(dim=0)).square()).sum(dim=0).sqrt()
    working = InLogCoordinates(inner, 0.2)
    slopes = torch.func.vmap(torch.func.jacrev(lambda one: working(one, 0.0)))(z).detach()
    expected = 0.7 / 2 * torch.einsum("n,nij,ik,nkj,j->", weight, slopes, torch.linalg.inv(NOISE), slopes,
                                      spread.square())  # fmt: skip

    torch.testing.assert_close(penalty(working, z, t, weight, NOISE), expected)


def test_snapshots_stand_for_the_time_around_them(make_intervals_of: MakeIntervals) -> None:
    x = clouds()
    weights = torch.cat([torch.full((len(one),), share / len(one), dtype=torch.float64)
                         for one, share in zip(x, (0.5, 1.5, 1.0), strict=True)])  # fmt: skip

    found = on_snapshots(linear(0.3), NOISE, make_intervals_of(x, [0.0, 1.0, 3.0]))

    t = torch.zeros(len(weights), 1, dtype=torch.float64)
    torch.testing.assert_close(found, penalty(linear(0.3), torch.cat(x), t, weights, NOISE))


@pytest.mark.parametrize(
    "make", [lambda: GradientField(2, (5,), ridge=0.3), lambda: MLPDrift(2, (4,), ridge=1.0)]
)
def test_the_penalty_can_be_differentiated_by_the_parameters(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    drift = make()
    with torch.no_grad():
        drift.last.weight.mul_(1000)
    found = torch.autograd.grad(penalty(drift, *states(), NOISE), list(drift.parameters()), allow_unused=True)
    flat = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for p, g in zip(drift.parameters(), found, strict=True)])  # fmt: skip

    start, numerical = get_parameters(drift), []
    for step in 1e-6 * np.eye(len(start)):
        sides = []
        for sign in (1, -1):
            set_parameters(drift, start + sign * step)
            sides.append(float(penalty(drift, *states(), NOISE)))
        numerical.append((sides[0] - sides[1]) / 2e-6)
    np.testing.assert_allclose(flat.numpy(), numerical, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", [Affine(), Linearized(8)])
def test_the_gradient_in_bounded_memory_is_the_gradient(
    solver: Any, make_intervals_of: MakeIntervals, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = make_intervals_of(clouds(), [0.0, 1.0, 3.0])
    process = Process(linear(0.0), 2, log=False, learn_volatility=True)
    process.volatility.mul_(0.4)
    reference = process.reference(solver, frozen=False)
    parameters = list(process.parameters())
    value, coupling = objective(reference, intervals, None)
    expected = torch.autograd.grad(value, parameters)

    monkeypatch.setattr(chain_module, "_STATES", 100)  # three sources at a time
    found, slopes, again = gradient(process.reference(solver, frozen=False), intervals, None, parameters)

    assert found == pytest.approx(float(value), abs=1e-10)
    torch.testing.assert_close(slopes, list(expected))
    torch.testing.assert_close(again.g, coupling.g)


def test_a_descent_with_a_ridge_ends_where_both_terms_balance(make_intervals_of: MakeIntervals) -> None:
    intervals = make_intervals_of(clouds(), [0.0, 1.0, 3.0])
    sizes = []
    for ridge in (0.0, 0.1, 1.0):
        process = process_of(Linear(2, ridge))
        chain = Chain(process.reference(Affine()), intervals)
        chain = descend(process, Affine(), chain, 200)
        value, _ = objective(process.reference(Affine(), frozen=False), intervals, chain.coupling.g)
        value = value + on_snapshots(process.drift, chain.reference.noise, intervals)
        slopes = torch.autograd.grad(value, list(process.parameters()))
        sizes.append(float(process.drift.matrix.detach().norm()))
        assert max(float(slope.abs().max()) for slope in slopes) < 1e-3
    assert sizes[0] > 1.1 * sizes[1] > 1.1**2 * sizes[2] > 0


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_network_is_refined_without_ever_raising_the_objective(
    ridge: float, make_intervals_of: MakeIntervals
) -> None:
    torch.manual_seed(0)
    process, solver = process_of(GradientField(2, (24,), ridge)), Linearized(8)
    chain = Chain(process.reference(solver), make_intervals_of(clouds(), [0.0, 1.0, 3.0]))
    settings, values = Refinement(20, 8, 20, 1e-2, 0.0), [total(process, chain)]

    for _ in range(3):
        chain, _ = refine(process, solver, chain, settings, regression=True)
        values.append(total(process, chain))

    assert np.diff(values).max() <= 1e-9
    assert values[-1] < values[0] / 2
    alone = copy.deepcopy(process)
    assert total(alone, Chain(alone.reference(solver), chain.intervals)) == pytest.approx(
        values[-1], abs=1e-6
    )


def test_steps_of_adam_mind_the_penalty() -> None:
    x, t, weight = states(400)
    target, rough = torch.sin(3 * x), []
    for ridge in (0.0, 1.0):
        torch.manual_seed(0)
        drift = MLPDrift(2, (16,), ridge=ridge)
        fit_drift(drift, x, t, target, weight, NOISE)
        drift.ridge = 1.0
        rough.append(float(penalty(drift, x, t, weight, NOISE)))

    assert rough[1] < rough[0] / 10


def test_a_network_of_few_parameters_does_not_search_for_ever() -> None:
    x, t, weight = states(200)
    torch.manual_seed(0)
    drift, calls = MLPDrift(2, (10,)), []
    drift.register_forward_hook(lambda *_: calls.append(1))

    fit_drift(drift, x, t, torch.sin(3 * x), weight, NOISE)

    assert 1 < len(calls) <= 101  # a step is a velocity and its derivative
