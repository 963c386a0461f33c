"""Cutting stretches out of sequences: padded ends, and windows that cover the gaps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.schema import TARGET, observed_mask
from seqdyn.data.spans import spans

__all__ = ["Tile", "cover_gaps", "cut", "last_steps", "to_tensors"]


class Tile(NamedTuple):
    """A window of one series and the steps it answers for."""

    series: int
    start: int  # first step of the window; negative where the series is shorter than a window
    first: int
    stop: int
    offset: int  # of the start from the first observed step: the same whatever other series are there


def to_tensors(data: xr.Dataset, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Checked sequences as ``target``, zero where missing, and the mask ``observed``, both (M, T, C)."""
    observed = observed_mask(data)
    values = np.where(observed, data[TARGET].values, 0.0)
    return torch.as_tensor(values, dtype=dtype), torch.from_numpy(observed)


def cut(values: Tensor, start: int, stop: int) -> Tensor:
    """Steps ``start`` to ``stop`` of ``values`` (..., T, C); steps outside the series are zero (false)."""
    steps = values.shape[-2]
    inside = values[..., max(start, 0) : max(min(stop, steps), 0), :]
    before, after = min(max(-start, 0), stop - start), min(max(stop - steps, 0), stop - start)
    return torch.nn.functional.pad(inside, (0, 0, before, after))


def last_steps(target: Tensor, observed: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The last ``length`` steps of every series and feature (M, T, C) up to its own end, and their mask.

    Steps before the beginning are zero (false).
    """
    _, ends = spans(observed.numpy())
    steps = torch.from_numpy(ends)[:, None] - length + torch.arange(length)[:, None]  # (M, length, C)
    inside = steps.clamp(min=0)
    return target.gather(1, inside), observed.gather(1, inside) & (steps >= 0)


def cover_gaps(observed: np.ndarray, length: int) -> list[Tile]:
    """Windows that cover every gap, overlapping by half, each answering for the steps nearest to its middle.

    Args:
        observed: Mask, (M, T, C); steps before a series' first and after its last observed one are not gaps.
        length: Window length L.

    Returns:
        The windows that have a gap among the steps they answer for.
    """
    tiles = []
    for series, mask in enumerate(observed):
        complete, present = np.all(mask, axis=-1), np.flatnonzero(np.any(mask, axis=-1))
        if not len(present):
            continue
        begin, end = int(present[0]), int(present[-1]) + 1
        for offset, first, stop in _windows(end - begin, length):
            if not complete[begin + first : begin + stop].all():
                tiles.append(Tile(series, begin + offset, begin + first, begin + stop, offset))
    return tiles


def _windows(steps: int, length: int) -> list[tuple[int, int, int]]:
    """Start of each window over a series, and the steps it answers for, as (start, first, stop)."""
    stride = max(1, length // 2)
    starts = [*range(0, steps - length, stride), steps - length] if steps > length else [steps - length]
    centres = np.array(starts) + length / 2
    edges = [0, *np.ceil((centres[1:] + centres[:-1]) / 2).astype(int).tolist(), steps]
    return list(zip(starts, edges[:-1], edges[1:], strict=True))
