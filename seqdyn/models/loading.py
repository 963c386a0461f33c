"""Load any saved model: the class named in its folder is looked up in ``seqdyn.models``."""

from __future__ import annotations

import importlib
import os
from typing import Any

from seqdyn.persistence import read_class_name

__all__ = ["load"]


def load(path: str | os.PathLike[str], **modules: Any) -> Any:
    """Load a model of any class.

    Every class in ``seqdyn.models`` has a classmethod ``load(path, **modules)``, which does the work.

    Args:
        path: Folder that ``model.save`` wrote, or the ``run_dir`` of a fit.
        **modules: Networks that were handed in to the constructor, again.

    Returns:
        The model.

    Raises:
        ValueError: If the folder is missing, damaged, foreign or newer, or names no model of this package.
    """
    models = importlib.import_module("seqdyn.models")
    name = read_class_name(path)
    # Only what the namespace lists, and only classes: a name in a file must not reach anything else.
    found: Any = getattr(models, name) if name in models.__all__ else None
    if not isinstance(found, type) or not hasattr(found, "load"):
        raise ValueError(
            f"{path} holds a {name!r}, which is no model of seqdyn.models; for a class of your own use "
            "YourModel.load(path), for a newer model: pip install --upgrade seqdyn."
        )
    return found.load(path, **modules)
