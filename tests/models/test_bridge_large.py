"""Bridges whose reference has more parameters than the divergence is descended in."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.sde.drifts import Linear


def drifting(size: int) -> xr.Dataset:
    """Clouds that move by less than they spread."""
    generator = np.random.default_rng(0)
    return stack_snapshots([generator.normal(0.3 * k, 1, (15, size)) for k in range(3)], times=[0, 1, 2])


def test_the_volatility_of_a_large_reference_is_estimated_too() -> None:
    # 9 x 8 parameters are fitted by regression, which does not see the volatility; only that is descended in.
    data = drifting(8)
    settings = {"max_epochs": 6, "seed": 0, "enable_progress_bar": False}
    model = SchrodingerBridge(8, "estimate", reference=Linear(8), num_simulations=0, num_steps=3)
    found = float(model.fit(data, **settings).reference_parameters["volatility"][0, 0])

    def divergence(volatility: float) -> float:
        fixed = SchrodingerBridge(8, volatility, reference=model.process.drift, num_steps=3)
        fixed.fit(data, max_epochs=1, seed=0, enable_progress_bar=False)
        return float(fixed.history["train_divergence_before"][0])

    at = divergence(found)
    assert at == pytest.approx(float(model.history["train_loss"][-1]), abs=1e-6)
    assert at < min(divergence(0.95 * found), divergence(1.05 * found))
    assert all(parameter.requires_grad for parameter in model.process.parameters())
