"""What the analyses share: reference runs, their principal plane, symbols, and the record of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.dynamics.arguments import Dynamics, as_input, as_states, check_dynamics
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import advance, check_step_size, simulate
from seqdyn.errors import NonFiniteError

__all__ = [
    "Plane",
    "as_runs",
    "chosen_axes",
    "common_noise",
    "fit_plane",
    "draw_symbols",
    "outputs_of",
    "provenance",
    "readout_of",
    "reference_run",
    "resting",
    "runs_of",
    "scales",
]


class Plane(NamedTuple):
    """Principal components of a set of states, float64: mean (H,), components (P, H), shares (P,)."""

    mean: Tensor
    components: Tensor
    share: Tensor

    def scores(self, states: Tensor) -> Tensor:
        """Coordinates (..., P) of states (..., H)."""
        return (states.to(self.mean) - self.mean) @ self.components.T


def fit_plane(states: Tensor, num_components: int = 2) -> Plane:
    """Centred principal components of states (..., H), the largest loading of each one positive.

    Raises:
        ValueError: If the states have fewer coordinates than components are asked for.
    """
    rows = states.reshape(-1, states.shape[-1]).double()
    if rows.shape[1] < num_components:
        raise ValueError(f"{num_components} principal components need as many units, got {rows.shape[1]}.")
    mean = rows.mean(dim=0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    values, components = values.flip(0).clamp(min=0), vectors.T.flip(0)[:num_components]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    total = values.sum()
    share = values[:num_components] / total if total > 0 else values[:num_components] * torch.nan
    return Plane(mean, components * largest.sign(), share)


def chosen_axes(plane: Plane, axes: tuple[int, int]) -> Plane:
    """Two of the components, by their numbers from one."""
    chosen = [axis - 1 for axis in axes]
    return Plane(plane.mean, plane.components[chosen], plane.share[chosen])


def resting(dynamics: Dynamics, num_starts: int) -> Tensor:
    """Zero states (N, H) in the precision and on the device in which the system computes.

    Raises:
        ValueError: If it takes zeros on no device.
    """
    check_dynamics(dynamics)
    check_count(num_starts, "num_chains")
    places = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    for place in places:
        for dtype in (torch.float32, torch.float64):
            states = torch.zeros(num_starts, dynamics.state_size, dtype=dtype, device=place)
            try:
                return as_states(dynamics, states)
            except (RuntimeError, ValueError):
                continue
    raise ValueError(
        "the dynamics take no zero state on any device; give states to start from: start=states."
    )


def reference_run(
    dynamics: Dynamics,
    *,
    num_chains: int,
    num_steps: int,
    burn_in: int = 200,
    sigma: float = 1.0,
    start: Any = None,
    input: Any = None,
    step_size: float | None = None,
) -> Tensor:
    """Driven states (N, T, H) of many chains after a burn-in, drawn from the ambient stream.

    Args:
        dynamics: The system.
        num_chains: Chains N; as many as ``start`` has, if it is given.
        num_steps: Steps T.
        burn_in: Steps before them.
        sigma: Standard deviation of the noise.
        start: States (N, H) to start from; zero activity by default.
        input: Constant input.
        step_size: Of a flow.

    Raises:
        NonFiniteError: If the activity grows without bound.
    """
    states = resting(dynamics, num_chains) if start is None else torch.atleast_2d(as_states(dynamics, start))
    runs = simulate(
        dynamics, states, num_steps, sigma=sigma, burn_in=burn_in, input=input, step_size=step_size
    )
    bad = ~torch.isfinite(runs).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"the activity left the finite numbers in {int(bad.sum())} of {len(bad)} chains within "
            f"{burn_in + num_steps} steps: the system is unstable at sigma={sigma:g}."
        )
    return runs


def as_runs(dynamics: Dynamics, reference: Any) -> Tensor:
    """Given states (N, T, H), or one run (T, H), as a tensor (N, T, H).

    Raises:
        ValueError: If they do not fit the system.
    """
    states = as_states(dynamics, reference, "reference")
    states = states[None] if states.ndim == 2 else states
    if states.ndim != 3 or states.shape[1] < 3:
        raise ValueError(
            f"reference must be runs of at least 3 steps, (chain, time, unit), got {tuple(states.shape)}."
        )
    return states


def runs_of(dynamics: Dynamics, reference: Any, **settings: Any) -> Tensor:
    """The given runs, or a fresh :func:`reference_run`."""
    return reference_run(dynamics, **settings) if reference is None else as_runs(dynamics, reference)


@torch.no_grad()
def common_noise(
    dynamics: Dynamics,
    sigmas: Tensor,
    states: Tensor,
    num_steps: int,
    *,
    input: Any = None,
    step_size: float | None = None,
) -> Iterator[Tensor]:
    r"""Yield the states (S, N, H) after each step under σ_s times the *same* noise for all s.

    Args:
        dynamics: The system.
        sigmas: Standard deviations (S,).
        states: Starts (N, H), the same for all s.
        num_steps: Steps.
        input: Constant input (X,).
        step_size: Of a flow.
    """
    check_step_size(dynamics, step_size)
    flow = isinstance(dynamics, FlowDynamics)
    size = dynamics.state_size if isinstance(dynamics, FlowDynamics) else dynamics.input_size
    if size == 0:
        raise ValueError("sigmas act on the inputs, but these dynamics take none; wrap one with inputs.")
    constant = as_input(dynamics, input, states)
    scale = sigmas.to(states)[:, None, None]
    scale = scale * dynamics.volatility if isinstance(dynamics, FlowDynamics) else scale
    h = states.expand(len(sigmas), *states.shape).flatten(0, 1)
    for step in range(num_steps):
        drive = (scale * torch.randn(len(states), size, dtype=h.dtype, device=h.device)).flatten(0, 1)
        if constant is not None and not flow:
            drive = drive + constant
        h = advance(dynamics, h, drive, step, step_size)
        yield h.unflatten(0, (len(sigmas), len(states)))


def readout_of(dynamics: Dynamics) -> Callable[[Tensor], Tensor]:
    """The readout of a map.

    Raises:
        ValueError: If the system has none.
    """
    if not isinstance(dynamics, MapDynamics) or dynamics.readout is None:
        raise ValueError(
            "these dynamics have no readout, but outputs are needed here; give one: "
            "dataclasses.replace(dynamics, readout=lambda h: logits)."
        )
    return dynamics.readout


def outputs_of(dynamics: Dynamics, states: Tensor) -> Tensor:
    """Outputs, such as logits, (..., K) of states (..., H).

    Raises:
        ValueError: If the system has no readout.
    """
    readout = readout_of(dynamics)
    with torch.no_grad():
        return readout(states)


def draw_symbols(logits: Tensor, gumbel: Tensor | None = None) -> Tensor:
    """Symbols (...) drawn from softmax of logits (..., K), with given or fresh Gumbel noise."""
    noise = -torch.empty_like(logits).exponential_().log() if gumbel is None else gumbel
    return (logits + noise).argmax(dim=-1)


def scales(dynamics: Dynamics, like: Tensor) -> bool:
    """Whether F(c h, c u) = c F(h, u) for c > 0: rectifiers without biases, linear maps.

    Decided on random states and inputs: the two sides are equal to the last bit for c = 2. A constant
    input of the map's own breaks it.
    """
    if not isinstance(dynamics, MapDynamics) or dynamics.schedule is not None or dynamics.input is not None:
        return False
    generator = torch.Generator(device=like.device).manual_seed(0)

    def draw(size: int) -> Tensor:
        return torch.randn(16, size, generator=generator, dtype=like.dtype, device=like.device)

    h, u = draw(dynamics.state_size), draw(dynamics.input_size) if dynamics.input_size else None
    with torch.no_grad():
        once, twice = dynamics.step(h, u), dynamics.step(2 * h, None if u is None else 2 * u)
    return bool((twice == 2 * once).all())


def provenance(like: Tensor, seed: int, **more: Any) -> dict[str, Any]:
    """What every result says of its origin, as attributes that NetCDF holds."""
    from seqdyn import __version__

    own = {"seed": seed, "dtype": str(like.dtype).removeprefix("torch."), "seqdyn_version": __version__}
    plain = {
        name: int(value) if isinstance(value, bool | np.bool_) else value for name, value in more.items()
    }
    return own | plain
