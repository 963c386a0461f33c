"""Pictures of orbits and sweeps: they show what the Dataset holds, with and without it."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from seqdyn import analysis, plot
from seqdyn.datasets.hmm import linear_chain
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import simulate
from seqdyn.models import HMMRNN
from seqdyn.rng import fork_rng


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


@pytest.fixture(scope="module")
def dynamics() -> MapDynamics:
    with fork_rng(0):
        return HMMRNN(3, hidden_size=16, input_size=4).dynamics()


def drawn(axes: Axes | np.ndarray) -> list[Axes]:
    found = list(np.ravel(np.array(axes, dtype=object)))
    found[0].figure.canvas.draw()
    return found


def test_autonomous_runs_end_on_crosses(dynamics: MapDynamics) -> None:
    data = analysis.autonomous_dynamics(dynamics, num_starts=5, num_steps=30, seed=0)

    (ax,) = drawn(plot.autonomous_dynamics(data))

    crosses = next(line for line in ax.lines if line.get_label() == "attractor")
    np.testing.assert_allclose(np.transpose(crosses.get_data()), data.trajectory_pc[:1, -1, :2], atol=1e-5)


def test_an_axes_that_is_given_is_used(dynamics: MapDynamics) -> None:
    _, ax = plt.subplots()
    data = analysis.readout_axes(dynamics, num_steps=200, num_chains=4, seed=0)

    assert plot.readout_axes(data, ax=ax) is ax
    assert len([text for text in ax.texts if text.arrow_patch is not None]) == 3  # type: ignore[attr-defined]


def test_the_orbit_and_its_null(dynamics: MapDynamics) -> None:
    data = analysis.orbit(dynamics, num_steps=400, num_chains=8, num_shuffles=20, axes=(2, 3), seed=0)

    plane, motion, emission, area = drawn(plot.orbit(data))

    assert plane.get_xlabel().startswith("PC 2") and plane.get_ylabel().startswith("PC 3")
    np.testing.assert_array_equal(motion.lines[0].get_ydata(), data.profile_speed)
    assert [line.get_label() for line in emission.lines] == ["symbol 0", "symbol 1", "symbol 2"]
    assert area.lines[0].get_xdata()[0] == float(data.area_rate)


@pytest.mark.parametrize("quantity", ["speed", "autonomous_speed", "mean_map_speed"])
def test_speeds(dynamics: MapDynamics, quantity: str) -> None:
    data = analysis.speed_field(dynamics, num_steps=12_800, num_bins=8, seed=0)

    (ax,) = drawn(plot.speed_field(data, quantity=quantity))

    assert len(ax.collections) >= 2


def test_no_visits_are_written_out(dynamics: MapDynamics) -> None:
    data = analysis.speed_field(dynamics, num_steps=10, num_chains=2, min_visits=99, seed=0)

    (ax,) = drawn(plot.speed_field(data))

    assert "no bin has 99 visits" in ax.texts[0].get_text()
    with pytest.raises(ValueError, match="quantity must be one of"):
        plot.speed_field(data, quantity="drift")


def test_logits(dynamics: MapDynamics) -> None:
    runs = simulate(dynamics, torch.zeros(2, 16), 30, sigma=1.0, seed=0)
    data = analysis.logit_gradients(dynamics, runs)

    change, _ = drawn(plot.logit_gradients(data, sample=1, num_steps=10))

    np.testing.assert_array_equal(change.lines[0].get_ydata(), data.logit_change[1, :10, 0])


def test_noise_sweep_has_a_line_and_a_contour_for_each(dynamics: MapDynamics) -> None:
    data = analysis.noise_sweep(dynamics, [0.5, 1.0, 2.0], num_steps=1000, seed=0)

    contours, radius = drawn(plot.noise_sweep(data))

    assert len(contours.collections) == 6
    np.testing.assert_array_equal(radius.lines[0].get_ydata(), data.radius_mean)
    assert "identity" in radius.get_title()


@pytest.mark.parametrize("hmm", [None, linear_chain(3)], ids=["unknown", "known"])
def test_resonance_with_and_without_a_process(dynamics: MapDynamics, hmm: object) -> None:
    data = analysis.resonance(dynamics, [0.5, 1.0, 2.0], hmm=hmm, num_steps=3840, num_bootstrap=5, seed=0)

    axes = drawn(plot.resonance(data))

    assert len(axes) == 6
    shown = data.correlation_time if hmm is None else data.transition_error
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), shown)


def test_training_with_a_diverged_checkpoint(dynamics: MapDynamics) -> None:
    grown = MapDynamics(lambda h, u: 9 * h + dynamics.step(h, u), dynamics.readout, 16, 4)
    data = analysis.training_dynamics({0: dynamics, 1: grown, 2: dynamics}, num_steps=600, seed=0)

    axes = drawn(plot.training_dynamics(data))

    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), data.switch_rate)
    assert [label.get_text() for label in axes[-1].get_xticklabels()] == ["0", "2"]
    assert axes[3].texts[0].get_text() == "no loss, no process given"


def test_composition_draws_the_pairs_that_occur(dynamics: MapDynamics) -> None:
    data = analysis.composition(dynamics, num_steps=400, num_chains=4, num_jacobians=4, seed=0)

    axes = drawn(plot.composition(data))

    found = int(np.isfinite(data.winding_rate).sum())
    assert found > 1 and len(axes) == found + 2
    one = data.assign(winding_rate=data.winding_rate.where(np.isfinite(data.winding_rate).cumsum() == 1))
    assert len(drawn(plot.composition(one))) == 1  # nothing to compare it with
    with pytest.raises(ValueError, match="no pair of symbols"):
        plot.composition(data.assign(winding_rate=data.winding_rate * np.nan))
