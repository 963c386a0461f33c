r"""Distances between two weighted clouds, on plain arrays.

A cloud is (N, C): N particles, C features, all in one unit. Weights are divided by their sum, so that counts
serve as well as shares; None means equal ones. Everything is computed in float64. Means over one cloud,
:math:`E\,k(x, x')`, are U-statistics: they leave out the pairs of a particle with itself,

.. math:: E\,k(x, x') = \sum_{i \ne j} w_i w_j\, k(x_i, x_j) \Big/ \Big(1 - \sum_i w_i^2\Big)

so that energy distance and MMD are unbiased for independent particles: around 0, and at times below, for two
clouds of one law.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from seqdyn._arguments import check_amount, check_count
from seqdyn.ot._clouds import as_cloud, as_pair, as_weights, squared_distances
from seqdyn.ot.exact import exact_cost

__all__ = ["SplitHalf", "energy_distance", "mmd", "sliced_wasserstein", "split_half", "wasserstein"]

_BLOCK = 2**22  # distances held at once: 32 MB


def wasserstein(x: Any, y: Any, order: int = 2, x_weights: Any = None, y_weights: Any = None) -> float:
    r"""Return the exact Wasserstein distance.

    .. math:: W_p = \Big(\min_P \sum_{ij} P_{ij}\, |x_i - y_j|^p\Big)^{1/p}

    Args:
        x: Particles, (N, C).
        y: Particles, (M, C).
        order: p, 1 or 2. "EMD" in papers on snapshots is sometimes the one, sometimes the other.
        x_weights: Weights of x, (N,).
        y_weights: Weights of y, (M,).

    Returns:
        The distance, in the units of x. Between finite clouds it is biased upwards, the more the fewer
        particles they have, so that only distances at equal sizes compare.

    Raises:
        ValueError: If the clouds or weights do not fit, or the order is another.
    """
    x, y, a, b = _inputs(x, y, x_weights, y_weights)
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}; 2 is the root of the mean squared distance.")
    cost = squared_distances(x, y)
    return exact_cost(cost, a, b) ** 0.5 if order == 2 else exact_cost(np.sqrt(cost), a, b)


def energy_distance(x: Any, y: Any, x_weights: Any = None, y_weights: Any = None) -> float:
    r"""Return :math:`2\,E|x - y| - E|x - x'| - E|y - y'|`, in the units of x.

    Args:
        x: Particles, (N, C), at least two.
        y: Particles, (M, C), at least two.
        x_weights: Weights of x, (N,).
        y_weights: Weights of y, (M,).

    Raises:
        ValueError: If the clouds or weights do not fit, or one has a single particle with weight.

    Source: Székely & Rizzo (2013).
    """
    x, y, a, b = _inputs(x, y, x_weights, y_weights)
    _check_several(a, "x")
    _check_several(b, "y")
    within = _mean_within(x, a, np.sqrt, at_zero=0.0) + _mean_within(y, b, np.sqrt, at_zero=0.0)
    return 2 * _mean(x, y, a, b, np.sqrt) - within


def mmd(
    x: Any, y: Any, x_weights: Any = None, y_weights: Any = None, *, bandwidth: float | None = None
) -> float:
    r"""Return the squared maximum mean discrepancy under a Gaussian kernel.

    .. math::
        E\,k(x, x') + E\,k(y, y') - 2\,E\,k(x, y), \qquad k(u, v) = \exp\big(-|u - v|^2 / (2 m)\big)

    Args:
        x: Particles, (N, C), at least two: those of the model.
        y: Particles, (M, C), at least two: those observed.
        x_weights: Weights of x, (N,).
        y_weights: Weights of y, (M,).
        bandwidth: m, in squared units of x; by default the median squared distance between two particles of
            y, whatever their weights, so that all models are compared on one scale.

    Returns:
        The estimate, without unit, at most 2.

    Raises:
        ValueError: If the clouds or weights do not fit, one has a single particle with weight, or most
            particles of y coincide.

    Source: Gretton et al. (2012).
    """
    x, y, a, b = _inputs(x, y, x_weights, y_weights)
    _check_several(a, "x")
    _check_several(b, "y")
    m = _median(y) if bandwidth is None else check_amount(bandwidth, "bandwidth", zero=False)

    def kernel(squared: np.ndarray) -> np.ndarray:
        return np.exp(squared / (-2 * m))

    within = _mean_within(x, a, kernel, at_zero=1.0) + _mean_within(y, b, kernel, at_zero=1.0)
    return within - 2 * _mean(x, y, a, b, kernel)


def sliced_wasserstein(
    x: Any,
    y: Any,
    x_weights: Any = None,
    y_weights: Any = None,
    *,
    num_projections: int = 500,
    seed: int = 0,
) -> float:
    r"""Return the root of the mean squared 2-Wasserstein distance along random directions.

    .. math:: \mathrm{SW}_2 = \big(E_\theta\, W_2^2(\theta \cdot x,\; \theta \cdot y)\big)^{1/2}, \qquad
        |\theta| = 1

    It is smaller than W2, by a factor :math:`\sqrt C` for a cloud that was only shifted, and serves where C
    or the number of particles is too large for :func:`wasserstein`.

    Args:
        x: Particles, (N, C).
        y: Particles, (M, C).
        x_weights: Weights of x, (N,).
        y_weights: Weights of y, (M,).
        num_projections: Number of directions.
        seed: Seed of the directions; equal seeds give equal directions for every pair of clouds.

    Returns:
        The distance, in the units of x.

    Raises:
        ValueError: If the clouds, weights, number or seed do not fit.

    Source: Bonneel et al. (2015).
    """
    x, y, a, b = _inputs(x, y, x_weights, y_weights)
    count = check_count(num_projections, "num_projections")
    seed = check_count(seed, "seed", least=0, hint="type for instance seed=0")
    directions = np.random.default_rng(seed).standard_normal((count, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    squares = [_squared_on_a_line(x @ one, y @ one, a, b) for one in directions]
    return float(np.mean(squares)) ** 0.5


class SplitHalf(NamedTuple):
    """Distances between random halves of a cloud: their mean and standard deviation."""

    mean: float
    sd: float


def split_half(
    x: Any, metric: Callable[..., float], num_repeats: int = 20, seed: int = 0, weights: Any = None
) -> SplitHalf:
    """Split a cloud at random into halves and compare them: what sampling alone puts between two clouds.

    Halves have half the particles, so that distances which shrink with their number, as W2 does, come out
    larger here than between two clouds of the full size.

    Args:
        x: Cloud of at least four particles.
        metric: Distance between two clouds, such as :func:`wasserstein`.
        num_repeats: Number of splits, at least two.
        seed: Seed of the splits.
        weights: Weights of the particles, of which those with 0 are left out; the metric then is called with
            two clouds and their weights.

    Returns:
        Mean and standard deviation over the splits, in the units of the metric.

    Raises:
        ValueError: If the cloud is too small, or a number does not fit.
    """
    cloud = as_cloud(x, "x")
    parts = [cloud]
    if weights is not None:
        share = as_weights(weights, len(cloud), "weights")
        parts = [cloud[share > 0], share[share > 0]]
    size = len(parts[0])
    if size < 4:
        of = "" if weights is None else " with weight"
        raise ValueError(f"x has {size} particle(s){of}, but two halves need at least 4.")
    count = check_count(num_repeats, "num_repeats", least=2)
    seed = check_count(seed, "seed", least=0, hint="type for instance seed=0")
    rng = np.random.default_rng(seed)
    orders = (np.split(rng.permutation(size), [size // 2]) for _ in range(count))
    found = [metric(*(part[half] for part in parts for half in halves)) for halves in orders]
    return SplitHalf(float(np.mean(found)), float(np.std(found, ddof=1)))


def _inputs(
    x: Any, y: Any, x_weights: Any, y_weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = as_pair(x, y)
    return x, y, as_weights(x_weights, len(x), "x_weights"), as_weights(y_weights, len(y), "y_weights")


def _check_several(weights: np.ndarray, name: str) -> None:
    if weights.max() > 1 - 1e-9:
        raise ValueError(
            f"{name} has a single particle with weight, so that its spread is unknown; give two or more, or "
            "use wasserstein(x, y)."
        )


def _mean(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
) -> float:
    """Weighted mean over all pairs of a function of their squared distance, a block of rows at a time."""
    step = max(1, _BLOCK // len(y))
    blocks = (slice(i, i + step) for i in range(0, len(x), step))
    return float(sum(a[rows] @ (function(squared_distances(x[rows], y)) @ b) for rows in blocks))


def _mean_within(
    x: np.ndarray, a: np.ndarray, function: Callable[[np.ndarray], np.ndarray], *, at_zero: float
) -> float:
    """The same over pairs of two different particles of one cloud."""
    alone = float(a @ a)
    return (_mean(x, x, a, a, function) - at_zero * alone) / (1 - alone)


def _median(y: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(y, "sqeuclidean")))
    if median == 0:
        raise ValueError(
            "most particles of y coincide, so that their median distance is 0; give bandwidth=, in squared "
            "units of y."
        )
    return median


def _squared_on_a_line(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of numbers: the integral of the squared difference of quantiles."""
    i, j = np.argsort(x), np.argsort(y)
    below_x, below_y = np.cumsum(a[i]), np.cumsum(b[j])
    levels = np.sort(np.concatenate([below_x, below_y]))
    # Both sums end at 1 up to rounding: the last level may lie just above one of them.
    of_x = x[i][np.minimum(np.searchsorted(below_x, levels), len(x) - 1)]
    of_y = y[j][np.minimum(np.searchsorted(below_y, levels), len(y) - 1)]
    return float(np.diff(levels, prepend=0.0) @ (of_x - of_y) ** 2)
