"""Checks of single arguments that many functions share."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["check_amount", "check_count", "check_lower", "is_count"]


def is_count(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is a whole number of at least ``least``; ``True`` is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_count(value: Any, name: str, *, least: int = 1, hint: str = "") -> int:
    """Return ``value`` as an int.

    Args:
        value: What the caller gave.
        name: The argument's name.
        least: Smallest number allowed.
        hint: What to type instead, as the end of the sentence.

    Raises:
        ValueError: If it is no whole number of at least ``least``.
    """
    if not is_count(value, least):
        end = f"; {hint}" if hint else ""
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}{end}.")
    return int(value)


def check_amount(value: Any, name: str, *, zero: bool = True) -> float:
    """Return ``value`` as a float.

    Args:
        value: What the caller gave.
        name: The argument's name.
        zero: Whether it may be 0.

    Raises:
        ValueError: If it is no finite number, negative, or 0 where it may not be.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0 <= value < math.inf) or (value == 0 and not zero):
        kind = "a finite number of at least 0" if zero else "a positive number"
        raise ValueError(f"{name} must be {kind}, got {value!r}.")
    return float(value)


def check_lower(value: Any) -> float | None:
    """Return the smallest possible value of draws as a float; ``None`` stays.

    Raises:
        ValueError: If it is no finite number.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(
            f"lower must be a finite number in the units of the data, got {value!r}; 0.0 for counts, "
            "leave it out for no bound."
        )
    return float(value)
