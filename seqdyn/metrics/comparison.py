"""How well a sampler emulates a known hidden Markov model, beside what a finite sample can show at all.

Every figure of the model stands beside the same figure of a second sample of the process itself, and, where
there is a closed form, beside the exact one. A divergence below that of the process is no merit: a set of
sequences that vary less than the process lies nearer to a finite sample of it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.data.schema import SYMBOL, TIME
from seqdyn.inference.hmm import HMM, log_likelihood
from seqdyn.metrics.matching import matched_distances
from seqdyn.metrics.symbols import (
    dwell_times,
    frequencies,
    joint_frequencies,
    transitions,
    volatility,
    word_frequencies,
)
from seqdyn.ot import auto_blur, sinkhorn_divergence
from seqdyn.ot.categorical import divergence, least_epsilon
from seqdyn.rng import ambient_seed

__all__ = ["Emulator", "emulation", "floor_ratio", "warn_if_less_variable"]

_SHARE, _ERRORS = 0.03, 3.0  # how far below the floor is too far


class Emulator(Protocol):
    """Anything that draws symbols, such as :class:`seqdyn.models.HMMRNN`."""

    def sample(self, num_samples: int, *, num_steps: int, burn_in: int, seed: int, keep: Any) -> xr.Dataset:
        """Return ``symbol (sample, time)``."""
        ...


def emulation(
    model: Emulator,
    hmm: HMM,
    *,
    num_steps: int,
    epsilon: float | None = None,
    mode: str = "converged",
    num_sequences: int = 2048,
    num_draws: int = 40,
    num_chains: int = 1000,
    num_chain_steps: int = 1300,
    burn_in: int = 200,
    num_lags: int = 20,
    num_matched: int = 1000,
    matched_steps: int | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Compare a model with the process it emulates.

    Args:
        model: Has ``sample``.
        hmm: The process.
        num_steps: Steps T of the sequences whose divergence is taken.
        epsilon: Regularisation of the divergence; by default 0.27 times the mean cost between two sequences.
            Published: 0.04, with ``mode="annealed"``.
        mode: ``"converged"`` or ``"annealed"``, see :func:`seqdyn.ot.sinkhorn_divergence`.
        num_sequences: Sequences per set n.
        num_draws: Draws of the divergences.
        num_chains: Long chains from which transitions, frequencies and dwell times are counted.
        num_chain_steps: Their steps after ``burn_in``.
        burn_in: Steps left out at their start.
        num_lags: Lags of the joint frequencies.
        num_matched: Sequences whose distances to matched ones of the process are taken.
        matched_steps: Their steps; ``num_steps`` by default.
        seed: Seed; ``None`` takes one from the ambient stream.

    Returns:
        Along ``source`` (model, process and exact): ``transition (source, symbol, symbol_next)``, ``frequency
        (source, symbol)``, ``joint (source, lag, symbol, symbol_next)`` and ``volatility (source)``, the mean
        number of changes in T steps. Along ``drawn`` (model and process): ``volatility_sd``, ``dwell (drawn,
        symbol)``, the mean length of a run, ``start_transition``, counted in the first T steps,
        ``word_distance (drawn, length)``, total variation from the exact law of words, and
        ``log_likelihood``, the mean of a sequence under the process. Along ``pair`` (model against process,
        and process against process, the floor): ``divergence (pair, draw)``, and ``distance (pair,
        sequence)``, from each sequence to the one of a sample of the process that it is matched to. ``attrs``
        hold the figures of merit: ``floor_ratio`` and its standard error, ``largest_error``, that of the
        transitions in rows of symbols more frequent than 0.05, 1 if such a symbol never occurs;
        ``largest_error_rare``, in the other rows, NaN if they never occur; ``largest_error_start``, in the
        first T steps; ``largest_error_process``, that of the process's own sample; and the mean distances.

    Warns:
        UserWarning: If the model is less variable than the process, see :func:`warn_if_less_variable`.
    """
    check_count(num_draws, "num_draws", least=2)
    seed = ambient_seed(seed)
    seeds = iter(np.random.SeedSequence(seed % 2**64).generate_state(4 * num_draws + 9).tolist())
    chains = {"num_steps": num_chain_steps, "burn_in": burn_in}
    long = {
        "model": _values(model.sample(num_chains, **chains, seed=next(seeds), keep=(SYMBOL,))),
        "process": _values(hmm.sequences(num_chains, burn_in + num_chain_steps, next(seeds)))[:, burn_in:],
    }
    starts = {
        "model": _values(
            model.sample(num_chains, num_steps=num_steps, burn_in=0, seed=next(seeds), keep=(SYMBOL,))
        ),
        "process": _values(hmm.sequences(num_chains, num_steps, next(seeds))),
    }
    result = _statistics(long, starts, hmm, num_steps, num_lags)
    if epsilon is None:
        targets = hmm.sequences(num_sequences, num_steps, next(seeds))
        epsilon = auto_blur(_one_hot(_values(targets), hmm.num_symbols).flatten(1)) ** 2
    pairs = _divergences(model, hmm, num_steps, (epsilon, mode), num_sequences, num_draws, seeds)
    result["divergence"] = (("pair", "draw"), pairs)
    matched_steps = num_steps if matched_steps is None else matched_steps
    result["distance"] = (
        ("pair", "sequence"),
        _matched(model, hmm, matched_steps, num_matched, seeds),
    )
    result = result.assign_coords(pair=["model", "floor"])
    ratio, error = floor_ratio(*pairs)
    result.attrs = {
        "seed": seed,
        "num_steps": num_steps,
        "num_sequences": num_sequences,
        "epsilon": epsilon,
        "mode": mode,
        "floor_ratio": ratio,
        "floor_ratio_error": error,
        **_largest_errors(result),
    }
    for pair, name in (("model", "distance"), ("floor", "distance_floor")):
        result.attrs[name] = float(result["distance"].sel(pair=pair).mean())
    warn_if_less_variable(*pairs)
    return result


def floor_ratio(divergences: np.ndarray, floor: np.ndarray) -> tuple[float, float]:
    """Mean divergence of the model over that of the process from itself, and its standard error.

    Args:
        divergences: Draws of S(model, process), (D,).
        floor: Draws of S(process, process), (D',).
    """
    means = divergences.mean(), floor.mean()
    spreads = (x.std(ddof=1) / math.sqrt(len(x)) / x.mean() for x in (divergences, floor))
    ratio = float(means[0] / means[1])
    return ratio, abs(ratio) * math.hypot(*spreads)


def warn_if_less_variable(divergences: np.ndarray, floor: np.ndarray, *, stacklevel: int = 3) -> bool:
    """Warn if the divergence of a model lies below the floor by more than 3 % and three standard errors.

    Args:
        divergences: Draws of S(model, process), (D,).
        floor: Draws of S(process, process) at the same sizes, blur and mode, (D',).
        stacklevel: Of the warning.

    Returns:
        Whether it warned.
    """
    below = floor.mean() - divergences.mean()
    error = math.sqrt(sum(x.var(ddof=1) / len(x) for x in (divergences, floor)))
    if below <= _SHARE * floor.mean() or below <= _ERRORS * error:
        return False
    warnings.warn(
        f"the model is less variable than the target: its divergence is {divergences.mean():.4g}, that of "
        f"the target from itself {floor.mean():.4g}. A smaller set of typical sequences lies nearer to a "
        "finite sample; compare transitions and frequencies, and train with a larger blur or with "
        "gradient='unbiased'.",
        UserWarning,
        stacklevel=stacklevel,
    )
    return True


def _statistics(
    long: dict[str, np.ndarray], starts: dict[str, np.ndarray], hmm: HMM, num_steps: int, num_lags: int
) -> xr.Dataset:
    size, exact = hmm.num_symbols, hmm.output_statistics(num_lags)
    lags, lengths = range(1, num_lags + 1), range(1, 5)
    drawn = list(long.values())
    changes = [volatility(values) * (num_steps - 1) / (values.shape[1] - 1) for values in drawn]
    blocks = [volatility(_blocks(values, num_steps)) for values in drawn]
    words = [_word_law(hmm, length) for length in lengths]
    pair = ("symbol", "symbol_next")
    return xr.Dataset(
        {
            "transition": (
                ("source", *pair),
                np.stack([*(transitions(v, size) for v in drawn), exact.transition.numpy()]),
            ),
            "start_transition": (("drawn", *pair), np.stack([transitions(v, size) for v in starts.values()])),
            "frequency": (
                ("source", "symbol"),
                np.stack([*(frequencies(v, size) for v in drawn), exact.frequency.numpy()]),
            ),
            "joint": (
                ("source", "lag", *pair),
                np.stack(
                    [
                        *(np.stack([joint_frequencies(v, size, k) for k in lags]) for v in drawn),
                        exact.joint.numpy(),
                    ]
                ),
            ),
            "volatility": ("source", [*(c.mean() for c in changes), exact.num_changes(num_steps)]),
            "volatility_sd": ("drawn", [b.std(ddof=1) for b in blocks]),
            "dwell": (("drawn", "symbol"), [[_mean(d) for d in dwell_times(v, size)] for v in drawn]),
            "word_distance": (
                ("drawn", "length"),
                [
                    [
                        abs(word_frequencies(v, size, n) - w).sum() / 2
                        for n, w in zip(lengths, words, strict=True)
                    ]
                    for v in drawn
                ],
            ),
            "log_likelihood": ("drawn", [float(log_likelihood(hmm, v).mean()) for v in starts.values()]),
        },
        {
            "source": ["model", "process", "exact"],
            "drawn": ["model", "process"],
            "symbol": range(size),
            "symbol_next": range(size),
            "lag": lags,
            "length": lengths,
        },
    )


def _largest_errors(result: xr.Dataset) -> dict[str, float]:
    """Largest errors of the transition probabilities, apart for frequent and rare symbols."""
    exact = result["transition"].sel(source="exact").values
    frequent = result["frequency"].sel(source="exact").values > 0.05

    def errors(found: xr.DataArray) -> np.ndarray:
        return np.abs(found.values - exact).max(axis=1)  # NaN where the symbol never occurs

    def largest(found: xr.DataArray) -> float:
        rows = errors(found)[frequent]
        return float(np.where(np.isnan(rows), 1.0, rows).max())

    model, process = (result["transition"].sel(source=name) for name in ("model", "process"))
    rare = errors(model)[~frequent]
    rare = rare[np.isfinite(rare)]
    return {
        "largest_error": largest(model),
        "largest_error_process": largest(process),
        "largest_error_start": largest(result["start_transition"].sel(drawn="model")),
        "largest_error_rare": float(rare.max()) if len(rare) else math.nan,
    }


def _divergences(
    model: Emulator,
    hmm: HMM,
    num_steps: int,
    settings: tuple[float, str],
    size: int,
    draws: int,
    seeds: Any,
) -> np.ndarray:
    """Draws of S(model, process) and S(process, process), (2, draws)."""

    def process() -> Tensor:
        return _one_hot(_values(hmm.sequences(size, num_steps, next(seeds))), hmm.num_symbols)

    found = []
    for _ in range(draws):
        drawn = model.sample(size, num_steps=num_steps, burn_in=0, seed=next(seeds), keep=(SYMBOL,))
        target = process()
        sets = _one_hot(_values(drawn), hmm.num_symbols), process()
        found.append([_divergence(x, target, *settings) for x in sets])
    return np.array(found).T


def _divergence(x: Tensor, y: Tensor, epsilon: float, mode: str) -> float:
    if mode == "converged" and epsilon >= least_epsilon(x.shape[1]):
        return float(divergence(x, y, epsilon=epsilon))  # the same value, faster
    return float(sinkhorn_divergence(x.flatten(1), y.flatten(1), epsilon=epsilon, mode=mode))


def _matched(model: Emulator, hmm: HMM, num_steps: int, size: int, seeds: Any) -> np.ndarray:
    """Matched distances of model and process, and of process and process, (2, size)."""
    drawn = model.sample(size, num_steps=num_steps, burn_in=0, seed=next(seeds), keep=(SYMBOL,))
    target, other = (_values(hmm.sequences(size, num_steps, next(seeds))) for _ in range(2))
    return np.stack([matched_distances(values, target) for values in (_values(drawn), other)])


def _word_law(hmm: HMM, length: int) -> np.ndarray:
    """Probability of each word in the stationary process, (K ** length,)."""
    stationary = HMM(hmm.stationary(), hmm.transition, hmm.emission)
    words = np.stack(
        np.unravel_index(np.arange(hmm.num_symbols**length), (hmm.num_symbols,) * length), axis=1
    )
    return log_likelihood(stationary, words).exp().numpy()


def _blocks(values: np.ndarray, length: int) -> np.ndarray:
    """Long chains cut into sequences of ``length`` steps."""
    count = values.shape[1] // length
    return values[:, : count * length].reshape(-1, length)


def _values(data: xr.Dataset) -> np.ndarray:
    """Symbols (sample, time)."""
    values = data[SYMBOL].transpose(..., TIME).values
    if values.min() < 0:
        raise ValueError("the model drew missing symbols (-1); only whole sequences can be compared.")
    return values


def _one_hot(symbols: np.ndarray, num_symbols: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(symbols), num_symbols).float()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
