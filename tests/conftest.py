"""Settings and fixtures of all tests."""

from __future__ import annotations

import os

# Before torch and matplotlib are imported anywhere: several thread teams on few cores slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Iterator
from pathlib import Path

import pytest

from seqdyn.rng import fork_rng


@pytest.fixture(autouse=True)
def same_random_stream() -> Iterator[None]:
    """Start every test from one random state and leave the process's own untouched, in any order of tests."""
    with fork_rng(0):
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets, from the environment variable ``SEQDYN_DATA``."""
    folder = os.environ.get("SEQDYN_DATA")
    if not folder:
        pytest.skip("SEQDYN_DATA is not set; point it to the folder of public data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"SEQDYN_DATA={folder} is not a folder")
    return Path(folder)
