"""AnnData, the tables of single cells, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.formats import damage_reported, missing_extra
from seqdyn.data.names import CONDITION, FEATURE, PARTICLE, TIME, X

__all__ = ["anndata_values", "read_h5ad", "to_anndata"]


def read_h5ad(path: Path) -> Any:
    """Read an ``.h5ad`` file whole into memory.

    Raises:
        ImportError: If anndata is not installed.
        ValueError: If the file is damaged.
    """
    try:
        import anndata
    except ImportError as error:
        raise missing_extra("anndata", "anndata", "reading .h5ad") from error
    with damage_reported(path):
        return anndata.read_h5ad(path)


def anndata_values(data: Any, representation: str | None) -> tuple[np.ndarray, list[str]]:
    """Values (N, F) of the cells of an AnnData, dense, and the names of their features.

    Args:
        data: AnnData.
        representation: Key of ``obsm``; None takes ``X``, N F numbers even where that is sparse.

    Raises:
        ValueError: If there is no such representation, or ``X`` is empty.
    """
    if representation is not None and representation not in data.obsm:
        raise ValueError(
            f"there is no representation {representation!r} in obsm, it holds {sorted(data.obsm)}; pass "
            "representation= one of them, or leave it out for X."
        )
    x = data.X if representation is None else data.obsm[representation]
    if x is None:
        raise ValueError(f"X is empty; pass representation= one of {sorted(data.obsm)}.")
    x = np.asarray(x.toarray() if hasattr(x, "toarray") else x)
    if representation is None:
        return x, list(data.var_names)
    return x, [f"{representation}_{i}" for i in range(x.shape[1])]


def to_anndata(paths: xr.Dataset) -> Any:
    """Trajectories, or clouds of particles, as an AnnData: one observation for each particle and time.

    Args:
        paths: ``x (particle, time, feature)`` as the verbs of a bridge give it, or snapshots
            ``x (particle, feature)`` with the coordinate ``time (particle)``.

    Returns:
        AnnData with the values in ``X``, in the same precision; ``obs`` has the columns ``particle`` and
        ``time`` and, where the data have it, ``condition``, ``var_names`` are the features, and ``uns`` the
        units and attributes. All times of one particle stand together. It is as large as the Dataset:
        particles × times × features numbers.

    Raises:
        ImportError: If anndata is not installed.
        ValueError: If ``x`` has other dims.
    """
    dims = paths[X].dims if X in paths else ()
    if set(dims) not in ({PARTICLE, TIME, FEATURE}, {PARTICLE, FEATURE}):
        raise ValueError(
            "trajectories need 'x' with the dims 'particle', 'time' and 'feature', or snapshots without "
            f"'time', found {dims or sorted(map(str, paths.data_vars))}; pass what model.infer(...) returns."
        )
    try:
        import anndata
    except ImportError as error:
        raise missing_extra("anndata", "anndata", "writing AnnData") from error
    values = paths[X].transpose(PARTICLE, TIME if TIME in dims else ..., FEATURE).values
    obs = _observations(paths, values.shape[:-1])
    named = FEATURE in paths.coords
    features = paths[FEATURE].values if named else [f"x_{i}" for i in range(values.shape[-1])]
    var = pd.DataFrame(index=pd.Index([str(name) for name in features], dtype=object))
    found = anndata.AnnData(values.reshape(len(obs), -1).copy(), obs=obs, var=var)
    units = {"units": paths[X].attrs.get("units"), "time_units": paths[TIME].attrs.get("units")}
    facts = {str(name): value for name, value in paths.attrs.items() if isinstance(value, str | int | float)}
    found.uns["seqdyn"] = facts | {name: unit for name, unit in units.items() if unit is not None}
    return found


def _observations(paths: xr.Dataset, shape: tuple[int, ...]) -> pd.DataFrame:
    """Particle, time and condition of each row, with names of its own."""
    each = shape[1] if len(shape) == 2 else 1
    number = np.repeat(np.arange(shape[0]), each)
    labels = paths[PARTICLE].values if PARTICLE in paths.coords else np.arange(shape[0])
    times = paths[TIME].values
    columns = {PARTICLE: labels[number], TIME: np.tile(times, shape[0]) if len(shape) == 2 else times}
    if CONDITION in paths.coords:
        columns[CONDITION] = paths[CONDITION].values[number]
    names = [f"{p}-{i % each}" if len(shape) == 2 else f"{p}" for i, p in enumerate(number)]
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))
