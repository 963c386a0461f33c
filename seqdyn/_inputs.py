"""What a command works on: models by name, files, data sets, and the data of an earlier run."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdyn._options import arguments, read_settings
from seqdyn._outputs import DATA, SETTINGS

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "check_trainer_options",
    "command_name",
    "has_data",
    "kind_of",
    "known_sizes",
    "known_symbols",
    "model_class",
    "model_names",
    "place",
    "read_data",
    "reader_of",
    "reading_options",
    "run_data",
    "split_future",
    "without_last",
]


# Kinds of data that a sentence calls otherwise. No data set holds symbols.
_SAID = {"sequences": "sequences of numbers", "symbols": "sequences of symbols"}

# What a message of the reader may advise that has no option of its own on the command line.
_READER_OPTION = re.compile(r"\b(decimal|thousands|na_values|sep|encoding|date_format)=")


def command_name(class_name: str) -> str:
    """``SeasonalNaive`` is called seasonal-naive, ``TSDiff`` tsdiff, ``LinearForecaster`` linear."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", class_name.removesuffix("Forecaster")).lower()


def model_names() -> dict[str, str]:
    """Class names in ``seqdyn.models`` by the name of the command line."""
    from seqdyn import models

    return {command_name(name): name for name in models.__all__ if name[0].isupper() and name != "Model"}


def model_class(name: str) -> Any:
    from seqdyn import models

    names = model_names()
    if name not in names and name not in names.values():
        raise ValueError(f"there is no model {name!r}; models are {', '.join(names)}.")
    return getattr(models, names.get(name, name))


def kind_of(model: Any) -> str:
    """What a model, or a class of models, learns from: "sequences" unless it says otherwise."""
    return getattr(model, "data_kind", "sequences")


def reader_of(kind: str) -> Callable[..., xr.Dataset]:
    """What reads a kind of data."""
    from seqdyn import data

    return getattr(data, f"read_{kind}")


def read_data(source: str, values: Mapping[str, Any], kind: str) -> xr.Dataset:
    """Read a file, or load the data set of that name."""
    from seqdyn import datasets

    if Path(source).exists():
        reader = reader_of(kind)
        more = values.get("read_options", {})
        try:
            return reader(source, **arguments(reader, values), **more)
        except ValueError as error:
            if not _READER_OPTION.search(str(error)):
                raise
            raise ValueError(f"{error} Here that is typed --read-options '{{NAME: VALUE}}'.") from error
        except TypeError as error:
            if not more:
                raise
            raise ValueError(f"--read-options names what reading {source} does not take: {error}") from error
    if source in datasets.names():
        return _load(source, kind)
    names = ", ".join(datasets.names())
    raise ValueError(f"there is no file {source} and no data set of that name; data sets are {names}.")


def _load(name: str, kind: str) -> xr.Dataset:
    """Load a data set, which must be of the kind."""
    from seqdyn import datasets

    known = [other for other in datasets.names() if datasets.info(other).kind == kind]
    if name in known:
        return datasets.load(name)
    holds, learns = (_SAID.get(what, what) for what in (datasets.info(name).kind, kind))
    choice = f"choose from {', '.join(known)}, or name a file" if known else "name a file"
    raise ValueError(f"the data set {name} holds {holds}, this model learns {learns}; {choice}.")


def reading_options(values: Mapping[str, Any], kind: str, taken: Collection[str] = ()) -> dict[str, Any]:
    """How to read a file: as the run read its own, unless said otherwise.

    Args:
        values: The options of the command.
        kind: What the file holds.
        taken: Options that mean something else in this command.
    """
    settings = Path(values["run"]) / SETTINGS
    before = read_settings(settings) if settings.exists() else {}
    both = {**before, **{name: value for name, value in values.items() if name not in taken}}
    return arguments(reader_of(kind), both) | {"read_options": both.get("read_options", {})}


def has_data(values: Mapping[str, Any]) -> bool:
    """Whether the command has data to work on."""
    return "data" in values or (Path(values["run"]) / DATA).exists()


def run_data(values: Mapping[str, Any], reading: Mapping[str, Any], kind: str) -> xr.Dataset:
    """The file named by ``--data``, else the data of the run."""
    if not has_data(values):
        raise ValueError(f"{values['run']} holds a model but no {DATA}; name the data: --data FILE.")
    if "data" in values:
        return read_data(values["data"], reading, kind)
    return read_data(str(Path(values["run"]) / DATA), {}, kind)


def place(model: Any, values: Mapping[str, Any]) -> None:
    """Move a network to the device of ``--device``: the GPU if there is one, unless said otherwise.

    Raises:
        ValueError: If ``cuda`` is asked for and there is no GPU.
    """
    if not hasattr(model, "to"):  # a baseline, which has no network
        return
    import torch

    device, available = values.get("device", "auto"), torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device is cuda, but torch finds no GPU here; leave it out, or use --device cpu.")
    model.to("cuda" if available and device != "cpu" else "cpu")


def check_trainer_options(options: Collection[str]) -> None:
    """Refuse names that Lightning's trainer does not know.

    Raises:
        ValueError: If there is one.
    """
    if not options:
        return
    import pytorch_lightning as pl

    known = list(inspect.signature(pl.Trainer).parameters)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known[:6])}, ..."
            raise ValueError(f"--trainer-options names {name!r}, which the trainer does not know; {hint}")


def split_future(data: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray | None]:
    """Sequences up to the last observed step, and the covariates after it if there are any.

    Snapshots are returned as they are.
    """
    import numpy as np

    from seqdyn.data.schema import COVARIATES, TIME, observed_mask

    if TIME not in data.dims:
        return data, None
    steps = np.flatnonzero(observed_mask(data).any(axis=(0, 2)))
    end = int(steps[-1]) + 1 if len(steps) else data.sizes[TIME]
    past, future = data.isel({TIME: slice(0, end)}), data.isel({TIME: slice(end, None)})
    return past, future[COVARIATES] if COVARIATES in data and future.sizes[TIME] else None


def known_sizes(data: xr.Dataset) -> dict[str, int]:
    """Sizes that models ask for and data knows."""
    from seqdyn.data.schema import COVARIATE, FEATURE, OUTCOME, SERIES

    sizes = {
        "num_features": FEATURE,
        "num_series": SERIES,
        "num_covariates": COVARIATE,
        "num_symbols": OUTCOME,
    }
    return {name: data.sizes.get(dim, 0) for name, dim in sizes.items()}


def known_symbols(data: xr.Dataset) -> dict[str, Any]:
    """How to read further files so that a code means in them what it does in ``data``."""
    from seqdyn.data.schema import OUTCOME

    return {"symbols": data[OUTCOME].values.tolist()} if OUTCOME in data.coords else {}


def without_last(data: xr.Dataset, steps: int) -> xr.Dataset:
    from seqdyn.data.schema import TIME

    if TIME not in data.dims:
        if steps:
            raise ValueError(
                "--holdout counts steps, and snapshots have none; leave it out: seqdyn evaluate leaves out "
                "each snapshot in turn. To keep some from the fit, give a file without them."
            )
        return data
    if not 0 <= steps < data.sizes[TIME]:
        raise ValueError(f"--holdout is {steps}, but the data has {data.sizes[TIME]} steps.")
    return data.isel({TIME: slice(0, data.sizes[TIME] - steps)})
