"""A process with learnable parameters: a drift, and a volatility that may have a factor to learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from seqdyn.dynamics import FlowDynamics
from seqdyn.sde.chain import Reference
from seqdyn.sde.lamperti import InLogCoordinates
from seqdyn.sde.solvers import PairSolver

__all__ = ["Process"]


class Process(nn.Module):
    r"""The family of references :math:`dX = b_\theta\, dt + e^{s} \sigma\, dW` in working coordinates.

    Args:
        drift: b_θ of the states.
        num_features: Number of working coordinates C.
        log: Whether these are the logarithms of the states.
        learn_volatility: Whether the factor is learned; else it is 1.
    """

    volatility: Tensor

    def __init__(self, drift: nn.Module, num_features: int, log: bool, learn_volatility: bool) -> None:
        super().__init__()
        self.drift = drift
        self.log = log
        self.register_buffer("volatility", torch.eye(num_features, dtype=torch.float64))
        if learn_volatility:
            self.log_factor = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def scale(self) -> Tensor:
        """The volatility in force, (C, C)."""
        return self.volatility * self.log_factor.exp() if hasattr(self, "log_factor") else self.volatility

    def named_values(self) -> dict[str, float]:
        """Parameters of the drift as numbers by name, and the volatility if it is learned."""
        found: dict[str, float] = {}
        for name, parameter in self.drift.named_parameters():
            values = parameter.detach().double().cpu()
            for index in np.ndindex(*values.shape):
                found[f"{name}[{','.join(map(str, index))}]" if index else name] = float(values[index])
        if hasattr(self, "log_factor"):
            found["volatility"] = float(self.scale().detach()[0, 0])
        return found

    def reference(self, solver: PairSolver, *, frozen: bool = True) -> Reference:
        """The reference of the parameters as they are now.

        Args:
            solver: How it is solved.
            frozen: Whether the volatility is a constant for autograd.
        """
        scale = self.scale().detach() if frozen else self.scale()
        return Reference(self.working_drift(scale), scale @ scale.mT, solver)

    def working_drift(self, scale: Tensor | None = None) -> nn.Module:
        """The drift of the working coordinates, under a volatility (C, C), that in force by default."""
        if not self.log:
            return self.drift
        drift = InLogCoordinates(self.drift, 0.0)
        drift.volatility = (self.scale().detach() if scale is None else scale).diagonal()
        return drift

    def flow(self) -> FlowDynamics:
        """The process in working coordinates as dynamics; its parameters are frozen.

        Raises:
            ValueError: If the noise is correlated between coordinates.
        """
        self.requires_grad_(False)
        diagonal = self.scale().diagonal()
        if bool((self.scale() - torch.diag(diagonal)).any()):
            raise ValueError(
                "dynamics with noise that is correlated between coordinates have no FlowDynamics; rotate the "
                "features to the axes of the noise."
            )
        return FlowDynamics(self.working_drift(), diagonal, len(diagonal))
