"""What is not snapshots, where a bridge needs them: told with what to read it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import seqdyn
from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.rng import fork_rng

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
FRAME = pd.DataFrame({"time": [0.0, 0.0, 1.0, 1.0], "left": range(4), "right": range(4)})


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    draw = np.random.default_rng(0)
    return stack_snapshots([draw.normal(shift, 0.3, (6, 2)) for shift in (0, 1, 2)], times=[0, 1, 2])


@pytest.fixture(scope="module")
def model(data: xr.Dataset) -> Iterator[SchrodingerBridge]:
    with fork_rng(0):
        yield SchrodingerBridge(2, 0.3, num_steps=6, num_paths=10).fit(data, **FIT)


def sequences() -> xr.Dataset:
    return xr.Dataset(
        {"target": (("series", "time", "feature"), np.zeros((2, 5, 2)))},
        {"time": np.arange(5), "series": ["a", "b"], "feature": ["left", "right"]},
    )


@pytest.mark.parametrize(
    "verb",
    [
        lambda m, d: m.fit(d, **FIT),
        lambda m, d: m.infer(d),
        lambda m, d: m.score(d),
        lambda m, d: m.leave_one_out(d),
        lambda m, d: m.compare_references(d, {"linear": "Linear"}),
        seqdyn.evaluate,
    ],
)
def test_what_is_not_snapshots_is_told_with_what_reads_it(
    model: SchrodingerBridge, verb: Callable[[Any, Any], Any]
) -> None:
    for other in (FRAME, "cells.csv", Path("cells.csv"), {"x": np.zeros((4, 2))}, np.zeros((4, 2)), None):
        if other is None and verb is not seqdyn.evaluate:
            continue  # a fit without data is another mistake
        with pytest.raises(
            ValueError, match=rf"got {type(other).__name__}; pass seqdyn.data.read_snapshots\("
        ):
            verb(model, other)
    with pytest.raises(ValueError, match="these data are sequences, .* but a bridge needs snapshots"):
        verb(model, sequences())


def test_one_metric_needs_no_list(model: SchrodingerBridge, data: xr.Dataset) -> None:
    held_out = data.isel(particle=data.time.values == 1)

    one = model.score(held_out, "w2", num_samples=20, seed=0)

    xr.testing.assert_equal(one, model.score(held_out, ["w2"], num_samples=20, seed=0))
    with pytest.raises(ValueError, match="metrics must list some of .* got 'w3'"):
        model.score(held_out, "w3")
