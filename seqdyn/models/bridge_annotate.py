"""What a bridge says of single cells, written into the AnnData that it was fitted on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from seqdyn.data.checks import plain
from seqdyn.data.schema import CONDITION, PARTICLE, TIME, X
from seqdyn.models.bridge_cells import fates

if TYPE_CHECKING:
    from seqdyn.models.bridge_view import BridgeView

__all__ = ["Particles", "annotate"]


class Particles(NamedTuple):
    """Particles of a model's training.

    Attributes:
        x: States, (N, F).
        time: Times, (N,).
        condition: Numbers of the conditions, (N,).
        number: Numbers of the particles in the training data, (N,).
    """

    x: np.ndarray
    time: np.ndarray
    condition: np.ndarray
    number: np.ndarray


def annotate(
    view: BridgeView, trained: Particles, adata: Any, data: xr.Dataset, labels: str | None, key: str
) -> Any:
    """Write drift, coordinates and fates into an AnnData; see ``SchrodingerBridge.annotate``.

    Args:
        view: The bridge.
        trained: What it was fitted on.
        adata: The AnnData.
        data: Its cells as snapshots, in the same order.
        labels: Column of ``obs`` with the labels of fates.
        key: Name for what is written.
    """
    numbers = _matched(trained, _cells(data, view, trained), view.labels, adata.obs_names)
    if labels is not None and labels not in adata.obs:
        raise ValueError(
            f"there is no column {labels!r} in obs (labels=), it holds {list(map(str, adata.obs))}; pass "
            "labels= one of them."
        )
    drift = view.drift(data, None, None)["drift"]
    arrays = {f"{key}_drift": drift.values, f"X_{key}": view.working(data[X].values)}
    components = view.component_drift(drift.values)
    if components is not None:
        arrays[f"{key}_drift_components"] = components
    facts: dict[str, Any] = {"model": "SchrodingerBridge", "drift_units": drift.attrs["units"]}
    if labels is not None:
        kinds = adata.obs[labels].iloc[np.argsort(numbers)].reset_index(drop=True)  # cells may be renamed
        fate = fates(view, kinds, None)["fate"]
        arrays[f"{key}_fate"] = fate.values[numbers]
        facts["fate_labels"] = fate["label"].values.astype(str)
    # Everything was computed: an error leaves the AnnData as it was.
    for name in (f"{key}_fate", f"{key}_drift_components"):  # of an earlier model
        adata.obsm.pop(name, None)
    for name, array in arrays.items():
        adata.obsm[name] = array
    adata.uns[key] = facts
    return adata


def _matched(trained: Particles, found: Particles, labels: list[Any], names: Sequence[str]) -> np.ndarray:
    """Number in the training data of each cell, told by condition, time and state.

    Raises:
        ValueError: If the cells are not those of the training.
    """
    if len(found.x) != len(trained.x):
        raise ValueError(
            f"the AnnData has {len(found.x)} cells, but the model was fitted on {len(trained.x)}; pass the "
            "one that it was fitted on, or the same cells of it."
        )
    before, now = (Counter(zip(p.condition.tolist(), p.time.tolist(), strict=True)) for p in (trained, found))
    if before != now:
        code, time = next(iter((before - now) or (now - before)))
        raise ValueError(
            f"the AnnData has {now[code, time]} cells at time {time:g}"
            + (f" of condition {labels[code]!r}" if labels else "")
            + f", the training data {before[code, time]}; say which column of obs holds the time= (and the "
            "condition=) that the model was fitted with."
        )
    places: dict[bytes, list[int]] = {}
    for row, number in zip(_digests(trained), trained.number.tolist(), strict=True):
        places.setdefault(row, []).append(number)
    numbers = np.empty(len(found.x), dtype=int)
    for cell, row in enumerate(_digests(found)):
        if not places.get(row):
            raise ValueError(
                f"the values of cell {names[cell]!r} at time {found.time[cell]:g} are those of no training "
                "particle; pass the AnnData as it was when the model was fitted, with the same "
                "representation=."
            )
        numbers[cell] = places[row].pop(0)
    return numbers


def _cells(data: xr.Dataset, view: BridgeView, trained: Particles) -> Particles:
    """The particles of snapshots, with the model's numbers of conditions and in its precision."""
    if view.labels and CONDITION not in data.coords:
        raise ValueError(
            f"the model was fitted on the conditions {view.labels}; say which column of obs holds them with "
            "condition=."
        )
    codes = np.zeros(data.sizes[PARTICLE], dtype=int)
    if CONDITION in data.coords:
        known, place = np.unique(data[CONDITION].values, return_inverse=True)
        codes = np.array([view.codes(plain(label))[0] for label in known])[place]
    x, time = (data[name].values.astype(trained.x.dtype) for name in (X, TIME))
    return Particles(x, time, codes, np.arange(len(x)))


def _digests(particles: Particles) -> list[bytes]:
    """A fingerprint of the condition, time and state of each particle."""
    rows = np.column_stack([particles.condition, particles.time, particles.x]) + 0.0  # no negative zero
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
