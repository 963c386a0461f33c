"""Principal components of recorded activity, projections on them, angles between subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import PC, START, TIME, UNIT, array, attributes

__all__ = ["Plane", "fit_plane", "pca", "project", "subspace_angles"]

_DIMS: dict[int, tuple[str, ...]] = {1: (), 2: (TIME,), 3: (START, TIME)}


class Plane(NamedTuple):
    """Principal components of a set of states, float64.

    Attributes:
        mean: Mean state, (H,).
        components: Unit vectors, (P, H), the entry of largest modulus of each positive.
        variance: Mean square along each, (P,).
        share: The same as a share of the whole, (P,); NaN where all states are the same.
    """

    mean: Tensor
    components: Tensor
    variance: Tensor
    share: Tensor

    def scores(self, states: Tensor) -> Tensor:
        """Coordinates (..., P) of states (..., H)."""
        return (states.to(self.mean) - self.mean) @ self.components.T

    def only(self, axes: Sequence[int]) -> Plane:
        """Some of the components, by their numbers from one."""
        chosen = [axis - 1 for axis in axes]
        return Plane(self.mean, self.components[chosen], self.variance[chosen], self.share[chosen])


def fit_plane(states: Tensor, num_components: int = 2) -> Plane:
    """Centred principal components of states (..., H).

    Raises:
        ValueError: If the states have fewer coordinates than components are asked for.
    """
    rows = states.reshape(-1, states.shape[-1]).double()
    if rows.shape[1] < num_components:
        raise ValueError(f"{num_components} principal components need as many units, got {rows.shape[1]}.")
    mean = rows.mean(dim=0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    values, components = values.flip(0).clamp(min=0), vectors.T.flip(0)[:num_components]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    total, variance = values.sum(), values[:num_components]
    share = variance / total if total > 0 else variance * torch.nan
    return Plane(mean, components * largest.sign(), variance, share)


def pca(hidden: Any, num_components: int = 10) -> xr.Dataset:
    """Principal components of centred, unscaled activity.

    Signs are fixed: the loading of largest modulus of every component is positive.

    Args:
        hidden: Activity (time, unit) or (start, time, unit): tensor, array or DataArray.
        num_components: Components to keep; all if there are fewer.

    Returns:
        ``components (pc, unit)``, ``mean (unit)``, ``explained_variance (pc)`` and
        ``explained_variance_ratio (pc)``, and ``scores (start, time, pc)`` or ``(time, pc)``.

    Raises:
        ValueError: If the activity has another shape, fewer than two states, NaN, or no variance.
    """
    values = _activity(hidden)
    check_count(num_components, "num_components")
    rows = torch.as_tensor(values.reshape(-1, values.shape[-1]))
    if len(rows) < 2:
        raise ValueError(f"principal components need two or more states, got {len(rows)}.")
    plane = fit_plane(rows, min(num_components, *rows.shape))
    if not float(plane.variance.sum()) > 0:
        raise ValueError("all states are the same: there are no principal components.")
    data = xr.Dataset(
        {
            "components": ((PC, UNIT), array(plane.components)),
            "mean": (UNIT, array(plane.mean)),
            "explained_variance": (PC, array(plane.variance) * len(rows) / (len(rows) - 1)),
            "explained_variance_ratio": (PC, array(plane.share)),
        },
        attrs=attributes(values, num_states=len(rows)),
    )
    return data.assign(scores=project(data, values))


def project(components: xr.Dataset, hidden: Any) -> xr.DataArray:
    """Scores of activity on principal components.

    Args:
        components: From :func:`pca`.
        hidden: Activity (unit), (time, unit) or (start, time, unit).

    Returns:
        Scores with ``pc`` in place of the unit.

    Raises:
        ValueError: If the number of units differs.
    """
    values = _activity(hidden, least=1)
    if values.shape[-1] != components.sizes[UNIT]:
        raise ValueError(
            f"the components belong to {components.sizes[UNIT]} units, but hidden has {values.shape[-1]}."
        )
    scores = (values - components["mean"].values) @ components["components"].values.T
    return xr.DataArray(scores, dims=(*_DIMS[values.ndim], PC), name="scores")


def subspace_angles(first: Any, second: Any) -> xr.Dataset:
    """Principal angles between two subspaces.

    Args:
        first: Datasets from :func:`pca`, or spanning vectors (K, H) in rows.
        second: Likewise.

    Returns:
        ``angle (pc)`` in degrees, smallest first; as many as the smaller subspace has dimensions.

    Raises:
        ValueError: If the numbers of units differ.
    """
    a, b = (_vectors(basis) for basis in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the subspaces lie in spaces of {a.shape[1]} and {b.shape[1]} units.")
    angles = np.sort(np.degrees(scipy.linalg.subspace_angles(a.T, b.T)))
    return xr.Dataset({"angle": (PC, angles, {"units": "degree"})}, attrs=attributes(angles))


def _vectors(basis: Any) -> np.ndarray:
    if isinstance(basis, xr.Dataset):
        return basis["components"].values
    return np.atleast_2d(array(basis) if isinstance(basis, Tensor) else np.asarray(basis, dtype=np.float64))


def _activity(hidden: Any, least: int = 2) -> np.ndarray:
    values = array(hidden) if isinstance(hidden, Tensor) else np.asarray(hidden)
    if not least <= values.ndim <= 3:
        raise ValueError(f"hidden must be (time, unit) or (start, time, unit), got shape {values.shape}.")
    bad = ~np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=1)
    if bad.any():
        raise ValueError(
            f"hidden has {int(bad.sum())} of {len(bad)} states with NaN or infinity (first at row "
            f"{int(bad.argmax())}); leave out the trajectories that diverge."
        )
    return values
