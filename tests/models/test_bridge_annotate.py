"""What a bridge writes into AnnData, and genes and principal components between model and user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn import datasets
from seqdyn.data import read_snapshots, to_anndata
from seqdyn.models import SchrodingerBridge
from seqdyn.sde.drifts import Zero

anndata = pytest.importorskip("anndata")

SIZE, GENES = 24, 40


def cells(seed: int = 0) -> Any:
    """Cells of three days, mixed up, with more genes than cells of a day."""
    generator = np.random.default_rng(seed)
    day = generator.permutation(np.repeat(["10.0", "9.5", "11.0"], SIZE // 3))
    kind = generator.choice(["stem", "bone"], SIZE)
    kind[day == "11.0"] = ["stem", "bone"] * 4
    place = day.astype(float)[:, None] * generator.normal(size=(1, GENES))
    x = place + (kind == "bone")[:, None] * generator.normal(0, 3, (1, GENES))
    x = (x + generator.normal(size=(SIZE, GENES))).astype(np.float32)
    obs = pd.DataFrame(
        {"day": pd.Categorical(day), "kind": pd.Categorical(kind), "lab": np.tile(["a", "b"], SIZE // 2)},
        index=pd.Index([f"c{i}" for i in range(SIZE)], dtype=object),
    )
    var = pd.DataFrame(index=pd.Index([f"g{i}" for i in range(GENES)], dtype=object))
    found = anndata.AnnData(x, obs=obs, var=var)
    found.obsm["X_pca"] = x[:, :3].astype(np.float64)
    return found


def fitted(data: xr.Dataset, components: int | None = 4, **settings: Any) -> SchrodingerBridge:
    settings = {"solver": "linear", "num_components": components} | settings
    model = SchrodingerBridge(data.sizes["feature"], 1.5, **settings)
    return model.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)


@pytest.fixture(scope="module")
def model() -> SchrodingerBridge:
    data = read_snapshots(cells())
    return fitted(data.isel(particle=np.argsort(data["time"].values, kind="stable")))


def test_what_is_written_has_the_order_of_the_cells(model: SchrodingerBridge, tmp_path: Path) -> None:
    source = cells()
    data = read_snapshots(source)

    returned = model.annotate(source, labels="kind", time="day")

    assert returned is source
    drift = model.bridge_drift(data)["drift"].values
    np.testing.assert_allclose(source.obsm["bridge_drift"], drift, rtol=1e-12, atol=1e-12)
    loadings, mean = model.space.loadings.numpy(), model.space.mean.numpy()
    np.testing.assert_allclose(source.obsm["X_bridge"], (data["x"].values - mean) @ loadings, atol=1e-9)
    np.testing.assert_allclose(source.obsm["bridge_drift_components"], drift @ loadings, atol=1e-12)
    np.testing.assert_allclose(source.obsm["bridge_drift_components"] @ loadings.T, drift, atol=1e-9)
    # The same through the names of the cells.
    order = source.obs_names[np.argsort(data["time"].values, kind="stable")]
    fate = pd.DataFrame(model.fates(source.obs["kind"].loc[order])["fate"].values, index=order)
    np.testing.assert_array_equal(source.obsm["bridge_fate"], fate.loc[source.obs_names])
    np.testing.assert_allclose(source.obsm["bridge_fate"].sum(axis=1), 1)
    assert source.uns["bridge"]["fate_labels"].tolist() == ["bone", "stem"]
    assert all(source.obsm[name].dtype == np.float64 for name in source.obsm if "bridge" in name)

    source.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["bridge_fate"], source.obsm["bridge_fate"])
    assert list(again.uns["bridge"]["fate_labels"]) == ["bone", "stem"]


def test_shuffled_and_equal_cells_get_their_own_values(model: SchrodingerBridge) -> None:
    source = cells()
    order = np.random.default_rng(3).permutation(SIZE)
    shuffled = source[order].copy()

    for table in (source, shuffled):
        model.annotate(table, labels="kind", key="sb")

    for name in ("sb_drift", "X_sb", "sb_drift_components", "sb_fate"):
        np.testing.assert_array_equal(shuffled.obsm[name], source.obsm[name][order])
    twins = cells()
    twins.X[1] = twins.X[0]
    twins.obs["day"] = twins.obs["day"].where(np.arange(SIZE) != 1, twins.obs["day"].iloc[0])
    again = fitted(read_snapshots(twins)).annotate(twins)
    np.testing.assert_array_equal(again.obsm["bridge_drift"][1], again.obsm["bridge_drift"][0])


def test_a_representation_is_annotated_in_its_own_space() -> None:
    source = cells()
    model = fitted(read_snapshots(source, representation="X_pca"), None, reference=Zero())

    model.annotate(source, representation="X_pca")

    assert source.obsm["bridge_drift"].shape == (SIZE, 3)
    np.testing.assert_array_equal(source.obsm["X_bridge"], source.obsm["X_pca"])
    assert not {"bridge_drift_components", "bridge_fate"} & set(source.obsm)


def test_conditions_tell_equal_cells_apart() -> None:
    source = cells()
    source.X[1], source.obs["day"] = source.X[0], np.tile(["9", "9", "10", "10"], SIZE // 4)
    model = fitted(read_snapshots(source, condition="lab"), 3)

    model.annotate(source, condition="lab", labels="kind")

    for lab, numbers in (("a", slice(0, None, 2)), ("b", slice(1, None, 2))):
        expected = model.fates(source.obs["kind"], condition=lab)["fate"]
        assert expected["particle"].values.tolist() == list(range(SIZE))[numbers]
        np.testing.assert_allclose(source.obsm["bridge_fate"][numbers], expected)
    assert not np.allclose(source.obsm["bridge_drift"][0], source.obsm["bridge_drift"][1])
    with pytest.raises(ValueError, match=r"fitted on the conditions \['a', 'b'\].*with condition="):
        model.annotate(source)


def test_a_narrow_model_writes_narrow_values(tmp_path: Path) -> None:
    source = cells()
    narrow = fitted(read_snapshots(source)).float()

    narrow.annotate(source, labels="kind")

    assert {source.obsm[name].dtype for name in source.obsm if "bridge" in name} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda c: c[:-1].copy(), r"has 23 cells, but the model was fitted on 24; pass the one"),
        (
            lambda c: c[[*range(SIZE - 1), 0]].copy(),
            r"has 7 cells at time 9\.5, the training data 8; say which column",
        ),
        (
            lambda c: anndata.AnnData(c.X + 1, obs=c.obs, var=c.var),
            r"values of cell 'c0' at time \d.*are those of no",
        ),
        (lambda c: c[:, ::-1].copy(), r"the features \['g39'"),
        (lambda c: c[:, :5].copy(), r"have 5 features but the model was fitted to 40"),
    ],
    ids=["fewer", "times", "values", "order of genes", "genes"],
)
def test_other_cells_are_refused_and_left_alone(model: SchrodingerBridge, change: Any, remedy: str) -> None:
    other = change(cells())
    before = set(other.obsm), set(other.uns)

    with pytest.raises(ValueError, match=remedy):
        model.annotate(other, labels="kind")
    assert (set(other.obsm), set(other.uns)) == before


def test_missing_columns_are_named(model: SchrodingerBridge) -> None:
    with pytest.raises(
        ValueError, match=r"no column 'type' in obs \(labels=\), it holds \['day', 'kind', 'lab'\]"
    ):
        model.annotate(cells(), labels="type")
    with pytest.raises(ValueError, match=r"no column 'age' \(time=\)"):
        model.annotate(cells(), time="age")


def test_components_are_saved_and_all_verbs_answer_in_genes(model: SchrodingerBridge, tmp_path: Path) -> None:
    data = read_snapshots(cells())
    model.save(tmp_path / "m")
    loaded = SchrodingerBridge.load(tmp_path / "m")

    for name, arguments in (
        ("infer", (data,)), ("marginal", ([9.7, 10.5],)), ("forecast", ([11.5],)), ("bridge_drift", (data,)),
    ):  # fmt: skip
        seed = {} if name == "bridge_drift" else {"seed": 1}
        found, again = (getattr(one, name)(*arguments, **seed) for one in (model, loaded))
        xr.testing.assert_identical(again, found)
        assert found["feature"].values.tolist() == [f"g{i}" for i in range(GENES)]
    loadings = model.space.loadings.numpy()
    assert loadings.shape == (GENES, 4)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(4), atol=1e-12)
    # What has no share in the components is as it is on average.
    x = model.marginal([9.7], seed=1)["x"].values[:, 0] - model.space.mean.numpy()
    np.testing.assert_allclose(x @ loadings @ loadings.T, x, atol=1e-10)


def test_more_components_than_directions_are_refused_by_the_fit() -> None:
    data = read_snapshots(cells()).isel(particle=slice(0, 6))

    with pytest.raises(ValueError, match="num_components=6.*num_components=5 or fewer"):
        fitted(data, 6)


# Real cells ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moscot(data_dir: Path) -> tuple[Any, SchrodingerBridge]:
    path = data_dir / "moscot_temporal" / "moscot_temporal_tests.h5ad"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    data = datasets.load("moscot_temporal", download=False)
    model = SchrodingerBridge(1479, 6.0, num_components=10, solver="linear")  # Linear, what "estimate" gives
    return anndata.read_h5ad(path), model.fit(data, max_epochs=5, seed=0, enable_progress_bar=False)


def test_real_cells_keep_their_kind(moscot: tuple[Any, SchrodingerBridge]) -> None:
    source, model = moscot
    model.annotate(source, labels="cell_type", time="day")

    fate = pd.DataFrame(source.obsm["bridge_fate"], columns=source.uns["bridge"]["fate_labels"])
    groups = [source.obs["day"].astype(float).to_numpy(), source.obs["cell_type"].astype(str).to_numpy()]
    mean = fate.groupby(groups).mean()

    assert source.obsm["bridge_drift"].shape == (250, 1479)
    assert mean.loc[(10.0, "Epithelial"), "Epithelial"] > 0.5
    assert mean.loc[(10.0, "Stromal"), "Stromal"] > 0.7
    assert mean.loc[(10.5, "Trophoblast"), "Trophoblast"] > 0.4
    np.testing.assert_allclose(fate.sum(axis=1), 1)
    # Days are ordered as numbers: 10, 10.5, 11, so that only the last is certain of its fate.
    certain = (fate.max(axis=1) == 1).to_numpy()
    np.testing.assert_array_equal(certain[source.obs["day"].astype(float) == 11.0], True)
    assert not certain[source.obs["day"].astype(float) < 11.0].all()


def test_real_trajectories_come_back_in_genes(moscot: tuple[Any, SchrodingerBridge]) -> None:
    source, model = moscot

    paths = model.infer(datasets.load("moscot_temporal", download=False), num_samples=20, seed=0)
    table = to_anndata(paths)

    assert paths["x"].shape == (20, 21, 1479) and table.shape == (420, 1479)
    assert table.var_names.tolist() == source.var_names.tolist()
    assert table.obs["time"].iloc[[0, 10, 20]].tolist() == [10.0, 10.5, 11.0]


def test_an_older_fate_is_no_part_of_a_new_annotation(model: SchrodingerBridge) -> None:
    source = cells()
    model.annotate(source, labels="kind", time="day")
    assert {"bridge_fate", "bridge_drift_components"} <= set(source.obsm)

    fitted(read_snapshots(source, representation="X_pca"), None).annotate(source, representation="X_pca")

    assert {name for name in source.obsm if "bridge" in name} == {"bridge_drift", "X_bridge"}
    assert "fate_labels" not in source.uns["bridge"]


def test_cells_may_be_renamed_since_the_fit(model: SchrodingerBridge) -> None:
    source, renamed = cells(), cells()
    renamed.obs_names = [f"new{i}" for i in range(SIZE)]

    for one in (source, renamed):
        model.annotate(one, labels="kind", time="day")

    np.testing.assert_array_equal(renamed.obsm["bridge_fate"], source.obsm["bridge_fate"])
