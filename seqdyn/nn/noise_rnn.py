"""A recurrent network whose only input is noise, and whose output is a law over symbols."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "NoiseRNN", "Unrolled"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class Unrolled(NamedTuple):
    """A run of :class:`NoiseRNN`: activity (T, B, H) and logits (T, B, K)."""

    hidden: Tensor
    logits: Tensor


class NoiseRNN(nn.Module):
    r"""A vanilla recurrent network driven by white noise.

    .. math::
        h_t = \phi(W h_{t-1} + U x_t\,[+\, b]), \qquad \ell_t = R h_t\,[+\, c]

    Symbols drawn from softmax :math:`\ell_t` are not fed back, so that they are independent given the noise.
    Without biases and with a rectifier the map is homogeneous: scaling noise and state by :math:`c \ge 0`
    scales activity and logits by c.

    Args:
        num_symbols: Symbols K.
        hidden_size: Units H.
        input_size: Noise dimension X.
        activation: ``"relu"`` or ``"tanh"``.
        bias: Whether units and readout have biases.
    """

    def __init__(
        self,
        num_symbols: int,
        hidden_size: int,
        input_size: int,
        activation: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden_size)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.activation = activation
        self.recurrent = uniform(hidden_size, hidden_size)
        self.input = uniform(hidden_size, input_size)
        self.readout = uniform(num_symbols, hidden_size)
        self.bias = uniform(hidden_size) if bias else None
        self.readout_bias = uniform(num_symbols) if bias else None

    def forward(self, noise: Tensor, hidden: Tensor) -> Unrolled:
        """Run from ``hidden`` (B, H) under ``noise`` (T, B, X)."""
        phi, weight = ACTIVATIONS[self.activation], self.recurrent.t()
        drives = nn.functional.linear(noise, self.input, self.bias)  # (T, B, H), out of the loop
        activity = []
        for drive in drives.unbind(0):
            hidden = phi(torch.addmm(drive, hidden, weight))
            activity.append(hidden)
        states = torch.stack(activity)
        return Unrolled(states, self.logits(states))

    def drive(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the units receive before the nonlinearity, (..., H), from (..., H) and (..., X)."""
        drive = nn.functional.linear(hidden, self.recurrent, self.bias)
        return drive if noise is None else drive + nn.functional.linear(noise, self.input)

    def step(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """One step, (..., H); no noise is zero noise."""
        return ACTIVATIONS[self.activation](self.drive(hidden, noise))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the symbols, (..., K)."""
        return nn.functional.linear(hidden, self.readout, self.readout_bias)
