"""Lists of series with a start: GluonTS JSON lines and Monash ``.tsf`` files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from pandas.tseries import offsets
from pandas.tseries.frequencies import to_offset

from seqdyn.data.formats import damage_reported, open_text
from seqdyn.data.grid import Grid, build_sequences
from seqdyn.data.schema import check_sequences
from seqdyn.data.stamps import localize, read_stamps
from seqdyn.data.times import normalize_freq, resolve_freq, time_grid

__all__ = ["Item", "assemble", "read_gluonts", "read_tsf", "tsf_date_format"]

_MONTHLY, _QUARTERLY = (offsets.MonthBegin, offsets.MonthEnd), (offsets.QuarterBegin, offsets.QuarterEnd)
_YEARLY = (offsets.YearBegin, offsets.YearEnd)
_TSF_STAMP = "%Y-%m-%d %H-%M-%S"


class Item(NamedTuple):
    """One series of a file."""

    label: str | int
    start: str | None
    values: np.ndarray
    line: int


def read_gluonts(path: Path, freq: str | None = None) -> tuple[list[Item], str | None, list[str]]:
    """Items of a JSON-lines file with ``start``, ``target`` and perhaps ``item_id`` on each line.

    Args:
        path: File, perhaps gzipped.
        freq: Frequency; None looks into ``metadata.json`` beside the file or one folder above.

    Returns:
        Items, frequency and notes.

    Raises:
        ValueError: If a line is damaged (its number is named) or the frequency is not found.
    """
    notes: list[str] = []
    items: list[Item] = []
    for line, entry in _json_entries(path):
        items.append(_gluonts_item(path, line, entry, len(items)))
    if not items:
        raise ValueError(
            f"{path.name!r} holds no series; each line must be a JSON object with start and target."
        )
    if freq is None:
        freq, where = _gluonts_frequency(path)
        notes.append(f"frequency {freq!r} taken from {where}")
    repeated = {label for label, count in Counter(item.label for item in items).items() if count > 1}
    if repeated:
        # Rolling test sets hold one line per forecast window, all with the id of their series.
        notes.append(f"{len(repeated)} item_id(s) occur on several lines and are numbered, as in 'id#0'")
        seen: Counter[str | int] = Counter()
        for i, item in enumerate(items):
            if item.label in repeated:
                items[i] = item._replace(label=f"{item.label}#{seen[item.label]}")
                seen[item.label] += 1
    return items, freq, notes


def read_tsf(path: Path, freq: str | None = None) -> tuple[list[Item], str | None, list[str]]:
    """Items of a Monash ``.tsf`` file: ``@`` header lines, then one series per line.

    Raises:
        ValueError: If the header or a line is damaged; names the line.
    """
    attributes: list[str] = []
    found: str | None = None
    items: list[Item] = []
    in_data = False
    with damage_reported(path), open_text(path, "latin-1") as file:
        for number, text in enumerate(file, 1):
            text = text.strip()
            if not text or text.startswith("#"):
                continue
            if in_data:
                items.append(_tsf_item(path, number, text, attributes, len(items)))
            elif text.startswith("@"):
                word, _, rest = text[1:].partition(" ")
                in_data = word.lower() == "data"
                if word.lower() == "attribute":
                    attributes.append(_tsf_attribute(path, number, rest))
                elif word.lower() == "frequency":
                    found = rest.strip()
            else:
                raise ValueError(
                    f"{path.name!r} line {number} comes before the line '@data' but does not begin with '@': "
                    f"{text[:40]!r}; complete the header (@attribute NAME TYPE, @frequency, @data)."
                )
    if not in_data or not items:
        raise ValueError(
            f"{path.name!r} has no series after a line '@data'; the header is damaged or the file is cut "
            "off: download it again."
        )
    freq = found if freq is None else freq
    notes = [] if freq is None else [f"frequency {freq!r}"]
    if freq is None and items[0].start is not None:
        raise ValueError(f"{path.name!r} has start stamps but no line '@frequency'; pass freq='h' (its own).")
    return items, freq, notes


def assemble(
    items: list[Item],
    *,
    freq: str | float | None = None,
    timezone: str | None = None,
    units: str | None = None,
    features: list[str] | None = None,
    date_format: str | None = None,
) -> xr.Dataset:
    """Sequence dataset of items on the grid that covers all of them; cells outside an item are missing.

    A start stands for the period it lies in, as in GluonTS: a month that "starts" on the 31st is stamped at
    its first day.
    """
    widths = Counter(item.values.shape[1] for item in items)
    if len(widths) > 1:
        odd = next(item for item in items if item.values.shape[1] != widths.most_common(1)[0][0])
        raise ValueError(
            f"line {odd.line} (series {odd.label!r}) has {odd.values.shape[1]} features, the others "
            f"{widths.most_common(1)[0][0]}; give every series the same features."
        )
    for item in items:
        if not (~np.isnan(item.values)).any():
            raise ValueError(
                f"series {item.label!r} (line {item.line}) has no value at all, every one is missing; drop "
                "that line."
            )
    grid, first = _item_grid(items, freq, timezone, date_format)
    size = next(iter(widths))
    values = np.full((len(items), len(grid.values), size), np.nan)
    for row, item, begin in zip(values, items, first, strict=True):
        row[begin : begin + len(item.values)] = item.values
    if features is None:
        features = ["value"] if size == 1 else [f"value_{i}" for i in range(size)]
    if len(features) != size:
        raise ValueError(
            f"value= has {len(features)} names but the series hold {size} features; give {size}."
        )
    data = build_sequences(values, grid, series=[i.label for i in items], features=features, units=units)
    check_sequences(data)
    return data


def _item_grid(
    items: list[Item], freq: str | float | None, timezone: str | None, date_format: str | None
) -> tuple[Grid, np.ndarray]:
    """The common grid and the index at which each item begins."""
    lengths = np.array([len(item.values) for item in items])
    if items[0].start is None:
        return Grid(np.arange(lengths.max())), np.zeros(len(items), dtype=int)
    stamps = read_stamps(pd.Series([item.start for item in items], name="start"), date_format=date_format)
    starts, zone = stamps.values, stamps.timezone
    if not isinstance(starts, pd.DatetimeIndex) or not isinstance(freq, str):
        raise ValueError(
            f"start of line {items[0].line} is {items[0].start!r} and the frequency {freq!r}; write starts "
            "as dates such as '2024-01-01' and pass freq='h' (yours)."
        )
    alias = _period_alias(freq, starts)
    starts = _floor(starts, alias)
    if timezone is not None and not stamps.aware:
        starts, zone = localize(starts, timezone, np.arange(len(items))), timezone
    origin = starts.min()
    head = time_grid(origin, alias, end=starts.max(), timezone=zone)
    off = ~starts.isin(head)
    if off.any():
        odd = items[int(off.argmax())]
        raise ValueError(
            f"series {odd.label!r} (line {odd.line}) starts at {odd.start}, which is no stamp of "
            f"freq={alias!r} counted from {origin}; pass the finer freq= they share."
        )
    first = head.get_indexer(starts)
    periods = int((first + lengths).max())
    return Grid(time_grid(origin, alias, periods=periods, timezone=zone), alias, zone), first


def _period_alias(freq: str, starts: pd.DatetimeIndex) -> str:
    """Alias whose stamps are the first moments of the periods that ``freq`` names."""
    offset = to_offset(normalize_freq(freq))
    count = "" if offset.n == 1 else str(offset.n)
    if isinstance(offset, offsets.Week):
        return resolve_freq(f"{count}W", starts.min())
    for kinds, alias in ((_MONTHLY, "MS"), (_QUARTERLY, "QS-JAN"), (_YEARLY, "YS-JAN")):
        if isinstance(offset, kinds):
            return f"{count}{alias}"
    return offset.freqstr


def _floor(starts: pd.DatetimeIndex, alias: str) -> pd.DatetimeIndex:
    offset = to_offset(alias)
    if isinstance(offset, offsets.Tick) and not isinstance(offset, offsets.Day):
        unit = alias.lstrip("0123456789") if pd.Timedelta(offset) > pd.Timedelta("1D") else alias
        return starts.floor(unit)
    starts = starts.normalize()
    for kinds, period in ((_MONTHLY, "M"), (_QUARTERLY, "Q"), (_YEARLY, "Y")):
        if isinstance(offset, kinds):
            return starts.to_period(period).to_timestamp().as_unit("ns")
    return starts


def _json_entries(path: Path) -> list[tuple[int, Any]]:
    entries: list[tuple[int, Any]] = []
    with damage_reported(path), open_text(path) as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                entry = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path.name!r} line {number} is not valid JSON ({error.msg} at column {error.colno}); "
                    "each line must be one whole object; if it is the last line the file is cut off: copy it "
                    "again."
                ) from error
            # A file with one JSON array holds the same objects as one with a line each.
            entries += [(number, e) for e in entry] if isinstance(entry, list) else [(number, entry)]
    return entries


def _gluonts_item(path: Path, line: int, entry: Any, position: int) -> Item:
    if not isinstance(entry, dict) or "target" not in entry or "start" not in entry:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(
            f"{path.name!r} line {line} needs the keys 'start' and 'target', found {found}; write each line "
            "as "
            '{"start": "2024-01-01", "target": [1.0, 2.0], "item_id": "a"}.'
        )
    try:
        values = np.array(entry["target"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name!r} line {line}: 'target' is not a list of numbers ({error}); write missing values "
            "as null."
        ) from error
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(
            f"{path.name!r} line {line}: 'target' has shape {values.shape}; give one list of numbers, or one "
            "list per feature."
        )
    label = entry.get("item_id", position)
    label = label if isinstance(label, int) and not isinstance(label, bool) else str(label)
    return Item(label, str(entry["start"]), values[:, None] if values.ndim == 1 else values.T, line)


def _gluonts_frequency(path: Path) -> tuple[str, str]:
    """Frequency and where it stands."""
    folder = path.resolve().parent
    for place in (folder, folder.parent, folder / "metadata", folder.parent / "metadata"):
        candidate = place / "metadata.json"
        if not candidate.is_file():
            continue
        try:
            metadata = json.loads(candidate.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{str(candidate)!r} is not valid JSON ({error}); pass freq='h' (yours)."
            ) from error
        freq = next((metadata[key] for key in ("freq", "time_granularity") if metadata.get(key)), None)
        if freq is not None:
            return str(freq), f"{place.name}/metadata.json"
    raise ValueError(
        f"the frequency of {path.name!r} is unknown: no metadata.json with 'freq' beside it or one folder "
        "above; pass freq='h' (yours)."
    )


def _tsf_attribute(path: Path, number: int, rest: str) -> str:
    parts = rest.split()
    if len(parts) != 2 or parts[1].lower() not in ("string", "numeric", "date"):
        raise ValueError(
            f"{path.name!r} line {number}: an attribute needs a name and a type (string, numeric or date), "
            f"got {rest!r}; write '@attribute series_name string'."
        )
    return parts[0].lower()


def _tsf_item(path: Path, number: int, text: str, attributes: list[str], position: int) -> Item:
    parts = text.split(":")
    if len(parts) != len(attributes) + 1:
        raise ValueError(
            f"{path.name!r} line {number} has {len(parts) - 1} attributes but the header declares "
            f"{len(attributes)} ({', '.join(attributes) or 'none'}); the header is damaged or the line is "
            "cut off: download it again."
        )
    known = dict(zip(attributes, parts[:-1], strict=True))
    numbers = re.sub(r"\?", "nan", parts[-1]).split(",")
    try:
        values = np.array(numbers, dtype=np.float64)
    except ValueError as error:
        raise ValueError(
            f"{path.name!r} line {number} holds something that is no number ({error}); write '?' for missing "
            "values."
        ) from error
    return Item(known.get("series_name", position), known.get("start_timestamp"), values[:, None], number)


def tsf_date_format(items: list[Item]) -> str | None:
    """Monash writes the clock with hyphens; other writers use ISO stamps."""
    start = items[0].start
    return _TSF_STAMP if start is not None and re.search(r" \d{2}-\d{2}-\d{2}$", start) else None
