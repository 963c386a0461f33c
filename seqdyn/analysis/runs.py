"""Reference runs: many chains of a driven system after a burn-in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.dynamics.arguments import Dynamics, as_input, as_states, zero_state
from seqdyn.dynamics.flows import FlowDynamics
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive, advance, check_step_size
from seqdyn.dynamics.symbols import SymbolKind, symbols_of
from seqdyn.errors import NonFiniteError
from seqdyn.rng import fork_rng

__all__ = [
    "Run",
    "as_runs",
    "common_noise",
    "outputs_of",
    "readout_of",
    "reference_run",
    "start_chains",
    "states_of",
]


class Run(NamedTuple):
    """A run of N chains.

    Attributes:
        hidden: States (N, T + 1, H), the one before the first recorded step included.
        noise: What drove them, (N, T, X): the inputs of a map, its constant one included, or the noise terms
            of a flow; ``noise[:, t]`` leads from ``hidden[:, t]`` to ``hidden[:, t + 1]``.
        symbol: Symbols (N, T + 1) of the states; ``None`` without a readout.
    """

    hidden: Tensor
    noise: Tensor
    symbol: Tensor | None

    @property
    def states(self) -> Tensor:
        """States (N, T, H) after each recorded step."""
        return self.hidden[:, 1:]


@torch.no_grad()
def reference_run(
    dynamics: Dynamics,
    *,
    num_steps: int,
    num_chains: int = 64,
    burn_in: int = 200,
    sigma: float = 1.0,
    start: Any = None,
    input: Any = None,
    step_size: float | None = None,
    symbol: SymbolKind = "argmax",
    seed: int | None = None,
) -> Run:
    """Run many chains, each under noise of its own.

    Args:
        dynamics: The system.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        burn_in: Steps of each chain before those that count.
        sigma: Standard deviation of the noise on each input of a map, factor of the volatility of a flow.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,).
        step_size: Of a flow.
        symbol: How symbols come from the outputs, ``"argmax"`` or ``"sampled"`` from their softmax.
        seed: Seed of the noise; ``None`` draws from the ambient stream.

    Returns:
        The run.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the activity diverges.
    """
    check_step_size(dynamics, step_size)
    if symbol not in get_args(SymbolKind):
        raise ValueError(f"symbol must be 'argmax' or 'sampled', got {symbol!r}.")
    h, length = start_chains(dynamics, start, num_chains, num_steps)
    burn_in = check_count(burn_in, "burn_in", least=0)
    constant = as_input(dynamics, input, h)
    if constant is not None and constant.ndim != 1:
        raise ValueError(
            f"a run has one constant input ({constant.shape[-1]},), got shape {tuple(constant.shape)}; make "
            "one run for each input."
        )
    drive = Drive(dynamics, h, sigma=sigma, input=constant, num_steps=burn_in + length)
    hidden = h.new_empty(len(h), length + 1, dynamics.state_size)
    size = dynamics.input_size if isinstance(dynamics, MapDynamics) else dynamics.state_size
    noise = h.new_zeros(len(h), length, size)
    with fork_rng(seed):
        for step in range(-burn_in, length):
            u = drive(step)
            if step >= 0:
                hidden[:, step] = h
                if u is not None:
                    noise[:, step] = u
            h = advance(dynamics, h, u, burn_in + step, step_size)
        hidden[:, length] = h
        _check_finite(hidden, burn_in + length, sigma)
        readout = dynamics.readout if isinstance(dynamics, MapDynamics) else None
        return Run(hidden, noise, None if readout is None else symbols_of(readout(hidden), symbol))


def start_chains(
    dynamics: Dynamics, start: Any, num_chains: int, num_steps: int, *, least: int = 1
) -> tuple[Tensor, int]:
    """Starting states (N, H) of chains and the steps T of each.

    Args:
        dynamics: The system.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        num_chains: Chains N, unless ``start`` has one state for each.
        num_steps: Steps of all chains together; T is rounded up.
        least: Fewest steps of each chain.

    Raises:
        ValueError: If there are too few steps, or the states do not fit the system.
    """
    num_chains = check_count(num_chains, "num_chains")
    states = zero_state(dynamics) if start is None else as_states(dynamics, start)
    if states.ndim > 2 or len(states) == 0:
        raise ValueError(f"start must be (unit) or (chain, unit), got shape {tuple(states.shape)}.")
    states = states.expand(num_chains, -1) if states.ndim == 1 else states
    length = math.ceil(check_count(num_steps, "num_steps") / len(states))
    if length < least:
        raise ValueError(
            f"num_steps={num_steps} of all chains together gives each of the {len(states)} chains fewer than "
            f"{least} steps; type num_steps={least * len(states)} or more."
        )
    return states, length


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


def states_of(
    dynamics: Dynamics,
    reference: Any,
    *,
    num_steps: int,
    num_chains: int = 64,
    start: Any = None,
    **settings: Any,
) -> Tensor:
    """States (N, T, H) of a given :class:`Run`, given states, or those of a fresh :func:`reference_run`."""
    if reference is None:
        start, _ = start_chains(dynamics, start, num_chains, num_steps, least=3)
        reference = reference_run(dynamics, num_steps=num_steps, start=start, **settings)
    return as_runs(dynamics, reference.states if isinstance(reference, Run) else reference)


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
            "from_torch(module, readout=layer), or dataclasses.replace(dynamics, readout=lambda h: logits)."
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


def _check_finite(hidden: Tensor, num_steps: int, sigma: float) -> None:
    bad = ~torch.isfinite(hidden).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"the activity left the finite numbers in {int(bad.sum())} of {len(bad)} chains within "
            f"{num_steps} steps: the system is unstable at sigma={sigma:g}."
        )
