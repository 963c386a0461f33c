r"""Stability of fixed points: by eigenvalues, and where the map has a kink, by growth.

At a kink of a rectifier the Jacobian does not exist (automatic differentiation calls it zero, hence
stable). There the map is, close by, homogeneous: :math:`F(h^* + \epsilon v) = h^* + \epsilon\, G(v)`. The
point is stable if :math:`v \leftarrow G(v)` shrinks from all directions, whatever the spectral radius of the
weights, which says nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import START, array, attributes
from seqdyn.dynamics.arguments import check_map, check_unscheduled
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.dynamics.maps import MapDynamics, Overwritten, activation_of
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["cone_growth", "cone_rates", "growth_at", "kinked", "label"]

_KINK = {torch.float64: 1e-9, torch.float32: 1e-5}


def label(eigenvalues: np.ndarray, *, flow: bool, band: float) -> tuple[str, int]:
    """Name the type of a fixed point.

    Args:
        eigenvalues: Eigenvalues of the Jacobian, (H,).
        flow: Whether stability means a negative real part instead of a modulus below 1.
        band: Half-width of the band around the border within which an eigenvalue counts as marginal.

    Returns:
        ``"stable node"`` or ``"stable focus"`` (whether the slowest mode is real or rotates),
        ``"saddle"``, ``"source"`` or ``"marginal"``; and the number of unstable eigenvalues.
    """
    growth = eigenvalues.real if flow else np.abs(eigenvalues) - 1
    num_unstable = int((growth > band).sum())
    if num_unstable:
        return ("source" if num_unstable == len(growth) else "saddle"), num_unstable
    if (growth > -band).any():
        return "marginal", 0
    return ("stable focus" if eigenvalues[growth.argmax()].imag != 0 else "stable node"), 0


def cone_growth(
    dynamics: MapDynamics,
    like: Tensor,
    *,
    num_directions: int = 256,
    num_steps: int = 400,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Growth rate at the origin of a homogeneous map, :math:`\lambda = \lim \frac1t \log|h_t|`.

    The question is about the map without any input; :func:`growth_rate` follows given starts under one.

    Args:
        dynamics: Rectifier network without biases.
        like: Tensor that gives dtype and device.
        num_directions: Random starting directions.
        num_steps: Steps of each direction; the first half is a transient, the second gives the slope.
        seed: Seed of the directions.

    Returns:
        ``growth_rate (start)``, per step, -inf where the state reaches the origin exactly; ``hitting_time
        (start)``, the step at which it does, NaN where it does not. Attribute ``stable_origin``, 1 if every
        direction shrinks: a saddle ray that no sampled direction comes near goes unseen.

    Raises:
        ValueError: If the map is not homogeneous.
    """
    check_map(dynamics)
    check_unscheduled(dynamics)
    num_steps = check_count(num_steps, "num_steps", least=2)
    check_count(num_directions, "num_directions")
    if not _has_cone(dynamics, like):
        raise ValueError(
            "cone growth is defined for rectifier networks without biases, F(c h) = c F(h), and these "
            "dynamics are not; look at the eigenvalues of seqdyn.analysis.fixed_points."
        )
    seed = ambient_seed(seed)
    with fork_rng(seed), torch.no_grad():
        size = (num_directions, dynamics.state_size)
        rate, hit = cone_rates(lambda v: dynamics.step(v, None), torch.randn(size).to(like), num_steps)
    return xr.Dataset(
        {"growth_rate": (START, rate), "hitting_time": (START, hit)},
        attrs=attributes(
            like,
            seed=seed,
            num_steps=num_steps,
            max_growth_rate=rate.max(),
            stable_origin=int(rate.max() < 0),
        ),
    )


@torch.no_grad()
def _has_cone(dynamics: MapDynamics, like: Tensor) -> bool:
    """Whether the undriven map is homogeneous but not linear, so that its origin is a kink."""
    undriven = replace(dynamics, input=None)
    if not is_homogeneous(undriven, like):
        return False
    generator = torch.Generator(device=like.device).manual_seed(1)
    size = (16, dynamics.state_size)
    h = torch.randn(size, generator=generator, dtype=like.dtype, device=like.device)
    return not torch.allclose(dynamics.step(-h, None), -dynamics.step(h, None))


def kinked(dynamics: MapDynamics, hidden: Tensor, input: Tensor | None) -> Tensor:
    """Which of the fixed points (P, H) lie on a kink, (P,) bool.

    The origin of a homogeneous map does. Elsewhere a kink is seen where drive and nonlinearity are known.
    """
    tolerance = _KINK.get(hidden.dtype, 1e-5)
    found = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
    if _has_cone(dynamics, hidden):
        undriven = found.logical_not() if input is None else ~input.any(dim=-1).expand(len(hidden))
        found |= (hidden.norm(dim=1) < tolerance) & undriven
    if dynamics.preactivation is None:
        return found
    try:
        drive, activation = activation_of(dynamics, hidden)
    except ValueError:
        return found
    free = torch.ones(dynamics.state_size, dtype=torch.bool, device=hidden.device)
    while isinstance(activation, Overwritten):
        free, activation = free & ~activation.mask.to(free.device), activation.base
    if activation not in (torch.relu, torch.nn.functional.relu):
        return found
    return found | ((drive(hidden, input).abs() < tolerance) & free).any(dim=1)


def growth_at(
    step: Callable[[Tensor], Tensor], point: Tensor, *, num_directions: int = 128, num_steps: int = 400
) -> float:
    """Largest growth rate per step of small deviations from a kinked fixed point (H,), over ± directions."""
    size = (
        1e-6 * (1 + float(point.norm())) if point.dtype == torch.float64 else 1e-3 * (1 + float(point.norm()))
    )
    size = 1.0 if not bool(point.any()) else size
    directions = torch.randn(num_directions, len(point)).to(point)
    rate, _ = cone_rates(
        lambda v: (step(point + size * v) - point) / size, torch.cat([directions, -directions]), num_steps
    )
    return float(rate.max())


def cone_rates(
    step: Callable[[Tensor], Tensor], directions: Tensor, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Growth rates (N,) per step of a homogeneous map over the second half of the steps, and hitting times.

    The state is brought back to unit length after each step, so that neither decay nor growth leaves the
    range of the numbers. Where it becomes exactly 0, the rate is -inf and that step is the hitting time.
    """
    norm = directions.norm(dim=1)
    v = directions / torch.where(norm == 0, 1.0, norm)[:, None]
    total, hit = v.new_zeros(len(v), dtype=torch.float64), torch.where(norm == 0, 0.0, torch.nan).to(v)
    for number in range(1, num_steps + 1):
        v = step(v)
        norm = v.norm(dim=1)
        hit = torch.where(hit.isnan() & (norm == 0), float(number), hit)
        v = v / torch.where(norm == 0, 1.0, norm)[:, None]
        if number > num_steps // 2:
            total += norm.double().log()
    rate = torch.where(hit.isnan(), total / (num_steps - num_steps // 2), -torch.inf)
    return array(rate), array(hit)
