"""What a hidden Markov model says of given sequences, under the sequences; and how its fit went."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from seqdyn.plot.style import COLORS, SYMBOL_COLORS, new_axes, soften, time_axis

__all__ = ["fit_em", "state_probabilities"]

_MAX_SYMBOLS = 7  # drawn as colours; more as a line


def state_probabilities(
    found: Any,
    observations: Any,
    *,
    path: Any = None,
    series: int = 0,
    start: int = 0,
    num_steps: int = 200,
) -> np.ndarray:
    """Draw the laws of the hidden state of one series over time, under what was observed.

    Args:
        found: What :func:`seqdyn.inference.hmm.forward_backward` or ``filter_states`` gives, (series, time,
            state).
        observations: What it was given: symbols (series, time), numbers (series, time, feature), or a Dataset
            of sequences, whose times and labels are then shown.
        path: States of ``viterbi``, or what it gives; drawn as a third strip.
        series: Which series.
        start: First step drawn.
        num_steps: Steps drawn.

    Returns:
        Two axes, or three with a path: observations, probabilities, path.

    Raises:
        ValueError: If the shapes do not fit each other, or there is no such series or step.
    """
    laws = np.asarray(getattr(found, "smoothed", found))
    values, time, labels = _observed(observations)
    if laws.ndim != 3 or values.ndim not in (2, 3) or laws.shape[:2] != values.shape[:2]:
        raise ValueError(
            f"probabilities (series, time, state) and observations (series, time) must fit, got {laws.shape} "
            f"and {values.shape}; draw forward_backward(hmm, observations) over the same observations."
        )
    if not (0 <= series < len(laws) and 0 <= start < laws.shape[1]):
        raise ValueError(f"there are {len(laws)} series of {laws.shape[1]} steps; got {series=}, {start=}.")
    part = slice(start, start + num_steps)
    when = time.values[part] if time is not None else np.arange(laws.shape[1])[part]
    ratios = [1.0 if values.ndim == 3 else 0.35, 2.0] + ([] if path is None else [0.35])
    figure, axes = plt.subplots(
        len(ratios), figsize=(7.5, 1.5 * sum(ratios) + 0.4), sharex=True, layout="constrained",
        gridspec_kw={"height_ratios": ratios},
    )  # fmt: skip
    colors = _state_colors(laws.shape[2])
    _draw_observed(axes[0], when, values[series, part], labels)
    law = np.where(laws[series, part].sum(axis=1, keepdims=True) > 0, laws[series, part], np.nan)
    axes[1].stackplot(
        when, law.T, colors=colors, labels=[f"state {i}" for i in range(len(colors))], step="mid", linewidth=0
    )
    axes[1].set(ylabel="probability", ylim=(0, 1))
    soften(axes[1])
    axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    if path is not None:
        states = np.asarray(getattr(path, "path", path))[series, part]
        _strip(axes[2], when, states, colors)
        axes[2].set_ylabel("path", rotation=0, ha="right", va="center")
    axes[-1].set_xlim(when[0], when[-1])
    if time is not None:
        time_axis(axes[-1], time)
    else:
        axes[-1].set_xlabel("time [steps]")
    return np.array(list(axes), dtype=object)


def fit_em(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how far the objective is from its last value after each update.

    Args:
        result: What :func:`seqdyn.inference.hmm.fit_em` gives.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If it is of another kind.
    """
    if not hasattr(result, "objective") or not hasattr(result, "converged"):
        raise ValueError(
            f"got a {type(result).__name__}; draw what seqdyn.inference.hmm.fit_em(hmm, symbols) returns."
        )
    ax = new_axes(ax, width=5.0, height=3.2)
    values = np.asarray(result.objective)
    ax.plot(np.arange(len(values)), values, ".-", color=COLORS["forecast"])
    name = "log-likelihood"
    if not np.allclose(values, np.asarray(result.log_likelihood)):
        ax.plot(
            np.arange(len(values)),
            np.asarray(result.log_likelihood),
            "--",
            color=COLORS["history"],
            label=name,
        )
        ax.legend(frameon=False, fontsize="small", loc="lower right")
        name = "log-likelihood + log prior"
    ax.set(xlabel="update", ylabel=name)
    ax.set_title("converged" if result.converged else "stopped before it converged", fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _observed(observations: Any) -> tuple[np.ndarray, xr.DataArray | None, list[str] | None]:
    """Values (series, time) or (series, time, feature), the times, and labels of symbols or features."""
    if not isinstance(observations, xr.Dataset):
        return np.asarray(observations), None, None
    name = next((name for name in ("symbol", "target") if name in observations), None)
    if name is None:
        raise ValueError(
            f"the dataset needs 'symbol' or 'target', found {sorted(map(str, observations.data_vars))}; draw "
            "the sequences that the probabilities are of."
        )
    array = observations[name].transpose("series", "time", ...)
    if "observed" in observations:
        seen = observations["observed"].transpose("series", "time", ...)
        array = array.where(seen, -1 if name == "symbol" else np.nan)
    dim = "outcome" if name == "symbol" else "feature"
    labels = [str(label) for label in observations[dim].values] if dim in observations.coords else None
    return array.values, observations["time"], labels


def _draw_observed(ax: Axes, when: np.ndarray, values: np.ndarray, labels: list[str] | None) -> None:
    if values.ndim == 2:
        for feature, series in enumerate(values.T):
            color = SYMBOL_COLORS[feature % len(SYMBOL_COLORS)]
            ax.plot(when, series, color=color, linewidth=1, label=labels[feature] if labels else f"{feature}")
        ax.set_ylabel("observed")
        soften(ax)
        ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        return
    shown = np.unique(values[values >= 0])
    colors = [SYMBOL_COLORS[i % len(SYMBOL_COLORS)] for i in range(int(shown.max(initial=0)) + 1)]
    if len(shown) > _MAX_SYMBOLS:
        ax.plot(when, np.where(values < 0, np.nan, values), ".", color=COLORS["forecast"], markersize=3)
        ax.set_ylabel("symbol")
        soften(ax)
        return
    _strip(ax, when, values, colors)
    ax.set_ylabel("observed", rotation=0, ha="right", va="center")
    for symbol in shown:
        label = labels[symbol] if labels else f"symbol {symbol}"
        ax.plot([], [], "s", color=colors[symbol], label=label)
    ax.legend(
        frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(shown),
        handletextpad=0.2, borderaxespad=0.1,
    )  # fmt: skip


def _strip(ax: Axes, when: np.ndarray, values: np.ndarray, colors: list[Any]) -> None:
    """A row of coloured cells, blank where there is nothing."""
    shown = np.ma.masked_less(np.stack([values, values]), 0)  # a single row has no height
    cmap = ListedColormap(colors)
    ax.pcolormesh(when, [0, 1], shown, cmap=cmap, vmin=-0.5, vmax=len(colors) - 0.5, shading="nearest")
    ax.set(yticks=[], ylim=(0, 1))
    if not ax.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        ax.tick_params(bottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _state_colors(count: int) -> list[Any]:
    """Shades that no symbol has, from dark to light."""
    return list(plt.get_cmap("viridis")(np.linspace(0.05, 0.95, max(count, 2))[:count]))
