"""Fates of particles: one panel per snapshot, one column per particle."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from seqdyn import plot


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def fates(labels: int = 3, **coords: object) -> xr.Dataset:
    """Five particles at the time 0 and two at 1.5, as the verb of the bridge gives them."""
    fate = np.random.default_rng(0).dirichlet(np.ones(labels), 7)
    return xr.Dataset(
        {"fate": (("particle", "label"), fate)},
        {
            "particle": np.arange(7),
            "time": ("particle", [0, 0, 1.5, 0, 0, 1.5, 0], {"units": "days"}),
            "label": [f"kind {i}" for i in range(labels)],
            **coords,
        },
    )


def test_columns_are_the_probabilities_of_each_particle_sorted_by_the_likeliest_label() -> None:
    data = fates()
    axes = plot.fates(data)

    assert [ax.get_title() for ax in axes] == ["time 0 days", "time 1.5 days"]
    legend = axes[0].figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["kind 0", "kind 1", "kind 2"]
    for ax, time in zip(axes, (0, 1.5), strict=True):
        fate = data["fate"].values[data["time"].values == time]
        keys = sorted(range(len(fate)), key=lambda i: (fate[i].argmax(), -fate[i].max()))
        assert len(ax.collections) == 3 and ax.get_xlim() == (0, len(fate)) and ax.get_ylim() == (0, 1)
        first = ax.collections[0].get_paths()[0].vertices
        for column, particle in enumerate(keys):
            inside = first[(first[:, 0] >= column) & (first[:, 0] <= column + 1) & (first[:, 1] > 0), 1]
            assert np.isclose(inside, fate[particle, 0]).sum() >= 2


def test_conditions_have_panels_of_their_own_and_many_labels_colours() -> None:
    axes = plot.fates(fates(9, condition=("particle", list("abababa"))))

    assert [ax.get_title() for ax in axes] == [
        "a, time 0 days", "a, time 1.5 days", "b, time 0 days", "b, time 1.5 days",
    ]  # fmt: skip
    colors = {tuple(part.get_facecolor()[0]) for part in axes[0].collections}
    assert len(colors) == 9


def test_another_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs 'fate', found \['x'\]; draw what seqdyn\.models\.Schr"):
        plot.fates(xr.Dataset({"x": ("particle", [0.0])}))
