"""What the analyses share: names of dims, attributes, conversion to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn import __version__

__all__ = [
    "INPUT", "MODE", "PC", "POINT", "START", "TIME", "UNIT", "array", "attributes", "bin_means",
    "eigenvalues_of",
]  # fmt: skip

POINT, UNIT, MODE, START, TIME, INPUT = "point", "unit", "mode", "start", "time", "input"
PC = "pc"


def array(values: Tensor) -> np.ndarray:
    """A tensor as a NumPy array on the CPU."""
    return values.detach().cpu().numpy()


def attributes(like: Tensor | np.ndarray, *, seed: int | None = None, **settings: Any) -> dict[str, Any]:
    """Attributes of a result that NetCDF holds: version, precision, seed and settings that are set.

    Args:
        like: Tensor or array of the precision in which the result was computed.
        seed: Seed of its randomness.
        **settings: What else a reader must know, such as ``sigma``; truth values become 0 and 1.
    """
    found = {"seqdyn_version": __version__, "dtype": str(like.dtype).removeprefix("torch."), "seed": seed}
    plain = {
        name: int(value) if isinstance(value, bool | np.bool_) else value for name, value in settings.items()
    }
    return {name: value for name, value in {**found, **plain}.items() if value is not None}


def eigenvalues_of(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (N, H) by falling modulus and right eigenvectors (N, H, H), in columns, as complex128."""
    values, vectors = torch.linalg.eig(matrix.double())
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    return values.gather(-1, order), vectors.gather(-1, order.unsqueeze(-2).expand_as(vectors))


def bin_means(columns: Tensor, index: Tensor, num_bins: int) -> Tensor:
    """Means (B, C), float64, of columns (N, C) in the bins that an index (N,) names; NaN in empty bins."""
    total = torch.zeros(num_bins, columns.shape[1], dtype=torch.float64, device=columns.device)
    total.index_add_(0, index, columns.double())
    return total / torch.bincount(index, minlength=num_bins)[:, None]
