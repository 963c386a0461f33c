"""A sampler beside the process it emulates, and beside what a finite sample can show."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from seqdyn.plot.style import COLORS, check_dataset, panels

__all__ = ["emulation"]

_SOURCES = {"model": COLORS["truth"], "process": COLORS["history"], "exact": "black"}


def emulation(data: xr.Dataset) -> np.ndarray:
    """Draw transitions, frequencies, changes, dwell times and divergences beside the sampling floor.

    The floor, in grey, is a second sample of the process itself.

    Args:
        data: What :func:`seqdyn.metrics.emulation` gives.

    Returns:
        Nine axes: transitions of model and process and their difference; frequencies, volatility, dwell
        times; divergences from the process, matched distances, errors of words.

    Raises:
        ValueError: If the dataset is of another kind.
    """
    check_dataset(data, "metrics.emulation(model, hmm, ...)", "transition", "divergence", "word_distance")
    _, axes = panels(9, width=3.6, height=3.0, sharex=False)
    _draw_transitions(axes[:3], data)
    _draw_frequencies(axes[3], data)
    _draw_volatility(axes[4], data)
    _draw_dwell(axes[5], data)
    _draw_pairs(axes[6], data["divergence"], "divergence from the process", "draws")
    axes[6].set_title(
        f"ratio {data.attrs['floor_ratio']:.3f} ± {data.attrs['floor_ratio_error']:.3f}", fontsize="medium"
    )
    _draw_pairs(axes[7], data["distance"], "distance to the matched sequence", "sequences")
    for source in data["drawn"].values:
        error = data["word_distance"].sel(drawn=source)
        axes[8].plot(data["length"], error, "o-", color=_SOURCES[source], label=_name(source))
    axes[8].set(xlabel="length of words", ylabel="total variation", xticks=data["length"].values)
    axes[8].set_ylim(bottom=0)
    axes[8].legend(frameon=False, fontsize="small")
    return np.array(axes, dtype=object)


def _name(source: str) -> str:
    return {"process": "process, sampled", "exact": "process, exact"}.get(source, source)


def _draw_transitions(axes: list[Axes], data: xr.Dataset) -> None:
    table = data["transition"]
    exact = table.sel(source="exact").values
    difference = table.sel(source="model").values - exact
    limit = float(np.nanmax(np.abs(difference), initial=1e-6))
    titles = ("transitions of the model", "of the process, exact", "model − process")
    for ax, values, title in zip(
        axes, (table.sel(source="model").values, exact, difference), titles, strict=True
    ):
        signed = ax is axes[2]
        scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "Greys", "vmax": 1}
        ax.imshow(values, **{"vmin": 0, **scale})  # type: ignore[arg-type]
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if abs(value) > (0.7 * limit if signed else 0.5) else "black"
            text = "–" if np.isnan(value) else f"{value:+.3f}" if signed else f"{value:.3f}"
            size = "small" if len(values) <= 4 else "xx-small"
            ax.text(column, row, text, ha="center", va="center", fontsize=size, color=shade)
        symbols = range(len(values))
        ax.set(xticks=symbols, yticks=symbols, xlabel="next symbol", ylabel="symbol")
        ax.set_title(title, fontsize="medium")
        ax.grid(False)
    found, floor = (data.attrs[name] for name in ("largest_error", "largest_error_process"))
    about = f"frequent rows at most {found:.3f}, floor {floor:.3f}"
    axes[2].set_title(f"model − process\n{about}", fontsize="medium")


def _draw_frequencies(ax: Axes, data: xr.Dataset) -> None:
    symbol = data["symbol"].values
    for place, source in enumerate(("model", "process")):
        heights = data["frequency"].sel(source=source)
        ax.bar(symbol + 0.4 * place - 0.2, heights, 0.38, color=_SOURCES[source], label=_name(source))
    for at, value in zip(symbol, data["frequency"].sel(source="exact").values, strict=True):
        ax.plot(
            [at - 0.4, at + 0.4],
            [value] * 2,
            color="black",
            linewidth=1.5,
            label="exact" if at == 0 else None,
        )
    ax.set(xlabel="symbol", ylabel="frequency", xticks=symbol)
    ax.set_ylim(top=1.45 * float(data["frequency"].max()))
    ax.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper left")


def _draw_volatility(ax: Axes, data: xr.Dataset) -> None:
    for place, source in enumerate(data["drawn"].values):
        mean, spread = (
            float(data["volatility"].sel(source=source)),
            float(data["volatility_sd"].sel(drawn=source)),
        )
        ax.errorbar(place, mean, spread, fmt="o", color=_SOURCES[source], capsize=4, markersize=7)
        ax.annotate(f"{mean:.2f}", (place, mean), (9, 9), textcoords="offset points", va="center")
    exact = float(data["volatility"].sel(source="exact"))
    ax.axhline(exact, color="black", linewidth=1, label=f"exact {exact:.2f}")
    ax.set_xticks(
        range(data.sizes["drawn"]), [_name(name).replace(", ", ",\n") for name in data["drawn"].values]
    )
    ax.set(xlim=(-0.5, 2.4), ylabel="changes per sequence (± sd)")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def _draw_dwell(ax: Axes, data: xr.Dataset) -> None:
    symbol = data["symbol"].values
    for place, source in enumerate(data["drawn"].values):
        heights = data["dwell"].sel(drawn=source)
        ax.bar(symbol + 0.4 * place - 0.2, heights, 0.38, color=_SOURCES[source], label=_name(source))
    ax.set(xlabel="symbol", ylabel="mean length of a run [steps]", xticks=symbol)
    ax.set_ylim(top=1.3 * float(np.nanmax(data["dwell"].values)))
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", ncols=2)


def _draw_pairs(ax: Axes, values: xr.DataArray, label: str, counted: str) -> None:
    edges = np.histogram_bin_edges(values.values[np.isfinite(values.values)], bins=24).tolist()
    for pair, color in zip(values["pair"].values, (_SOURCES["model"], _SOURCES["process"]), strict=True):
        one = values.sel(pair=pair)
        name = f"{'model' if color == _SOURCES['model'] else 'floor'}, mean {float(one.mean()):.3f}"
        ax.hist(one, bins=edges, color=color, alpha=0.6, label=name)
        ax.axvline(float(one.mean()), ymax=0.72, color=color, linewidth=1.5)
    ax.set(xlabel=label, ylabel=counted)
    ax.set_ylim(top=1.4 * ax.get_ylim()[1])
    ax.legend(frameon=False, fontsize="x-small", loc="upper left")
