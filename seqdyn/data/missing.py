"""Hiding parts of the context, to see how a forecast copes with missing values.

=========  ==============================================================
scenario   hidden steps of the context
=========  ==============================================================
``RM``     n steps drawn uniformly without replacement (random missing)
``BM-B``   the first n (block missing, beginning)
``BM-E``   the last n, just before the forecast (block missing, end)
=========  ==============================================================

Source: Kollovieh et al. (2023), arXiv 2307.11494, on missing values; there n is half the context.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from seqdyn.data.schema import FEATURE, OBSERVED, SERIES, TARGET, TIME, check_sequences, observed_mask

__all__ = ["SCENARIOS", "hide_context"]

SCENARIOS = ("RM", "BM-B", "BM-E")


def hide_context(
    data: xr.Dataset,
    scenario: str,
    *,
    context_length: int,
    num_hidden: int | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Hide steps of the last ``context_length`` steps of every series; what lies before stays observed.

    Random steps are a function of seed and series label: neither the order of series nor which others are
    present matters, and every model sees the same steps.

    Args:
        data: Sequences that end where the forecast starts.
        scenario: ``"RM"``, ``"BM-B"`` or ``"BM-E"``.
        context_length: Steps K of the context.
        num_hidden: Steps n to hide, 0 to K; half the context by default.
        seed: Seed of ``"RM"``; ``None`` takes one from NumPy's ambient stream.

    Returns:
        A copy with NaN for the target and false for ``observed`` at the hidden steps, in all features.

    Raises:
        ValueError: If an argument is out of range, or nothing of a series would be left.
    """
    check_sequences(data)
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario must be one of {SCENARIOS}, got {scenario!r}.")
    if not 1 <= context_length <= data.sizes[TIME]:
        raise ValueError(
            f"context_length must lie between 1 and the {data.sizes[TIME]} time steps of the data, "
            f"got {context_length}."
        )
    count = context_length // 2 if num_hidden is None else num_hidden
    if not 0 <= count <= context_length:
        raise ValueError(
            f"num_hidden must lie between 0 and context_length={context_length}, got {num_hidden}; "
            f"None hides {context_length // 2}."
        )
    if count == 0:
        return data.copy()
    labels = data[SERIES].values.tolist()
    hidden = np.zeros((data.sizes[SERIES], data.sizes[TIME]), dtype=bool)
    for row, steps in zip(hidden, _steps(labels, scenario, context_length, count, seed), strict=True):
        row[len(row) - context_length + steps] = True
    observed = observed_mask(data) & ~hidden[:, :, None]
    _check_left(observed, labels, count)
    target = data[TARGET].where(xr.DataArray(~hidden, dims=(SERIES, TIME)))
    return data.assign({TARGET: target, OBSERVED: ((SERIES, TIME, FEATURE), observed)})


def _steps(
    labels: list[object], scenario: str, context_length: int, count: int, seed: int | None
) -> list[np.ndarray]:
    """Hidden positions within the context of each series."""
    if scenario == "BM-B":
        return [np.arange(count)] * len(labels)
    if scenario == "BM-E":
        return [np.arange(context_length - count, context_length)] * len(labels)
    root = int(np.random.randint(2**31)) if seed is None else seed % 2**64
    keys = [int.from_bytes(f"{type(label).__name__}:{label}".encode()) for label in labels]
    return [np.random.default_rng([root, key]).permutation(context_length)[:count] for key in keys]


def _check_left(observed: np.ndarray, labels: list[object], count: int) -> None:
    empty = ~observed.any(axis=(1, 2))
    if empty.any():
        raise ValueError(
            f"hiding {count} steps leaves nothing observed of series {labels[int(empty.argmax())]!r}; "
            "give more history before the context, or hide less with num_hidden=."
        )
