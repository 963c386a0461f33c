"""Statistics of many chains of symbols as sums per chain, so that resampling the chains costs a product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "RunSums",
    "correlation_time",
    "lagged_pairs",
    "median_run",
    "mutual_information",
    "residence_cv",
    "run_sums",
    "spectra",
    "spectral_peaks",
    "switch_rate",
    "symbol_spectra",
]

_SEGMENT = 256  # steps of a window of the spectrum


class RunSums(NamedTuple):
    """Number, sum and sum of squares of the lengths of the complete runs of each chain, each (S, N)."""

    number: Tensor
    total: Tensor
    square: Tensor


def lagged_pairs(symbols: Tensor, num_symbols: int, num_lags: int) -> Tensor:
    """How often each symbol stands 1 to L steps after each, float64 (S, N, L, K, K), earlier one first."""
    one_hot = torch.nn.functional.one_hot(symbols, num_symbols).float()
    pairs = [one_hot[:, :, :-lag].mT @ one_hot[:, :, lag:] for lag in range(1, num_lags + 1)]
    return torch.stack(pairs, dim=2).double()


def mutual_information(pairs: Tensor) -> Tensor:
    r"""Mutual information (...) in nats of counts (..., K, K), less its bias :math:`(a - 1)(b - 1) / 2n`.

    a and b are the numbers of symbols that occur first and second. NaN without counts.
    """
    total = pairs.sum(dim=(-2, -1), keepdim=True)
    joint = pairs / total
    first, second = joint.sum(dim=-1, keepdim=True), joint.sum(dim=-2, keepdim=True)
    information = torch.xlogy(joint, joint) - torch.xlogy(joint, first * second)
    cells = ((first > 0).sum(dim=(-2, -1)) - 1) * ((second > 0).sum(dim=(-2, -1)) - 1)
    return information.sum(dim=(-2, -1)) - cells / (2 * total[..., 0, 0])


def switch_rate(symbols: Tensor) -> Tensor:
    """Share of steps at which the symbol of (S, N, T) changes, float64 (S,)."""
    return (symbols[:, :, 1:] != symbols[:, :, :-1]).double().mean(dim=(1, 2))


def run_sums(symbols: Tensor) -> RunSums:
    """Sums over the complete runs of symbols (S, N, T): the first and the last of a chain are left out."""
    change = symbols[:, :, 1:] != symbols[:, :, :-1]
    scenario, chain, step = change.nonzero(as_tuple=True)
    row = scenario * symbols.shape[1] + chain
    inner = row[1:] == row[:-1]  # between two changes of one chain
    length = (step[1:] - step[:-1])[inner].double()
    shape = symbols.shape[:2]
    index = row[1:][inner]
    sums = [
        length.new_zeros(shape.numel()).index_add_(0, index, length**power).view(shape) for power in range(3)
    ]
    return RunSums(*sums)


def residence_cv(runs: RunSums, weights: Tensor) -> Tensor:
    """Standard deviation over mean of the run lengths, (B, S), for weights (B, N); NaN below three runs."""
    count, total, square = (weights @ part.mT for part in runs)
    mean = total / count
    variance = (square - count * mean**2) / (count - 1)
    return torch.where(count >= 3, variance.clamp(min=0).sqrt() / mean, torch.nan)


def median_run(flags: Tensor, value: bool) -> Tensor:
    """Median length (S,) of the complete stretches in which flags (S, N, T) have a value; NaN without any."""
    medians = []
    for rows in flags:
        chain, step = (rows[:, 1:] != rows[:, :-1]).nonzero(as_tuple=True)
        inner = chain[1:] == chain[:-1]
        what = rows[chain[:-1], step[:-1] + 1] == value
        length = (step[1:] - step[:-1])[inner & what].double()
        medians.append(length.quantile(0.5) if len(length) else length.new_tensor(torch.nan))
    return torch.stack(medians)


def correlation_time(symbols: Tensor, num_symbols: int) -> Tensor:
    r"""Integrated correlation time :math:`1 + 2 \sum_k \rho_k` of the symbol indicators, float64 (S,).

    ρ is the autocorrelation summed over the indicators, up to its first value that is not positive (Geyer's
    cut). NaN where the symbol never changes.
    """
    one_hot = torch.nn.functional.one_hot(symbols, num_symbols).double()
    centred = one_hot - one_hot.mean(dim=(1, 2), keepdim=True)
    steps = symbols.shape[2]
    power = torch.fft.rfft(centred, n=2 * steps, dim=2).abs().square().sum(dim=(1, 3))
    covariance = torch.fft.irfft(power, n=2 * steps, dim=1)[:, :steps]
    covariance = covariance / torch.arange(steps, 0, -1, device=covariance.device)
    variance = covariance[:, :1]
    rho = covariance[:, 1:] / torch.where(variance > 1e-12, variance, torch.nan)
    positive = (rho > 0).cumprod(dim=1)
    return torch.where(rho[:, 0].isnan(), torch.nan, 1 + 2 * (rho * positive).sum(dim=1))


def spectra(scores: Tensor) -> Tensor:
    """Power (S, N, F) of exp(i phase) of planar paths (S, N, T, 2), or of the path itself (S, N, T, 1).

    In units of the squared amplitude of a wave of that frequency, which the mean over windows keeps.
    Hann windows of at most 256 steps, half overlapping; frequencies as ``torch.fft.fftfreq``.
    """
    centred = scores - scores.mean(dim=(1, 2), keepdim=True)
    if scores.shape[-1] == 1:
        signal = torch.complex(centred[..., 0], torch.zeros_like(centred[..., 0]))
    else:
        angle = torch.atan2(centred[..., 1], centred[..., 0])
        signal = torch.polar(torch.ones_like(angle), angle)
    return _windowed_power(signal)


def symbol_spectra(symbols: Tensor, num_symbols: int) -> Tensor:
    """Power (S, N, F) of symbols (S, N, T), summed over their indicators, see :func:`spectra`."""
    parts = [_windowed_power((symbols == one).double()) for one in range(num_symbols)]
    return torch.stack(parts).sum(dim=0)


def _windowed_power(signal: Tensor) -> Tensor:
    """Mean power (S, N, F) over windows of signals (S, N, T), less their mean over chains and time."""
    signal = signal - signal.mean(dim=(1, 2), keepdim=True)
    length = min(_SEGMENT, signal.shape[2])
    windows = signal.unfold(2, length, max(1, length // 2))
    taper = torch.hann_window(length, dtype=signal.real.dtype, device=signal.device)
    power = (torch.fft.fft(windows * taper, dim=-1) / taper.sum()).abs().square()
    return power.mean(dim=2).double()


def spectral_peaks(power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frequency, full width at half height, and height over the mean of the peak of spectra (..., F).

    Frequencies are in cycles per step, with a sign; the frequency zero is left out.
    """
    size = power.shape[-1]
    order = torch.fft.fftshift(torch.fft.fftfreq(size, dtype=power.dtype, device=power.device))
    shifted = torch.fft.fftshift(power, dim=-1)
    shifted = torch.where(order == 0, torch.nan, shifted)
    filled = torch.where(shifted.isnan(), -torch.inf, shifted)
    height, place = filled.max(dim=-1)
    high = (filled >= height[..., None] / 2) | (order == 0)
    index = torch.arange(size, device=power.device)
    # The nearest bins on either side that are below half the height.
    below = torch.where(~high & (index < place[..., None]), index, -1).amax(dim=-1)
    above = torch.where(~high & (index > place[..., None]), index, size).amin(dim=-1)
    width = (above - below - 1).clamp(min=1) / size
    return order[place], width.to(power.dtype), height / shifted.nanmean(dim=-1)
