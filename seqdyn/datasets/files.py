"""Find the files of a dataset and check them before anyone reads them.

A file is looked for in the installed package, below the folder that the environment variable ``SEQDYN_DATA``
names, and in the user's cache (``SEQDYN_CACHE``, else the cache folder of the operating system), always as
``<folder>/<file>``; last it is downloaded into the cache. The first hit counts. A file whose sha256 is not
the recorded one is an error, never a reason to look further.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DataFile", "cache_folder", "data_folder", "find", "sha256sum", "verify"]

_EMBEDDED = Path(__file__).parent / "embedded"
_TIMEOUT = 10.0  # seconds without an answer before a download gives up
_log = logging.getLogger("seqdyn")


@dataclass(frozen=True)
class DataFile:
    """One original file of a dataset.

    Attributes:
        path: ``<folder>/<file>`` below ``SEQDYN_DATA`` and in the cache.
        sha256: Checksum in hexadecimal; None where nobody could record it yet.
        url: Public address; None where the file cannot be fetched directly.
        note: Where to get a file without an address.
    """

    path: str
    sha256: str | None
    url: str | None = None
    note: str = ""


def data_folder() -> Path | None:
    """Folder that ``SEQDYN_DATA`` names, or None.

    Raises:
        ValueError: If it names no folder.
    """
    name = os.environ.get("SEQDYN_DATA", "")
    if not name:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"SEQDYN_DATA={name!r} is no folder; set it to the one that holds your files, or unset it."
        )
    return folder


def cache_folder() -> Path:
    """Folder for downloads: ``SEQDYN_CACHE`` if set, else the user's cache folder."""
    name = os.environ.get("SEQDYN_CACHE", "")
    if name:
        return Path(name).expanduser()
    import pooch

    return Path(pooch.os_cache("seqdyn"))


def sha256sum(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path, sha256: str | None) -> None:
    """Check that ``path`` has the checksum ``sha256``; None logs a warning with the sum that was found.

    Raises:
        ValueError: If the sums differ; names both and the file.
    """
    found = sha256sum(path)
    if sha256 is None:
        _log.warning("no checksum is recorded for %s; it is read as it is (sha256 %s).", path, found)
    elif found != sha256.lower():
        raise ValueError(
            f"{path} has sha256 {found}, expected {sha256.lower()}: the file is damaged or another version "
            "and was not read; delete it and get it again."
        )


def find(file: DataFile, *, sha256: str | None = None, download: bool = True) -> Path:
    """Find a file, checked: in the package, below ``SEQDYN_DATA``, in the cache, or by downloading it.

    Args:
        file: Which file.
        sha256: Expected checksum where ``file`` records none.
        download: Whether the network may be used.

    Returns:
        Path of a file with the right checksum.

    Raises:
        ValueError: If the file that was found or downloaded has another checksum.
        FileNotFoundError: If it is nowhere; names the file, its checksum and where to get it.
    """
    expected = file.sha256 or sha256
    path = next((path for path in _places(file) if path.is_file()), None)
    if path is None:
        path = _download(file, expected, download)
    else:
        verify(path, expected)
    return path


def _places(file: DataFile) -> list[Path]:
    places = [_EMBEDDED / Path(file.path).name]
    if places[0].is_file():
        return places  # an embedded file needs neither environment nor cache
    folders = [folder for folder in (data_folder(), cache_folder()) if folder is not None]
    return places + [folder / file.path for folder in folders]


def _download(file: DataFile, sha256: str | None, allowed: bool) -> Path:
    """Fetch ``file`` into the cache, or say what is missing and where it is to be had."""
    if file.url is None:
        raise FileNotFoundError(_missing(file, sha256, "it has no public address"))
    if not allowed:
        raise FileNotFoundError(_missing(file, sha256, "downloads are switched off (download=False)"))
    if sha256 is None:
        raise FileNotFoundError(
            _missing(
                file,
                sha256,
                "without a checksum it is not downloaded; pass sha256='...' to load() if you know it",
            )
        )
    import pooch

    target = cache_folder() / file.path
    fetch = pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=1 << 20)
    try:
        pooch.retrieve(file.url, f"sha256:{sha256}", target.name, target.parent, downloader=fetch)
    except OSError as error:  # requests' exceptions are OSErrors, too
        reason = f"the download failed ({type(error).__name__}: {error})"
        raise FileNotFoundError(_missing(file, sha256, reason)) from error
    except ValueError as error:
        raise ValueError(
            f"{file.url} does not deliver {file.path} with sha256 {sha256}: {error} Get the recorded "
            f"version elsewhere and place it at <folder>/{file.path} with SEQDYN_DATA=<folder>."
        ) from error
    return target


def _missing(file: DataFile, sha256: str | None, reason: str) -> str:
    folder = data_folder()
    here = f"SEQDYN_DATA={folder}" if folder else "SEQDYN_DATA (not set)"
    where = f" Get it from {file.url}." if file.url else ""
    return (
        f"dataset file {file.path} (sha256 {sha256 or 'not recorded'}) is neither below {here} nor in the "
        f"cache {cache_folder()}, and {reason}.{where}{' ' * bool(file.note)}{file.note} Place it at "
        f"<folder>/{file.path} and set SEQDYN_DATA=<folder>."
    )
