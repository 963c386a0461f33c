"""Which column of a table plays which part, and columns as numbers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from seqdyn.data.stamps import looks_like_dates

__all__ = [
    "TIME_NAMES",
    "Columns",
    "as_list",
    "assign_columns",
    "find_column",
    "find_series",
    "flat_frame",
    "infer_time",
    "numbers_rows",
    "to_numbers",
]

TIME_NAMES = (
    "time", "date", "ds", "timestamp", "datetime", "date_time", "datum", "period",
    "quarter", "month", "week", "day", "hour", "year", "t",
)  # fmt: skip
_SERIES_NAMES = ("series", "series_id", "series_name", "id", "unique_id", "item_id", "item", "ts_id", "name")
_VALUE_NAMES = ("target", "value", "values", "y")


class Columns(NamedTuple):
    """The parts of a table; where ``wide``, each of the ``value`` columns is a series."""

    time: Any | None
    series: list[Any]
    value: list[Any]
    covariates: list[Any]
    wide: bool
    notes: list[str]


def flat_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as columns, unless the index only numbers the rows."""
    if frame.columns.nlevels > 1:
        raise ValueError(
            "the columns have several levels; flatten them first, for instance frame.columns = "
            "['-'.join(map(str, c)) for c in frame.columns]."
        )
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"the column name {name!r} occurs more than once; rename one of the columns.")
    index = frame.index
    if index.nlevels == 1 and index.name is None and pd.api.types.is_integer_dtype(index.dtype):
        return frame.reset_index(drop=True)
    if index.nlevels == 1 and index.name is None:
        frame = frame.rename_axis("time" if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) else "index")
    clash = [name for name in frame.index.names if name in frame.columns]
    if clash:
        raise ValueError(
            f"{clash[0]!r} is a column and a level of the index; drop one: frame.reset_index(drop=True)."
        )
    return frame.reset_index()


def find_column(frame: pd.DataFrame, name: Any, argument: str) -> Any:
    """Return ``name`` if it is a column, else say which there are.

    Raises:
        ValueError: If it is not.
    """
    if name in frame.columns:
        return name
    names = [str(column) for column in frame.columns]
    close = [other for other in names if other.strip().lower() == str(name).strip().lower()]
    close = close or difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    hint = f"; did you mean {argument}={close[0]!r}?" if close else f"; pass {argument}= one of them."
    raise ValueError(f"there is no column {name!r} ({argument}=), the columns are {listed}{hint}")


def assign_columns(
    frame: pd.DataFrame,
    *,
    time: Any | None = None,
    series: Any | Sequence[Any] | None = None,
    value: Any | Sequence[Any] | None = None,
    covariates: Any | Sequence[Any] = (),
) -> Columns:
    """Settle the parts that arguments leave open by name and content, and note what was inferred.

    Raises:
        ValueError: If a named column is missing, or a part cannot be told.
    """
    notes: list[str] = []
    fixed_covariates = [find_column(frame, name, "covariates") for name in as_list(covariates)]
    fixed_series = [find_column(frame, name, "series") for name in as_list(series)]
    fixed_value = [find_column(frame, name, "value") for name in as_list(value)]
    taken = {*fixed_covariates, *fixed_series, *fixed_value}
    free = [name for name in frame.columns if name not in taken]
    if time is None:
        time = infer_time(frame, free)
        notes.append(
            "no time column found, steps are numbered" if time is None else f"time is column {time!r}"
        )
    else:
        find_column(frame, time, "time")
    free = [name for name in free if name != time]
    row_numbers = [name for name in free if numbers_rows(frame[name], name)]
    free = [name for name in free if name not in row_numbers]
    notes += [f"column {name!r} numbers the rows and is left out" for name in row_numbers]
    if not fixed_series:
        inferred = _infer_series(frame, free, time)
        if inferred is not None:
            fixed_series = [inferred]
            notes.append(f"series are told apart by column {inferred!r}")
            free.remove(inferred)
    if fixed_series and time is None:
        raise ValueError(
            f"a table with several series (column {fixed_series[0]!r}) needs a time column; pass time= one "
            f"of {[str(name) for name in frame.columns]}."
        )
    if fixed_series and not fixed_value:
        fixed_value = [_infer_value(frame, free, notes)]
    wide = not fixed_value
    value_columns = _wide_columns(frame, free, notes) if wide else fixed_value
    return Columns(time, fixed_series, value_columns, fixed_covariates, wide, notes)


def to_numbers(column: pd.Series) -> np.ndarray:
    """A column as floats with NaN where missing; float32 stays float32.

    Raises:
        ValueError: If an entry is no real number or is infinite; names it with its row.
    """
    name, dtype = column.name, column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
        raise ValueError(
            f"column {name!r} holds {dtype}, not numbers; convert it, for instance frame[{name!r}].dt.hour."
        )
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(
            f"column {name!r} holds complex numbers; give real and imaginary part as two columns."
        )
    if pd.api.types.is_numeric_dtype(dtype):
        values = column.to_numpy(dtype=np.float32 if dtype == np.float32 else np.float64, na_value=np.nan)
    else:
        values = _parse_numbers(column)
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"column {name!r} is infinite in row {int(infinite.argmax())} ({int(infinite.sum())} such rows, "
            f"the first row is 0); repair it or count it as missing: frame[{name!r}].replace([np.inf, "
            "-np.inf], np.nan)."
        )
    return values


def _parse_numbers(column: pd.Series) -> np.ndarray:
    values = pd.to_numeric(column.astype(object), errors="coerce")
    bad = (values.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        text = str(column.iloc[row]).strip()
        if text.replace(",", "", 1).replace("-", "", 1).isdigit() and "," in text:
            remedy = "pass decimal=',' (or thousands=',') when reading a CSV"
        elif bad.sum() < len(bad) / 2:
            remedy = f"repair it, or count it as missing with na_values=[{text!r}] when reading a CSV"
        else:
            remedy = "leave that column out, or name the columns to use with series= and value="
        raise ValueError(
            f"column {column.name!r} is not numeric: row {row} is {text!r} ({int(bad.sum())} such rows, the "
            f"first row is 0); {remedy}."
        )
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def as_list(names: Any) -> list[Any]:
    """Names of columns, one or several, as a list."""
    if names is None:
        return []
    return list(names) if isinstance(names, list | tuple | np.ndarray | pd.Index) else [names]


def infer_time(frame: pd.DataFrame, free: list[Any]) -> Any | None:
    """The first of ``free`` that holds dates or is called time."""
    lower = {str(name).strip().lower(): name for name in reversed(free)}
    dates = [name for name in free if _is_date(frame[name])]
    named = [lower[name] for name in TIME_NAMES if name in lower]
    # A column that is called "date" and holds dates first; then dates; then numbers that are called time.
    for name in (*(n for n in named if n in dates), *dates, *named):
        if name in dates or pd.api.types.is_numeric_dtype(frame[name].dtype) or len(named) == 1:
            return name
    return None


def _is_date(column: pd.Series) -> bool:
    is_period = isinstance(column.dtype, pd.PeriodDtype)
    return is_period or pd.api.types.is_datetime64_any_dtype(column.dtype) or looks_like_dates(column)


def _infer_series(frame: pd.DataFrame, free: list[Any], time: Any | None) -> Any | None:
    named = find_series(frame, free)
    if named is not None:
        return named
    # Text beside stamps that do not repeat, such as the name of the weekday, tells no series apart.
    if time is not None and not frame[time].duplicated().any():
        return None
    return next((n for n in free if _is_text(frame[n]) and frame[n].duplicated().any()), None)


def find_series(frame: pd.DataFrame, free: list[Any]) -> Any | None:
    """The first of ``free`` with a usual name for series and several rows for one of them."""
    lower = {str(name).strip().lower(): name for name in reversed(free)}
    named = (lower[name] for name in _SERIES_NAMES if name in lower)
    return next((name for name in named if frame[name].duplicated().any()), None)


def _infer_value(frame: pd.DataFrame, free: list[Any], notes: list[str]) -> Any:
    lower = {str(name).strip().lower(): name for name in reversed(free)}
    candidates = [lower[name] for name in _VALUE_NAMES if name in lower][:1]
    candidates = candidates or [
        name for name in free if not _is_text(frame[name]) and not _is_date(frame[name])
    ]
    if len(candidates) == 1:
        notes.append(f"values are column {candidates[0]!r}")
        return candidates[0]
    columns = [str(name) for name in (candidates or frame.columns)]
    if not candidates:
        raise ValueError(f"no numeric column is left for the values; pass value= one of {columns}.")
    raise ValueError(
        f"the values may be any of the columns {columns}; pass value={columns[0]!r}, or value={columns[:2]} "
        "for several features."
    )


def _wide_columns(frame: pd.DataFrame, free: list[Any], notes: list[str]) -> list[Any]:
    """All columns that play no other part; each is a series."""
    if not free:
        raise ValueError(
            f"no column is left for the values among {[str(name) for name in frame.columns]}; pass value=."
        )
    if len(free) > 1:
        notes.append(
            f"each of the {len(free)} other columns is a series; pass value=[...] to read them as features "
            "of one"
        )
    return free


def _is_text(column: pd.Series) -> bool:
    """Whether a column holds labels; text that is mostly numbers is a damaged number column, not a label."""
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return False
    known = column.dropna().astype(str)
    numbers = pd.to_numeric(known.str.replace(",", ".", regex=False), errors="coerce")
    return len(known) > 0 and numbers.notna().mean() <= 0.5


def numbers_rows(column: pd.Series, name: Any) -> bool:
    """Whether this is a row number, such as the index that pandas writes into a CSV as a nameless column."""
    if not (str(name).startswith("Unnamed:") or str(name).lower() in ("", "index", "id", "row")):
        return False
    return pd.api.types.is_integer_dtype(column.dtype) and bool((np.diff(column.to_numpy()) == 1).all())
