"""Pictures of clouds, paths, refinements and scores: what is drawn, where, and with which labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from seqdyn import plot
from seqdyn.plot import clouds


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


@pytest.fixture
def observed() -> xr.Dataset:
    """Thirty particles at times 0, 1 and 2.5, not in the order of time."""
    rng = np.random.default_rng(0)
    time = rng.permutation(np.repeat([0.0, 1.0, 2.5], 10))
    return xr.Dataset(
        {"x": (("particle", "feature"), rng.normal(size=(30, 3)), {"units": "µM"})},
        {"time": ("particle", time, {"units": "days"}), "feature": ["a", "b", "c"]},
    )


@pytest.fixture
def paths() -> xr.Dataset:
    time = np.arange(11) * 0.25
    values = np.random.default_rng(1).normal(size=(6, 11, 3)).cumsum(axis=1)
    return xr.Dataset(
        {"x": (("particle", "time", "feature"), values, {"units": "µM"})},
        {"time": ("time", time, {"units": "days"}), "feature": ["a", "b", "c"]},
    )


def drawn(axes: Axes | np.ndarray) -> list[Axes]:
    found = list(np.ravel(np.array(axes, dtype=object)))
    found[0].figure.canvas.draw()
    return found


def dots(ax: Axes) -> dict[str, np.ndarray]:
    return {
        str(one.get_label()): np.asarray(one.get_offsets())
        for one in ax.collections
        if isinstance(one, PathCollection)
    }


def bundles(ax: Axes) -> list[LineCollection]:
    return [one for one in ax.collections if isinstance(one, LineCollection)]


# Snapshots ------------------------------------------------------------------------------------------------


def test_every_particle_is_drawn_in_the_colour_of_its_time(observed: xr.Dataset) -> None:
    (ax,) = drawn(plot.snapshots(observed, features=["c", "a"]))

    (scatter,) = ax.collections
    by_time = observed.isel(particle=np.argsort(observed.time.values, kind="stable"))
    np.testing.assert_array_equal(scatter.get_offsets(), by_time.x.sel(feature=["c", "a"]))
    np.testing.assert_array_equal(scatter.get_array(), by_time.time)
    assert (scatter.norm.vmin, scatter.norm.vmax) == (0.0, 2.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c [µM]", "a [µM]")
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "time [days]"
    np.testing.assert_array_equal(bar.get_yticks(), [0.0, 1.0, 2.5])


def test_colours_of_time_grow_brighter_and_never_vanish_on_white() -> None:
    shades = clouds.TIMES(np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]

    assert (np.diff(shades) > 0).all()
    assert shades.max() < 0.8


def test_one_feature_is_drawn_against_time(observed: xr.Dataset) -> None:
    for data, name in ((observed, "b"), (observed.isel(feature=[1]), None)):
        (ax,) = drawn(plot.snapshots(data, features=name))

        (found,) = dots(ax).values()
        np.testing.assert_array_equal(found, np.stack([observed.time, observed.x.sel(feature="b")], axis=1))
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [days]", "b [µM]")


def test_a_given_axes_is_used_and_features_may_lack_names(observed: xr.Dataset) -> None:
    _, ax = plt.subplots()

    assert plot.snapshots(observed.drop_vars("feature"), ax=ax) is ax

    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x_0 [µM]", "x_1 [µM]")


def test_a_single_time_and_many_times_are_drawn(observed: xr.Dataset) -> None:
    drawn(plot.snapshots(observed.where(observed.time == 1.0, drop=True)))
    (ax,) = drawn(plot.snapshots(observed.assign_coords(time=("particle", np.arange(30.0)))))

    assert len(ax.figure.axes[1].get_yticks()) < 13


# Trajectories ---------------------------------------------------------------------------------------------


def test_paths_are_lines_over_the_snapshots(paths: xr.Dataset, observed: xr.Dataset) -> None:
    (ax,) = drawn(plot.trajectories(paths, observed))

    (lines,) = bundles(ax)
    np.testing.assert_array_equal(lines.get_segments(), paths.x.sel(feature=["a", "b"]))
    assert lines.get_zorder() < ax.collections[0].get_zorder()
    np.testing.assert_array_equal(np.stack(ax.lines[0].get_data(), axis=1), paths.x[:, -1, :2])
    assert ax.get_legend() is None
    assert sum(map(len, dots(ax).values())) == 30
    everything = np.concatenate([paths.x.values[..., :2].reshape(-1, 2), observed.x.values[:, :2]])
    for (low, high), values in zip((ax.get_xlim(), ax.get_ylim()), everything.T, strict=True):
        assert low <= values.min() < values.max() <= high


@pytest.mark.parametrize("features", [None, "b"])
def test_what_is_extrapolated_is_dashed_from_the_last_snapshot_on(
    paths: xr.Dataset, observed: xr.Dataset, features: str | None
) -> None:
    (ax,) = drawn(plot.trajectories(paths.assign_attrs(extrapolation_from=2.0), observed, features=features))

    inside, outside = bundles(ax)
    lines = paths.x.sel(feature=["a", "b"]) if features is None else paths.x.sel(feature=["b"])
    column = slice(None) if features is None else slice(1, None)
    np.testing.assert_array_equal(np.array(inside.get_segments())[..., column], lines[:, :9])
    np.testing.assert_array_equal(np.array(outside.get_segments())[..., column], lines[:, 8:])
    assert inside.get_linestyle()[0][1] is None
    assert outside.get_linestyle()[0][1] is not None
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["up to time 2", "extrapolated, after 2"]
    marked = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
    assert marked == ([2.0] if features else [])


def test_a_forecast_alone_is_dashed_throughout(paths: xr.Dataset) -> None:
    future = paths.assign_attrs(extrapolation_from=-1.0)

    (ax,) = drawn(plot.trajectories(future, max_paths=4))

    (outside,) = bundles(ax)
    np.testing.assert_array_equal(outside.get_segments(), paths.x[:4, :, :2])
    assert outside.get_linestyle()[0][1] is not None


def test_paths_up_to_the_last_snapshot_are_not_called_extrapolated(paths: xr.Dataset) -> None:
    (ax,) = drawn(plot.trajectories(paths.assign_attrs(extrapolation_from=2.5)))

    assert len(bundles(ax)) == 1
    assert ax.get_legend() is None


# Marginals ------------------------------------------------------------------------------------------------


def test_each_panel_holds_model_and_snapshot_of_one_time(paths: xr.Dataset, observed: xr.Dataset) -> None:
    population = paths.isel(time=[2, 4, 10]).assign_attrs(extrapolation_from=2.0)
    # Times that are sums of steps meet those that were typed.
    population = population.assign_coords(time=population.time + 1e-12)
    population.time.attrs["units"] = "days"

    axes = drawn(plot.marginals(population, observed))

    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["0.5 days (no snapshot)", "1 days", "2.5 days, extrapolated"]
    for ax, index, time in zip(axes, (2, 4, 10), (None, 1.0, 2.5), strict=True):
        found = dots(ax)
        np.testing.assert_array_equal(found["model"], paths.x[:, index, :2])
        if time is None:
            assert set(found) == {"model"}
        else:
            np.testing.assert_array_equal(found["observed"], observed.x[observed.time == time][:, :2])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["model", "observed"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1


def test_one_feature_is_drawn_as_densities(paths: xr.Dataset, observed: xr.Dataset) -> None:
    (ax,) = drawn(plot.marginals(paths.isel(time=[4]), observed, features="c"))

    for patch in ax.patches:
        edges, heights = patch.get_xy()[:, 0], patch.get_xy()[:, 1]
        assert (np.diff(edges) * heights[1:]).sum() == pytest.approx(1.0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c [µM]", "density")


def test_among_many_times_evenly_spaced_ones_are_drawn(paths: xr.Dataset) -> None:
    axes = drawn(plot.marginals(paths, max_panels=3))

    assert [ax.get_title(loc="left") for ax in axes] == ["0 days", "1.25 days", "2.5 days"]
    assert axes[0].figure.get_supxlabel() == "3 of 11 times: max_panels= draws more"


def test_without_a_time_in_common_there_is_nothing_to_compare(
    paths: xr.Dataset, observed: xr.Dataset
) -> None:
    with pytest.raises(
        ValueError,
        match=r"at \[0.25\] and the snapshots at \[0.0, 1.0, 2.5\].*marginal\(np.*left out of the fit",
    ):
        plot.marginals(paths.isel(time=[1]), observed)


# Refinement and scores ------------------------------------------------------------------------------------


def refinement(divergence: list[float], count: int = 2) -> xr.Dataset:
    epochs = np.arange(1, len(divergence) + 1)
    values = np.arange(len(epochs) * count, dtype=float).reshape(len(epochs), count)
    return xr.Dataset(
        {"trace": (("refinement", "parameter"), values), "divergence": ("refinement", divergence)},
        {"refinement": epochs, "parameter": [f"p{i}" for i in range(count)]},
    )


def test_parameters_and_divergence_at_each_epoch() -> None:
    data = refinement([3.0, 2.0, 1.5])

    left, right = drawn(plot.reference_parameters(data))

    assert [line.get_label() for line in left.lines] == ["p0", "p1"]
    np.testing.assert_array_equal(left.lines[1].get_ydata(), [1.0, 3.0, 5.0])
    np.testing.assert_array_equal(left.lines[1].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [3.0, 2.0, 1.5])
    assert (right.get_xlabel(), right.get_ylabel(), right.get_yscale()) == (
        "refinement",
        "divergence",
        "linear",
    )
    assert all(float(tick).is_integer() for tick in left.get_xticks())


@pytest.mark.parametrize(
    ("divergence", "scale"),
    [([2137.0, 5.3, 1.9], "log"), ([2137.0, 5.3, -0.3], "symlog"), ([5.0, -0.3, -0.4], "linear")],
)
def test_a_steep_divergence_is_logarithmic_as_far_as_it_can(divergence: list[float], scale: str) -> None:
    assert drawn(plot.reference_parameters(refinement(divergence)))[1].get_yscale() == scale


def test_parameters_alone_and_too_many_to_name() -> None:
    ax = plot.reference_parameters(refinement([1.0, 1.0], count=20).drop_vars("divergence"))

    assert isinstance(ax, Axes)
    assert len(ax.lines) == 20
    assert ax.get_legend() is None
    assert ax.get_title(loc="left") == "20 parameters"


def test_one_refinement_is_visible() -> None:
    left, right = drawn(plot.reference_parameters(refinement([1.0])))

    assert {line.get_marker() for line in (*left.lines, *right.lines)} == {"o"}


def score(methods: list[str], metrics: list[str], values: np.ndarray) -> xr.Dataset:
    dims = ("method", "time", "metric")
    time = ("time", [3.0, 1.0], {"units": "days"})
    coords = {"method": methods, "time": time, "metric": metrics}
    return xr.Dataset({"score": (dims, values, {"units": "µM"})}, coords)


def test_scores_have_a_panel_per_metric_and_a_line_per_method() -> None:
    values = np.arange(12.0).reshape(3, 2, 2)
    values[2, :, 1] = [-1.0, np.nan]

    first, second = drawn(plot.scores(score(["nearest", "model", "floor"], ["w2", "mmd2"], values)))

    assert [line.get_label() for line in first.lines] == ["nearest", "model", "floor"]
    np.testing.assert_array_equal(first.lines[1].get_xdata(), [1.0, 3.0])
    np.testing.assert_array_equal(first.lines[1].get_ydata(), [6.0, 4.0])
    assert (first.get_ylabel(), second.get_ylabel()) == ("W2 [µM]", "squared MMD")
    assert first.get_xlabel() == "time [days]"
    assert first.get_ylim()[0] == 0
    assert second.get_ylim()[0] < -1
    (legend,) = first.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["nearest", "model", "floor"]
    assert len({line.get_color() for line in first.lines}) == 3


def test_the_legend_of_scores_stays_inside_the_figure() -> None:
    methods = ["model", "nearest", "displacement", "brownian", "brownian with spread", "floor"]

    (ax,) = drawn(plot.scores(score(methods, ["user's own"], np.ones((6, 2, 1)))))

    (legend,) = ax.figure.legends
    box, whole = legend.get_window_extent(), ax.figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert ax.get_ylabel() == "user's own"


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["snapshots", "trajectories", "marginals", "reference_parameters", "scores"])
@pytest.mark.parametrize("other", [None, xr.Dataset({"y": ("z", [0.0])})], ids=["nothing", "dataset"])
def test_another_kind_is_refused_with_what_to_draw(name: str, other: Any) -> None:
    with pytest.raises(ValueError, match=r"draw what seqdyn\.(data|models)\.\w+\("):
        getattr(plot, name)(other)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("d", r"there is no feature 'd'; choose among \['a', 'b', 'c'\]"),
        (["a", "d"], "no feature 'd'"),
        (["a", "b", "c"], "must name one or two features"),
        (["a", "a"], "must name one or two features"),
        ([], "must name one or two features"),
    ],
)
def test_features_that_are_not_there_are_refused(
    paths: xr.Dataset, observed: xr.Dataset, features: Any, message: str
) -> None:
    for draw in (
        lambda: plot.snapshots(observed, features=features),
        lambda: plot.trajectories(paths, features=features),
        lambda: plot.marginals(paths, features=features),
    ):
        with pytest.raises(ValueError, match=message):
            draw()


def test_snapshots_without_the_features_of_the_paths_are_refused(
    paths: xr.Dataset, observed: xr.Dataset
) -> None:
    other = observed.assign_coords(feature=["u", "v", "w"])

    for draw in (plot.trajectories, plot.marginals):
        with pytest.raises(ValueError, match=r"no feature 'a'; choose among \['u', 'v', 'w'\]"):
            draw(paths, other)


def test_other_dims_are_refused(paths: xr.Dataset, observed: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"dims \('particle', 'time', 'feature'\), got \('particle', 'feat"):
        plot.trajectories(observed)
    with pytest.raises(ValueError, match=r"dims \('particle', 'feature'\), got .*seqdyn.data.read_snapshots"):
        plot.snapshots(paths)
    with pytest.raises(ValueError, match="'x' has no times"):
        plot.snapshots(observed.drop_vars("time"))
    with pytest.raises(ValueError, match=r"dims \('refinement', 'parameter'\), got \('refinement',\)"):
        plot.reference_parameters(xr.Dataset({"trace": ("refinement", [0.0])}))
    with pytest.raises(ValueError, match=r"dims \('method', 'metric', 'time'\) with labels, got \('time',\)"):
        plot.scores(xr.Dataset({"score": ("time", [0.0])}))


@pytest.mark.parametrize(("name", "argument"), [("trajectories", "max_paths"), ("marginals", "max_panels")])
def test_limits_are_counts(paths: xr.Dataset, name: str, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a whole number of at least 1, got 0"):
        getattr(plot, name)(paths, **{argument: 0})


def test_conditions_that_end_at_different_times_are_extrapolated_from_there(paths: xr.Dataset) -> None:
    ends = np.where(np.arange(paths.sizes["particle"]) % 2, 1.0, 2.0)
    forecast = paths.assign_coords(extrapolation_from=("particle", ends))

    (ax,) = drawn(plot.trajectories(forecast))
    panels = drawn(plot.marginals(forecast.isel(time=[2, 6, 10])))

    legend = ax.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["up to time 1", "extrapolated, after 1", "up to time 2", "extrapolated, after 2"]
    lines = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    assert [len(segments) for segments in lines] == [3] * 4
    assert [len(segments[0]) for segments in lines] == [5, 7, 9, 3]
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles == ["0.5 days", "1.5 days,\npartly extrapolated", "2.5 days, extrapolated"]
