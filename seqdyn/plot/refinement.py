"""How a reference was refined: its parameters and the divergence after each step."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqdyn.plot.style import COLORS, SYMBOL_COLORS, check_dataset, panels

__all__ = ["reference_parameters"]

_MOST_NAMES = 14  # lines that colours and dashes tell apart


def reference_parameters(data: xr.Dataset) -> Axes | np.ndarray:
    """Draw the parameters of a reference at each refinement, and the divergence if there is one.

    A divergence that falls by more than a factor of ten is drawn on a logarithmic axis, linear below 1 if
    it does not stay positive.

    Args:
        data: ``trace (refinement, parameter)``, and possibly ``divergence (refinement)``, as the attribute
            ``reference_parameters`` of a fitted :class:`seqdyn.models.SchrodingerBridge`.

    Returns:
        The axes, an array of two with a divergence.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    maker = "models.SchrodingerBridge(...).fit(snapshots).reference_parameters"
    check_dataset(data, maker, "trace")
    values = data["trace"]
    if set(values.dims) != {"refinement", "parameter"}:
        raise ValueError(
            f"'trace' must have the dims ('refinement', 'parameter'), got {values.dims}; draw what "
            f"seqdyn.{maker} holds."
        )
    with_divergence = "divergence" in data and data["divergence"].dims == ("refinement",)
    _, axes = panels(1 + with_divergence, width=4.4, height=3.3)
    _draw_parameters(axes[0], values.transpose("refinement", "parameter"))
    if with_divergence:
        _draw_divergence(axes[1], data["divergence"])
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("refinement")
    return np.array(axes, dtype=object) if with_divergence else axes[0]


def _draw_parameters(ax: Axes, values: xr.DataArray) -> None:
    numbers = _numbers(values)
    names = values["parameter"].values.tolist() if "parameter" in values.coords else []
    marker = "o" if len(numbers) == 1 else None
    ax.set_ylabel("value of the parameter")
    if not 0 < len(names) <= _MOST_NAMES:
        ax.plot(numbers, values, color=COLORS["forecast"], linewidth=0.8, alpha=0.6, marker=marker)
        ax.set_title(f"{values.sizes['parameter']} parameters", fontsize="medium", loc="left")
        return
    # Dashes let a line show through another of the same values.
    for name, color, style in zip(names, cycle(SYMBOL_COLORS), cycle(("-", "--", "-.", ":")), strict=False):
        line = values.sel(parameter=name)
        ax.plot(numbers, line, style, color=color, linewidth=1.5, marker=marker, label=str(name))
    place: dict[str, Any] = {"loc": "best"} if len(names) <= 6 else {"bbox_to_anchor": (1.0, 1.0)}
    ax.legend(frameon=False, fontsize="small", handlelength=2.5, **place)


def _draw_divergence(ax: Axes, divergence: xr.DataArray) -> None:
    values = divergence.values
    ax.plot(_numbers(divergence), values, "o-", color=COLORS["forecast"], linewidth=1.5, markersize=3)
    units = divergence.attrs.get("units")
    ax.set_ylabel("divergence" + (f" [{units}]" if units else ""))
    finite = values[np.isfinite(values)]
    if len(finite) == 0 or finite.max() <= 10 * max(abs(finite.min()), 1.0):
        return
    if finite.min() > 0:
        ax.set_yscale("log")
    else:
        ax.set_yscale("symlog", linthresh=1.0)
        ax.axhline(0, color=COLORS["history"], linewidth=0.6)


def _numbers(values: xr.DataArray) -> np.ndarray:
    return (
        values["refinement"].values
        if "refinement" in values.coords
        else np.arange(values.sizes["refinement"])
    )
