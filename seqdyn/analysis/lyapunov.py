r"""Lyapunov exponents: the growth rates of small deviations along a trajectory, by repeated QR.

.. math::
    J_t Q_{t-1} = Q_t R_t, \qquad \lambda_i = \lim_{T \to \infty} \frac1T \sum_t \log |(R_t)_{ii}|

The tangent map of a flow is the derivative of its Runge-Kutta step, which is the same scheme applied to the
variational equation. A driven system has the exponents of the random map with that noise.

Source: Benettin et al. (1980), Meccanica 15, 9-20.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.func import jacrev, vmap

from seqdyn._arguments import check_count
from seqdyn.analysis.common import MODE, START, TIME, array, attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.dynamics.arguments import Dynamics, state_set
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive, advance, check_step_size
from seqdyn.errors import ConvergenceWarning, NonFiniteError
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["kaplan_yorke", "lyapunov_spectrum"]

_CHECKED_SIZE = 16  # up to here the determinant of every step is cheap
_NUM_BLOCKS = 20
_MAX_ENTRIES = 2**21  # of the Jacobians in memory at once


@over_conditions
@torch.no_grad()
def lyapunov_spectrum(
    dynamics: Dynamics,
    state: Any,
    *,
    num_steps: int,
    num_exponents: int | None = None,
    step_size: float | None = None,
    transient: int | None = None,
    interval: int | None = None,
    sigma: float = 0.0,
    noise: Tensor | None = None,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Estimate the Lyapunov exponents of a map or a flow.

    Several trajectories at once cost little more than one: prefer many starts to many steps.

    Args:
        dynamics: Map or flow.
        state: Starts (..., H). Starts that lie close together stay alike for a while: ``exponent_se`` is then
            too small. Take them from a long run, or a longer ``transient``.
        num_steps: Steps of each trajectory that count.
        num_exponents: How many of the H exponents, largest first; all by default.
        step_size: Runge-Kutta step of a flow.
        transient: Steps before those that count, in which the directions settle; a tenth, at least 100.
        interval: Steps between orthonormalisations, 1 to 5; 1 for maps, 5 for flows by default.
        sigma: Standard deviation of the noise on the inputs of a map; factor of the volatility of a flow.
        noise: Standard normal draws to use, (N, transient + num_steps, X).
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of first directions and noise.

    Returns:
        ``exponent (mode)``, per step of a map, per unit of time of a flow; ``exponent_se (mode)``, the
        standard error from independent stretches; ``running (time, mode)``; ``finite_time (start, mode)``. A
        direction that the map erases (silent rectifiers) has exponent -inf. Attributes: ``kaplan_yorke``
        dimension, NaN if it needs more exponents; ``sum`` of the finite exponents; and where all exponents
        of up to 16 units are asked for, ``mean_log_det``, which the sum must equal.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If a trajectory leaves the finite numbers.
    """
    states = state_set(dynamics, state, "state")
    size = states.shape[1]
    num_steps = check_count(num_steps, "num_steps")
    count = size if num_exponents is None else check_count(num_exponents, "num_exponents")
    if count > size:
        raise ValueError(f"num_exponents must be at most the {size} units, got {num_exponents}.")
    transient = (
        max(100, num_steps // 10) if transient is None else check_count(transient, "transient", least=0)
    )
    flow = isinstance(dynamics, FlowDynamics)
    interval = (5 if flow else 1) if interval is None else check_count(interval, "interval")
    if interval > 5:
        raise ValueError(
            f"interval must be 1 to 5 steps, got {interval}: longer ones lose the small exponents."
        )
    check_step_size(dynamics, step_size)
    drive = Drive(dynamics, states, sigma=sigma, noise=noise, input=input, num_steps=transient + num_steps)
    seed = ambient_seed(seed)
    with fork_rng(seed):
        sums = _follow(dynamics, states, drive, transient, num_steps, count, interval, step_size)
    return _result(sums, states, step_size, seed, interval=interval, transient=transient, sigma=sigma)


class _Sums:
    """Sums of log growth: over all steps, in blocks for the error, and as running mean."""

    def __init__(self, states: Tensor, count: int, num_steps: int) -> None:
        self.num_steps, self.size = num_steps, states.shape[1]
        blocks = min(max(1, _NUM_BLOCKS // len(states)), num_steps)
        self.block = states.new_zeros(blocks, len(states), count, dtype=torch.float64)
        self.length = states.new_zeros(blocks, dtype=torch.float64)
        self.running: list[Tensor] = []
        self.times: list[int] = []
        self.log_det = 0.0
        # Rows of zeros are silent units; no more directions than the others survive.
        self.rank = torch.full((len(states),), self.size, device=states.device)
        self.unresolved = 0

    def add(self, growth: Tensor, step: int, length: int) -> None:
        """Add the growth (N, K) over the ``length`` steps that end with number ``step``, from 1."""
        number = min((step - 1) * len(self.block) // self.num_steps, len(self.block) - 1)
        self.block[number] += growth
        self.length[number] += length
        self.running.append(self.block.sum(dim=0).mean(dim=0) / step)
        self.times.append(step)


def _follow(
    dynamics: Dynamics,
    h: Tensor,
    drive: Drive,
    transient: int,
    num_steps: int,
    count: int,
    interval: int,
    step_size: float | None,
) -> _Sums:
    """Run the trajectories stretch by stretch: the states of one first, then all its Jacobians at once."""
    sums = _Sums(h, count, num_steps)
    frame = torch.linalg.qr(torch.randn(*h.shape, count).to(h))[0]
    total, stretch = transient + num_steps, max(1, _MAX_ENTRIES // (h.numel() * h.shape[1]))
    since = 0
    for begin in range(0, total, stretch):
        steps = range(begin, min(begin + stretch, total))
        h, matrices = _stretch(dynamics, h, drive, steps, step_size)
        _check_finite(h, steps[-1])
        sums.rank = torch.minimum(sums.rank, matrices.any(dim=-1).sum(dim=-1).amin(dim=0))
        if count == h.shape[1] <= _CHECKED_SIZE:
            counted = matrices[max(transient - begin, 0) :]
            sums.log_det += float(torch.linalg.slogdet(counted)[1].sum()) / (num_steps * len(h))
        for step, matrix in zip(steps, matrices, strict=True):
            frame, since = matrix @ frame, since + 1
            if since == interval or step + 1 in (transient, total):
                frame, growth = _orthonormal(frame, sums)
                if step >= transient:
                    sums.add(growth, step + 1 - transient, since)
                since = 0
    return sums


def _stretch(
    dynamics: Dynamics, h: Tensor, drive: Drive, steps: range, step_size: float | None
) -> tuple[Tensor, Tensor]:
    """The states (N, H) after some steps, and the Jacobian (T, N, H, H) of each step."""
    before, inputs, same = [], [], True
    for step in steps:
        u = drive(step)
        before.append(h)
        inputs.append(u)
        same = same and _as_at_first(dynamics, h, step, step_size)
        h = advance(dynamics, h, u, step, step_size)
    if same:
        u = None if inputs[0] is None else torch.cat([u for u in inputs if u is not None])
        rows = _step_jacobian(dynamics, torch.cat(before), u, 0, step_size)
        return h, rows.unflatten(0, (len(steps), -1))
    matrices = [
        _step_jacobian(dynamics, state, u, step, step_size)
        for step, state, u in zip(steps, before, inputs, strict=True)
    ]
    return h, torch.stack(matrices)


def _as_at_first(dynamics: Dynamics, h: Tensor, step: int, step_size: float | None) -> bool:
    """Whether a step is the same function of the state as step 0."""
    if isinstance(dynamics, MapDynamics):
        return dynamics.schedule is None
    assert step_size is not None
    return torch.equal(dynamics.drift(h, step * step_size), dynamics.drift(h, 0.0))


def _step_jacobian(
    dynamics: Dynamics, h: Tensor, u: Tensor | None, step: int, step_size: float | None
) -> Tensor:
    if u is None:
        return vmap(jacrev(lambda x: advance(dynamics, x[None], None, step, step_size)[0]))(h)
    return vmap(jacrev(lambda x, u: advance(dynamics, x[None], u[None], step, step_size)[0]))(h, u)


def _orthonormal(frame: Tensor, sums: _Sums) -> tuple[Tensor, Tensor]:
    frame, triangle = torch.linalg.qr(frame)
    growth = triangle.diagonal(dim1=-2, dim2=-1).abs().double()
    floor = torch.finfo(frame.dtype).eps * sums.size * growth.amax(dim=1, keepdim=True)
    alive = torch.arange(growth.shape[1], device=growth.device) < sums.rank[:, None]
    sums.unresolved += int(((growth <= floor) & alive).sum())
    return frame, growth.log()


def _check_finite(h: Tensor, step: int) -> None:
    bad = ~torch.isfinite(h).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"the trajectory from start {int(bad.int().argmax())} is not finite after {step + 1} steps; "
            "start in the basin of an attractor, or take a smaller step_size."
        )


def _result(
    sums: _Sums, states: Tensor, step_size: float | None, seed: int | None, **settings: Any
) -> xr.Dataset:
    unit = 1.0 if step_size is None else step_size
    erased = torch.arange(sums.block.shape[2], device=states.device) >= sums.rank[:, None]  # (N, K)
    finite_time = torch.where(erased, -torch.inf, sums.block.sum(dim=0) / (sums.num_steps * unit))
    blocks = sums.block / (sums.length[:, None, None] * unit)
    stretches = array(torch.where(erased, torch.nan, blocks).flatten(0, 1))
    exponent = array(finite_time.mean(dim=0))
    order = np.argsort(-exponent, kind="stable")
    error = np.full(len(order), np.nan)
    if len(stretches) > 1:
        error = stretches.std(axis=0, ddof=1) / math.sqrt(len(stretches))
    exponent = exponent[order]
    if sums.unresolved:
        warnings.warn(
            f"{sums.unresolved} growth factors lie at round-off beside the largest one, so that the smallest "
            "exponents are not resolved; ask for fewer with num_exponents=, or shorten the interval.",
            ConvergenceWarning,
            stacklevel=3,
        )
    checks = {"mean_log_det": sums.log_det / unit} if len(exponent) == sums.size <= _CHECKED_SIZE else {}
    return xr.Dataset(
        {
            "exponent": (MODE, exponent),
            "exponent_se": (MODE, error[order]),
            "running": ((TIME, MODE), array(torch.stack(sums.running))[:, order] / unit),
            "finite_time": ((START, MODE), array(finite_time)[:, order]),
        },
        {TIME: np.array(sums.times) * unit},
        attrs=attributes(
            states,
            seed=seed,
            num_steps=sums.num_steps,
            step_size=None if step_size is None else unit,
            system="map" if step_size is None else "flow",
            kaplan_yorke=kaplan_yorke(exponent, sums.size),
            sum=float(exponent[np.isfinite(exponent)].sum()),
            num_erased=int(np.isneginf(exponent).sum()),
            num_unresolved=sums.unresolved,
            **checks,
            **settings,
        ),
    )


def kaplan_yorke(exponents: np.ndarray, size: int) -> float:
    r"""Kaplan-Yorke dimension :math:`k + \sum_{i \le k} \lambda_i / |\lambda_{k+1}|`.

    Args:
        exponents: Largest exponents, falling.
        size: Dimension of the state space.

    Returns:
        The dimension; NaN if more exponents are needed to know it.
    """
    total = np.cumsum(exponents)
    k = int((total >= 0).sum())
    if k == len(exponents):
        return float(size) if k == size else math.nan
    return k + (float(total[k - 1] / -exponents[k]) if k else 0.0)
