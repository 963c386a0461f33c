"""Regression of drifts on velocities: against closed forms, and Itô's formula for gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov
from torch import Tensor, nn

from seqdyn.sde.drifts import (
    GradientField,
    Linear,
    LotkaVolterra,
    MLPDrift,
    OrnsteinUhlenbeck,
    QuadraticPotential,
    Repressilator,
    Sum,
)
from seqdyn.sde.integrate import simulate
from seqdyn.sde.lamperti import InLogCoordinates
from seqdyn.sde.regression import (
    NetworkFit,
    bounds_of,
    fit_drift,
    get_parameters,
    sensitivities,
    set_parameters,
)
from seqdyn.sde.solvers import Affine

NOISE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


class Well(nn.Module):
    """The gradient of -x' M x / 2."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.curvature = nn.Parameter(torch.zeros(size, size, dtype=torch.float64))

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return -x @ (self.curvature + self.curvature.mT) / 2


def points(count: int = 300, size: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """States, times and weights."""
    return (
        torch.rand(count, size, dtype=torch.float64) * 3 + 0.2,
        torch.rand(count, 1, dtype=torch.float64),
        torch.rand(count, dtype=torch.float64),
    )


def loss(drift: nn.Module, x: Tensor, t: Tensor, target: Tensor, weight: Tensor, noise: Tensor) -> float:
    with torch.no_grad():
        missing = drift(x, t) - target
    return float((weight * (missing * torch.linalg.solve(noise, missing.mT).mT).sum(dim=1)).sum())


# Drifts with few parameters
# ------------------------------------------------------------------------------------------------------


def test_a_drift_that_is_linear_in_its_parameters_is_solved_exactly() -> None:
    """Weighted least squares in the metric of correlated noise, which matters to shared parameters."""
    x, t, weight = points()
    target = torch.randn(300, 2, dtype=torch.float64)
    prey, predators = x.unbind(dim=1)
    zero = torch.zeros_like(prey)
    design = torch.stack(
        [torch.stack([prey, zero], 1), torch.stack([-prey * predators, zero], 1),
         torch.stack([zero, -predators], 1), torch.stack([zero, prey * predators], 1)], dim=2,
    )  # fmt: skip
    precision = torch.linalg.inv(NOISE)
    left = torch.einsum("n,ncp,cd,ndq->pq", weight, design, precision, design)
    right = torch.einsum("n,ncp,cd,nd->p", weight, design, precision, target)
    expected = torch.linalg.solve(left, right)
    drift = LotkaVolterra()
    drift.lower_bounds = {}

    fit_drift(drift, x, t, target, weight, NOISE)

    np.testing.assert_allclose(get_parameters(drift), expected.numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("truth", "start"),
    [
        (LotkaVolterra(1.0, 0.4, 0.4, 0.1), LotkaVolterra()),
        (Repressilator(10.0, 3.0, 1.0, 1.0), Repressilator()),
        (Repressilator(10.0, 3.0, 1.0, 1.0), Repressilator(beta=1e-5, gamma=1e-5)),
    ],
)
@pytest.mark.parametrize("unit", [1.0, 60.0])
def test_parameters_come_back_from_velocities_without_noise(
    truth: nn.Module, start: nn.Module, unit: float
) -> None:
    size = 2 if isinstance(truth, LotkaVolterra) else 3
    x, t, weight = points(size=size)
    drift = type(start)(**{name: float(p.detach()) for name, p in start.named_parameters()})

    fit_drift(drift, x, t, truth(x, t).detach() / unit, weight, torch.eye(size).double() / unit)

    expected = get_parameters(truth)
    rates = {"alpha", "beta", "gamma", "delta"} & {name for name, _ in truth.named_parameters()}
    expected = expected / np.where([name in rates for name, _ in truth.named_parameters()], unit, 1)
    np.testing.assert_allclose(get_parameters(drift), expected, rtol=1e-4)


def test_a_quadratic_potential_is_the_best_symmetric_fit() -> None:
    x, t, weight = points()
    drift = QuadraticPotential(2)
    matrix = tensor([[-1.0, 0.8], [-0.4, -2.0]])
    target = x @ matrix.mT + tensor([0.3, 0.1])

    fit_drift(drift, x, t, target, weight, NOISE)

    best = get_parameters(drift)
    start = loss(drift, x, t, target, weight, NOISE)
    # A minimum in every direction, and not a perfect one: the target is not symmetric.
    for change in 1e-3 * np.concatenate([np.eye(5), -np.eye(5)]):
        set_parameters(drift, best + change)
        assert loss(drift, x, t, target, weight, NOISE) > start > 0.01


def test_coordinates_by_themselves_have_the_same_closed_form() -> None:
    x, t, weight = points()
    noise = torch.diag(tensor([0.5, 2.0]))
    target = torch.cat([0.3 - 1.2 * x[:, :1] + x[:, 1:], 0.1 + 0.5 * x[:, 1:].square()], dim=1)
    drift, other = OrnsteinUhlenbeck(2), OrnsteinUhlenbeck(2)

    fit_drift(drift, x, t, target, weight, noise)
    # A sum has no closed form, and is solved by Gauss-Newton.
    fit_drift(Sum(other), x, t, target, weight, noise)

    np.testing.assert_allclose(get_parameters(drift), get_parameters(other), rtol=1e-6)


def test_bounds_are_kept() -> None:
    x, t, weight = points()
    truth = LotkaVolterra(1.0, 0.4, 0.4, 0.1)
    drift = LotkaVolterra(0.0, 0.1, 0.0, 0.1)

    fit_drift(drift, x, t, -truth(x, t).detach(), weight, NOISE)  # all rates the other way round

    assert (get_parameters(drift) >= 0).all()
    assert loss(drift, x, t, -truth(x, t).detach(), weight, NOISE) <= loss(
        LotkaVolterra(), x, t, -truth(x, t).detach(), weight, NOISE
    ) * (1 + 1e-6)


def test_bounds_are_found_through_wrappers() -> None:
    drift = Sum(LotkaVolterra(), InLogCoordinates(Repressilator(), 0.1))
    drift.terms[0].beta.requires_grad_(False)

    np.testing.assert_array_equal(bounds_of(drift), [0, 0, 0, 0, 0, 1e-6, 0])
    assert len(get_parameters(drift)) == 7


def test_frozen_parameters_are_left_alone(user_drift: Any) -> None:
    x, t, weight = points()
    for drift in (LotkaVolterra(1.0, 0.2, 0.1, 0.1), Linear(2)):
        first = next(iter(drift.parameters()))
        before = first.detach().clone()
        first.requires_grad_(False)
        rest = len(get_parameters(drift))

        fit_drift(drift, x, t, torch.randn(300, 2).double(), weight, NOISE)

        assert torch.equal(first, before)
        assert np.abs(get_parameters(drift)).max() > 0 and len(get_parameters(drift)) == rest


def test_a_drift_without_free_parameters_has_nothing_to_fit() -> None:
    x, t, weight = points()
    drift = LotkaVolterra(1.0, 0.2, 0.1, 0.1).requires_grad_(False)

    fit_drift(drift, x, t, torch.randn(300, 2).double(), weight, NOISE)

    assert [float(p) for p in drift.parameters()] == [1.0, 0.2, 0.1, 0.1]
    assert get_parameters(drift).size == bounds_of(drift).size == 0


def test_parameters_are_taken_and_set_in_one_order() -> None:
    drift = Sum(LotkaVolterra(1, 2, 3, 4), MLPDrift(2, (3,)))
    values = get_parameters(drift)
    np.testing.assert_array_equal(values[:4], [1, 2, 3, 4])

    set_parameters(drift, np.arange(len(values), dtype=float))

    np.testing.assert_array_equal(get_parameters(drift), np.arange(len(values)))
    assert float(drift.terms[0].delta.detach()) == 3


def test_sensitivities_are_the_curvature_of_the_loss() -> None:
    x, t, weight = points()
    drift = Repressilator(10.0, 3.0, 1.0, 1.0)
    x = torch.cat([x, x[:, :1]], dim=1)
    noise = torch.diag(tensor([0.5, 0.1, 2.0]))
    target = drift(x, t).detach()

    found = sensitivities(drift, x, t, weight, noise)

    for index in range(4):
        values = get_parameters(drift)
        values[index] += 1e-4
        moved = Repressilator(*values)
        # At the truth, where the residuals are zero, the loss is its curvature.
        assert found[index] ** 2 == pytest.approx(loss(moved, x, t, target, weight, noise) / 1e-8, rel=1e-3)


# Networks
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [GradientField(2, (16, 16)), MLPDrift(2, (32,), time_input=True)])
def test_a_network_comes_nearer_and_goes_on_from_where_it_is(drift: nn.Module) -> None:
    x, t, weight = points()
    target = -x + 0.5
    losses = [loss(drift, x, t, target, weight, NOISE)]

    for _ in range(3):
        fit_drift(drift, x, t, target, weight, NOISE, NetworkFit(num_steps=40))
        losses.append(loss(drift, x, t, target, weight, NOISE))

    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.05 * losses[0]


def test_decay_of_weights_keeps_a_network_small() -> None:
    x, t, weight = points()
    sizes = []
    for decay in (0.0, 10.0):
        torch.manual_seed(0)
        drift = MLPDrift(2, (32,))
        fit_drift(drift, x, t, -5 * x, weight, NOISE, NetworkFit(num_steps=60, weight_decay=decay))
        sizes.append(float(torch.cat([p.detach().flatten() for p in drift.parameters()]).norm()))

    assert sizes[1] < 0.5 * sizes[0]


# Gradients
# ------------------------------------------------------------------------------------------------------


def ito_curvature(second: Tensor, first: Tensor, last: Tensor, sigma: float, duration: float) -> Tensor:
    r"""The curvature M that minimises the divergence by Itô's formula, from marginals alone.

    .. math::
        \tfrac12 \int E |\nabla\psi|^2 dt + \tfrac{\sigma^2}2 \int E\, \Delta\psi\, dt - E\psi_T + E\psi_0,
        \qquad \psi = -\tfrac12 x^\top M x

    ``second`` is the integral of E xx' over time, ``first`` and ``last`` its values at the ends.
    """
    right = sigma**2 * duration * torch.eye(len(second)).double() - last + first
    return torch.from_numpy(solve_continuous_lyapunov(second.numpy(), right.numpy()))


def second_moment(x: Tensor) -> Tensor:
    return x.mT @ x / len(x)


@pytest.mark.parametrize("size", [1, 3])
def test_least_squares_on_increments_is_itos_formula(size: int) -> None:
    sigma, steps, duration, count = 0.7, 1000, 2.0, 200
    root = torch.randn(size, size, dtype=torch.float64) / 2
    truth = Well(size)
    set_parameters(truth, (torch.eye(size).double() + root @ root.mT).flatten().numpy())
    x0 = 1.5 + 0.5 * torch.randn(count, size, dtype=torch.float64)
    paths = simulate(truth, sigma, x0, np.linspace(0, duration, steps + 1), step_size=1.0, method="euler")
    step = duration / steps
    x, velocity = paths[:, :-1].flatten(0, 1), paths.diff(dim=1).flatten(0, 1) / step
    t, weight = torch.zeros(len(x), 1).double(), torch.full((len(x),), step).double()

    drift = Well(size)
    fit_drift(drift, x, t, velocity, weight, sigma**2 * torch.eye(size).double())
    found = (drift.curvature + drift.curvature.mT).detach() / 2
    second = second_moment(x) * duration
    expected = ito_curvature(second, second_moment(paths[:, 0]), second_moment(paths[:, -1]), sigma, duration)

    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    if size == 1:
        moments = [float(second_moment(paths[:, i])) for i in (0, -1)]
        by_hand = (sigma**2 * duration + moments[0] - moments[1]) / (2 * float(second))
        assert float(expected) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2])
def test_the_regression_on_paths_of_a_bridge_is_itos_formula_on_its_marginals(
    make_chain: Any, size: int
) -> None:
    """No increments are drawn: the velocity is the drift of the path given its end."""
    sigma, times = 0.7, [0.0, 0.5, 1.0, 2.0]
    draw = [torch.randn(300, size, dtype=torch.float64) for _ in times]
    clouds = [2 * np.exp(-t) + 0.5 * x for t, x in zip(times, draw, strict=True)]
    chain = make_chain(Linear(size), sigma, clouds, times, Affine())
    paths = chain.paths(12_000, 60)

    drift = Well(size)
    fit_drift(drift, *paths, chain.reference.noise)
    found = (drift.curvature + drift.curvature.mT).detach() / 2
    second = (paths.states * paths.weights[:, None]).mT @ paths.states / 12_000
    expected = ito_curvature(second, second_moment(clouds[0]), second_moment(clouds[-1]), sigma, times[-1])

    # Three standard errors and more of 12 000 paths: the sd over 16 seeds was 0.011 with 3000 of them.
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.015 if size == 1 else 0.045)
