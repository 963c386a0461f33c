"""What a model folder says of training data and history: are its parts of the types a fit writes?"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

import numpy as np

__all__ = ["wrong_fact"]

_LABEL = (str, int, float)
_LISTS = ("features", "series", "covariates", "symbols", "conditions", "snapshot_times", "num_particles")
_STAMPS = ("time_start", "time_end", "val_time_end")
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_LISTS, list),
    "symbols": (list, NoneType),
    **dict.fromkeys(_STAMPS, _LABEL),
    "units": (*_LABEL, NoneType),
    "timezone": (str, NoneType),
    "time_units": (*_LABEL, NoneType),
    "freq": _LABEL,
    "num_series": int,
    "num_steps": int,
    "missing_share": (int, float),
}


def wrong_fact(info: Mapping[str, Any]) -> str | None:
    """Name the first part of ``data_info`` or ``history`` that is of a wrong type.

    Both may be missing; ``data_info`` may hold more than is known here, but names features and frequency.
    """
    facts, history = info.get("data_info"), info.get("history")
    if not isinstance(facts, dict | None):
        return "'data_info'"
    # Without these no data can be compared with those of the training.
    for name in ("features", "snapshot_times" if "snapshot_times" in (facts or {}) else "freq"):
        if facts is not None and name not in facts:
            return f"'data_info' without {name!r}"
    for name, value in (facts or {}).items():
        if not _is_fact(name, value):
            return f"{name!r} in 'data_info'"
    return None if history is None or _is_history(history) else "'history'"


def _is_fact(name: str, value: Any) -> bool:
    if name in _LISTS and not (name == "symbols" and value is None):
        return isinstance(value, list) and all(isinstance(part, _LABEL) for part in value)
    if name in _STAMPS and isinstance(value, str):
        return _is_stamp(value)
    return isinstance(value, _KINDS.get(name, object)) and (name not in _KINDS or not isinstance(value, bool))


def _is_stamp(value: str) -> bool:
    try:
        return not np.isnat(np.datetime64(value))
    except ValueError:
        return False


def _is_history(history: Any) -> bool:
    if not isinstance(history, dict) or not isinstance(history.get("rows"), list):
        return False
    attrs, rows = history.get("attrs"), history["rows"]
    return _holds(attrs, str) and all(_holds(row, (int, float)) for row in rows)


def _holds(values: Any, kind: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, kind) for value in values.values())
