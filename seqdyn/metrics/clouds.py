"""Distances between two clouds of particles, for snapshots of a population.

A cloud is ``x (particle, feature)`` as a DataArray or in a Dataset, or an array or tensor of that shape.
Labelled clouds are compared feature by feature, by name. ``x_weights`` and ``y_weights`` hold one
non-negative number per particle; they are divided by their sum at every call, so that counts serve as well
as shares. Features count as they are: those with large numbers decide, so scale them first if they should
not.

The mathematics, on plain arrays, is in :mod:`seqdyn.ot.distances`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seqdyn.ot import distances
from seqdyn.ot.distances import SplitHalf

__all__ = ["SplitHalf", "energy_distance", "mmd", "sliced_wasserstein", "split_half", "wasserstein"]


def wasserstein(x: Any, y: Any, order: int = 2, x_weights: Any = None, y_weights: Any = None) -> float:
    r"""Return the exact Wasserstein distance, for order 2 the root of the mean squared distance.

    .. math:: W_p = \Big(\min_P \sum_{ij} P_{ij}\, |x_i - y_j|^p\Big)^{1/p}

    Args:
        x: Cloud of the model, N particles.
        y: Cloud to compare with, M particles. Both together cost memory and time of N M: seconds at 2,000.
        order: p, 1 or 2. What is called "EMD" is the one in some papers on snapshots, the other in others.
        x_weights: Weights of x, (N,); equal ones by default.
        y_weights: Weights of y, (M,).

    Returns:
        The distance, in the units of x. It is biased upwards, the more the fewer particles there are:
        compare only at equal sizes, and with :func:`split_half`.

    Raises:
        ValueError: If the clouds or weights do not fit, or the order is another.
    """
    return distances.wasserstein(*_pair(x, y), order, x_weights, y_weights)


def energy_distance(x: Any, y: Any, x_weights: Any = None, y_weights: Any = None) -> float:
    r"""Return the energy distance :math:`2\,E|x - y| - E|x - x'| - E|y - y'|`, in the units of x.

    A U-statistic: unbiased, and therefore at times below 0 for two clouds of one law. With weights,
    :math:`E|x - x'| = \sum_{i \ne j} w_i w_j |x_i - x_j| / (1 - \sum_i w_i^2)`, which is right for
    independent particles: a copy of a particle counts as another one that was found at its place.

    Args:
        x: Cloud of at least two particles.
        y: Cloud of at least two particles.
        x_weights: Weights of x; equal ones by default.
        y_weights: Weights of y.

    Raises:
        ValueError: If the clouds or weights do not fit, or one has a single particle with weight.

    Source: Székely & Rizzo (2013).
    """
    return distances.energy_distance(*_pair(x, y), x_weights, y_weights)


def mmd(
    x: Any, y: Any, x_weights: Any = None, y_weights: Any = None, *, bandwidth: float | None = None
) -> float:
    r"""Return the squared maximum mean discrepancy with the kernel :math:`\exp(-|u - v|^2 / (2 m))`.

    A U-statistic, with weights as in :func:`energy_distance`.

    Args:
        x: Cloud of the model, at least two particles.
        y: Cloud observed, at least two particles.
        x_weights: Weights of x; equal ones by default.
        y_weights: Weights of y.
        bandwidth: m, in squared units of x; by default the median squared distance between two particles of
            y, whatever their weights, so that all models are compared on one scale.

    Returns:
        The estimate, without unit, at most 2; around 0, and at times below, for two clouds of one law.

    Raises:
        ValueError: If the clouds or weights do not fit, one has a single particle with weight, or most
            particles of y coincide.

    Source: Gretton et al. (2012).
    """
    return distances.mmd(*_pair(x, y), x_weights, y_weights, bandwidth=bandwidth)


def sliced_wasserstein(
    x: Any,
    y: Any,
    x_weights: Any = None,
    y_weights: Any = None,
    *,
    num_projections: int = 500,
    seed: int = 0,
) -> float:
    r"""Return the root of the mean squared W2 along random directions, in the units of x.

    For many features or particles: it costs N log N. It is smaller than W2, for a cloud that was only
    shifted by the root of the number of features.

    Args:
        x: Cloud of N particles.
        y: Cloud of M particles.
        x_weights: Weights of x; equal ones by default.
        y_weights: Weights of y.
        num_projections: Number of directions.
        seed: Seed of the directions.

    Raises:
        ValueError: If the clouds, weights, number or seed do not fit.

    Source: Bonneel et al. (2015).
    """
    pair = _pair(x, y)
    return distances.sliced_wasserstein(
        *pair, x_weights, y_weights, num_projections=num_projections, seed=seed
    )


def split_half(
    x: Any, metric: Callable[[Any, Any], float], num_repeats: int = 20, seed: int = 0
) -> SplitHalf:
    """Split a cloud at random into halves and compare them: what sampling alone puts between two clouds.

    Halves have half the particles, so that distances which shrink with their number, as W2 does, come out
    larger here than between two clouds of the full size.

    Args:
        x: Cloud of at least four particles.
        metric: Distance between two clouds, such as :func:`wasserstein`.
        num_repeats: Number of splits, at least two.
        seed: Seed of the splits.

    Returns:
        Mean and standard deviation over the splits, in the units of the metric.

    Raises:
        ValueError: If the cloud is too small, or a number does not fit.
    """
    return distances.split_half(_array(x, "x"), metric, num_repeats, seed)


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Arrays of both clouds, features in one order."""
    if hasattr(x, "dims") and hasattr(y, "dims"):
        x, y = _labelled(x, "x"), _labelled(y, "y")
        _check_units(x, y)
        y = _matched(y, x)
    return _array(x, "x"), _array(y, "y")


def _array(cloud: Any, name: str) -> Any:
    return _labelled(cloud, name).values if hasattr(cloud, "dims") else cloud


def _labelled(cloud: Any, name: str) -> Any:
    """``x (particle, feature)`` of one snapshot, from a DataArray or a Dataset."""
    from seqdyn.data.schema import FEATURE, PARTICLE, TIME, X  # loads xarray, which arrays do not need

    if hasattr(cloud, "data_vars"):
        if X not in cloud:
            raise ValueError(
                f"{name} needs the variable {X!r}, found {sorted(map(str, cloud.data_vars))}; rename yours "
                f"with {name}.rename(NAME={X!r})."
            )
        cloud = cloud[X]
    if set(cloud.dims) != {PARTICLE, FEATURE}:
        raise ValueError(
            f"{name} must have the dims ('particle', 'feature'), got {cloud.dims}; choose one time with "
            f"{name}.sel(time=...), rename others with {name}.rename(OLD='particle')."
        )
    times = np.unique(cloud[TIME].values) if TIME in cloud.coords else np.empty(0)
    if len(times) > 1:
        raise ValueError(
            f"{name} holds particles of {len(times)} times, {times[0]} to {times[-1]}; choose one "
            f"snapshot with {name}.isel(particle={name}.time.values == {times[0]}), or pool them as "
            f"{name}.values."
        )
    return cloud.transpose(PARTICLE, FEATURE)


def _check_units(x: Any, y: Any) -> None:
    ours, theirs = x.attrs.get("units"), y.attrs.get("units")
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(
            f"x is in {ours!r} and y in {theirs!r}; convert one of them, or correct the label with "
            "y.attrs['units'] = ..."
        )


def _matched(y: Any, x: Any) -> Any:
    """The features of y in the order of x."""
    if "feature" not in x.coords or "feature" not in y.coords:
        return y
    ours, theirs = x["feature"].values.tolist(), y["feature"].values.tolist()
    if sorted(map(str, ours)) != sorted(map(str, theirs)):
        different = sorted({str(name) for name in ours} ^ {str(name) for name in theirs})
        raise ValueError(
            f"x and y must have the same features, they differ in {different[:5]}; choose those of both, "
            "for instance y = y.sel(feature=x.feature)."
        )
    return y.sel(feature=ours)
