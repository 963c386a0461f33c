r"""Proportional noise made additive: the drift of the logarithm of a process.

Of :math:`dX_j = b_j(X, t)\, dt + \sigma_j X_j\, dW_j` with positive states the logarithm
:math:`Z = \log X` has constant noise,

.. math:: dZ_j = \big( b_j(e^Z, t)\, e^{-Z_j} - \tfrac12 \sigma_j^2 \big)\, dt + \sigma_j\, dW_j,

so that every method for additive noise applies (Lamperti's transform; the last term of the drift is Itô's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from seqdyn.sde.fields import Time
from seqdyn.sde.noise import volatility_vector

__all__ = ["InLogCoordinates"]


class InLogCoordinates(nn.Module):
    """The drift of ``z = log x`` where x has a given drift and proportional noise.

    It shares the parameters of the drift it wraps: fitting one fits the other.

    Args:
        drift: Drift of x, ``drift(x, t)``.
        volatility: σ, a number or one number per coordinate, per square root of time; relative to the state.

    Raises:
        ValueError: If the volatility is no such number, for instance a matrix: the noise of one coordinate
            is proportional to that coordinate.
    """

    volatility: Tensor

    def __init__(self, drift: Callable[[Tensor, Any], Tensor], volatility: Any) -> None:
        super().__init__()
        self.drift = drift
        self.register_buffer("volatility", volatility_vector(volatility))

    @property
    def lower_bounds(self) -> dict[str, float]:
        """Smallest values of the wrapped drift's parameters, by name."""
        return {f"drift.{name}": bound for name, bound in getattr(self.drift, "lower_bounds", {}).items()}

    def forward(self, z: Tensor, t: Time) -> Tensor:
        x = z.exp()
        return self.drift(x, t) / x - self.volatility.to(z.dtype).square() / 2
