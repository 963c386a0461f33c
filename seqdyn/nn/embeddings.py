"""Embeddings of scalars: the sinusoidal embedding of a diffusion step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["StepEmbedding"]


class StepEmbedding(nn.Module):
    r"""Sinusoids of the step index through a two-layer network.

    .. math::
        f_i = 10000^{-i / (E/2 - 1)}, \qquad
        \tau = \mathrm{SiLU}(W_2\,\mathrm{SiLU}(W_1 [\sin(s f), \cos(s f)]))

    Args:
        embedding_size: Number of sinusoids E, even and at least 4.
        hidden_size: Size D of the result.

    Raises:
        ValueError: If ``embedding_size`` is odd or below 4.
    """

    frequency: Tensor

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        if embedding_size < 4 or embedding_size % 2:
            raise ValueError(f"embedding_size must be even and at least 4, got {embedding_size}; try 128.")
        half = embedding_size // 2
        frequency = torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequency", frequency, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(embedding_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size), nn.SiLU()
        )

    def forward(self, step: Tensor) -> Tensor:
        """Embed integer steps (B,) as (B, D)."""
        angle = step[:, None].to(self.frequency.dtype) * self.frequency
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=-1))
