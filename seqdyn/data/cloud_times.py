"""Times of snapshots: the column that holds them, and numbers by which to order them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from seqdyn.data.columns import TIME_NAMES, find_column
from seqdyn.data.stamps import looks_like_dates

__all__ = ["SNAPSHOT_TIMES", "check_rounding", "listed", "order_times", "time_name"]

SNAPSHOT_TIMES = (*TIME_NAMES, "times", "snapshot", "time_point", "timepoint", "stage", "age")
_ROUNDING = 1e-9  # of the whole span, below which a model takes two times for one
_MOST = 8  # names in a line


def order_times(column: pd.Series) -> np.ndarray:
    """Times as numbers: those in text, "10.5", "day 10.5" or "E8.5", by the number they hold.

    Raises:
        ValueError: If an entry is missing or holds no number.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"the time {column.name!r} is empty for particle {int(missing.argmax())} ({int(missing.sum())} "
            "in all); drop these particles, or fill in their time."
        )
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy()
    texts = column.astype(str).str.strip()
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.isna().any():
        parts = texts.str.extract(r"^([^\d]*?)(-?\d+(?:\.\d+)?)([^\d]*)$")
        same = parts[[0, 2]].drop_duplicates().shape[0] == 1
        numbers = parts[1].astype(float) if same and parts[1].notna().all() else numbers
    if numbers.isna().any():
        name = column.name
        if looks_like_dates(column):
            raise ValueError(
                f"the times in {name!r} are dates, such as {texts.iloc[0]}; make them numbers, such as "
                f"days: {name} = pd.to_datetime({name}); {name} = ({name} - "
                f"{name}.min()).dt.total_seconds() / 86400."
            )
        some = texts.unique()[:5].tolist()
        raise ValueError(
            f"the times {some} in {column.name!r} hold no number by which to order them; map them to "
            f"numbers first: {column.name} = {column.name}.map({{{some[0]!r}: 0.0, ...}})."
        )
    return numbers.to_numpy(dtype=float)


def time_name(frame: pd.DataFrame, time: str | None, what: str, taken: Collection[Any] = ()) -> Any:
    """The column that holds the time: the one that is named, or the only one that looks like it.

    Args:
        frame: The table.
        time: Its name, if it is known.
        what: What the columns are called.
        taken: Columns that hold something else.

    Raises:
        ValueError: If there is no such column, or several look like it.
    """
    if time is not None:
        return find_column(frame, time, "time")
    like = [
        name for name in frame.columns if str(name).strip().lower() in SNAPSHOT_TIMES and name not in taken
    ]
    if len(like) > 1:
        raise ValueError(
            f"the {what}s {' and '.join(repr(str(name)) for name in like)} look like the particles' time; "
            f"pass time={str(like[0])!r}, or another of them."
        )
    if not like:
        raise ValueError(
            f"no {what} looks like the particles' time among {[str(name) for name in frame.columns][:20]}; "
            "pass time= one of them, or times=[...] with one number per snapshot."
        )
    return like[0]


def check_rounding(times: np.ndarray, name: str | None) -> None:
    """Check that no two times differ by less than rounding may make of one.

    Raises:
        ValueError: If two do.
    """
    distinct = np.unique(times)
    if distinct.dtype.kind != "f" or len(distinct) < 2:
        return
    gaps, precision = np.diff(distinct.astype(float)), float(np.finfo(distinct.dtype).eps)
    limit = max(8 * precision * float(np.abs(distinct).max()), _ROUNDING * float(np.ptp(distinct)))
    if gaps.min() > limit:
        return
    first = int((gaps <= limit).argmax())
    apart = gaps[gaps > limit].min(initial=np.inf)
    digits = 6 if apart > 1e-4 else 2 - int(np.floor(np.log10(apart)))  # two more than tell snapshots apart
    one, other = distinct[first : first + 2].tolist()
    raise ValueError(
        f"times {one!r} and {other!r} differ by rounding alone, which makes two snapshots of one; round them "
        f"first: df[{name or 'time'!r}] = df[{name or 'time'!r}].round({digits}), or "
        f"times=np.round(times, {digits})."
    )


def listed(names: Iterable[Any]) -> str:
    """The first names in a line."""
    every = [str(name) for name in names]
    return ", ".join(every[:_MOST]) + (", ..." if len(every) > _MOST else "")
