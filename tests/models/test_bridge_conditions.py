"""Several conditions that share one reference: each has its own bridge, their divergences add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray as xr

import seqdyn
from seqdyn.data import SnapshotDataModule, stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.sde.drifts import Rotation

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False}


def turning(seed: int, sizes: tuple[int, ...], times: tuple[float, ...], label: str) -> xr.Dataset:
    """Clouds that turn by one radian per unit of time, in one condition."""
    generator = np.random.default_rng(seed)
    clouds = []
    for size, time in zip(sizes, times, strict=True):
        centre = [2 * np.cos(time), 2 * np.sin(time)]
        clouds.append(generator.normal(0, 0.3, (size, 2)) + centre)
    data = stack_snapshots(clouds, times=times)
    return data.assign_coords(condition=("particle", [label] * data.sizes["particle"]))


def joined(*parts: xr.Dataset) -> xr.Dataset:
    return xr.concat(parts, "particle")


def plain(data: xr.Dataset) -> xr.Dataset:
    return data.drop_vars("condition")


@pytest.fixture(scope="module")
def parts() -> tuple[xr.Dataset, xr.Dataset]:
    return (
        turning(0, (12, 9, 15), (0, 0.5, 1), "wild"),
        turning(1, (7, 11), (0.25, 1.5), "mutant"),
    )


def new_model(epochs: int, data: xr.Dataset, **settings: Any) -> SchrodingerBridge:
    model = SchrodingerBridge(2, 0.4, reference=Rotation(), num_steps=5, num_paths=20, **settings)
    return model.fit(data, max_epochs=epochs, **FIT)


@pytest.fixture(scope="module")
def model(parts: tuple[xr.Dataset, xr.Dataset]) -> SchrodingerBridge:
    return new_model(4, joined(*parts))


def test_divergences_and_their_gradients_add_up(
    parts: tuple[xr.Dataset, xr.Dataset], model: SchrodingerBridge
) -> None:
    def found(data: xr.Dataset) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch = next(iter(SnapshotDataModule(data).train_dataloader()))
        loss = model.loss(batch)["loss"]
        return loss.detach(), list(torch.autograd.grad(loss, list(model.process.parameters())))

    (whole, gradient), one, other = found(joined(*parts)), *map(found, map(plain, parts))

    torch.testing.assert_close(whole, one[0] + other[0], rtol=1e-9, atol=1e-9)
    for total, a, b in zip(gradient, one[1], other[1], strict=True):
        torch.testing.assert_close(total, a + b, rtol=1e-6, atol=1e-6)


def test_the_same_snapshots_twice_give_the_parameters_of_once(parts: tuple[xr.Dataset, xr.Dataset]) -> None:
    twice = joined(parts[0], parts[0].assign_coords(condition=("particle", ["other"] * 36)))

    once, doubled = new_model(8, plain(parts[0])), new_model(8, twice)

    np.testing.assert_allclose(
        doubled.reference_parameters["value"], once.reference_parameters["value"], rtol=1e-4, atol=1e-4
    )
    assert float(doubled.history["train_loss"][-1]) == pytest.approx(
        2 * float(once.history["train_loss"][-1]), abs=1e-4
    )


def test_each_condition_has_the_bridge_of_a_model_of_its_own(
    parts: tuple[xr.Dataset, xr.Dataset], model: SchrodingerBridge
) -> None:
    for data, label in zip(parts, ("wild", "mutant"), strict=True):
        alone = new_model(1, plain(data))
        alone.process.load_state_dict(model.process.state_dict())
        paths = alone.infer(plain(data), num_samples=30, seed=3)
        same = model.infer(data, num_samples=30, seed=3)
        np.testing.assert_allclose(same["x"], paths["x"], atol=1e-6)
        assert same["condition"].values.tolist() == [label] * 30
        whole = model.infer(joined(*parts), paths["time"].values, num_samples=30, seed=3, condition=label)
        np.testing.assert_allclose(whole["x"], paths["x"], atol=1e-6)


def test_results_say_which_condition_they_are_of(
    parts: tuple[xr.Dataset, xr.Dataset], model: SchrodingerBridge
) -> None:
    data = joined(*parts)
    verbs: dict[str, Callable[..., xr.Dataset]] = {
        "infer": lambda **chosen: model.infer(data, [0.5, 0.75], num_samples=5, seed=0, **chosen),
        "marginal": lambda **chosen: model.marginal([0.5, 0.75], num_samples=5, seed=0, **chosen),
        "forecast": lambda **chosen: model.forecast([2.0, 2.5], num_samples=5, seed=0, **chosen),
    }
    for name, verb in verbs.items():
        both, one = verb(), verb(condition="mutant")
        assert both["condition"].values.tolist() == ["wild"] * 5 + ["mutant"] * 5, name
        assert one["condition"].values.tolist() == ["mutant"] * 5, name
        assert not np.allclose(both["x"][:5], both["x"][5:]), name
    both = verbs["forecast"]()
    assert both["extrapolation_from"].values.tolist() == [1.0] * 5 + [1.5] * 5
    assert "extrapolation_from" not in both.attrs
    assert verbs["forecast"](condition="wild").attrs["extrapolation_from"] == 1.0

    drift = model.bridge_drift(data)
    np.testing.assert_array_equal(drift["condition"], data["condition"])
    at = data["x"].values[36:]
    again = model.bridge_drift(at, data["time"].values[36:], condition="mutant")
    np.testing.assert_allclose(again["drift"], drift["drift"][36:], atol=1e-12)
    coupling = model.coupling(0, condition="mutant")
    assert coupling["source"].values.tolist() == list(range(36, 43))
    assert (coupling.attrs["start"], coupling.attrs["end"]) == (0.25, 1.5)
    assert model.coupling(1, condition="wild").shape == (9, 15)


def test_fates_and_ancestors_are_those_of_each_condition(
    parts: tuple[xr.Dataset, xr.Dataset], model: SchrodingerBridge
) -> None:
    labels = np.array(["left", "right"], dtype=object)[np.arange(54) % 2]
    labels[43:] = "mutated"

    both = model.fates(labels)["fate"]
    one = model.fates(labels, condition="wild")["fate"]

    assert both["label"].values.tolist() == ["left", "mutated", "right"]
    np.testing.assert_array_equal(both["condition"], joined(*parts)["condition"])
    np.testing.assert_array_equal(both["time"], joined(*parts)["time"])
    np.testing.assert_array_equal(both.sel(label=["left", "right"])[:36], one)
    np.testing.assert_allclose(both.sum("label"), 1)
    np.testing.assert_allclose(both.sel(label="mutated"), np.arange(54) >= 36, atol=1e-12)
    np.testing.assert_array_equal(model.fates(labels[[*range(21, 36), *range(43, 54)]])["fate"], both)

    ancestry = model.ancestors(labels)["ancestry"]
    sums = ancestry.groupby(["condition", "time"]).sum(skipna=False)
    for label in ("left", "right"):
        np.testing.assert_allclose(sums.sel(label=label, condition="wild", time=[0, 0.5, 1]), 1)
        assert ancestry.sel(label=label)[36:].isnull().all()
    np.testing.assert_allclose(sums.sel(label="mutated", condition="mutant", time=[0.25, 1.5]), 1)


def test_an_unknown_or_ambiguous_condition_is_refused(
    parts: tuple[xr.Dataset, xr.Dataset], model: SchrodingerBridge
) -> None:
    data, labels = joined(*parts), ["a"] * 54
    for verb in (
        lambda: model.infer(data, condition="none"),
        lambda: model.marginal([0.5], condition="none"),
        lambda: model.forecast([2.0], condition="none"),
        lambda: model.bridge_drift(np.zeros((1, 2)), 0.5, condition="none"),
        lambda: model.coupling(0, condition="none"),
        lambda: model.fates(labels, condition="none"),
        lambda: model.ancestors(labels, condition="none"),
    ):
        with pytest.raises(ValueError, match=r"no condition 'none'; the conditions are \['wild', 'mutant'\]"):
            verb()
    for verb in (lambda: model.coupling(0), lambda: model.bridge_drift(np.zeros((1, 2)), 0.5)):
        with pytest.raises(ValueError, match=r"say which condition= is meant, of \['wild', 'mutant'\]"):
            verb()
    with pytest.raises(ValueError, match="the snapshots have none"):
        new_model(1, plain(parts[0])).marginal([0.5], condition="wild")
    with pytest.raises(ValueError, match=r"snapshots at different times; give times=\[\.\.\.\]"):
        model.infer(data)
    with pytest.raises(
        ValueError, match=r"the model has the conditions \['wild', 'mutant'\]; the snapshots need"
    ):
        model.bridge_drift(plain(data))


def test_a_time_is_looked_up_in_its_own_condition(model: SchrodingerBridge) -> None:
    assert model.marginal([1.25], num_samples=3, seed=0, condition="mutant").sizes["particle"] == 3
    with pytest.raises(ValueError, match=r"time 1\.25 lies outside the snapshots of 'wild', .* from 0 to 1"):
        model.marginal([1.25])


def test_a_snapshot_is_left_out_where_it_is_an_inner_one() -> None:
    early = turning(0, (8, 8, 8), (0, 1, 2), "soon")
    late, short = turning(1, (8, 8, 8), (1, 2, 3), "late"), turning(2, (8, 8), (1, 2), "short")
    model = SchrodingerBridge(2, 0.4, reference=Rotation(), num_steps=5, num_paths=10)
    options: dict[str, Any] = {"metrics": ["w2"], "num_samples": 20, "seed": 0, "max_epochs": 1}

    found = model.leave_one_out(joined(early, late, short), progress=False, **options)["score"]
    table = model.compare_references(joined(early, late, short), {"still": "Zero"}, progress=False, **options)

    assert found["condition"].values.tolist() == ["soon", "late"]
    assert found["time"].values.tolist() == [1.0, 2.0]
    scores = found.sel({"method": "model", "metric": "w2"}).transpose("condition", "time").values
    np.testing.assert_array_equal(np.isfinite(scores), [[True, False], [False, True]])
    assert np.isfinite(table.to_array()).all()
    again = seqdyn.evaluate(model, joined(early, late, short), progress=False, **options)
    xr.testing.assert_equal(again["score"], found)
    with pytest.raises(ValueError, match=r"three or more times, got \[1, 2\] and no more than two in any"):
        model.leave_one_out(short, progress=False, **options)


def test_a_condition_without_weight_at_one_time_is_refused(parts: tuple[xr.Dataset, xr.Dataset]) -> None:
    data = joined(*parts)
    lost = (data["condition"].values == "mutant") & (data["time"].values == 0.25)
    weighted = data.assign(weight=("particle", (~lost).astype(float)))
    same_times = weighted.assign_coords(time=("particle", np.where(lost, 0.5, data["time"])))

    with pytest.raises(ValueError, match=r"at time 0.5 in condition 'mutant' have weight 0; give one"):
        new_model(1, same_times)


def test_a_trainer_of_ones_own_keeps_conditions_names_and_units(
    parts: tuple[xr.Dataset, xr.Dataset],
) -> None:
    data = joined(*parts).assign_coords(feature=["east", "north"])
    data["x"].attrs["units"] = "km"
    model = SchrodingerBridge(2, 0.4, reference=Rotation(), num_steps=5, num_paths=20)
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, model.datamodule(data))

    found = model.marginal([0.5], num_samples=4, seed=0)
    assert found["condition"].values.tolist() == ["wild"] * 4 + ["mutant"] * 4
    assert found["feature"].values.tolist() == ["east", "north"] and found["x"].attrs["units"] == "km"
    model.data_info = None  # as after Lightning's load_from_checkpoint
    numbers = model.marginal([0.5], num_samples=4, seed=0)
    assert numbers["condition"].values.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(numbers["x"], found["x"])


def test_conditions_are_saved(model: SchrodingerBridge, tmp_path: Any) -> None:
    model.save(tmp_path / "m")
    loaded = SchrodingerBridge.load(tmp_path / "m", reference=Rotation())

    for condition in (None, "mutant"):
        arguments = {"num_samples": 4, "seed": 1, "condition": condition}
        xr.testing.assert_identical(loaded.marginal([0.5], **arguments), model.marginal([0.5], **arguments))
