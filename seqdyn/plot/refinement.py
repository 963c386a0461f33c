"""How a reference was refined: its parameters and the objective at each epoch."""

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
    """Draw the parameters of a reference at each refinement, and the objective if there is one.

    An objective that falls by more than a factor of ten is drawn on a logarithmic axis, linear below 1 if
    it does not stay positive.

    Args:
        data: ``parameter_value (epoch, parameter)``, and possibly ``objective (epoch)``, as the attribute
            ``reference_parameters`` of a fitted :class:`seqdyn.models.SchrodingerBridge`.

    Returns:
        The axes, an array of two with an objective.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    maker = "models.SchrodingerBridge(...).fit(snapshots).reference_parameters"
    check_dataset(data, maker, "parameter_value")
    values = data["parameter_value"]
    if set(values.dims) != {"epoch", "parameter"}:
        raise ValueError(
            f"'parameter_value' must have the dims ('epoch', 'parameter'), got {values.dims}; draw what "
            f"seqdyn.{maker} holds."
        )
    with_objective = "objective" in data and data["objective"].dims == ("epoch",)
    _, axes = panels(1 + with_objective, width=4.4, height=3.3)
    _draw_parameters(axes[0], values.transpose("epoch", "parameter"))
    if with_objective:
        _draw_objective(axes[1], data["objective"])
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epoch")
    return np.array(axes, dtype=object) if with_objective else axes[0]


def _draw_parameters(ax: Axes, values: xr.DataArray) -> None:
    epochs = _epochs(values)
    names = values["parameter"].values.tolist() if "parameter" in values.coords else []
    marker = "o" if len(epochs) == 1 else None
    ax.set_ylabel("value of the parameter")
    if not 0 < len(names) <= _MOST_NAMES:
        ax.plot(epochs, values, color=COLORS["forecast"], linewidth=0.8, alpha=0.6, marker=marker)
        ax.set_title(f"{values.sizes['parameter']} parameters", fontsize="medium", loc="left")
        return
    # Dashes let a line show through another of the same values.
    for name, color, style in zip(names, cycle(SYMBOL_COLORS), cycle(("-", "--", "-.", ":")), strict=False):
        line = values.sel(parameter=name)
        ax.plot(epochs, line, style, color=color, linewidth=1.5, marker=marker, label=str(name))
    place: dict[str, Any] = {"loc": "best"} if len(names) <= 6 else {"bbox_to_anchor": (1.0, 1.0)}
    ax.legend(frameon=False, fontsize="small", handlelength=2.5, **place)


def _draw_objective(ax: Axes, objective: xr.DataArray) -> None:
    values = objective.values
    ax.plot(_epochs(objective), values, "o-", color=COLORS["forecast"], linewidth=1.5, markersize=3)
    units = objective.attrs.get("units")
    ax.set_ylabel("objective" + (f" [{units}]" if units else ""))
    finite = values[np.isfinite(values)]
    if len(finite) == 0 or finite.max() <= 10 * max(abs(finite.min()), 1.0):
        return
    if finite.min() > 0:
        ax.set_yscale("log")
    else:
        ax.set_yscale("symlog", linthresh=1.0)
        ax.axhline(0, color=COLORS["history"], linewidth=0.6)


def _epochs(values: xr.DataArray) -> np.ndarray:
    return values["epoch"].values if "epoch" in values.coords else np.arange(1, values.sizes["epoch"] + 1)
