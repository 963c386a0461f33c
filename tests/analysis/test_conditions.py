"""Constant inputs and batches of them, in every tool that runs a system."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from seqdyn import analysis, plot
from seqdyn.analysis.conditions import stacked
from seqdyn.data.convert import to_netcdf
from seqdyn.dynamics import MapDynamics, from_callable, simulate

SIZE, INPUTS = 12, 4
INPUT = torch.tensor([0.3, -0.2, 0.4, 0.1], dtype=torch.float64)
BATCH = torch.stack([INPUT, -2 * INPUT])


def network(constant: Tensor | None = None) -> MapDynamics:
    """A network of tanh units in float64; ``constant`` is an input that is part of its biases."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    recurrent, inputs, out = 0.35 * normal(SIZE, SIZE), 0.5 * normal(SIZE, INPUTS), 2 * normal(3, SIZE)
    bias = 0.1 * normal(SIZE)
    bias = bias if constant is None else bias + inputs @ constant

    def drive(h: Tensor, u: Tensor) -> Tensor:
        return h @ recurrent.mT + u @ inputs.mT + bias

    return from_callable(
        lambda h, u: torch.tanh(drive(h, u)), SIZE, INPUTS, lambda h: h @ out.mT, preactivation=drive
    )


STATES = simulate(network(), torch.zeros(8, SIZE, dtype=torch.float64), 5, sigma=1.0, seed=0)[:, -1]
SHORT: dict[str, Any] = {"num_chains": 8, "burn_in": 10, "seed": 3}

TOOLS: dict[str, Callable[..., xr.Dataset]] = {
    "autonomous_dynamics": lambda d, **o: analysis.autonomous_dynamics(
        d, num_starts=6, num_steps=40, seed=3, **o
    ),
    "composition": lambda d, **o: analysis.composition(
        d, num_steps=800, num_jacobians=4, num_states=20, min_length=20, **SHORT, **o
    ),
    "fixed_points": lambda d, **o: analysis.fixed_points(d, STATES, seed=3, **o),
    "greedy_group": lambda d, **o: analysis.greedy_group(d, 2, num_steps=400, **SHORT, **o),
    "group_effect": lambda d, **o: analysis.group_effect(
        d, [1, 2], num_steps=800, num_random=5, num_resamples=20, **SHORT, **o
    ),
    "growth_rate": lambda d, **o: analysis.growth_rate(d, STATES, num_steps=20, **o),
    "kick_units": lambda d, **o: analysis.kick_units(
        d, num_steps=800, min_switches=5, num_states=50, num_resamples=20, **SHORT, **o
    ),
    "lyapunov_spectrum": lambda d, **o: analysis.lyapunov_spectrum(
        d, STATES, num_steps=30, transient=10, sigma=0.5, seed=3, **o
    ),
    "noise_sensitivity": lambda d, **o: analysis.noise_sensitivity(
        d, num_steps=4000, min_dwell=4, num_samples=20, **SHORT, **o
    ),
    "noise_sweep": lambda d, **o: analysis.noise_sweep(d, [0.5, 1.0], num_steps=320, **SHORT, **o),
    "orbit": lambda d, **o: analysis.orbit(d, num_steps=400, num_shuffles=5, **SHORT, **o),
    "populations": lambda d, **o: analysis.populations(
        d, [[0, 1], [2, 3]], num_steps=800, num_permutations=20, **SHORT, **o
    ),
    "readout_axes": lambda d, **o: analysis.readout_axes(d, num_steps=400, **SHORT, **o),
    "regimes": lambda d, **o: analysis.regimes(d, num_steps=800, **SHORT, **o),
    "residence": lambda d, **o: analysis.residence(
        d, STATES, num_runs=4, max_steps=10, jacobians=True, seed=3, **o
    ),
    "resonance": lambda d, **o: analysis.resonance(
        d, [0.5, 1.0], num_steps=400, num_bootstrap=5, **SHORT, **o
    ),
    "speed_field": lambda d, **o: analysis.speed_field(
        d, num_steps=800, num_bins=4, min_visits=2, num_repeats=2, **SHORT, **o
    ),
    "training_dynamics": lambda d, **o: analysis.training_dynamics(
        {0: d}, num_steps=400, num_jacobians=4, **SHORT, **o
    ),
}
# Without input because it asks about the undriven map, looks at given states only, or changes a map.
UNDRIVEN = {
    "cone_growth", "change_point", "clamp", "drive_matrices", "logit_gradients", "pca", "perturb", "project",
    "scale", "silence", "subspace_angles",
}  # fmt: skip
ONE_BY_ONE = {"jacobian", "local_spectra", "mean_map", "reference_run"}


def test_every_tool_takes_an_input_or_is_known_not_to() -> None:
    with_input = {
        name for name in analysis.__all__ if "input" in inspect.signature(getattr(analysis, name)).parameters
    }

    assert with_input == set(TOOLS) | ONE_BY_ONE
    assert set(analysis.__all__) == with_input | UNDRIVEN


@pytest.mark.parametrize("name", TOOLS)
def test_a_constant_input_is_a_shift_of_the_biases(name: str) -> None:
    given = TOOLS[name](network(), input=INPUT)
    own = TOOLS[name](network(INPUT))

    # The distance of a shape to itself is the root of a rounding error.
    xr.testing.assert_allclose(given, own, atol=1e-6)
    assert not given.drop_attrs().equals(TOOLS[name](network()).drop_attrs())


@pytest.mark.parametrize("name", sorted(set(TOOLS) - {"fixed_points"}))
def test_a_batch_of_two_is_two_results_and_survives_a_file(name: str, tmp_path: Path) -> None:
    found = TOOLS[name](network(), input=BATCH)

    np.testing.assert_array_equal(found.condition_input, BATCH)
    for number, row in enumerate(BATCH):
        one, whole = TOOLS[name](network(), input=row), found.isel(condition=number)
        for label, values in one.data_vars.items():
            assert found[label].dims == ("condition", *values.dims)
            assert found[label].dtype.kind == values.dtype.kind
            places = {dim: one[dim].values for dim in values.dims if one[dim].dtype.kind in "UO"}
            sizes = {dim: slice(values.sizes[dim]) for dim in values.dims if dim not in places}
            np.testing.assert_array_equal(whole[label].sel(places).isel(sizes), values)
    # No result names its places by numbers of its own, which a whole could not keep as labels.
    assert not {f"{dim}_value" for dim in found.dims} & set(found.data_vars)
    to_netcdf(found, tmp_path / "result.nc")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as read:
        for label, values in found.data_vars.items():
            if values.dtype.kind != "c":
                np.testing.assert_array_equal(read[label], values)


@pytest.mark.parametrize(
    "name", ["lyapunov_spectrum", "speed_field", "orbit", "noise_sweep", "readout_axes", "residence"]
)
def test_the_picture_of_a_condition_is_that_of_its_own_run(name: str) -> None:
    def drawn(data: xr.Dataset) -> list[Any]:
        axes = np.ravel(np.array(getattr(plot, name)(data), dtype=object))
        lines = [line.get_xydata() for ax in axes for line in ax.lines]
        clouds = [np.asarray(cloud.get_offsets()) for ax in axes for cloud in ax.collections]
        texts = [text.get_text() for ax in axes if ax.get_legend() for text in ax.get_legend().get_texts()]
        limits = [(*ax.get_xlim(), *ax.get_ylim()) for ax in axes]
        plt.close("all")
        return [*lines, *clouds, texts, limits]

    found = TOOLS[name](network(), input=BATCH)

    np.testing.assert_equal(drawn(found.isel(condition=1)), drawn(TOOLS[name](network(), input=BATCH[1])))


def test_what_goes_wrong_under_one_condition_is_said_with_its_number() -> None:
    pinned = torch.stack([0 * INPUT, 1e3 * torch.ones(INPUTS, dtype=torch.float64)])

    with pytest.raises(ValueError, match=r"under condition 1 of 2, tensor\(\[1000.*the symbol never changes"):
        analysis.group_effect(network(), [1], num_steps=800, num_random=5, input=pinned, **SHORT)


def test_the_own_input_of_a_map_stands_where_none_is_given() -> None:
    own = dataclasses.replace(network(), input=INPUT)
    for name in ("kick_units", "residence", "populations", "growth_rate", "orbit"):
        xr.testing.assert_equal(TOOLS[name](own), TOOLS[name](network(), input=INPUT))


def test_an_averaged_map_keeps_its_input() -> None:
    averaged = analysis.mean_map(network(), 0.5, input=INPUT)

    one = analysis.fixed_points(averaged, STATES, seed=0)
    xr.testing.assert_allclose(
        one, analysis.fixed_points(analysis.mean_map(network(INPUT), 0.5), STATES, seed=0)
    )
    with pytest.raises(ValueError, match="give a batch of inputs to the tool instead"):
        analysis.mean_map(network(), 0.5, input=BATCH)


def test_without_a_seed_all_conditions_share_one() -> None:
    same = torch.stack([INPUT, INPUT])

    found = analysis.residence(network(), STATES, num_runs=4, max_steps=5, input=same)

    assert isinstance(found.attrs["seed"], int)
    np.testing.assert_array_equal(*found.residence_time)


def test_other_shapes_are_refused() -> None:
    for wrong in (torch.zeros(2, 2, 4), torch.zeros(0, 4)):
        with pytest.raises(ValueError, match=r"a batch of conditions \(B, X\)"):
            TOOLS["orbit"](network(), input=wrong)
    with pytest.raises(ValueError, match="input must have 4 columns"):
        TOOLS["orbit"](network(), input=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="make one run for each input"):
        analysis.reference_run(network(), num_steps=64, input=BATCH)
    with pytest.raises(ValueError, match="one for each of the 8 states"):
        simulate(network(), STATES, 3, input=BATCH)


# What is filled ------------------------------------------------------------------------------------------


def test_labels_are_joined_and_gaps_filled_by_kind() -> None:
    first = xr.Dataset(
        {
            "is_kick": (("direction", "unit"), [[True, False]]),
            "kick_rank": (("direction", "unit"), [[1, 2]]),
            "num_switches": ("direction", [7]),
            "score": ("direction", [0.5]),
            "name": ("direction", ["ab"]),
            "length": ("dwell", [3, 4, 5]),
            "rate": 2.0,
        },
        {"direction": ["2->0"], "bin": [0.0, 1.0]},
        {"seed": 1, "verdict": "yes", "reason": "few"},
    )
    second = xr.Dataset(
        {
            "is_kick": (("direction", "unit"), [[True, True], [False, True]]),
            "kick_rank": (("direction", "unit"), [[2, 1], [1, 2]]),
            "num_switches": ("direction", [8, 9]),
            "score": ("direction", [0.6, 0.7]),
            "name": ("direction", ["c", "d"]),
            "length": ("dwell", [6]),
            "rate": 3.0,
        },
        {"direction": ["0->2", "2->0"], "bin": [0.0, 2.0]},
        {"seed": 1, "verdict": "no"},
    )

    found = stacked([first, second])

    assert found.direction.values.tolist() == ["0->2", "2->0"]
    assert found.is_kick.dtype == bool and found.is_kick[0].values.tolist() == [[False] * 2, [True, False]]
    assert found.kick_rank.dtype.kind == "i" and found.kick_rank[0].values.tolist() == [[-1, -1], [1, 2]]
    assert found.num_switches.values.tolist() == [[0, 7], [8, 9]]
    np.testing.assert_array_equal(found.score, [[np.nan, 0.5], [0.6, 0.7]])
    assert found.name.values.tolist() == [["", "ab"], ["c", "d"]]
    assert found.length.values.tolist() == [[3, 4, 5], [6, 0, 0]]
    assert found.rate.values.tolist() == [2.0, 3.0]
    assert found.bin_value.values.tolist() == [[0.0, 1.0], [0.0, 2.0]] and "bin" not in found.coords
    assert found.attrs == {"seed": 1} and found.verdict.values.tolist() == ["yes", "no"]
    assert found.reason.values.tolist() == ["few", ""]


def test_a_condition_without_a_result_is_filled_throughout() -> None:
    whole = xr.Dataset({"x": ("gamma", [1.0, 2.0])}, {"gamma": [0.0, 0.5]}, {"seed": 0})

    found = stacked([xr.Dataset(attrs={"seed": 0, "reason": "no event"}), whole])

    np.testing.assert_array_equal(found.x, [[np.nan, np.nan], [1.0, 2.0]])
    assert found.gamma.values.tolist() == [0.0, 0.5] and found.reason.values.tolist() == ["no event", ""]
