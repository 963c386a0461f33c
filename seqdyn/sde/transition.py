r"""Transition densities :math:`p(x' | x; D)` of a drift with additive noise, as Gaussians.

The linear noise approximation follows the noiseless path :math:`m` from x and the covariance around it,

.. math::
    \dot m = b(m, t), \qquad \dot C = J C + C J^\top + S, \qquad J = \partial b / \partial x, \quad
    m(0) = x, \; C(0) = 0 .

Time is discretised once, by the map of a Heun step with the derivative A, into the middle of which the noise
enters: :math:`C \leftarrow A C A^\top + Q` with :math:`Q = h\, M S M^\top` and :math:`M = (I + A) / 2`, of
    second
order in the step. For an affine drift the transition is Gaussian, and its moments come from one matrix
exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqdyn.sde.integrate import Drift, heun

__all__ = [
    "AffineTransition",
    "Transition",
    "affine_transition",
    "in_blocks",
    "linearized",
    "mean_path",
    "step_derivatives",
    "step_noise",
    "transition_cost",
    "whitener",
]


_COORDINATES = 10_000  # of states that a drift sees at once; a network keeps some kilobytes for each


class Transition(NamedTuple):
    """Gaussian transitions from N states.

    Attributes:
        mean: (..., N, C).
        covariance: (..., N, C, C), or (..., 1, C, C) where it is the same for all.
        tangent: Derivative of the mean in the state, likewise.
    """

    mean: Tensor
    covariance: Tensor
    tangent: Tensor


class AffineTransition(NamedTuple):
    r"""Exact transition :math:`x' | x \sim N(F x + c, R)` of an affine drift over durations (...).

    Attributes:
        matrix: F, (..., C, C).
        offset: c, (..., C).
        covariance: R, (..., C, C).
    """

    matrix: Tensor
    offset: Tensor
    covariance: Tensor

    def of(self, x: Tensor) -> Transition:
        """The transitions from states (..., N, C)."""
        mean = x @ self.matrix.mT + self.offset[..., None, :]
        return Transition(mean, self.covariance[..., None, :, :], self.matrix[..., None, :, :])


def affine_transition(matrix: Tensor, offset: Tensor, noise: Tensor, duration: Tensor) -> AffineTransition:
    r"""Transition of :math:`dX = (A X + c)\, dt + \sigma\, dW` over each duration.

    Exponentials of block matrices (Van Loan) give :math:`F = e^{A h}`,
    :math:`R = \int_0^h e^{A s} S e^{A^\top s} ds` and :math:`\int_0^h e^{A s} c\, ds` over a short part h of
    the duration. The whole is two equal parts, each of two, and so on: over a long duration the blocks of a
    drift that decays at different rates, of which one grows as another falls, would lose all digits.

    Args:
        matrix: A, (C, C).
        offset: c, (C,).
        noise: S = σσᵀ, (C, C).
        duration: D, (...).
    """
    size = len(offset)
    block = matrix.new_zeros(2 * size, 2 * size)
    block[:size, :size], block[:size, size:], block[size:, size:] = matrix, noise, -matrix.mT
    affine = matrix.new_zeros(size + 1, size + 1)
    affine[:size, :size], affine[:size, size] = matrix, offset
    angle = float(torch.linalg.matrix_norm(matrix.detach())) * float(duration.max())
    doublings = math.ceil(math.log2(angle)) if 1 < angle < math.inf else 0
    short = duration[..., None, None] / 2**doublings
    moved = torch.matrix_exp(affine * short)
    transition, shift = moved[..., :size, :size], moved[..., :size, size:]
    covariance = torch.matrix_exp(block * short)[..., :size, size:] @ transition.mT
    for _ in range(doublings):
        covariance = transition @ covariance @ transition.mT + covariance
        shift = transition @ shift + shift
        transition = transition @ transition
    return AffineTransition(transition, shift[..., 0], (covariance + covariance.mT) / 2)


def mean_path(drift: Drift, x: Tensor, start: Any, step: Any, num_steps: int) -> Tensor:
    """Noiseless path (num_steps + 1, N, C) from states (N, C); ``start`` and ``step`` may be (N, 1)."""
    states = [x]
    for index in range(num_steps):
        states.append(in_blocks(partial(heun, drift), states[-1], start + index * step, step))
    return torch.stack(states)


def in_blocks(function: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor:
    """A function of states (..., N, C) and of numbers for each, (..., N, 1) or fewer, a part of N at a time.

    What it makes of a state must depend on that state alone. Where gradients are followed, which keep
    everything anyway, and where there are few states, it sees all at once.
    """
    size = x.shape[-2] if x.ndim > 1 else 1
    rows = max(1, _COORDINATES * size // max(1, x.numel()))
    if torch.is_grad_enabled() or rows >= size:
        return function(x, *others)

    def part(one: Any, first: int) -> Any:
        shared = not isinstance(one, Tensor) or one.ndim < 2 or one.shape[-2] != size
        return one if shared else one[..., first : first + rows, :]

    found = [function(*(part(one, first) for one in (x, *others))) for first in range(0, size, rows)]
    return torch.cat(found, dim=x.ndim - 2)


def step_derivatives(drift: Drift, x: Tensor, t: Any, step: Any) -> Tensor:
    """Derivative (..., C, C) of a Heun step at states (..., C), differentiable where the states are.

    Each state's step depends on that state alone, so that one backward pass gives a row for all of them.
    """
    return in_blocks(partial(_step_derivatives, drift), x, t, step)


def _step_derivatives(drift: Drift, x: Tensor, t: Any, step: Any) -> Tensor:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if keep and x.requires_grad else x.detach().requires_grad_()
        outputs = heun(drift, x, t, step).unbind(-1)
        rows = [torch.autograd.grad(one.sum(), x, create_graph=keep, retain_graph=True)[0] for one in outputs]
        return torch.stack(rows, dim=-2)


def step_noise(derivatives: Tensor, noise: Tensor, step: Tensor) -> Tensor:
    """Covariances (..., C, C) of what the noise adds in Heun steps with given derivatives and lengths (...,
    1).
    """
    middle = (derivatives + torch.eye(len(noise), dtype=noise.dtype, device=noise.device)) / 2
    return step[..., None] * (middle @ noise @ middle.mT)


def linearized(
    drift: Drift, noise: Tensor, x: Tensor, start: Tensor, duration: Tensor, num_steps: int
) -> Transition:
    """Transitions in the linear noise approximation.

    Args:
        drift: ``drift(x, t)``.
        noise: S = σσᵀ, (C, C).
        x: States, (..., C).
        start: Their times, (..., 1).
        duration: How long, (..., 1).
        num_steps: Steps of the integration.
    """
    step = duration / num_steps
    path = mean_path(drift, x, start, step, num_steps)
    covariance = torch.zeros_like(step[..., None] * noise)
    tangent = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand_as(covariance)
    times = start + step * torch.arange(num_steps, dtype=x.dtype, device=x.device).view(-1, *[1] * start.ndim)
    derivatives = step_derivatives(drift, path[:-1], times, step.expand_as(times))
    for a, spread in zip(derivatives, step_noise(derivatives, noise, step), strict=True):
        covariance = a @ covariance @ a.mT + spread
        tangent = a @ tangent
    return Transition(path[-1], covariance, tangent)


def whitener(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse Cholesky factor (..., C, C) and half the log-determinant of 2π times covariances.

    Raises:
        torch.linalg.LinAlgError: If one is not positive definite.
    """
    factor = torch.linalg.cholesky(covariance)
    half = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    inverse = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    return inverse, half + covariance.shape[-1] / 2 * math.log(2 * math.pi)


def transition_cost(transition: Transition, y: Tensor) -> Tensor:
    r"""Costs :math:`-\log p(y_j | x_i)` (..., N, M) in nats for targets (..., M, C).

    One matrix product of the quadratic monomials of y with the entries of the precisions; centring the
    targets keeps the cancellation in it small.
    """
    inverse, constant = whitener(transition.covariance)
    centre = y.mean(dim=-2, keepdim=True)
    y, mean = y - centre, transition.mean - centre
    if transition.covariance.shape[-3] == 1:
        y, mean = y @ inverse[..., 0, :, :].mT, mean @ inverse[..., 0, :, :].mT
        square = mean.square().sum(dim=-1)[..., :, None] + y.square().sum(dim=-1)[..., None, :]
        return (square / 2 - mean @ y.mT).clamp(min=0) + constant[..., None]
    white = (inverse @ mean[..., None])[..., 0]
    precision = inverse.mT @ inverse
    pulled = (inverse.mT @ white[..., None])[..., 0]
    monomials = (y[..., :, None] * y[..., None, :]).flatten(-2)
    square = precision.flatten(-2) @ monomials.mT / 2 - pulled @ y.mT
    return (square + white.square().sum(dim=-1)[..., None] / 2).clamp(min=0) + constant[..., None]
