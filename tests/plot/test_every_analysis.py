"""Every analysis has its picture: what it shows is what the Dataset holds, and another Dataset is refused."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes

from seqdyn import analysis, metrics, plot
from seqdyn.datasets.hmm import preset
from seqdyn.dynamics import MapDynamics, simulate
from seqdyn.inference.hmm import GaussianHMM, fit_em, forward_backward, viterbi
from seqdyn.models import HMMRNN
from seqdyn.rng import fork_rng

TAKE_A_DATASET = sorted(
    name
    for name in analysis.__all__
    if "Dataset" in str(inspect.signature(getattr(analysis, name)).return_annotation)
)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def dynamics() -> MapDynamics:
    with fork_rng(0):
        return HMMRNN(3, hidden_size=16, input_size=4).dynamics()


@pytest.fixture(scope="module")
def hidden(dynamics: MapDynamics) -> torch.Tensor:
    return simulate(dynamics, torch.zeros(3, 16), 40, sigma=1.0, seed=0)


def labels(ax: Axes) -> list[str]:
    found = ax.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def drawn(axes: Axes | np.ndarray) -> list[Axes]:
    found = list(np.ravel(np.array(axes, dtype=object)))
    found[0].figure.canvas.draw()
    return found


def test_every_analysis_has_a_picture_of_its_name() -> None:
    assert set(TAKE_A_DATASET) - set(plot.__all__) == set()
    others = {"growth_rate", "change_point", "silence", "clamp", "scale", "perturb"}
    assert others <= set(plot.__all__) and others <= set(analysis.__all__)


@pytest.mark.parametrize("name", [*TAKE_A_DATASET, "growth_rate", "emulation", "silence", "phase"])
@pytest.mark.parametrize("other", [xr.Dataset({"x": ("y", [0.0])}), None], ids=["dataset", "nothing"])
def test_another_kind_is_refused_with_what_to_draw(name: str, other: object) -> None:
    arguments = [other, None] if name == "silence" else [other]

    with pytest.raises(ValueError, match=r"seqdyn\.(analysis|metrics)\.\w+\("):
        getattr(plot, name)(*arguments)


def test_one_of_several_conditions_is_drawn(dynamics: MapDynamics) -> None:
    found = analysis.regimes(dynamics, num_steps=640, seed=0, input=torch.tensor([[0.0] * 4, [0.5] * 4]))

    with pytest.raises(ValueError, match=r"holds 2 conditions; draw one of them: data.isel\(condition=0\)"):
        plot.regimes(found)
    assert len(drawn(plot.regimes(found.isel(condition=1)))) == 3


def test_components_by_time_and_by_symbol(hidden: torch.Tensor) -> None:
    components = analysis.pca(hidden, 5)
    symbol = np.arange(3 * 40).reshape(3, 40) % 3 - 1

    plane, shares = drawn(plot.pca(components, pcs=(2, 3)))
    coloured, _ = drawn(plot.pca(components, symbol))

    dots = np.asarray(plane.collections[0].get_offsets())
    np.testing.assert_allclose(dots, components.scores.values.reshape(-1, 5)[:, [1, 2]])
    np.testing.assert_allclose(
        shares.lines[0].get_ydata(), 100 * components.explained_variance_ratio.cumsum()
    )
    assert labels(coloured) == ["none", "symbol 0", "symbol 1"]
    assert sum(len(one.get_offsets()) for one in coloured.collections) == 3 * 40
    with pytest.raises(ValueError, match=r"symbol must have the shape \(3, 40\)"):
        plot.pca(components, symbol[0])
    with pytest.raises(ValueError, match="whole numbers"):
        plot.pca(components, symbol + 0.5)


def test_angles_of_subspaces(hidden: torch.Tensor) -> None:
    data = analysis.subspace_angles(analysis.pca(hidden[:1], 3), analysis.pca(hidden[1:], 3))
    _, ax = plt.subplots()

    assert plot.subspace_angles(data, ax=ax) is ax

    np.testing.assert_allclose(ax.lines[0].get_ydata(), data.angle)


def test_growth_tells_starts_that_shrink_from_starts_that_grow_or_vanish() -> None:
    data = xr.Dataset(
        {
            "growth_rate": ("start", [-0.2, -0.1, 0.3, -np.inf]),
            "hitting_time": ("start", [np.nan, np.nan, np.nan, 7.0]),
        }
    )
    _, axes = plt.subplots(1, 2)

    assert plot.growth_rate(data, ax=axes[0]) is axes[0]
    assert plot.cone_growth(data, ax=axes[1]) is axes[1]

    for ax in axes:
        assert labels(ax) == ["2 shrink", "1 grow", "1 end at 0 exactly, by step 7"]
        assert sum(bar.get_height() for bar in ax.patches) == 3
    assert "is unstable: at most 0.3 per step" in axes[1].get_title()


def test_growth_of_a_network(dynamics: MapDynamics, hidden: torch.Tensor) -> None:
    cone = analysis.cone_growth(dynamics, hidden, num_directions=8, num_steps=20, seed=0)
    rates = analysis.growth_rate(dynamics, hidden[0], num_steps=20)

    (ax,) = drawn(plot.cone_growth(cone))
    (other,) = drawn(plot.growth_rate(rates))

    assert sum(bar.get_height() for bar in ax.patches) == 8
    assert sum(bar.get_height() for bar in other.patches) == 40


def test_the_change_of_a_curve_and_its_levels() -> None:
    curve = xr.DataArray([0.0, 0.2, np.nan, 2.0, 2.2], {"epoch": [0, 10, 20, 30, 40]}, "epoch", "switch_rate")
    _, ax = plt.subplots()

    assert plot.change_point(curve, analysis.change_point(curve), ax=ax) is ax

    assert [line.get_ydata()[0] for line in ax.lines[1:3]] == pytest.approx([0.1, 2.1])
    assert ax.get_title().startswith("change at 30, gain")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "switch rate")


def test_a_curve_without_a_change_says_so_and_a_table_is_refused() -> None:
    found = analysis.change_point(np.ones(5))

    assert plot.change_point(np.ones(5), found).get_title() == "no change"
    with pytest.raises(ValueError, match=r"change_point\(curve, seqdyn\.analysis\.change_point\(curve\)\)"):
        plot.change_point(np.ones((5, 2)), found)
    with pytest.raises(ValueError, match="a curve"):
        plot.change_point(np.ones(5), SimpleNamespace(place=5, gain=1.0))


@pytest.mark.parametrize("name", ["silence", "clamp", "scale", "perturb", "intervention"])
def test_runs_without_and_with_an_intervention(
    name: str, dynamics: MapDynamics, hidden: torch.Tensor
) -> None:
    changed = simulate(analysis.silence(dynamics, [0, 1]), torch.zeros(3, 16), 40, sigma=1.0, seed=0)
    components = analysis.pca(hidden, 4)
    _, ax = plt.subplots()

    assert getattr(plot, name)(components, analysis.project(components, changed), ax=ax) is ax

    assert labels(ax) == ["without the intervention", "with the intervention", "ends"]
    paths = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 40]
    np.testing.assert_allclose(paths[:3], components.scores.values[..., :2])
    np.testing.assert_allclose(paths[3:], analysis.project(components, changed).values[..., :2])


def test_changed_runs_need_the_same_components(hidden: torch.Tensor) -> None:
    components = analysis.pca(hidden, 4)

    with pytest.raises(ValueError, match=r"same 4 components: seqdyn\.analysis\.project"):
        plot.intervention(components, analysis.pca(hidden, 3)["scores"])


def test_a_group_as_it_grows(dynamics: MapDynamics) -> None:
    data = analysis.greedy_group(dynamics, 3, num_steps=200, num_chains=4, burn_in=5, seed=0)
    _, ax = plt.subplots()

    assert plot.greedy_group(data, ax=ax) is ax

    np.testing.assert_array_equal(ax.lines[0].get_ydata(), data.effect)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_array_equal(heights, data.single_effect.values[data.chosen.values])
    assert [text.get_text() for text in ax.get_xticklabels()] == [str(unit) for unit in data.chosen.values]


@pytest.mark.filterwarnings("ignore:the model is less variable")
def test_an_emulator_beside_its_process() -> None:
    hmm = preset("three")

    class Process:
        def sample(
            self, num_samples: int, *, num_steps: int, burn_in: int, seed: int, keep: Any
        ) -> xr.Dataset:
            return hmm.sequences(num_samples, burn_in + num_steps, seed).isel(time=slice(burn_in, None))

    sizes = {"num_sequences": 32, "num_draws": 3, "num_chains": 20, "num_chain_steps": 50, "num_matched": 16}
    data = metrics.emulation(Process(), hmm, num_steps=10, burn_in=5, seed=0, **sizes)

    axes = drawn(plot.emulation(data))

    exact = [float(text.get_text()) for text in axes[1].texts]
    np.testing.assert_allclose(exact, data.transition.sel(source="exact").values.ravel(), atol=5e-4)
    assert f"at most {data.attrs['largest_error']:.3f}" in axes[2].get_title()
    heights = [bar.get_height() for bar in axes[3].patches]
    np.testing.assert_allclose(heights, data.frequency.sel(source=["model", "process"]).values.ravel())
    assert axes[4].texts[0].get_text() == f"{float(data.volatility.sel(source='model')):.2f}"
    assert f"ratio {data.attrs['floor_ratio']:.3f}" in axes[6].get_title()
    np.testing.assert_array_equal(axes[8].lines[0].get_ydata(), data.word_distance.sel(drawn="model"))


def test_probabilities_of_states_under_symbols_with_a_gap() -> None:
    hmm = preset("three")
    symbols = np.array([[0, 0, 2, -1, 2, -1, -1], [2, 2, 2, 0, 0, 0, 0]])
    found = forward_backward(hmm, symbols, [5, 7])

    observed, law, path = drawn(
        plot.state_probabilities(found, symbols, path=viterbi(hmm, symbols, [5, 7]), num_steps=6)
    )

    cells = np.ma.getmaskarray(observed.collections[0].get_array())[0]
    assert cells.tolist() == [False, False, False, True, False, True]
    assert labels(observed) == ["symbol 0", "symbol 2"]
    assert labels(law) == ["state 0", "state 1", "state 2"]
    top = law.collections[0].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(float(found.smoothed[0, :, 0].max()))
    assert np.ma.getmaskarray(path.collections[0].get_array())[0].tolist() == [False] * 5 + [True]


def test_probabilities_of_states_under_a_dataset_and_under_numbers() -> None:
    hmm = preset("two")
    data = hmm.sequences(2, 30, seed=0).assign_coords(
        time=np.datetime64("2024-01-01T00", "ns") + np.arange(30) * np.timedelta64(1, "h"),
        outcome=["low", "mid", "high"],
    )
    model = GaussianHMM([0.5, 0.5], np.full((2, 2), 0.5), [[0.0], [3.0]], np.ones((2, 1, 1)))
    numbers = model.sequences(1, 20, seed=0)

    observed, law = drawn(plot.state_probabilities(forward_backward(hmm, data), data, series=1))
    lines, _ = drawn(plot.state_probabilities(forward_backward(model, numbers), numbers, start=5))

    assert set(labels(observed)) <= {"low", "mid", "high"}
    assert law.get_xlabel() == "time"
    np.testing.assert_array_equal(lines.lines[0].get_ydata(), numbers.target.values[0, 5:, 0])


def test_probabilities_that_do_not_fit_are_refused() -> None:
    hmm = preset("two")
    found = forward_backward(hmm, np.zeros((1, 5), dtype=int))

    with pytest.raises(ValueError, match=r"must fit, got \(1, 5, 2\) and \(1, 6\)"):
        plot.state_probabilities(found, np.zeros((1, 6), dtype=int))
    with pytest.raises(ValueError, match="1 series of 5 steps; got series=1, start=0"):
        plot.state_probabilities(found, np.zeros((1, 5), dtype=int), series=1)
    with pytest.raises(ValueError, match="needs 'symbol' or 'target'"):
        plot.state_probabilities(found, xr.Dataset({"x": ("time", [0])}))


def test_the_course_of_a_fit() -> None:
    hmm = preset("three")
    symbols = hmm.sequences(5, 30, seed=0).symbol.values
    plain, prior = (
        fit_em(hmm, symbols, max_iters=3, tolerance=0, prior=p) for p in (None, {"transition": 2.0})
    )
    _, ax = plt.subplots()

    assert plot.fit_em(plain, ax=ax) is ax

    np.testing.assert_array_equal(ax.lines[0].get_ydata(), plain.objective)
    assert ax.get_title() == "stopped before it converged"
    assert labels(plot.fit_em(prior)) == ["log-likelihood"]
    with pytest.raises(ValueError, match=r"seqdyn\.inference\.hmm\.fit_em"):
        plot.fit_em(symbols)
