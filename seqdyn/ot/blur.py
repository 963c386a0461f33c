"""A blur at which the divergence between samples of one law is least at that law."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["auto_blur"]

SHARE_OF_COST = 0.27


@torch.no_grad()
def auto_blur(targets: Tensor) -> float:
    r"""Length scale of the entropic smoothing, from the targets alone.

    .. math::
        \epsilon = 0.27\, \overline{|x - y|^2 / 2}, \qquad \mathrm{blur} = \sqrt\epsilon,

    the mean taken over all pairs of a point x at an even and a point y at an odd position. Far below it the
    divergence between finite samples is least for a law that varies less than the targets'.

    Args:
        targets: Independent points, (N, D).

    Returns:
        blur in the units of the points; give ``epsilon=blur**2``.

    Raises:
        ValueError: If there are fewer than two points, one is not finite, or all coincide.
    """
    if not isinstance(targets, Tensor):
        raise ValueError(f"targets must be a tensor, got {type(targets).__name__}; torch.as_tensor(targets).")
    if targets.ndim != 2 or len(targets) < 2 or targets.shape[1] < 1:
        raise ValueError(
            f"targets must have shape (points, coordinates) with at least 2 points, got "
            f"{tuple(targets.shape)}; flatten sequences with targets.flatten(1)."
        )
    # Differences from one point keep what a large common offset would round away.
    points = targets.double() - targets[0].double()
    if not bool(torch.isfinite(points).all()):
        raise ValueError(
            "targets hold NaN or infinity; drop them with targets[targets.isfinite().all(dim=1)]."
        )
    even, odd = points[::2], points[1::2]
    cost = even.square().sum(dim=1).mean() / 2 + odd.square().sum(dim=1).mean() / 2
    epsilon = SHARE_OF_COST * float(cost - even.mean(dim=0) @ odd.mean(dim=0))
    if not epsilon > 0:
        raise ValueError("all targets coincide, which sets no scale; give epsilon as a number.")
    return math.sqrt(epsilon)
