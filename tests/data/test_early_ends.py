"""The word about series that end long before a forecast begins."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.data import from_pandas
from seqdyn.data.early_ends import warn_of_early_ends
from seqdyn.errors import EarlyEndWarning

LENGTH, HORIZON = 40, 2


def panel(missing: dict[tuple[str, str], int]) -> xr.Dataset:
    """Two features of two daily series, of which the last steps are missing."""
    frame = pd.DataFrame(
        {
            "id": np.repeat(["Zürich", "Bern"], LENGTH),
            "ds": np.tile(pd.date_range("2024-03-20", periods=LENGTH, freq="D"), 2),
            "y": np.arange(2.0 * LENGTH),
            "z": np.arange(2.0 * LENGTH),
        }
    )
    data = from_pandas(frame, series="id", value=["y", "z"], timezone="Europe/Zurich")
    observed = data["observed"].copy()
    for (series, feature), steps in missing.items():
        rows = {"series": data.indexes["series"].get_loc(series), "feature": "yz".index(feature)}
        observed[{**rows, "time": slice(LENGTH - steps, None)}] = False
    return data.assign(observed=observed)


def warned(missing: dict[tuple[str, str], int]) -> str:
    with pytest.warns(EarlyEndWarning) as record:
        (lambda: warn_of_early_ends(panel(missing), HORIZON))()
    assert len(record) == 1 and record[0].filename == __file__
    return str(record[0].message)


def both(series: str, steps: int) -> dict[tuple[str, str], int]:
    return {(series, "y"): steps, (series, "z"): steps}


def test_a_series_that_ends_early_is_named_with_its_end_and_the_remedy() -> None:
    text = warned(both("Bern", 3))

    assert text.startswith("'Bern' ends before the data do, ")
    assert "('Bern' ends 2024-04-25 00:00:00+02:00)" in text
    assert text.endswith(
        "alone, from data that stop there: data.sel(series=['Bern']).isel(time=slice(0, 37))."
    )


def test_several_are_counted_and_all_of_them_are_cut_at_the_last_end() -> None:
    text = warned(both("Zürich", 5) | both("Bern", 3))

    assert " and 1 more end before the data do, " in text
    assert text.endswith("cut the data at the last end: data.isel(time=slice(0, 37)).")


def test_a_feature_that_ends_early_is_named() -> None:
    text = warned({("Bern", "z"): 4})

    assert text.startswith("'Bern', feature 'z', ends before the data do, ")
    assert "('Bern' ends 2024-04-24 00:00:00+02:00)" in text


@pytest.mark.parametrize(
    "missing",
    [
        both("Bern", 9),
        {("Bern", "z"): 4},
        {("Bern", "z"): 20, ("Bern", "y"): 10},
        {("Bern", "z"): 20, ("Zürich", "z"): 20},
    ],
)
def test_after_the_remedy_there_is_nothing_to_say(missing: dict[tuple[str, str], int]) -> None:
    remedy = re.search(r"data(\.sel\(series=\['\w+'\]\)\.isel\(.*\))\.$", warned(missing))
    assert remedy is not None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_early_ends(eval("data" + remedy[1], {"data": panel(missing), "slice": slice}), HORIZON)


@pytest.mark.parametrize("steps", [0, 1, HORIZON])
def test_a_gap_no_longer_than_the_forecast_is_no_end(steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_early_ends(panel(both("Bern", steps)), HORIZON)


def test_a_series_that_was_never_observed_has_no_end() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_early_ends(panel(both("Bern", LENGTH)), HORIZON)
