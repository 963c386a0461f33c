"""What every result says of its making."""

from __future__ import annotations

from typing import Any

import torch

from seqdyn import __version__

__all__ = ["provenance"]


def provenance(*, seed: int | None, sigma: float, dtype: torch.dtype) -> dict[str, Any]:
    """Attributes that netCDF holds; ``seed`` is left out where the ambient stream was used."""
    attrs: dict[str, Any] = {"sigma": float(sigma), "dtype": str(dtype), "seqdyn_version": __version__}
    return attrs if seed is None else attrs | {"seed": int(seed)}
