"""Checks of what a caller hands to a hidden Markov model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Values", "as_float64", "as_tensor", "check_features", "check_laws", "check_lengths"]

Values: TypeAlias = "Tensor | npt.ArrayLike | xr.Dataset"


def as_float64(values: Values) -> Tensor:
    """A float64 tensor; one that needs a gradient stays attached."""
    return as_tensor(values).to(torch.float64)


def as_tensor(values: Values) -> Tensor:
    """A tensor as it is; anything else as a copy, so that strides and write protection do not matter.

    Of a Dataset of sequences the ``symbol`` or ``target``, -1 or NaN where it is not observed.

    Raises:
        ValueError: If it holds no array of numbers.
    """
    if isinstance(values, Tensor):
        return values
    if hasattr(values, "data_vars"):
        values = _sequences(values)
    try:
        found = np.array(values)
    except ValueError:
        raise ValueError(
            "the series have unequal lengths; read them with seqdyn.data.read_symbols(series), or pad them to"
            " one array (series, time) with -1 for symbols and NaN for numbers."
        ) from None
    if found.dtype.kind not in "biufc":
        raise ValueError(
            f"numbers are needed, got an array of {found.dtype}; read names with "
            "seqdyn.data.read_symbols(values), which numbers them."
        )
    return torch.from_numpy(found)


def _sequences(data: Any) -> npt.ArrayLike:
    name, missing = ("symbol", -1) if "symbol" in data else ("target", np.nan)
    if name not in data:
        raise ValueError(
            f"the dataset needs 'symbol' or 'target', found {sorted(map(str, data.data_vars))}; rename yours "
            "with data.rename(NAME='symbol')."
        )
    array = data[name].transpose("series", "time", ...)
    if "observed" in data:
        array = array.where(data["observed"].transpose("series", "time", ...), missing)
    return np.asarray(array)


def check_laws(laws: Tensor, name: str) -> None:
    """Check that every row of ``laws`` (rows, columns) is a probability distribution.

    Raises:
        ValueError: Names the first row that has a negative or non-finite entry or a sum further than 1e-8
            from 1.
    """
    rows = laws.detach()
    for row, law in enumerate(rows):
        where = name if name == "initial" else f"{name}[{row}]"
        if not bool((law >= 0).all()) or not bool(law.isfinite().all()):
            raise ValueError(f"{where} must hold probabilities, got {law.tolist()}.")
        if abs(float(law.sum()) - 1) > 1e-8:
            raise ValueError(
                f"{where} must sum to 1 within 1e-8, its sum is {float(law.sum()):.12g}; divide it by its "
                "sum in float64."
            )


def check_lengths(lengths: Values | None, num_series: int, num_steps: int, device: torch.device) -> Tensor:
    """Mask (S, T) of the steps that belong to their series; all where ``lengths`` is ``None``.

    Raises:
        ValueError: If there is not one whole number from 1 to T for each series.
    """
    if lengths is None:
        return torch.ones(num_series, num_steps, dtype=torch.bool, device=device)
    ends = as_tensor(lengths).to(device)
    if ends.shape != (num_series,) or ends.is_floating_point() or ends.dtype == torch.bool:
        raise ValueError(
            f"lengths must hold one whole number for each of the {num_series} series, got shape "
            f"{tuple(ends.shape)} of {ends.dtype}."
        )
    wrong = (ends < 1) | (ends > num_steps)
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"lengths must lie between 1 and the {num_steps} steps of the array, got {int(ends[row])} for "
            f"series {row}."
        )
    return torch.arange(num_steps, device=device) < ends[:, None]


def check_features(
    values: Values, lengths: Values | None, num_features: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Check numbers (S, T, C); return them as float64, NaN after the end, and the mask of steps (S, T).

    Raises:
        ValueError: If the shape does not fit or a value within a series is infinite.
    """
    x = as_float64(values).detach().to(device)
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != num_features:
        raise ValueError(
            f"observations must have shape (series, time, {num_features}), got {tuple(x.shape)}; one series "
            "is x[None], a single feature x[..., None]."
        )
    active = check_lengths(lengths, x.shape[0], x.shape[1], device)
    x = torch.where(active[..., None], x, torch.nan)
    infinite = x.isinf()
    if infinite.any():
        raise ValueError(
            f"observations must be finite, or NaN where missing, got {float(x[infinite][0])} at (series, "
            f"time, feature) = {tuple(int(i) for i in infinite.nonzero()[0])}."
        )
    return x, active
