"""Whether data are of the kind that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from seqdyn.data.schema import COVARIATE, COVARIATES, FEATURE, frequency

__all__ = ["check_alike"]


def check_alike(data: xr.Dataset, info: Mapping[str, Any] | None, name: str = "the context") -> None:
    """Check that features, covariates and frequency are those of the training data, in the same order.

    Args:
        data: Checked sequences.
        info: What :func:`seqdyn.data.schema.describe` said of the training data; ``None`` checks nothing.
        name: How to call ``data`` in a message.

    Raises:
        ValueError: If they differ, with what to type.
    """
    if info is None:
        return
    for dim, key in ((FEATURE, "features"), (COVARIATE, "covariates")):
        present = dim == FEATURE or COVARIATES in data
        found, wanted = data[dim].values.tolist() if present else [], list(info.get(key) or [])
        if found != wanted:
            raise ValueError(
                f"{name} has the {key} {found}, the training data had {wanted}; select and order them with "
                f"data.sel({dim}={wanted}), rename them with data.assign_coords({dim}=[...]), or fit again."
            )
    freq, trained = frequency(data), info["freq"]
    named = isinstance(freq, str) or isinstance(trained, str)
    if not (freq == trained if named else np.isclose(freq, trained)):
        raise ValueError(
            f"{name} has the frequency {freq!r}, the training data had {trained!r}; resample or fit again."
        )
