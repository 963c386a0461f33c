"""How a transport problem is to be solved."""

from __future__ import annotations

import dataclasses
import math

import torch

from seqdyn._arguments import check_count
from seqdyn.ot._checks import check_positive
from seqdyn.ot.annealed import schedule

__all__ = ["MODES", "Settings"]

MODES = ("converged", "annealed")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of :func:`seqdyn.ot.sinkhorn_divergence` that are numbers or names.

    Raises:
        ValueError: If one of them is out of range.
    """

    epsilon: float
    mode: str
    scaling: float
    diameter: float | None
    tolerance: float
    max_iters: int
    max_memory: float

    def __post_init__(self) -> None:
        check_positive(self.epsilon, "epsilon", "epsilon=seqdyn.ot.auto_blur(y)**2 suits most data")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {self.mode!r}.")
        if not check_positive(self.scaling, "scaling", "the usual factor is 0.5") < 1:
            raise ValueError(
                f"scaling must be below 1, got {self.scaling}; it is the factor from one blur to the next, "
                "usually 0.5."
            )
        if self.diameter is not None:
            check_positive(self.diameter, "diameter", "leave it out for that of the points")
        check_positive(self.tolerance, "tolerance", "the usual bound on a marginal's error is 1e-6")
        check_count(self.max_iters, "max_iters", hint="the default is 5000")
        check_positive(self.max_memory, "max_memory", "it is a number of bytes, 1e9 by default")

    def epsilons(self, span: float, dtype: torch.dtype) -> tuple[float, ...]:
        """The schedule for points of a diameter.

        Raises:
            ValueError: If costs or exponents leave the range of the dtype.
        """
        epsilon, limits = float(self.epsilon), torch.finfo(dtype)
        # Below a millionth of the blur a diameter changes nothing, and its square may be zero.
        diameter = max(self.diameter or span, 1e-6 * math.sqrt(epsilon))
        largest = max(span, diameter) ** 2
        if not (limits.tiny < epsilon and largest < min(1.0, epsilon) * limits.max / 8):
            raise ValueError(
                f"costs of the order of {largest:.3g} with epsilon={epsilon:g} are out of the range of "
                f"{dtype}; divide the points by their standard deviation, or raise epsilon."
            )
        return schedule(diameter, epsilon, self.scaling)
