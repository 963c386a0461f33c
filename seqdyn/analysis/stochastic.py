"""Stochastic resonance: at which noise are the symbols of a driven system best, or most regular."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.noise import check_sigmas
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import common_noise, outputs_of, readout_of, reference_run, start_chains
from seqdyn.analysis.symbols import (
    RunSums,
    correlation_time,
    lagged_pairs,
    median_run,
    mutual_information,
    residence_cv,
    run_sums,
    spectra,
    spectral_peaks,
    switch_rate,
    symbol_spectra,
)
from seqdyn.dynamics.arguments import Dynamics
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.dynamics.symbols import gumbel_like, symbols_of
from seqdyn.inference.hmm import HMM
from seqdyn.ot.blur import auto_blur
from seqdyn.ot.sinkhorn import sinkhorn_divergence
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["SIGMAS", "resonance"]

SIGMAS = (0.1, 0.15, 0.25, 0.4, 0.65, 1.0, 1.5, 2.5, 4.0)
FREQUENT = 0.05  # rows of symbols rarer than this say little about the transitions
SETTLED = 0.8  # probability of the likeliest symbol from which a state counts as settled


class _Record(NamedTuple):
    """Symbols (S, N, T), sampled and likeliest, settled steps (S, N, T), plane (S, N, T, 2), finite (S,)."""

    sampled: Tensor
    likeliest: Tensor
    settled: Tensor
    scores: Tensor
    finite: Tensor


@over_conditions
def resonance(
    dynamics: Dynamics,
    sigmas: Sequence[float] = SIGMAS,
    *,
    hmm: HMM | None = None,
    num_steps: int = 64_000,
    num_chains: int = 64,
    burn_in: int = 200,
    num_lags: int = 20,
    num_bootstrap: int = 200,
    sequence_length: int | None = None,
    start: Any = None,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    r"""Sweep the noise under common draws and follow error, regularity and memory of the sampled symbols.

    The symbol *drawn* from softmax of the outputs depends on σ in every system. The *likeliest* one is the
    control: for maps with F(c h, c u) = c F(h, u), such as rectifier networks without biases, it does not
    depend on σ at all, so that its curves are flat by identity and σ acts as an inverse temperature only
    (attribute ``control``). Resonance of the dynamics themselves shows in both.

    Args:
        dynamics: Map with inputs and a readout.
        sigmas: Standard deviations of the noise, rising.
        hmm: The process that the system should emulate, for the task error.
        num_steps: Steps of all chains together, at each σ.
        num_chains: Chains that run side by side, at each σ.
        burn_in: Steps of each chain before those that count.
        num_lags: Lags L of the mutual information.
        num_bootstrap: Resamples of the chains for the interval of the optimum.
        sequence_length: Length of the sequences for ``divergence_ratio``; ``None`` leaves it out (NaN).
        start: State (H,) that all chains start from, or one for each chain (N, H); zero activity by default.
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of noise, symbols and bootstrap.

    Returns:
        On ``sigma``: ``transition_error``, the largest \|ΔQ\| to the process over rows of symbols with
        frequency above 0.05; ``divergence_ratio``, Sinkhorn divergence to the process over that between two
        samples of it; ``residence_cv``, standard deviation over mean of the run lengths (the first and last
        run of a chain left out); ``correlation_time`` of the symbol in steps; ``spectral_peak`` (over the
        mean), ``spectral_frequency`` (cycles per step), ``spectral_width`` and ``spectral_coherence`` =
        peak × frequency / width of exp(i phase) in the plane fitted at the σ nearest to one;
        ``symbol_coherence``, the same of the symbols, with the squared amplitude as the peak, so that symbols
        that never change have none; ``switch_rate`` per step; ``frequency (sigma, output)``;
        ``mutual_information (sigma, lag)`` in nats between symbols ``lag`` steps apart, less its bias
        (K − 1)² / 2n; the control ``argmax_switch_rate``, ``argmax_residence_cv``,
        ``argmax_symbol_coherence``, ``argmax_mutual_information (sigma, lag)``; ``dwell_median`` and
        ``transition_median`` in steps, lengths of stretches in which the likeliest symbol has more, or less,
        than 80 % probability, and their ``time_scale_ratio``. On ``criterion``: ``optimum``, the best σ,
        ``optimum_interval (criterion, bound)``, 95 % over resampled chains, and ``at_edge (criterion)``: the
        curve is best at an end of the sweep, which is no resonance. What cannot be measured (no
        switches, no process given, diverged activity) is NaN, and attribute ``reason`` says why.

    Raises:
        ValueError: If an argument does not fit the system.
        NonFiniteError: If the activity diverges at the σ of the plane.
    """
    values = check_sigmas(sigmas)
    for name, count in {"num_lags": num_lags, "num_bootstrap": num_bootstrap}.items():
        check_count(count, name)
    readout_of(dynamics)
    seed = ambient_seed(seed)
    states, length = start_chains(dynamics, start, num_chains, num_steps, least=num_lags + 2)
    settings = {"input": input}
    with fork_rng(seed):
        record = _record(dynamics, values, states, burn_in, length, settings)
        num_symbols = outputs_of(dynamics, states[:1]).shape[-1]
        _check_process(hmm, num_symbols)
        chains = _Chains.of(record, num_symbols, num_lags)
        weights = _weights(len(states), num_bootstrap, record.scores)
        ratio = _divergence_ratios(record, hmm, sequence_length)
    everyone = weights.new_ones(1, len(states))
    curves = _curves(chains, everyone, hmm)
    data = xr.Dataset(
        _variables(record, chains, curves, everyone) | {"divergence_ratio": ("sigma", ratio)},
        {"sigma": values, "lag": np.arange(1, num_lags + 1)},
        attributes(states, seed=seed, burn_in=burn_in, homogeneous=is_homogeneous(dynamics, states, input)),
    )
    finite = record.finite.cpu().numpy()
    data = data.where(xr.DataArray(finite, dims="sigma"))
    draws = _curves(chains, weights, hmm)
    if data.attrs["homogeneous"]:  # a flat curve has no optimum: rounding would choose it
        for part in (curves, draws):
            part["spectral_coherence"].fill_(torch.nan)
    data = data.merge(_optima(values, finite, curves, draws))
    data.attrs["control"] = (
        "flat by identity: the likeliest symbol does not depend on sigma in this homogeneous map"
        if data.attrs["homogeneous"]
        else "genuine: the likeliest symbol depends on sigma"
    )
    return _with_reasons(data, hmm, sequence_length, finite)


# Criterion, where to read its curve in the results of _curves, and whether the largest value is best.
_CRITERIA: Mapping[str, bool] = {
    "transition_error": False,
    "residence_cv": False,
    "mutual_information": True,
    "symbol_coherence": True,
    "spectral_coherence": True,
}


@torch.no_grad()
def _record(
    dynamics: Dynamics,
    sigmas: np.ndarray,
    states: Tensor,
    burn_in: int,
    length: int,
    settings: dict[str, Any],
) -> _Record:
    scale = torch.as_tensor(sigmas, dtype=states.dtype, device=states.device)
    one = float(sigmas[np.abs(np.log(sigmas)).argmin()])
    settled_run = reference_run(
        dynamics,
        num_steps=200 * len(states),
        burn_in=burn_in,
        sigma=one,
        start=states,
        **settings,
    )
    plane = fit_plane(settled_run.states, min(2, states.shape[1]))
    parts: list[tuple[Tensor, ...]] = []
    finite = torch.ones(len(sigmas), dtype=torch.bool, device=states.device)
    walk = common_noise(dynamics, scale, states, burn_in + length, **settings)
    for step, h in enumerate(walk):
        if step < burn_in:
            continue
        logits = outputs_of(dynamics, h)
        gumbel = gumbel_like(logits[0])
        finite &= torch.isfinite(h).flatten(1).all(dim=1)
        settled = logits.softmax(dim=-1).amax(dim=-1) > SETTLED
        parts.append((symbols_of(logits, "sampled", gumbel), symbols_of(logits), settled, plane.scores(h)))
    sampled, likeliest, settled, scores = (torch.stack(part, dim=2) for part in zip(*parts, strict=True))
    return _Record(sampled, likeliest, settled, scores, finite)


class _Chains(NamedTuple):
    """Sums of every chain, from which each statistic is made for any weights of the chains."""

    pairs: Tensor  # (S, N, L, K, K)
    likeliest_pairs: Tensor
    runs: RunSums
    likeliest_runs: RunSums
    spectra: Tensor  # (S, N, F)
    symbol_spectra: Tensor
    likeliest_spectra: Tensor

    @classmethod
    def of(cls, record: _Record, num_symbols: int, num_lags: int) -> _Chains:
        return cls(
            lagged_pairs(record.sampled, num_symbols, num_lags),
            lagged_pairs(record.likeliest, num_symbols, num_lags),
            run_sums(record.sampled),
            run_sums(record.likeliest),
            spectra(record.scores),
            symbol_spectra(record.sampled, num_symbols),
            symbol_spectra(record.likeliest, num_symbols),
        )


def _curves(chains: _Chains, weights: Tensor, hmm: HMM | None) -> dict[str, Tensor]:
    """Curves of the criteria (B, S) for weights (B, N) of the chains."""
    pairs = torch.einsum("bn,snlij->bslij", weights, chains.pairs)
    error = pairs.new_full(pairs.shape[:2], torch.nan)
    if hmm is not None:
        exact = hmm.output_statistics()
        rows = (exact.frequency > FREQUENT).to(pairs.device)
        found = pairs[:, :, 0] / pairs[:, :, 0].sum(dim=-1, keepdim=True)
        error = (found - exact.transition.to(pairs)).abs()[:, :, rows].amax(dim=(-2, -1))
    return {
        "transition_error": error,
        "residence_cv": residence_cv(chains.runs, weights),
        "mutual_information": mutual_information(pairs)[:, :, 0],
        "symbol_coherence": _coherence(chains.symbol_spectra, weights, absolute=True),
        "spectral_coherence": _coherence(chains.spectra, weights),
    }


def _coherence(power: Tensor, weights: Tensor, absolute: bool = False) -> Tensor:
    """Peak × frequency / width (B, S) of spectra (S, N, F) for weights (B, N) of the chains.

    The peak counts over the mean of the spectrum, or in absolute terms.
    """
    mean = torch.einsum("bn,snf->bsf", weights / weights.sum(dim=1, keepdim=True), power)
    frequency, width, peak = spectral_peaks(mean)
    height = torch.where(mean.amax(dim=-1) > 0, mean[..., 1:].amax(dim=-1), torch.nan) if absolute else peak
    return height * frequency.abs() / width


def _variables(
    record: _Record, chains: _Chains, curves: dict[str, Tensor], everyone: Tensor
) -> dict[str, tuple[Any, np.ndarray]]:
    num_symbols = chains.pairs.shape[-1]
    frequency, width, peak = (part[0] for part in spectral_peaks(chains.spectra.sum(dim=1)[None]))
    dwell, transit = (median_run(record.settled, value) for value in (True, False))
    counts = torch.nn.functional.one_hot(record.sampled, num_symbols).double().mean(dim=(1, 2))
    columns: dict[str, Tensor] = {
        "transition_error": curves["transition_error"][0],
        "residence_cv": curves["residence_cv"][0],
        "correlation_time": correlation_time(record.sampled, num_symbols),
        "spectral_peak": peak,
        "spectral_frequency": frequency,
        "spectral_width": width,
        "spectral_coherence": curves["spectral_coherence"][0],
        "symbol_coherence": curves["symbol_coherence"][0],
        "argmax_symbol_coherence": _coherence(chains.likeliest_spectra, everyone, absolute=True)[0],
        "switch_rate": switch_rate(record.sampled),
        "argmax_switch_rate": switch_rate(record.likeliest),
        "argmax_residence_cv": residence_cv(chains.likeliest_runs, everyone)[0],
        "dwell_median": dwell,
        "transition_median": transit,
        "time_scale_ratio": dwell / transit,
    }
    variables: dict[str, tuple[Any, np.ndarray]] = {
        name: ("sigma", column.cpu().numpy()) for name, column in columns.items()
    }
    variables["frequency"] = (("sigma", "output"), counts.cpu().numpy())
    for name, pairs in {"": chains.pairs, "argmax_": chains.likeliest_pairs}.items():
        values = mutual_information(pairs.sum(dim=1))
        variables[f"{name}mutual_information"] = (("sigma", "lag"), values.cpu().numpy())
    return variables


def _weights(num_chains: int, num_draws: int, like: Tensor) -> Tensor:
    """How often each chain is in each resample, (B, N)."""
    index = torch.randint(num_chains, (num_draws, num_chains), device=like.device)
    return torch.nn.functional.one_hot(index, num_chains).sum(dim=1).to(torch.float64)


def _optima(
    sigmas: np.ndarray, finite: np.ndarray, curves: dict[str, Tensor], draws: dict[str, Tensor]
) -> xr.Dataset:
    best, interval = [], []
    for name, largest in _CRITERIA.items():
        pick: Callable[..., Any] = np.nanargmax if largest else np.nanargmin
        own, others = (np.where(finite, part[name].cpu().numpy(), np.nan) for part in (curves, draws))
        others = others[np.isfinite(others).any(axis=1)]
        known = bool(np.isfinite(own).any()) and len(others) > 0
        best.append(sigmas[pick(own[0])] if known else np.nan)
        found = sigmas[pick(others, axis=1)] if known else np.array([np.nan])
        interval.append(np.quantile(found, [0.025, 0.975]))
    return xr.Dataset(
        {
            "optimum": ("criterion", np.array(best, dtype=float)),
            "at_edge": ("criterion", np.isin(best, sigmas[[0, -1]])),
            "optimum_interval": (("criterion", "bound"), np.array(interval)),
        },
        {"criterion": list(_CRITERIA), "bound": ["low", "high"]},
    )


def _divergence_ratios(record: _Record, hmm: HMM | None, length: int | None) -> np.ndarray:
    """Mean over four draws of the divergence to the process, over that of the process to itself, (S,)."""
    count = len(record.sampled)
    if hmm is None or length is None:
        return np.full(count, np.nan)
    check_count(length, "sequence_length", hint="for instance sequence_length=30")
    num_steps = record.sampled.shape[2]
    if length > num_steps:
        raise ValueError(
            f"sequence_length must be at most the {num_steps} steps of each chain, got {length}; raise "
            "num_steps."
        )
    process = HMM(hmm.stationary(), hmm.transition, hmm.emission)
    sets = record.sampled.unfold(2, length, length).flatten(1, 2)[:, :512]
    draws = [
        torch.as_tensor(process.sequences(sets.shape[1], length)["symbol"].values, device=sets.device)
        for _ in range(8)
    ]

    def points(symbols: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(symbols, hmm.num_symbols).flatten(1).float()

    epsilon = auto_blur(torch.cat([points(one) for one in draws[:2]])) ** 2

    def divergence(x: Tensor) -> float:
        parts = [sinkhorn_divergence(x, points(one), epsilon=epsilon) for one in draws[4:]]
        return float(torch.stack(parts).mean())

    floor = math.fsum(divergence(points(one)) for one in draws[:4]) / 4
    return np.array([divergence(points(one)) / floor for one in sets])


def _check_process(hmm: HMM | None, num_symbols: int) -> None:
    if hmm is not None and hmm.num_symbols != num_symbols:
        raise ValueError(
            f"hmm has {hmm.num_symbols} symbols but the readout has {num_symbols}; give the process that the "
            "system was trained on."
        )


def _with_reasons(data: xr.Dataset, hmm: HMM | None, length: int | None, finite: np.ndarray) -> xr.Dataset:
    reasons = []
    if not finite.all():
        reasons.append(f"the activity diverges at sigma = {data.sigma.values[~finite].tolist()}")
    if hmm is None:
        reasons.append("no task error without hmm=")
    elif length is None:
        reasons.append("no divergence ratio without sequence_length=")
    for name, what in {
        "residence_cv": "complete runs of symbols",
        "argmax_residence_cv": "complete runs of the likeliest symbol",
        "time_scale_ratio": "complete dwells and transitions",
    }.items():
        short = data.sigma.values[finite & np.isnan(data[name].values)]
        if len(short):
            reasons.append(f"too few {what} at sigma = {short.tolist()}")
    return data.assign_attrs(reason="; ".join(reasons)) if reasons else data
