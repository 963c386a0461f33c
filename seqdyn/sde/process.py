"""A process with learnable parameters: a drift, and a volatility that may have a factor to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqdyn.sde.chain import Reference
from seqdyn.sde.solvers import PairSolver

__all__ = ["Process"]


class Process(nn.Module):
    r"""The family of references :math:`dX = b_\theta\, dt + e^{s} \sigma\, dW`.

    Args:
        drift: b_θ.
        volatility: σ, (C, C).
        learn_volatility: Whether the factor is learned; else it is 1.
    """

    volatility: Tensor

    def __init__(self, drift: nn.Module, volatility: Tensor, learn_volatility: bool) -> None:
        super().__init__()
        self.drift = drift
        self.register_buffer("volatility", volatility)
        if learn_volatility:
            self.log_factor = nn.Parameter(torch.zeros((), dtype=volatility.dtype))

    def scale(self) -> Tensor:
        """The volatility in force, (C, C)."""
        return self.volatility * self.log_factor.exp() if hasattr(self, "log_factor") else self.volatility

    def reference(self, solver: PairSolver) -> Reference:
        scale = self.scale()
        return Reference(self.drift, scale @ scale.mT, solver)
