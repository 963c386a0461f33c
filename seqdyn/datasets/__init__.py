"""Public datasets by name: ``load``, ``names``, ``info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.datasets.catalogue import info as info
    from seqdyn.datasets.catalogue import load as load
    from seqdyn.datasets.catalogue import names as names
    from seqdyn.datasets.files import cache_folder as cache_folder
    from seqdyn.datasets.files import data_folder as data_folder
    from seqdyn.datasets.recipe import Recipe as Recipe

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Recipe": "recipe",
        "cache_folder": "files",
        "data_folder": "files",
        "info": "catalogue",
        "load": "catalogue",
        "names": "catalogue",
    },
)
