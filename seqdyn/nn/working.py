"""The space in which snapshots are worked on: logarithms, or a few principal components, of the features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WorkingSpace"]


class WorkingSpace(nn.Module):
    r"""Invertible change of coordinates: none, :math:`z = \log x`, or :math:`z = W^\top (x - m)`.

    Principal components are fitted once, to the training snapshots; what they leave out is lost on the way
    back. States and coordinates keep their own precision, whatever that of the components.

    Args:
        num_features: Features F of the data.
        log: Whether z is the logarithm.
        num_components: Principal components C; ``None`` keeps all features.
    """

    mean: Tensor
    loadings: Tensor

    def __init__(self, num_features: int, log: bool, num_components: int | None) -> None:
        super().__init__()
        self.log = log
        self.size = num_features if num_components is None else num_components
        self.projects = num_components is not None
        if self.projects:
            self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
            self.register_buffer("loadings", torch.zeros(num_features, self.size, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, x: Tensor, weight: Tensor) -> None:
        """Fit the components to states (P, F) with weights (P,); nothing to do otherwise.

        Signs are fixed: the largest loading of a component is positive.

        Raises:
            ValueError: If the states vary in fewer directions than there are components.
        """
        if not self.projects:
            return
        share = (weight / weight.sum())[:, None]
        mean = (share * x).sum(dim=0)
        _, sizes, right = torch.linalg.svd(share.sqrt() * (x - mean), full_matrices=False)
        rank = int((sizes > max(x.shape) * torch.finfo(x.dtype).eps * x.abs().max()).sum())
        if rank < self.size:
            remedy = f"build the model with num_components={rank} or fewer" if rank else "they are all alike"
            raise ValueError(
                f"num_components={self.size} are asked for, but the {len(x)} training particles vary in only "
                f"{rank} directions; {remedy}."
            )
        self.mean.copy_(mean)
        loadings = right[: self.size].mT
        largest = loadings.gather(0, loadings.abs().argmax(dim=0, keepdim=True))
        self.loadings.copy_(loadings * largest.sign())

    def forward(self, x: Tensor) -> Tensor:
        """Working coordinates (..., C) of states (..., F)."""
        if self.projects:
            return (x - self.mean.to(x)) @ self.loadings.to(x)
        return x.log() if self.log else x

    def back(self, z: Tensor) -> Tensor:
        """States (..., F) of working coordinates (..., C)."""
        if self.projects:
            return z @ self.loadings.mT.to(z) + self.mean.to(z)
        return z.exp() if self.log else z

    def back_drift(self, z: Tensor, drift: Tensor, noise: Tensor) -> Tensor:
        """Drift (..., F) of the states from that (..., C) of their working coordinates.

        Args:
            z: Working coordinates, (..., C).
            drift: Their drift, (..., C).
            noise: Covariance of their noise per unit of time, (C, C); Itô's formula needs it for logarithms.
        """
        if self.projects:
            return drift @ self.loadings.mT.to(drift)
        return z.exp() * (drift + noise.diagonal() / 2) if self.log else drift
