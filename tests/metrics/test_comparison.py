"""How well a sampler emulates a known process."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data.convert import to_netcdf
from seqdyn.datasets import hmm as processes
from seqdyn.metrics.comparison import emulation, floor_ratio, warn_if_less_variable
from seqdyn.metrics.matching import matched_distances
from seqdyn.ot import sinkhorn

FEW: dict[str, Any] = {
    "num_steps": 30, "num_sequences": 256, "num_draws": 20, "num_chains": 200, "num_chain_steps": 300,
    "burn_in": 50, "num_matched": 100, "seed": 0,
}  # fmt: skip


class Process:
    """A sampler that is a hidden Markov model itself."""

    def __init__(self, hmm: processes.HMM) -> None:
        self.hmm = hmm

    def sample(
        self, num_samples: int, *, num_steps: int, burn_in: int, seed: int, keep: Any = ("symbol",)
    ) -> xr.Dataset:
        data = self.hmm.sequences(num_samples, burn_in + num_steps, seed)
        return data.isel(time=slice(burn_in, None)).rename(series="sample")


@pytest.fixture(scope="module")
def truth() -> processes.HMM:
    return processes.preset("three")


@pytest.fixture(scope="module")
def itself(truth: processes.HMM) -> xr.Dataset:
    return emulation(Process(truth), truth, **FEW)


def test_the_process_itself_is_at_the_floor_without_error(itself: xr.Dataset) -> None:
    ratio, error = itself.attrs["floor_ratio"], itself.attrs["floor_ratio_error"]

    assert abs(ratio - 1) < 4 * error < 0.2
    # 60 000 pairs, about 30 000 in each frequent row: standard error 0.0025.
    assert itself.attrs["largest_error"] < 0.012
    assert itself.attrs["distance"] == pytest.approx(itself.attrs["distance_floor"], rel=0.05)
    assert float(itself["word_distance"].max()) < 0.03


def test_exact_figures_are_those_of_the_process(itself: xr.Dataset, truth: processes.HMM) -> None:
    statistics, exact = truth.output_statistics(20), itself.sel(source="exact")

    np.testing.assert_array_equal(exact["transition"], statistics.transition)
    np.testing.assert_array_equal(exact["joint"], statistics.joint)
    assert float(exact["volatility"]) == statistics.num_changes(30)
    for source in ("model", "process"):
        assert float(itself["volatility"].sel(source=source)) == pytest.approx(
            statistics.num_changes(30), rel=0.03
        )


def test_another_process_is_told_apart(truth: processes.HMM) -> None:
    calmer = Process(processes.linear_chain(3, 0.015))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = emulation(calmer, truth, **FEW)

    assert scores.attrs["floor_ratio"] > 1 + 3 * scores.attrs["floor_ratio_error"]
    assert scores.attrs["largest_error"] > 0.02
    assert float(scores["volatility"].sel(source="model")) < 0.95 * float(
        scores["volatility"].sel(source="exact")
    )
    assert (scores["dwell"].sel(drawn="model") > scores["dwell"].sel(drawn="process"))[[0, 2]].all()
    likelihood = scores["log_likelihood"]
    assert float(likelihood.sel(drawn="model")) > float(likelihood.sel(drawn="process"))


def test_a_frequent_symbol_that_never_occurs_is_the_largest_error() -> None:
    chain = processes.preset("fully")
    merged = torch.stack([chain.emission[0], chain.emission[1], chain.emission[1]])
    merged[:, 0] += merged[:, 2]
    merged[:, 2] = 0
    silent = Process(processes.HMM(chain.initial, chain.transition, merged))

    scores = emulation(silent, chain, **FEW)

    assert scores.attrs["largest_error"] == scores.attrs["largest_error_start"] == 1
    assert scores.attrs["largest_error_process"] < 0.05
    assert np.isnan(scores.attrs["largest_error_rare"])


def test_the_published_estimator_warns_of_a_calmer_model() -> None:
    truth, few = processes.preset("two"), FEW | {"num_steps": 100, "num_draws": 4}
    published = {"epsilon": 0.04, "mode": "annealed"}

    with pytest.warns(UserWarning, match="less variable than the target"):
        scores = emulation(Process(processes.linear_chain(2, 0.03)), truth, **few, **published)
    scores_of_truth = emulation(Process(truth), truth, **few, **published)

    assert scores.attrs["floor_ratio"] < 0.95 < scores_of_truth.attrs["floor_ratio"]
    assert scores.attrs["mode"] == "annealed" and scores.attrs["epsilon"] == 0.04


def test_a_comparison_can_be_drawn_again_and_written(
    itself: xr.Dataset, truth: processes.HMM, tmp_path: Any
) -> None:
    xr.testing.assert_identical(emulation(Process(truth), truth, **FEW), itself)

    to_netcdf(itself, tmp_path / "a.nc")

    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "a.nc")["divergence"], itself["divergence"])


def test_the_ratio_and_its_error_are_those_of_means() -> None:
    generator = np.random.default_rng(0)
    ratios = [
        floor_ratio(generator.normal(2.0, 0.2, 40), generator.normal(1.0, 0.1, 30))[0] for _ in range(2000)
    ]

    ratio, error = floor_ratio(generator.normal(2.0, 0.2, 40), generator.normal(1.0, 0.1, 30))

    assert np.mean(ratios) == pytest.approx(2, rel=0.01)
    assert error == pytest.approx(np.std(ratios), rel=0.3) and abs(ratio - 2) < 5 * error


def divergences(model: processes.HMM, draws: int, first: int) -> np.ndarray:
    """Published divergences, blur 0.2, of 512 sequences of preset two from a model."""

    def one_hot(hmm: processes.HMM, seed: int) -> torch.Tensor:
        drawn = torch.from_numpy(hmm.sequences(512, 100, seed).symbol.values)
        return torch.nn.functional.one_hot(drawn, 3).float().flatten(1)

    truth = processes.preset("two")
    values = [
        sinkhorn(
            one_hot(model, first + 2 * i), one_hot(truth, first + 2 * i + 1), epsilon=0.04, mode="annealed"
        )
        for i in range(draws)
    ]
    return np.array([float(one.value) for one in values])


def test_a_calmer_chain_is_reported_as_less_variable_and_the_true_one_never() -> None:
    truth, calmer = processes.preset("two"), processes.linear_chain(2, 0.03)
    floor = divergences(truth, 8, 0)
    low = divergences(calmer, 4, 1000)

    assert low.mean() == pytest.approx(13.6, abs=0.3) and floor.mean() == pytest.approx(15.5, abs=0.3)
    with pytest.warns(UserWarning, match="the model is less variable than the target: its divergence is 13"):
        assert warn_if_less_variable(low, floor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw in range(20):
            assert not warn_if_less_variable(divergences(truth, 2, 2000 + 100 * draw), floor)


def test_a_little_below_the_floor_is_no_warning() -> None:
    floor = np.array([1.0, 1.01, 0.99, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_if_less_variable(floor * 0.98, floor)  # by less than 3 %
        assert not warn_if_less_variable(np.array([0.5, 1.3]), floor)  # by less than three errors


def test_matched_distances_of_a_set_to_itself_are_zero() -> None:
    values = processes.preset("three").sequences(50, 20, seed=0)["symbol"].values
    distinct = np.unique(values, axis=0)

    assert (matched_distances(distinct, distinct[::-1]) == 0).all()


def test_matched_distances_are_those_of_the_best_assignment_where_it_is_clear() -> None:
    # Two far groups; within a group sequences differ at one step, a distance of the root of two.
    model = np.array([[0] * 8, [1] * 8])
    reference = np.array([[1] * 7 + [2], [0] * 7 + [2]])

    np.testing.assert_allclose(matched_distances(model, reference), np.sqrt([2, 2]), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "published"), [("two", 100, 4.551), ("three", 100, 7.285), ("fully", 30, 1.35)]
)
def test_the_published_distances_between_two_samples(name: str, steps: int, published: float) -> None:
    hmm = processes.preset(name)

    found = matched_distances(*(hmm.sequences(5000, steps, seed)["symbol"].values for seed in (0, 1)))

    assert found.mean() == pytest.approx(published, rel=0.01)


def test_sequences_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="of one length"):
        matched_distances(np.zeros((3, 4), dtype=int), np.zeros((3, 5), dtype=int))
