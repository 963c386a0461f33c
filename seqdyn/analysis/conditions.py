"""A batch of inputs is a set of conditions: a tool runs under each of them, under the same noise.

``input=`` of shape (X,) is a constant input that is added to the noise. A batch (B, X) makes one result of B:
every variable gets the dim ``condition``, first, and ``condition_input (condition, input)`` says which is
which. Labels that are text (``direction``, ``pair``) are joined, and what a condition lacks is filled: NaN in
numbers, 0 in counts, -1 in symbols and ranks, false in truth values, "" in text; without labels (``dwell``)
it is filled at the end. Labels that are numbers and differ (``bin_pc1``) become the variable
``bin_pc1_value (condition, bin_pc1)``; attributes that differ become variables along ``condition``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ParamSpec

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.analysis.common import INPUT, array
from seqdyn.errors import NonFiniteError
from seqdyn.rng import ambient_seed

__all__ = ["CONDITION", "over_conditions", "stacked"]

CONDITION = "condition"
# Whole numbers that name something, so that 0 would be a false answer.
_NAMES = {"after", "before", "dwell_regime", "kick_rank", "symbol"}

P = ParamSpec("P")


def over_conditions(tool: Callable[P, xr.Dataset]) -> Callable[P, xr.Dataset]:
    """Let a tool with the argument ``input`` take a batch of inputs, see above."""
    seeded = "seed" in inspect.signature(tool).parameters

    @functools.wraps(tool)
    def under_each(*args: P.args, **kwargs: P.kwargs) -> xr.Dataset:
        input: Any = kwargs.get("input")
        if input is None or np.ndim(input) < 2:
            return tool(*args, **kwargs)
        rows = input.detach() if isinstance(input, Tensor) else np.asarray(input)
        if rows.ndim > 2 or len(rows) == 0:
            raise ValueError(
                "input must be one constant input (X,) or a batch of conditions (B, X), got shape "
                f"{tuple(rows.shape)}."
            )
        own: dict[str, Any] = {**kwargs}
        if seeded:
            own["seed"] = ambient_seed(own.get("seed"))
        results = []
        for number, row in enumerate(rows):
            try:
                results.append(tool(*args, **{**own, "input": row}))  # type: ignore[arg-type]
            except (ValueError, NonFiniteError) as error:
                raise type(error)(f"under condition {number} of {len(rows)}, {row}: {error}") from error
        values = array(rows) if isinstance(rows, torch.Tensor) else rows
        return stacked(results).assign(condition_input=((CONDITION, INPUT), values))

    return under_each


def stacked(results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Results of one tool as one Dataset with the dim ``condition``, see above."""
    labels = _labels(results)
    sizes = {dim: max(data.sizes.get(dim, 0) for data in results) for data in results for dim in data.dims}
    sizes |= {dim: len(values) for dim, values in labels.items()}
    places = [_places(data, labels) for data in results]
    names = list(dict.fromkeys(name for data in results for name in data.data_vars))
    out = xr.Dataset({name: _stack(name, results, places, sizes) for name in names}, coords=labels)
    coords = list(dict.fromkeys(name for data in results for name in data.coords if name not in labels))
    for name in coords:
        own = [data[name].variable for data in results if name in data.coords]
        if all(variable.equals(own[0]) for variable in own):
            out = out.assign_coords({name: own[0]})
        elif name in sizes:
            out[f"{name}_value"] = _stack(name, results, places, sizes)
        else:
            out = out.assign_coords({name: _stack(name, results, places, sizes)})
    return _with_attrs(out, [data.attrs for data in results])


def _labels(results: Sequence[xr.Dataset]) -> dict[Hashable, np.ndarray]:
    """Labels in text of each dim, in all results: in their order if that is the same, sorted otherwise."""
    found: dict[Hashable, np.ndarray] = {}
    for dim in dict.fromkeys(name for data in results for name in data.dims if name in data.coords):
        parts = [data[dim].values for data in results if dim in data.coords]
        if parts[0].dtype.kind in "UO":
            same = all(np.array_equal(part, parts[0]) for part in parts)
            found[dim] = parts[0] if same else np.unique(np.concatenate(parts))
    return found


def _places(data: xr.Dataset, labels: dict[Hashable, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """Where along each dim of the whole a result's own entries stand."""
    places: dict[Hashable, np.ndarray] = {dim: np.arange(size) for dim, size in data.sizes.items()}
    for dim, values in labels.items():
        if dim in data.coords:
            number = {label: place for place, label in enumerate(values.tolist())}
            places[dim] = np.array([number[label] for label in data[dim].values.tolist()], dtype=int)
    return places


def _stack(
    name: Hashable,
    results: Sequence[xr.Dataset],
    places: Sequence[dict[Hashable, np.ndarray]],
    sizes: dict[Hashable, int],
) -> xr.Variable:
    known = [data[name].variable for data in results if name in data.variables]
    dims = known[0].dims
    dtype = np.result_type(*(variable.dtype for variable in known))
    out = np.full((len(results), *(sizes[dim] for dim in dims)), _fill(name, dtype), dtype=dtype)
    for number, (data, place) in enumerate(zip(results, places, strict=True)):
        if name in data.variables:
            out[np.ix_(np.array([number]), *(place[dim] for dim in dims))] = data[name].values[None]
    return xr.Variable((CONDITION, *dims), out, known[0].attrs)


def _fill(name: Hashable, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        return -1 if name in _NAMES else 0
    return {"b": False, "U": "", "O": ""}.get(dtype.kind, np.nan)


def _with_attrs(data: xr.Dataset, attrs: Sequence[dict[str, Any]]) -> xr.Dataset:
    for name in dict.fromkeys(name for own in attrs for name in own):
        values = [own.get(name) for own in attrs]
        if all(repr(value) == repr(values[0]) for value in values):
            data.attrs[name] = values[0]
        if name in data or name in data.attrs:
            continue
        text = any(isinstance(value, str) for value in values)
        missing = "" if text else np.nan
        data[name] = (CONDITION, np.array([missing if value is None else value for value in values]))
    return data
