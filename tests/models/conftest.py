"""Sequences and TSDiff models of the tests in this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn.models import TSDiff
from seqdyn.rng import fork_rng

SMALL: dict[str, Any] = {
    "context_length": 12,
    "prediction_length": 4,
    "lags": (3, 8),
    "hidden_size": 8,
    "num_blocks": 2,
    "state_size": 8,
    "embedding_size": 8,
    "num_diffusion_steps": 10,
    "beta_end": 0.4,
    "batch_size": 4,
    "batches_per_epoch": 3,
}


@pytest.fixture(scope="session")
def make_data() -> Callable[..., xr.Dataset]:
    """Hourly sequences of positive noise, of different size in every series."""

    def make(
        series: int = 3, steps: int = 40, features: int = 1, covariates: int = 0, dtype: Any = np.float64
    ) -> xr.Dataset:
        generator = np.random.default_rng(0)
        size = 10.0 ** np.arange(series)[:, None, None]
        values = size * (3 + generator.standard_normal((series, steps, features)))
        time = pd.date_range("2024-01-01", periods=steps, freq="h")
        variables: dict[str, Any] = {
            "target": (("series", "time", "feature"), values.astype(dtype), {"units": "MW"})
        }
        coords: dict[str, Any] = {
            "series": [f"s{i}" for i in range(series)],
            "time": ("time", time, {"freq": "h"}),
            "feature": [f"y{i}" for i in range(features)],
        }
        if covariates:
            known = generator.standard_normal((series, steps, covariates)) * 5 + 20
            variables["covariates"] = (("series", "time", "covariate"), known)
            coords["covariate"] = [f"u{i}" for i in range(covariates)]
        return xr.Dataset(variables, coords)

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TSDiff]:
    """Small models that were not trained; ``fitted`` says that they were, so that their verbs work."""

    def make(fitted: bool = True, **changes: Any) -> TSDiff:
        with fork_rng(1):
            model = TSDiff(**{**SMALL, **changes}).eval()
        model.was_trained = fitted
        return model

    return make


class Smoke(NamedTuple):
    """A model of noisy daily sines and sequences it has not seen."""

    model: TSDiff
    context: xr.Dataset
    truth: xr.Dataset
    clean: xr.Dataset  # context and truth without the noise


def noisy_sines(series: int, steps: int, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """5 + 3 sin(2π j/24 + random hour) + 0.5 noise, and the same without noise."""
    generator = np.random.default_rng(seed)
    hour = np.arange(steps) + generator.integers(0, 24, series)[:, None]
    clean = 5 + 3 * np.sin(2 * np.pi * hour / 24)
    noisy = clean + 0.5 * generator.standard_normal(clean.shape)
    coords = {
        "series": [f"s{i}" for i in range(series)],
        "time": ("time", pd.date_range("2024-01-01", periods=steps, freq="h"), {"freq": "h"}),
        "feature": ["y"],
    }
    one, other = (
        xr.Dataset({"target": (("series", "time", "feature"), v[:, :, None].astype(np.float32))}, coords)
        for v in (noisy, clean)
    )
    return one, other


@pytest.fixture(scope="session")
def smoke() -> Smoke:
    """The smoke configuration, trained for 300 steps of 32 windows: the longest job of these tests."""
    train, _ = noisy_sines(20, 600, seed=0)
    test, clean = noisy_sines(8, 168 + 96 + 24, seed=1)
    model = TSDiff(
        context_length=96,
        prediction_length=24,
        lags=(24, 48, 168),
        hidden_size=32,
        num_blocks=2,
        state_size=32,
        embedding_size=32,
        num_diffusion_steps=50,
        beta_end=0.2,
        batch_size=32,
        batches_per_epoch=50,
    )
    model.fit(train, max_epochs=6, seed=0, enable_progress_bar=False)
    return Smoke(model, test.isel(time=slice(0, -24)), test.isel(time=slice(-24, None)), clean)
