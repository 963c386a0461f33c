"""How a fit went."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from seqdyn.plot.style import COLORS, panels

__all__ = ["history"]

_STAGES = {"train": ("training", COLORS["forecast"]), "val": ("validation", COLORS["truth"])}


def history(model: Any) -> Axes | np.ndarray:
    """Draw the losses of each epoch, a panel per term, training and validation together.

    A term that stays positive and falls by more than a factor of ten is drawn on a logarithmic axis.

    Args:
        model: A fitted model, or its ``history``: dim ``epoch``, variables ``train_<term>`` and
            ``val_<term>``.

    Returns:
        The axes, an array of them if there are several terms.

    Raises:
        ValueError: If there is no history.
    """
    data = model if isinstance(model, xr.Dataset) else getattr(model, "history", None)
    terms = {} if data is None else _terms(data)
    if data is None or not terms:
        raise ValueError(
            f"{type(model).__name__} has no loss history to draw; fit a model that learns by epochs first: "
            "model.fit(data)."
        )
    width, height = (5.5, 3.4) if len(terms) == 1 else (4.0, 2.6)
    _, axes = panels(len(terms), width=width, height=height)
    for ax, (term, stages) in zip(axes, terms.items(), strict=True):
        for stage in stages:
            name, color = _STAGES[stage]
            values = data[f"{stage}_{term}"]
            marker = "o" if values.notnull().sum() < 2 else None
            ax.plot(data["epoch"], values, color=color, marker=marker, linewidth=1.5, label=name)
        units = data[f"{stages[0]}_{term}"].attrs.get("units")
        ax.set_ylabel(term.replace("_", " ") + (f" [{units}]" if units else ""))
        ax.set_xlim(left=0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ax.xaxis.get_tick_params()["labelbottom"]:
            ax.set_xlabel("epoch")
        if _is_steep(np.concatenate([data[f"{stage}_{term}"].values for stage in stages])):
            _logarithmic(ax)
    if len(terms["loss"] if "loss" in terms else next(iter(terms.values()))) > 1 or len(axes) == 1:
        axes[0].legend(frameon=False)
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _terms(data: xr.Dataset) -> dict[str, list[str]]:
    """Return the stages in which each loss term was recorded, the loss itself first."""
    found: dict[str, list[str]] = {}
    for stage in _STAGES:
        for name in map(str, data.data_vars):
            if name.startswith(f"{stage}_") and data[name].dims == ("epoch",):
                found.setdefault(name.removeprefix(f"{stage}_"), []).append(stage)
    return dict(sorted(found.items(), key=lambda item: item[0] != "loss"))


def _logarithmic(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _is_steep(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return len(values) > 0 and values.min() > 0 and values.max() > 10 * values.min()
