"""Distances between clouds: closed forms, definitions written out, invariances, other libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
import xarray as xr

from seqdyn import metrics
from seqdyn.ot import displacement, distances

Metric = Callable[..., float]


def w1(x: Any, y: Any, *weights: Any) -> float:
    return metrics.wasserstein(x, y, 1, *weights)


def w2(x: Any, y: Any, *weights: Any) -> float:
    return metrics.wasserstein(x, y, 2, *weights)


ALL: dict[str, Metric] = {
    "w1": w1,
    "w2": w2,
    "energy": metrics.energy_distance,
    "mmd": metrics.mmd,
    "sliced": metrics.sliced_wasserstein,
}
TRANSPORT = ["w1", "w2", "sliced"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * [1, 2, 0.5] + 0.3


def labelled(values: np.ndarray, features: str = "abc", **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, {"feature": list(features)}, ("particle", "feature"), attrs=attrs)


# Closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_shifted_cloud_is_its_shift_away(rng: np.random.Generator, size: float) -> None:
    # Exact for W2 and, as the shift is the best plan for any norm, for W1; along a direction θ it is θ·s, and
    # the mean of (θ·s)² over the sphere is |s|² / C. 4000 directions give it to 2 % (three sd are 2.1 %).
    x, shift = rng.normal(size=(50, 3)), size * np.array([3.0, -4.0, 0.0])

    assert w2(x, x + shift) == pytest.approx(5 * size, rel=1e-9)
    assert w1(x, x + shift) == pytest.approx(5 * size, rel=1e-9)
    sliced = metrics.sliced_wasserstein(x, x + shift, num_projections=4000)
    assert sliced == pytest.approx(5 * size / 3**0.5, rel=0.02)


@pytest.mark.parametrize("weighted", [False, True])
def test_on_a_line_it_is_the_distance_of_quantile_functions(rng: np.random.Generator, weighted: bool) -> None:
    x, y = rng.normal(size=23), rng.normal(size=17) * 2 + 1
    a, b = (rng.random(23), rng.random(17)) if weighted else (np.ones(23), np.ones(17))
    levels = (np.arange(200_000) + 0.5) / 200_000  # midpoints: the integral of steps to 1e-4

    def quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        order = np.argsort(values)
        return values[order][np.searchsorted(np.cumsum(weights[order]) / weights.sum(), levels)]

    gap = np.abs(quantiles(x, a) - quantiles(y, b))
    clouds = (x[:, None], y[:, None], a, b)
    assert w1(*clouds) == pytest.approx(gap.mean(), rel=1e-3)
    assert w2(*clouds) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-3)
    assert metrics.sliced_wasserstein(*clouds) == pytest.approx(w2(*clouds), rel=1e-10)


def test_gaussians(rng: np.random.Generator) -> None:
    # W2² = |m|² + Σ (s_i - t_i)² between N(0, diag s²) and N(m, diag t²): 1 + 1 + 4 = 6. A cloud of 2000
    # lies .2 % above in the mean with sd .02 of W2; tolerance 3 sd.
    x = rng.normal(size=(2000, 2)) * [1, 3]
    y = rng.normal(size=(2000, 2)) * [2, 1] + [1, 0]

    assert w2(x, y) == pytest.approx(6**0.5, abs=0.1)


def test_energy_distance_of_gaussians_on_a_line(rng: np.random.Generator) -> None:
    # E|N(m, s²)| = s √(2/π) exp(-m²/2s²) + m (1 - 2Φ(-m/s)), here with s² = 2 and m = 1 and 0:
    # 2·1.3993 - 2·2/√π = .5418. Standard error .014 at 4000 particles each; tolerance 3 of them.
    x, y = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)) + 1

    assert metrics.energy_distance(x, y) == pytest.approx(0.5418, abs=0.042)


def test_mmd_of_gaussians_on_a_line(rng: np.random.Generator) -> None:
    # E exp(-(u-v)²/2m) with u - v ~ N(d, 2) is √(m/(m+2)) exp(-d²/(2(m+2))). Standard error .005 at 4000.
    x, y, m = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)) + 1, 1.5

    expected = 2 * np.sqrt(m / (m + 2)) * (1 - np.exp(-1 / (2 * (m + 2))))
    assert metrics.mmd(x, y, bandwidth=m) == pytest.approx(expected, abs=0.015)


# Definitions written out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_means_over_pairs_as_written(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, weighted: bool
) -> None:
    x, y = pair
    a, b = (rng.random(40), rng.random(30)) if weighted else (np.full(40, 3.0), np.full(30, 0.1))

    def mean(u: np.ndarray, v: np.ndarray, p: np.ndarray, q: np.ndarray, kernel: Any, same: bool) -> float:
        total = weight = 0.0
        for i, (one, w) in enumerate(zip(u, p / p.sum(), strict=True)):
            for j, (other, v_weight) in enumerate(zip(v, q / q.sum(), strict=True)):
                if not (same and i == j):
                    total += w * v_weight * kernel(((one - other) ** 2).sum())
                    weight += w * v_weight
        return total / weight

    def gap(kernel: Any) -> float:
        within = mean(x, x, a, a, kernel, True) + mean(y, y, b, b, kernel, True)
        return 2 * mean(x, y, a, b, kernel, False) - within

    squares = [((y[i] - y[j]) ** 2).sum() for i in range(30) for j in range(i)]
    m = float(np.median(squares))
    given = (a, b) if weighted else (None, None)
    assert metrics.energy_distance(x, y, *given) == pytest.approx(gap(np.sqrt), rel=1e-10)
    expected = -gap(lambda squared: np.exp(-squared / (2 * m)))
    assert metrics.mmd(x, y, *given) == pytest.approx(expected, rel=1e-10)
    assert metrics.mmd(x, y, *given, bandwidth=m) == metrics.mmd(x, y, *given)


def test_blocks_of_rows_change_nothing(
    pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metrics.energy_distance(*pair), metrics.mmd(*pair)
    monkeypatch.setattr(distances, "_BLOCK", 100)

    assert (metrics.energy_distance(*pair), metrics.mmd(*pair)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_transport_agrees_with_pot(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, weighted: bool
) -> None:
    x, y = pair
    a, b = (rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(30))) if weighted else ([], [])
    given = (a, b) if weighted else ()
    directions = np.random.default_rng(3).standard_normal((50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    assert w2(x, y, *given) == pytest.approx(ot.emd2(a, b, ot.dist(x, y)) ** 0.5, rel=1e-10)
    assert w1(x, y, *given) == pytest.approx(ot.emd2(a, b, ot.dist(x, y, "euclidean")), rel=1e-10)
    sliced = metrics.sliced_wasserstein(x, y, *given, num_projections=50, seed=3)
    theirs = ot.sliced_wasserstein_distance(x, y, *(given or (None, None)), projections=directions.T)
    assert sliced == pytest.approx(theirs, rel=1e-8)


# Invariances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_permuting_moving_and_turning_both_clouds_changes_nothing(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, name: str
) -> None:
    x, y = pair
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] if name != "sliced" else np.eye(3)
    shift = np.array([10.0, -3.0, 0.5])

    moved = ALL[name](rng.permutation(x) @ turn + shift, rng.permutation(y) @ turn + shift)

    assert moved == pytest.approx(ALL[name](x, y), rel=1e-9)


@pytest.mark.parametrize("factor", [1e-12, 1e3, 1e12])
@pytest.mark.parametrize("name", ALL)
def test_the_unit_of_the_data_is_the_unit_of_the_distance(
    pair: tuple[np.ndarray, np.ndarray], name: str, factor: float
) -> None:
    x, y = pair

    expected = ALL[name](x, y) * (1 if name == "mmd" else factor)
    assert ALL[name](factor * x, factor * y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["w1", "w2", "energy", "sliced"])
def test_it_is_symmetric(pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, name: str) -> None:
    (x, y), a = pair, rng.random(40)

    assert ALL[name](x, y, a, None) == pytest.approx(ALL[name](y, x, None, a), rel=1e-9)


@pytest.mark.parametrize("name", TRANSPORT)
def test_copies_are_weights(pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, name: str) -> None:
    x, y = pair
    copies = rng.integers(0, 4, size=40)

    assert ALL[name](np.repeat(x, 2, axis=0), y) == pytest.approx(ALL[name](x, y), rel=1e-9)
    assert ALL[name](np.repeat(x, copies, axis=0), y) == pytest.approx(ALL[name](x, y, copies), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_weights_need_not_sum_to_one_and_zeros_remove(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, name: str
) -> None:
    (x, y), a = pair, rng.random(40)
    a[5:10] = 0
    kept = a > 0

    assert ALL[name](x, y, 7 * a) == pytest.approx(ALL[name](x, y, a), rel=1e-9)
    assert ALL[name](x[kept], y, a[kept]) == pytest.approx(ALL[name](x, y, a), rel=1e-9)


@pytest.mark.parametrize("name", TRANSPORT)
def test_a_cloud_is_at_zero_from_itself_exactly(rng: np.random.Generator, name: str) -> None:
    x, a, order = 1e5 + rng.normal(size=(300, 4)), rng.random(300), rng.permutation(300)

    assert ALL[name](x, x) == 0
    assert ALL[name](x, x[order]) == 0
    assert ALL[name](x, x[order], a, a[order]) == 0
    assert ALL[name](x[:1], x[:1]) == 0


def test_w1_is_at_most_w2_and_sliced_below_both(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert 0 < metrics.sliced_wasserstein(*pair) < w2(*pair)
    assert 0 < w1(*pair) < w2(*pair)


@pytest.mark.parametrize("name", ["energy", "mmd"])
def test_unbiased_ones_average_to_zero_under_one_law(rng: np.random.Generator, name: str) -> None:
    # Mean of 200 within three standard errors of 0 (one false alarm in 370); a V-statistic fails by far.
    found = [ALL[name](rng.normal(size=(10, 2)), rng.normal(size=(12, 2))) for _ in range(200)]

    assert abs(np.mean(found)) < 3 * np.std(found) / 200**0.5
    assert min(found) < 0


# Kinds of input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_arrays_tensors_and_labelled_clouds_agree(pair: tuple[np.ndarray, np.ndarray], name: str) -> None:
    x, y = pair
    expected = ALL[name](x, y)

    assert ALL[name](torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)) == expected
    assert ALL[name](labelled(x), labelled(y).T) == expected
    assert ALL[name](labelled(x).to_dataset(name="x"), y) == expected
    assert ALL[name](labelled(x), labelled(y[:, [2, 0, 1]], "cab")) == expected
    single = ALL[name](torch.from_numpy(x).float(), y.astype(np.float32))
    assert single == pytest.approx(expected, rel=1e-5)


def test_weights_may_be_labelled_or_tensors(pair: tuple[np.ndarray, np.ndarray]) -> None:
    (x, y), a = pair, np.arange(40.0)

    assert w2(x, y, xr.DataArray(a, dims="particle")) == w2(x, y, torch.from_numpy(a)) == w2(x, y, a)


def test_directions_belong_to_the_seed_and_leave_global_randomness_alone(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    state = np.random.get_state()[1].copy()

    first, again, other = (metrics.sliced_wasserstein(*pair, seed=seed) for seed in (0, 0, 1))

    assert first == again != other
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_neither_xarray_nor_torch_is_loaded_for_arrays() -> None:
    code = (
        "import sys, numpy as np, seqdyn.metrics as m; x = np.eye(3); m.energy_distance(x, x); m.mmd(x, x); "
        "m.sliced_wasserstein(x, x); print([n for n in ('torch', 'xarray', 'ot') if n in sys.modules])"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"


# Split halves ---------------------------------------------------------------------------------------------


def test_split_halves_are_disjoint_and_cover_the_cloud() -> None:
    seen = []

    def spy(x: np.ndarray, y: np.ndarray) -> float:
        seen.append((x.ravel().tolist(), y.ravel().tolist()))
        return float(len(seen))

    found = metrics.split_half(np.arange(7.0)[:, None], spy, num_repeats=5)

    assert all((len(x), len(y)) == (3, 4) and sorted(x + y) == list(range(7)) for x, y in seen)
    assert len({tuple(sorted(x)) for x, _ in seen}) > 1
    assert found == (3.0, pytest.approx(2.5**0.5))


def test_split_half_depends_on_the_seed_alone(rng: np.random.Generator) -> None:
    x = labelled(rng.normal(size=(50, 3)))

    first = metrics.split_half(x, metrics.wasserstein)

    assert first == metrics.split_half(x.values, metrics.wasserstein, seed=0)
    assert first != metrics.split_half(x, metrics.wasserstein, seed=1)
    assert first.mean > 5 * first.sd > 0


def test_split_halves_leave_out_particles_without_weight_and_keep_the_weights_of_others() -> None:
    x, weights = np.arange(8.0)[:, None], np.array([1.0, 0, 1, 2, 0, 1, 1, 2]) / 8
    seen = []

    def spy(*parts: np.ndarray) -> float:
        seen.append(parts)
        return 1.0

    distances.split_half(x, spy, num_repeats=4, weights=weights)

    for first, second, a, b in seen:
        kept = np.concatenate([first, second]).ravel().astype(int)
        assert sorted(kept) == [0, 2, 3, 5, 6, 7] and len(first) == 3
        np.testing.assert_allclose(np.concatenate([a, b]), weights[kept])
    with pytest.raises(ValueError, match=r"x has 3 particle\(s\) with weight, .* at least 4"):
        distances.split_half(x, spy, weights=[1, 1, 1, 0, 0, 0, 0, 0])


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:, :2]), "same features, got 3 and 2"),
        (
            lambda x, y: (x[:0], y),
            r"x must have shape \(particles, features\), both at least 1, got \(0, 3\)",
        ),
        (lambda x, y: (x, y[:, :0]), r"y must have shape .* got \(30, 0\)"),
        (lambda x, y: (x[:, 0], y), r"got \(40,\); .*numbers of one feature are x\[:, None\]"),
        (lambda x, y: (x.astype(complex), y), "x must hold real numbers, got dtype complex128"),
        (lambda x, y: (np.where(np.arange(40)[:, None] == 7, np.nan, x), y), r"1 of 40 .*at x\[7\]: \[nan"),
        (lambda x, y: (x, np.where(y == y.max(), np.inf, y)), "y has 1 of 30 particles with NaN, infinity"),
        (lambda x, y: (x * 1e200, y), "or a number beyond 1e.150.*change the unit"),
    ],
)
def test_clouds_that_do_not_fit_are_refused(
    pair: tuple[np.ndarray, np.ndarray], name: str, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ALL[name](*change(*pair))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(41), r"x_weights must have shape \(40,\), one weight per particle, got \(41,\)"),
        (np.arange(40) - 3.0, r"not negative, got -3 at x_weights\[0\]"),
        (np.where(np.arange(40) == 2, np.nan, 1.0), r"got nan at x_weights\[2\]"),
        (np.zeros(40), "x_weights are all 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    pair: tuple[np.ndarray, np.ndarray], name: str, weights: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ALL[name](*pair, weights)


@pytest.mark.parametrize("order", [0, 3, 1.5, "2", True, None])
def test_other_orders_are_refused(pair: tuple[np.ndarray, np.ndarray], order: Any) -> None:
    with pytest.raises(ValueError, match="order must be 1 or 2, got"):
        metrics.wasserstein(*pair, order)


@pytest.mark.parametrize("name", ["energy", "mmd"])
def test_a_single_particle_has_no_spread(pair: tuple[np.ndarray, np.ndarray], name: str) -> None:
    x, y = pair
    alone = np.eye(40)[3]

    for arguments in ((x[:1], y), (x, y, alone)):
        with pytest.raises(ValueError, match=r"x has a single particle with weight.*use wasserstein\(x, y\)"):
            ALL[name](*arguments)
    with pytest.raises(ValueError, match="y has a single particle"):
        ALL[name](x, y[:1])


def test_a_bandwidth_is_needed_where_most_particles_coincide(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y = np.zeros((10, 3))
    y[0] = 1

    with pytest.raises(ValueError, match="most particles of y coincide.*give bandwidth="):
        metrics.mmd(pair[0], y)
    assert np.isfinite(metrics.mmd(pair[0], y, bandwidth=1.0))
    with pytest.raises(ValueError, match="bandwidth must be a positive number, got 0"):
        metrics.mmd(*pair, bandwidth=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.expand_dims(time=3),
            r"dims \('particle', 'feature'\), got .*choose one time with y.sel",
        ),
        (lambda x: x.rename(particle="cell"), r"rename others with y.rename\(OLD='particle'\)"),
        (
            lambda x: x.assign_coords(time=("particle", np.arange(30.0))),
            "y holds particles of 30 times, 0.0 ",
        ),
        (lambda x: x.assign_coords(feature=["a", "b", "d"]), r"differ in \['c', 'd'\]; choose those of both"),
        (lambda x: x.assign_attrs(units="mm"), "x is in 'm' and y in 'mm'"),
        (lambda x: x.to_dataset(name="z"), r"y needs the variable 'x', found \['z'\]; rename yours"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    pair: tuple[np.ndarray, np.ndarray], change: Any, message: str
) -> None:
    x, y = pair

    with pytest.raises(ValueError, match=message):
        metrics.wasserstein(labelled(x, units="m"), change(labelled(y)))


def test_one_time_of_several_is_fine(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    both = labelled(np.concatenate([x, y])).assign_coords(time=("particle", [0.0] * 40 + [1.0] * 30))

    chosen = (both[both.time.values == time] for time in (0.0, 1.0))

    assert w2(*chosen) == w2(x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.eye(3)}, r"x has 3 particle\(s\), but two halves need at least 4"),
        ({"num_repeats": 1}, "num_repeats must be a whole number of at least 2"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1; type for instance seed=0"),
    ],
)
def test_splits_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.split_half(**{"x": np.eye(5), "metric": metrics.wasserstein, **arguments})


@pytest.mark.parametrize(("name", "value"), [("num_projections", 0), ("seed", 0.5)])
def test_settings_of_directions_are_counts(
    pair: tuple[np.ndarray, np.ndarray], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        metrics.sliced_wasserstein(*pair, **{name: value})


# Published data -------------------------------------------------------------------------------------------

# Displacement interpolation between the neighbours of each odd snapshot, as measured before with other code.
DISPLACEMENT = {
    "LV_data.npy": [0.747, 0.244, 0.278, 0.472],
    "repres_data.npy": [1.48, 1.28, 1.04, 1.00, 1.12],
    "GoMvortex_data.npy": [0.271, 0.352, 0.177, 0.098],
    "GoMvortexsmall_data.npy": [0.167, 0.220, 0.239, 0.297],
    "eb_data.npy": [0.913, 1.125],
}


@pytest.mark.parametrize("file", DISPLACEMENT)
def test_displacement_on_published_snapshots(data_dir: Path, file: str) -> None:
    x = np.load(data_dir / "sbirr" / file)

    held_out = range(1, len(x) - 1, 2)
    between = [displacement(x[k - 1], x[k + 1], 0.5) for k in held_out]
    found = [w2(points, x[k], weights) for k, (points, weights) in zip(held_out, between, strict=True)]

    np.testing.assert_allclose(found, DISPLACEMENT[file], rtol=0.006)


def test_displacement_between_unequal_times_and_sizes(data_dir: Path) -> None:
    with np.load(data_dir / "sbirr" / "hESC_data.npz") as arrays:
        x = [arrays["x"][arrays["snapshot"] == k] for k in range(5)]

    half, weights_half = displacement(x[0], x[2], 0.5)
    quarter, weights_quarter = displacement(x[2], x[4], 0.25)

    assert w2(half, x[1], weights_half) == pytest.approx(1.068, abs=6e-4)
    assert w2(quarter, x[3], weights_quarter) == pytest.approx(1.496, abs=6e-4)


@pytest.mark.parametrize(("index", "expected"), [(1, 0.126), (3, 0.037)])
def test_energy_distance_in_thirty_features(data_dir: Path, index: int, expected: float) -> None:
    folder = data_dir / "mm_trajectory"
    with np.load(folder / "processed_pbmc_data_sub500_every_2_until20.npz") as arrays:
        x = arrays["Xs"]

    points, weights = displacement(x[index - 1], x[index + 1], 0.5)

    assert metrics.energy_distance(points, x[index], weights) == pytest.approx(expected, abs=6e-4)
