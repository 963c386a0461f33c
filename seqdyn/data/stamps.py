"""One column of a table as time stamps: dates in any dtype or text, Unix time, plain numbers, time zones."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from seqdyn.data.times import as_stamps, check_timezone, infer_freq

__all__ = [
    "Stamps",
    "clock_change_hint",
    "localize",
    "looks_like_dates",
    "read_stamps",
    "read_zoned_stamps",
]

_DATES = (
    "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%d.%m.%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y",
    "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b-%Y", "%b-%y", "%b %Y",
    "%B %Y", "%m/%Y", "%Y-%m-%d", "%Y/%m/%d",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_UNIX_UNITS = ("s", "ms", "us", "ns")
_OFFSET = r"(?:[T ]\d{1,2}:\d{2}.*?(?:[Zz]|[+-]\d{2}(?::?\d{2})?|UTC|GMT))$"
_QUARTER = r"^(\d{4})[- ]?Q([1-4])$"
_ISO_WEEK = r"^(\d{4})-?W(\d{2})$"


class Stamps(NamedTuple):
    """Stamps of a column: naive ``DatetimeIndex`` (UTC if ``aware``) or an array of numbers."""

    values: pd.DatetimeIndex | np.ndarray
    aware: bool = False
    timezone: str | None = None
    note: str | None = None


def read_stamps(column: pd.Series, *, date_format: str | None = None) -> Stamps:
    """Read one stamp per row.

    Args:
        column: Datetimes, periods, numbers or text.
        date_format: ``strptime`` format of text, or the unit of Unix time: "s", "ms", "us" or "ns".

    Raises:
        ValueError: On an empty, unreadable, ambiguous or out-of-range stamp; names row and remedy.
    """
    name = column.name
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"the time column {name!r} is empty in row {int(missing.argmax())} ({int(missing.sum())} such "
            f"rows, the first row is 0); drop them with frame.dropna(subset=[{name!r}]) or fill in the "
            "stamps."
        )
    if isinstance(column.dtype, pd.PeriodDtype):
        return Stamps(as_stamps(column.dt.to_timestamp().to_numpy()))
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _read_datetimes(column)
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        raise ValueError(
            f"the time column {name!r} holds {column.dtype}; name the column of dates or numbers with time=."
        )
    if pd.api.types.is_numeric_dtype(column.dtype):
        return _read_numbers(column, date_format)
    return _read_objects(column, date_format)


def read_zoned_stamps(
    column: pd.Series,
    timezone: str | None,
    *,
    date_format: str | None = None,
    groups: np.ndarray | None = None,
) -> Stamps:
    """Read one stamp per row, as UTC where their zone is known.

    Args:
        column: As for :func:`read_stamps`.
        timezone: Zone of naive stamps; stamps that know their offset are shown in it. None leaves naive ones.
        date_format: As for :func:`read_stamps`.
        groups: Series number of each row, as for :func:`localize`; None for one series.

    Raises:
        ValueError: As :func:`read_stamps` and :func:`localize`, and if numbers are to lie in a zone.
    """
    stamps = read_stamps(column, date_format=date_format)
    if timezone is None:
        return stamps
    check_timezone(timezone)
    if not isinstance(stamps.values, pd.DatetimeIndex):
        raise ValueError(
            f"timezone={timezone!r} needs dates but the time column {column.name!r} holds numbers; leave "
            "timezone= out, or pass date_format='s' (or 'ms') if it is Unix time."
        )
    if stamps.aware:
        return stamps._replace(timezone=timezone)
    groups = np.zeros(len(column), dtype=np.int64) if groups is None else groups
    return stamps._replace(values=localize(stamps.values, timezone, groups), aware=True, timezone=timezone)


def looks_like_dates(column: pd.Series) -> bool:
    """Whether a text column begins with something that can be read as a date."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return False
    first = next((value for value in column.dropna().unique()[:1]), "")
    if not isinstance(first, str):
        return isinstance(first, dt.date | np.datetime64)
    # Bare years or compact dates in text may as well be labels.
    text = first.strip()
    return not text.isdigit() and (bool(_parse_iso(pd.Series([text])).notna().all()) or bool(_formats(text)))


def localize(stamps: pd.DatetimeIndex, timezone: str, groups: np.ndarray) -> pd.DatetimeIndex:
    """Naive local stamps as naive UTC.

    The hour that occurs twice when clocks go back is told apart by the order of rows within each group.

    Args:
        stamps: Local stamps, one per row.
        timezone: Their zone.
        groups: Series number of each row.

    Raises:
        ValueError: If a stamp does not exist in the zone, or stands alone in the doubled hour.
    """
    check_timezone(timezone)
    first = np.ones(len(stamps), dtype=bool)
    if (stamps == stamps.normalize()).all():
        # Whole days, although a few zones skip or double their midnight.
        days = stamps.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
        return days.tz_convert("UTC").tz_localize(None)
    skipped = stamps.tz_localize(timezone, ambiguous=first, nonexistent="NaT").isna()
    if skipped.any():
        row = int(skipped.argmax())
        raise ValueError(
            f"row {row} holds {stamps[row]}, which does not exist in {timezone}: clocks go forward there. "
            "The stamps are probably not local time; try timezone='UTC', or leave timezone= out."
        )
    doubled = stamps.tz_localize(timezone, ambiguous="NaT").isna()
    if doubled.any():
        rows = np.flatnonzero(doubled)
        keys = pd.DataFrame({"group": groups[rows], "stamp": stamps[rows]})
        size = keys.groupby(["group", "stamp"])["stamp"].transform("size").to_numpy()
        if (size == 1).any():
            row = int(rows[(size == 1).argmax()])
            raise ValueError(
                f"row {row} holds {stamps[row]}, which occurs twice in {timezone} (clocks go back) but only "
                "once in its series, so that its hour is unknown; give UTC stamps or stamps with an offset "
                f"such as '{stamps[row]}+01:00', or drop that row."
            )
        steps = np.sign(np.diff(stamps.asi8))
        downward = (steps < 0).sum() > (steps > 0).sum()
        order = keys[::-1] if downward else keys
        repeat = order.groupby(["group", "stamp"]).cumcount().sort_index().to_numpy()
        first[rows] = repeat == 0
    return stamps.tz_localize(timezone, ambiguous=first).tz_convert("UTC").tz_localize(None)


def clock_change_hint(stamps: pd.DatetimeIndex) -> str:
    """A remedy if every one of these odd stamps lies in the night in which clocks change, else nothing."""
    night = (stamps.hour <= 3) & (stamps.day_of_week == 6) & stamps.month.isin([3, 4, 9, 10, 11])
    if len(stamps) == 0 or not night.all():
        return ""
    return (
        " This looks like local time in the night when clocks change: pass timezone='Europe/Zurich' (your "
        "own zone)."
    )


def _read_datetimes(column: pd.Series) -> Stamps:
    zone = column.dt.tz
    if zone is None:
        return Stamps(as_stamps(column.to_numpy(dtype="datetime64[ns]")))
    utc = pd.DatetimeIndex(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))
    return Stamps(as_stamps(utc), True, str(zone))


def _read_numbers(column: pd.Series, date_format: str | None) -> Stamps:
    values = column.to_numpy(dtype=float, na_value=np.nan) if column.dtype == object else column.to_numpy()
    if values.dtype.kind not in "iuf":
        values = column.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise ValueError(
            f"the time column {column.name!r} is {values[row]} in row {row}; drop it or repair the stamp."
        )
    if date_format in _UNIX_UNITS:
        # Unix time counts from an instant, wherever its clock hangs: aware, of no zone of its own.
        return Stamps(as_stamps(pd.to_datetime(values, unit=date_format)), True)
    whole = bool((values == np.floor(values)).all())
    compact = whole and bool(((values >= 18_000_101) & (values <= 22_001_231)).all())
    if date_format is not None or compact:
        texts = pd.Series(values.astype(np.int64).astype(str), name=column.name)
        return _read_objects(texts, date_format or "%Y%m%d")
    note = None
    if whole and len(values) and 10**8 < abs(values[0]) < 5 * 10**9 or abs(values[0]) > 10**11:
        note = f"time {column.name!r} is kept as numbers; if it is Unix time, pass date_format='s' (or 'ms')."
    return Stamps(values.astype(np.int64) if whole else values, note=note)


def _read_objects(column: pd.Series, date_format: str | None) -> Stamps:
    codes, distinct = pd.factorize(column)
    kinds = {type(value) for value in distinct}
    if all(issubclass(kind, dt.date | np.datetime64 | pd.Timestamp) for kind in kinds):
        return _read_date_objects(column, codes, distinct)
    if not all(issubclass(kind, str) for kind in kinds):
        row = next(i for i, value in enumerate(column) if not isinstance(value, str))
        raise ValueError(
            f"the time column {column.name!r} mixes types; row {row} is {column.iloc[row]!r} "
            f"({type(column.iloc[row]).__name__}); convert it with pd.to_datetime(frame[{column.name!r}])."
        )
    texts = pd.Index(distinct.astype(object)).str.strip()
    if date_format in _UNIX_UNITS or date_format is None:
        numbers = pd.to_numeric(pd.Series(texts), errors="coerce")
        if numbers.notna().all():
            return _read_numbers(pd.Series(numbers.to_numpy()[codes], name=column.name), date_format)
    rows = np.flatnonzero(~pd.Series(codes).duplicated())
    aware = pd.Series(texts).str.contains(_OFFSET, regex=True).to_numpy(dtype=bool)
    if aware.any() and not aware.all():
        i, j = int(aware.argmax()), int((~aware).argmax())
        raise ValueError(
            f"the time column {column.name!r} mixes stamps with and without an offset: row {rows[i]} is "
            f"{texts[i]!r}, row {rows[j]} is {texts[j]!r}; write all of them in one way."
        )
    stamps, note = _parse_texts(texts, rows, str(column.name), date_format)
    zone = _common_offset(texts) if aware.all() else None
    return Stamps(stamps[codes], zone is not None, zone, note)


def _read_date_objects(column: pd.Series, codes: np.ndarray, distinct: pd.Index) -> Stamps:
    zones = {getattr(value, "tzinfo", None) for value in distinct}
    if None in zones and len(zones) > 1:
        row = next(i for i, v in enumerate(column) if getattr(v, "tzinfo", None) is None)
        raise ValueError(
            f"the time column {column.name!r} mixes stamps with and without a time zone (first without: row "
            f"{row}); localise them with tz_localize('Europe/Zurich') (your zone)."
        )
    try:
        stamps = pd.to_datetime(pd.Series(list(distinct), dtype=object), utc=None not in zones)
    except pd.errors.OutOfBoundsDatetime as error:
        raise ValueError(
            f"the time column {column.name!r} has a stamp outside the years 1678 to 2261 ({error}); give the "
            "time as numbers, for instance the year."
        ) from error
    if None in zones:
        return Stamps(as_stamps(stamps.to_numpy())[codes])
    zone = str(next(iter(zones))) if len({str(z) for z in zones}) == 1 else "UTC"
    return Stamps(as_stamps(stamps.dt.tz_localize(None).to_numpy())[codes], True, zone)


def _parse_texts(
    texts: pd.Index, rows: np.ndarray, name: str, date_format: str | None
) -> tuple[pd.DatetimeIndex, str | None]:
    """Stamps of distinct texts (UTC if they carry offsets) and a note; ``rows`` says where each is."""
    series = pd.Series(texts.astype(str))
    parsed = _parse_iso(series) if date_format is None else _parse(series, date_format)
    if not parsed.isna().any():
        return parsed, None
    odd = int(parsed.isna().argmax())
    place = f"row {rows[odd]} of the time column {name!r} is {texts[odd]!r}"
    if date_format is not None:
        raise ValueError(
            f"{place}, which does not fit date_format={date_format!r}; repair the one or the other."
        )
    formats = _formats(texts[odd])
    readable = {form: stamps for form in formats if not (stamps := _parse(series, form)).isna().any()}
    if not readable:
        raise ValueError(_explain_unreadable(texts, rows, parsed, formats, place))
    if len(readable) > 1:
        regular = {f: s for f, s in readable.items() if infer_freq(s.sort_values().unique()) is not None}
        readable = regular if len(regular) == 1 else readable
    if len({tuple(stamps) for stamps in readable.values()}) > 1:
        listed = " or ".join(f"date_format={form!r}" for form in readable)
        raise ValueError(f"{place}, and such dates can be read in several ways; pass {listed}.")
    form, stamps = next(iter(readable.items()))
    return stamps, f"time {name!r} read as {form!r}: {texts[odd]!r} is {stamps[odd]}"


def _explain_unreadable(
    texts: pd.Index, rows: np.ndarray, iso: pd.DatetimeIndex, formats: list[str], place: str
) -> str:
    remedy = "write all of them like '2024-01-31 13:00', or pass date_format='%d/%m/%Y %H:%M' (yours)"
    attempts = [iso, *(_parse(pd.Series(texts.astype(str)), form) for form in formats)]
    best = max(attempts, key=lambda stamps: int(stamps.notna().sum()))
    if not best.notna().any():
        return f"{place}, which is no date between 1678 and 2261 that can be read; {remedy}."
    bad, good = int(best.isna().argmax()), int(best.notna().argmax())
    if not formats and best is iso:
        return f"{place}, which is no date; repair or drop that row, {remedy}."
    return (
        f"the time column mixes date formats: row {rows[bad]} is {texts[bad]!r} while row {rows[good]} is "
        f"{texts[good]!r}; {remedy}."
    )


def _formats(text: str) -> list[str]:
    return [form for form in map("".join, itertools.product(_DATES, _CLOCKS)) if _fits(text, form)]


def _parse_iso(series: pd.Series) -> pd.DatetimeIndex:
    named = _parse_named_periods(series)
    return _parse(series, "ISO8601") if named is None else named


def _parse(series: pd.Series, form: str) -> pd.DatetimeIndex:
    aware = bool(series.str.contains(_OFFSET, regex=True).any()) or "%z" in form
    stamps = pd.to_datetime(series, format=form, errors="coerce", utc=aware)
    naive = pd.DatetimeIndex(stamps.dt.tz_localize(None) if aware else stamps)
    # Coarser resolutions know years that nanoseconds do not.
    return naive.where((naive > pd.Timestamp.min) & (naive < pd.Timestamp.max)).as_unit("ns")


def _parse_named_periods(series: pd.Series) -> pd.DatetimeIndex | None:
    """First days of quarters ("2020Q1") or ISO weeks ("2020-W05")."""
    quarters, weeks = series.str.extract(_QUARTER), series.str.extract(_ISO_WEEK)
    if quarters.notna().all(axis=None):
        month = (quarters[1].astype(int) * 3 - 2).astype(str).str.zfill(2)
        return _parse(quarters[0] + "-" + month + "-01", "%Y-%m-%d")
    if weeks.notna().all(axis=None):
        return _parse(weeks[0] + "-" + weeks[1] + "-1", "%G-%V-%u")
    return None


def _fits(text: str, form: str) -> bool:
    try:
        dt.datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _common_offset(texts: pd.Index) -> str:
    """The offset that all texts share as a zone name, else UTC."""
    ends = pd.Series(texts).str.extract(r"([+-]\d{2}):?(\d{2})?$")
    if ends[0].isna().any() or len(ends.drop_duplicates()) > 1:
        return "UTC"
    hours, minutes = ends.iloc[0, 0], ends.iloc[0, 1]
    minutes = "00" if pd.isna(minutes) else minutes
    return "UTC" if (hours[1:], minutes) == ("00", "00") else f"UTC{hours}:{minutes}"
