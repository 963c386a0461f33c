"""Invertible scalings: per window (mean absolute value) and per feature (standardisation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MeanScaler", "Standardizer"]


class MeanScaler:
    r"""Divide a window by the mean absolute value of its observed context; no shift.

    .. math::
        s = \frac{\sum_t m_t |x_t|}{\max(\sum_t m_t, 1)}

    A context that is all zero or all missing has scale 1: the window is then left as it is. (The published
    code takes the mean over the batch there, which makes a forecast depend on its neighbours.)
    """

    @staticmethod
    def scale(context: Tensor, observed: Tensor) -> Tensor:
        """Scale of each window and feature, (B, 1, C), from a context (B, K, C) and its mask; no gradient."""
        mask = observed.to(context.dtype)
        weight = mask / mask.sum(1, keepdim=True).clamp(min=1)  # divided before the sum, which may overflow
        scale = (context.detach().abs() * weight).sum(1, keepdim=True)
        return torch.where(scale > 0, scale, torch.ones_like(scale))


class Standardizer(nn.Module):
    """Subtract a mean and divide by a standard deviation, fitted once and saved with the weights.

    Args:
        num_features: Size F of the last dimension.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Take the statistics of ``values`` (..., F); a constant feature keeps standard deviation 1."""
        flat = values.double().flatten(0, -2)
        std, mean = torch.std_mean(flat, dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise ``values`` (..., F)."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        return values * self.std + self.mean
