"""What the analyses share: names of dims, attributes, conversion to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqdyn import __version__

__all__ = [
    "EXPONENT", "INPUT", "MODE", "PC", "POINT", "START", "TIME", "UNIT", "array", "attributes",
    "eigenvalues_of",
]  # fmt: skip

POINT, UNIT, MODE, START, TIME, INPUT = "point", "unit", "mode", "start", "time", "input"
PC, EXPONENT = "pc", "exponent"


def array(values: Tensor) -> np.ndarray:
    """A tensor as a NumPy array on the CPU."""
    return values.detach().cpu().numpy()


def attributes(like: Tensor | np.ndarray, *, seed: int | None = None, **settings: Any) -> dict[str, Any]:
    """Attributes of a result: version, precision, seed and settings, as far as they are set."""
    found = {"seqdyn_version": __version__, "dtype": str(like.dtype).removeprefix("torch."), "seed": seed}
    return {name: value for name, value in {**found, **settings}.items() if value is not None}


def eigenvalues_of(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (N, H) by falling modulus and right eigenvectors (N, H, H), in columns, as complex128."""
    values, vectors = torch.linalg.eig(matrix.double())
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    return values.gather(-1, order), vectors.gather(-1, order.unsqueeze(-2).expand_as(vectors))
