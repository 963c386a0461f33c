"""Names of dims and variables, and the checks of the three kinds of data.

================  ===============================================================  ==============================
kind              variables (dims)                                                 coordinates
================  ===============================================================  ==============================
sequences         ``target (series, time, feature)`` or integer ``symbol (series,  ``series``, ``time``,
                  time)``; optional bool ``observed`` with the dims of the         ``feature``, ``covariate``
                  target or ``(series, time)``; optional ``covariates (series,
                  time, covariate)``, known in the past and in the future
snapshots         ``x (particle, feature)``                                        ``time (particle)``,
                                                                                   ``feature``
episodes          ``support_x (task, support, input)``, ``support_y (task,         ``task``
                  support, output)`` or integer labels ``(task, support)``;
                  ``query_x`` and ``query_y`` alike
================  ===============================================================  ==============================

``time`` is strictly increasing and regular: naive ``datetime64`` in steps of ``time.attrs["freq"]``, meaning UTC
where ``time.attrs["timezone"]`` names a zone, or numbers with one step. NaN is legal only where ``observed`` is
false. Units stand in ``attrs["units"]`` of the variable.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.times import as_stamps, check_timezone, infer_freq, normalize_freq, time_grid, wall_clock

__all__ = [
    "COVARIATE",
    "COVARIATES",
    "FEATURE",
    "INPUT",
    "OBSERVED",
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
    "WINDOW",
    "X",
    "check_episodes",
    "check_sequences",
    "check_snapshots",
    "describe",
    "fingerprint",
    "frequency",
    "future_times",
    "observed_mask",
    "summary",
]

SERIES, TIME, FEATURE, COVARIATE = "series", "time", "feature", "covariate"
SAMPLE, PARTICLE, TASK, WINDOW = "sample", "particle", "task", "window"
TARGET, OBSERVED, SYMBOL, COVARIATES, X = "target", "observed", "symbol", "covariates", "x"
SUPPORT, QUERY, INPUT, OUTPUT = "support", "query", "input", "output"
SUPPORT_X, SUPPORT_Y, QUERY_X, QUERY_Y = "support_x", "support_y", "query_x", "query_y"

_FLOAT32_MAX = float(np.finfo(np.float32).max)
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
    _check_variable(data, variable, dims, "sequence")
    _check_labels(data, variable, SERIES)
    if variable == TARGET:
        _check_labels(data, variable, FEATURE)
    _check_time(data)
    steps = data.sizes[TIME]
    if min_length is not None and steps < min_length:
        raise ValueError(
            f"the data have {steps} time steps but {min_length} are needed; give a longer stretch, or a model with a "
            "smaller context_length or prediction_length."
        )
    if variable == SYMBOL:
        _check_symbols(data)
        return
    _check_target(data)
    if COVARIATES in data:
        _check_covariates(data)


def check_snapshots(data: xr.Dataset) -> None:
    """Check that ``data`` follows the snapshot schema: finite ``x (particle, feature)`` at two or more times.

    Raises:
        ValueError: On the first violation, with where it is and what to type.
    """
    if X not in data:
        raise ValueError(
            f"a snapshot dataset needs the variable 'x', found {sorted(map(str, data.data_vars))}; "
            "rename yours with data.rename(NAME='x')."
        )
    x = data[X]
    if x.dims != (PARTICLE, FEATURE):
        raise ValueError(
            f"'x' must have dims ('particle', 'feature'), got {x.dims}; reorder with "
            "x.transpose('particle', 'feature') or flatten a grid with seqdyn.data.stack_snapshots(data)."
        )
    _check_numeric(x, X)
    if FEATURE in x.coords:
        _check_labels(data, X, FEATURE)
    if TIME not in x.coords or x[TIME].dims != (PARTICLE,):
        raise ValueError("every particle needs its snapshot time: data.assign_coords(time=('particle', times)).")
    times = x[TIME].values
    if times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        raise ValueError(
            f"snapshot times must be finite numbers, got {times.dtype} such as {times[:1].tolist()}; convert them: "
            "data.assign_coords(time=('particle', days_since_start))."
        )
    if len(np.unique(times)) < 2:
        raise ValueError(f"a bridge needs snapshots at two or more times, got only {np.unique(times).tolist()}.")
    bad = ~np.isfinite(x.values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"'x' has {bad.sum()} of {len(bad)} particles with NaN or infinity (first at "
            f"particle={int(bad.argmax())}); drop them with data.isel(particle=~bad), "
            "bad = ~np.isfinite(data.x.values).all(axis=1)."
        )
    _check_range(x, X)


def check_episodes(data: xr.Dataset) -> None:
    """Check that ``data`` follows the episode schema: support and query pairs of every task.

    Raises:
        ValueError: On the first violation, with where it is and what to type.
    """
    for name, draw in ((SUPPORT_X, SUPPORT), (QUERY_X, QUERY)):
        _check_variable(data, name, (TASK, draw, INPUT), "episode")
        _check_finite(data[name], name)
    labels = SUPPORT_Y in data and data[SUPPORT_Y].dtype.kind in "iu"
    for name, draw in ((SUPPORT_Y, SUPPORT), (QUERY_Y, QUERY)):
        _check_variable(data, name, (TASK, draw) if labels else (TASK, draw, OUTPUT), "episode")
        if labels and data[name].dtype.kind not in "iu":
            raise ValueError(
                f"'support_y' holds integer labels but '{name}' is {data[name].dtype}; "
                f"convert with data.assign({name}=data.{name}.astype(int))."
            )
        _check_finite(data[name], name)
    if TASK in data.coords:
        _check_labels(data, SUPPORT_X, TASK)
    if labels:
        _check_class_labels(data)


def observed_mask(data: xr.Dataset) -> np.ndarray:
    """Boolean mask (M, T, C), true where ``target`` counts; all true where the data carry no mask."""
    target = data[TARGET]
    if OBSERVED not in data:
        return np.ones(target.shape, dtype=bool)
    observed = data[OBSERVED].values
    return np.array(np.broadcast_to(observed if observed.ndim == 3 else observed[:, :, None], target.shape))


def frequency(data: xr.Dataset) -> str | float:
    """Step of the time axis: a pandas alias for datetimes, a number for numeric times.

    Raises:
        ValueError: If it is neither recorded in ``data.time.attrs["freq"]`` nor visible in the stamps.
    """
    time = data[TIME]
    noted = time.attrs.get("freq")
    if time.dtype.kind != "M":
        if len(time) > 1:
            return float(time.values[-1] - time.values[0]) / (len(time) - 1)
        if noted is not None:
            return float(noted)
    elif noted is not None:
        return normalize_freq(str(noted))
    elif found := infer_freq(as_stamps(time.values), time.attrs.get("timezone")):
        return found
    raise ValueError(
        f"the frequency of {len(time)} time stamp(s) is unknown; state it: "
        + ("data.time.attrs['freq'] = 'h'." if time.dtype.kind == "M" else "data.time.attrs['freq'] = 1.0.")
    )


def future_times(data: xr.Dataset, n: int) -> np.ndarray:
    """The ``n`` time stamps that follow the last one of ``data``, in its own calendar and time zone."""
    time, step = data[TIME], frequency(data)
    if time.dtype.kind == "M":
        last = as_stamps(time.values)[-1]
        zone = time.attrs.get("timezone")
        return time_grid(last, str(step), periods=n + 1, timezone=zone)[1:].to_numpy()
    future = time.values[0] + float(step) * np.arange(len(time), len(time) + n)
    whole = time.dtype.kind in "iu" and float(step).is_integer()
    return future.round().astype(time.dtype) if whole else future.astype(np.result_type(time.dtype, np.float32))


def describe(data: xr.Dataset) -> dict[str, Any]:
    """Plain JSON facts of a sequence dataset, as saved beside a model's weights.

    Returns:
        ``features``, ``units``, ``num_series``, ``series`` (only the first and last label above 1,000 series),
        ``time_start``, ``time_end``, ``timezone``, ``freq``, ``num_steps``, ``covariates``, ``missing_share``.
    """
    target, time = data[TARGET], data[TIME]
    labels = [_plain(label) for label in data[SERIES].values]
    return {
        "features": [_plain(name) for name in data[FEATURE].values],
        "units": target.attrs.get("units"),
        "num_series": len(labels),
        "series": labels if len(labels) <= _MAX_LABELS else [labels[0], labels[-1]],
        "time_start": _plain(time.values[0]),
        "time_end": _plain(time.values[-1]),
        "timezone": time.attrs.get("timezone"),
        "freq": frequency(data),
        "num_steps": int(time.size),
        "covariates": [_plain(name) for name in data[COVARIATE].values] if COVARIATES in data else [],
        "missing_share": float(1.0 - observed_mask(data).mean()) if target.size else 0.0,
    }


def summary(data: xr.Dataset) -> str:
    """What a sequence dataset holds, in two lines for people."""
    facts = describe(data)
    features = ", ".join(map(str, facts["features"][:6])) + (", …" if len(facts["features"]) > 6 else "")
    units = f" [{facts['units']}]" if facts["units"] else ""
    extra = f", {len(facts['covariates'])} covariate(s)" if facts["covariates"] else ""
    zone = facts["timezone"]
    ends = [_plain(data[TIME].values[i]) for i in (0, -1)]
    if zone is not None:
        local = wall_clock(as_stamps(data[TIME].values[[0, -1]]), zone)
        ends = [_plain(stamp) for stamp in local.to_numpy()]
    spans = _spans(observed_mask(data))
    lengths = f"{spans.min():,}" if spans.min() == spans.max() else f"{spans.min():,} to {spans.max():,}"
    freq = facts["freq"] if isinstance(facts["freq"], str) else f"{facts['freq']:g}"
    return (
        f"{facts['num_series']:,} series of {lengths} steps, {len(facts['features'])} feature(s): "
        f"{features}{units}{extra}\n"
        f"every {freq} from {ends[0]} to {ends[1]}{f' ({zone} time)' if zone else ''}, "
        f"{100 * facts['missing_share']:.2g} % of the grid missing"
    )


def fingerprint(data: xr.Dataset) -> str:
    """SHA-256 over observed values, mask and coordinates; equal for equal data in any dtype or resolution."""
    digest = hashlib.sha256()
    mask = observed_mask(data)
    parts = [np.where(mask, data[TARGET].values, 0.0).astype(np.float64), np.packbits(mask)]
    if COVARIATES in data:
        parts.append(data[COVARIATES].values.astype(np.float64))
    time = data[TIME].values
    parts.append(as_stamps(time).asi8 if time.dtype.kind == "M" else time.astype(np.float64))
    for part in parts:
        digest.update(str(part.shape).encode())
        digest.update(np.ascontiguousarray(part).data)
    names = {name: [_plain(v) for v in data[name].values] for name in (SERIES, FEATURE, COVARIATE) if name in data}
    digest.update(json.dumps(names, sort_keys=True).encode())
    return digest.hexdigest()


def _plain(value: Any) -> str | int | float:
    """A label or stamp as JSON holds it."""
    if isinstance(value, np.datetime64):
        text = str(pd.Timestamp(value))
        return text.removesuffix(" 00:00:00")
    return value.item() if isinstance(value, np.generic) else value


def _spans(observed: np.ndarray) -> np.ndarray:
    """Steps from the first to the last observed one of each series; (M, T, C) → (M,)."""
    steps = observed.any(axis=2)
    if steps.size == 0:
        return np.zeros(max(1, len(steps)), dtype=int)
    first, last = steps.argmax(axis=1), steps.shape[1] - 1 - steps[:, ::-1].argmax(axis=1)
    return np.where(steps.any(axis=1), last - first + 1, 0)


def _where(array: xr.DataArray, bad: np.ndarray) -> str:
    """Coordinates and indices of the first true entry of ``bad``, for a message."""
    index = np.unravel_index(int(np.argmax(bad)), bad.shape)
    parts = []
    for dim, i in zip(array.dims, index, strict=True):
        label = f"{_plain(array[dim].values[i])!r} (index {i})" if dim in array.coords else f"{i}"
        parts.append(f"{dim}={label}")
    return ", ".join(parts)


def _check_variable(data: xr.Dataset, name: str, dims: tuple[str, ...], kind: str) -> None:
    if not isinstance(data, xr.Dataset):
        raise ValueError(
            f"expected an xarray.Dataset, got {type(data).__name__}; convert it with seqdyn.data.read_sequences(...), "
            "from_pandas(...) or from_numpy(...)."
        )
    if name not in data:
        raise ValueError(
            f"a {kind} dataset needs the variable '{name}', found {sorted(map(str, data.data_vars))}; "
            f"rename yours with data.rename(NAME='{name}')."
        )
    if data[name].dims != dims:
        raise ValueError(
            f"'{name}' must have dims {dims}, got {data[name].dims}; reorder with "
            f"data.transpose({', '.join(map(repr, dims))}, ...), rename with data.rename(OLD='NEW') or add a missing dim "
            "with data.expand_dims('NAME')."
        )
    if 0 in data[name].shape:
        raise ValueError(f"'{name}' is empty: its shape is {dict(data[name].sizes)}; check how the data were selected.")
    if name not in (SYMBOL,):
        _check_numeric(data[name], name)


def _check_numeric(array: xr.DataArray, name: str) -> None:
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"'{name}' must hold real numbers, got dtype {array.dtype}; convert with "
            f"data.assign({name}=data['{name}'].astype(float))."
        )


def _check_labels(data: xr.Dataset, variable: str, dim: str) -> None:
    """Require a coordinate of unique strings or integers."""
    if dim not in data.coords or data[dim].dims != (dim,):
        size = data[variable].sizes[dim]
        raise ValueError(
            f"the dim '{dim}' of '{variable}' needs labels: data.assign_coords({dim}=[...]) with {size} entries."
        )
    labels = pd.Index(data[dim].values)
    if data[dim].dtype.kind not in "iuUT" and not all(isinstance(v, str | int | np.integer) for v in labels):
        raise ValueError(
            f"labels of '{dim}' must be strings or integers, got {data[dim].dtype} such as {labels[0]!r}; "
            f"convert with data.assign_coords({dim}=data['{dim}'].astype(str))."
        )
    if not labels.is_unique:
        label = labels[labels.duplicated()][0]
        raise ValueError(
            f"labels of '{dim}' must be unique, {_plain(label)!r} occurs {int((labels == label).sum())} times; "
            f"rename them with data.assign_coords({dim}=[...]) or keep one with data.drop_duplicates('{dim}')."
        )


def _check_time(data: xr.Dataset) -> None:
    """Require a regular, strictly increasing time axis."""
    if TIME not in data.coords or data[TIME].dims != (TIME,):
        raise ValueError(
            "the dim 'time' needs stamps: data.assign_coords(time=pd.date_range('2024-01-01', periods=N, freq='h')), "
            "or numbers."
        )
    time = data[TIME]
    if time.dtype.kind not in "iufM":
        raise ValueError(
            f"'time' must be datetime64 or numbers, got dtype {time.dtype} such as {time.values[0]!r}; convert with "
            "data.assign_coords(time=pd.to_datetime(data['time'].values))."
        )
    is_date = time.dtype.kind == "M"
    values = as_stamps(time.values).asi8 if is_date else time.values
    bad = np.isnat(time.values) if is_date else ~np.isfinite(time.values)
    if bad.any():
        raise ValueError(f"'time' is missing at index {int(bad.argmax())}; drop that step or fill in its stamp.")
    steps = np.diff(values)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0)) + 1
        raise ValueError(
            f"'time' must increase strictly, but step {i} ({_plain(time.values[i])}) does not come after "
            f"{_plain(time.values[i - 1])}; sort with data.sortby('time') and drop repeats with "
            "data.drop_duplicates('time')."
        )
    (_check_dates if is_date else _check_numeric_time)(data, time)


def _check_dates(data: xr.Dataset, time: xr.DataArray) -> None:
    stamps, zone = as_stamps(time.values), time.attrs.get("timezone")
    if zone is not None:
        check_timezone(zone)
    if "freq" not in time.attrs and len(stamps) > 1 and infer_freq(stamps, zone) is None:
        raise ValueError(
            f"'time' has no regular step between {stamps[0]} and {stamps[-1]}; read the data with "
            "read_sequences(..., freq='h') (your frequency) so that gaps become observed=False."
        )
    freq = str(frequency(data))
    off = time_grid(stamps[0], freq, periods=len(stamps), timezone=zone) != stamps
    if off.any():
        i = int(off.argmax())
        raise ValueError(
            f"'time' is not regular in steps of freq='{freq}' (time.attrs['freq']): index {i} is {stamps[i]}; set the "
            "true one with data.time.attrs['freq'] = '...', or fill gaps with data.reindex(time=...) and observed=False."
        )


def _check_numeric_time(data: xr.Dataset, time: xr.DataArray) -> None:
    values = time.values.astype(np.float64)
    step = float(frequency(data))
    # Stamps in float32 seconds carry rounding of their own size; a real gap is a whole step.
    rounding = 4 * float(np.spacing(np.abs(time.values).max())) if time.dtype.kind == "f" else 0.0
    off = np.abs(np.diff(values) - step) > 1e-4 * step + rounding
    if off.any():
        i = int(off.argmax()) + 1
        raise ValueError(
            f"'time' is not regular: the step to index {i} (time={values[i]:g}) is {values[i] - values[i - 1]:g}, the mean "
            f"step {step:g}; fill gaps with data.reindex(time=...) and observed=False, or interpolate to a regular axis."
        )


def _check_target(data: xr.Dataset) -> None:
    target = data[TARGET]
    if OBSERVED in data:
        observed = data[OBSERVED]
        if observed.dtype != bool or observed.dims not in ((SERIES, TIME, FEATURE), (SERIES, TIME)):
            raise ValueError(
                f"'observed' must be bool with dims {(SERIES, TIME, FEATURE)} or {(SERIES, TIME)}, got {observed.dtype} "
                f"with {observed.dims}; rebuild it with data.assign(observed=data['target'].notnull())."
            )
    mask = observed_mask(data)
    values = target.values
    nan = np.isnan(values) & mask
    if nan.any():
        fix = "data['observed'] & data['target'].notnull()" if OBSERVED in data else "data['target'].notnull()"
        raise ValueError(
            f"'target' is NaN at {_where(target, nan)} ({int(nan.sum()):,} value(s) in all) without being marked "
            f"missing; mark them with data.assign(observed={fix})."
        )
    infinite = np.isinf(values) & mask
    if infinite.any():
        raise ValueError(
            f"'target' is infinite at {_where(target, infinite)} ({int(infinite.sum()):,} value(s) in all); "
            "treat it as missing with data.assign(target=data['target'].where(np.isfinite(data['target']))) and "
            "observed, or repair the source."
        )
    _check_range(target, TARGET, mask)
    empty = ~mask.any(axis=(1, 2))
    if empty.any():
        labels = [_plain(v) for v in data[SERIES].values[empty]]
        raise ValueError(
            f"series {labels[0]!r} has no observed value at all ({len(labels)} such series); "
            f"drop with data.drop_sel(series={labels[:5]}{' + ...' if len(labels) > 5 else ''})."
        )


def _check_range(array: xr.DataArray, name: str, mask: np.ndarray | None = None) -> None:
    """Refuse numbers that float32, in which the models compute, would turn into infinity."""
    large = np.abs(array.values.astype(np.float64)) > _FLOAT32_MAX
    if mask is not None:
        large &= mask
    if large.any():
        value = array.values[np.unravel_index(int(large.argmax()), large.shape)]
        raise ValueError(
            f"'{name}' is {value:.4g} at {_where(array, large)}, beyond float32 (3.4e38), in which the models compute; "
            f"change the unit, for instance data.assign({name}=data['{name}'] / 1e30)."
        )


def _check_finite(array: xr.DataArray, name: str) -> None:
    bad = ~np.isfinite(array.values)
    if bad.any():
        raise ValueError(
            f"'{name}' is {array.values[np.unravel_index(int(bad.argmax()), bad.shape)]} at {_where(array, bad)} "
            f"({int(bad.sum()):,} value(s) in all); it must be finite everywhere: fill it, for instance with "
            f"data.assign({name}=data['{name}'].ffill('{array.dims[1]}'))."
        )
    _check_range(array, name)


def _check_covariates(data: xr.Dataset) -> None:
    _check_variable(data, COVARIATES, (SERIES, TIME, COVARIATE), "sequence")
    _check_labels(data, COVARIATES, COVARIATE)
    _check_finite(data[COVARIATES], COVARIATES)


def _check_symbols(data: xr.Dataset) -> None:
    symbol = data[SYMBOL]
    if symbol.dtype.kind not in "iu" or bool((symbol < 0).any()):
        raise ValueError(
            f"'symbol' must hold integers from 0, got {symbol.dtype} with minimum {symbol.values.min()}; number your "
            "symbols with np.unique(values, return_inverse=True)."
        )


def _check_class_labels(data: xr.Dataset) -> None:
    support, query = data[SUPPORT_Y].values, data[QUERY_Y].values
    unseen = ~(query[:, :, None] == support[:, None, :]).any(axis=2)
    if unseen.any():
        task, i = np.unravel_index(int(unseen.argmax()), unseen.shape)
        raise ValueError(
            f"'query_y' holds label {query[task, i]} at {_where(data[QUERY_Y], unseen)}, which the task's support never "
            "shows; draw support and query from the same classes, or drop that task with data.isel(task=...)."
        )
