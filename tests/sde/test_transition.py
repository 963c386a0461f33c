"""Transition densities: against matrix exponentials, quadrature, automatic and finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.func import jacrev, vmap

from seqdyn.sde.drifts import LotkaVolterra, MLPDrift, Repressilator, Zero
from seqdyn.sde.integrate import heun, simulate
from seqdyn.sde.transition import (
    Transition,
    affine_transition,
    linearized,
    mean_path,
    step_derivatives,
    step_noise,
    transition_cost,
    whitener,
)


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


MATRIX, OFFSET = tensor([[-0.5, -1.5, 0.1], [1.5, -0.5, 0.0], [0.3, 0.2, -1.0]]), tensor([0.2, 0.0, -0.4])
NOISE = tensor([[0.5, 0.1, 0.0], [0.1, 0.3, -0.05], [0.0, -0.05, 0.2]])


class Swinging(nn.Module):
    """A drift that depends on the state and on time."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(tensor(0.7))

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return torch.sin(self.rate * x.flip(-1) + t) - 0.3 * x


def at(x: Tensor, start: float, duration: float) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(x[..., :1])
    return start * one, duration * one


# Affine drifts
# ------------------------------------------------------------------------------------------------------


def test_an_affine_transition_is_that_of_quadrature() -> None:
    duration = 1.7
    nodes = (torch.arange(4000, dtype=torch.float64) + 0.5) * duration / 4000
    moves = torch.matrix_exp(MATRIX * nodes[:, None, None])
    covariance = (moves @ NOISE @ moves.mT).mean(dim=0) * duration
    offset = (moves @ OFFSET).mean(dim=0) * duration

    found = affine_transition(MATRIX, OFFSET, NOISE, tensor(duration))

    torch.testing.assert_close(found.matrix, torch.matrix_exp(MATRIX * duration))
    torch.testing.assert_close(found.covariance, covariance, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.offset, offset, rtol=0, atol=1e-6)
    assert torch.equal(found.covariance, found.covariance.mT)


def test_affine_transitions_compose() -> None:
    """Chapman and Kolmogorov: one after the other is the whole."""
    first, second, whole = (affine_transition(MATRIX, OFFSET, NOISE, tensor(d)) for d in (0.4, 1.1, 1.5))

    torch.testing.assert_close(second.matrix @ first.matrix, whole.matrix)
    torch.testing.assert_close(second.matrix @ first.offset + second.offset, whole.offset)
    covariance = second.matrix @ first.covariance @ second.matrix.mT + second.covariance
    torch.testing.assert_close(covariance, whole.covariance)


@pytest.mark.parametrize("rate", [1.0, 40.0, 1000.0])
def test_rates_of_decay_may_be_far_apart(rate: float) -> None:
    rates = tensor([-rate, -0.1, 0.5])
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    noise = 0.2 * torch.eye(3).double()

    found = affine_transition(turn @ torch.diag(rates) @ turn.mT, torch.ones(3).double(), noise, tensor(2.0))

    variances = 0.2 * torch.expm1(2 * rates * 2) / (2 * rates)
    offset = turn @ (torch.expm1(rates * 2) / rates * (turn.mT @ torch.ones(3).double()))
    torch.testing.assert_close(found.covariance, turn @ torch.diag(variances) @ turn.mT, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.offset, offset, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.matrix, turn @ torch.diag((rates * 2).exp()) @ turn.mT)


def test_brownian_motion_spreads_with_time() -> None:
    found = affine_transition(torch.zeros(3, 3).double(), torch.zeros(3).double(), NOISE, tensor([0.5, 2.0]))

    torch.testing.assert_close(found.covariance, torch.stack([0.5 * NOISE, 2 * NOISE]))
    torch.testing.assert_close(found.matrix, torch.eye(3).double().expand(2, 3, 3))
    x = torch.randn(2, 4, 3).double()
    torch.testing.assert_close(found.of(x).mean, x)


# The linear noise approximation
# ------------------------------------------------------------------------------------------------------


def test_the_linearisation_of_an_affine_drift_is_exact_to_second_order(user_drift: Any) -> None:
    x = torch.randn(5, 3, dtype=torch.float64)
    exact = affine_transition(MATRIX, OFFSET, NOISE, tensor(1.2)).of(x)
    errors = []
    for num_steps in (16, 32, 64):
        found = linearized(user_drift(MATRIX, OFFSET), NOISE, x, *at(x, 0.3, 1.2), num_steps)
        errors.append([float((a - b).detach().abs().max()) for a, b in zip(found, exact, strict=True)])

    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        for before, after in zip(coarse, fine, strict=True):
            assert 3.6 < before / after < 4.6
    assert max(errors[-1]) < 1e-3


def test_the_linearisation_has_the_law_of_paths_with_little_noise() -> None:
    drift, noise = LotkaVolterra(1.0, 0.4, 0.4, 0.1), 0.02**2 * torch.eye(2).double()
    x, count = tensor([[5.0, 4.0]]), 20_000

    found = linearized(drift, noise, x, *at(x, 0.0, 2.0), 100)
    ends = simulate(drift, 0.02, x.expand(count, 2), [0.0, 2.0], step_size=0.02, seed=0)[:, -1]

    # Five standard errors of 20,000 draws; the curvature of the drift adds less.
    spread = found.covariance[0].diagonal().sqrt()
    assert ((ends.mean(dim=0) - found.mean[0]).abs() < 5 * spread / count**0.5).all()
    sizes = spread[:, None] * spread
    assert ((torch.cov(ends.mT) - found.covariance[0]).abs() < 5 * 2**0.5 * sizes / count**0.5).all()


@pytest.mark.parametrize(
    ("drift", "size"),
    [(LotkaVolterra(1.0, 0.4, 0.4, 0.1), 2), (Repressilator(10.0, 3.0, 1.0, 1.0), 3), (Swinging(), 2),
     (MLPDrift(3, hidden_sizes=(8,)), 3), (Zero(), 2)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_derivative_of_a_step_is_that_of_functional_differentiation(drift: nn.Module, size: int) -> None:
    x = torch.rand(4, 6, size, dtype=torch.float64) + 0.5
    step, time = 0.1 * torch.rand(4, 6, 1).double(), torch.rand(4, 6, 1).double()
    drift = drift.double()

    found = step_derivatives(drift, x, time, step)
    expected = vmap(jacrev(lambda y, t, h: heun(drift, y, t, h)))(
        x.flatten(0, 1), time.flatten(0, 1), step.flatten(0, 1)
    ).unflatten(0, (4, 6))

    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(step_derivatives(drift, x, time, step), expected)
    assert not x.requires_grad


def test_the_tangent_is_the_derivative_of_the_mean() -> None:
    drift, x = Swinging(), torch.randn(3, 2, dtype=torch.float64)

    found = linearized(drift, NOISE[:2, :2], x, *at(x, 0.4, 1.0), 10)

    for index in range(2):
        shift = torch.zeros(2).double()
        shift[index] = 1e-5
        ahead, behind = (mean_path(drift, x + sign * shift, 0.4, 0.1, 10)[-1].detach() for sign in (1, -1))
        torch.testing.assert_close(
            found.tangent[..., index].detach(), (ahead - behind) / 2e-5, rtol=0, atol=1e-8
        )


def test_gradients_pass_through_the_linearisation() -> None:
    drift, x = Swinging(), torch.randn(3, 2, dtype=torch.float64)
    weights = [torch.randn(3, 2).double(), torch.randn(3, 2, 2).double()]

    def score(rate: Tensor, factor: Tensor) -> Tensor:
        with torch.no_grad():
            drift.rate.copy_(rate)
        noise = factor.exp() * NOISE[:2, :2]
        found = linearized(drift, noise, x, *at(x, 0.4, 1.0), 10)
        return (found.mean * weights[0]).sum() + (found.covariance * weights[1]).sum()

    rate, factor = tensor(0.7), tensor(0.1).requires_grad_()
    gradients = torch.autograd.grad(score(rate, factor), [drift.rate, factor])
    for gradient, shift in zip(gradients, ((1e-5, 0.0), (0.0, 1e-5)), strict=True):
        ahead, behind = (
            float(score(rate + sign * shift[0], (factor + sign * shift[1]).detach()).detach())
            for sign in (1, -1)
        )
        assert float(gradient) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_the_true_time_is_used() -> None:
    drift, x = Swinging(), torch.randn(6, 2, dtype=torch.float64)
    start, duration = torch.rand(6, 1).double(), 0.5 + torch.rand(6, 1).double()

    together = linearized(drift, NOISE[:2, :2], x, start, duration, 12)

    for row in range(6):
        alone = linearized(
            drift, NOISE[:2, :2], x[row : row + 1], start[row : row + 1], duration[row : row + 1], 12
        )
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[row])
        path = simulate(
            drift, 0.0, x[row : row + 1], [float(start[row]), float(start[row] + duration[row])],
            step_size=float(duration[row]) / 12,
        )  # fmt: skip
        torch.testing.assert_close(together.mean[row].detach(), path[0, -1])


def test_noise_over_a_step_is_positive_definite_even_where_the_drift_is_stiff() -> None:
    derivatives = torch.diag_embed(tensor([[-0.9, 1.0, 5.0]]))

    found = step_noise(derivatives, NOISE, tensor([[0.1]]))

    assert float(torch.linalg.eigvalsh(found).min()) > 0


# Costs
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["one covariance", "a covariance each"])
@pytest.mark.parametrize("origin", [0.0, 1e4])
def test_costs_are_log_densities(shared: bool, origin: float) -> None:
    mean, y = (torch.randn(2, n, 3, dtype=torch.float64) + origin for n in (5, 7))
    root = torch.randn(2, 1 if shared else 5, 3, 3, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(3).double()

    found = transition_cost(Transition(mean, covariance, covariance), y)
    law = MultivariateNormal(mean[:, :, None], covariance[:, :, None])

    assert found.shape == (2, 5, 7)
    torch.testing.assert_close(found, -law.log_prob(y[:, None]), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sigma", [1e-1, 1e-3, 1e-5])
def test_costs_keep_their_digits_where_noise_is_small(sigma: float) -> None:
    # Squares of a hundred nats to ten billion; the digits that a coupling needs are those of small ones.
    mean = torch.rand(50, 2, dtype=torch.float64)
    covariance = (sigma**2 * torch.eye(2).double()).expand(50, 2, 2)
    y = mean + sigma * torch.randn(50, 2, dtype=torch.float64)

    found = transition_cost(Transition(mean, covariance, covariance), y).diagonal()
    law = MultivariateNormal(mean, covariance)

    torch.testing.assert_close(found, -law.log_prob(y), rtol=0, atol=1e-15 / sigma**2 * 10 + 1e-9)


def test_a_whitener_whitens() -> None:
    root = torch.randn(4, 3, 3, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(3).double()

    inverse, half = whitener(covariance)

    torch.testing.assert_close(inverse @ covariance @ inverse.mT, torch.eye(3).double().expand(4, 3, 3))
    torch.testing.assert_close(half, (2 * torch.pi * covariance).logdet() / 2)
