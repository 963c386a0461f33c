"""Processes in either direction of time: against closed forms of linear processes, clocks, entropies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqdyn.sde.chain import Reference
from seqdyn.sde.drifts import Linear, Zero
from seqdyn.sde.gaussian_process import fit_process
from seqdyn.sde.half_bridges import HalfBridge, reversal
from seqdyn.sde.solvers import Affine, Linearized, PairSolver
from seqdyn.sde.transition import affine_transition

GRID = torch.linspace(0, 1, 21, dtype=torch.float64)


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


class Clock(nn.Module):
    """A drift that depends on time, and on the state."""

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return torch.sin(x) * t**2 + t


def linear(matrix: object, offset: object) -> Linear:
    drift = Linear(len(tensor(offset)))
    with torch.no_grad():
        drift.matrix.copy_(tensor(matrix))
        drift.offset.copy_(tensor(offset))
    return drift.requires_grad_(False)


def half_of(
    drift: nn.Module,
    noise: Tensor,
    solver: PairSolver,
    duration: object = (2.0,),
    start: object = (3.0,),
    *,
    backward: bool = False,
) -> HalfBridge:
    return HalfBridge(Reference(drift, noise, solver), tensor(start), tensor(duration), backward)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("solver", [Affine(), Linearized(20)])
def test_the_drift_of_a_reversed_process_runs_on_the_reversed_clock(solver: PairSolver) -> None:
    half = half_of(Clock(), torch.eye(2, dtype=torch.float64), solver, (2.0, 0.5), (3.0, 5.0), backward=True)
    x, elapsed = torch.randn(2, 4, 2, dtype=torch.float64), 0.2

    found = half.drift(x, half.start[:, None, None] + elapsed)

    # Two tenths into the backward process it is 4.8 in the first interval and 5.3 in the second.
    expected = torch.stack([-Clock()(x[0], 4.8), -Clock()(x[1], 5.3)])
    torch.testing.assert_close(found, expected)


def test_simulated_moments_are_those_of_the_process() -> None:
    matrix, offset = tensor([[-0.5, -1.5], [1.5, -0.5]]), tensor([0.2, 0.0])
    noise = tensor([[0.5, 0.1], [0.1, 0.3]])
    half = half_of(linear(matrix, offset), noise, Affine())
    x = tensor([1.0, -1.0]).expand(1, 40_000, 2)

    end = half.run(x, GRID)[-1, 0]

    # With the noise after each step the covariance would be 3 % too large.
    exact = affine_transition(matrix, offset, noise, tensor(2.0))
    torch.testing.assert_close(end.mean(dim=0), exact.matrix @ x[0, 0] + exact.offset, rtol=0, atol=0.01)
    torch.testing.assert_close(torch.cov(end.mT), exact.covariance, rtol=0.02, atol=0.004)


@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("solver", [Affine(), Linearized(20)])
def test_a_process_in_equilibrium_is_its_own_reversal(solver: PairSolver, refill: bool) -> None:
    # dX = -X dt + dW in two coordinates; its equilibrium has the variance 1/2.
    eye = torch.eye(2, dtype=torch.float64)
    half = half_of(linear(-eye, [0.0, 0.0]), eye, solver)
    paths = half.run(torch.randn(1, 4000, 2, dtype=torch.float64) / 2**0.5, GRID)
    x = torch.randn(1, 200, 2, dtype=torch.float64) / 2**0.5

    other = reversal(paths, half, 20, refill=refill)

    # Slopes from increments over a tenth have standard errors of about 0.07.
    for fraction in (0.0, 0.3, 0.6):
        velocity = other.drift(x, other.start) + other.correction(x, fraction)
        slopes = torch.linalg.lstsq(x[0], velocity[0]).solution
        torch.testing.assert_close(slopes, -eye, rtol=0, atol=0.25)
    assert other.backward and other.reference is half.reference


def test_the_reversal_brings_paths_back_where_they_started() -> None:
    start = torch.cat([torch.randn(500, 2) / 5 - 1, torch.randn(500, 2) / 5 + 1])[None].double()
    half = half_of(Zero(), 0.5 * torch.eye(2, dtype=torch.float64), Affine())
    paths = half.run(start[:, torch.randperm(1000)], GRID)

    back = reversal(paths, half, 50, refill=True).run(paths[-1], GRID)[-1, 0]

    # Two groups, whose distance an affine correction would not bring back.
    apart = back.sum(dim=1).abs()
    torch.testing.assert_close(torch.cov(back.mT), torch.cov(start[0].mT), rtol=0.15, atol=0.05)
    assert (apart < 1).double().mean() < 0.15


def test_a_process_of_one_interval_is_that_of_the_batch() -> None:
    noise = torch.eye(2, dtype=torch.float64)
    half = half_of(Zero(), noise, Affine(), (2.0, 0.5), (0.0, 2.0))
    paths = half.run(torch.randn(2, 50, 2, dtype=torch.float64), GRID)
    other = reversal(paths, half, 10, refill=True)
    x = torch.randn(2, 7, 2, dtype=torch.float64)

    one = other.only(1)

    torch.testing.assert_close(one.correction(x[1:], 0.55), other.correction(x, 0.55)[1:])
    torch.testing.assert_close(one.drift(x[1:], tensor(2.1)), other.drift(x, tensor(2.1))[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_step_has_its_own_correction(dtype: torch.dtype) -> None:
    x = torch.randn(1, 30, 1, dtype=dtype)
    one = torch.ones(1, dtype=dtype)
    learned = [
        fit_process(x, place * torch.ones_like(x), place * torch.ones_like(x), one[:, None], one, one, 5)
        for place in range(20)
    ]
    half = half_of(Zero(), one[:, None], Affine())._replace(learned=learned)

    places = [round(float(half.correction(x, fraction).mean())) for fraction in GRID.to(dtype).tolist()]

    # The last fraction is the end, where no step begins.
    assert places == [*range(20), 19]
    assert round(float(half.correction(x, 0.974).mean())) == 19


def test_the_entropy_of_a_constant_push() -> None:
    noise = tensor([[0.5, 0.1], [0.1, 0.3]])
    push, one = tensor([1.0, -2.0]), torch.ones(1, dtype=torch.float64)
    x = torch.randn(1, 30, 2, dtype=torch.float64)
    process = fit_process(x, push.expand_as(x), push.expand_as(x), noise, one, one, 5)
    half = half_of(Zero(), noise, Affine())._replace(learned=[process] * 20)

    found = half.effort(half.run(x, GRID))

    # Half of the squared push in units of the noise, over two units of time.
    torch.testing.assert_close(found, (push @ torch.linalg.solve(noise, push))[None], rtol=1e-5, atol=0)
