"""Public datasets by name: ``load``, ``names``, ``info``; and populations drawn from known dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqdyn._lazy import attach

if TYPE_CHECKING:
    from seqdyn.datasets.catalogue import info as info
    from seqdyn.datasets.catalogue import load as load
    from seqdyn.datasets.catalogue import names as names
    from seqdyn.datasets.files import cache_folder as cache_folder
    from seqdyn.datasets.files import data_folder as data_folder
    from seqdyn.datasets.population import lotka_volterra as lotka_volterra
    from seqdyn.datasets.population import ou_chain as ou_chain
    from seqdyn.datasets.population import repressilator as repressilator
    from seqdyn.datasets.population import vortex as vortex
    from seqdyn.datasets.recipe import Recipe as Recipe

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Recipe": "recipe",
        "cache_folder": "files",
        "data_folder": "files",
        "info": "catalogue",
        "load": "catalogue",
        "lotka_volterra": "population",
        "names": "catalogue",
        "ou_chain": "population",
        "population": "population",
        "repressilator": "population",
        "vortex": "population",
    },
)
