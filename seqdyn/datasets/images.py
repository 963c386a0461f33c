"""Recipes of handwritten characters: a pool of drawings for few-shot tasks, and a fixed set of such tasks."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from seqdyn.data.schema import INPUT, QUERY, QUERY_X, QUERY_Y, SUPPORT, SUPPORT_X, SUPPORT_Y, TASK
from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe

__all__ = ["RECIPES", "read_omniglot", "read_omniglot_runs"]

_OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/057f034baf2e/python/"
_LAKE = "Lake, Salakhutdinov, Tenenbaum (2015), Human-level concept learning, Science 350(6266)"


def read_omniglot(path: Path) -> xr.Dataset:
    """Read every drawing of a zip of Omniglot alphabets.

    Returns:
        ``image (drawing, row, column)``, one byte a pixel, 1 where there is ink; ``alphabet``, ``character``
        and ``drawer`` along ``drawing``.
    """
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        images = np.stack([_ink(archive, name) for name in names])
    parts = [PurePosixPath(name).parts for name in names]
    return xr.Dataset(
        {"image": (("drawing", "row", "column"), images)},
        coords={
            "alphabet": ("drawing", [part[-3] for part in parts]),
            "character": ("drawing", [f"{part[-3]}/{part[-2]}" for part in parts]),
            "drawer": ("drawing", [int(part[-1][-6:-4]) for part in parts]),
        },
    )


def read_omniglot_runs(path: Path) -> xr.Dataset:
    """Read 20 runs of 20-way classification from one example a class.

    Returns:
        ``support_x (task, support, input)`` and ``query_x``: 105 · 105 pixels in rows, 1 where there is ink;
        ``support_y`` and ``query_y``: class 0 to 19 within the run.
    """
    tasks: dict[str, list[np.ndarray]] = {name: [] for name in (SUPPORT_X, SUPPORT_Y, QUERY_X, QUERY_Y)}
    with zipfile.ZipFile(path) as archive:
        labels = sorted(name for name in archive.namelist() if name.endswith("class_labels.txt"))
        for name in labels:
            pairs = [line.split() for line in archive.read(name).decode().splitlines() if line.strip()]
            classes = sorted({support for _, support in pairs})
            tasks[SUPPORT_X].append(np.stack([_ink(archive, support).ravel() for support in classes]))
            tasks[SUPPORT_Y].append(np.arange(len(classes)))
            tasks[QUERY_X].append(np.stack([_ink(archive, query).ravel() for query, _ in pairs]))
            tasks[QUERY_Y].append(np.array([classes.index(support) for _, support in pairs]))
    stacked = {name: np.stack(arrays) for name, arrays in tasks.items()}
    return xr.Dataset(
        {
            SUPPORT_X: ((TASK, SUPPORT, INPUT), stacked[SUPPORT_X].astype(np.float32)),
            SUPPORT_Y: ((TASK, SUPPORT), stacked[SUPPORT_Y]),
            QUERY_X: ((TASK, QUERY, INPUT), stacked[QUERY_X].astype(np.float32)),
            QUERY_Y: ((TASK, QUERY), stacked[QUERY_Y]),
        },
        coords={TASK: [PurePosixPath(name).parts[-2] for name in labels]},
    )


def _ink(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One drawing as (row, column) bytes, 1 where there is ink."""
    from PIL import Image

    with archive.open(name) as stream, Image.open(stream) as image:
        return (~np.asarray(image, dtype=bool)).astype(np.uint8)


RECIPES = (
    Recipe(
        name="omniglot_small",
        title="Handwritten characters: 5 alphabets, 136 characters, 20 drawings each",
        kind="images",
        source="Omniglot, python/images_background_small1.zip",
        licence="MIT",
        citation=_LAKE,
        units="1 (ink)",
        files=(
            DataFile(
                "omniglot_small/images_background_small1.zip",
                "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
                _OMNIGLOT + "images_background_small1.zip",
            ),
        ),
        read=read_omniglot,
    ),
    Recipe(
        name="omniglot_runs",
        title="Handwritten characters: 20 runs of 20-way classification from one example",
        kind="episodes",
        source="Omniglot, python/one-shot-classification/all_runs.zip",
        licence="MIT",
        citation=_LAKE,
        units="1 (ink)",
        files=(
            DataFile(
                "omniglot_small/all_runs.zip",
                "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325",
                _OMNIGLOT + "one-shot-classification/all_runs.zip",
            ),
        ),
        read=read_omniglot_runs,
    ),
)
