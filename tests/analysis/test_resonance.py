"""Stochastic resonance: flat controls, a bistable map that resonates, and statistics against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import resonance
from seqdyn.analysis.symbols import (
    correlation_time,
    lagged_pairs,
    median_run,
    mutual_information,
    residence_cv,
    run_sums,
    spectra,
    spectral_peaks,
)
from seqdyn.datasets.hmm import linear_chain
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.metrics.symbols import dwell_times, joint_frequencies
from seqdyn.models import HMMRNN


def forced_double_well(period: float) -> MapDynamics:
    """A particle in a double well, x in its first unit, under a periodic force too weak to move it over."""
    angle = 2 * math.pi / period

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        x, c, s = h.unbind(dim=-1)
        drift = 0.2 * (x - x**3 + 0.25 * c)
        turned = (c * math.cos(angle) - s * math.sin(angle), c * math.sin(angle) + s * math.cos(angle))
        kick = 0.0 if u is None else 0.3 * u[..., 0]
        return torch.stack([(x + drift + kick).clamp(-3, 3), *turned], dim=-1)

    return MapDynamics(step, lambda h: torch.stack([-8 * h[..., 0], 8 * h[..., 0]], dim=-1), 3, 1)


def start(num_chains: int) -> Tensor:
    return torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64).expand(num_chains, 3).clone()


def test_argmax_is_flat_for_a_homogeneous_network() -> None:
    # Identity 3 of section 4.1: to the last bit for powers of two.
    found = resonance(HMMRNN(3).dynamics(), [0.25, 1.0, 4.0], num_steps=12_800, num_bootstrap=20, seed=0)

    for name in ("argmax_switch_rate", "argmax_residence_cv", "argmax_mutual_information"):
        assert (found[name] == found[name][0]).all(), name
    assert found.attrs["homogeneous"] == 1
    assert found.attrs["control"].startswith("flat by identity")
    # No optimum of a flat curve, though the sampled symbols follow the noise as an inverse temperature.
    assert np.isnan(found.optimum.sel(criterion="spectral_coherence"))
    assert np.ptp(found.switch_rate.values) > 0


def test_a_forced_double_well_resonates() -> None:
    # The force alone moves no particle over; at a middle noise hopping falls into step with it.
    sigmas = [0.3, 0.5, 0.7, 1.2, 3.0]

    found = resonance(
        forced_double_well(32), sigmas, start=start(32), num_steps=32_768, num_bootstrap=50, seed=0
    )

    assert found.attrs["control"].startswith("genuine")
    assert found.argmax_switch_rate[0] < 1e-3 and found.argmax_switch_rate[-1] > 0.2
    for criterion in ("symbol_coherence", "mutual_information"):
        best = found.sel(criterion=criterion)
        low, high = best.optimum_interval.values
        assert 0.3 < low <= float(best.optimum) <= high < 1.2, criterion
        assert not bool(best.at_edge)
    for curve in (found.symbol_coherence.values, found.argmax_symbol_coherence.values):
        assert curve.max() > 3 * curve[0] and curve.max() > 10 * curve[-1]


def test_symbols_of_a_memoryless_map_follow_their_law() -> None:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return torch.zeros_like(h) if u is None else u.abs()

    def readout(h: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(h), h], dim=-1)

    found = resonance(
        MapDynamics(step, readout, 1, 1),
        [0.5, 1.0],
        num_steps=40_000,
        num_chains=100,
        num_bootstrap=10,
        seed=0,
    )

    # P(symbol 1) = E sigmoid(sigma |xi|); the kink of |xi| leaves quadrature an error of 1e-3.
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    for sigma in (0.5, 1.0):
        law = (weights / (1 + np.exp(-sigma * np.abs(nodes)))).sum() / weights.sum()
        # 40,000 draws: standard error 0.0024.
        assert float(found.frequency.sel(sigma=sigma)[1]) == pytest.approx(law, abs=0.012)
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-3)
    np.testing.assert_allclose(found.correlation_time, 1, atol=0.1)


def test_the_error_is_that_of_the_transitions() -> None:
    hmm = linear_chain(3)

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return torch.zeros_like(h)

    dynamics = MapDynamics(step, lambda h: torch.cat([h, h, h], dim=-1), 1, 1)
    found = resonance(dynamics, [1.0, 2.0], hmm=hmm, num_steps=19_200, num_bootstrap=5, seed=0)

    # Uniform symbols: the largest error is that of 0 -> 0, over the two frequent rows; 19,200 draws.
    q = hmm.output_statistics().transition.numpy()[[0, 2]]
    np.testing.assert_allclose(found.transition_error, np.abs(q - 1 / 3).max(), atol=0.03)


def test_the_divergence_is_over_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # A distance of means in the place of the transport: the process has frequencies .495, .01, .495.
    def distance(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        assert 0.27 * 10 * 0.4 < epsilon < 0.27 * 10 * 0.6  # about half of ten steps agree
        return (x.mean(dim=0) - y.mean(dim=0)).square().sum()

    monkeypatch.setattr("seqdyn.analysis.stochastic.sinkhorn_divergence", distance)

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return torch.zeros_like(h)

    law = torch.tensor([0.495, 0.01, 0.495])
    dynamics = MapDynamics(step, lambda h: law.log().expand(*h.shape[:-1], 3), 1, 1)
    own = resonance(dynamics, [1.0], hmm=linear_chain(3), num_steps=12_800, sequence_length=10, seed=0)
    other = MapDynamics(step, lambda h: torch.cat([h, h, h], dim=-1), 1, 1)
    far = resonance(other, [1.0], hmm=linear_chain(3), num_steps=12_800, sequence_length=10, seed=0)

    assert own.divergence_ratio.item() == pytest.approx(1, abs=0.5)
    assert far.divergence_ratio.item() > 30


def test_no_events_give_nan_and_a_reason() -> None:
    dynamics = MapDynamics(lambda h, u: 0 * h, lambda h: torch.cat([h + 90, h], -1), 1, 1)

    found = resonance(dynamics, [1.0], num_steps=3200, num_bootstrap=5, seed=0)

    assert np.isnan(found.residence_cv).all() and np.isnan(found.correlation_time).all()
    assert "too few complete runs of symbols at sigma = [1.0]" in found.attrs["reason"]
    assert np.isnan(found.optimum.sel(criterion="residence_cv"))


def test_diverged_activity_is_marked() -> None:
    def step(h: Tensor, u: Tensor | None) -> Tensor:
        return 0.1 * h**3 + (0 if u is None else u)

    dynamics = MapDynamics(step, lambda h: torch.cat([h, -h], -1), 1, 1)
    found = resonance(dynamics, [0.5, 9.0], num_steps=3200, num_bootstrap=5, seed=0)

    assert "diverges at sigma = [9.0]" in found.attrs["reason"]
    assert np.isnan(found.switch_rate[1]) and np.isfinite(found.switch_rate[0])


def test_wrong_process_and_length_are_named() -> None:
    with pytest.raises(ValueError, match="hmm has 3 symbols but the readout has 4"):
        resonance(HMMRNN(4).dynamics(), [1.0], hmm=linear_chain(3), num_steps=3200)
    with pytest.raises(ValueError, match="fewer than 22 steps; type num_steps=1408"):
        resonance(HMMRNN(3).dynamics(), [1.0], num_steps=1280)
    with pytest.raises(ValueError, match="sequence_length must be at most the 50 steps of each chain"):
        resonance(HMMRNN(3).dynamics(), [1.0], hmm=linear_chain(3), num_steps=3200, sequence_length=60)


# Statistics ---------------------------------------------------------------------------------------------


def symbols(*shape: int) -> Tensor:
    """Symbols that stay for a while."""
    fresh = torch.randint(3, shape)
    stay = torch.rand(shape) < 0.6
    out = fresh.clone()
    for step in range(1, shape[-1]):
        out[..., step] = torch.where(stay[..., step], out[..., step - 1], fresh[..., step])
    return out


def test_pairs_and_runs_equal_those_of_the_metrics() -> None:
    given = symbols(2, 4, 50)

    pairs, runs = lagged_pairs(given, 3, 3), run_sums(given)

    for one, lag in itertools.product(range(2), (1, 2, 3)):
        counts = pairs[one, :, lag - 1].sum(dim=0).numpy()
        np.testing.assert_allclose(counts / counts.sum(), joint_frequencies(given[one].numpy(), 3, lag))
        for chain in range(4):
            lengths = np.concatenate(dwell_times(given[one, chain][None].numpy(), 3))
            sums = [float(part[one, chain]) for part in runs]
            assert sums == [len(lengths), lengths.sum(), (lengths**2).sum()]
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    for row, chains in enumerate([[0, 1, 2, 3], [0, 0, 3]]):
        lengths = np.concatenate([np.concatenate(dwell_times(given[1, [c]].numpy(), 3)) for c in chains])
        expected = lengths.std(ddof=1) / lengths.mean()
        assert float(residence_cv(runs, weights)[row, 1]) == pytest.approx(expected)


def test_mutual_information_of_known_tables() -> None:
    tables = torch.tensor(
        [[[5e8, 0], [0, 5e8]], [[25, 25], [25, 25]], [[100, 0], [0, 0]]], dtype=torch.float64
    )

    found = mutual_information(tables)

    torch.testing.assert_close(found, torch.tensor([math.log(2), -1 / 200, 0.0], dtype=torch.float64))


def test_correlation_time_of_a_two_state_chain() -> None:
    # rho_k = 0.8 ** k, so that 1 + 2 * 0.8 / 0.2 = 9.
    change = torch.rand(1, 200, 2000) < 0.1
    found = correlation_time(change.cumsum(dim=2) % 2, 2)

    assert float(found) == pytest.approx(9, rel=0.1)


def test_the_spectrum_finds_the_frequency_of_a_rotation() -> None:
    angle = 2 * math.pi * 0.0625 * torch.arange(512, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin()], dim=1)[None, None]

    frequency, width, peak = spectral_peaks(spectra(torch.cat([turn, -turn], dim=1)).sum(dim=1))

    assert float(frequency) == -0.0625
    assert float(width) <= 3 / 256
    assert float(peak) > 50


def test_median_runs_leave_out_the_censored_ones() -> None:
    flags = torch.tensor([[[1, 0, 0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]]]).bool()

    assert (float(median_run(flags, True)), float(median_run(flags, False))) == (2.0, 2.0)
    assert median_run(flags[:, 1:], True).isnan().all()
