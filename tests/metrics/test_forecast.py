"""Scores of forecasts against hand-computed values, their definitions and each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn import metrics
from seqdyn.metrics import ensemble

LEVELS = np.arange(1, 10) / 10


def panel(values: np.ndarray, *, start: str = "2024-01-01", units: str | None = None) -> xr.Dataset:
    """Label values (series, time, feature) or, with a leading dim, (sample, series, time, feature)."""
    dims = ("sample", "series", "time", "feature")[-values.ndim :]
    *_, num_series, num_steps, num_features = values.shape
    coords = {
        "series": [f"s{i}" for i in range(num_series)],
        "time": pd.date_range(start, periods=num_steps, freq="h"),
        "feature": [f"f{i}" for i in range(num_features)],
    }
    target = xr.DataArray(values, coords=coords, dims=dims)
    if units is not None:
        target.attrs["units"] = units
    return target.to_dataset(name="target")


@pytest.fixture
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    rng = np.random.default_rng(0)
    return panel(rng.normal(3, 1, (37, 3, 5, 2))), panel(rng.normal(3, 1, (3, 5, 2)))


SCORES: dict[str, Callable[[xr.Dataset, xr.Dataset], float]] = {
    "crps": metrics.crps,
    "nd": metrics.nd,
    "nrmse": metrics.nrmse,
    "crps_sample": metrics.crps_sample,
    "energy_score": metrics.energy_score,
    "coverage": metrics.coverage,
    "interval_width": metrics.interval_width,
}


# Hand-computed --------------------------------------------------------------------------------------------


def test_crps_of_two_series_computed_by_hand() -> None:
    # Draws 0..10 in any order: the quantile at q is 10 q exactly. Truth 4 and 12, one step each.
    draws = np.random.default_rng(1).permutation(11).astype(float)
    forecast = panel(np.tile(draws[:, None, None, None], (1, 2, 1, 1)))
    truth = panel(np.array([[[4.0]], [[12.0]]]))

    # y = 4: 2 (4 - f) q below, 2 (f - 4)(1 - q) above: q = .1 .. .9 give
    # .6, .8, .6, 0, 1, 1.6, 1.8, 1.6, 1. y = 12: 2 (12 - 10 q) q.
    first = sum([0.6, 0.8, 0.6, 0.0, 1.0, 1.6, 1.8, 1.6, 1.0])
    second = sum(2 * (12 - 10 * q) * q for q in LEVELS)
    assert metrics.crps(forecast, truth) == pytest.approx((first + second) / 9 / 16, rel=1e-12)


def test_ranks_are_rounded_half_to_even() -> None:
    # With 6 draws, 5 q = 0.5, 1.5, 2.5, 3.5, 4.5 at the odd levels: ranks 0, 2, 2, 4, 4.
    forecast = panel(np.arange(6.0).reshape(6, 1, 1, 1))
    truth = panel(np.full((1, 1, 1), -1.0))

    losses = metrics.quantile_loss(forecast, truth, levels=(0.1, 0.3, 0.5, 0.7, 0.9))

    # The truth lies below all draws: the loss is 2 (f + 1)(1 - q).
    np.testing.assert_allclose(losses, [2 * 1 * 0.9, 2 * 3 * 0.7, 2 * 3 * 0.5, 2 * 5 * 0.3, 2 * 5 * 0.1])


def test_nrmse_and_nd_computed_by_hand() -> None:
    forecast = panel(np.array([[[[1.0], [2.0]]], [[[3.0], [2.0]]], [[[8.0], [5.0]]]]))
    truth = panel(np.array([[[2.0], [-1.0]]]))

    # Means 4 and 3, medians 3 and 2; errors of the mean 2 and 4, of the median 1 and 3.
    assert metrics.nrmse(forecast, truth) == pytest.approx(np.sqrt((4 + 16) / 2) / 1.5)
    assert metrics.nd(forecast, truth) == pytest.approx((1 + 3) / 3)


def test_mase_computed_by_hand_with_one_scale_per_series() -> None:
    history = panel(np.array([[[0.0], [1.0], [2.0], [5.0]], [[0.0], [10.0], [20.0], [10.0]]]))
    forecast = panel(np.array([[[[3.0]], [[7.0]]]]), start="2024-01-01 04:00")
    truth = panel(np.array([[[6.0]], [[2.0]]]), start="2024-01-01 04:00")

    # Season 2: mean of |2 - 0|, |5 - 1| is 3; of |20 - 0|, |10 - 10| is 10.
    assert metrics.mase(forecast, truth, history, season_length=2) == pytest.approx((3 / 3 + 5 / 10) / 2)


def test_coverage_and_width_use_mirrored_order_statistics() -> None:
    # 16 draws: 15 * 0.1 = 1.5 is rounded to rank 2, mirrored to 13.
    forecast = panel(np.tile(np.arange(16.0)[:, None, None, None], (1, 1, 4, 1)))
    truth = panel(np.array([[[2.0], [13.0], [1.9], [13.1]]]))

    assert metrics.coverage(forecast, truth, level=0.8) == 0.5
    assert metrics.interval_width(forecast, truth, level=0.8) == 11.0


# Definitions ----------------------------------------------------------------------------------------------


def test_crps_is_the_pinball_definition(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    y = truth.target.values

    total = 0.0
    for q in LEVELS:
        f = np.sort(forecast.target.values, axis=0)[int(np.round(36 * q))]
        total += 2 * np.maximum(q * (y - f), (q - 1) * (y - f)).sum() / np.abs(y).sum()

    assert metrics.crps(forecast, truth) == pytest.approx(total / 9, rel=1e-12)


def test_one_path_scores_its_normalised_deviation(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    single = forecast.isel(sample=[0])

    assert metrics.crps(single, truth) == pytest.approx(metrics.nd(single, truth), rel=1e-12)
    assert metrics.crps_sample(single, truth) == pytest.approx(
        abs(single.target[0] - truth.target).mean().item()
    )


def test_crps_sample_is_the_mean_difference_form(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    x, y = forecast.target.values, truth.target.values

    expected = np.abs(x - y).mean() - 0.5 * np.abs(x[:, None] - x[None]).mean()

    assert metrics.crps_sample(forecast, truth) == pytest.approx(expected, rel=1e-12)


def test_energy_score_measures_whole_paths(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    x = forecast.target.values.reshape(37, 3, 10)
    y = truth.target.values.reshape(3, 10)

    def norm(v: np.ndarray) -> np.ndarray:
        return np.sqrt((v**2).sum(axis=-1))

    expected = norm(x - y).mean(axis=0) - 0.5 * norm(x[:, None] - x[None]).mean(axis=(0, 1))

    assert metrics.energy_score(forecast, truth) == pytest.approx(expected.mean(), rel=1e-12)


def test_energy_score_is_the_same_in_small_blocks(
    pair: tuple[xr.Dataset, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metrics.energy_score(*pair)

    monkeypatch.setattr(ensemble, "_ENERGY_ELEMENTS", 1)

    assert metrics.energy_score(*pair) == pytest.approx(whole, rel=1e-12)


def test_energy_score_of_a_scalar_is_the_crps() -> None:
    rng = np.random.default_rng(2)
    forecast, truth = panel(rng.normal(size=(20, 4, 1, 1))), panel(rng.normal(size=(4, 1, 1)))

    assert metrics.energy_score(forecast, truth) == pytest.approx(
        metrics.crps_sample(forecast, truth), rel=1e-12
    )


def test_energy_score_prefers_paths_with_the_right_dependence() -> None:
    # Truth and draws are random walks; shuffling the draws at each step keeps every marginal. 400 series: the
    # difference of about 0.5 is many standard errors wide.
    rng = np.random.default_rng(3)
    walks = rng.normal(size=(51, 400, 12, 1)).cumsum(axis=2)
    forecast, truth = panel(walks[1:]), panel(walks[0])
    shuffled = forecast.copy(data={"target": rng.permuted(forecast.target.values, axis=0)})

    assert metrics.crps(shuffled, truth) == pytest.approx(metrics.crps(forecast, truth))
    assert metrics.energy_score(forecast, truth) < metrics.energy_score(shuffled, truth) - 0.1


# Calibration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "poisson"])
def test_pit_is_uniform_when_truth_and_draws_are_exchangeable(kind: str) -> None:
    rng = np.random.default_rng(4)
    shape = (20, 100, 50, 1)
    values = rng.normal(size=shape) if kind == "normal" else rng.poisson(1.0, size=shape).astype(float)

    u = metrics.pit(panel(values[1:]), panel(values[0])).pit.values.ravel()

    # 5000 independent values in 10 bins: chi-squared with 9 degrees of freedom exceeds 27.9 once in 1000.
    counts = np.histogram(u, bins=10, range=(0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 27.9


def test_coverage_of_exchangeable_draws_is_the_expected_share() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(101, 100, 100, 1))

    share = metrics.coverage(panel(values[1:]), panel(values[0]), level=0.8)

    # k = round(9.9) = 10, so (99 - 20) / 101 of the gaps are inside; standard error 0.0041, bound 4.
    assert share == pytest.approx(79 / 101, abs=4 * 0.0041)


def test_coverage_curve_agrees_with_coverage(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    curve = metrics.coverage_curve(*pair, levels=(0.5, 0.8))

    shares = (curve.covered / curve.num_observed).values
    np.testing.assert_array_equal(shares, [metrics.coverage(*pair, level=level) for level in (0.5, 0.8)])


def test_pit_is_the_same_under_one_seed_and_another_under_another() -> None:
    rng = np.random.default_rng(6)
    forecast = panel(rng.poisson(1.0, (10, 2, 30, 1)).astype(float))
    truth = panel(rng.poisson(1.0, (2, 30, 1)).astype(float))

    first, again, other = (metrics.pit(forecast, truth, seed=seed).pit for seed in (0, 0, 1))

    assert first.equals(again)
    assert not first.equals(other)


# Invariants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["crps", "nd", "nrmse", "coverage"])
def test_ratios_do_not_depend_on_the_unit(name: str, pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair

    assert SCORES[name](forecast * 1e3, truth * 1e3) == pytest.approx(
        SCORES[name](forecast, truth), rel=1e-12
    )


@pytest.mark.parametrize("name", ["crps_sample", "energy_score", "interval_width"])
def test_scores_in_units_scale_with_the_unit(name: str, pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair

    expected = 1e3 * SCORES[name](forecast, truth)

    assert SCORES[name](forecast * 1e3, truth * 1e3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_labels_decide_not_positions(name: str, pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    later = truth.assign_coords(time=truth.time + np.timedelta64(5, "h"))
    longer = xr.concat([truth, later * 7], "time")
    shuffled = longer.isel(series=[2, 0, 1], feature=[1, 0]).transpose("time", "feature", "series")

    assert SCORES[name](forecast, shuffled) == pytest.approx(SCORES[name](forecast, truth), rel=1e-12)
    assert SCORES[name](forecast.target, shuffled.target) == pytest.approx(SCORES[name](forecast, truth))


@pytest.mark.parametrize("name", sorted(SCORES))
def test_unobserved_truth_does_not_count(name: str, pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    mask = xr.ones_like(truth.target, dtype=bool)
    mask[0] = False
    mask[1, 3:] = False
    hidden = truth.where(mask, 1e9).assign(observed=mask)
    wrong = forecast.copy(data={"target": np.where(mask, forecast.target, -1e9)})

    score = SCORES[name](forecast, truth.where(mask))

    assert np.isfinite(score)
    assert SCORES[name](forecast, hidden) == score
    assert SCORES[name](forecast, hidden.assign(observed=mask.all("feature"))) == score
    if name == "interval_width":
        assert metrics.interval_width(wrong, hidden) == score != metrics.interval_width(wrong)
    else:
        assert SCORES[name](wrong, hidden) == score


def test_pit_and_mase_skip_unobserved_truth(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    forecast, truth = pair
    mask = xr.DataArray([True, False, True, True, False], dims="time")
    history = truth.assign_coords(time=truth.time - np.timedelta64(5, "h"))

    u = metrics.pit(forecast, truth.where(mask)).pit

    assert (u.notnull() == mask).all()
    kept = forecast.isel(time=[0, 2, 3]), truth.isel(time=[0, 2, 3])
    assert metrics.mase(forecast, truth.where(mask), history) == pytest.approx(metrics.mase(*kept, history))


def test_mase_skips_gaps_of_the_history() -> None:
    history = panel(np.array([[[1.0], [np.nan], [4.0], [6.0]]]))
    forecast = panel(np.array([[[[3.0]]]]), start="2024-01-01 04:00")
    truth = panel(np.array([[[7.0]]]), start="2024-01-01 04:00")

    assert metrics.mase(forecast, truth, history) == pytest.approx(4 / 2)


def test_numeric_times_match_up_to_rounding() -> None:
    rng = np.random.default_rng(7)
    forecast, truth = panel(rng.normal(size=(9, 1, 4, 1))), panel(rng.normal(size=(1, 4, 1)))
    times = np.cumsum(np.full(4, 0.1))

    score = metrics.crps(forecast.assign_coords(time=times), truth.assign_coords(time=np.arange(1, 5) * 0.1))

    assert score == metrics.crps(forecast, truth)


def test_integers_score_like_floats() -> None:
    rng = np.random.default_rng(8)
    draws, actual = rng.poisson(3, (9, 2, 4, 1)), rng.poisson(3, (2, 4, 1))

    assert metrics.crps(panel(draws), panel(actual)) == metrics.crps(panel(draws * 1.0), panel(actual * 1.0))


# Errors ---------------------------------------------------------------------------------------------------


def test_zero_truth_has_no_relative_score_but_a_crps_in_units() -> None:
    forecast, truth = panel(np.ones((3, 1, 2, 1))), panel(np.zeros((1, 2, 1)))

    for score in (metrics.crps, metrics.nd, metrics.nrmse):
        with pytest.raises(ValueError, match=r"all 2 observed values .* zero.*crps_sample"):
            score(forecast, truth)
    assert metrics.crps_sample(forecast, truth) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, t: (f, t.isel(series=[0, 2])), r"lacks 1 of 3 series labels of the forecast: 's1'"),
        (
            lambda f, t: (f, t.isel(time=slice(3))),
            r"lacks 2 of 5 time labels of the forecast: 2024-01-01 03:00:00",
        ),
        (lambda f, t: (f, t.isel(feature=[1])), r"lacks 1 of 2 feature labels of the forecast: 'f0'"),
        (lambda f, t: (f.isel(series=[0]), t), r"the forecast lacks 2 of 3 series .*truth.sel\(series="),
        (
            lambda f, t: (f.isel(feature=[0]), t),
            r"the forecast lacks 1 of 2 feature labels of the truth: 'f1'",
        ),
        (lambda f, t: (f, xr.concat([t, t], "series")), r"the truth holds series 's0' twice"),
        (lambda f, t: (xr.concat([f, f], "time"), t), r"the forecast holds time 2024-01-01 00:00:00 twice"),
        (
            lambda f, t: (f.isel(sample=0), t),
            r"must have dims \('sample', 'series', 'time', 'feature'\), got",
        ),
        (lambda f, t: (f.isel(sample=[]), t), r"holds no sample path"),
        (
            lambda f, t: (f, t.expand_dims("sample")),
            r"the truth must have dims \('series', 'time', 'feature'\)",
        ),
        (lambda f, t: (f, t.rename(target="y")), r"needs the variable 'target', found \['y'\]"),
        (lambda f, t: (f, t.drop_vars("time")), r"no labels along 'time'.*assign_coords\(time="),
        (
            lambda f, t: (f.where(f.series != "s2"), t),
            r"370 NaN .* sample 0, series 's2', time 2024-01-01 00",
        ),
        (lambda f, t: (f, t / 0.0), r"the truth is infinite at 30 cells, the first at series 's0'"),
        (lambda f, t: (f, t.where(False)), r"no observed value at the times of the forecast"),
    ],
)
def test_what_does_not_match_is_named(
    change: Callable[..., tuple[xr.Dataset, xr.Dataset]], message: str, pair: tuple[xr.Dataset, xr.Dataset]
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.crps(*change(*pair))


def test_arrays_without_labels_are_refused(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    with pytest.raises(TypeError, match="must be an xarray Dataset or DataArray, got ndarray"):
        metrics.crps(pair[0], pair[1].target.values)  # type: ignore[arg-type]


def test_other_units_are_refused() -> None:
    with pytest.raises(ValueError, match="the forecast is in 'kW' and the truth in 'W'"):
        metrics.crps(panel(np.ones((1, 1, 1, 1)), units="kW"), panel(np.ones((1, 1, 1)), units="W"))


def test_a_level_in_per_cent_is_refused(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, got 80; write 0.8"):
        metrics.coverage(*pair, level=80)


def test_mase_names_a_series_that_never_changes() -> None:
    history = panel(np.stack([np.arange(4.0), np.full(4, 3.0)])[..., None])
    forecast = panel(np.ones((1, 2, 1, 1)), start="2024-01-01 04:00")
    truth = panel(np.ones((2, 1, 1)), start="2024-01-01 04:00")

    with pytest.raises(ValueError, match=r"MASE is undefined for 1 series, the first is 's1'.*drop_sel"):
        metrics.mase(forecast, truth, history)


def test_mase_refuses_a_history_that_reaches_into_the_forecast(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    with pytest.raises(ValueError, match=r"the history ends at .* inside the forecast.*history.sel\(time="):
        metrics.mase(*pair, history=pair[1])
