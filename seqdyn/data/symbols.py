"""Windows of discrete sequences, addressed by one number and gathered a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.schema import SERIES, SYMBOL, TIME, observed_mask

__all__ = ["SymbolWindows"]


class SymbolWindows(torch.utils.data.Dataset):
    """All windows of one length that are observed throughout.

    Args:
        data: Checked discrete sequences, ``symbol (series, time)``; where a shorter series is padded or a
            symbol is missing it is -1, or ``observed``, of the same dims, is false.
        length: Window length L in steps.
        stride: Steps between the starts of the windows of a series.

    Raises:
        ValueError: If no series is observed for ``length`` steps in a row.
    """

    def __init__(self, data: xr.Dataset, length: int, *, stride: int = 1) -> None:
        if length < 1 or stride < 1:
            raise ValueError(
                f"length and stride must be at least 1 step, got length={length}, stride={stride}."
            )
        data = data.transpose(SERIES, TIME, ...)
        symbols = data[SYMBOL].values
        observed = observed_mask(data)[..., 0]
        seen = np.pad(observed.cumsum(axis=1), ((0, 0), (1, 0)))
        whole = seen[:, length:] - seen[:, :-length] == length  # (M, T - L + 1)
        whole[:, np.arange(whole.shape[1]) % stride > 0] = False
        self._series, self._starts = np.nonzero(whole)
        if len(self._series) == 0:
            raise ValueError(
                f"a window needs {length} symbols in a row, and no series has them; choose num_steps of at "
                f"most {_longest(observed)}."
            )
        self.length = length
        self._symbols = torch.from_numpy(symbols.astype(np.int64))

    def __len__(self) -> int:
        return len(self._series)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """One batch.

        Args:
            indices: Numbers of B windows.

        Returns:
            ``symbol`` (B, L), int64.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        rows, starts = (torch.from_numpy(part[numbers]) for part in (self._series, self._starts))
        return {SYMBOL: self._symbols[rows[:, None], starts[:, None] + torch.arange(self.length)]}


def _longest(observed: np.ndarray) -> int:
    """Longest run of observed steps of any series."""
    breaks = np.diff(np.pad(observed, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.nonzero(breaks == 1)[1], np.nonzero(breaks == -1)[1]
    return int((ends - starts).max(initial=0))
