"""What single particles become and come from: against sums over all chains of particles."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.sde.drifts import Rotation, Zero

SIZES = (4, 3, 5)
LABELS = ["b", "a", "b", "c", "a"]  # of the last snapshot


def cloud(**columns: Any) -> xr.Dataset:
    """Twelve particles in the plane at the times 0, 1 and 3."""
    generator = np.random.default_rng(0)
    data = stack_snapshots([generator.normal(k, 1, (n, 2)) for k, n in enumerate(SIZES)], times=[0, 1, 3])
    return data.assign({name: ("particle", values) for name, values in columns.items()})


def uneven() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 2, sum(SIZES))


def bridge(data: xr.Dataset, volatility: float = 0.8, **settings: Any) -> SchrodingerBridge:
    """The bridge of a reference that stays as it is."""
    settings = {"reference": Zero(), "num_steps": 5, "num_paths": 10} | settings
    model = SchrodingerBridge(data.sizes["feature"], volatility, **settings)
    return model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)


def laws(model: SchrodingerBridge) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Law of the next particle given each, and of the one before, for both intervals."""
    plans = [model.coupling(k).values for k in range(2)]
    return [p / p.sum(axis=1, keepdims=True) for p in plans], [p / p.sum(axis=0) for p in plans]


GROWTH = np.linspace(-1, 1, sum(SIZES))


@pytest.mark.parametrize("growth", [{}, {"growth": GROWTH}], ids=["equal", "growing"])
def test_fates_are_the_sum_over_all_chains_of_particles(growth: dict[str, Any]) -> None:
    model = bridge(cloud(weight=uneven(), **growth))
    onward, _ = laws(model)
    expected = {name: np.zeros(n) for name in "abc" for n in SIZES[:1]}
    for i, j, k in product(*map(range, SIZES)):
        expected[LABELS[k]][i] += onward[0][i, j] * onward[1][j, k]

    fate = model.fates(LABELS)["fate"]

    assert fate.dims == ("particle", "label")
    for name in "abc":
        np.testing.assert_allclose(fate.sel(label=name)[:4], expected[name], rtol=1e-8)
        marked = onward[1][:, np.array(LABELS) == name].sum(axis=1)
        np.testing.assert_allclose(fate.sel(label=name)[4:7], marked, rtol=1e-8)
        np.testing.assert_array_equal(fate.sel(label=name)[7:], np.array(LABELS) == name)
    np.testing.assert_allclose(fate.sum("label"), 1, rtol=1e-12)


@pytest.mark.parametrize("growth", [{}, {"growth": GROWTH}], ids=["equal", "growing"])
def test_ancestors_are_the_sum_over_all_chains_of_particles(growth: dict[str, Any]) -> None:
    weight = uneven()
    model = bridge(cloud(weight=weight, **growth))
    _, back = laws(model)
    expected = {name: np.zeros(SIZES[0]) for name in "abc"}
    for name in "abc":
        own = weight[7:] * (np.array(LABELS) == name)
        for i, j, k in product(*map(range, SIZES)):
            expected[name][i] += back[0][i, j] * back[1][j, k] * own[k] / own.sum()

    ancestry = model.ancestors(LABELS)["ancestry"]

    assert ancestry.dims == ("label", "particle")
    for name in "abc":
        np.testing.assert_allclose(ancestry.sel(label=name)[:4], expected[name], rtol=1e-8)
    np.testing.assert_allclose(ancestry.groupby("time").sum(), 1, rtol=1e-8)


def test_fates_and_ancestors_agree_by_bayes_and_mass_is_conserved() -> None:
    weight = uneven()
    model = bridge(cloud(weight=weight), reference=Rotation())
    fate, ancestry = model.fates(LABELS)["fate"], model.ancestors(LABELS)["ancestry"]
    share = np.concatenate([part / part.sum() for part in np.split(weight, np.cumsum(SIZES)[:-1])])
    final = [share[7:][np.array(LABELS) == name].sum() for name in "abc"]

    joint = share[:, None] * fate.values

    np.testing.assert_allclose(joint, ancestry.values.T * final, rtol=1e-7)
    for part in np.split(joint, np.cumsum(SIZES)[:-1]):
        np.testing.assert_allclose(part.sum(axis=0), final, rtol=1e-7)


def test_a_particle_without_weight_has_the_fate_of_its_twin_and_no_descendant() -> None:
    weight = np.ones(sum(SIZES))
    weight[1] = 0
    data = cloud(weight=weight)
    data.x[1] = data.x[0]
    model = bridge(data)

    fate, ancestry = model.fates(LABELS)["fate"], model.ancestors(LABELS)["ancestry"]

    np.testing.assert_allclose(fate[1], fate[0], rtol=1e-12)
    assert (ancestry[:, 1] == 0).all()


def test_results_are_in_the_order_of_the_training_data() -> None:
    data, order = cloud(weight=uneven()), np.random.default_rng(2).permutation(sum(SIZES))
    labels = pd.Series(["?"] * 7 + LABELS)
    one, other = bridge(data), bridge(data.isel(particle=order))

    for name in ("fates", "ancestors"):
        sorted_ = getattr(one, name)(labels).isel(particle=order)
        shuffled = getattr(other, name)(labels[order])
        assert shuffled["particle"].values.tolist() == list(range(12))
        np.testing.assert_array_equal(shuffled["time"], sorted_["time"])
        for variable in shuffled.data_vars:
            np.testing.assert_allclose(shuffled[variable], sorted_[variable], rtol=1e-6, atol=1e-12)


def test_labels_come_from_the_last_snapshot_or_from_all_in_any_container() -> None:
    model = bridge(cloud())
    every = ["z"] * 7 + LABELS
    expected = model.fates(LABELS)

    array = xr.DataArray(every, dims="particle", name="label")
    for labels in (
        np.array(LABELS),
        every,
        pd.Series(every),
        pd.Categorical(every),
        array,
        array.to_dataset(),
    ):
        xr.testing.assert_identical(model.fates(labels), expected)
    assert expected["label"].values.tolist() == ["a", "b", "c"]


def test_labels_keep_their_own_order_and_kind() -> None:
    model = bridge(cloud())
    ordered = pd.Categorical(LABELS, categories=["c", "unused", "b", "a"])

    assert model.fates(ordered)["label"].values.tolist() == ["c", "b", "a"]
    assert model.fates([3, 1, 3, 10, 1])["label"].values.tolist() == [1, 3, 10]


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (
            LABELS[:4],
            r"4 labels, but 5 particles in the last snapshot and 12 in all; give one label for each",
        ),
        ("cell_type", r"got 'cell_type'; pass a column of them, such as labels=adata\.obs\['cell_type'\]"),
        (np.ones((5, 2)), "one label per particle"),
        (["a", None, "b", "c", np.nan], r"labels\[1\] is missing \(2 in the last snapshot\).*'unknown'"),
        ([*["a"] * 8, None, *"abc"], r"labels\[8\] is missing"),
        (xr.Dataset({"x": ("particle", LABELS)}), r"needs the variable 'label'.*labels=data\['NAME'\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, remedy: str) -> None:
    model = bridge(cloud())

    for verb in (model.fates, model.ancestors):
        with pytest.raises(ValueError, match=remedy):
            verb(labels)


def test_labels_missing_before_the_last_snapshot_do_no_harm() -> None:
    model = bridge(cloud())

    xr.testing.assert_identical(model.fates([None] * 7 + LABELS), model.fates(LABELS))


def test_a_saved_model_has_the_same_answers_and_a_narrow_one_narrow_ones(tmp_path: Path) -> None:
    model = bridge(cloud(weight=uneven()))
    model.save(tmp_path / "m")
    loaded = SchrodingerBridge.load(tmp_path / "m", reference=Zero())

    xr.testing.assert_identical(loaded.fates(LABELS), model.fates(LABELS))
    xr.testing.assert_identical(loaded.ancestors(LABELS), model.ancestors(LABELS))
    narrow = loaded.float().fates(LABELS)["fate"]
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, model.fates(LABELS)["fate"], atol=1e-5)


CELLS = np.array([f"c{(7 * i) % 12}" for i in range(12)], dtype=object)


def named_bridge() -> SchrodingerBridge:
    return bridge(cloud().assign_coords(cell=("particle", CELLS)))


def test_labels_that_name_their_cells_are_told_by_name(tmp_path: Path) -> None:
    model = named_bridge()
    model.save(tmp_path / "m")
    every = pd.Series(["z"] * 7 + LABELS, index=CELLS)
    array = xr.DataArray(every.to_numpy(), {"cell": ("particle", CELLS)}, "particle", "label")
    mixed = np.random.default_rng(3).permutation(12)

    for one in (model, SchrodingerBridge.load(tmp_path / "m", reference=Zero())):
        for verb in (one.fates, one.ancestors):
            expected = verb(LABELS)
            assert expected["cell"].dims == ("particle",)
            assert expected["cell"].values.tolist() == CELLS.tolist()
            last = every[7:].astype("category")
            for labels in (every, every.iloc[mixed], last[::-1], array[mixed], array[mixed].to_dataset()):
                xr.testing.assert_identical(verb(labels), expected)
            xr.testing.assert_identical(verb(every.reset_index(drop=True)), expected)  # names none: in order
        coupling = one.coupling(1)
        assert coupling["source_cell"].values.tolist() == CELLS[4:7].tolist()
        assert coupling["target_cell"].values.tolist() == CELLS[7:].tolist()


@pytest.mark.parametrize(("names", "count"), [([*CELLS[7:11], "other"], 0), ([*CELLS[7:], CELLS[11]], 2)])
def test_labels_that_do_not_name_each_cell_once_are_refused(names: list[str], count: int) -> None:
    labels = pd.Series((LABELS * 2)[: len(names)], index=names)

    with pytest.raises(
        ValueError, match=rf"cell '{CELLS[11]}' of the last snapshot {count} times.*labels\.v"
    ):
        named_bridge().fates(labels)


def test_names_that_occur_twice_do_no_harm_in_order() -> None:
    names = np.array(["a", "b"] * 6, dtype=object)
    model = bridge(cloud().assign_coords(cell=("particle", names)))

    xr.testing.assert_identical(model.fates(pd.Series(LABELS, index=names[7:])), model.fates(LABELS))


def test_data_without_names_take_labels_in_order() -> None:
    model = bridge(cloud())

    labels = pd.Series(LABELS, index=CELLS[:5])
    xr.testing.assert_identical(model.fates(labels), model.fates(LABELS))


def test_a_folder_that_names_other_cells_is_refused(tmp_path: Path) -> None:
    model = named_bridge()
    model.cells = list(CELLS[:-1])
    model.save(tmp_path / "m")

    with pytest.raises(ValueError, match="names other cells than its 12 particles"):
        SchrodingerBridge.load(tmp_path / "m", reference=Zero())
