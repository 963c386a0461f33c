"""The training picture: terms, stages, axes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from seqdyn import plot
from seqdyn.models.baselines import SeasonalNaive


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


def record(**losses: list[float]) -> xr.Dataset:
    size = len(next(iter(losses.values())))
    variables = {name: ("epoch", values) for name, values in {**losses, "seconds": [1.0] * size}.items()}
    return xr.Dataset(variables, {"epoch": np.arange(1, size + 1)})


def test_training_and_validation_share_an_axes() -> None:
    history = record(train_loss=[3.0, 2.0, 1.5], val_loss=[3.1, 2.5, 2.4])

    ax = plot.history(SimpleNamespace(history=history))

    assert isinstance(ax, Axes)
    lines = {one.get_label(): one for one in ax.lines}
    np.testing.assert_array_equal(lines["training"].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(lines["training"].get_ydata(), [3.0, 2.0, 1.5])
    np.testing.assert_array_equal(lines["validation"].get_ydata(), [3.1, 2.5, 2.4])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert ax.get_yscale() == "linear"
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_each_term_has_a_panel_the_loss_first() -> None:
    history = record(
        train_kl=[2.0, -1.0], train_loss=[3.0, 2.0], val_loss=[3.0, 2.5], train_log_det=[1.0, 1.0]
    )

    axes = plot.history(history)

    assert [ax.get_ylabel() for ax in axes] == ["loss", "kl", "log det"]
    assert [len(ax.lines) for ax in axes] == [2, 1, 1]
    assert [ax.get_legend() is not None for ax in axes] == [True, False, False]


def test_a_steep_positive_loss_is_logarithmic() -> None:
    assert plot.history(record(train_loss=[100.0, 10.0, 1.0])).get_yscale() == "log"
    assert plot.history(record(train_loss=[100.0, 10.0, -1.0])).get_yscale() == "linear"


def test_one_epoch_is_visible() -> None:
    (one,) = plot.history(record(train_loss=[1.0])).lines

    assert one.get_marker() == "o"


def test_a_model_without_history_says_so() -> None:
    with pytest.raises(
        ValueError, match="SeasonalNaive has no loss history to draw; fit a model that learns"
    ):
        plot.history(SeasonalNaive(2, 2))
    with pytest.raises(ValueError, match="has no loss history"):
        plot.history(record(learning_rate=[1.0]))


def test_matplotlib_is_loaded_by_plots_only_and_torch_by_neither() -> None:
    code = (
        "import sys, seqdyn.metrics as m, seqdyn.plot as p; m.evaluate; m.crps; "
        "assert 'matplotlib' not in sys.modules; p.forecast; p.pit; p.history; "
        "assert 'matplotlib' in sys.modules; assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
