r"""Paths of a process with additive noise that are pinned at both ends.

A path is a chain of m steps :math:`X_{j+1} = \phi_j(X_j) + N(0, Q_j)`. Where the steps are linear around a
nominal path p, with derivatives A, the end given the state at step j is Gaussian,

.. math::
    X_m \,|\, X_j \sim N(\Phi_j X_j + r_j,\; R_j), \qquad
    \Phi_j = \Phi_{j+1} A_j, \quad R_j = R_{j+1} + \Phi_{j+1} Q_j \Phi_{j+1}^\top, \quad
    r_j = r_{j+1} + \Phi_{j+1} (\phi_j(p_j) - A_j p_j) .

Each step is drawn from its law given that end, a guided proposal: mean :math:`\phi_j(X_j)` and covariance
:math:`Q_j`, conditioned on :math:`\Phi_{j+1} X_{j+1} + r_{j+1} + N(0, R_{j+1})` being the end. The path
reaches the end exactly, and its law is the exact pinned law where the steps are linear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn.sde.integrate import Drift, heun
from seqdyn.sde.transition import affine_transition, in_blocks, step_derivatives, step_noise

__all__ = ["PinnedPaths", "affine_pinned_paths", "pinned_paths"]

_PASSES = 2  # of the nominal path, towards the most likely one


class PinnedPaths(NamedTuple):
    """Pinned paths on a grid of m steps.

    Attributes:
        states: (m + 1, ..., C), the ends included.
        pull: What the end adds to each step in its mean over the noise, (m, ..., C); divided by the length of
            the step it is the difference between the drift of the pinned path and that of the process.
    """

    states: Tensor
    pull: Tensor


class _Steps(NamedTuple):
    """A chain of m steps, linearised: derivatives and covariances (m, ..., C, C), offsets (m, ..., C)."""

    move: Callable[[Tensor, int], Tensor]
    derivatives: Tensor
    offsets: Tensor
    noise: Tensor


@torch.no_grad()
def pinned_paths(
    drift: Drift, noise: Tensor, a: Tensor, b: Tensor, start: Tensor, duration: Tensor, grid: Tensor
) -> PinnedPaths:
    """Draw one path from each a to each b, from the ambient random stream.

    The steps are Heun's; they are linearised around the most likely path.

    Args:
        drift: ``drift(x, t)``.
        noise: S = σσᵀ, (C, C), positive definite.
        a: Beginnings, (..., C).
        b: Ends, (..., C).
        start: Times of the beginnings, (..., 1).
        duration: (..., 1).
        grid: Fractions of the duration, (m + 1,), from 0 to 1.
    """
    grid = grid.view(-1, *[1] * a.ndim)
    nominal = torch.lerp(a, b, grid)
    times = start + duration * grid[:-1]
    lengths = duration * grid.diff(dim=0)

    def move(x: Tensor, index: int) -> Tensor:
        return in_blocks(partial(heun, drift), x, times[index], lengths[index])

    for number in range(_PASSES + 1):
        before = nominal[:-1]
        derivatives = step_derivatives(drift, before, times, lengths)
        offsets = (
            in_blocks(partial(heun, drift), before, times, lengths)
            - (derivatives @ before[..., None])[..., 0]
        )
        spread = step_noise(derivatives, noise, lengths)
        found = _guide(_Steps(move, derivatives, offsets, spread), a, b, noisy=number == _PASSES)
        nominal = found.states
    return found


@torch.no_grad()
def affine_pinned_paths(
    matrix: Tensor, offset: Tensor, noise: Tensor, a: Tensor, b: Tensor, duration: Tensor, grid: Tensor
) -> PinnedPaths:
    """Draw one path of the affine drift A x + c from each a to each b, exact on any grid of fractions.

    Args:
        matrix: A, (C, C).
        offset: c, (C,).
        noise: S = σσᵀ, (C, C), positive definite.
        a: Beginnings, (K, N, C).
        b: Ends, (K, N, C).
        duration: (K,).
        grid: Fractions of the duration, (m + 1,), from 0 to 1.
    """
    steps = affine_transition(matrix, offset, noise, duration * grid.diff()[:, None])

    def move(x: Tensor, index: int) -> Tensor:
        return x @ steps.matrix[index].mT + steps.offset[index][:, None]

    chain = _Steps(move, steps.matrix[:, :, None], steps.offset[:, :, None], steps.covariance[:, :, None])
    return _guide(chain, a, b, noisy=True)


def _guide(steps: _Steps, a: Tensor, b: Tensor, *, noisy: bool) -> PinnedPaths:
    gains, factors, looks = _gains(steps)
    last = len(gains) - 1
    x, states, pulls = a, [a], []
    for index in range(last + 1):
        mean = steps.move(x, index)
        phi, offset = looks[index]
        pull = (gains[index] @ (b - (phi @ mean[..., None])[..., 0] - offset)[..., None])[..., 0]
        x = mean + pull
        if noisy and index < last:
            x = x + (factors[index] @ torch.randn_like(x)[..., None])[..., 0]
        states.append(x)
        pulls.append(pull)
    states[-1] = b
    return PinnedPaths(torch.stack(states), torch.stack(pulls))


def _gains(steps: _Steps) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Kalman gains, factors of the noise that is left, and (Φ, r) of the end seen from after each step."""
    num_steps = len(steps.derivatives)
    like = steps.noise[0]
    phi = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand_as(like)
    offset, rest = torch.zeros_like(steps.offsets[0]), torch.zeros_like(like)
    gains, factors, looks = [], [], []
    for index in reversed(range(num_steps)):
        looks.append((phi, offset))
        spread = steps.noise[index]
        cross = spread @ phi.mT
        ahead = rest + phi @ cross
        gain = torch.linalg.solve(ahead, cross.mT).mT
        gains.append(gain)
        left = spread - gain @ cross.mT
        # The last step has no freedom left.
        factors.append(left if index == num_steps - 1 else torch.linalg.cholesky((left + left.mT) / 2))
        rest = ahead
        offset = offset + (phi @ steps.offsets[index][..., None])[..., 0]
        phi = phi @ steps.derivatives[index]
    return gains[::-1], factors[::-1], looks[::-1]
