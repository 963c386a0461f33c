"""The one table of datasets, and ``load``, ``names`` and ``info`` on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import xarray as xr

from seqdyn.data.schema import TARGET, X, check_episodes, check_sequences, check_snapshots
from seqdyn.datasets import forecasting, images, sequences, simulated, small, snapshots
from seqdyn.datasets.files import find
from seqdyn.datasets.recipe import Kind, Recipe

__all__ = ["RECIPES", "info", "load", "names"]

RECIPES: tuple[Recipe, ...] = (
    *small.RECIPES,
    *forecasting.RECIPES,
    *sequences.RECIPES,
    *snapshots.RECIPES,
    *simulated.RECIPES,
    *images.RECIPES,
)
_CHECKS: dict[str, Callable[[xr.Dataset], None]] = {
    "sequences": check_sequences,
    "snapshots": check_snapshots,
    "episodes": check_episodes,
}
_VALUES = {"sequences": TARGET, "snapshots": X, "episodes": "support_x", "images": "image"}


def names(kind: Kind | None = None) -> list[str]:
    """Names that :func:`load` takes, in alphabetical order.

    Args:
        kind: "sequences", "snapshots", "episodes" or "images"; all by default.
    """
    return sorted(recipe.name for recipe in RECIPES if kind in (None, recipe.kind))


def info(name: str) -> Recipe:
    """Card facts of a dataset: title, source, licence, citation, units, files and more.

    Raises:
        ValueError: If there is no such dataset.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    close = difflib.get_close_matches(str(name), names(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"there is no dataset {name!r}; {hint}choose from {', '.join(names())}.")


def load(name: str, *, sha256: str | None = None, download: bool = True) -> xr.Dataset:
    """Load a dataset, ready for ``fit`` and ``evaluate``.

    Its files are looked for in the installed package, below the folder ``SEQDYN_DATA``, in the cache
    (``SEQDYN_CACHE``, else the user's cache folder), and are downloaded into the cache last. Every file is
    checked against its recorded sha256 before it is read.

    Args:
        name: One of :func:`names`.
        sha256: Checksum of the file, for the few datasets where none is recorded (``info(name).files``);
            such a file is never downloaded without it.
        download: Whether the network may be used.

    Returns:
        A Dataset that follows the schema of ``info(name).kind``, with ``title``, ``source``, ``licence`` and
        ``citation`` in its attrs and units in those of its main variable. Snapshots with a published split
        have it there as ``train_index``, ``held_out_index`` and ``forecast_index``, counted in the order of
        time.

    Raises:
        ValueError: If there is no such dataset, or a file has another checksum.
        FileNotFoundError: If a file is nowhere; the message names it, its checksum and where to get it.
    """
    recipe = info(name)
    if sha256 is not None and [file.sha256 for file in recipe.files] != [None]:
        raise ValueError(
            f"the checksums of {name!r} are recorded in seqdyn.datasets.info({name!r}); leave sha256 out."
        )
    paths = [find(file, sha256=sha256, download=download) for file in recipe.files]
    data = recipe.read(*paths)
    data.attrs = {
        "dataset": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "licence": recipe.licence,
        "citation": recipe.citation,
    }
    for part in ("train_index", "held_out_index", "forecast_index"):
        if getattr(recipe, part):
            data.attrs[part] = list(getattr(recipe, part))
    if recipe.notes:
        data.attrs["notes"] = recipe.notes
    if recipe.units is not None:
        data[_VALUES[recipe.kind]].attrs["units"] = recipe.units
    if recipe.kind in _CHECKS:
        _CHECKS[recipe.kind](data)
    return data
