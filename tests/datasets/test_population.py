"""Populations drawn from known dynamics: their laws, the published files, what is recorded and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn import datasets
from seqdyn.data import check_snapshots, from_netcdf, to_netcdf
from seqdyn.datasets.population import (
    TRAJECTORY,
    lotka_volterra,
    ou_chain,
    population,
    repressilator,
    vortex,
)
from seqdyn.sde import drifts, simulate

GENERATORS = [lotka_volterra, repressilator, vortex, ou_chain]
SPACED = 0.75 * np.arange(11)


def clouds(data: xr.Dataset) -> list[np.ndarray]:
    """Snapshots in the order of their times."""
    times = data["time"].values
    return [data["x"].values[times == t] for t in np.unique(times)]


def shifts(one: np.ndarray, other: np.ndarray) -> float:
    """Squared distance of two means in units of its covariance: chi-square with C degrees of freedom."""
    difference = one.mean(axis=0) - other.mean(axis=0)
    covariance = np.cov(other.T) * (1 / len(one) + 1 / len(other))
    return float(difference @ np.linalg.solve(np.atleast_2d(covariance), difference))


def spreads(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Log ratios of standard deviations in units of their standard error."""
    error = np.sqrt(1 / (2 * len(one)) + 1 / (2 * len(other)))
    return np.log(one.std(axis=0, ddof=1) / other.std(axis=0, ddof=1)) / error


# -- the published files ------------------------------------------------------------------------------


# They are made anew at 1000 particles. Means of all snapshots together: chi-square of 18 and 33 degrees below
# 46 and 67, false-alarm rate 3e-4; every standard deviation within 4.5 of its errors, 7e-6 each (they are not
# exactly normal). Euler steps of 0.01 leave their mark on the repressilator: with Heun its statistic is 72.
@pytest.mark.parametrize(
    ("draw", "times", "file", "limit"),
    [(lotka_volterra, range(9), "LV_data.npy", 46.0), (repressilator, SPACED, "repres_data.npy", 67.0)],
)
def test_the_published_snapshots_have_the_moments_of_their_equations(
    draw: Callable[..., xr.Dataset], times: Any, file: str, limit: float, data_dir: Path
) -> None:
    if not (data_dir / "sbirr" / file).is_file():
        pytest.skip(f"SEQDYN_DATA has no sbirr/{file}")
    published = np.load(data_dir / "sbirr" / file, allow_pickle=False)

    anew = clouds(draw(1000, times, coupled=True, method="euler", seed=1))

    assert len(anew) == len(published)
    assert sum(map(shifts, published, anew)) < limit
    assert max(np.abs(spreads(a, b)).max() for a, b in zip(published, anew, strict=True)) < 4.5


def test_the_benchmark_has_the_moments_of_proportional_noise(data_dir: Path) -> None:
    # Chi-square of 22 degrees below 51, false-alarm rate 4e-4.
    published = benchmark(data_dir, "LV_data.npz")

    anew = clouds(
        lotka_volterra(
            1000, range(11), volatility=0.02, noise="proportional", coupled=True, step_size=0.05, seed=1
        )
    )

    assert sum(map(shifts, published, anew)) < 51
    assert max(np.abs(spreads(a, b)).max() for a, b in zip(published, anew, strict=True)) < 4.5


@pytest.mark.slow
def test_the_benchmark_of_the_repressilator_was_made_with_euler_steps_of_a_thousandth(data_dir: Path) -> None:
    # Noise is so small that the error of the step shows: chi-square of 33 degrees is 33 with these steps, 61
    # with exact ones and 379 with Euler steps of 0.005. Limit 67, false-alarm rate 4e-4.
    published = benchmark(data_dir, "Repressilatormrna_data.npz")
    rng = np.random.default_rng(0)
    start = rng.uniform([1, 1, 2], [1.1, 1.1, 2.1], (4000, 3))

    paths = simulate(
        drifts.Repressilator(10.0, 3.0, 1.0, 1.0),
        lambda x, t: 0.02 * x,
        start,
        range(11),
        step_size=0.001,
        method="euler",
        seed=1,
    ).numpy()

    assert sum(map(shifts, published, paths.swapaxes(0, 1))) < 67


def benchmark(data_dir: Path, file: str) -> np.ndarray:
    path = data_dir / "mm_trajectory" / file
    if not path.is_file():
        pytest.skip(f"SEQDYN_DATA has no mm_trajectory/{file}")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["dts"], np.arange(11))
        return arrays["Xs"].astype(float)


# -- laws ---------------------------------------------------------------------------------------------


def test_a_chain_has_the_moments_of_the_ornstein_uhlenbeck_process() -> None:
    # b = -x, sigma 0.7, X_0 ~ N(2, 0.3): mean 2 e^{-t}, variance 0.3 e^{-2t} + 0.245 (1 - e^{-2t}).
    # 20,000 particles, 4 standard errors of 8 numbers: false-alarm rate 5e-4, fixed seed.
    count = 20_000
    data = ou_chain(count, step_size=0.05, seed=3)

    for time, x in zip([0.0, 0.5, 1.0, 2.0], clouds(data), strict=True):
        variance = 0.3 * np.exp(-2 * time) + 0.245 * -np.expm1(-2 * time)
        assert abs(x.mean() - 2 * np.exp(-time)) < 4 * np.sqrt(variance / count)
        assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / count)


def test_a_chain_in_two_dimensions_starts_from_its_gaussian() -> None:
    covariance = np.array([[1.0, 0.6], [0.6, 0.5]])
    data = ou_chain(
        20_000, [0.0, 0.1], [[-1.0, 0.0], [0.5, -2.0]], 0.0, [0.1, 0.2], [3.0, -1.0], covariance, seed=1
    )
    x = clouds(data)[0]

    # 4 standard errors of five numbers, false-alarm rate 3e-4.
    assert (np.abs(x.mean(axis=0) - [3, -1]) < 4 * np.sqrt(np.diag(covariance) / 20_000)).all()
    scale = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / 20_000)
    assert (np.abs(np.cov(x.T) - covariance) < 4 * scale).all()
    assert data.attrs["matrix_1_0"] == 0.5 and data.attrs["volatility_1"] == 0.2


def test_snapshots_of_their_own_and_of_the_same_particles_have_one_law() -> None:
    own = clouds(lotka_volterra(2000, [0.0, 2.0, 5.0], seed=1))
    same = clouds(lotka_volterra(2000, [0.0, 2.0, 5.0], coupled=True, seed=2))

    # Chi-square of 6 degrees below 24: 5e-4; standard deviations within 4.5 errors.
    assert sum(map(shifts, own, same)) < 24
    assert max(np.abs(spreads(a, b)).max() for a, b in zip(own, same, strict=True)) < 4.5


def test_particles_are_followed_only_if_coupled() -> None:
    # A step of 0.01 moves a particle by about 0.02, while particles are 0.1 apart.
    times = [1.0, 1.01]
    same = lotka_volterra(200, times, coupled=True, seed=1)
    own = lotka_volterra(200, times, seed=1)

    moved, redrawn = (np.subtract(*clouds(data)[::-1]) for data in (same, own))
    assert redrawn.std() > 4 * moved.std()
    assert TRAJECTORY not in own.coords
    np.testing.assert_array_equal(same[TRAJECTORY].values, np.tile(np.arange(200), 2))


def test_coupled_snapshots_of_unequal_size_show_the_first_particles() -> None:
    full = lotka_volterra(5, [0.0, 1.0, 2.0], coupled=True, seed=1)
    part = lotka_volterra([2, 5, 3], [0.0, 1.0, 2.0], coupled=True, seed=1)

    for few, many in zip(clouds(part), clouds(full), strict=True):
        np.testing.assert_allclose(few, many[: len(few)])
    assert part[TRAJECTORY].values.tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 1, 2]


def test_a_snapshot_before_others_shows_the_start() -> None:
    data = repressilator([7, 30], [0.0, 3.0], seed=1)
    first, second = clouds(data)

    assert first.shape == (7, 3) and second.shape == (30, 3)
    assert (first >= [1, 1, 2]).all() and (first <= [1.1, 1.1, 2.1]).all()
    assert (np.abs(second - first.mean(axis=0)).max(axis=1) > 0.3).all()


def test_the_start_is_at_its_own_time_whether_it_is_seen_or_not() -> None:
    # Chi-square of 2 degrees below 18, 1e-4 each.
    whole = clouds(lotka_volterra(2000, [0.0, 2.0], seed=1))[1]
    late = clouds(lotka_volterra(2000, [2.0], seed=2))[0]
    shifted = clouds(lotka_volterra(2000, [12.0], start_time=10.0, seed=3))[0]

    assert shifts(late, whole) < 18
    assert shifts(shifted, whole) < 18


def test_proportional_noise_is_proportional_and_keeps_states_positive() -> None:
    # Without drift x_t = x_0 exp(s W - s² t / 2): its logarithm has variance s² t, whatever the size of x.
    box = [(1e-3, 1e-3), (1e3, 1e3)]
    data = population(
        drifts.Zero(), [0.5, 0.8], box, [4.0], 10_000, noise="proportional", step_size=1.0, seed=1
    )
    x = clouds(data)[0]

    assert (x > 0).all()
    spread = np.log(x / [1e-3, 1e3])
    # 4 standard errors of four numbers, 3e-4.
    expected = np.array([0.5, 0.8]) * 2
    assert (np.abs(spread.std(axis=0) / expected - 1) < 4 / np.sqrt(2 * 10_000)).all()
    assert (np.abs(spread.mean(axis=0) + expected**2 / 2) < 4 * expected / 100).all()


def test_a_vortex_turns_counter_clockwise_around_its_centre() -> None:
    data = vortex(200, [0.0, 1.0, 2.0], {"centre_x": 0.5}, volatility=0.0, start=[(1.5, 1.5), (0, 0)], seed=1)
    around = np.array([x.mean(axis=0) for x in clouds(data)]) - [0.5, 0.0]
    angle = np.unwrap(np.arctan2(around[:, 1], around[:, 0]))

    # r = 1 stays 1, the speed there is 1 - 1/e.
    np.testing.assert_allclose(np.linalg.norm(around, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(angle, -np.expm1(-1.0) * np.arange(3), atol=1e-4)


def test_a_function_may_draw_the_starts() -> None:
    def ring(rng: np.random.Generator, count: int) -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi, count)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    data = population(drifts.Zero(), 0.0, ring, [0.0, 1.0], 20, seed=1)

    np.testing.assert_allclose(np.linalg.norm(data["x"].values, axis=1), 1.0)
    assert data["feature"].values.tolist() == ["x_0", "x_1"]


def test_a_drift_may_depend_on_time_and_be_a_plain_function() -> None:
    data = population(lambda x, t: 2 * t + 0 * x, 0.0, [(0, 0)], [1.0, 2.0], 2, start_time=0.5, seed=1)

    np.testing.assert_allclose(data["x"].values[:, 0], [0.75, 0.75, 3.75, 3.75])


@pytest.mark.parametrize("unit", [1.0, 86400.0])
def test_steps_are_a_share_of_the_time_that_passes(unit: float) -> None:
    seen = []

    def decay(x: torch.Tensor, t: Any) -> torch.Tensor:
        seen.append(t)
        assert len(seen) <= 2010, "far more steps than there is change"
        return -x / unit

    data = population(decay, 0.0, [(1, 1)], [1.0 * unit, 3.0 * unit], 2, start_time=unit / 2, seed=1)

    assert data.attrs["step_size"] == pytest.approx(2.5e-3 * unit)
    assert len(seen) >= 1000
    np.testing.assert_allclose(data["x"].values[:, 0], np.exp([-0.5, -0.5, -2.5, -2.5]), rtol=1e-5)
    alone = population(drifts.Zero(), 1.0, [(1, 1)], [unit], 2, start_time=unit, seed=1)
    np.testing.assert_array_equal(alone["x"], 1)


# -- records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", GENERATORS)
def test_a_draw_follows_the_schema_and_survives_a_file(
    draw: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    data = draw(4, [0.0, 0.5, 1.25], coupled=True, seed=5, step_size=0.05)

    check_snapshots(data)
    assert data["x"].dtype == np.float64 and data["x"].attrs["units"] == "1"
    to_netcdf(data, tmp_path / "data.nc")
    back = from_netcdf(tmp_path / "data.nc")
    xr.testing.assert_identical(back.drop_vars("feature"), data.drop_vars("feature"))
    assert back["feature"].values.tolist() == data["feature"].values.tolist()
    assert all(isinstance(value, str | int | float) for value in data.attrs.values())


def test_the_truth_is_in_the_attributes() -> None:
    data = lotka_volterra(2, [0.0, 1.0], {"alpha": 1.5}, volatility=[0.1, 0.2], seed=7)

    assert data.attrs == {
        "system": "Lotka-Volterra", "alpha": 1.5, "beta": 0.4, "gamma": 0.4, "delta": 0.1,
        "volatility_0": 0.1, "volatility_1": 0.2, "noise": "additive", "coupled": 0, "start_time": 0.0,
        "step_size": 0.01, "method": "heun", "seed": 7,
    }  # fmt: skip
    assert data["feature"].values.tolist() == ["prey", "predators"]


def test_a_network_is_not_written_to_the_attributes() -> None:
    data = population(drifts.GradientField(1), 0.1, [(0, 1)], [0.0, 0.1], 2, seed=1)

    assert set(data.attrs) == {
        "system", "volatility", "noise", "coupled", "start_time", "step_size", "method", "seed",
    }  # fmt: skip


@pytest.mark.parametrize("draw", GENERATORS)
def test_seeds_reproduce_and_leave_the_ambient_streams_alone(draw: Callable[..., xr.Dataset]) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, again, other = (draw(3, [0.0, 0.2], seed=seed)["x"].values for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]


def test_a_draw_without_seed_records_the_one_it_took() -> None:
    data = lotka_volterra(3, [0.0, 0.2])

    assert not np.array_equal(lotka_volterra(3, [0.0, 0.2])["x"], data["x"])
    xr.testing.assert_identical(lotka_volterra(3, [0.0, 0.2], seed=data.attrs["seed"]), data)


def test_starts_and_noise_of_a_seed_are_not_the_same_numbers() -> None:
    data = ou_chain(2000, [0.0, 1.0], [[0.0]], start_mean=0.0, coupled=True, seed=1)
    start, end = (x[:, 0] for x in clouds(data))

    # The correlation of 2000 pairs, 4 standard errors, 6e-5.
    assert abs(np.corrcoef(start, end - start)[0, 1]) < 4 / np.sqrt(2000)


def test_the_generators_are_found_in_the_package() -> None:
    assert datasets.lotka_volterra is lotka_volterra
    assert datasets.repressilator is repressilator
    assert datasets.vortex is vortex
    assert datasets.ou_chain is ou_chain
    assert datasets.population.population is population


# -- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": {"epsilon": 1.0}}, "no parameter 'epsilon'; the parameters are alpha, beta, gamma"),
        ({"parameters": {"alpha": -1.0}}, "alpha must be at least 0, got -1.0"),
        ({"times": [1.0, 0.5]}, r"times must be increasing finite numbers, got \[1.0, 0.5\]; sort them"),
        ({"times": []}, "times must be increasing finite numbers"),
        ({"times": [0.0, np.inf]}, "times must be increasing finite numbers"),
        ({"times": [-1.0, 0.5]}, "at time -1, before the start at 0; pass start_time=-1"),
        ({"num_particles": 0}, "num_particles must be a whole number of at least 1, got 0"),
        ({"num_particles": [5, 0]}, r"num_particles\[1\] must be a whole number of at least 1, got 0"),
        ({"num_particles": [5, 5, 5]}, "num_particles has 3 entries for 2 times"),
        ({"noise": "gaussian"}, "noise must be 'additive' or 'proportional', got 'gaussian'"),
        ({"method": "srk"}, "method must be 'heun' or 'euler', got 'srk'"),
        ({"noise": "proportional", "start": [(-1, 1), (1, 2)]}, "needs positive starts.*noise='additive'"),
        ({"noise": "proportional", "volatility": np.eye(2)}, "pass the diagonal of the matrix"),
        ({"volatility": [0.1, 0.1, 0.1]}, "with 2 features, got shape"),
        ({"start": [(2, 1), (0, 1)]}, r"start must be a function or one pair \(lowest, highest\)"),
        ({"start": [1.0, 2.0]}, r"start must be a function or one pair \(lowest, highest\)"),
        ({"start": lambda rng, n: np.ones(n)}, r"start\(rng, 6\) must give.*got shape \(6,\)"),
        ({"start": lambda rng, n: np.full((n, 2), np.nan)}, "start must give finite numbers"),
        ({"start": [(1, 2)]}, "features has 2 names but the states have 1 columns"),
        ({"step_size": 0}, "step_size must be a positive number"),
        ({"seed": 0.5}, "seed must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"num_particles": 3, "times": [0.0, 1.0], **arguments}

    with pytest.raises(ValueError, match=message):
        lotka_volterra(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": -1.0}, r"matrix must be \(C, C\), got shape \(\); type \[\[-1.0\]\]"),
        ({"matrix": np.zeros((2, 3))}, r"matrix must be \(C, C\), got shape \(2, 3\)"),
        ({"offset": [1.0, 2.0]}, r"offset must be a number or one per feature \(1\)"),
        ({"start_covariance": [[1.0, 2.0], [2.0, 1.0]]}, r"start_covariance must be a variance or"),
        ({"start_covariance": -1.0}, "start_covariance has the negative eigenvalue -1"),
        ({"start_mean": [1.0, 2.0]}, r"start_mean must be a number or one per feature \(1\)"),
    ],
)
def test_what_is_no_chain_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ou_chain(3, **arguments)
