"""Regimes of the hidden activity: where it dwells, how long, and where it goes from there.

A regime is either the symbol of the largest output (``by="readout"``) or a cluster of states
(``by="clusters"``, k-means on the leading principal components). Times are in steps.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.events import check_driven, switches_of
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import Run, outputs_of, reference_run
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.symbols import SymbolKind
from seqdyn.inference.clusters import clusters
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["regimes"]

_NUM_AXES = 5  # principal components that clusters are sought in


@over_conditions
def regimes(
    dynamics: MapDynamics,
    *,
    num_steps: int,
    seed: int | None = None,
    by: Literal["readout", "clusters"] = "readout",
    num_regimes: int | None = None,
    sigma: float = 1.0,
    num_chains: int = 64,
    burn_in: int = 200,
    symbol: SymbolKind = "argmax",
    start: Any = None,
    input: Any = None,
) -> xr.Dataset:
    """Segment a long noise-driven run and describe its regimes.

    Args:
        dynamics: A map driven by noise, with a readout.
        num_steps: Steps of all chains together.
        seed: Seed; ``None`` draws one from the ambient stream.
        by: What makes a regime, the readout's symbol or a cluster of states.
        num_regimes: Number of clusters; only for ``by="clusters"``.
        sigma: Standard deviation of the noise on each input.
        num_chains: Chains that run side by side.
        burn_in: Steps of each chain before those that count.
        symbol: How symbols come from the outputs, ``"argmax"`` or ``"sampled"``.
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.

    Returns:
        Dataset with the dims ``chain, time, regime, regime_next, dwell, unit, pc``: ``label (chain, time)``
        and ``scores (chain, time, pc)``; ``share``, ``mean_residence``, ``median_residence``,
        ``num_dwells`` (regime), over completed dwells, NaN where there was none; ``exit_rate`` (regime),
        exits per step, which uses cut dwells too; ``transition (regime, regime_next)``, shares of the next
        step; ``exit (regime, regime_next)``, shares of where the regime was left to; ``center (regime,
        unit)``; ``dwell_length`` and ``dwell_regime`` (dwell).

    Raises:
        ValueError: If the map has no readout or input, or ``by`` and ``num_regimes`` do not go together.
    """
    check_driven(dynamics, symbol=symbol, sigma=sigma)
    if by not in ("readout", "clusters"):
        raise ValueError(f"by must be 'readout' or 'clusters', got {by!r}.")
    if (by == "clusters") != (num_regimes is not None):
        raise ValueError("num_regimes= belongs to by='clusters', which needs it; type num_regimes=3.")
    seed = ambient_seed(seed)
    with fork_rng(seed), torch.no_grad():
        run = reference_run(
            dynamics,
            num_steps=num_steps,
            num_chains=num_chains,
            burn_in=burn_in,
            sigma=sigma,
            symbol=symbol,
            start=start,
            input=input,
        )
    scores = fit_plane(run.hidden, min(_NUM_AXES, dynamics.state_size)).scores(run.hidden)
    if num_regimes is None:
        label, count = run.symbol, outputs_of(dynamics, run.hidden[:1, :1]).shape[-1]
    else:
        count = check_count(num_regimes, "num_regimes", least=2)
        label = _clustered(scores, count, np.random.default_rng(seed % 2**64))
    data = _statistics(run._replace(symbol=label), count)
    data["scores"] = (("chain", "time", "pc"), scores.cpu().numpy())
    attrs = attributes(run.hidden, seed=seed, sigma=sigma)
    return data.assign_attrs(attrs | {"by": by, "symbol_kind": symbol, "units": "steps"})


def _clustered(scores: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Labels (N, T) by k-means, numbered by their place along the first component."""
    values = scores.flatten(0, 1).double().cpu().numpy()
    found = clusters(values, count, rng)
    places = [values[found == one, 0].mean() if (found == one).any() else np.inf for one in range(count)]
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(places)] = np.arange(count)
    return torch.from_numpy(rank[found]).view(scores.shape[:2])


def _statistics(run: Run, count: int) -> xr.Dataset:
    assert run.symbol is not None
    label = run.symbol.cpu().numpy()
    code = label[:, :-1] * count + label[:, 1:]
    moves = np.bincount(code.ravel(), minlength=count**2).reshape(count, count).astype(float)
    spent, off = moves.sum(axis=1, keepdims=True), moves * (1 - np.eye(count))
    lengths, which = _dwells(run.symbol)
    per = [lengths[which == one] for one in range(count)]
    hidden = run.hidden.flatten(0, 1).double().cpu().numpy()
    means = [hidden[label.ravel() == one] for one in range(count)]
    empty = np.full(hidden.shape[1], np.nan)
    return xr.Dataset(
        {
            "label": (("chain", "time"), label),
            "share": ("regime", np.bincount(label.ravel(), minlength=count) / label.size),
            "mean_residence": ("regime", [x.mean() if len(x) else np.nan for x in per]),
            "median_residence": ("regime", [np.median(x) if len(x) else np.nan for x in per]),
            "num_dwells": ("regime", [len(x) for x in per]),
            "exit_rate": ("regime", _shares(off.sum(axis=1), spent[:, 0])),
            "transition": (("regime", "regime_next"), _shares(moves, spent)),
            "exit": (("regime", "regime_next"), _shares(off, off.sum(axis=1, keepdims=True))),
            "center": (("regime", "unit"), np.stack([x.mean(axis=0) if len(x) else empty for x in means])),
            "dwell_length": ("dwell", lengths),
            "dwell_regime": ("dwell", which),
        },
        coords={"regime": np.arange(count), "regime_next": np.arange(count)},
    )


def _dwells(label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and regimes of dwells whose both ends were seen."""
    switches = switches_of(label)
    whole = np.diff(switches.chain, append=-1) == 0  # another switch of the same chain follows
    return switches.dwell_after[whole], switches.after[whole]


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(
        part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole > 0, part.shape)
    )
