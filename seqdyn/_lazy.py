"""Re-exports that import their module only when a name is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, exports: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Build ``__getattr__``, ``__dir__`` and ``__all__`` of a package that loads on first use.

    Args:
        package: ``__name__`` of the package.
        exports: Public name to the module, relative to the package, that defines it; a name that
            equals its module's is the module itself.

    Returns:
        The three objects to bind in the package's namespace.
    """

    def __getattr__(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{exports[name]}")
        return module if exports[name] == name else getattr(module, name)

    names = sorted(exports)
    return __getattr__, lambda: names, names
