"""Recipes of labelled and simulated sequences: motion, speech, robot paths, gene regulation.

Labels that belong to whole series are coordinates along ``series``: ``label`` (its class) and ``split``
(training or test part of the publication): ``data.sel(series=data["split"] == "train")`` selects a part.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from seqdyn.data.schema import SERIES, TIME
from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe, ragged

__all__ = ["RECIPES", "read_branching", "read_mocap6", "read_primitives", "read_runs", "read_ts"]

_BNPY = "https://raw.githubusercontent.com/bnpy/bnpy/ffc224242745/bnpy/datasets/mocap6/"
_GLEAN = "https://raw.githubusercontent.com/oist-cnru/GLean/3106cbb3633f/data/branching_path/"
_NRL = (
    "https://raw.githubusercontent.com/oist-cnru/NRL/42395a2ef808076e6d8ec108e3de2f913b5be2cf/data/dataset/"
)
_SCANPY = "https://raw.githubusercontent.com/scverse/scanpy/1.11.5/src/scanpy/datasets/"
_AEON = "https://raw.githubusercontent.com/aeon-toolkit/aeon/v1.6.0/aeon/datasets/data/"
_AXES = tuple(f"{sensor}_{axis}" for sensor in ("accelerometer", "gyroscope") for axis in "xyz")


def read_mocap6(path: Path) -> xr.Dataset:
    """Read six exercise sessions with the action of every step.

    Returns:
        ``target (series, time, feature)`` and ``action (series, time)``: 1 to 12, named in its
        ``flag_meanings``, and 0 after the end of a session.
    """
    with np.load(path, allow_pickle=False) as arrays:
        bounds = arrays["doc_range"]
        channels = [name.decode() for name in arrays["column_names"]]
        actions = [name.decode() for name in arrays["true_state_names"]]
        x, z = (np.split(arrays[name], bounds[1:-1]) for name in ("X", "TrueZ"))
    trials = ["13_29", "13_30", "13_31", "14_06", "14_14", "14_20"]
    data = ragged(x, series=trials, features=channels, step=0.1, unit="s")
    action = np.zeros((len(z), data.sizes[TIME]), dtype=np.int64)
    for row, labels in zip(action, z, strict=True):
        row[: len(labels)] = labels
    meanings = {"flag_values": np.arange(1, len(actions) + 1), "flag_meanings": " ".join(actions)}
    return data.assign(action=((SERIES, TIME), action, meanings))


def read_branching(train: Path, *goals: Path) -> xr.Dataset:
    """Read 60 paths to one of two goals, and one test path to each goal, coded by softmax units."""
    parts = [np.load(path, allow_pickle=False) for path in (train, *goals)]
    labels = [f"path_{i}" for i in range(len(parts[0]))] + [f"goal_{i}" for i in range(len(goals))]
    features = [f"{axis}{unit}" for axis in "xy" for unit in range(10)]
    data = ragged(list(np.concatenate(parts)), series=labels, features=features)
    split = ["train"] * len(parts[0]) + ["test"] * len(goals)
    return data.assign_coords(split=(SERIES, split))


def read_primitives(*paths: Path) -> xr.Dataset:
    """Read one table (time, joint) a file; the first number in a file's name is its class."""
    tables = [np.loadtxt(path, delimiter=",") for path in paths]
    labels = [path.stem.removeprefix("primitive_") for path in paths]
    data = ragged(tables, series=labels, features=[f"joint_{i}" for i in range(tables[0].shape[1])])
    return data.assign_coords(label=(SERIES, [int(label.split("_")[0]) for label in labels]))


def read_runs(path: Path, *, features: tuple[str, ...]) -> xr.Dataset:
    """Read simulated runs, one below the other; the first column counts the steps of a run from 0."""
    table = np.loadtxt(path)
    runs = np.split(table[:, 1:], np.flatnonzero(table[:, 0] == 0)[1:])
    return ragged(runs, series=[f"run_{i}" for i in range(len(runs))], features=list(features))


def read_ts(train: Path, test: Path, *, features: tuple[str, ...], step: float, unit: str) -> xr.Dataset:
    """Read the two parts of a labelled set in the ``.ts`` format of the UEA archive."""
    parts = [_parse_ts(path) for path in (train, test)]
    names = [
        f"{split}_{i}"
        for split, (values, _) in zip(("train", "test"), parts, strict=True)
        for i in range(len(values))
    ]
    sequences, classes = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    data = ragged(sequences, series=names, features=list(features), step=step, unit=unit)
    return data.assign_coords(label=(SERIES, classes), split=(SERIES, [name.split("_")[0] for name in names]))


def _parse_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Sequences (T_i, C) and class names: after ``@data``, channels and the class are separated by colons."""
    _, _, body = path.read_text().partition("@data")
    sequences, classes = [], []
    for line in body.split():
        *channels, name = line.split(":")
        sequences.append(
            np.stack([np.array(channel.split(","), dtype=float) for channel in channels], axis=1)
        )
        classes.append(name)
    return sequences, classes


def _aeon(name: str, sha256: tuple[str, str]) -> tuple[DataFile, ...]:
    return tuple(
        DataFile(f"aeon_shipped/{name}_{part}.ts", checksum, f"{_AEON}{name}/{name}_{part}.ts")
        for part, checksum in zip(("TRAIN", "TEST"), sha256, strict=True)
    )


RECIPES = (
    Recipe(
        name="mocap6",
        title="Motion capture of six exercise sessions, 12 joint angles, 12 labelled actions",
        kind="sequences",
        source="CMU motion capture, subjects 13 and 14; bnpy project",
        licence="BSD-3-Clause (bnpy repository); CMU allows all uses of its motion capture data",
        citation=(
            "Fox, Hughes, Sudderth, Jordan (2014), Joint modeling of multiple time series, Ann. Appl. "
            "Stat. 8(3)"
        ),
        units="degrees (root.ty: a length), mean removed",
        files=(
            DataFile(
                "mocap6/dataset.npz",
                "50b15208e34dc2673a1a85beb2687fdc7b5db26534bd7a0f5adaed0a3118fc81",
                _BNPY + "dataset.npz",
            ),
        ),
        read=read_mocap6,
        freq=0.1,
        notes="Lengths differ: 205 to 446 steps.",
    ),
    Recipe(
        name="oist_branching",
        title="Branching paths to two goals in the plane, coded by softmax, 60 sequences of 30 steps",
        kind="sequences",
        source="OIST, repository oist-cnru/GLean, data/branching_path",
        licence="BSD-3-Clause",
        citation="Matsumoto, Tani (2020), Goal-directed planning for habituated agents, Entropy 22(5)",
        units="softmax activation",
        files=(
            DataFile(
                "oist_branching/path_2g_60_softmax10.npy",
                "06721ba1444ad492cd3188b2cfdb4948347d3acc68621937cc260d95459dea5e",
                _GLEAN + "train/path_2g_60_softmax10.npy",
            ),
            DataFile(
                "oist_branching/path_2g_center_0_softmax10.npy",
                "16dbfb9a07e2917717125976c04fd82b4f7de03c86f8b88c07b9e22d28585458",
                _GLEAN + "test_center/path_2g_center_0_softmax10.npy",
            ),
            DataFile(
                "oist_branching/path_2g_center_1_softmax10.npy",
                "caefdd669876a3c760ab346f947fe9654ee2bf91146414d24ad8c11d89c8760c",
                _GLEAN + "test_center/path_2g_center_1_softmax10.npy",
            ),
        ),
        read=read_branching,
        freq=1.0,
        notes="Ten units each for x and y sum to one at every step.",
    ),
    Recipe(
        name="oist_primitives",
        title="Six tables of random numbers in the format of robot movement primitives, 28 joints, 100 steps",
        kind="sequences",
        source="OIST, repository oist-cnru/NRL, data/dataset",
        licence="BSD-3-Clause",
        citation="OIST Cognitive Neurorobotics Research Unit, Neural Robotics Library",
        units=None,
        files=tuple(
            DataFile(f"oist_primitives/primitive_{part}.csv", sha256, f"{_NRL}primitive_{part}.csv")
            for part, sha256 in (
                ("0_0", "0b02379e33c674b7411a70463f295550cabd32a78f3eb0fb6147a4f4f66c28cc"),
                ("1_0", "128b804e4add0256e3e402e85ce84d2f9ef80029c3f0b1c420e8b1915c8ec43f"),
                ("1_1", "5795a23b73e65cd5de1d396ee9cbe40c4f46e527810f70aef79e1aaccbf9a41a"),
                ("1_2", "ac3bb5622b2e1630acc266ce39cc20ec3a5820af9af45a0ab090d36137b078f2"),
                ("2_0", "510b91ec3e37bf176993a002d45ef2948370250da1b1f39c9d993cd36b5f78d5"),
                ("2_1", "d18ee6563f64340e0ec5dec7b3486b33bfa101f682c985250497dbe5b11bd879"),
            )
        ),
        read=read_primitives,
        freq=1.0,
        notes=(
            "No movements: the source calls it a dummy set of random numbers for timing. Nothing can be "
            "learned from it."
        ),
    ),
    Recipe(
        name="basic_motions",
        title="Smart-watch recordings of four activities, 6 channels, 80 recordings of 10 s",
        kind="sequences",
        source="UEA archive, BasicMotions; files of the aeon project",
        licence="unclear (aeon is BSD-3-Clause; the archive states no licence)",
        citation=(
            "Bagnall et al. (2018), The UEA multivariate time series classification archive, arXiv 1811.00075"
        ),
        units=None,
        files=_aeon(
            "BasicMotions",
            (
                "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6",
                "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc",
            ),
        ),
        read=partial(read_ts, features=_AXES, step=0.1, unit="s"),
        freq=0.1,
    ),
    Recipe(
        name="japanese_vowels",
        title="Two Japanese vowels by nine speakers, 12 cepstrum coefficients, 640 utterances",
        kind="sequences",
        source="UCI and UEA archives, JapaneseVowels; files of the aeon project",
        licence="unclear (aeon is BSD-3-Clause; the archive states no licence)",
        citation=(
            "Kudo, Toyama, Shimbo (1999), Multidimensional curve classification, Pattern Recogn. Lett. 20"
        ),
        units=None,
        files=_aeon(
            "JapaneseVowels",
            (
                "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
                "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            ),
        ),
        read=partial(read_ts, features=tuple(f"c{i}" for i in range(1, 13)), step=1.0, unit="frame"),
        freq=1.0,
        notes="Lengths differ: 7 to 29 frames. The source does not say how long a frame is in this file.",
    ),
    Recipe(
        name="krumsiek11",
        title="Simulated myeloid differentiation, 11 genes, 4 runs of 160 steps",
        kind="sequences",
        source="scanpy 1.11.5, datasets/krumsiek11.txt",
        licence="BSD-3-Clause",
        citation=(
            "Krumsiek, Marr, Schroeder, Theis (2011), Hierarchical differentiation of myeloid progenitors, "
            "PLoS ONE 6(8)"
        ),
        units="expression relative to its maximum",
        files=(
            DataFile(
                "scanpy_shipped/krumsiek11.txt",
                "a49c6d04bd77f61028133a9b787222ebf00c4fc02dbf8e2b8edda493a0d5dc93",
                _SCANPY + "krumsiek11.txt",
            ),
        ),
        read=partial(
            read_runs,
            features=(
                "Gata2",
                "Gata1",
                "Fog1",
                "EKLF",
                "Fli1",
                "SCL",
                "Cebpa",
                "Pu.1",
                "cJun",
                "EgrNab",
                "Gfi1",
            ),
        ),
        freq=1.0,
    ),
    Recipe(
        name="toggleswitch",
        title="Simulated genetic toggle switch, 2 genes, 2 runs of 100 steps",
        kind="sequences",
        source="scanpy 1.11.5, datasets/toggleswitch.txt",
        licence="BSD-3-Clause",
        citation=(
            "Gardner, Cantor, Collins (2000), Construction of a genetic toggle switch in E. coli, Nature 403"
        ),
        units="expression relative to its maximum",
        files=(
            DataFile(
                "scanpy_shipped/toggleswitch.txt",
                "11b70a557b9a9c942ba15f8c89d070d914d373d3e76f91f4472c5d8e14dc74e2",
                _SCANPY + "toggleswitch.txt",
            ),
        ),
        read=partial(read_runs, features=("gene_1", "gene_2")),
        freq=1.0,
    ),
)
