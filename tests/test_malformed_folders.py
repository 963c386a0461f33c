"""Model folders and run checkpoints that are damaged, foreign or hostile: a clear error, and nothing is
run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import seqdyn
from seqdyn._files import write_signed_json
from seqdyn.models import LinearForecaster, SeasonalNaive, TSDiff
from seqdyn.persistence import Record, write_folder


class Bomb:
    """Unpickling it makes a folder, which tells that code was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def small_model() -> TSDiff:
    return TSDiff(
        context_length=8, prediction_length=4, lags=(), hidden_size=4, num_blocks=1, state_size=4,
        embedding_size=4, num_diffusion_steps=4, batch_size=4, batches_per_epoch=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    values = np.random.default_rng(0).random((2, 30, 1))
    return xr.Dataset(
        {"target": (("series", "time", "feature"), values)},
        {"series": ["a", "b"], "time": np.arange(30), "feature": ["y"]},
    )


# Model folders
# -------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder: Path, weights: bytes | None = None, **changes: Any) -> None:
    """Edit like someone who also knows the checksums."""
    path = folder / "model.json"
    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        content |= {"weights_bytes": len(weights), "weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_signed_json(path, content)


def lie_in_a_pickle(folder: Path) -> None:
    rewrite(folder, pickle.dumps(Bomb(folder.parent / "executed")))


def other_weights(folder: Path) -> None:
    write_folder(folder.parent / "other", Record("SeasonalNaive", {}, {"w": torch.zeros(3)}, {}))
    shutil.copy(folder.parent / "other" / "model.safetensors", folder)


def only_a_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    torch.save({"state_dict": {}}, folder / "pytorch_model.bin")


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    torch.save({"state_dict": {}}, folder)


FACTS = {"features": ["y"], "freq": 1.0}
MODEL_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, r"there is no model folder at .*; check the path"),
    "a file": (a_file, r"is a file; pass the folder that holds model.json and model.safetensors"),
    "foreign folder": (
        only_a_checkpoint,
        r"it has no model.json \(found \['pytorch_model.bin'\]\); pass the folder that model.save",
    ),
    "foreign json": (
        lambda folder: (folder / "model.json").write_text('{"model_type": "bert"}'),
        r"does not belong to a seqdyn model folder: it lacks 'format', 'class' or 'sha256'; check the path",
    ),
    "truncated json": (
        lambda folder: cut_in_half(folder / "model.json"),
        r"model.json is truncated or damaged: it is not valid JSON .*; restore it from a copy",
    ),
    "nested json": (
        lambda folder: (folder / "model.json").write_text("[" * 100_000),
        r"model.json is truncated or damaged: it is not valid JSON .*; restore it from a copy",
    ),
    "edited json": (
        lambda folder: edit_json(folder / "model.json", hyperparameters={"season_length": 99}),
        r"model.json was edited or damaged: .* its own sha256; restore it from a copy",
    ),
    "infinite number in json": (
        lambda folder: (folder / "model.json").write_text(
            '{"format": 1, "class": "A", "sha256": "", "x": 1e999}'
        ),
        r"model.json was edited or damaged",
    ),
    "incomplete json": (
        lambda folder: rewrite(folder, weights_bytes="many"),
        r"'weights_bytes' is no int; check the path",
    ),
    "newer format": (
        lambda folder: rewrite(folder, format=2),
        r"has format 2, this version of seqdyn reads up to 1; .*: pip install --upgrade seqdyn",
    ),
    "a format that is no number": (
        lambda folder: rewrite(folder, format="1"),
        r"has the format '1', which no model folder of seqdyn has; check the path",
    ),
    "a truth value as format": (lambda folder: rewrite(folder, format=True), r"has the format True"),
    "a fraction as format": (lambda folder: rewrite(folder, format=1.0), r"has the format 1.0"),
    "format zero": (lambda folder: rewrite(folder, format=0), r"has the format 0"),
    "tensors that are not there": (
        lambda folder: rewrite(folder, complex128=["w"]),
        r"has no tensor 'w' of pairs of float64, which model.json lists in 'complex128'; restore it",
    ),
    "numbers for names": (lambda folder: rewrite(folder, complex128=[1]), r"has no tensor 1 of pairs"),
    "lists for names": (
        lambda folder: rewrite(folder, complex128=[["w"]]),
        r"has no tensor \['w'\] of pairs",
    ),
    "a number as description of the data": (
        lambda folder: rewrite(folder, info={"data_info": 3}),
        r"model.json: 'data_info' is not what a fit writes there; restore it",
    ),
    "no description of the data": (
        lambda folder: rewrite(folder, info={}),
        r"does not hold what a fitted SeasonalNaive saves; fit it again",
    ),
    "a string as features": (
        lambda folder: rewrite(folder, info={"data_info": {"features": "y", "freq": 1.0}}),
        r"'features' in 'data_info' is not what a fit writes there",
    ),
    "a list as frequency": (
        lambda folder: rewrite(folder, info={"data_info": {"features": ["y"], "freq": [1]}}),
        r"'freq' in 'data_info' is not",
    ),
    "no frequency": (
        lambda folder: rewrite(folder, info={"data_info": {"features": ["y"]}}),
        r"'data_info' without 'freq' is not what a fit writes there",
    ),
    "no stamp as end": (
        lambda folder: rewrite(folder, info={"data_info": {**FACTS, "time_end": "tomorrow"}}),
        r"'time_end' in 'data_info' is not",
    ),
    "no history": (
        lambda folder: rewrite(folder, info={"history": {"attrs": {}, "rows": [{"train_loss": "low"}]}}),
        r"'history' is not what a fit writes there",
    ),
    "rows of a history that are none": (
        lambda folder: rewrite(folder, info={"history": {"attrs": {}, "rows": [3]}}),
        r"'history' is not what",
    ),
    "more weights than a baseline has": (
        lambda folder: write_folder(
            folder,
            Record(
                "SeasonalNaive",
                {"season_length": 5, "prediction_length": 3},
                {"w": torch.zeros(3)},
                {"data_info": FACTS},
            ),
        ),
        r"does not hold what a fitted SeasonalNaive saves",
    ),
    "missing weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"model.safetensors is missing; restore it from a copy",
    ),
    "truncated weights": (
        lambda folder: cut_in_half(folder / "model.safetensors"),
        r"model.safetensors is truncated or foreign: \d+ bytes instead of \d+; restore it",
    ),
    "edited weights": (
        lambda folder: flip_a_bit(folder / "model.safetensors"),
        r"model.safetensors was edited or damaged: its sha256 is not that in model.json; restore it",
    ),
    "weights of another model": (other_weights, r"model.safetensors is truncated or foreign"),
    "a pickle as weights": (lie_in_a_pickle, r"model.safetensors is not a safetensors file .*; restore it"),
    "a function as class": (
        lambda folder: rewrite(folder, **{"class": "os.system"}),
        r"holds a 'os.system', which is no model of seqdyn.models",
    ),
    "a name of the namespace that is no class": (
        lambda folder: rewrite(folder, **{"class": "load"}),
        r"holds a 'load', which is no model of seqdyn.models",
    ),
}


@pytest.mark.parametrize("case", MODEL_FOLDERS)
def test_a_malformed_model_folder_is_refused_and_nothing_is_run(
    case: str, data: xr.Dataset, tmp_path: Path
) -> None:
    damage, message = MODEL_FOLDERS[case]
    SeasonalNaive(season_length=5, prediction_length=3).fit(data).save(tmp_path / "model")
    seqdyn.load(tmp_path / "model")
    damage(tmp_path / "model")

    with pytest.raises(ValueError, match=message):
        seqdyn.load(tmp_path / "model")
    assert not (tmp_path / "executed").exists()


FAR_LARGER = r"does not fit TSDiff .*hyperparameters ask for networks far larger than its [\d,]+ weights"
HYPERPARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"depth": 3}, r"does not fit TSDiff of this version of seqdyn .*'depth'"),
    "of other weights": (
        {"hidden_size": 6},
        r"does not fit TSDiff of this version of seqdyn .*size mismatch",
    ),
    "absurd widths": ({"hidden_size": 10**9}, FAR_LARGER),
    "very wide": ({"hidden_size": 10**5}, FAR_LARGER),
    "absurd depth": ({"num_blocks": 10**9}, FAR_LARGER),
    "absurd states": ({"state_size": 10**6}, FAR_LARGER),
    "many states": ({"state_size": 20_000}, FAR_LARGER),
    "absurd steps": ({"num_diffusion_steps": 10**12}, FAR_LARGER),
    "absurd everything": ({"hidden_size": 3000, "num_blocks": 10**6}, FAR_LARGER),
    "beyond every integer": ({"context_length": 10**30}, r"does not fit TSDiff of this version"),
    "negative": ({"num_blocks": -1}, r"does not fit TSDiff .*num_blocks must be"),
    "a list": ({"hidden_size": [4]}, r"does not fit TSDiff .*hidden_size must be"),
}


@pytest.mark.parametrize("case", HYPERPARAMETERS)
def test_hyperparameters_that_do_not_fit_the_weights_are_refused(case: str, tmp_path: Path) -> None:
    changes, message = HYPERPARAMETERS[case]
    model = small_model()
    model.was_trained = True
    model.save(tmp_path / "model")
    rewrite(tmp_path / "model", hyperparameters={**dict(model.hparams), **changes})

    with pytest.raises(ValueError, match=message):
        seqdyn.load(tmp_path / "model")


def test_a_linear_forecaster_with_the_weights_of_another_is_refused(data: xr.Dataset, tmp_path: Path) -> None:
    LinearForecaster(context_length=6, prediction_length=3).fit(data).save(tmp_path / "model")
    rewrite(tmp_path / "model", hyperparameters={"context_length": 5, "prediction_length": 3})

    with pytest.raises(ValueError, match="does not hold what a fitted LinearForecaster saves; fit it again"):
        seqdyn.load(tmp_path / "model")


# Run checkpoints
# -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_run(data: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    small_model().fit(data, max_epochs=2, seed=0, run_dir=run, enable_progress_bar=False)
    return run


def swap_checkpoint(run: Path, checkpoint: Any) -> None:
    """Put another checkpoint in place like someone who also knows the checksums."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    swap_bytes(run, buffer.getvalue())


def swap_bytes(run: Path, content: bytes) -> None:
    (run / "last.ckpt").write_bytes(content)
    sidecar = json.loads((run / "last.json").read_text())
    del sidecar["sha256"]
    write_signed_json(run / "last.json", {**sidecar, "checkpoints": [hashlib.sha256(content).hexdigest()]})


def incomplete(run: Path) -> None:
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    del checkpoint["optimizer_states"]
    swap_checkpoint(run, checkpoint)


def hide_a_pickle_in_it(run: Path) -> None:
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    swap_checkpoint(run, {**checkpoint, "callbacks": Bomb(run / "executed")})


def claim_a_missing_checkpoint(run: Path) -> None:
    (run / "last.ckpt").unlink()
    sidecar = json.loads((run / "last.json").read_text())
    del sidecar["sha256"]
    write_signed_json(run / "last.json", {**sidecar, "checkpoints": ["0" * 64, "1" * 64]})


_RESTART = "restore it from a copy, or start again with a new run_dir"

CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (
        lambda run: cut_in_half(run / "last.ckpt"),
        rf"last.ckpt is truncated, edited or of another run: .*; {_RESTART}",
    ),
    "edited": (
        lambda run: flip_a_bit(run / "last.ckpt"),
        r"last.ckpt is truncated, edited or of another run",
    ),
    "foreign": (
        lambda run: torch.save({"state_dict": {}}, run / "last.ckpt"),
        r"last.ckpt is truncated, edited or of another run",
    ),
    "a bare pickle": (
        lambda run: swap_bytes(run, pickle.dumps(Bomb(run / "executed"))),
        rf"is not a checkpoint of tensors and plain data; nothing in it was executed; {_RESTART}",
    ),
    "a pickle in a checkpoint": (hide_a_pickle_in_it, r"nothing in it was executed"),
    "no zip file": (
        lambda run: swap_bytes(run, b"PK\x03\x04 and nothing else"),
        r"nothing in it was executed",
    ),
    "empty": (lambda run: swap_bytes(run, b""), r"nothing in it was executed"),
    "incomplete": (incomplete, rf"is not a checkpoint of a fit: it lacks 'optimizer_states'; {_RESTART}"),
    "a list": (lambda run: swap_checkpoint(run, [1, 2]), r"is not a checkpoint of a fit"),
    "missing": (claim_a_missing_checkpoint, rf"last.ckpt is missing although the run wrote it; {_RESTART}"),
    "edited sidecar": (
        lambda run: edit_json(run / "last.json", fingerprints={}),
        r"last.json was edited or damaged: .* restore it from a copy",
    ),
    "truncated sidecar": (
        lambda run: cut_in_half(run / "last.json"),
        r"last.json is truncated or damaged: it is not valid JSON",
    ),
    "foreign sidecar": (
        lambda run: (run / "last.json").write_text('{"format": 1}'),
        r"does not belong to a seqdyn run: it lacks 'format', 'class' or 'sha256'",
    ),
    "signed foreign sidecar": (
        lambda run: write_signed_json(run / "last.json", {"format": 1, "class": "TSDiff"}),
        r"does not belong to a seqdyn run: 'checkpoints' or 'fit' is missing",
    ),
    "newer sidecar": (
        lambda run: write_signed_json(run / "last.json", {"format": 9, "class": "TSDiff"}),
        r"has format 9, .* install a newer one",
    ),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_malformed_run_is_refused_and_nothing_is_run(
    case: str, data: xr.Dataset, finished_run: Path, tmp_path: Path
) -> None:
    damage, message = CHECKPOINTS[case]
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    damage(run)

    with pytest.raises(ValueError, match=message):
        small_model().fit(data, max_epochs=3, seed=0, run_dir=run, resume=True, enable_progress_bar=False)
    assert not (run / "executed").exists()


def test_a_checkpoint_is_an_ordinary_one_of_tensors_and_plain_data(finished_run: Path) -> None:
    checkpoint = torch.load(finished_run / "last.ckpt", weights_only=True)

    assert {"state_dict", "optimizer_states", "loops", "pytorch-lightning_version"} <= checkpoint.keys()
