"""Files that a command writes: checked before the work starts, and never left half written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "DATA",
    "PICTURES",
    "SETTINGS",
    "TABLES",
    "check_file",
    "check_run",
    "draw",
    "in_local_time",
    "run_folder",
    "save",
]

# A run folder holds what the fit itself writes, and these two.
SETTINGS = "fit.yaml"
DATA = "data.nc"

_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]+")  # what an interrupted write leaves

TABLES = (".nc", ".csv")
PICTURES = (".png", ".pdf", ".svg")


def check_file(path: Path | None, kinds: Sequence[str]) -> None:
    """Check that a file can be written at ``path``; ``None`` is fine.

    Raises:
        ValueError: If the ending is none of ``kinds``, the folder does not exist, or the path is a folder.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it, such as {path / ('output' + kinds[0])}.")
    if path.suffix not in kinds:
        raise ValueError(f"{path} must end in {' or '.join(kinds)}, such as {path.with_suffix(kinds[0])}.")
    _check_parent(path)


def check_run(path: Path, resume: bool) -> None:
    """Check that ``path`` can be the folder of a run: new, empty, or with ``resume`` one that holds a run.

    Raises:
        ValueError: If it cannot; the message names the remedy.
    """
    if not path.exists():
        return _check_parent(path)
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a run needs a folder: choose another name.")
    if not _has_begun(path):
        return None
    found = sorted(entry.name for entry in path.iterdir())
    if SETTINGS in found and not resume:
        raise ValueError(f"{path} already holds a run; go on with it by --resume, or choose another folder.")
    if SETTINGS not in found:
        raise ValueError(f"{path} holds {found[0]!r} but no run of seqdyn fit; choose a new or empty folder.")


@contextlib.contextmanager
def run_folder(path: Path, data: xr.Dataset | None, settings: str) -> Iterator[None]:
    """Make the folder of a run, with its settings and data if it has any, for a fit in the block.

    A fit that is refused before it wrote anything leaves nothing behind; an interrupted one can be resumed,
    or begun anew if it had not begun.
    """
    from seqdyn._files import remove_leftovers, write_file

    new = not path.exists()
    path.mkdir(exist_ok=True)
    if not _has_begun(path):
        remove_leftovers(path)
        write_file(path / SETTINGS, settings)  # first: data alone may be a file of the user's
        if data is not None:
            save(data, path / DATA)
    try:
        yield
    except Exception:
        if not _has_begun(path):
            (path / DATA).unlink(missing_ok=True)
            (path / SETTINGS).unlink()
            if new:
                path.rmdir()
        raise


def save(data: xr.Dataset | pd.DataFrame, path: Path, settings: str | None = None) -> None:
    """Write a Dataset as netCDF or CSV, or a table as CSV, and beside it the settings behind it, as YAML."""
    import xarray as xr

    from seqdyn._files import write_file
    from seqdyn.data import to_netcdf, to_pandas

    if isinstance(data, xr.Dataset) and path.suffix == ".nc":
        to_netcdf(data, path)
    else:
        table = to_pandas(data) if isinstance(data, xr.Dataset) else data
        write_file(path, table.to_csv(index=any(name is not None for name in table.index.names)))
    if settings is not None:
        write_file(path.with_suffix(".yaml"), settings)


def in_local_time(table: pd.DataFrame, time: xr.DataArray) -> pd.DataFrame:
    """A table with its columns of UTC stamps in the zone that ``time`` names, if it names one."""
    zone = time.attrs.get("timezone")
    stamps = {} if zone is None else table.select_dtypes("datetime")
    return table.assign(**{name: stamps[name].dt.tz_localize("UTC").dt.tz_convert(zone) for name in stamps})


def draw(verb: str, result: xr.Dataset, data: xr.Dataset | None, path: Path) -> None:
    """Draw what a verb returned, with the data it is of if they are known."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np

    from seqdyn._files import replacing

    axes = _axes(verb, result, data)
    with replacing(path) as file:
        np.ravel(axes)[0].figure.savefig(file, format=path.suffix[1:])


def _axes(verb: str, result: xr.Dataset, data: xr.Dataset | None) -> Any:
    import numpy as np

    from seqdyn import plot
    from seqdyn.data.schema import CONDITION, PARTICLE, TIME, X

    if verb == "evaluate" and "score" in result:
        return plot.scores(result.mean(CONDITION, keep_attrs=True) if CONDITION in result.dims else result)
    if verb == "evaluate":
        return plot.coverage(result)
    if data is not None and CONDITION in result.coords:
        data = data.isel({PARTICLE: np.isin(data[CONDITION], result[CONDITION])})
    if verb == "marginal":
        beside = data is not None and bool(np.isin(result[TIME], data[TIME]).any())
        return plot.marginals(result, data if beside else None)
    if X in result:
        return plot.trajectories(result, data)
    return plot.forecast(result, history=data) if verb == "forecast" else plot.forecast(result, truth=data)


def _has_begun(path: Path) -> bool:
    """Whether a folder holds more than what a fit writes before it begins, whole or interrupted."""
    found = {entry.name for entry in path.iterdir()}
    found = {name for name in found if not _TEMPORARY.fullmatch(name)}
    return bool(found) and not {SETTINGS} <= found <= {SETTINGS, DATA}


def _check_parent(path: Path) -> None:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise ValueError(
            f"{path} cannot be written: there is no folder {parent}; make it with mkdir -p {parent}."
        )
    if not os.access(parent, os.W_OK):
        raise ValueError(
            f"{path} cannot be written: the folder {parent} is read-only for you; choose another."
        )
