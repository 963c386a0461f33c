"""Recipes of the panels that probabilistic forecasters are compared on.

The eight sets of the TSDiff paper and ETTh1. The archives of GluonTS hold one JSON object a line with
``start`` and ``target``: the training split once, and every test window again with its whole history. Here
each series is put together once, to the end of its last window; ``seqdyn.evaluate`` cuts the windows.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from seqdyn.data import from_numpy, read_sequences
from seqdyn.data.schema import TIME
from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe, regular_table

__all__ = [
    "RECIPES",
    "read_etth1",
    "read_gluonts_archive",
    "read_m4_hourly",
    "read_monash_zip",
    "read_uber_trips",
]

_GLUONTS = "https://raw.githubusercontent.com/mbohlkeschneider/gluon-ts/mv_release/datasets/"
_M4 = "https://raw.githubusercontent.com/Mcompetitions/M4-methods/6c1067e5a571/Dataset/"
_COPULA = (
    "Salinas, Bohlke-Schneider, Callot, Medico, Gasthaus (2019), High-dimensional multivariate forecasting "
    "with low-rank Gaussian copula processes, NeurIPS"
)
_UNVERIFIED = "No checksum is recorded yet: give the file below SEQDYN_DATA, or its sha256."


class _Item(NamedTuple):
    """One line of an archive."""

    start: str
    target: np.ndarray


def read_gluonts_archive(path: Path, *, freq: str) -> xr.Dataset:
    """Put the series of a GluonTS archive together from its training and test splits.

    Line ``k`` of the test split belongs to series ``k mod M``, where M is the number of training lines; the
    items have no ids, so the labels are 0 to M - 1.

    Args:
        path: A ``.tar.gz`` with ``<name>/train/*.json`` and ``<name>/test/*.json``. Nothing is extracted.
        freq: pandas alias of the step.

    Returns:
        ``target (series, time, feature)``; series that begin later or end earlier are missing there.

    Raises:
        ValueError: If the archive is no such archive, or a shorter item is not the beginning of a longer one.
    """
    try:
        with tarfile.open(path) as tar:
            members = {
                PurePosixPath(m.name).parent.name: m for m in tar if m.isfile() and m.name.endswith(".json")
            }
            if not {"train", "test"} <= members.keys():
                raise ValueError(
                    f"{path} holds no train/*.json and test/*.json; it is not a GluonTS archive."
                )
            longest = list(_items(tar, members["train"]))
            num_series, num_items = len(longest), 0
            for i, item in enumerate(_items(tar, members["test"]) if longest else ()):
                k, num_items = i % num_series, i + 1
                longest[k] = _longer(longest[k], item, f"series {k}, line {num_items} of test in {path}")
    except (tarfile.TarError, zlib.error, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); get the file again.") from error
    if num_items == 0 or num_items % num_series:
        raise ValueError(f"{path} has {num_items} test lines for {num_series} series; expected a multiple.")
    return _align(longest, freq)


def _items(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[_Item]:
    stream = tar.extractfile(member)
    assert stream is not None  # only regular files are listed
    for line in stream:
        if line.strip():
            item = json.loads(line)
            yield _Item(str(item["start"]), np.array(item["target"], dtype=float))


def _longer(known: _Item, item: _Item, where: str) -> _Item:
    """Return the longer of two records of one series, which must agree where both have values."""
    shared = min(len(known.target), len(item.target))
    agree = np.allclose(known.target[:shared], item.target[:shared], rtol=1e-5, equal_nan=True)
    if item.start != known.start or not agree:
        raise ValueError(
            f"{where} does not continue the earlier record of that series; the file is of another layout."
        )
    return item if len(item.target) > shared else known


def _align(items: list[_Item], freq: str) -> xr.Dataset:
    """Place series with a start each on one common time axis."""
    spans = [pd.date_range(item.start, periods=len(item.target), freq=freq) for item in items]
    grid = pd.date_range(min(span[0] for span in spans), max(span[-1] for span in spans), freq=freq)
    values = np.full((len(items), len(grid), 1), np.nan)
    for row, span, item in zip(values, spans, items, strict=True):
        first = grid.get_loc(span[0])
        row[first : first + len(span), 0] = item.target
    return from_numpy(
        values, time=grid.to_numpy(), freq=freq, series=list(range(len(items))), features=["value"]
    )


def read_m4_hourly(train: Path, test: Path) -> xr.Dataset:
    """Join training and test parts of the 414 hourly M4 series, aligned at their common end.

    Lengths are 748 or 1008 hours; the shorter series are missing at the beginning, so that the last 48 steps
    of every series are the test part of the competition.
    """
    past, future = (pd.read_csv(path, index_col=0) for path in (train, test))
    if not past.index.equals(future.index):
        raise ValueError(f"{train} and {test} list different series; get both files again.")
    values = np.full((len(past), past.shape[1] + future.shape[1], 1), np.nan)
    for row, known, rest in zip(
        values, past.to_numpy(dtype=float), future.to_numpy(dtype=float), strict=True
    ):
        series = np.concatenate([known[np.isfinite(known)], rest])
        row[-len(series) :, 0] = series
    labels = [str(label) for label in past.index]
    data = from_numpy(values, time=np.arange(values.shape[1]), series=labels, features=["value"])
    data[TIME].attrs.update(units="h", clock="hours on a common axis; the dates are not in the files")
    return data


def read_etth1(path: Path) -> xr.Dataset:
    """Read six loads and the oil temperature of one transformer, hourly."""
    return regular_table(
        pd.read_csv(path, index_col="date", parse_dates=["date"]), "h", series="transformer_1"
    )


def read_uber_trips(path: Path) -> xr.Dataset:
    """Count pick-ups per hour and taxi zone from the list of single trips, January to June 2015.

    Every zone gets the whole half year, with zeros where nobody was picked up.
    """
    hours = pd.date_range("2015-01-01", "2015-07-01", freq="h", inclusive="left")
    counts = np.zeros((0, len(hours)))
    with _only_member(path, ".csv") as stream:
        for trips in pd.read_csv(stream, usecols=["Pickup_date", "locationID"], chunksize=1_000_000):
            hour = ((pd.to_datetime(trips["Pickup_date"]) - hours[0]) // pd.Timedelta("1h")).to_numpy()
            zone = trips["locationID"].to_numpy(dtype=int)
            inside = (hour >= 0) & (hour < len(hours))
            num_zones = max(len(counts), int(zone.max(initial=0)) + 1)
            cells = np.bincount(zone[inside] * len(hours) + hour[inside], minlength=num_zones * len(hours))
            counts = np.pad(counts, ((0, num_zones - len(counts)), (0, 0))) + cells.reshape(num_zones, -1)
    zones = np.flatnonzero(counts.any(axis=1))
    labels = [int(zone) for zone in zones]
    data = from_numpy(
        counts[zones][..., None], time=hours.to_numpy(), freq="h", series=labels, features=["pickups"]
    )
    data[TIME].attrs["clock"] = "local clock of New York; hour 02 of 2015-03-08 does not exist"
    return data


def read_monash_zip(path: Path) -> xr.Dataset:
    """Read the one ``.tsf`` file inside a zip of the Monash archive."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "data.tsf"
        with _only_member(path, ".tsf") as stream, copy.open("wb") as out:
            shutil.copyfileobj(stream, out)
        return read_sequences(copy)


@contextlib.contextmanager
def _only_member(path: Path, ending: str) -> Iterator[IO[bytes]]:
    """Open the one file inside a zip whose name has this ending."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(ending) and not n.startswith("__MACOSX")]
            if len(names) != 1:
                raise ValueError(
                    f"{path} holds {len(names)} {ending} files, expected one; get the file again."
                )
            with archive.open(names[0]) as stream:
                yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); get the file again.") from error


def _gluonts(
    name: str,
    title: str,
    *,
    licence: str,
    units: str | None = None,
    freq: str = "h",
    prediction_length: int = 24,
    num_windows: int = 7,
    folder: str = _GLUONTS,
) -> Recipe:
    """Recipe of a GluonTS archive whose checksum nobody could record yet."""
    return Recipe(
        name=name,
        title=title,
        kind="sequences",
        source=f"GluonTS archive {name}",
        licence=licence,
        citation=_COPULA,
        units=units,
        files=(DataFile(f"{name}/{name}.tar.gz", None, f"{folder}{name}.tar.gz"),),
        read=partial(read_gluonts_archive, freq=freq),
        freq=freq,
        prediction_length=prediction_length,
        num_windows=num_windows,
        notes=_UNVERIFIED,
    )


RECIPES = (
    Recipe(
        name="exchange_rate",
        title="Daily exchange rates of eight currencies, 6221 days",
        kind="sequences",
        source="GluonTS archive exchange_rate_nips; series collected by Lai et al. (2018)",
        licence="unclear (the hosting repository is Apache-2.0; the data are a third party's)",
        citation=(
            f"Lai, Chang, Yang, Liu (2018), Modeling long- and short-term temporal patterns, SIGIR; {_COPULA}"
        ),
        units="exchange rate",
        files=(
            DataFile(
                "exchange_rate_nips/exchange_rate_nips.tar.gz",
                "83f3cf364ae7854b0a74ef9825c47b8314896de820de877fd466cdffd94027d1",
                _GLUONTS + "exchange_rate_nips.tar.gz",
            ),
        ),
        read=partial(read_gluonts_archive, freq="B"),
        freq="B",
        prediction_length=30,
        num_windows=5,
        notes="The dates count business days from 1990-01-01, as the file says; they are not the true dates.",
    ),
    Recipe(
        name="m4_hourly",
        title="414 hourly series of the M4 competition",
        kind="sequences",
        source="M4 competition, Hourly-train.csv and Hourly-test.csv",
        licence="unclear (published by the organisers without a licence; re-hosted by Monash as CC BY 4.0)",
        citation=(
            "Makridakis, Spiliotis, Assimakopoulos (2020), The M4 Competition, Int. J. Forecasting 36(1)"
        ),
        units=None,
        files=(
            DataFile(
                "m4_hourly/Hourly-train.csv",
                "ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
                _M4 + "Train/Hourly-train.csv",
            ),
            DataFile(
                "m4_hourly/Hourly-test.csv",
                "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42",
                _M4 + "Test/Hourly-test.csv",
            ),
        ),
        read=read_m4_hourly,
        freq=1.0,
        prediction_length=48,
        num_windows=1,
        notes=(
            "Time is in hours without dates; the series come from many domains and stand side by side by "
            "chance."
        ),
    ),
    Recipe(
        name="etth1",
        title="Electricity transformer 1: six loads and the oil temperature, hourly, two years",
        kind="sequences",
        source="ETDataset, ETT-small/ETTh1.csv",
        licence="CC BY-ND 4.0 (share the unmodified file only)",
        citation=(
            "Zhou et al. (2021), Informer: Beyond efficient transformer for long sequence forecasting, AAAI"
        ),
        units="OT in degrees Celsius; loads without a stated unit",
        files=(
            DataFile(
                "ett/ETTh1.csv",
                "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
                "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943/ETT-small/ETTh1.csv",
            ),
        ),
        read=read_etth1,
        freq="h",
        prediction_length=24,
        notes="The source does not say which clock the stamps follow.",
    ),
    _gluonts(
        "solar_nips",
        "Hourly solar power of 137 plants in Alabama",
        licence="unclear (US National Renewable Energy Laboratory data)",
    ),
    _gluonts(
        "electricity_nips",
        "Hourly electricity consumption of 370 clients in Portugal",
        licence="unclear (the UCI archive publishes the original as CC BY 4.0)",
    ),
    _gluonts(
        "traffic_nips",
        "Hourly occupancy of 963 road sensors in San Francisco",
        licence="unclear (the UCI archive publishes the original as CC BY 4.0)",
        units="occupancy (0 to 1)",
    ),
    _gluonts(
        "wiki2000_nips",
        "Daily page views of 2000 Wikipedia pages",
        licence="unclear (Wikimedia publishes page-view statistics as CC0)",
        units="page views / day",
        freq="D",
        prediction_length=30,
        num_windows=5,
        folder="https://github.com/awslabs/gluonts/raw/b89f203595183340651411a41eeb0ee60570a4d9/datasets/",
    ),
    Recipe(
        name="uber_tlc_hourly",
        title="Hourly pick-ups per taxi zone of New York, January to June 2015",
        kind="sequences",
        source="FiveThirtyEight, uber-tlc-foil-response, uber-raw-data-janjune-15.csv",
        licence="unclear (obtained from the New York Taxi and Limousine Commission)",
        citation="FiveThirtyEight (2015), Uber TLC FOIL response",
        units="pick-ups / hour",
        files=(
            DataFile(
                "uber_tlc_hourly/uber-raw-data-janjune-15.csv.zip",
                None,
                "https://raw.githubusercontent.com/fivethirtyeight/uber-tlc-foil-response/master/uber-trip-data/"
                "uber-raw-data-janjune-15.csv.zip",
            ),
        ),
        read=read_uber_trips,
        freq="h",
        prediction_length=24,
        num_windows=1,
        notes=(
            f"{_UNVERIFIED} Stamps are the local clock of New York. GluonTS lets each series begin at its "
            "first trip."
        ),
    ),
    Recipe(
        name="kdd_cup_2018",
        title="Hourly air quality in Beijing and London, gaps filled, 270 series",
        kind="sequences",
        source="Monash forecasting archive, record 4656756, kdd_cup_2018_dataset_without_missing_values",
        licence="CC BY 4.0 (Monash archive)",
        citation=(
            "Godahewa, Bergmeir, Webb, Hyndman, Montero-Manso (2021), Monash time series archive, NeurIPS"
        ),
        units="concentration, differs between series",
        files=(
            DataFile(
                "kdd_cup_2018/kdd_cup_2018_dataset_without_missing_values.zip",
                None,
                "https://zenodo.org/record/4656756/files/kdd_cup_2018_dataset_without_missing_values.zip",
            ),
        ),
        read=read_monash_zip,
        freq="h",
        prediction_length=48,
        num_windows=1,
        notes=_UNVERIFIED,
    ),
)
