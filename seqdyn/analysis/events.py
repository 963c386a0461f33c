"""Long noise-driven runs, and the changes of the emitted symbol in them.

The symbol of a state is the largest output of the readout, ``"argmax"``, or a draw from their softmax,
``"sampled"``. Only the second depends on the size of the noise where the map is homogeneous (a rectifier
without biases): there scaling the noise scales the outputs and leaves their order alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.dynamics.arguments import as_states, check_dynamics, check_unscheduled
from seqdyn.dynamics.maps import MapDynamics

__all__ = [
    "Run",
    "SymbolKind",
    "Switches",
    "check_driven",
    "default_start",
    "principal_axes",
    "reference_run",
    "switches_of",
    "symbols_of",
]

SymbolKind = Literal["argmax", "sampled"]


class Run(NamedTuple):
    """A long run of N chains.

    Attributes:
        hidden: States (N, T + 1, H), the one before the first recorded step included.
        noise: Inputs (N, T, X): ``noise[:, t]`` leads from ``hidden[:, t]`` to ``hidden[:, t + 1]``.
        symbol: Symbols (N, T + 1) of the states.
    """

    hidden: Tensor
    noise: Tensor
    symbol: Tensor


class Switches(NamedTuple):
    """Changes of symbol, in the order of chains and times; all (E,).

    Attributes:
        chain: In which chain.
        time: First time with the new symbol.
        before: The symbol left.
        after: The symbol reached.
        dwell_before: Steps spent in the symbol left; at the start of a chain, those that were seen.
        dwell_after: Steps spent in the symbol reached; at the end of a chain, those that were seen.
    """

    chain: np.ndarray
    time: np.ndarray
    before: np.ndarray
    after: np.ndarray
    dwell_before: np.ndarray
    dwell_after: np.ndarray


def check_driven(dynamics: Any, *, symbol: str = "argmax", sigma: float = 1.0) -> MapDynamics:
    """Check that a system is one fixed map, driven by noise, with at least two outputs.

    Raises:
        ValueError: If it is not, or an option is unknown.
    """
    check_dynamics(dynamics)
    if not isinstance(dynamics, MapDynamics):
        raise ValueError(
            "symbols and their switches need a map, got FlowDynamics; wrap one step of it as a map."
        )
    check_unscheduled(dynamics)
    if dynamics.readout is None:
        raise ValueError("these dynamics have no readout; give one: from_torch(module, readout=layer).")
    if dynamics.input_size == 0:
        raise ValueError(
            "these dynamics take no input, so that no noise can drive them; give input_size > 0."
        )
    if symbol not in ("argmax", "sampled"):
        raise ValueError(f"symbol must be 'argmax' or 'sampled', got {symbol!r}.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive standard deviation of the noise, got {sigma!r}.")
    return dynamics


def default_start(dynamics: MapDynamics, start: Any, num_chains: int) -> Tensor:
    """States (N, H) to start from: those given, spread over the chains, or the origin.

    The origin comes in the precision the map computes in, on the CPU; give ``start`` for another device.
    """
    if start is not None:
        rows = torch.atleast_2d(as_states(dynamics, start))
        return rows[torch.arange(num_chains, device=rows.device) % len(rows)]
    like = torch.zeros(num_chains, dynamics.state_size)
    try:
        return as_states(dynamics, like)
    except ValueError:
        other = torch.float64 if like.dtype == torch.float32 else torch.float32
        return as_states(dynamics, like.to(other))


def symbols_of(logits: Tensor, kind: SymbolKind = "argmax") -> Tensor:
    """Symbols (...) of logits (..., K)."""
    if kind == "argmax":
        return logits.argmax(dim=-1)
    return (logits - torch.empty_like(logits).exponential_().log()).argmax(dim=-1)


@torch.no_grad()
def reference_run(
    dynamics: MapDynamics,
    *,
    num_steps: int,
    num_chains: int = 64,
    burn_in: int = 200,
    sigma: float = 1.0,
    symbol: SymbolKind = "argmax",
    start: Any = None,
) -> Run:
    """Run many chains under noise of their own; draws from the ambient stream.

    Args:
        dynamics: The map.
        num_steps: Recorded steps of all chains together, rounded up to a multiple of ``num_chains``.
        num_chains: Chains N.
        burn_in: Steps of each chain before recording.
        sigma: Standard deviation of the noise on each input.
        symbol: How symbols come from the outputs.
        start: States (N, H) or (H,); the origin by default.

    Raises:
        ValueError: If the map has no readout or no input, or the run does not stay finite.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    num_chains, burn_in = check_count(num_chains, "num_chains"), check_count(burn_in, "burn_in", least=0)
    length = math.ceil(check_count(num_steps, "num_steps") / num_chains)
    h = default_start(dynamics, start, num_chains)
    hidden = h.new_empty(num_chains, length + 1, dynamics.state_size)
    noise = h.new_empty(num_chains, length, dynamics.input_size)
    for step in range(-burn_in, length):
        if step >= 0:
            hidden[:, step] = h
        u = drive(dynamics, h, sigma)
        if step >= 0:
            noise[:, step] = u
        h = dynamics.step(h, u)
    hidden[:, length] = h
    if not bool(torch.isfinite(h).all()):
        raise ValueError(
            f"{int((~torch.isfinite(h)).any(dim=1).sum())} of {num_chains} chains are no longer finite after "
            f"{burn_in + length} steps: the activity explodes under this noise."
        )
    assert dynamics.readout is not None
    return Run(hidden, noise, symbols_of(dynamics.readout(hidden), symbol))


def drive(dynamics: MapDynamics, like: Tensor, sigma: float) -> Tensor:
    """Fresh input (N, X) of one step: noise around the map's constant input."""
    noise = sigma * torch.randn(len(like), dynamics.input_size, dtype=like.dtype, device=like.device)
    return noise if dynamics.input is None else noise + dynamics.input.to(noise)


def switches_of(symbol: Tensor) -> Switches:
    """All changes of symbol in chains (N, T)."""
    values = symbol.cpu().numpy()
    chain, time = np.nonzero(values[:, 1:] != values[:, :-1])
    time = time + 1
    # A chain's first switch looks back to the chain's start, its last one forward to the chain's end.
    first, last = np.diff(chain, prepend=-1) != 0, np.diff(chain, append=-1) != 0
    before = time - np.where(first, 0, np.roll(time, 1))
    after = np.where(last, values.shape[1], np.roll(time, -1)) - time
    return Switches(chain, time, values[chain, time - 1], values[chain, time], before, after)


def principal_axes(states: Tensor, num_axes: int = 3) -> tuple[Tensor, Tensor]:
    """Mean (H,) and leading principal axes (P, H) of states (N, H), largest loading positive."""
    mean = states.mean(dim=0)
    _, _, axes = torch.linalg.svd(states - mean, full_matrices=False)
    axes = axes[: min(num_axes, len(axes))]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return mean, axes * largest.sign()
