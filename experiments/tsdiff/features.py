"""Covariates of an hourly panel, known a day ahead: recent days at the same hour, and the calendar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from pandas.tseries.holiday import USFederalHolidayCalendar

DAY = 24
DAYS = (1, 2, 3, 4, 5, 6, 7, 14, 21, 28)  # lags, in days
HARMONICS = 4  # of the daily cycle


def add_covariates(data: xr.Dataset) -> xr.Dataset:
    """The panel with covariates, without its first four weeks, which have no full set.

    Each value is a function of the calendar and of observations at least a day old, hence known for every
    hour of a forecast of one day:

    - the same hour 1 to 7, 14, 21 and 28 days before; its mean, deviation and extremes over 14 days, its
      mean over four weeks at the same weekday; all in units of the mean of the week that ended a day before;
    - that mean, as a logarithm;
    - sine and cosine of the local hour, weekday and federal holidays;
    - the series, one indicator each.

    Args:
        data: Sequences of one feature in hourly steps, without missing values, with a time zone.

    Returns:
        Sequences with ``covariates (series, time, covariate)``.
    """
    values = data["target"].isel(feature=0, drop=True).astype("float64")
    level = values.rolling(time=7 * DAY).mean().shift(time=DAY)
    level = level.where(level > 0, 1.0)
    fortnight = xr.concat([values.shift(time=k * DAY) for k in range(1, 15)], "day") / level
    weekday = xr.concat([values.shift(time=k * DAY) for k in (7, 14, 21, 28)], "day") / level
    local = (
        pd.DatetimeIndex(data["time"].values).tz_localize("UTC").tz_convert(data["time"].attrs["timezone"])
    )
    dates = local.tz_localize(None).normalize()
    holidays = USFederalHolidayCalendar().holidays(dates.min(), dates.max())

    def over_time(x: np.ndarray) -> xr.DataArray:
        return xr.DataArray(np.asarray(x, dtype="float64"), coords={"time": data["time"]})

    known: dict[str, xr.DataArray] = {f"{k} days ago": values.shift(time=k * DAY) / level for k in DAYS}
    known |= {"fortnight, mean": fortnight.mean("day"), "fortnight, deviation": fortnight.std("day")}
    known |= {"fortnight, least": fortnight.min("day"), "fortnight, greatest": fortnight.max("day")}
    known |= {"weekday, mean": weekday.mean("day"), "log level": np.log(level)}
    for k in range(1, HARMONICS + 1):
        angle = 2 * np.pi * k * local.hour.to_numpy() / DAY
        known |= {f"sine {k}": over_time(np.sin(angle)), f"cosine {k}": over_time(np.cos(angle))}
    known |= {f"weekday {day}": over_time(local.dayofweek == day) for day in range(6)}
    known["holiday"] = over_time(dates.isin(holidays))
    known |= {name: (data["series"] == name).astype("float64") for name in data["series"].values.tolist()}

    arrays = [array.broadcast_like(values).transpose("series", "time") for array in known.values()]
    covariates = xr.DataArray(
        np.stack(arrays, axis=-1).astype("float32"),
        coords={"series": data["series"], "time": data["time"], "covariate": list(known)},
    )
    return data.assign(covariates=covariates).isel(time=slice(max(DAYS) * DAY, None))
