"""Statistics of discrete sequences: frequencies, transitions, changes, dwell times, words.

Each function takes ``symbol`` with the dims (series, time) or (sample, time), as a Dataset, a DataArray or an
array; -1 marks a missing symbol, and what touches one does not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from seqdyn._arguments import check_count
from seqdyn.data.schema import SYMBOL

__all__ = ["dwell_times", "frequencies", "joint_frequencies", "transitions", "volatility", "word_frequencies"]


def frequencies(symbols: Any, num_symbols: int) -> np.ndarray:
    """Relative frequency of each symbol, pooled over all sequences, (K,)."""
    values = _checked(symbols, num_symbols)
    counts = np.bincount(values[values >= 0], minlength=num_symbols)
    return counts / max(counts.sum(), 1)


def joint_frequencies(symbols: Any, num_symbols: int, lag: int = 1) -> np.ndarray:
    """Relative frequency of each pair of symbols ``lag`` steps apart, (K, K), earlier one first."""
    counts = _pairs(_checked(symbols, num_symbols), num_symbols, lag)
    return counts / max(counts.sum(), 1)


def transitions(symbols: Any, num_symbols: int) -> np.ndarray:
    """Share of each symbol among the ones that follow a symbol, (K, K); NaN in the row of an absent one."""
    counts = _pairs(_checked(symbols, num_symbols), num_symbols, 1).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def volatility(symbols: Any) -> np.ndarray:
    """Number of changes of symbol of each sequence, (N,)."""
    values = _checked(symbols)
    known = (values[:, 1:] >= 0) & (values[:, :-1] >= 0)
    return ((values[:, 1:] != values[:, :-1]) & known).sum(axis=1)


def dwell_times(symbols: Any, num_symbols: int) -> list[np.ndarray]:
    """Lengths of the runs of each symbol, in steps.

    The first and the last run of a sequence, whose true lengths are unknown, and runs next to a missing
    symbol are left out.
    """
    values = _checked(symbols, num_symbols)
    edge = np.full((len(values), 1), -2)
    flat = np.concatenate([edge, values, edge], axis=1).ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-3))
    lengths, what = np.diff(starts, append=len(flat)), flat[starts]
    inner = np.zeros(len(what), dtype=bool)
    inner[1:-1] = (what[1:-1] >= 0) & (what[:-2] >= 0) & (what[2:] >= 0)
    return [lengths[inner & (what == symbol)] for symbol in range(num_symbols)]


def word_frequencies(symbols: Any, num_symbols: int, length: int) -> np.ndarray:
    """Relative frequency of each word of ``length`` successive symbols, (K ** length,), in lexical order."""
    values = _checked(symbols, num_symbols)
    windows = np.lib.stride_tricks.sliding_window_view(values, check_count(length, "length"), axis=1)
    code = windows @ num_symbols ** np.arange(length - 1, -1, -1)
    counts = np.bincount(code[(windows >= 0).all(axis=2)], minlength=num_symbols**length)
    return counts / max(counts.sum(), 1)


def _pairs(values: np.ndarray, num_symbols: int, lag: int) -> np.ndarray:
    """How often each symbol stands ``lag`` steps after each, (K, K)."""
    check_count(lag, "lag")
    first, second = values[:, :-lag], values[:, lag:]
    known = (first >= 0) & (second >= 0)
    code = first[known] * num_symbols + second[known]
    return np.bincount(code, minlength=num_symbols**2).reshape(num_symbols, num_symbols)


def _checked(symbols: Any, num_symbols: int | None = None) -> np.ndarray:
    if isinstance(symbols, xr.Dataset):
        if SYMBOL not in symbols:
            raise ValueError(
                f"the dataset needs the variable 'symbol', found {sorted(map(str, symbols.data_vars))}; "
                "rename yours with data.rename(NAME='symbol')."
            )
        symbols = symbols[SYMBOL]
    values = np.asarray(symbols)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(
            f"symbols must be whole numbers of shape (series, time), got {values.dtype} of shape "
            f"{values.shape}; one sequence is symbols[None]."
        )
    if num_symbols is not None and values.size and not -1 <= values.min() <= values.max() < num_symbols:
        raise ValueError(
            f"symbols must lie between 0 and {num_symbols - 1} (or be -1 where missing), got "
            f"{values.min()} to {values.max()}."
        )
    return values.astype(np.int64, copy=False)
