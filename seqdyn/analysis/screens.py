"""Many interventions at once: the same noise, one set of changed units per row of a batch.

A set S of units is changed after each step: its activity is set to 0 (``"silence"``), or to what the step
gives without recurrent drive, :math:`F(0, u)` (``"recurrent"``; for additive drives
:math:`\\phi(U u + b)`). All sets and chains advance together in one batch, so that the effects of hundreds of
sets differ by the sets alone and cost one roll-out.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqdyn.analysis.runs import readout_of
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive
from seqdyn.dynamics.symbols import SymbolKind, gumbel_like, symbols_of
from seqdyn.errors import NonFiniteError

__all__ = [
    "Change",
    "bootstrap_chains",
    "hazards",
    "interval",
    "reduction",
    "screen",
    "switch_rate",
]

Change = Literal["silence", "recurrent"]


@torch.no_grad()
def screen(
    dynamics: MapDynamics,
    sets: Tensor,
    hidden: Tensor,
    *,
    num_steps: int,
    burn_in: int = 0,
    restart: int | None = None,
    sigma: float = 1.0,
    change: Change = "silence",
    symbol: SymbolKind = "argmax",
    input: Any = None,
) -> np.ndarray:
    """Run all sets from the same states under the same noise; draws from the ambient stream.

    Args:
        dynamics: The map, with a readout.
        sets: Units changed in each set, (S, H) bool.
        hidden: Starting states (N, H).
        num_steps: Recorded steps of each chain.
        burn_in: Steps before recording, with the change in force.
        restart: Put all sets back to the states of the first one after every so many steps. Otherwise a set
            that ends in one symbol says nothing of the others.
        sigma: Standard deviation of the noise on each input.
        change: What is done to the units.
        symbol: How symbols come from the outputs.
        input: Constant input (X,).

    Returns:
        Steps from one symbol to another (or to itself), float64 (S, N, K, K); NaN for a set that makes the
        activity diverge.

    Raises:
        NonFiniteError: If the activity diverges with the first set changed.
    """
    readout = readout_of(dynamics)
    drive = Drive(dynamics, hidden, sigma=sigma, input=input, num_steps=burn_in + num_steps)
    num_sets, num_chains = len(sets), len(hidden)
    h, mask = hidden.expand(num_sets, -1, -1), sets[:, None, :]
    zeros = torch.zeros_like(hidden)
    now = _symbols(readout(h), symbol)
    num_symbols = readout(hidden[:1]).shape[-1]
    moves = torch.zeros(num_sets, num_chains, num_symbols**2, dtype=torch.float64, device=h.device)
    finite = torch.ones(num_sets, dtype=torch.bool, device=h.device)
    for step in range(burn_in + num_steps):
        if restart is not None and step % restart == 0:
            finite &= torch.isfinite(h).flatten(1).all(dim=1)
            h, now = h[:1].expand_as(h), now[:1].expand_as(now)
        u = drive(step)
        assert u is not None
        value = zeros if change == "silence" else dynamics.step(zeros, u)
        h = torch.where(mask, value, dynamics.step(h, u.expand(num_sets, -1, -1)))
        before, now = now, _symbols(readout(h), symbol)
        if step >= burn_in:
            code = (before * num_symbols + now)[..., None]
            moves.scatter_add_(2, code, torch.ones_like(code, dtype=moves.dtype))
    finite &= torch.isfinite(h).flatten(1).all(dim=1)
    if not bool(finite[0]):
        raise NonFiniteError(
            f"the activity left the finite numbers within {burn_in + num_steps} steps"
            f"{' with the first set changed' if bool(sets[0].any()) else ''}: the system is unstable at "
            f"sigma={sigma:g}."
        )
    moves[~finite] = torch.nan
    return moves.view(num_sets, num_chains, num_symbols, num_symbols).cpu().numpy()


def _symbols(logits: Tensor, kind: SymbolKind) -> Tensor:
    """Symbols (S, N) of logits (S, N, K); where they are sampled, all sets share the Gumbel noise."""
    return symbols_of(logits, kind, gumbel_like(logits[0]) if kind == "sampled" else None)


def hazards(moves: np.ndarray) -> np.ndarray:
    """Switches a→b per step spent in a, (..., K, K), of moves (..., K, K); NaN where a was never visited."""
    spent = moves.sum(axis=-1, keepdims=True)
    off = moves * (1 - np.eye(moves.shape[-1]))
    return np.divide(off, spent, out=np.full(moves.shape, np.nan), where=spent > 0)


def switch_rate(moves: np.ndarray) -> np.ndarray:
    """Switches per step, (...), of moves (..., K, K)."""
    stay = np.trace(moves, axis1=-2, axis2=-1)
    total = moves.sum(axis=(-2, -1))
    return 1 - stay / total


def reduction(changed: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Relative reduction 1 - changed / reference: 1 is none left, below 0 is more; NaN without reference."""
    changed, reference = np.broadcast_arrays(changed, reference)
    ratio = np.divide(changed, reference, out=np.full(changed.shape, np.nan), where=reference > 0)
    return 1 - ratio


def bootstrap_chains(num_chains: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each chain is drawn in each resample, (R, N)."""
    rng = np.random.default_rng(seed % 2**64)
    return rng.multinomial(num_chains, np.full(num_chains, 1 / num_chains), size=num_resamples)


def interval(draws: np.ndarray, axis: int = 0) -> np.ndarray:
    """95 % interval (2, ...) of resampled values along an axis; NaN where none is known."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanquantile(draws, [0.025, 0.975], axis=axis)
