"""Frequencies and regular grids of time stamps, in pandas' words.

Stamps are naive ``datetime64[ns]`` and mean UTC once a time zone is known. A frequency below one day ("h",
"30min") is a fixed step in UTC; days, weeks, months and business days are steps of the local calendar, so
that a daily series at local midnight stays regular when the clocks change.
"""

from __future__ import annotations

import re
import warnings
import zoneinfo

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, Day, Tick

__all__ = [
    "as_stamps",
    "check_timezone",
    "infer_freq",
    "normalize_freq",
    "resolve_freq",
    "time_grid",
    "wall_clock",
]

_OLD_ALIASES = {
    "H": "h", "BH": "bh", "CBH": "cbh", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns",
    "M": "ME", "Q": "QE", "A": "YE", "Y": "YE", "AS": "YS",
    "BM": "BME", "BQ": "BQE", "BA": "BYE", "BY": "BYE", "BAS": "BYS", "SM": "SME", "CBM": "CBME",
    "d": "D", "b": "B", "w": "W", "q": "QE", "y": "YE", "hr": "h", "hours": "h", "days": "D",
}  # fmt: skip
_WORDS = {
    "secondly": "s", "minutely": "min", "half_hourly": "30min", "hourly": "h", "daily": "D", "weekly": "W",
    "monthly": "M", "quarterly": "Q", "yearly": "Y", "annual": "Y", "business_daily": "B",
}  # fmt: skip
_UNIT_WORDS = {
    "second": "s",
    "minute": "min",
    "hour": "h",
    "day": "D",
    "week": "W",
    "month": "M",
    "year": "Y",
}
_PERIODS = {"M": ("ME", "MS"), "Q": ("QE", "QS"), "Y": ("YE", "YS"), "A": ("YE", "YS")}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_DAY_NS = 86_400 * 10**9


def normalize_freq(freq: str | BaseOffset) -> str:
    """Write a frequency as today's pandas alias: "H", "hourly" and "60min" → "h", "10_minutes" → "10min".

    Raises:
        ValueError: If pandas knows no such frequency.
    """
    text = freq.freqstr if isinstance(freq, BaseOffset) else str(freq).strip()
    count, base, anchor = _split(_from_words(text))
    try:
        with warnings.catch_warnings():
            # What pandas accepts today under protest ("hrs") is refused: the next version would not know it.
            warnings.simplefilter("error", FutureWarning)
            offset = to_offset(f"{count}{_OLD_ALIASES.get(base, base)}{anchor}")
    except (ValueError, FutureWarning) as error:
        raise ValueError(
            f"freq={freq!r} is not a frequency; use a pandas alias such as 'h' (hour), '30min', 'D' (day), "
            "'B' (business day), 'W' (week), 'MS' (month start), 'QS' or 'YS'."
        ) from error
    if isinstance(offset, Tick) and not isinstance(offset, Day):
        shorter = to_offset(pd.Timedelta(offset))
        offset = offset if isinstance(shorter, Day) else shorter
    if offset.n <= 0:
        raise ValueError(f"freq={freq!r} does not go forward in time; write it without the sign.")
    return re.sub(r"(?<=Q[SE]-)[A-Z]{3}$", _same_quarters, offset.freqstr)


def resolve_freq(freq: str, stamp: pd.Timestamp) -> str:
    """Normalise ``freq`` and settle what a bare "W", "M", "Q" or "Y" leaves open by the first stamp.

    A bare month may be stamped at its first or last day, a week on any weekday; ``stamp`` says which.
    """
    count, base, anchor = _split(_from_words(str(freq).strip()))
    if base == "W" and not anchor:
        return normalize_freq(f"{count}W-{_WEEKDAYS[stamp.day_of_week]}")
    if base in _PERIODS and not anchor:
        anchors = [""] if base == "M" else [f"-{month}" for month in _MONTHS]
        # The calendar year first: its quarters begin in January and its years end in December.
        preferred = ["-JAN", "-DEC"]
        anchors.sort(key=lambda name: name not in preferred)
        for alias in (f"{kind}{name}" for kind in _PERIODS[base] for name in anchors):
            if to_offset(alias).is_on_offset(stamp):
                return normalize_freq(f"{count}{alias}")
    return normalize_freq(freq)


def as_stamps(values: np.ndarray | pd.Index) -> pd.DatetimeIndex:
    """Bring datetimes of any resolution to naive nanoseconds.

    Raises:
        ValueError: If a stamp lies outside the years 1678 to 2261, which nanoseconds can hold.
    """
    try:
        return pd.DatetimeIndex(np.asarray(values, dtype="datetime64")).as_unit("ns").rename(None)
    except pd.errors.OutOfBoundsDatetime as error:
        raise ValueError(
            f"a time stamp lies outside the years 1678 to 2261 ({error}); give the time as numbers, for "
            "instance the year."
        ) from error


def wall_clock(stamps: pd.DatetimeIndex, timezone: str | None) -> pd.DatetimeIndex:
    """Local time of naive UTC stamps, again naive; unchanged without a time zone."""
    if timezone is None:
        return stamps
    return stamps.tz_localize("UTC").tz_convert(timezone).tz_localize(None)


def time_grid(
    start: pd.Timestamp,
    freq: str,
    *,
    periods: int | None = None,
    end: pd.Timestamp | None = None,
    timezone: str | None = None,
) -> pd.DatetimeIndex:
    """Regular stamps from ``start``, which should itself be one; give ``periods`` or ``end``.

    Args:
        start: First stamp, naive (UTC where ``timezone`` is given).
        freq: pandas alias.
        periods: Number of stamps.
        end: Last stamp at the latest.
        timezone: Zone whose calendar counts the days.

    Returns:
        Naive stamps at nanoseconds. Their first differs from ``start`` where that is no stamp of ``freq``
        (a Saturday for "B").
    """
    offset = to_offset(freq)
    if timezone is None or (isinstance(offset, Tick) and not isinstance(offset, Day)):
        return pd.date_range(start, end, periods=periods, freq=offset).as_unit("ns")
    first, last = (
        None if t is None else wall_clock(pd.DatetimeIndex([t]), timezone)[0] for t in (start, end)
    )
    local = pd.date_range(first, last, periods=periods, freq=offset).as_unit("ns")
    # A few zones skip or double midnight: the day then begins an hour later, or at the first midnight.
    zoned = local.tz_localize(timezone, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward")
    return zoned.tz_convert("UTC").tz_localize(None)


def infer_freq(stamps: pd.DatetimeIndex, timezone: str | None = None) -> str | None:
    """Frequency of strictly increasing naive stamps, or None where they are irregular or fewer than two."""
    if len(stamps) < 2:
        return None
    stamps = stamps.as_unit("ns")
    wall = wall_clock(stamps, timezone)
    steps, local_steps = np.diff(stamps.asi8), np.diff(wall.asi8)
    fixed = bool((steps == steps[0]).all())
    if fixed and steps[0] % _DAY_NS:
        return normalize_freq(to_offset(pd.Timedelta(int(steps[0]), unit="ns")))
    # Months before days: July to September, or three years of July firsts, are equally far apart too.
    monthly = _infer_months(wall)
    if monthly is not None:
        return monthly
    if (local_steps == local_steps[0]).all() and local_steps[0] % _DAY_NS == 0:
        days = int(local_steps[0] // _DAY_NS)
        weekly = days % 7 == 0
        return normalize_freq(f"{days // 7}W-{_WEEKDAYS[wall[0].day_of_week]}" if weekly else f"{days}D")
    if fixed:
        return f"{int(steps[0] // _DAY_NS) * 24}h"
    for alias in ("B", "BMS", "BME", "D"):
        if time_grid(stamps[0], alias, end=stamps[-1], timezone=timezone).equals(stamps):
            return alias
    return None


def _infer_months(wall: pd.DatetimeIndex) -> str | None:
    """Frequency of stamps at the first or last day of every k-th month."""
    months = wall.year * 12 + wall.month
    count = int(months[1] - months[0])
    clock = wall - wall.normalize()
    if count < 1 or not (np.diff(months) == count).all() or not (clock == clock[0]).all():
        return None
    for kind, on_edge in (("S", wall.is_month_start), ("E", wall.is_month_end)):
        if on_edge.all():
            anchor = _MONTHS[wall[0].month - 1]
            known = {1: f"M{kind}", 3: f"Q{kind}-{anchor}", 12: f"Y{kind}-{anchor}"}
            return normalize_freq(known.get(count, f"{count}M{kind}"))
    return None


def check_timezone(timezone: str) -> str:
    """Return ``timezone`` if pandas knows it.

    Raises:
        ValueError: If it does not.
    """
    try:
        pd.Timestamp(0).tz_localize(str(timezone) or "?")
    except (zoneinfo.ZoneInfoNotFoundError, KeyError, ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"timezone={timezone!r} is unknown; use a name such as 'Europe/Zurich', 'America/New_York' or "
            "'UTC'."
        ) from error
    return timezone


def _same_quarters(anchor: re.Match[str]) -> str:
    """One name for quarters that begin or end in the same months: QS-OCT is QS-JAN, QE-MAR is QE-DEC."""
    month = _MONTHS.index(anchor[0]) % 3
    kind = anchor.string[anchor.start() - 2]
    return _MONTHS[month if kind == "S" else 9 + month]


def _from_words(text: str) -> str:
    word = text.lower().replace(" ", "_").replace("-", "_")
    counted = re.fullmatch(r"(\d+)_([a-z]+?)s?", word)
    if counted and counted[2] in _UNIT_WORDS:
        return f"{counted[1]}{_UNIT_WORDS[counted[2]]}"
    return _WORDS.get(word, text)


def _split(text: str) -> tuple[str, str, str]:
    """Count, unit and anchor of an alias: "2W-SUN" → ("2", "W", "-SUN")."""
    match = re.fullmatch(r"([+-]?\d*\.?\d*)\s*([A-Za-z]+)(-[A-Za-z]{3})?", text)
    return (match[1], match[2], (match[3] or "").upper()) if match else ("", text, "")
