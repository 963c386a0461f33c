r"""Three ways to the same gradient drift: velocities of pinned paths, their increments, and marginals alone.

For :math:`b = \nabla \psi` Itô's formula turns the fit to paths into one to marginals,

.. math::
    \min_\psi\; \tfrac12 \int E |\nabla \psi|^2 dt + \tfrac{\sigma^2}{2} \int E\, \Delta \psi\, dt
    - \big( E\, \psi(X_T) - E\, \psi(X_0) \big) .

The package fits to velocities, which serve every family; here the other two say what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.rng import fork_rng
from seqdyn.sde.chain import Reference, bridge_paths
from seqdyn.sde.drifts import QuadraticPotential
from seqdyn.sde.regression import fit_drift, get_parameters
from seqdyn.sde.solvers import Affine
from seqdyn.sde.transition import affine_transition

VOLATILITY, DURATION, STEPS, PATHS = 0.7, 1.0, 100, {1: 12_000, 3: 3000}


def potential(size: int) -> QuadraticPotential:
    """In one dimension k x² / 2, in more any quadratic form; at rest."""
    drift = QuadraticPotential(size)
    drift.offset.requires_grad_(size > 1)
    return drift


def truth(size: int) -> QuadraticPotential:
    """One whose axes are not those of the coordinates."""
    drift = potential(size)
    with torch.no_grad():
        drift.stiffness.copy_(torch.tensor([1.0, 0.4, 1.5, -0.3, 0.2, 0.8][: size * (size + 1) // 2]))
        if size > 1:
            drift.offset.copy_(torch.tensor([0.5, -0.6, 0.7]))
    return drift


def fitted(size: int, x: Tensor, velocity: Tensor) -> Tensor:
    drift = potential(size)
    weight, t = torch.ones(len(x)).double(), torch.zeros(len(x), 1).double()
    fit_drift(drift, x, t, velocity, weight, VOLATILITY**2 * torch.eye(size).double())
    return torch.from_numpy(get_parameters(drift))


def of_marginals(size: int, states: Tensor) -> Tensor:
    """Parameters from the clouds (T, N, C) alone: the objective is quadratic in them."""
    drift = potential(size)
    features, traces, gains = [], [], []
    for parameter in drift.parameters():
        for index in range(len(parameter) if parameter.requires_grad else 0):
            with torch.no_grad():
                parameter[index] = 1
                matrix, offset = (part.detach().clone() for part in drift.affine())
                parameter[index] = 0
            features.append(states @ matrix.mT + offset)  # the gradient of a potential x A x / 2 + c x
            traces.append(float(matrix.trace()))
            start, end = (((x @ matrix.mT * x).sum(dim=1) / 2 + x @ offset).mean() for x in states[[0, -1]])
            gains.append(float(end - start))
    weights = torch.full((STEPS + 1,), DURATION / STEPS, dtype=torch.float64)
    weights[[0, -1]] /= 2
    phi = torch.stack(features)
    gram = torch.einsum("itnc,jtnc,t->ij", phi, phi, weights) / states.shape[1]
    right = torch.tensor(gains) - VOLATILITY**2 / 2 * DURATION * torch.tensor(traces)
    return torch.linalg.solve(gram, right.double())


@pytest.mark.parametrize("size", [1, 3])
def test_pinned_velocities_increments_and_marginals_give_one_potential(
    size: int, make_intervals_of: Callable[..., Any]
) -> None:
    noise, duration = VOLATILITY**2 * torch.eye(size).double(), torch.tensor(DURATION).double()
    move = affine_transition(*(part.detach() for part in truth(size).affine()), noise, duration)
    a = 1 + torch.randn(PATHS[size], size).double()
    b = a @ move.matrix.mT + move.offset + torch.randn_like(a) @ torch.linalg.cholesky(move.covariance).mT
    reference, intervals = (
        Reference(truth(size), noise, Affine()),
        make_intervals_of([a[:5], b[:5]], [0.0, DURATION]),
    )
    with fork_rng(3):
        paths = bridge_paths(reference, intervals, a[None], b[None], STEPS)
    with fork_rng(3):  # the same again, with their ends
        grid = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
        drawn = Affine().pinned(
            reference.drift, noise, a[None], b[None], intervals.start, intervals.duration, grid
        )
    states = drawn.states[:, 0].detach()
    torch.testing.assert_close(states[:-1].flatten(0, 1), paths.states)

    increments = fitted(size, paths.states, states.diff(dim=0).flatten(0, 1) * STEPS / DURATION)
    velocities = fitted(size, paths.states, paths.velocities)
    marginals = of_marginals(size, states)

    for found in (velocities, marginals):
        torch.testing.assert_close(found, increments, rtol=0, atol=0.02 * float(increments.abs().max()))
    expected = torch.from_numpy(get_parameters(truth(size)))
    torch.testing.assert_close(velocities, expected, rtol=0, atol=0.1 * float(expected.abs().max()))
    if size == 1:
        squares = states.square().mean(dim=(1, 2))
        rate = (VOLATILITY**2 * DURATION + squares[0] - squares[-1]) / (
            2 * torch.trapezoid(squares, dx=DURATION / STEPS)
        )
        torch.testing.assert_close(marginals, rate[None])
