"""Model folders: what goes in comes out, and a folder is replaced whole or not at all."""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdyn._files as files
from seqdyn._files import plain_data, remove_leftovers, write_file
from seqdyn.persistence import Record, read_class_name, read_folder, write_folder


@pytest.fixture
def record() -> Record:
    base = torch.randn(4, 3)
    tensors = {
        "weight": base,
        "view": base[1:],
        "transposed": base.T,
        "half": torch.randn(3).bfloat16(),
        "double": torch.randn(2, dtype=torch.float64),
        "complex": torch.randn(2, dtype=torch.complex64),
        "wide_complex": torch.randn(2, dtype=torch.complex128),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 2),
        "with_gradient": torch.nn.Parameter(torch.randn(2)),
    }
    hyperparameters = {
        "lags": (24, 168),
        "nested": {"pairs": ((1, 2.5), ())},
        "name": "ü",
        "none": None,
        "on": True,
    }
    info = {"data_info": {"features": ["y"], "freq": "h"}, "history": None}
    return Record("TSDiff", hyperparameters, tensors, info)


def test_a_record_survives_the_folder(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "model", record)

    read = read_folder(tmp_path / "deep" / "model")

    assert read.class_name == read_class_name(tmp_path / "deep" / "model") == "TSDiff"
    assert read.hyperparameters == record.hyperparameters  # tuples are tuples again
    assert read.info == record.info
    assert read.tensors.keys() == record.tensors.keys()
    for name, value in record.tensors.items():
        assert read.tensors[name].dtype == value.dtype
        assert torch.equal(read.tensors[name], value), name


def test_the_folder_holds_two_files_of_published_formats(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", record)

    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    assert {"format", "class", "hyperparameters", "versions", "weights_sha256", "sha256"} <= content.keys()
    assert content["versions"].keys() == {"seqdyn", "python", "torch", "numpy"}


def test_reformatting_the_description_is_not_an_edit(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", record)
    path = tmp_path / "model" / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))

    assert read_folder(tmp_path / "model").info == record.info


def test_the_model_of_a_run_is_found_in_its_folder(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "run" / "model", record)

    assert read_folder(tmp_path / "run").class_name == "TSDiff"


def test_an_older_model_is_replaced(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", record)
    write_folder(tmp_path / "model", record._replace(class_name="Other"))

    assert read_class_name(tmp_path / "model") == "Other"
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_link_to_a_model_is_written_through(record: Record, tmp_path: Path) -> None:
    write_folder(tmp_path / "target", record)
    (tmp_path / "link").symlink_to("target")

    write_folder(tmp_path / "link", record._replace(class_name="Other"))

    assert (tmp_path / "link").is_symlink()
    assert read_class_name(tmp_path / "target") == "Other"


def test_an_empty_folder_may_become_a_model(record: Record, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    write_folder(tmp_path / "model", record)

    assert read_class_name(tmp_path / "model") == "TSDiff"


@pytest.mark.parametrize("with_model", [True, False])
def test_a_folder_with_other_files_is_not_overwritten(
    record: Record, tmp_path: Path, with_model: bool
) -> None:
    if with_model:
        write_folder(tmp_path / "model", record)
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "thesis.tex").write_text("years of work")

    with pytest.raises(ValueError, match=r"holds 'thesis.tex', which would be lost\); save to a new folder"):
        write_folder(tmp_path / "model", record)
    assert (tmp_path / "model" / "thesis.tex").read_text() == "years of work"


def test_a_file_is_not_overwritten(record: Record, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")

    with pytest.raises(ValueError, match="is a file; a model is saved as a folder: choose another name"):
        write_folder(tmp_path / "model", record)


@pytest.mark.parametrize("moment", range(9))
def test_a_failure_at_any_moment_leaves_the_old_model_or_the_new_one(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    # Two files of three calls each (sync, rename, sync), then the two renames of folders and a sync.
    write_folder(tmp_path / "model", record)
    calls: list[int] = []

    def failing(function: Any) -> Any:
        def call(*args: Any) -> None:
            calls.append(1)
            if len(calls) > moment:
                raise OSError("disk full")
            function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", failing(os.replace))
        patch.setattr(files.os, "fsync", failing(os.fsync))
        with pytest.raises(OSError, match="disk full"):
            write_folder(tmp_path / "model", record._replace(class_name="Other"))

    assert read_class_name(tmp_path / "model") == ("Other" if moment == 8 else "TSDiff")
    assert {path.name for path in tmp_path.iterdir()} <= {"model", ".model.aside"}
    write_folder(tmp_path / "model", record._replace(class_name="Other"))
    assert read_class_name(tmp_path / "model") == "Other"
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_model_left_aside_is_read_and_kept_until_a_new_one_is_there(
    record: Record, tmp_path: Path, caplog: Any
) -> None:
    write_folder(tmp_path / "model", record)
    (tmp_path / "model").rename(tmp_path / ".model.aside")
    (tmp_path / ".model.tmp-123").mkdir()

    assert remove_leftovers(tmp_path) == [".model.tmp-123"]
    assert read_class_name(tmp_path / "model") == "TSDiff"
    assert "left by an interrupted save" in caplog.text
    write_folder(tmp_path / "model", record._replace(class_name="Other"))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_leftovers_are_only_what_our_writes_leave(tmp_path: Path) -> None:
    for name in (".gitignore", ".model.tmpfile", "a.tmp-1", ".tmp-1", ".other.aside"):
        (tmp_path / name).write_text("mine")

    assert remove_leftovers(tmp_path) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(path, "old")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (Colour.RED, "red"),
        ([1, (2,)], [1, (2,)]),
    ],
)
def test_scalars_of_other_types_become_plain(value: Any, expected: Any) -> None:
    plain = plain_data(value, "x")

    assert plain == expected and type(plain) is type(expected)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros(3), TypeError, r"x is a ndarray; pass plain data .* tuple\(x.tolist\(\)\)"),
        (Path("here"), TypeError, r"x is a \w*Path; pass plain data"),
        ({"a": [1, {2}]}, TypeError, r"x\['a'\]\[1\] is a set"),
        ({1: 2}, TypeError, "x has the key 1; dictionaries need strings as keys"),
        ((1.0, float("nan")), ValueError, r"x\[1\] is nan, .* pass a finite number or None"),
        (torch.nn.Linear(1, 1), TypeError, "x is a Linear"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        plain_data(value, "x")
