r"""Answers for single particles: what each one becomes, and where those of a kind come from.

The bridge is a Markov chain through the snapshots. Onwards it is the law of the next particle given one,
backwards that of the one before,

.. math::
    p_k(j | i) = \frac{\pi_k(i, j)}{\sum_{j'} \pi_k(i, j')}, \qquad
    q_k(i | j) = \frac{\pi_k(i, j)}{\sum_{i'} \pi_k(i', j)} ,

and both are composed from snapshot to snapshot. Where particles multiply, the first follows one descendant of
a particle, and at each division either daughter is as likely: a fate is what a particle turns into, not how
many its descendants are. The second follows a particle of the last snapshot back to its ancestors, of which
there is but one at any time. Without growth :math:`w_i p(l | i) = q(i | l) \sum_{i'} w_{i'} p(l | i')`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.names import CELL
from seqdyn.data.schema import PARTICLE

if TYPE_CHECKING:
    from seqdyn.models.bridge_view import BridgeView

__all__ = ["ancestors", "fates"]

LABEL = "label"


class _Kinds(NamedTuple):
    """Labels of the particles of the last snapshot of each condition.

    Attributes:
        names: The labels, (L,).
        marks: For each condition an indicator (N, L).
    """

    names: np.ndarray
    marks: dict[int, np.ndarray]


def fates(view: BridgeView, labels: Any, condition: Any) -> xr.Dataset:
    """Law of the final label of each particle; see ``SchrodingerBridge.fates``."""
    codes = view.codes(condition)
    kinds = _kinds(view, labels, codes)
    found = {}
    for code in codes:
        here = kinds.marks[code]
        found[view.marginals_of(code)[-1]] = here
        for marginal, _, onward in reversed(list(view.steps(code))):
            here = onward @ here
            found[marginal] = here
    values, coords = _by_particle(view, found)
    attrs = {"long_name": "probability of the label at the last snapshot"}
    return view.dataset({"fate": ((PARTICLE, LABEL), values, attrs)}, coords | {LABEL: kinds.names})


def ancestors(view: BridgeView, labels: Any, condition: Any) -> xr.Dataset:
    """Law of the ancestors of each label; see ``SchrodingerBridge.ancestors``."""
    codes = view.codes(condition)
    kinds = _kinds(view, labels, codes)
    found = {}
    for code in codes:
        last = view.marginals_of(code)[-1]
        weight = view.snapshots.weight[last].cpu().numpy()
        here = _shares(kinds.marks[code] * weight[:, None], empty=np.nan)
        found[last] = here
        for marginal, plan, _ in reversed(list(view.steps(code))):
            here = _shares(plan, empty=0.0) @ here
            found[marginal] = here
    values, coords = _by_particle(view, found)
    attrs = {"long_name": "share of the label's ancestors, in each snapshot"}
    return view.dataset({"ancestry": ((LABEL, PARTICLE), values.T, attrs)}, coords | {LABEL: kinds.names})


def _shares(mass: np.ndarray, *, empty: float) -> np.ndarray:
    """Columns divided by their sums; ``empty`` where that is 0."""
    total = mass.sum(axis=0)
    return np.where(total == 0, empty, mass / np.where(total == 0, 1.0, total))


def _by_particle(view: BridgeView, found: dict[int, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
    """Values (P, L) of marginals in the order of the training data, and their coordinates."""
    parts = list(found)
    numbers = np.concatenate([view.names_of(part) for part in parts])
    sizes = [len(found[part]) for part in parts]
    times = np.repeat(view.snapshots.time[parts].cpu().numpy(), sizes)
    codes = np.repeat(view.snapshots.condition[parts].cpu().numpy(), sizes)
    order = np.argsort(numbers)
    coords = {PARTICLE: numbers[order]} | view.particle_coords(times[order], codes[order])
    if view.cells is not None:
        coords[CELL] = (PARTICLE, view.cells[numbers[order]])
    return np.concatenate([found[part] for part in parts])[order], coords


def _kinds(view: BridgeView, labels: Any, codes: list[int]) -> _Kinds:
    last = {code: view.marginals_of(code)[-1] for code in codes}
    numbers = np.concatenate([view.names_of(marginal) for marginal in last.values()])
    order = np.argsort(numbers)
    kinds = _categories(labels, numbers[order], sum(map(len, view.snapshots.x)), view.cells)
    marks = np.empty((len(numbers), len(kinds.categories)))
    marks[order] = np.eye(len(kinds.categories))[kinds.codes]
    sizes = [len(view.snapshots.x[marginal]) for marginal in last.values()]
    split = np.split(marks, np.cumsum(sizes)[:-1])
    return _Kinds(np.asarray(kinds.categories), dict(zip(codes, split, strict=True)))


def _categories(labels: Any, numbers: np.ndarray, total: int, cells: np.ndarray | None) -> pd.Categorical:
    """Labels of the particles with these numbers, from as many labels or from those of all particles.

    Where both name their cells, they are told by these names.

    Raises:
        ValueError: If there are neither as many nor as many as particles, or one is missing.
    """
    if isinstance(labels, xr.Dataset):
        if LABEL not in labels.variables:
            raise ValueError(
                f"a Dataset of labels needs the variable 'label', found {sorted(map(str, labels.variables))};"
                " pass the variable itself: labels=data['NAME']."
            )
        labels = labels[LABEL]
    if isinstance(labels, str) or np.ndim(labels) != 1:
        raise ValueError(
            f"labels must be one label per particle, got {labels!r:.60}; pass a column of them, such as "
            "labels=adata.obs['cell_type']."
        )
    if cells is not None:
        labels = _in_order(labels, cells[numbers], cells)
    values = pd.Categorical(labels.values if isinstance(labels, xr.DataArray) else labels)
    if len(values) not in (len(numbers), total):
        raise ValueError(
            f"there are {len(values)} labels, but {len(numbers)} particles in the last snapshot and {total} "
            "in all; give one label for each of either, in the order of the training data."
        )
    where = numbers if len(values) == total else np.arange(len(numbers))
    chosen = values[where]
    missing = chosen.codes < 0
    if missing.any():
        raise ValueError(
            f"labels[{int(where[missing.argmax()])}] is missing ({int(missing.sum())} in the last snapshot); "
            "give these particles a label too, such as 'unknown'."
        )
    return chosen.remove_unused_categories()


def _in_order(labels: Any, last: np.ndarray, cells: np.ndarray) -> Any:
    """Labels that name their cells, in the order of the last snapshot; others as they are.

    Raises:
        ValueError: If a cell of the last snapshot is not there once.
    """
    if isinstance(labels, xr.DataArray) and CELL in labels.coords:
        labels = pd.Series(labels.values, index=labels[CELL].values)
    if not isinstance(labels, pd.Series) or _only_counts(labels.index):
        return labels
    if any(labels.index.equals(pd.Index(known)) for known in (last, cells)):
        return labels  # in order already, even where names occur twice
    count = pd.Index(last).map(labels.index.value_counts()).fillna(0).to_numpy()
    if (count != 1).any():
        first = int((count != 1).argmax())
        raise ValueError(
            f"the index of the labels holds the cell {last[first]!r} of the last snapshot "
            f"{int(count[first])} times, but must name each cell once, as in {labels.index[:3].tolist()} "
            "...; pass adata.obs[...] of the AnnData of the fit, or labels.values if they are in its order."
        )
    return labels.reindex(last)


def _only_counts(index: pd.Index) -> bool:
    """Whether an index says no more than the row."""
    return pd.api.types.is_integer_dtype(index.dtype) and bool((index == np.arange(len(index))).all())
