"""Distances between sequences of a model and the ones of a reference sample that they are matched to."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["matched_distances"]

_ABSORB = 30.0


@torch.no_grad()
def matched_distances(
    symbols: np.ndarray,
    reference: np.ndarray,
    *,
    epsilon: float = 0.1,
    max_iters: int = 1000,
    tolerance: float = 0.1,
) -> np.ndarray:
    r"""Euclidean distance of each sequence, one-hot, to the one it is matched to by entropic transport.

    The cost is the distance itself, :math:`\sqrt{2 \cdot \text{number of steps that differ}}`. The iteration
    stops when the summed absolute change of both potentials is below ``tolerance``, or after ``max_iters``,
    as published. Several sequences may be matched to the same one.

    Args:
        symbols: Sequences of the model, (N, T).
        reference: Sequences of the reference, (M, T).
        epsilon: Regularisation.
        max_iters: Most iterations.
        tolerance: Change at which to stop.

    Returns:
        Distances (N,). They are only to be compared with those of a second reference sample of the same size:
        a model that is less variable than the reference has smaller ones.

    Raises:
        ValueError: If the lengths differ.

    Source: Torre et al. (2025), arXiv 2510.25674.
    """
    if symbols.ndim != 2 or reference.ndim != 2 or symbols.shape[1] != reference.shape[1]:
        raise ValueError(
            f"sequences must be (N, T) and (M, T) of one length, got {symbols.shape} and {reference.shape}."
        )
    costs = _distances(reference, symbols)  # (M, N)
    f = costs.amin(dim=1)
    g = (costs - f[:, None]).amin(dim=0)
    left, right = torch.full_like(f, 1 / len(f)), torch.full_like(g, 1 / len(g))
    kernel = _kernel(costs, f, g, epsilon)
    u, v = torch.ones_like(f), torch.ones_like(g)
    for _ in range(max_iters):
        new_u = (kernel @ (right * v)).reciprocal()
        new_v = ((left * new_u) @ kernel).reciprocal()
        change = epsilon * float((new_u / u).log().abs().sum() + (new_v / v).log().abs().sum())
        u, v = new_u, new_v
        if change < tolerance:
            break
        if max(float(u.log().abs().max()), float(v.log().abs().max())) > _ABSORB:
            f, g = f + epsilon * u.log(), g + epsilon * v.log()
            kernel, u, v = _kernel(costs, f, g, epsilon), torch.ones_like(f), torch.ones_like(g)
    f = f + epsilon * u.log()
    partner = (f[:, None] - costs).argmax(dim=0)
    return costs[partner, torch.arange(costs.shape[1])].numpy()


def _distances(first: np.ndarray, second: np.ndarray) -> Tensor:
    """Euclidean distances of one-hot sequences, (N, M)."""
    matches = torch.zeros(len(first), len(second))
    for symbol in np.union1d(first, second):
        matches += torch.from_numpy(first == symbol).float() @ torch.from_numpy(second == symbol).float().t()
    return matches.neg_().add_(first.shape[1]).mul_(2).sqrt_()


def _kernel(costs: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
    return torch.sub(f[:, None], costs).add_(g).mul_(1 / epsilon).clamp_(max=math.log(1e30)).exp_()
