"""How good a bridge is: held-out snapshots, beside what needs no model, and families compared."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from tqdm.auto import tqdm

from seqdyn.data.marginals import Marginal, condition_labels, marginals
from seqdyn.data.schema import CONDITION, PARTICLE, TIME, X
from seqdyn.errors import ConvergenceWarning
from seqdyn.models.bridge_view import BridgeView
from seqdyn.ot import distances
from seqdyn.ot.exact import displacement
from seqdyn.rng import ambient_seed
from seqdyn.sde.chain import Reference
from seqdyn.sde.drifts import Zero
from seqdyn.sde.regression import get_parameters
from seqdyn.sde.solvers import Affine

if TYPE_CHECKING:
    from seqdyn.models.schrodinger import SchrodingerBridge

__all__ = ["METHODS", "METRICS", "compare_references", "leave_one_out", "score"]

Cloud = tuple[np.ndarray, np.ndarray | None]  # particles and their weights

METRICS: dict[str, Callable[..., float]] = {
    "w2": lambda x, y, a=None, b=None: distances.wasserstein(x, y, 2, a, b),
    "w1": lambda x, y, a=None, b=None: distances.wasserstein(x, y, 1, a, b),
    "energy": distances.energy_distance,
    "mmd2": distances.mmd,
    "swd": distances.sliced_wasserstein,
}
METHODS = ("model", "nearest", "displacement", "brownian", "floor")


def score(
    model: SchrodingerBridge,
    held_out: xr.Dataset,
    metrics: Sequence[str] | str,
    num_samples: int,
    seed: int | None,
) -> xr.Dataset:
    """Distances of several predictions to held-out snapshots; see ``SchrodingerBridge.score``."""
    metrics = _checked(metrics)
    seed = ambient_seed(seed)
    view = model.view()
    brownian = view.under(Reference(Zero(), view.chain.reference.noise, Affine()))
    found: dict[int, dict[float, np.ndarray]] = {}
    trained = []
    for part in marginals(held_out):
        code = view.codes(condition_labels(held_out)[part.condition])[0] if view.labels else 0
        if _is_trained(model, part, code):
            trained.append(part.time)
        judge = _Judge(view, brownian, part, code, num_samples, seed)
        table = [[judge.distance(method, metric) for metric in metrics] for method in METHODS]
        found.setdefault(code, {})[part.time] = np.array(table)
    if trained:
        at = ", ".join(f"{time:g}" for time in dict.fromkeys(trained))
        warnings.warn(
            f"the snapshots at {at} are training snapshots: their score says nothing of other times; leave "
            "them out of the fit, as model.leave_one_out does.",
            stacklevel=4,
        )
    scores = [
        xr.DataArray(
            np.stack(list(tables.values()), axis=1),
            {"method": list(METHODS), TIME: list(tables), "metric": list(metrics)},
            ("method", TIME, "metric"),
        )
        for tables in found.values()
    ]
    whole = scores[0]
    if view.labels:
        names = xr.DataArray([view.labels[code] for code in found], dims=CONDITION, name=CONDITION)
        whole = xr.concat(scores, dim=names, join="outer")
    attrs = {"model": type(model).__name__, "num_samples": num_samples, "seed": seed}
    return xr.Dataset({"score": whole}, attrs=attrs)


def _is_trained(model: SchrodingerBridge, part: Marginal, code: int) -> bool:
    """Whether all particles of a snapshot are training particles of its condition and time."""
    time = torch.as_tensor(part.time).to(model.snapshot_time)
    here = (model.snapshot_time == time) & (model.snapshot_condition == code)
    x = torch.as_tensor(part.x).to(model.snapshot_x)
    known, given = (
        Counter(row.tobytes() for row in rows.cpu().numpy()) for rows in (model.snapshot_x[here], x)
    )
    return given <= known


class _Judge:
    """Predictions of one held-out snapshot, and their distances to it.

    Where the model works on principal components everything is compared there.
    """

    def __init__(
        self, view: BridgeView, brownian: BridgeView, part: Marginal, code: int, num_samples: int, seed: int
    ) -> None:
        self._view, self._time, self._code = view, part.time, code
        self._num_samples, self._seed = num_samples, seed
        self._truth = view.compared(torch.as_tensor(part.x)), part.weight
        self._clouds: dict[str, list[Cloud]] = {
            "model": [(self._drawn(view), None)],
            "brownian": [(self._drawn(brownian), None)],
            "nearest": [*view.neighbours(part.time, code)],
            "displacement": self._displacement(),
        }

    def distance(self, method: str, metric: str) -> float:
        """Distance of a method's prediction, NaN where it has none; of the nearer of two neighbours."""
        compare, (truth, weights) = METRICS[metric], self._truth
        if method == "floor":
            if int((weights > 0).sum()) < 4:
                return np.nan

            def between(*halves: np.ndarray) -> float:
                return _distance(compare, *halves)

            return distances.split_half(truth, between, weights=weights).mean
        found = [_distance(compare, x, truth, own, weights) for x, own in self._clouds[method]]
        return min(found, default=np.nan)

    def _drawn(self, view: BridgeView) -> np.ndarray:
        condition = view.labels[self._code] if view.labels else None
        last = view.times_of(self._code)[-1]
        if self._time > last:
            paths = view.forecast(self._time, "last", self._num_samples, self._seed, condition)
        else:
            paths = view.population(self._time, self._num_samples, self._seed, condition)
        return view.compared(torch.as_tensor(paths[X].values[:, 0]))

    def _displacement(self) -> list[Cloud]:
        around = self._view.neighbours(self._time, self._code)
        if len(around) < 2:
            return []
        times = self._view.times_of(self._code)
        after = int(np.searchsorted(times, self._time))
        share = (self._time - times[after - 1]) / (times[after] - times[after - 1])
        (x, a), (y, b) = around
        return [displacement(x, y, share, a, b)]


def _distance(
    compare: Callable[..., float], x: np.ndarray, y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None
) -> float:
    """A distance; NaN where particles would have to differ, with weight, for a U-statistic or a bandwidth."""
    is_statistic = compare in (distances.energy_distance, distances.mmd)
    if is_statistic and min(len(x), len(y)) < 2:
        return np.nan
    try:
        return compare(x, y, a, b)
    except ValueError:  # the clouds were checked before; these two also need a spread
        if not is_statistic:
            raise
        return np.nan


def leave_one_out(
    model: SchrodingerBridge,
    snapshots: xr.Dataset,
    metrics: Sequence[str] | str,
    num_samples: int,
    seed: int | None,
    max_epochs: int,
    progress: bool,
) -> xr.Dataset:
    """Scores of each inner snapshot under a fit without it; see ``SchrodingerBridge.leave_one_out``."""
    inner, _ = _inner_and_last(snapshots)
    times = np.unique(snapshots[TIME].values[inner]).tolist()
    seed = ambient_seed(seed)
    scores = []
    for time in tqdm(times, desc="snapshots left out", leave=False, disable=None if progress else True):
        left = inner & (snapshots[TIME].values == time)
        fresh = _fitted(model.fresh(), snapshots.isel({PARTICLE: ~left}), seed, max_epochs)
        scores.append(
            fresh.score(snapshots.isel({PARTICLE: left}), metrics, num_samples=num_samples, seed=seed)
        )
    found = xr.concat(scores, dim=TIME, join="outer", combine_attrs="override")
    labels = condition_labels(snapshots)
    if labels:  # in the order of the data; the outer join has sorted them
        found = found.sel({CONDITION: [name for name in labels if name in found[CONDITION].values]})
    return found


def compare_references(
    model: SchrodingerBridge,
    snapshots: xr.Dataset,
    references: Mapping[str, nn.Module | str],
    metrics: Sequence[str] | str,
    num_samples: int,
    seed: int | None,
    max_epochs: int,
    progress: bool,
) -> xr.Dataset:
    """A table of families on the same data; see ``SchrodingerBridge.compare_references``."""
    if not isinstance(references, Mapping) or not references:
        raise ValueError(
            "references must map a name to each family: {'linear': Linear(2), 'zero': Zero()}; got "
            f"{type(references).__name__}."
        )
    seed = ambient_seed(seed)
    _, last = _inner_and_last(snapshots)
    rows = []
    for name in tqdm(references, desc="references", leave=False, disable=None if progress else True):
        whole = _fitted(model.fresh(reference=references[name]), snapshots, seed, max_epochs)
        inner = whole.leave_one_out(
            snapshots,
            metrics=metrics,
            num_samples=num_samples,
            seed=seed,
            max_epochs=max_epochs,
            progress=False,
        )
        of_model = inner["score"].sel({"method": "model"}, drop=True)
        row = {
            "divergence": float(whole.divergence),
            "num_parameters": len(get_parameters(whole.process)),
            "left_out": of_model.mean([dim for dim in of_model.dims if dim != "metric"]),
            "left_out_sd": of_model.std([dim for dim in of_model.dims if dim != "metric"], ddof=1),
        }
        before = _fitted(
            model.fresh(reference=references[name]), snapshots.isel({PARTICLE: ~last}), seed, max_epochs
        )
        ahead = before.score(snapshots.isel({PARTICLE: last}), metrics, num_samples=num_samples, seed=seed)
        mean = ahead["score"].sel({"method": "model"}, drop=True)
        row["forecast_back"] = mean.mean([dim for dim in mean.dims if dim != "metric"])
        rows.append(xr.Dataset(row))
    names = xr.DataArray(list(references), dims="reference", name="reference")
    table = xr.concat(rows, dim=names)
    table.attrs = {"model": type(model).__name__, "seed": seed, "num_samples": num_samples}
    return table


def _inner_and_last(snapshots: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which particles (P,) are in an inner snapshot of their condition, and which in its last.

    A condition with two snapshots has neither: it needs both.

    Raises:
        ValueError: If every condition is such.
    """
    times = snapshots[TIME].values
    inner, last = np.zeros(len(times), dtype=bool), np.zeros(len(times), dtype=bool)
    labels = snapshots[CONDITION].values if CONDITION in snapshots.coords else np.zeros(len(times))
    for label in dict.fromkeys(labels.tolist()):
        here = labels == label
        known = np.unique(times[here])
        if len(known) > 2:
            inner |= here & (times > known[0]) & (times < known[-1])
            last |= here & (times == known[-1])
    if not inner.any():
        raise ValueError(
            f"leaving one snapshot out needs three or more times, got {np.unique(times).tolist()} and no "
            "more than two in any condition; hold one back from a later experiment, or score by "
            "model.score(held_out)."
        )
    return inner, last


def _fitted(model: Any, snapshots: xr.Dataset, seed: int, max_epochs: int) -> Any:
    with _muted():
        return model.fit(snapshots, max_epochs=max_epochs, seed=seed, enable_progress_bar=False)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Say nothing of fits that are parts of something else."""
    logger = logging.getLogger("seqdyn")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "not at rest", ConvergenceWarning)
            yield
    finally:
        logger.setLevel(level)


def _checked(metrics: Sequence[str] | str) -> list[str]:
    """The names of metrics, of which one may stand alone."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    if not names or any(name not in METRICS for name in names):
        raise ValueError(
            f"metrics must list some of {tuple(METRICS)}, got {metrics!r}; for instance ('w2',)."
        )
    return names
