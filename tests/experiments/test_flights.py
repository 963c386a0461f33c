"""What the flights experiment tells a model in advance, and how it scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from experiments.tsdiff import nyc_flights
from experiments.tsdiff.features import add_covariates
from experiments.tsdiff.nyc_flights import Config, WholeNumbers, coverage_by_use, rows
from seqdyn import datasets, evaluate
from seqdyn.models import LinearForecaster

DAY = 24


def test_covariates_of_a_day_do_not_depend_on_that_day_or_later() -> None:
    data = datasets.load("nyc_flights").isel(time=slice(0, 40 * DAY))
    changed = data.copy(deep=True)
    changed["target"][:, -3 * DAY :] = 17

    known, other = (add_covariates(d)["covariates"] for d in (data, changed))

    assert np.isfinite(known).all()
    assert known.sizes["time"] == 12 * DAY
    np.testing.assert_array_equal(known[:, : -2 * DAY], other[:, : -2 * DAY])
    assert (known[:, -2 * DAY :] != other[:, -2 * DAY :]).any()  # a day later it may be used


def test_lags_are_in_units_of_the_week_that_ended_a_day_before() -> None:
    data = datasets.load("nyc_flights").isel(time=slice(0, 30 * DAY))

    known = add_covariates(data)["covariates"]

    series, hour = 4, 29 * DAY + 15
    values = data["target"].values[series, :, 0].astype(float)
    level = values[hour - 8 * DAY + 1 : hour - DAY + 1].mean()
    row = known.isel(series=series, time=hour - 28 * DAY)
    for days in (1, 7, 28):
        np.testing.assert_allclose(
            row.sel(covariate=f"{days} days ago"), values[hour - days * DAY] / level, rtol=1e-6
        )
    np.testing.assert_allclose(row.sel(covariate="log level"), np.log(level), rtol=1e-5)
    assert row.sel(covariate=str(data["series"].values[series])) == 1


def test_whole_numbers_are_scored() -> None:
    data = datasets.load("nyc_flights").isel(time=slice(0, 60 * DAY))
    model = LinearForecaster(context_length=48, prediction_length=24).fit(data.isel(time=slice(0, -2 * DAY)))
    options = {"num_windows": 2, "num_samples": 20, "seed": 0, "keep_forecasts": True, "progress": False}

    scores = evaluate(WholeNumbers(model, 24), data, **options)

    raw = evaluate(model, data, **options)["forecast"]
    xr.testing.assert_equal(scores["forecast"], raw.round())
    hits, cells = coverage_by_use(scores, data)
    assert cells[0] + cells[1] == data.sizes["series"] * 2 * DAY
    assert cells[2] == cells[0]
    assert (0 < hits).all() and (hits <= cells).all()
    assert (
        hits[2] < hits[0]
    )  # a truth on the end of an interval is inside it, but only a part of it is central


def test_a_model_without_a_fit_takes_one_seed() -> None:
    config = {
        "data": "nyc_flights",
        "num_windows": 7,
        "num_samples": 100,
        "seeds": [0, 1, 2],
        "weeks": {"a": {"end": "2013-08-26"}, "b": {"end": "2014-01-01"}},
        "models": {
            "plain": {"class": "SeasonalNaive", "arguments": {}},
            "network": {"class": "TSDiff", "arguments": {}, "fit": {"max_epochs": 1}, "covariates": True},
        },
    }

    found = [(row.model, row.week, row.seed, row.covariates, row.whole_numbers) for row in rows(config)]

    assert found[:2] == [("plain", "a", 0, False, False), ("plain", "b", 0, False, False)]
    assert found[2:4] == [("network", "a", 0, True, False), ("network", "b", 0, True, False)]
    assert len(found) == 8


def test_the_fast_version_stays_away_from_the_real_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(config: Config, runs: Path) -> tuple[dict[str, Any], xr.Dataset]:
        return {"model": config.model, "week": config.week, "seed": config.seed}, xr.Dataset()

    results = tmp_path / "real.csv"
    monkeypatch.setattr(nyc_flights, "run", row)
    monkeypatch.setattr(nyc_flights, "table", lambda runs, config: pd.DataFrame())
    command = ["nyc_flights", "--fast", "--runs", str(tmp_path / "runs"), "--results", str(results)]
    monkeypatch.setattr("sys.argv", command)

    nyc_flights.main()

    assert not results.exists()
    assert not (tmp_path / "runs").exists()
    written = pd.read_csv(tmp_path / "runs_fast" / "results.csv")
    assert written["model"].tolist() == ["seasonal-ensemble"] * 2 + ["small"] * 2
