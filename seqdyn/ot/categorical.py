r"""Entropic transport between sets of discrete sequences, and how it changes with a single symbol.

The cost of two sequences is the number of steps at which they differ, which is half the squared distance
of their one-hot codes. Let :math:`\mathrm{OT}_\varepsilon` be the entropic transport cost (relative to the
product measure), P the law of a model and Q that of the data. The divergence

.. math::
    S_\varepsilon(P, Q) = \mathrm{OT}_\varepsilon(P, Q) - \tfrac12 \mathrm{OT}_\varepsilon(P, P)
    - \tfrac12 \mathrm{OT}_\varepsilon(Q, Q)

changes with P as the *witness* :math:`\varphi(x) = f_{PQ}(x) - f_{PP}(x)` says, f being the potentials of the
two transport problems. Plugging one batch of the model into all three terms makes gradient and value
biased: a sequence takes part in the problem that is to judge it, so that it seems too near to the data. Here
a sequence is judged by potentials of *other* draws,

.. math::
    \hat\varphi(x) = f_{Z Y}(x) - f_{Z Z'}(x), \qquad
    f_{ZY}(x) = -\varepsilon \log \sum_j b_j\, e^{(g_j - C(x, y_j)) / \varepsilon},

with independent sets Z and Z' of the model and Y of the data. Where model and data agree in law, Y and Z' may
be exchanged, so that the expected witness is zero for every x: the truth is a stationary point at any sample
size and any epsilon.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Transport",
    "Witness",
    "divergence",
    "flip_effects",
    "least_epsilon",
    "matched",
    "transport",
    "witness",
]

_LOWEST = 80.0  # exp(-80) is the smallest kernel entry that float32 holds with room for the scalings
_CHECK_EVERY = 5


class Transport(NamedTuple):
    """Entropic transport from a set of N sequences to one of M, uniform weights.

    Attributes:
        value: Transport cost plus epsilon times relative entropy, scalar.
        potential: Potential g of the second set, (M,).
        error: Largest relative deviation of a marginal.
        num_iters: Iterations made.
    """

    value: Tensor
    potential: Tensor
    error: Tensor
    num_iters: int


class Witness(NamedTuple):
    """What a change of the model's sequences does to the divergence.

    Attributes:
        effects: Change of the witness if symbol k stood at step t of sequence i, (B, T, K); zero for the
            one that stands there.
        value: OT(Z, Y) - OT(Z, Z') / 2, scalar: up to a constant of the data an unbiased estimate of the
            divergence of sets of this size.
    """

    effects: Tensor
    value: Tensor


def transport(
    x: Tensor, y: Tensor, *, epsilon: float, tolerance: float = 1e-4, max_iters: int = 500
) -> Transport:
    """Entropic transport between one-hot sequences by Sinkhorn's iteration on the kernel.

    Args:
        x: First set, one-hot (N, T, K).
        y: Second set, one-hot (M, T, K).
        epsilon: Regularisation, in steps; T / epsilon must be at most 80.
        tolerance: Largest relative deviation of a marginal at which to stop.
        max_iters: Most iterations.

    Raises:
        ValueError: If epsilon is too small for this way of computing.
    """
    _check_epsilon(epsilon, x.shape[1])
    kernel = _kernel(x, y, epsilon)
    left, right, error, iteration = kernel.new_ones(len(x)), kernel.new_ones(len(y)), kernel.new_ones(()), 0
    for iteration in range(1, max_iters + 1):
        left = (kernel @ right).mul_(1 / len(y)).reciprocal_()
        columns = (left @ kernel).mul_(1 / len(x))
        if iteration % _CHECK_EVERY == 0 or iteration == max_iters:
            error = (right * columns - 1).abs().max()
            if bool(error < tolerance):
                break
        right = columns.reciprocal_()
    value = epsilon * (left.log().mean() + right.log().mean())
    return Transport(value, epsilon * right.log(), error, iteration)


def witness(
    x: Tensor, data: Tensor, first: Tensor, second: Tensor, *, epsilon: float, tolerance: float = 1e-4
) -> Witness:
    """Effects of single symbols of ``x`` on the divergence between model and data.

    Args:
        x: Sequences of the model, one-hot (B, T, K).
        data: Sequences of the data, one-hot (M, T, K).
        first: More sequences of the model, independent of ``x``, (N, T, K).
        second: And more, independent of both, (N', T, K).
        epsilon: Regularisation, in steps.
        tolerance: Of the transport problems, see :func:`transport`.
    """
    there = transport(first, data, epsilon=epsilon, tolerance=tolerance)
    here = transport(first, second, epsilon=epsilon, tolerance=tolerance)
    effects = flip_effects(x, matched(x, data, there.potential, epsilon), epsilon)
    effects -= flip_effects(x, matched(x, second, here.potential, epsilon), epsilon)
    return Witness(effects, there.value - here.value / 2)


def matched(x: Tensor, y: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """Share of the sequences matched to each one of ``x`` that have symbol k at step t, (B, T, K).

    Args:
        x: One-hot (B, T, K).
        y: One-hot (M, T, K).
        potential: Potential of ``y``, (M,).
        epsilon: Regularisation.
    """
    plan = _kernel(x, y, epsilon) * (potential / epsilon).exp_()
    shares = (plan @ y.flatten(1)).div_(plan.sum(dim=1, keepdim=True))
    return shares.view_as(x)


def flip_effects(x: Tensor, shares: Tensor, epsilon: float) -> Tensor:
    r"""Change of the soft-min potential if symbol k stood at one step of a sequence in place of symbol c.

    .. math::
        f(x^{t \to k}) - f(x) = -\varepsilon \log \left( s_k e^{1/\varepsilon} + s_c e^{-1/\varepsilon}
        + 1 - s_k - s_c \right)

    exactly, where s are the shares of matched sequences with these symbols at that step: replacing a symbol
    brings those with k nearer by one and those with c further by one.

    Args:
        x: One-hot (B, T, K).
        shares: Shares s, (B, T, K).
        epsilon: Regularisation.

    Returns:
        (B, T, K); zero for the symbol that stands there.
    """
    grow, shrink = math.expm1(1 / epsilon), math.expm1(-1 / epsilon)
    current = (shares * x).sum(dim=-1, keepdim=True)
    effects = torch.log1p(grow * shares + shrink * current).mul_(-epsilon)
    return effects.masked_fill_(x > 0, 0.0)


def _kernel(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """exp(-C / epsilon), (N, M)."""
    matches = x.flatten(1) @ y.flatten(1).t()
    return matches.sub_(x.shape[1]).mul_(1 / epsilon).exp_()


def least_epsilon(num_steps: int) -> float:
    """Least regularisation with which sequences of T steps can be computed in this way."""
    return num_steps / _LOWEST


def _check_epsilon(epsilon: float, num_steps: int) -> None:
    least = least_epsilon(num_steps)
    if not epsilon >= least:
        raise ValueError(
            f"epsilon={epsilon:g} is too small for sequences of {num_steps} steps; it must be at least "
            f"{least:.3g}, a blur of {math.sqrt(least):.3g}."
        )


def divergence(x: Tensor, y: Tensor, *, epsilon: float, tolerance: float = 1e-5) -> Tensor:
    """Debiased divergence between two sets of one-hot sequences, (N, T, K) and (M, T, K), without gradient.

    Raises:
        ValueError: If epsilon is too small for this way of computing.
    """
    between = transport(x, y, epsilon=epsilon, tolerance=tolerance).value
    return between - (_self_transport(x, epsilon, tolerance) + _self_transport(y, epsilon, tolerance)) / 2


def _self_transport(x: Tensor, epsilon: float, tolerance: float, max_iters: int = 500) -> Tensor:
    """Entropic transport from a set to itself, by the averaged symmetric iteration."""
    kernel = _kernel(x, x, epsilon)
    scaling = kernel.new_ones(len(x))
    for iteration in range(max_iters):
        ratio = (kernel @ scaling).mul_(1 / len(x)).mul_(scaling)  # 1 at the solution
        scaling = scaling / ratio.sqrt()
        if iteration % _CHECK_EVERY == 0 and bool((ratio - 1).abs().max() < tolerance):
            break
    return 2 * epsilon * scaling.log().mean()
