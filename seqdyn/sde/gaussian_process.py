r"""Regression of velocities on states by Gaussian processes, one for each of a batch of clouds.

The states of a cloud are centred and whitened, :math:`z = L^{-1}(x - m)` with its covariance
:math:`L L^\top`, and the velocities are taken in units of the noise, :math:`u = \sigma^{-1} y`. On these all
coordinates share one process with the kernel

.. math::
    k(z, z') = w\, (1 + z^\top z') + v\, (1 + r + r^2 / 3)\, e^{-r}, \qquad
    r = \sqrt 5\, |z - z'| / \ell, \quad \ell = 2.8 \sqrt{C}, \quad w \to \infty .

Its first part is an affine function, so that a prediction far from the cloud goes on linearly, as it must
where the cloud is Gaussian, instead of falling to the prior mean. The second part, of Matérn's smoothness
5/2, has twice the typical distance between two states of a cloud as its length scale and a wide prior: near
the cloud it is much like a polynomial, which a process that spreads out as it runs needs, and it can still
send neighbours different ways. It rests on a subset of centres drawn from the cloud, on which all states are
projected (subset of regressors).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["GaussianProcess", "fit_process"]

_LENGTH = 2.8  # length scale over the root of the number of coordinates
_WIDE = 300.0  # prior variance v over what an affine function leaves unexplained, of which it explains most
_RIDGE = 1e-9  # of the two linear systems, in units of the number of states


class GaussianProcess(NamedTuple):
    """Posterior means for a batch of clouds, in float64.

    Attributes:
        mean: Means of the states, (..., 1, C).
        factor: Cholesky factors L of their covariances, (..., C, C).
        affine: Intercept and slopes of the affine part, (..., 1 + C, C).
        centres: Centres in whitened coordinates, (..., M, C).
        weights: Weights of the centres, (..., M, C).
        variance: Prior variance v of the local part, (...).
    """

    mean: Tensor
    factor: Tensor
    affine: Tensor
    centres: Tensor
    weights: Tensor
    variance: Tensor

    def at(self, x: Tensor) -> Tensor:
        """Velocities (..., N, C) at states (..., N, C)."""
        z = _solve(self.factor, x.double() - self.mean)
        return (_inputs(z) @ self.affine + _kernel(z, self.centres) @ self.weights).to(x.dtype)

    def only(self, index: int) -> GaussianProcess:
        """The process of one cloud, as a batch of one."""
        return GaussianProcess(*(part[index : index + 1] for part in self))

    def packed(self) -> Tensor:
        """The processes of K clouds as rows of numbers, (K, P)."""
        return torch.cat([part.reshape(len(part), -1) for part in self], dim=1)

    @classmethod
    def unpacked(cls, rows: Tensor, size: int) -> GaussianProcess:
        """The processes that were packed as rows (K, P), of so many coordinates C."""
        known = size + size**2 + (1 + size) * size + 1
        num_centres = (rows.shape[1] - known) // (2 * size)
        shapes = [(1, size), (size, size), (1 + size, size), (num_centres, size), (num_centres, size), ()]
        parts = rows.double().split([math.prod(shape) for shape in shapes], dim=1)
        return cls(*(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)))


def fit_process(
    x: Tensor,
    velocities: Tensor,
    increments: Tensor,
    noise: Tensor,
    uncertainty: Tensor,
    blur: Tensor,
    num_centres: int,
) -> GaussianProcess:
    r"""Fit velocities that are known with noise.

    The local part is fitted to what an affine function leaves of the velocities. The affine part is fitted by
    least squares to what the local part leaves of the increments, so that the whole has the mean and the
    regression coefficients of the increments exactly: a cloud that is simulated with it moves, step by step,
    as the given one does. Increments and velocities may be the same numbers, or have the same conditional
    mean and different noise.

    Args:
        x: States in random order, (..., N, C).
        velocities: (..., N, C).
        increments: Increments of paths divided by the step, (..., N, C).
        noise: S = σσᵀ, (C, C).
        uncertainty: Variance of the noise in the velocities, in units of S, (...).
        blur: Time h (...) for which the states are blurred by the noise before they are whitened: the
            covariance has h S added.
        num_centres: Centres M of the local part; all states if there are fewer.
    """
    x, velocities, increments, noise, uncertainty, blur = (
        part.double() for part in (x, velocities, increments, noise, uncertainty, blur)
    )
    scale = torch.linalg.cholesky(noise)
    mean = x.mean(dim=-2, keepdim=True)
    covariance = (x - mean).mT @ (x - mean) / x.shape[-2] + blur[..., None, None] * noise
    factor = torch.linalg.cholesky(covariance)
    z = _solve(factor, x - mean)
    inputs = _inputs(z)
    gram = _raised(inputs.mT @ inputs, x.shape[-2])
    wanted = _solve(scale, velocities)
    rest = wanted - inputs @ torch.linalg.solve(gram, inputs.mT @ wanted)
    variance = _prior_variance(rest, uncertainty, _solve(factor, scale.mT))
    centres = z[..., :num_centres, :]
    kernel = _kernel(z, centres)
    ratio = (uncertainty / variance)[..., None, None]
    system = _raised(kernel.mT @ kernel + ratio * kernel[..., : centres.shape[-2], :], x.shape[-2])
    weights = torch.cholesky_solve(kernel.mT @ rest, torch.linalg.cholesky(system))
    affine = torch.linalg.solve(gram, inputs.mT @ (_solve(scale, increments) - kernel @ weights))
    return GaussianProcess(mean, factor, affine @ scale.mT, centres, weights @ scale.mT, variance)


def _solve(factor: Tensor, rows: Tensor) -> Tensor:
    """Apply the inverse of a triangular factor to rows."""
    return torch.linalg.solve_triangular(factor, rows.mT, upper=False).mT


def _inputs(z: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(z[..., :1]), z], dim=-1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Matérn kernel of smoothness 5/2."""
    r = torch.cdist(a, b) * (math.sqrt(5 / a.shape[-1]) / _LENGTH)
    return (1 + r + r.square() / 3) * torch.exp(-r)


def _prior_variance(rest: Tensor, uncertainty: Tensor, slopes: Tensor) -> Tensor:
    """What is left of the velocities beyond their noise, but at least the squared slopes of the score."""
    freedom = rest.shape[-2] - rest.shape[-1] - 1
    left = rest.square().sum(dim=(-2, -1)) / (freedom * rest.shape[-1]) - uncertainty
    return _WIDE * torch.maximum(left, slopes.square().sum(dim=(-2, -1)) / rest.shape[-1])


def _raised(matrix: Tensor, count: int) -> Tensor:
    """A matrix with a small ridge, without which states that coincide would make it singular."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + _RIDGE * count * eye
