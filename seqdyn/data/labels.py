"""Labels of symbols, text or whole numbers, as codes from 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

__all__ = ["encode"]

_MAX_SYMBOLS = 1000


def encode(
    columns: Mapping[str, pd.Series], symbols: Sequence[str | int] | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Codes of the entries of columns that share their symbols.

    Args:
        columns: Entries by what a message calls them.
        symbols: Labels in the order of their codes; ``None`` takes those that occur, sorted.

    Returns:
        Codes as floats, NaN where missing, and the labels: int64, or object for text.

    Raises:
        ValueError: If an entry can be no symbol, there are too many different ones, or ``symbols`` lacks one.
    """
    known = {name: _known(column.reset_index(drop=True), name) for name, column in columns.items()}
    listed = None if symbols is None else pd.Series(list(symbols))
    numbers = all(part.dtype == np.int64 for part in (*known.values(), *([] if listed is None else [listed])))
    if not numbers:
        known = {name: part.map(str).astype(object) for name, part in known.items()}
        listed = None if listed is None else listed.map(str).astype(object)
    labels = _occurring(known) if listed is None else _checked(listed)
    index = pd.Index(labels)
    codes = [_places(index, part, len(columns[name]), name) for name, part in known.items()]
    return codes, labels


def _known(column: pd.Series, name: str) -> pd.Series:
    """The entries of a column that are not missing, with their rows: int64, or object for text."""
    dtype = column.dtype
    if isinstance(dtype, pd.PeriodDtype) or dtype.kind in "mMc":
        raise ValueError(f"{name} holds {dtype}, no symbols; name the column that does with value=.")
    if dtype.kind not in "iuf":
        text = column.astype(object).dropna()
        text = text[text != ""]
        if pd.api.types.infer_dtype(text) not in ("integer", "floating", "mixed-integer-float"):
            return text
        column = text.astype(np.float64)
    column = column.dropna()
    fraction = (column % 1 != 0).to_numpy()
    if fraction.any():
        row = int(fraction.argmax())
        raise ValueError(
            f"{name} holds {column.iloc[row]} in row {column.index[row]} ({int(fraction.sum()):,} such "
            "rows), which is neither text nor a whole number and hence no symbol; read numbers with "
            "seqdyn.data.read_sequences, or sort them into classes before: pd.cut(column, 3, labels=False)."
        )
    column = column[column != -1].astype(np.int64)
    if column.lt(0).any():
        raise ValueError(
            f"{name} holds {column[column < 0].iloc[0]} in row {column.index[column < 0][0]}; numbered "
            "symbols begin at 0, and -1 means missing: if negative numbers are labels, make them text "
            "before, column.astype(str)."
        )
    return column


def _occurring(known: Mapping[str, pd.Series]) -> np.ndarray:
    labels = np.unique(np.concatenate([part.to_numpy() for part in known.values()]))
    if len(labels) > _MAX_SYMBOLS:
        raise ValueError(
            f"{next(iter(known))} holds {len(labels):,} different values, such as {labels[:3].tolist()}, "
            f"more than {_MAX_SYMBOLS:,}: probably these are no symbols; name another column with value=, or "
            "sort the values into classes before."
        )
    if len(labels) == 0:
        raise ValueError(f"{next(iter(known))} holds no symbol at all, every entry is missing.")
    return labels


def _checked(listed: pd.Series) -> np.ndarray:
    if listed.duplicated().any():
        raise ValueError(f"symbols= lists {listed[listed.duplicated()].iloc[0]!r} twice; list each once.")
    return listed.to_numpy()


def _places(index: pd.Index, part: pd.Series, size: int, name: str) -> np.ndarray:
    """The code of each entry in its row, NaN elsewhere, (size,)."""
    codes = index.get_indexer(part)
    unknown = codes < 0
    if unknown.any():
        row = int(unknown.argmax())
        raise ValueError(
            f"{name} holds {part.iloc[row]!r} in row {part.index[row]} ({int(unknown.sum()):,} such rows), "
            f"which is not among symbols={index[:20].tolist()}; add it there, or correct the row."
        )
    full = np.full(size, np.nan)
    full[part.index] = codes
    return full
