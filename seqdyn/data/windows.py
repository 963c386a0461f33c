"""Fixed-length windows of many series, addressed by one number and gathered a batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.schema import COVARIATES, OBSERVED, SERIES, TARGET, observed_mask
from seqdyn.data.spans import spans

__all__ = ["SequenceWindows"]

logger = logging.getLogger("seqdyn")


class SequenceWindows(torch.utils.data.Dataset):
    """All windows of one length inside a sequence dataset.

    A window lies between the first and the last observed step of its series and holds at least one observed
    step; missing steps inside are allowed. Windows are numbered by series, then by start. No list of them is
    kept: a number is looked up in the cumulative counts of the stretches of admissible starts.

    Args:
        data: Checked sequences, ``target (series, time, feature)``.
        length: Window length L in steps.
        stride: Steps between the starts of windows of a series, counted back from its last one, which is
            always there.

    Raises:
        ValueError: If no series is long enough.
    """

    def __init__(self, data: xr.Dataset, length: int, *, stride: int = 1) -> None:
        if length < 1 or stride < 1:
            raise ValueError(
                f"length and stride must be at least 1 step, got length={length}, stride={stride}."
            )
        mask = observed_mask(data)
        series, first, last = _stretches(np.any(mask, axis=2), length)
        _check_lengths(data, mask, length, series)
        self.length = length
        self._stride = stride
        self._series, self._last = series, last
        self._ends = np.cumsum((last - first) // stride + 1)
        with np.errstate(over="ignore"):  # only values that are marked missing may be too large
            values = np.array(data[TARGET].values, dtype=np.float32, order="C")
        # Missing values are zero, so that no NaN can reach a product with the mask.
        values[~mask] = 0.0
        self._target = torch.from_numpy(values)
        self._observed = None if mask.all() else torch.from_numpy(mask)
        self._covariates = None
        if COVARIATES in data:
            self._covariates = torch.tensor(data[COVARIATES].values.astype(np.float32))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Series and start, both (B,), of windows given by number.

        Raises:
            IndexError: If a number is outside 0 … len - 1.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        if numbers.size and not (0 <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(
                f"window numbers must lie in 0 … {len(self) - 1}, got {numbers.min()} … {numbers.max()}."
            )
        stretch = np.searchsorted(self._ends, numbers, side="right")
        back = self._ends[stretch] - 1 - numbers  # strides before the stretch's last start
        return self._series[stretch], self._last[stretch] - back * self._stride

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """One batch.

        Args:
            indices: Numbers of B windows.

        Returns:
            ``target`` (B, L, C), zero where missing; ``observed`` (B, L, C), bool; ``series`` (B,), position
            along the dim; ``start`` (B,), first time step; ``covariates`` (B, L, F) if the data have them.
        """
        series, start = (torch.from_numpy(part) for part in self.locate(indices))
        rows, steps = series[:, None], start[:, None] + torch.arange(self.length)
        target = self._target[rows, steps]
        observed = (
            torch.ones_like(target, dtype=torch.bool)
            if self._observed is None
            else self._observed[rows, steps]
        )
        batch = {TARGET: target, OBSERVED: observed, SERIES: series, "start": start}
        if self._covariates is not None:
            batch[COVARIATES] = self._covariates[rows, steps]
        return batch


def _stretches(steps: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretches of admissible starts: series, first and last start of each, in order.

    Args:
        steps: Whether anything is observed, (M, T).
        length: Window length.
    """
    seen_at_all: np.ndarray = np.any(steps, axis=1)
    first, end = spans(steps)
    found = [np.stack([np.arange(len(steps)), first, end - length], axis=1)]
    gappy = np.flatnonzero(seen_at_all & (steps.sum(axis=1) <= end - first - length))
    for i in gappy:  # only a gap of a whole window splits a series
        seen = np.flatnonzero(steps[i])
        cuts = np.flatnonzero(np.diff(seen) > length)
        firsts = np.concatenate([seen[:1], seen[cuts + 1] - length + 1])
        lasts = np.concatenate([seen[cuts], [end[i] - length]])
        found.append(np.stack([np.full(len(firsts), i), firsts, lasts], axis=1))
    found[0] = np.delete(found[0], gappy, axis=0)
    table = np.concatenate(found)
    table = table[(table[:, 2] >= table[:, 1]) & seen_at_all[table[:, 0]]]
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    return table[:, 0], table[:, 1], table[:, 2]


def _check_lengths(data: xr.Dataset, mask: np.ndarray, length: int, series: np.ndarray) -> None:
    """Say which series are too short for a window, and stop if all are."""
    count = data.sizes[SERIES]
    short = np.setdiff1d(np.arange(count), series)
    if len(short) == 0:
        return
    start, end = spans(np.any(mask[short], axis=2))
    longest = int((end - start).argmax())
    steps = (end - start)[longest]
    label = data[SERIES].values.tolist()[short[longest]]
    if len(short) == count:
        raise ValueError(
            f"a window needs {length} steps, but the longest series ({label!r}) has {steps} from its first "
            "to its last observed step; choose context_length, prediction_length and lags that need at most "
            f"{steps} together: max(lags) + context_length + prediction_length."
        )
    logger.warning(
        "%d of %d series have fewer than the %d steps of a window and are left out of training (the "
        "longest of them, "
        "%s, has %d).", len(short), count, length, label, steps,
    )  # fmt: skip
