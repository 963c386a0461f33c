"""Covariates known in the past and in the future, lined up with the sequences they belong to."""

from __future__ import annotations

import numpy as np
import xarray as xr

from seqdyn.data.schema import COVARIATE, COVARIATES, SERIES, TIME, future_times

__all__ = ["known_covariates", "window_covariates"]


def known_covariates(data: xr.Dataset, future: xr.DataArray | None, num_future: int) -> np.ndarray:
    """Covariates of sequences and of the steps after them.

    Args:
        data: Checked sequences with ``covariates (series, time, covariate)``.
        future: The same covariates over the next steps, matched by label; further labels are left out.
        num_future: Number of steps after the end of ``data``, H.

    Returns:
        Values, (M, T + H, F).

    Raises:
        ValueError: If the future is missing, unnamed, incomplete or not finite.
    """
    known = data[COVARIATES]
    if not num_future:
        return known.values
    if future is None:
        raise ValueError(
            f"the model needs its {known.sizes[COVARIATE]} covariate(s) over the next {num_future} steps: "
            "pass future_covariates=, dims (series, time, covariate)."
        )
    dims = (SERIES, TIME, COVARIATE)
    if not isinstance(future, xr.DataArray) or not {*future.dims} == {*dims} <= {*future.coords}:
        found = getattr(future, "dims", type(future).__name__)
        raise ValueError(
            f"future_covariates must be a DataArray with dims and coordinates {dims}, got {found}; "
            "name them: xr.DataArray(x, coords={'series': [...], 'time': [...], 'covariate': [...]})."
        )
    times = future_times(data, num_future)
    try:
        chosen = future.sel({SERIES: known[SERIES], TIME: times, COVARIATE: known[COVARIATE]})
    except KeyError as error:
        raise ValueError(
            f"future_covariates must cover every series and covariate of the context over {times[0]} to "
            f"{times[-1]}; missing: {error}."
        ) from error
    values = chosen.transpose(*dims).values
    if not np.isfinite(values).all():
        raise ValueError(
            "future_covariates have NaN or infinity; fill them: future_covariates.ffill('time')."
        )
    return np.concatenate([known.values, values], axis=1)


def window_covariates(covariates: xr.DataArray | None, length: int, num_covariates: int) -> np.ndarray:
    """Covariates of one window, (L, F), from dims ``(time, covariate)``.

    Raises:
        ValueError: If they are missing, of other sizes or not finite.
    """
    wanted = {TIME: length, COVARIATE: num_covariates}
    sizes = dict(getattr(covariates, "sizes", {}))
    if not isinstance(covariates, xr.DataArray) or sizes != wanted:
        raise ValueError(
            f"the model draws a window given its covariates: pass covariates= with sizes {wanted}, "
            f"got {sizes or type(covariates).__name__}; for instance "
            f"data.covariates.isel(series=0, time=slice(-{length}, None))."
        )
    values = covariates.transpose(TIME, COVARIATE).values
    if not np.isfinite(values).all():
        raise ValueError("covariates have NaN or infinity; fill them: covariates.ffill('time').")
    return values
