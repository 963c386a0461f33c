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


def last_steps(
    target: Tensor, observed: Tensor, length: int, stop: int | None = None
) -> tuple[Tensor, Tensor]:
    """Of every series and feature the ``length`` steps up to its last observed one, and their mask.

    Args:
        target: Series (M, T, C).
        observed: Their mask.
        length: Number of steps K.
        stop: Look at the steps before this one; where none of them is observed, at the first K from the first
            observed one on.

    Returns:
        ``target`` and ``observed``, (M, K, C); false where there is no such step.
    """
    starts, _ = spans(observed.numpy())
    _, ends = spans(observed[:, :stop].numpy())
    ends = np.where(ends > 0, ends, starts + length)
    steps = torch.from_numpy(ends)[:, None] - length + torch.arange(length)[:, None]  # (M, K, C)
    inside = steps.clamp(0, target.shape[1] - 1)
    return target.gather(1, inside), observed.gather(1, inside) & (steps == inside)


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
