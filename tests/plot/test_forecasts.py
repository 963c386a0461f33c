"""Fan charts and denoising pictures: what is drawn, where, and with which labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from seqdyn import plot
from seqdyn.data import from_numpy
from seqdyn.data.schema import local_time
from seqdyn.models.baselines import SeasonalEnsemble


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


@pytest.fixture
def data() -> xr.Dataset:
    values = np.random.default_rng(0).normal(10, 2, size=(3, 72, 1))
    return from_numpy(values, start="2024-05-01", freq="h", series=["north", "south", "west"], units="MW")


@pytest.fixture
def forecast(data: xr.Dataset) -> xr.Dataset:
    context = data.isel(time=slice(0, -12))
    return SeasonalEnsemble(4, 10, 12).fit(context).forecast(context, num_samples=50, seed=0)


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def band(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of a filled band at its steps."""
    (found,) = [one for one in ax.collections if one.get_label() == label]
    assert isinstance(found, PolyCollection)
    vertices = found.get_paths()[0].vertices
    steps = np.unique(vertices[:, 0])
    edges = [vertices[vertices[:, 0] == step, 1] for step in steps]
    return np.array([edge.min() for edge in edges]), np.array([edge.max() for edge in edges])


def test_bands_enclose_each_other_and_the_median(data: xr.Dataset, forecast: xr.Dataset) -> None:
    ax = plot.forecast(forecast, history=data, truth=data)[1]

    paths = forecast.target.sel(series="south")[..., 0]
    wide, narrow = band(ax, "90 % of paths"), band(ax, "50 % of paths")
    _, median = line(ax, "median")
    np.testing.assert_allclose(wide, paths.quantile([0.05, 0.95], "sample"))
    np.testing.assert_allclose(narrow, paths.quantile([0.25, 0.75], "sample"))
    np.testing.assert_allclose(median, paths.median("sample"))
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[0] <= median).all()
    assert (median <= narrow[1]).all()
    assert (narrow[1] <= wide[1]).all()


def test_history_ends_before_the_forecast_and_truth_stays_inside(
    data: xr.Dataset, forecast: xr.Dataset
) -> None:
    ax = plot.forecast(forecast, history=data, truth=data)[0]

    times, values = line(ax, "history")
    np.testing.assert_array_equal(times, data.time[24:60])
    np.testing.assert_array_equal(values, data.target[0, 24:60, 0])
    times, values = line(ax, "truth")
    np.testing.assert_array_equal(times, forecast.time)
    np.testing.assert_array_equal(values, data.target[0, 60:, 0])
    lower, upper = ax.get_ylim()
    drawn = np.concatenate([data.target[0, 24:, 0], *band(ax, "90 % of paths")])
    assert lower <= drawn.min() < drawn.max() <= upper


def test_a_panel_says_when_a_series_that_ended_early_was_last_observed(
    data: xr.Dataset, forecast: xr.Dataset
) -> None:
    seen = xr.ones_like(data["target"], dtype=bool)
    seen[0, 20:] = False

    axes = plot.forecast(forecast, history=data.assign(observed=seen), history_length=5)

    assert [text.get_text() for text in axes[0].texts] == [
        f"last observed\n{local_time(data.time[19].values, data)}"
    ]
    assert not axes[1].texts
    np.testing.assert_array_equal(line(axes[1], "history")[0], data.time[55:60])


def test_history_length_is_in_steps(data: xr.Dataset, forecast: xr.Dataset) -> None:
    ax = plot.forecast(forecast, history=data, history_length=5)[0]

    np.testing.assert_array_equal(line(ax, "history")[0], data.time[55:60])


def test_labels_say_series_units_and_time(data: xr.Dataset, forecast: xr.Dataset) -> None:
    axes = plot.forecast(forecast, history=data, truth=data)

    assert [ax.get_title(loc="left") for ax in axes] == ["north", "south", "west"]
    assert [ax.get_ylabel() for ax in axes] == ["MW", "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["time"] * 3
    (legend,) = axes[0].figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["history", "90 % of paths", "50 % of paths", "median", "truth"]
    assert all(ax.get_legend() is None for ax in axes)


def test_a_time_zone_is_named_and_ticks_are_local(data: xr.Dataset, forecast: xr.Dataset) -> None:
    for one in (data, forecast):
        one.time.attrs["timezone"] = "Asia/Tokyo"

    ax = plot.forecast(forecast, series=["north"])

    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "time [Asia/Tokyo]"
    # The forecast runs from 12:00 to 23:00 UTC on May 3: from 21:00 in Tokyo, past midnight there.
    assert "May-04" in [text.get_text() for text in ax.get_xticklabels()]


@pytest.mark.parametrize(
    ("freq", "steps"), [("h", 12), ("30min", 24), ("15min", 48), ("W", 30), ("MS", 6), ("min", 30), ("D", 14)]
)
def test_dates_are_few_but_enough_without_a_word_of_matplotlib(freq: str, steps: int) -> None:
    data = from_numpy(np.arange(4.0 * steps), start="2024-05-01", freq=freq)
    context = data.isel(time=slice(0, -steps))
    forecast = SeasonalEnsemble(2, 1, steps).fit(context).forecast(context, num_samples=2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = np.ravel(plot.forecast(forecast, history=context))[-1]
        ax.figure.canvas.draw()

    first, last = ax.get_xlim()
    assert 2 <= sum(first <= tick <= last for tick in ax.get_xticks()) <= 7


def test_numeric_times_carry_their_unit() -> None:
    data = from_numpy(np.arange(20.0)[None], time=np.arange(20) * 0.5)
    data.time.attrs["units"] = "s"

    ax = plot.forecast(SeasonalEnsemble(2, 3, 4).fit(data).forecast(data, seed=0))

    assert ax.get_xlabel() == "time [s]"
    assert ax.get_title(loc="left") == "series 0"
    assert ax.get_ylabel() == "value"


@pytest.mark.parametrize(
    ("feature", "units", "label"),
    [
        ("value", None, "value"),
        ("value", "MW", "MW"),
        ("load", "MW", "load [MW]"),
        ("departures", "departures / hour", "departures / hour"),
        ("wind speed at hub height", "m / s", "wind speed at hub height\n[m / s]"),
    ],
)
def test_the_vertical_axis_says_what_and_in_which_unit(feature: str, units: str | None, label: str) -> None:
    data = from_numpy(np.arange(20.0)[None], features=[feature], units=units)

    ax = plot.forecast(SeasonalEnsemble(2, 3, 4).fit(data).forecast(data, seed=0))

    assert ax.get_ylabel() == label


def test_one_panel_is_an_axes_and_many_are_noted(data: xr.Dataset, forecast: xr.Dataset) -> None:
    single = plot.forecast(forecast, series=["west"])
    assert isinstance(single, Axes)
    assert single.get_title(loc="left") == "west"

    axes = plot.forecast(forecast, max_panels=2)
    assert len(axes) == 2
    assert "first 2 of 3" in axes[0].figure.get_supxlabel()


def test_features_have_their_own_panels() -> None:
    values = np.random.default_rng(1).normal(size=(2, 30, 2))
    data = from_numpy(values, start="2024-01-01", freq="D", features=["load", "sun"], units="MW")

    axes = plot.forecast(SeasonalEnsemble(7, 3, 7).fit(data).forecast(data, seed=0), history=data)

    titles = ["series 0, load", "series 0, sun", "series 1, load", "series 1, sun"]
    assert [ax.get_title(loc="left") for ax in axes] == titles
    np.testing.assert_array_equal(line(axes[3], "history")[1], values[1, -21:, 1])


def test_unobserved_values_are_gaps(data: xr.Dataset, forecast: xr.Dataset) -> None:
    mask = xr.ones_like(data.target, dtype=bool)
    mask[0, [50, 65]] = False

    ax = plot.forecast(forecast, history=data.assign(observed=mask), truth=data.assign(observed=mask))[0]

    assert np.isnan(line(ax, "history")[1]).sum() == 1
    assert np.isnan(line(ax, "truth")[1]).sum() == 1


def test_a_single_step_is_visible(data: xr.Dataset, forecast: xr.Dataset) -> None:
    ax = plot.forecast(forecast.isel(time=[0]), truth=data)[0]

    bars = [one for one in ax.collections if isinstance(one, LineCollection)]
    lower, upper = bars[0].get_segments()[0][:, 1]
    assert upper > lower
    assert (line(ax, "median")[1] > lower).all()


def test_data_are_left_as_they_were(data: xr.Dataset, forecast: xr.Dataset) -> None:
    before = data.copy(deep=True), forecast.copy(deep=True)

    plot.forecast(forecast, history=data, truth=data)

    xr.testing.assert_identical(data, before[0])
    xr.testing.assert_identical(forecast, before[1])


def test_what_cannot_be_drawn_is_named(data: xr.Dataset, forecast: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="there is no series 'east'; choose among"):
        plot.forecast(forecast, series=["east"])
    with pytest.raises(ValueError, match="the truth lacks the series 'west'"):
        plot.forecast(forecast, truth=data.isel(series=[0, 1]))
    with pytest.raises(ValueError, match="history begins at .* not before the forecast"):
        plot.forecast(forecast, history=data.isel(time=slice(60, None)))
    with pytest.raises(ValueError, match="no step inside the forecast"):
        plot.forecast(forecast, truth=data.isel(time=slice(0, 60)))
    with pytest.raises(ValueError, match=r"must have dims \('sample', 'series', 'time', 'feature'\)"):
        plot.forecast(data)
    with pytest.raises(ValueError, match="needs the variable 'target'"):
        plot.forecast(forecast.rename(target="y"))
    with pytest.raises(ValueError, match="no series to draw"):
        plot.forecast(forecast, series=[])


# Denoising ------------------------------------------------------------------------------------------------


@pytest.fixture
def trajectory(forecast: xr.Dataset) -> xr.Dataset:
    steps = np.array([0, 9, 99, 49, 29, 79, 89, 19])
    states = np.random.default_rng(2).normal(size=(8, 50, 3, 12, 1)) * (1 + steps[:, None, None, None, None])
    dims = ("step", "sample", "series", "time", "feature")
    return forecast.assign(trajectory=(dims, states, {"units": "MW"})).assign_coords(step=steps)


@pytest.mark.parametrize("role", ["history", "truth"])
def test_a_bare_array_is_refused_with_a_remedy(role: str, forecast: xr.Dataset) -> None:
    with pytest.raises(TypeError, match=f"the {role} must be .*got ndarray; label an array with seqdyn.data"):
        plot.forecast(forecast, **{role: np.ones((3, 60, 1))})
    with pytest.raises(TypeError, match="the forecast must be .*got ndarray"):
        plot.forecast(np.ones((3, 60, 1)))


def test_denoising_runs_from_noise_to_forecast(trajectory: xr.Dataset) -> None:
    axes = plot.denoising(trajectory, series="south", max_panels=4, max_paths=10)

    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["after step 99", "after step 79", "after step 19", "after step 0"]
    assert all(len(ax.lines) == 10 for ax in axes)
    assert len({ax.get_ylim() for ax in axes}) == 1
    expected = trajectory.trajectory.sel(step=19, series="south")[0, :, 0]
    np.testing.assert_array_equal(line(axes[2], "one path")[1], expected)
    assert "south" in axes[0].figure.get_suptitle()
    assert axes[0].get_ylabel() == "MW"
    assert axes[2].get_xlabel() == "time"


def test_the_label_of_a_time_axis_stays_off_the_dates(trajectory: xr.Dataset) -> None:
    trajectory["time"].attrs["timezone"] = "America/New_York"

    figure = plot.denoising(trajectory)[-1].figure

    figure.canvas.draw()
    shown = [ax.xaxis for ax in figure.axes if ax.get_xlabel()]
    assert shown
    for axis in shown:
        assert axis.offsetText.get_text()
        assert not axis.label.get_window_extent().overlaps(axis.offsetText.get_window_extent())


def test_a_single_state_is_an_axes(trajectory: xr.Dataset) -> None:
    assert isinstance(plot.denoising(trajectory.sel(step=[0])), Axes)


def test_denoising_names_what_is_missing(trajectory: xr.Dataset, forecast: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="needs the variable 'trajectory'"):
        plot.denoising(forecast)
    with pytest.raises(ValueError, match="there is no series 'east'"):
        plot.denoising(trajectory, series="east")
