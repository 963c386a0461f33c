"""Names of dims and variables, and the checks of the three kinds of data.

=========  ================================================================  =========================
kind       variables (dims)                                                  coordinates
=========  ================================================================  =========================
sequences  ``target (series, time, feature)`` or integer ``symbol (series,   ``series``, ``time``,
           time)``; optional bool ``observed`` with the dims of the target   ``feature``,
           or ``(series, time)``; optional ``covariates (series, time,       ``covariate``
           covariate)``, known in the past and in the future; -1 is a      ``outcome``
           missing symbol, ``outcome[k]`` the label of symbol k
snapshots  ``x (particle, feature)``; optional ``weight (particle)`` and     ``time (particle)``,
           ``growth (particle)``, a rate per unit of time                    ``feature``, optional
                                                                             ``condition (particle)``
episodes   ``support_x (task, support, input)``, ``support_y (task,          ``task``
           support, output)`` or integer labels ``(task, support)``;
           ``query_x`` and ``query_y`` alike
=========  ================================================================  =========================

``time`` is strictly increasing and regular: naive ``datetime64`` in steps of ``time.attrs["freq"]``, meaning
UTC where ``time.attrs["timezone"]`` names a zone, or numbers with one step. NaN is legal only where
``observed`` is false. Units stand in ``attrs["units"]`` of the variable.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.checks import (
    check_finite,
    check_labels,
    check_numeric,
    check_range,
    check_time,
    check_variable,
    frequency,
    plain,
    where,
)
from seqdyn.data.names import (
    CONDITION,
    COVARIATE,
    COVARIATES,
    FEATURE,
    GROWTH,
    INPUT,
    OBSERVED,
    OUTCOME,
    OUTPUT,
    PARTICLE,
    QUERY,
    QUERY_X,
    QUERY_Y,
    SAMPLE,
    SERIES,
    SUPPORT,
    SUPPORT_X,
    SUPPORT_Y,
    SYMBOL,
    TARGET,
    TASK,
    TIME,
    WEIGHT,
    WINDOW,
    X,
)
from seqdyn.data.spans import spans
from seqdyn.data.times import as_stamps, time_grid, wall_clock

__all__ = [
    "CONDITION",
    "COVARIATE",
    "COVARIATES",
    "FEATURE",
    "GROWTH",
    "INPUT",
    "OBSERVED",
    "OUTCOME",
    "OUTPUT",
    "PARTICLE",
    "QUERY",
    "QUERY_X",
    "QUERY_Y",
    "SAMPLE",
    "SERIES",
    "SUPPORT",
    "SUPPORT_X",
    "SUPPORT_Y",
    "SYMBOL",
    "TARGET",
    "TASK",
    "TIME",
    "WEIGHT",
    "WINDOW",
    "X",
    "check_episodes",
    "check_sequences",
    "check_snapshots",
    "describe",
    "fingerprint",
    "frequency",
    "future_times",
    "local_time",
    "observed_mask",
    "summary",
]

_MAX_LABELS = 1000


def check_sequences(data: xr.Dataset, *, min_length: int | None = None, variable: str = TARGET) -> None:
    """Check that ``data`` follows the sequence schema.

    Args:
        data: Dataset to check.
        min_length: Fewest time steps the grid must have.
        variable: ``"target"`` for numbers, ``"symbol"`` for discrete sequences.

    Raises:
        ValueError: On the first violation, with where it is and what to type.
    """
    dims = (SERIES, TIME, FEATURE) if variable == TARGET else (SERIES, TIME)
    check_variable(data, variable, dims, "sequence")
    for dim in (SERIES, FEATURE) if variable == TARGET else (SERIES,):
        check_labels(data, variable, dim)
    check_time(data)
    steps = data.sizes[TIME]
    if min_length is not None and steps < min_length:
        raise ValueError(
            f"the data have {steps} time steps but {min_length} are needed; give a longer stretch, or a "
            "model with a smaller context_length or prediction_length."
        )
    if variable == SYMBOL:
        _check_symbols(data)
        return
    _check_target(data)
    if COVARIATES in data:
        check_variable(data, COVARIATES, (SERIES, TIME, COVARIATE), "sequence")
        check_labels(data, COVARIATES, COVARIATE)
        check_finite(data[COVARIATES], COVARIATES)


def check_snapshots(data: xr.Dataset, *, min_times: int = 2) -> None:
    """Check that ``data`` follows the snapshot schema: finite ``x (particle, feature)`` at two or more times.

    Args:
        data: Dataset to check.
        min_times: Fewest times, in each condition: 2 to learn from, 1 to compare with.

    Raises:
        ValueError: On the first violation, with where it is and what to type.
    """
    _check_kind(data)
    if X not in data:
        raise ValueError(
            f"a snapshot dataset needs the variable 'x', found {sorted(map(str, data.data_vars))}; rename "
            "yours with data.rename(NAME='x')."
        )
    x = data[X]
    if x.dims != (PARTICLE, FEATURE):
        raise ValueError(
            f"'x' must have dims ('particle', 'feature'), got {x.dims}; reorder with x.transpose('particle', "
            "'feature') or flatten a grid with seqdyn.data.stack_snapshots(data)."
        )
    check_numeric(x, X)
    if FEATURE in x.coords:
        check_labels(data, X, FEATURE)
    _check_snapshot_times(x, min_times)
    bad = ~np.isfinite(x.values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"'x' has {bad.sum()} of {len(bad)} particles with NaN or infinity (first at "
            f"particle={int(bad.argmax())}); drop them with data.isel(particle=~bad), bad = "
            "~np.isfinite(data.x.values).all(axis=1)."
        )
    check_range(x, X)
    for name in (WEIGHT, GROWTH):
        if name in data:
            check_variable(data, name, (PARTICLE,), "snapshot")
            check_finite(data[name], name)
    _check_weights(data)
    _check_conditions(data, min_times)


def check_episodes(data: xr.Dataset) -> None:
    """Check that ``data`` follows the episode schema: support and query pairs of every task.

    Raises:
        ValueError: On the first violation, with where it is and what to type.
    """
    for name, draw in ((SUPPORT_X, SUPPORT), (QUERY_X, QUERY)):
        check_variable(data, name, (TASK, draw, INPUT), "episode")
        check_finite(data[name], name)
    labels = SUPPORT_Y in data and data[SUPPORT_Y].ndim == 2
    for name, draw in ((SUPPORT_Y, SUPPORT), (QUERY_Y, QUERY)):
        check_variable(data, name, (TASK, draw) if labels else (TASK, draw, OUTPUT), "episode")
        if labels and data[name].dtype.kind not in "iu":
            raise ValueError(
                f"'{name}' without the dim 'output' must hold integer class labels, got {data[name].dtype}; "
                f"convert with data.assign({name}=data.{name}.astype(int)), or add the dim to values: "
                f"data.{name}.expand_dims('output', -1)."
            )
        check_finite(data[name], name)
    if TASK in data.coords:
        check_labels(data, SUPPORT_X, TASK)
    if labels:
        _check_class_labels(data)


def observed_mask(data: xr.Dataset) -> np.ndarray:
    """Boolean mask (M, T, C), true where ``target`` counts; all true where the data carry no mask.

    Of discrete sequences (M, T, 1), true where there is a symbol.
    """
    discrete = TARGET not in data and SYMBOL in data
    known = data[SYMBOL].values[..., None] >= 0 if discrete else np.ones(data[TARGET].shape, dtype=bool)
    if OBSERVED not in data:
        return known
    observed = data[OBSERVED].values
    return np.array(known & (observed if observed.ndim == 3 else observed[:, :, None]))


def local_time(value: Any, data: xr.Dataset | xr.DataArray) -> str:
    """A time of ``data`` for a message: a stamp is local and with its offset where the data name a zone."""
    if data[TIME].dtype.kind != "M":
        return str(value)
    zone = data[TIME].attrs.get("timezone")
    return str(pd.Timestamp(value) if zone is None else pd.Timestamp(value, tz="UTC").tz_convert(zone))


def future_times(data: xr.Dataset, n: int) -> np.ndarray:
    """The ``n`` time stamps that follow the last one of ``data``, in its own calendar and time zone."""
    time, step = data[TIME], frequency(data)
    if time.dtype.kind == "M":
        last = as_stamps(time.values)[-1]
        zone = time.attrs.get("timezone")
        return time_grid(last, str(step), periods=n + 1, timezone=zone)[1:].to_numpy()
    future = time.values[0] + float(step) * np.arange(len(time), len(time) + n)
    if time.dtype.kind in "iu" and float(step).is_integer():
        return future.round().astype(time.dtype)
    return future.astype(np.result_type(time.dtype, np.float32))


def describe(data: xr.Dataset) -> dict[str, Any]:
    """Plain JSON facts of a sequence dataset, as saved beside a model's weights.

    Returns:
        ``features``, ``units``, ``num_series``, ``series`` (only the first and last label above 1,000
        series), ``time_start``, ``time_end``, ``timezone``, ``freq``, ``num_steps``, ``covariates`` and
        ``missing_share``; of discrete sequences also ``symbols``, their labels if there are any.
    """
    discrete, time = TARGET not in data, data[TIME]
    labels = [plain(label) for label in data[SERIES].values]
    facts = {
        "features": [SYMBOL] if discrete else [plain(name) for name in data[FEATURE].values],
        "units": data[SYMBOL if discrete else TARGET].attrs.get("units"),
        "num_series": len(labels),
        "series": labels if len(labels) <= _MAX_LABELS else [labels[0], labels[-1]],
        "time_start": plain(time.values[0]),
        "time_end": plain(time.values[-1]),
        "timezone": time.attrs.get("timezone"),
        "freq": frequency(data),
        "num_steps": int(time.size),
        "covariates": [plain(name) for name in data[COVARIATE].values] if COVARIATES in data else [],
        "missing_share": float(1.0 - observed_mask(data).mean()),
    }
    if discrete:
        known = OUTCOME in data.coords
        facts["symbols"] = [plain(label) for label in data[OUTCOME].values] if known else None
    return facts


def summary(data: xr.Dataset) -> str:
    """What a sequence dataset holds, in two lines for people."""
    facts = describe(data)
    names = facts["features"] if TARGET in data else _shares(data)
    kind = "feature" if TARGET in data else "symbol"
    features = f"{len(names)} {kind}s: " if len(names) > 1 else f"{kind} "
    features += ", ".join(map(str, names[:6])) + (", …" if len(names) > 6 else "")
    units = f" [{facts['units']}]" if facts["units"] else ""
    extra = f"; covariates: {', '.join(facts['covariates'])}" if facts["covariates"] else ""
    ends, zone = data[TIME].values[[0, -1]], facts["timezone"]
    if zone is not None:
        ends = wall_clock(as_stamps(ends), zone).to_numpy()
    start, end = spans(np.asarray(observed_mask(data).any(axis=2)))
    least, most = (end - start).min(), (end - start).max()
    lengths = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    step = f"{facts['freq']:g}" if isinstance(facts["freq"], float) else repr(facts["freq"])
    return (
        f"{facts['num_series']:,} series of {lengths} steps, {features}{units}{extra}\n"
        f"in steps of {step} from {plain(ends[0])} to {plain(ends[1])}{f' ({zone} time)' if zone else ''}, "
        f"{100 * facts['missing_share']:.2g} % of the grid missing"
    )


def _shares(data: xr.Dataset) -> list[str]:
    """The symbols of discrete sequences, each with its share of those observed."""
    codes = data[SYMBOL].values[observed_mask(data)[..., 0]]
    labels = data[OUTCOME].values if OUTCOME in data.coords else range(int(codes.max(initial=0)) + 1)
    counts = np.bincount(codes, minlength=len(labels)) / max(len(codes), 1)
    return [f"{label} ({100 * count:.3g} %)" for label, count in zip(labels, counts, strict=True)]


def fingerprint(data: xr.Dataset) -> str:
    """SHA-256 over observed values, mask and coordinates; equal for equal data in any dtype or resolution."""
    mask, time = observed_mask(data), data[TIME].values
    parts: list[np.ndarray] = [np.where(mask, data[TARGET].values, 0.0).astype(np.float64), np.packbits(mask)]
    if COVARIATES in data:
        parts.append(data[COVARIATES].values.astype(np.float64))
    parts.append(as_stamps(time).asi8 if time.dtype.kind == "M" else time.astype(np.float64))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    dims = [dim for dim in (SERIES, FEATURE, COVARIATE) if dim in data.coords]
    digest.update(json.dumps([[plain(label) for label in data[dim].values] for dim in dims]).encode())
    return digest.hexdigest()


def _check_target(data: xr.Dataset) -> None:
    target, dims = data[TARGET], ((SERIES, TIME, FEATURE), (SERIES, TIME))
    if OBSERVED in data and (data[OBSERVED].dtype != bool or data[OBSERVED].dims not in dims):
        raise ValueError(
            f"'observed' must be bool with dims {dims[0]} or {dims[1]}, got {data[OBSERVED].dtype} with "
            f"{data[OBSERVED].dims}; rebuild it with data.assign(observed=data['target'].notnull())."
        )
    mask = observed_mask(data)
    nan = np.isnan(target.values) & mask
    if nan.any():
        known = "data['observed'] & " if OBSERVED in data else ""
        raise ValueError(
            f"'target' is NaN at {where(target, nan)} ({int(nan.sum()):,} value(s) in all) without being "
            f"marked missing; mark it with data.assign(observed={known}data['target'].notnull())."
        )
    infinite = np.isinf(target.values) & mask
    if infinite.any():
        raise ValueError(
            f"'target' is infinite at {where(target, infinite)} ({int(infinite.sum()):,} value(s) in all); "
            "repair the source, or treat it as missing: y = data.target.where(np.isfinite(data.target)); "
            "data = data.assign(target=y, observed=y.notnull())."
        )
    check_range(target, TARGET, mask)
    empty = ~mask.any(axis=(1, 2))
    if empty.any():
        labels = [plain(label) for label in data[SERIES].values[empty]]
        raise ValueError(
            f"series {labels[0]!r} has no observed value at all ({len(labels)} such series); drop with "
            f"data.drop_sel(series={labels[:5]})."
        )


def _check_kind(data: Any) -> None:
    """Check that what should be snapshots is a dataset, and not one of sequences."""
    if not isinstance(data, xr.Dataset):
        raise ValueError(
            f"snapshots must be an xr.Dataset, got {type(data).__name__}; pass "
            "seqdyn.data.read_snapshots(data, time=...), which reads files, frames and arrays."
        )
    if X not in data and SERIES in data.dims and (TARGET in data or SYMBOL in data):
        raise ValueError(
            "these data are sequences, series followed over time, but a bridge needs snapshots, particles "
            "that are seen once; read yours with seqdyn.data.read_snapshots(data, time=...), or take a model "
            "of sequences, such as seqdyn.models.TSDiff."
        )


def _check_snapshot_times(x: xr.DataArray, min_times: int) -> None:
    if TIME not in x.coords or x[TIME].dims != (PARTICLE,):
        raise ValueError(
            "every particle needs its snapshot time: data.assign_coords(time=('particle', times))."
        )
    times = x[TIME].values
    if times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        raise ValueError(
            f"snapshot times must be finite numbers, got {times.dtype} such as {times[:1].tolist()}; convert "
            "them: data.assign_coords(time=('particle', days_since_start))."
        )
    distinct = np.unique(times)
    if len(distinct) < min_times:
        raise ValueError(
            f"a bridge needs snapshots at two or more times, got only {distinct.tolist()}; add those of "
            "other times, with read_snapshots(..., time='NAME') where the wrong column was taken for the "
            "time."
        )


def _check_weights(data: xr.Dataset) -> None:
    if WEIGHT not in data:
        return
    weight = data[WEIGHT].values
    if (weight < 0).any():
        raise ValueError(
            f"'weight' is negative at {where(data[WEIGHT], weight < 0)}; give each particle a weight of at "
            "least 0, or leave 'weight' out for equal ones."
        )
    columns = {TIME: data[TIME].values}
    if CONDITION in data.coords and data[CONDITION].dims == (PARTICLE,):
        columns[CONDITION] = data[CONDITION].values
    keys = pd.DataFrame(columns)
    total = pd.Series(weight).groupby([keys[name] for name in keys]).transform("sum").to_numpy()
    if (total == 0).any():
        first = int((total == 0).argmax())
        of = f" in condition {plain(columns[CONDITION][first])!r}" if CONDITION in columns else ""
        raise ValueError(
            f"all particles at time {plain(columns[TIME][first])!r}{of} have weight 0; give one of them a "
            "weight, or drop this snapshot."
        )


def _check_conditions(data: xr.Dataset, min_times: int) -> None:
    if CONDITION not in data.coords:
        return
    condition = data[CONDITION]
    if condition.dims != (PARTICLE,):
        raise ValueError(
            f"'condition' must be a coordinate of each particle, got dims {condition.dims}: "
            "data.assign_coords(condition=('particle', labels))."
        )
    labels = condition.values
    for label in dict.fromkeys(labels.tolist()):
        times = np.unique(data[TIME].values[labels == label])
        if len(times) < min_times:
            raise ValueError(
                f"condition {label!r} has snapshots at {times.tolist()} only; a bridge needs two or more "
                "times in each condition."
            )


def _check_symbols(data: xr.Dataset) -> None:
    symbol = data[SYMBOL]
    if symbol.dtype.kind not in "iu" or bool((symbol < -1).any()):
        raise ValueError(
            f"'symbol' must hold integers from 0, or -1 where missing, got {symbol.dtype}, minimum "
            f"{plain(symbol.values.min())!r}; number them with seqdyn.data.read_symbols(data)."
        )
    if OBSERVED in data and (data[OBSERVED].dtype != bool or data[OBSERVED].dims != symbol.dims):
        raise ValueError(
            f"'observed' must be bool with dims {symbol.dims}, got {data[OBSERVED].dtype} with "
            f"{data[OBSERVED].dims}; rebuild it with data.assign(observed=data['symbol'] >= 0)."
        )
    if OUTCOME in data.coords and int(symbol.max()) >= data.sizes[OUTCOME]:
        raise ValueError(
            f"'symbol' holds code {int(symbol.max())}, but 'outcome' labels only {data.sizes[OUTCOME]} "
            "symbols; read the source anew with seqdyn.data.read_symbols(...)."
        )


def _check_class_labels(data: xr.Dataset) -> None:
    support, query = data[SUPPORT_Y].values, data[QUERY_Y].values
    unseen = ~(query[:, :, None] == support[:, None, :]).any(axis=2)
    if unseen.any():
        label = query[np.unravel_index(int(unseen.argmax()), unseen.shape)]
        raise ValueError(
            f"'query_y' holds label {label} at {where(data[QUERY_Y], unseen)}, which the task's support "
            "never shows; draw support and query from the same classes, or drop the task with "
            "data.isel(task=...)."
        )
