"""Residence times, regions and regimes: against a naive loop, a known chain, and their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from seqdyn.analysis import reference_run, regimes, residence
from seqdyn.analysis.events import switches_of
from seqdyn.analysis.stays import REGIONS, region_of
from seqdyn.dynamics import MapDynamics, from_callable
from seqdyn.errors import NonFiniteError


def network(size: int = 16, inputs: int = 4, dtype: torch.dtype = torch.float64) -> MapDynamics:
    """A random rectified network with three outputs."""
    generator = torch.Generator().manual_seed(3)
    weights, drive, out = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) / math.sqrt(shape[1])
        for shape in ((size, size), (size, inputs), (3, size))
    )

    weights = 0.5 * weights + 0.6 * torch.eye(size, dtype=dtype)  # slow enough to dwell

    def preactivation(h: Tensor, u: Tensor) -> Tensor:
        return h @ weights.mT + u @ drive.mT

    return from_callable(
        lambda h, u: preactivation(h, u).relu(),
        size,
        inputs,
        lambda h: h @ out.mT,
        preactivation=preactivation,
        input=torch.zeros(inputs, dtype=dtype),
    )


def coin(probability: float) -> MapDynamics:
    """A bit that flips with a fixed probability at each step, the two logits ± 5."""
    threshold = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(probability)).double()

    def step(h: Tensor, u: Tensor) -> Tensor:
        return torch.where(u < threshold, -h, h)

    start = 5.0 * torch.ones(1, dtype=torch.float64)
    return from_callable(step, 1, 1, lambda h: torch.cat([h, -h], dim=-1) * start)


def naive(dynamics: MapDynamics, states: Tensor, noise: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, censoring and turns (S, R) of the definition, one run at a time."""
    assert dynamics.readout is not None
    samples, runs, longest, _ = noise.shape
    steps, censored = np.full((samples, runs), longest), np.ones((samples, runs), dtype=bool)
    turns = np.zeros((samples, runs), dtype=int)
    for sample in range(samples):
        first = int(dynamics.readout(states[sample]).argmax())
        for run in range(runs):
            h, slopes = states[sample], []
            for step in range(longest):
                after = dynamics.step(h, noise[sample, run, step])
                slopes.append(float(dynamics.readout(after)[first] - dynamics.readout(h)[first]))
                h = after
                if int(dynamics.readout(h).argmax()) != first:
                    steps[sample, run], censored[sample, run] = step + 1, False
                    break
            signs = [math.copysign(1, slope) for slope in slopes if slope != 0]
            turns[sample, run] = sum(a != b for a, b in zip(signs, signs[1:], strict=False))
    return steps, censored, turns


def test_batched_runs_equal_a_naive_loop_on_shared_noise_exactly() -> None:
    dynamics = network()
    states = reference_run(dynamics, num_steps=32, num_chains=8).hidden[:, 1:].flatten(0, 1)
    noise = torch.randn(len(states), 5, 9, 4, dtype=torch.float64)

    found = residence(dynamics, states, num_runs=5, max_steps=9, noise=noise)

    steps, censored, turns = naive(dynamics, states, noise)
    assert 0 < censored.mean() < 1 and turns.max() > 2
    np.testing.assert_array_equal(found.residence_time, steps.mean(axis=1))
    np.testing.assert_allclose(found.residence_sd, steps.std(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.censored_fraction, censored.mean(axis=1))
    np.testing.assert_array_equal(found.sign_changes, turns.mean(axis=1))


def test_many_blocks_of_rows_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = network()
    states = torch.rand(20, 16, dtype=torch.float64)
    noise = torch.randn(20, 7, 10, 4, dtype=torch.float64)
    whole = residence(dynamics, states, num_runs=7, max_steps=10, noise=noise)

    monkeypatch.setattr("seqdyn.analysis.stays._BLOCK", 13)

    xr.testing.assert_equal(residence(dynamics, states, num_runs=7, max_steps=10, noise=noise), whole)


def test_residence_of_a_coin_is_that_of_a_capped_geometric_law() -> None:
    probability, longest = 0.2, 12

    found = residence(coin(probability), torch.ones(500, 1).double(), max_steps=longest, seed=0)

    # E min(G, n) = (1 - (1-p)^n) / p; 10,000 runs, four standard errors.
    expected = (1 - (1 - probability) ** longest) / probability
    error = 4 * float(found.residence_sd.mean()) / 100
    assert float(found.residence_time.mean()) == pytest.approx(expected, abs=error)
    assert float(found.censored_fraction.mean()) == pytest.approx(
        0.8**12, abs=4 * math.sqrt(0.069 * 0.931) / 100
    )
    assert float(found.sign_changes.max()) == 0  # flat until the flip


def test_sampled_symbols_leave_a_fixed_state_by_the_softmax() -> None:
    fixed = from_callable(lambda h, u: h + 0 * u, 2, 2, lambda h: h)
    logits = torch.tensor([math.log(3.0), 0.0]).expand(2000, 2)

    found = residence(fixed, logits, num_runs=10, max_steps=1, symbol="sampled", seed=0)

    # The first symbol is drawn too: both differ with probability 2 (3/4) (1/4); 20,000 runs.
    share = 1 - float(found.censored_fraction.mean())
    assert share == pytest.approx(0.375, abs=4 * math.sqrt(0.375 * 0.625 / 20_000))


def test_argmax_residence_of_a_rectified_network_does_not_depend_on_the_size_of_the_noise() -> None:
    dynamics, states = network(), torch.rand(30, 16, dtype=torch.float64)

    once = residence(dynamics, states, seed=1)
    twice = residence(dynamics, 2 * states, sigma=2.0, seed=1)

    np.testing.assert_array_equal(once.residence_time, twice.residence_time)


def test_regions_follow_their_bounds_and_name_the_rest() -> None:
    times, confidence = np.array([1.9, 2, 8, 8.1, 8.1]), np.array([0.9, 0.1, 0.9, 0.81, 0.8])

    assert region_of(times, confidence).tolist() == [
        "transition", "kick-zone", "kick-zone", "cluster", "unassigned",
    ]  # fmt: skip


def test_region_means_are_those_of_their_members_and_empty_ones_are_nan() -> None:
    found = residence(coin(0.3), torch.ones(40, 1).double(), seed=0, jacobians=True)

    assert found.region_name.values.tolist() == list(REGIONS)
    assert float(found.region_share.sum()) == pytest.approx(1)
    zone = found.where(found.region == "kick-zone", drop=True)
    np.testing.assert_allclose(
        found.region_residence_time.sel(region_name="kick-zone"), zone.residence_time.mean()
    )
    assert math.isnan(float(found.region_residence_time.sel(region_name="cluster")))


def test_unstable_eigenvalues_are_counted_at_the_states() -> None:
    matrix = torch.diag(torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64))
    linear = from_callable(lambda h, u: h @ matrix + 0 * u, 3, 3, lambda h: h, input=matrix[0] * 0)

    found = residence(linear, torch.rand(4, 3, dtype=torch.float64), jacobians=True, max_steps=2, seed=0)

    assert found.n_unstable.values.tolist() == [2, 2, 2, 2]


def test_residence_survives_netcdf_and_repeats_under_its_seed(tmp_path: Path) -> None:
    dynamics, states = network(dtype=torch.float32), torch.rand(10, 16)
    before = torch.random.get_rng_state()

    found = residence(dynamics, states, num_runs=3, seed=4)
    found.to_netcdf(tmp_path / "residence.nc")

    assert torch.equal(before, torch.random.get_rng_state())
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "residence.nc"), found)
    xr.testing.assert_identical(residence(dynamics, states, num_runs=3, seed=4), found)
    assert not found.equals(residence(dynamics, states, num_runs=3, seed=5))


def test_regimes_of_a_coin_have_the_rates_of_the_coin(tmp_path: Path) -> None:
    found = regimes(coin(0.2), num_steps=40_000, seed=0, start=torch.ones(1).double())

    error = 4 * math.sqrt(0.2 * 0.8 / 20_000)
    np.testing.assert_allclose(found.exit_rate, 0.2, atol=error)
    np.testing.assert_allclose(found.transition, [[0.8, 0.2], [0.2, 0.8]], atol=error)
    np.testing.assert_allclose(found.mean_residence, 5, atol=4 * math.sqrt(20 / 3500))
    np.testing.assert_allclose(found.share, 0.5, atol=0.03)
    assert found.center.values.ravel().tolist() == [1.0, -1.0]
    assert int(found.num_dwells.sum()) == found.sizes["dwell"]
    found.to_netcdf(tmp_path / "regimes.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "regimes.nc"), found)


def test_clusters_of_states_are_found_where_the_readout_sees_nothing() -> None:
    def step(h: Tensor, u: Tensor) -> Tensor:
        place = torch.where(u[..., :1] < -1.3, -h[..., :1].sign(), h[..., :1].sign())
        return torch.cat([10 * place, u[..., 1:]], dim=-1)

    dynamics = from_callable(step, 2, 2, lambda h: torch.zeros_like(h))
    found = regimes(dynamics, num_steps=5000, seed=0, by="clusters", num_regimes=2, start=torch.ones(2))

    np.testing.assert_allclose(abs(found.center.values[:, 0]), 10, atol=1e-4)
    np.testing.assert_allclose(found.exit_rate, 0.0968, atol=0.025)


def test_switches_know_their_dwells() -> None:
    found = switches_of(torch.tensor([[0, 0, 1, 1, 1, 0], [2, 2, 2, 2, 2, 2], [1, 0, 0, 0, 0, 0]]))

    assert found.chain.tolist() == [0, 0, 2]
    assert found.time.tolist() == [2, 5, 1]
    assert found.before.tolist() == [0, 1, 1]
    assert found.after.tolist() == [1, 0, 0]
    assert found.dwell_before.tolist() == [2, 3, 1]
    assert found.dwell_after.tolist() == [3, 1, 5]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"symbol": "drawn"}, "'argmax' or 'sampled'"),
        ({"sigma": 0.0}, "positive standard deviation"),
        ({"num_runs": 0}, "num_runs must be a whole number"),
        ({"noise": torch.zeros(1, 2, 3, 4)}, r"\(2, 20, 60, 4\)"),
    ],
)
def test_residence_refuses_what_does_not_fit(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        residence(network(), torch.ones(2, 16).double(), **options)


def test_what_cannot_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="no readout.*give one: from_torch"):
        residence(from_callable(lambda h, u: h + u, 2, 2), torch.ones(2))
    with pytest.raises(ValueError, match="take no input"):
        residence(from_callable(lambda h: h, 2, readout=lambda h: h), torch.ones(2))
    with pytest.raises(ValueError, match="type num_regimes=3"):
        regimes(network(), num_steps=64, by="clusters")


def test_states_that_explode_are_an_error() -> None:
    with pytest.raises(NonFiniteError, match="within 5 steps of the states given"):
        residence(
            from_callable(lambda h, u: 1e9 * h + u, 2, 2, lambda h: h), torch.tensor([2.0, 1.0]), seed=0
        )
