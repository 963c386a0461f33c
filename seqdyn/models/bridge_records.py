"""What a fit of a bridge leaves behind for its user: parameters and how they were found."""

from __future__ import annotations

import numpy as np
import xarray as xr
from torch import Tensor

from seqdyn.sde.process import Process

__all__ = ["parameters", "volatility"]


def parameters(
    process: Process, history: xr.Dataset | None, start: np.ndarray, corrected: float | None
) -> xr.Dataset:
    """Parameters of a process, and their course; see ``SchrodingerBridge.reference_parameters``.

    Args:
        process: The process.
        history: Of its fit.
        start: Parameters before its first refinement; none where they are not known.
        corrected: The divergence since the correction of the volatility; ``None`` where there was none.
    """
    values = process.named_values()
    names = list(values)
    found = xr.Dataset(
        {
            "value": ("parameter", np.array(list(values.values()), dtype=float)),
            "volatility": (("component", "noise"), process.scale().detach().cpu().numpy()),
        },
        {"parameter": np.array(names, dtype=object)},
    )
    if history is None or "train_divergence_before" not in history:
        return found
    first, last = history["train_divergence_before"].values[:1], [] if corrected is None else [corrected]
    divergence = np.concatenate([first, history["train_loss"].values, last])
    found["divergence"] = ("refinement", divergence, {"units": "nats"})
    if names and f"train_{names[0]}" in history:
        traces = np.stack([history[f"train_{name}"].values for name in names], axis=1)
        first_values = start[None] if len(start) == len(names) else np.full((1, len(names)), np.nan)
        now = found["value"].values[None][: len(last)]
        found["trace"] = (("refinement", "parameter"), np.concatenate([first_values, traces, now]))
    return found.assign_coords(refinement=np.arange(len(divergence)))


def volatility(process: Process, ratio: Tensor, rested: Tensor) -> xr.Dataset:
    """An estimated volatility; see ``SchrodingerBridge.volatility_estimate``."""
    ratios = ratio.cpu().numpy()
    corrected = float(process.scale().detach()[0, 0])
    bias = float(np.exp(np.median(np.log(ratios)))) if len(ratios) else 1.0
    return xr.Dataset(
        {
            "raw": corrected * bias,
            "corrected": corrected,
            "ratio": ("simulation", ratios),
            "converged": ("simulation", rested.cpu().numpy().astype(bool)),
        }
    )
