"""Calibration pictures show the counts they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from seqdyn import plot


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


def pit_of(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"pit": (("series", "time", "feature"), values.reshape(1, -1, 1))})


def counts(covered: list[int], num_observed: int) -> xr.Dataset:
    levels = np.linspace(0.25, 0.75, len(covered))
    return xr.Dataset({"covered": ("level", covered), "num_observed": num_observed}, {"level": levels})


def test_pit_bars_are_a_density() -> None:
    u = np.random.default_rng(0).random(500) ** 2
    u[:50] = np.nan

    ax = plot.pit(pit_of(u), num_bins=10)

    heights = [bar.get_height() for bar in ax.patches[:10]]
    expected, _ = np.histogram(u[50:], bins=10, range=(0, 1), density=True)
    np.testing.assert_allclose(heights, expected)
    assert ax.get_ylim()[1] > max(heights)
    assert ax.get_xlim() == (0, 1)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(texts) == ["450 values", "95 % if calibrated"]


def test_pit_band_holds_95_per_cent_of_calibrated_bins() -> None:
    # 400 histograms of 20 nearly independent bins: standard error 0.0025. The binomial is discrete, so that
    # its interval holds at least 95 %.
    rng = np.random.default_rng(1)
    ax = plot.pit(pit_of(rng.random(1000)))
    (span,) = [patch for patch in ax.patches if patch.get_label() == "95 % if calibrated"]
    lower, upper = span.get_y(), span.get_y() + span.get_height()

    bins = np.array(
        [np.histogram(rng.random(1000), bins=20, range=(0, 1), density=True)[0] for _ in range(400)]
    )

    tolerance = 1e-9
    share = ((bins >= lower - tolerance) & (bins <= upper + tolerance)).mean()
    assert 0.945 < share < 0.975


def test_coverage_draws_actual_against_nominal_shares() -> None:
    ax = plot.coverage(counts([30, 60, 70], 100))

    (curve,) = [one for one in ax.lines if one.get_label() == "forecast, 100 values"]
    np.testing.assert_allclose(curve.get_xdata(), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve.get_ydata(), [0.3, 0.6, 0.7])
    assert "nominal" in ax.get_xlabel()
    assert "inside" in ax.get_ylabel()
    ax.figure.canvas.draw()
    assert "60%" in [text.get_text() for text in ax.get_yticklabels()]


def test_coverage_sums_over_series_and_windows() -> None:
    scores = xr.Dataset(
        {
            "covered": (("series", "window", "level"), [[[5], [0]], [[30], [15]]]),
            "num_observed": (("series", "window"), [[10, 0], [60, 30]]),
        },
        {"level": [0.5]},
    )

    ax = plot.coverage(scores)

    (curve,) = [one for one in ax.lines if str(one.get_label()).startswith("forecast")]
    np.testing.assert_allclose(curve.get_ydata(), [0.5])


def test_coverage_band_is_binomial() -> None:
    ax = plot.coverage(counts([50], 100))

    vertices = ax.collections[0].get_paths()[0].vertices
    middle = vertices[np.isclose(vertices[:, 0], 0.5), 1]
    np.testing.assert_allclose(
        [middle.min(), middle.max()], np.divide(stats.binom.interval(0.95, 100, 0.5), 100)
    )


@pytest.mark.parametrize("covered", [[5, 10, 20], [60, 90, 99]], ids=["too sure", "too cautious"])
def test_coverage_legend_stays_off_the_curve(covered: list[int]) -> None:
    ax = plot.coverage(counts(covered, 100))

    ax.figure.canvas.draw()
    (curve,) = [one for one in ax.lines if one.get_label() == "forecast, 100 values"]
    points = ax.transData.transform(curve.get_xydata())
    assert not ax.get_legend().get_window_extent().count_contains(points)


def test_they_draw_on_given_axes() -> None:
    _, (left, right) = plt.subplots(1, 2)

    assert plot.pit(pit_of(np.random.default_rng(2).random(50)), ax=left) is left
    assert plot.coverage(counts([1], 2), ax=right) is right
    assert len(plt.get_fignums()) == 1


def test_missing_or_empty_data_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"need the variable 'pit', found \['covered', 'num_observed'\].*evaluate"
    ):
        plot.pit(counts([1], 2))
    with pytest.raises(ValueError, match="need the variable 'covered', found"):
        plot.coverage(pit_of(np.ones(3)))
    with pytest.raises(ValueError, match="'pit' holds NaN only"):
        plot.pit(pit_of(np.full(3, np.nan)))
    with pytest.raises(ValueError, match="'num_observed' is zero"):
        plot.coverage(counts([0], 0))
