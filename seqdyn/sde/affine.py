"""Linear drifts with an offset: any matrix, a symmetric one, a diagonal one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqdyn._arguments import check_amount, check_count
from seqdyn.sde.fields import Time

__all__ = ["Linear", "OrnsteinUhlenbeck", "QuadraticPotential"]

_ROUNDING = 1e-12  # of its mean: a coordinate that spreads less is constant
_RANK = 1e-10  # directions with less than this share of the largest variance count as constant


class Linear(nn.Module):
    r"""Linear drift with an offset, the Ornstein-Uhlenbeck process in several dimensions.

    .. math:: b(x) = A x + c

    Args:
        num_features: Number of coordinates C.
        ridge: Strength of the penalty on its slopes: on :math:`(A_{ij} s_j)^2` with the standard deviations
            :math:`s_j` of the coordinates, relative to the squared misfit of velocities, see
            :mod:`seqdyn.sde.roughness`; 0 for none.

    Attributes:
        matrix: A, (C, C), zero at first, in the inverse of the unit of time.
        offset: c, (C,), zero at first.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_features: int, ridge: float = 0.0) -> None:
        super().__init__()
        size = check_count(num_features, "num_features")
        self.ridge = check_amount(ridge, "ridge")
        self.matrix = nn.Parameter(torch.zeros(size, size, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return x @ self.matrix.mT.to(x.dtype) + self.offset.to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        return self.matrix, self.offset

    @torch.no_grad()
    def solve(self, x: Tensor, t: Tensor, target: Tensor, weight: Tensor) -> None:
        """Set A and c to the least-squares fit of targets (N, C) to states (N, C) with weights (N,).

        All coordinates have the same regressors, so that their noise, correlated or not, does not matter. In
        directions in which the states do not vary A is zero. Computed in float64.
        """
        x, target = x.double(), target.double()
        share = (weight.double() / weight.double().sum())[:, None]
        mean_x, mean_target = (share * x).sum(dim=0), (share * target).sum(dim=0)
        # Centred and scaled: a cloud far from the origin, or in mixed units, is no harder than any other.
        spread = (share * (x - mean_x).square()).sum(dim=0).sqrt()
        spread = torch.where(spread > _ROUNDING * mean_x.abs(), spread, torch.inf)  # constant: no slope
        scaled = (x - mean_x) / spread
        gram = (share * scaled).mT @ scaled
        gram.diagonal().add_(self.ridge)
        found = torch.linalg.pinv(gram, rtol=_RANK, hermitian=True) @ (share * scaled).mT @ target
        matrix = (found / spread[:, None]).mT
        self.matrix.copy_(matrix)
        self.offset.copy_(mean_target - matrix @ mean_x)


class QuadraticPotential(nn.Module):
    r"""Motion down the slope of a quadratic potential: a linear drift with a symmetric matrix.

    .. math:: b(x) = -\nabla U(x), \qquad U(x) = \tfrac12\, x^\top K x - c^\top x

    Of a linear drift it is the part that snapshots determine best: what turns about the middle of a cloud
    hardly changes the cloud.

    Args:
        num_features: Number of coordinates C.
        ridge: Strength of the penalty on its slopes, see :mod:`seqdyn.sde.roughness`; 0 for none.

    Attributes:
        stiffness: Lower triangle of K row by row, (C (C + 1) / 2,), zero at first, in the inverse of the unit
            of time.
        offset: c, (C,), zero at first.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_features: int, ridge: float = 0.0) -> None:
        super().__init__()
        self._size = check_count(num_features, "num_features")
        self.ridge = check_amount(ridge, "ridge")
        self.stiffness = nn.Parameter(torch.zeros(self._size * (self._size + 1) // 2, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(self._size, dtype=torch.float64))

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return self.offset.to(x.dtype) - x @ self._matrix().to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        return -self._matrix(), self.offset

    def _matrix(self) -> Tensor:
        rows, columns = torch.tril_indices(self._size, self._size, device=self.stiffness.device)
        lower = self.stiffness.new_zeros(self._size, self._size).index_put((rows, columns), self.stiffness)
        return lower + lower.tril(-1).mT


class OrnsteinUhlenbeck(nn.Module):
    r"""Each coordinate by itself relaxes towards a level of its own: a linear drift with a diagonal matrix.

    .. math:: b_i(x) = c_i - k_i x_i

    Args:
        num_features: Number of coordinates C.
        ridge: Strength of the penalty on its slopes, see :mod:`seqdyn.sde.roughness`; 0 for none.

    Attributes:
        rate: k, (C,), zero at first, in the inverse of the unit of time.
        offset: c, (C,), zero at first.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_features: int, ridge: float = 0.0) -> None:
        super().__init__()
        size = check_count(num_features, "num_features")
        self.ridge = check_amount(ridge, "ridge")
        self.rate = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return self.offset.to(x.dtype) - self.rate.to(x.dtype) * x

    def affine(self) -> tuple[Tensor, Tensor]:
        return -torch.diag(self.rate), self.offset

    @torch.no_grad()
    def solve(self, x: Tensor, t: Tensor, target: Tensor, weight: Tensor) -> None:
        """Set k and c to the least-squares fit of targets (N, C) to states (N, C) with weights (N,).

        Each coordinate by itself, which neglects correlations of the noise. One that does not vary has rate
        zero. Computed in float64.
        """
        x, target = x.double(), target.double()
        share = (weight.double() / weight.double().sum())[:, None]
        mean_x, mean_target = (share * x).sum(dim=0), (share * target).sum(dim=0)
        variance = (share * (x - mean_x).square()).sum(dim=0)
        variance = torch.where(variance > (_ROUNDING * mean_x).square(), variance, torch.inf)
        rate = -(share * (x - mean_x) * target).sum(dim=0) / (variance * (1 + self.ridge))
        self.rate.copy_(rate)
        self.offset.copy_(mean_target + rate * mean_x)
