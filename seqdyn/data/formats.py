"""Files to tables, Datasets and arrays: what is damaged or needs another package is said plainly."""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import lzma
import os
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data.stamps import looks_like_dates

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "damage_reported",
    "existing",
    "file_format",
    "frame_from_polars",
    "load_arrays",
    "missing_extra",
    "open_netcdf",
    "open_text",
    "open_zarr",
    "read_csv",
    "read_parquet",
]

_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet", ".nc": "netcdf",
    ".nc4": "netcdf", ".cdf": "netcdf", ".zarr": "zarr", ".json": "gluonts", ".jsonl": "gluonts",
    ".tsf": "tsf", ".npz": "numpy", ".npy": "numpy", ".h5ad": "anndata",
}  # fmt: skip
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")
_SEPARATORS = (",", ";", "\t", "|")
_DAMAGED = "the file is damaged or incomplete; copy or download it again."


def existing(source: str | os.PathLike[str]) -> Path:
    """Path of a file or folder that exists.

    Raises:
        FileNotFoundError: If it does not; names a file of nearly that name.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    folder = path.parent if path.parent.is_dir() else Path(".")
    close = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    hint = f"did you mean {str(folder / close[0])!r}?" if close else f"the working folder is {Path.cwd()}."
    raise FileNotFoundError(f"there is no file {str(source)!r}; {hint}")


def file_format(path: Path, formats: tuple[str, ...]) -> str:
    """Format of a file by its name, one of ``formats``.

    Raises:
        ValueError: If the name tells none of them.
    """
    if path.is_dir() and (path.suffix == ".zarr" or any((path / mark).exists() for mark in _ZARR_MARKS)):
        found = "zarr"
    elif path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder; name one file in it, for instance the .csv or .nc file."
        )
    else:
        suffixes = [suffix.lower() for suffix in path.suffixes]
        last = suffixes[-2:-1] if suffixes[-1:] in ([".gz"], [".bz2"], [".xz"]) else suffixes[-1:]
        found = _SUFFIXES.get(last[0], "") if last else ""
    if found in formats:
        return found
    if {".tar", ".zip", ".tgz"} & {suffix.lower() for suffix in path.suffixes}:
        raise ValueError(f"{path.name!r} is an archive; unpack it and name one file in it.")
    known = sorted(suffix for suffix, name in _SUFFIXES.items() if name in formats)
    raise ValueError(
        f"cannot tell how to read {path.name!r}; rename it to end in one of {', '.join(known)}, or read it "
        "into a pandas DataFrame and pass that."
    )


def missing_extra(package: str, extra: str, what: str) -> ImportError:
    """The error for an optional package that is not installed."""
    return ImportError(f'{what} needs the package {package}; install it with: pip install "seqdyn[{extra}]"')


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV; the separator is found in the first line unless ``sep`` is given."""
    with damage_reported(path):
        if path.stat().st_size == 0:
            raise ValueError(f"{path.name!r} is empty (0 bytes); {_DAMAGED}")
        if "sep" not in options and "delimiter" not in options:
            options["sep"] = _find_separator(path, options.get("encoding", "utf-8-sig"))
        with warnings.catch_warnings():
            # A row longer than the header would otherwise shift all columns by one.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = _parse_csv(path, options)
    _check_header(frame, path, options)
    return frame


def read_parquet(path: Path, **options: Any) -> pd.DataFrame:
    """Read a parquet file."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "reading parquet") from error
    with damage_reported(path):
        return pd.read_parquet(path, engine="pyarrow", **options)


def open_netcdf(path: Path, **options: Any) -> xr.Dataset:
    """Load a NetCDF file, version 4 through h5netcdf and version 3 through SciPy."""
    with damage_reported(path):
        with path.open("rb") as file:
            classic = file.read(3) == b"CDF"
        engine = "scipy" if classic else "h5netcdf"
        with xr.open_dataset(path, engine=engine, decode_timedelta=False, **options) as data:
            return data.load()


def open_zarr(path: Path, **options: Any) -> xr.Dataset:
    """Load a Zarr store."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise missing_extra("zarr", "zarr", "reading Zarr") from error
    with damage_reported(path):
        with xr.open_dataset(path, engine="zarr", chunks=None, decode_timedelta=False, **options) as data:
            return data.load()


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` or ``.npy`` file by name; pickled objects are refused, never loaded."""
    with damage_reported(path):
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise ValueError(
                f"{path.name!r} holds pickled Python objects, which are never loaded because they can run "
                "code; save plain arrays instead: np.savez(path, x=np.concatenate(list_of_arrays), "
                "time=times)."
            ) from error


def open_text(path: Path, encoding: str = "utf-8") -> IO[str]:
    """Open a text file that may be compressed by gzip, bzip2 or xz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding)
    if path.suffix == ".bz2":
        return bz2.open(path, "rt", encoding=encoding)
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding=encoding)
    return path.open(encoding=encoding)


def frame_from_polars(frame: Any) -> pd.DataFrame:
    """A polars DataFrame or LazyFrame as a pandas one."""
    frame = frame.collect() if hasattr(frame, "collect") else frame
    try:
        return frame.to_pandas()
    except ImportError as error:
        raise missing_extra("pyarrow", "polars", "a polars frame") from error


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn what readers raise on damaged files into a ``ValueError`` that names the file and a remedy."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(_explain_encoding(path)) from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path.name!r} holds no table; {_DAMAGED}") from error
    except pd.errors.ParserWarning as error:
        raise ValueError(
            f"{path.name!r} has rows with more fields than its header; pass skiprows=1 if other lines come "
            "before the header, or sep=';' (its own separator)."
        ) from error
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path.name!r} is not a regular table: {str(error).strip()}; repair that line, or pass sep=';' "
            "(or on_bad_lines='skip')."
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name!r} cannot be unpacked ({error}); {_DAMAGED}") from error
    except PermissionError:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path.name!r} cannot be read ({error}); {_DAMAGED}") from error
    except (TypeError, ValueError) as error:
        if repr(path.name) in str(error) or "keyword argument" in str(error):
            raise
        raise ValueError(
            f"{path.name!r} cannot be read ({error}); the file is damaged or an option does not fit: copy it "
            "again, or check what you passed."
        ) from error


def _explain_encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    packed = {b"\x1f\x8b": ".gz", b"PK": ".zip", b"BZ": ".bz2"}
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"{path.name!r} is UTF-16 text; pass encoding='utf-16'."
    for magic, suffix in packed.items():
        if start.startswith(magic) and path.suffix != suffix:
            return (
                f"{path.name!r} is a compressed file, not text; rename it to end in '{suffix}' or unpack it "
                "first."
            )
    return f"{path.name!r} is not UTF-8 text; pass encoding='latin-1' (or its own encoding)."


def _find_separator(path: Path, encoding: str) -> str:
    """The candidate that occurs most often in the first line; a comma if none does."""
    with open_text(path, encoding) as file:
        line = next((text for text in file if text.strip()), "")
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([str(line)], delimiter=separator))))


def _parse_csv(path: Path, options: dict[str, Any]) -> pd.DataFrame:
    settings = {"low_memory": False, "index_col": False, "skipinitialspace": True, **options}
    if settings.get("engine") == "python":
        settings.pop("low_memory")
    frame = pd.read_csv(path, **settings)
    if isinstance(frame.columns, pd.Index) and frame.columns.nlevels == 1:
        frame.columns = [name.strip() if isinstance(name, str) else name for name in frame.columns]
    return frame


def _check_header(frame: pd.DataFrame, path: Path, options: dict[str, Any]) -> None:
    """Refuse a table whose first row is data."""
    if "names" in options or "header" in options or frame.shape[1] == 0:
        return
    first = str(frame.columns[0])
    number = "." in first and first.replace(".", "", 1).lstrip("-").isdigit()
    if number or looks_like_dates(pd.Series([first])):
        names = ["time", *(f"y{i}" for i in range(1, frame.shape[1]))][: frame.shape[1]]
        raise ValueError(
            f"{path.name!r} seems to have no header, its first column is called {first!r}; pass header=None, "
            f"names={names[:4]} (one name per column)."
        )
