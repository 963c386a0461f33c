"""Arrays, tables and files to datasets and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn._files import replacing
from seqdyn.data.arrays import from_numpy
from seqdyn.data.checks import plain
from seqdyn.data.formats import open_netcdf
from seqdyn.data.names import (
    CONDITION,
    COVARIATES,
    EXTRAPOLATED,
    EXTRAPOLATION,
    FEATURE,
    GROWTH,
    OBSERVED,
    OUTCOME,
    PARTICLE,
    SAMPLE,
    SERIES,
    SYMBOL,
    TARGET,
    TIME,
    WEIGHT,
    X,
)
from seqdyn.data.schema import check_snapshots, future_times, observed_mask
from seqdyn.data.spans import spans
from seqdyn.data.tables import from_pandas

__all__ = [
    "forecast_dataset",
    "from_netcdf",
    "from_numpy",
    "from_pandas",
    "provenance",
    "stack_snapshots",
    "to_netcdf",
    "to_pandas",
]

_CHECKED = {"fletcher32": True}


def stack_snapshots(
    source: xr.Dataset | np.ndarray | Sequence[Any],
    *,
    times: Sequence[float] | np.ndarray | None = None,
    features: Sequence[str] | None = None,
    units: str | None = None,
) -> xr.Dataset:
    """Snapshot dataset in long format from a grid, or from one array per time.

    Args:
        source: Dataset with ``x`` over ``time``, ``particle`` and ``feature``, an array (I, N, C), or I
            arrays (N_i, C). Particles that are NaN throughout are padding and are left out.
        times: I snapshot times; default those of the Dataset.
        features: C names.
        units: Unit of ``x``.

    Returns:
        ``x (particle, feature)`` with the coordinates ``time (particle)`` and ``feature``.

    Raises:
        ValueError: If shapes and times disagree, or the result violates the schema.
    """
    if isinstance(source, xr.Dataset):
        grid = _snapshot_grid(source)
        times = grid[TIME].values if times is None else times
        if features is None and FEATURE in grid.coords:
            features = grid[FEATURE].values.tolist()
        units = units or grid.attrs.get("units")
        source = grid.values
    clouds, times = _as_clouds(source, times)
    size = clouds[0].shape[1]
    names = [f"x_{i}" for i in range(size)] if features is None else [str(name) for name in features]
    if len(names) != size:
        raise ValueError(f"features= has {len(names)} names but x has {size} columns; give {size} names.")
    time = np.repeat(times, [len(cloud) for cloud in clouds])
    attrs = {} if units is None else {"units": units}
    data = xr.Dataset(
        {X: ((PARTICLE, FEATURE), np.concatenate(clouds), attrs)},
        {TIME: (PARTICLE, time), FEATURE: np.array(names, dtype=object)},
    )
    check_snapshots(data, min_times=1)
    return data


def forecast_dataset(
    values: np.ndarray,
    context: xr.Dataset,
    *,
    model: str,
    seed: int,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Draws (S, M, P, C) of the steps after ``context`` as a forecast dataset.

    Args:
        values: Draws in the units of ``context``.
        context: Sequence dataset that the forecast continues.
        model: Name of the model.
        seed: Seed of the draws.
        attrs: Further attributes.

    Returns:
        ``target (sample, series, time, feature)``; attrs ``model``, ``seqdyn_version`` and ``seed``.
    """
    target, time = context[TARGET], context[TIME]
    return xr.Dataset(
        {TARGET: ((SAMPLE, SERIES, TIME, FEATURE), values, dict(target.attrs))},
        {
            SAMPLE: np.arange(values.shape[0]),
            SERIES: target[SERIES].variable,
            TIME: (TIME, future_times(context, values.shape[2]), dict(time.attrs)),
            FEATURE: target[FEATURE].variable,
        },
        {**provenance(model, seed), **(attrs or {})},
    )


def provenance(model: str, seed: int) -> dict[str, Any]:
    """What every result says of its origin, as attributes."""
    from seqdyn import __version__

    return {"model": model, "seqdyn_version": __version__, "seed": seed}


def to_pandas(data: xr.Dataset, *, padding: bool = False) -> pd.DataFrame:
    """Long table of a sequence or forecast dataset: ``series``, ``time``, one column per feature.

    Times are in the zone of the data if they name one. Missing values are NaN. Of discrete sequences the
    labels stand in a column ``symbol``, rows without one are left out. Snapshots are one row per particle,
    paths ``x (particle, time, feature)`` one per ``particle`` and ``time``; the column ``extrapolated`` of a
    forecast says whether nothing holds the paths any more.

    Args:
        data: Sequences (with their covariates), or draws or quantiles, whose further dims become columns;
            snapshots or paths of particles.
        padding: Keep also the rows before a series begins and after it ends.

    Returns:
        The table, in the order of the dataset.

    Raises:
        ValueError: If the dataset holds none of these.
    """
    if TARGET not in data and SYMBOL in data:
        return _symbol_table(data)
    if TARGET not in data and X in data:
        return _particle_table(data)
    if TARGET not in data:
        raise ValueError(
            f"only sequences and snapshots have a long table, this dataset holds {sorted(map(str, data))}; "
            "write it as netCDF, a file that ends in .nc."
        )
    target = data[TARGET]
    is_sequence = set(target.dims) == {SERIES, TIME, FEATURE}
    array = target.transpose(*((SERIES, TIME) if is_sequence else ()), ..., FEATURE)
    rows = pd.MultiIndex.from_product([array[dim].to_index() for dim in array.dims[:-1]])
    values = array.values.reshape(len(rows), -1)
    keep = np.ones(len(rows), dtype=bool)
    if is_sequence:
        mask = observed_mask(data.transpose(SERIES, TIME, FEATURE, ...))
        values = np.where(mask.reshape(values.shape), values, np.nan)
        if not padding and COVARIATES not in data:
            start, end = spans(np.asarray(mask.any(axis=2)))
            step = np.arange(mask.shape[1])
            keep = ((start[:, None] <= step) & (step < end[:, None])).ravel()
    frame = pd.DataFrame(dict(zip(array[FEATURE].values.tolist(), values.T, strict=True)))
    if is_sequence and COVARIATES in data:
        extra = data[COVARIATES].transpose(SERIES, TIME, ...)
        for i, name in enumerate(extra[extra.dims[-1]].values.tolist()):
            frame[name] = extra.values[..., i].ravel()
    for position, dim in enumerate(array.dims[:-1]):
        frame.insert(position, str(dim), rows.get_level_values(position))
    zone = data[TIME].attrs.get("timezone")
    if zone is not None:
        frame[TIME] = frame[TIME].dt.tz_localize("UTC").dt.tz_convert(zone)
    return frame[keep].reset_index(drop=True)


def _symbol_table(data: xr.Dataset) -> pd.DataFrame:
    """Rows of the symbols that are there, by the dims, with labels if there are any."""
    symbol = data[SYMBOL]
    kept = (symbol.values >= 0) & (data[OBSERVED].values if OBSERVED in data else True)
    codes = symbol.values[kept]
    labels = data[OUTCOME].values[codes] if OUTCOME in data.coords else codes
    places = zip(symbol.dims, np.nonzero(kept), strict=True)
    frame = pd.DataFrame({dim: symbol[dim].to_index()[place] for dim, place in places} | {SYMBOL: labels})
    zone = data[TIME].attrs.get("timezone")
    return frame if zone is None else frame.assign(time=frame[TIME].dt.tz_localize("UTC").dt.tz_convert(zone))


def _particle_table(data: xr.Dataset) -> pd.DataFrame:
    """Rows of particles, or of particles at times: labels first, then the features, weight and growth."""
    x = data[X].transpose(PARTICLE, ..., FEATURE)
    values = x.values.reshape(-1, x.sizes[FEATURE])
    frame = pd.DataFrame(dict(zip(x[FEATURE].values.tolist(), values.T, strict=True)))
    number, times = np.arange(x.sizes[PARTICLE]), data[TIME].values
    labels: dict[str, Any] = {TIME: times}
    if TIME in x.dims:  # of snapshots a particle's number is that of its row
        number = np.repeat(number, len(times))
        labels = {PARTICLE: number, TIME: np.tile(times, x.sizes[PARTICLE])}
    if CONDITION in data.coords:
        labels = {CONDITION: data[CONDITION].values[number], **labels}
    for position, (name, column) in enumerate(labels.items()):
        frame.insert(position, name, column)
    beyond = data.get(EXTRAPOLATION, data.attrs.get(EXTRAPOLATION))
    if beyond is not None and TIME in x.dims:
        end = beyond.values[number] if isinstance(beyond, xr.DataArray) else beyond
        frame[EXTRAPOLATED] = frame[TIME].to_numpy() > end
    for name in {WEIGHT, GROWTH} & set(map(str, data.data_vars)):
        frame.insert(len(frame.columns), name, data[name].values)
    return frame


def to_netcdf(data: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a dataset to one NetCDF file: compressed, with checksums, and only ever whole.

    The file is written beside its destination under a temporary name and then moved. A complex variable, for
    which NetCDF has no type, becomes two: ``NAME_real`` and ``NAME_imag``; :func:`from_netcdf` joins them.

    Args:
        data: Any dataset of the schema.
        path: Destination; an existing file is replaced.

    Raises:
        ValueError: If the folder does not exist.
    """
    destination = Path(path)
    if not destination.parent.is_dir():
        raise ValueError(f"the folder {str(destination.parent)!r} does not exist; make it first: mkdir -p.")
    written, encoding = _for_netcdf(data)
    with replacing(destination) as file:
        written.to_netcdf(file.name, engine="h5netcdf", encoding=encoding)


def from_netcdf(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a result that :func:`to_netcdf` wrote, whole into memory; complex variables are joined again.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file, or it is no NetCDF file.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"there is no file {str(source)!r}.")
    data = open_netcdf(source)
    names = [str(name).removesuffix("_real") for name in data.data_vars if str(name).endswith("_real")]
    for name in names:
        real, imag = f"{name}_real", f"{name}_imag"
        if imag in data and data[real].dims == data[imag].dims and name not in data:
            joined = np.empty(data[real].shape, dtype=np.complex128)
            joined.real, joined.imag = data[real].values, data[imag].values
            data = data.drop_vars([real, imag]).assign({name: (data[real].dims, joined, data[real].attrs)})
    return data


def _for_netcdf(data: xr.Dataset) -> tuple[xr.Dataset, dict[Any, dict[str, Any]]]:
    """The dataset with attributes that NetCDF can hold, and an encoding with checksums for each variable."""
    data = _split_complex(data)
    data.attrs = _plain_attrs(data.attrs)
    encoding: dict[Any, dict[str, Any]] = {}
    for name, variable in data.variables.items():
        variable.encoding = {}
        data[name].attrs = _plain_attrs(variable.attrs)
        if variable.ndim == 0 or variable.size == 0:
            continue
        if variable.dtype.kind in "OUT":
            # Text of one width: strings of variable length can carry neither compression nor a checksum.
            encoding[name] = {"dtype": "S1", **_CHECKED}
        else:
            encoding[name] = {"zlib": True, "complevel": 4, **_CHECKED}
    return data, encoding


def _split_complex(data: xr.Dataset) -> xr.Dataset:
    """A copy in which every complex variable is two real ones."""
    complex_names = [name for name in data.data_vars if data[name].dtype.kind == "c"]
    parts = {f"{n}_{part}": getattr(data[n], part) for n in complex_names for part in ("real", "imag")}
    taken = sorted(parts.keys() & set(map(str, data.variables)))
    if taken:
        raise ValueError(
            f"{taken[0]!r} is to hold a part of a complex variable but exists already; rename it first: "
            f"data.rename({taken[0]}=...)."
        )
    return data.copy(deep=False).drop_vars(complex_names).assign(parts)


def _plain_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as numbers, strings or arrays; None is left out, structures become JSON."""
    kept: dict[str, Any] = {}
    for name, value in attrs.items():
        if value is None:
            continue
        if isinstance(value, bool | np.bool_):
            value = int(value)
        elif isinstance(value, dict | set) or (
            isinstance(value, list | tuple) and not all(isinstance(v, int | float) for v in value)
        ):
            value = json.dumps(sorted(value) if isinstance(value, set) else value)
        elif not isinstance(value, str | int | float | np.ndarray | np.number | list | tuple):
            value = str(value)
        kept[str(name)] = value
    return kept


def _as_clouds(source: Any, times: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Particles (N_i, C) of each snapshot without padding, and as many times."""
    clouds = [np.asarray(cloud, dtype=np.result_type(cloud, np.float32)) for cloud in source]
    clouds = [cloud[:, None] if cloud.ndim == 1 else cloud for cloud in clouds]
    widths = {cloud.shape[-1] for cloud in clouds}
    if not clouds or any(cloud.ndim != 2 for cloud in clouds) or len(widths) > 1:
        raise ValueError(
            "snapshots must be arrays (particle, feature) of one width, got shapes "
            f"{[c.shape for c in clouds][:5]}; select common features first."
        )
    if times is None or len(times) != len(clouds):
        found = "no" if times is None else f"{len(times)}"
        raise ValueError(
            f"there are {len(clouds)} snapshots but {found} times; pass times=[...] with one number per "
            "snapshot."
        )
    distinct, counts = np.unique(times, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{counts.max()} snapshots are at the time {plain(distinct[counts.argmax()])!r}; one time is one "
            "snapshot: join them with np.concatenate, give each its own time, or tell them apart by a "
            "condition: read each alone and add data.assign_coords(condition=('particle', labels))."
        )
    padding = [np.isnan(cloud).all(axis=1) for cloud in clouds]
    clouds = [cloud[~empty] for cloud, empty in zip(clouds, padding, strict=True)]
    if any(len(cloud) == 0 for cloud in clouds):
        i = next(i for i, cloud in enumerate(clouds) if len(cloud) == 0)
        raise ValueError(f"snapshot {i} (time {plain(times[i])}) has no particle; leave it out of the list.")
    return clouds, np.asarray(times)


def _snapshot_grid(data: xr.Dataset) -> xr.DataArray:
    if X not in data or set(data[X].dims) != {TIME, PARTICLE, FEATURE}:
        found = data[X].dims if X in data else sorted(map(str, data.data_vars))
        raise ValueError(
            f"a grid of snapshots needs 'x' with the dims 'time', 'particle' and 'feature', found {found}; "
            "rename with data.rename(OLD='NEW')."
        )
    return data[X].transpose(TIME, PARTICLE, FEATURE)
