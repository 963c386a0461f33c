"""What the experiments have in common: references by name, training snapshots, the loop over rows."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml
from torch import nn

from experiments.record import append_row, provenance
from experiments.sbirr import drifts as own
from seqdyn.data.schema import FEATURE, PARTICLE, TIME
from seqdyn.models import SchrodingerBridge
from seqdyn.sde import drifts

__all__ = [
    "CONFIG",
    "RESULTS",
    "bridge",
    "build",
    "check_complete",
    "compared",
    "fitted",
    "main",
    "markdown",
    "snapshots_at",
]

CONFIG = Path(__file__).parent / "config.yaml"
RESULTS = Path(__file__).parent.parent / "results"

logger = logging.getLogger("seqdyn")


def build(spec: str | Mapping[str, Any]) -> nn.Module:
    """A reference from its name, or from a name and what it is given: a list, arguments, for a sum its terms.

    Args:
        spec: Such as ``LotkaVolterra``, ``{Linear: {num_features: 2}}`` or ``{Sum: [Vortex, ...]}``.
    """
    if isinstance(spec, str):
        spec = {spec: {}}
    ((name, given),) = spec.items()
    family: Callable[..., nn.Module] = getattr(own if name in own.__all__ else drifts, name)
    return family(*map(build, given)) if isinstance(given, list) else family(**given)


def bridge(arguments: Mapping[str, Any], num_features: int) -> SchrodingerBridge:
    """A bridge from arguments of a configuration, in which the reference is a name."""
    return SchrodingerBridge(num_features, **{**arguments, "reference": build(arguments["reference"])})


def fitted(model: SchrodingerBridge, data: xr.Dataset, seed: int, **options: Any) -> SchrodingerBridge:
    """The model fitted without a word."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return model.fit(data, seed=seed, enable_progress_bar=False, **options)
    finally:
        logger.setLevel(level)


def compared(
    arguments: Mapping[str, Any], train: xr.Dataset, max_epochs: int, num_samples: int, seed: int
) -> dict[str, Any]:
    """Scores of a bridge on its training snapshots: each inner one left out, the last one forecast."""
    model = bridge(arguments, train.sizes[FEATURE])
    found = model.compare_references(
        train,
        {"": build(arguments["reference"])},
        num_samples=num_samples,
        seed=seed,
        max_epochs=max_epochs,
        progress=False,
    ).isel(reference=0)
    row = {name: found[name].item() for name in ("divergence", "num_parameters")}
    for score in ("left_out", "left_out_sd", "forecast_back"):
        row |= {f"{score}_{metric}": found[score].sel(metric=metric).item() for metric in ("w2", "energy")}
    return row


def check_complete(found: pd.DataFrame, jobs: Sequence[Any], keys: Sequence[str], command: str) -> None:
    """Check that every candidate has its row, before the best of them is taken.

    Raises:
        ValueError: If one is missing.
    """
    rows = set(map(tuple, found[list(keys)].astype(str).to_numpy()))
    missing = [name for job in jobs if (name := tuple(str(getattr(job, key)) for key in keys)) not in rows]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(jobs)} candidates have no row, the first is {missing[0]}; run "
            f"python -m {command} to its end first."
        )


def snapshots_at(data: xr.Dataset, indices: Iterable[int]) -> xr.Dataset:
    """Snapshots by their number in the order of time."""
    times = np.unique(data[TIME].values)[sorted(indices)]
    return data.isel({PARTICLE: np.isin(data[TIME].values, times)})


def markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """A table with its index, as Markdown."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    names = [name or "" for name in frame.index.names]
    lines = [[*names, *map(str, frame.columns)], ["---"] * (len(names) + frame.shape[1])]
    for index, row in zip(frame.index, frame.itertuples(index=False), strict=True):
        lines.append([*map(str, index if isinstance(index, tuple) else [index]), *map(text, row)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    description: str,
    name: str,
    keys: Sequence[str],
    rows: Callable[[dict[str, Any]], list[Any]],
    run: Callable[[Any], list[dict[str, Any]]],
    table: Callable[[pd.DataFrame, dict[str, Any]], str],
) -> None:
    """Run what is not finished, and print the table.

    Args:
        description: Of the command.
        name: Section of the configuration; rows go to ``results/sbirr_NAME.csv``.
        keys: Columns that name a result; those of them that are fields of a job say whether it is finished.
        rows: Jobs of a section: frozen dataclasses.
        run: Results of a job, without their origin.
        table: Text that shows the finished rows beside what the section expects.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="FIELD=VALUE", help="some jobs")
    parser.add_argument("--table", action="store_true", help="print the finished rows")
    parser.add_argument("--fast", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/sbirr_fast"), help="folder of fast results")
    options = parser.parse_args()
    section = yaml.safe_load(CONFIG.read_text())[name]
    path = RESULTS / f"sbirr_{name}.csv"
    if options.fast:  # never among the real rows
        section |= section["fast"]
        path = options.runs / path.name
    wanted = dict(part.split("=", 1) for part in options.only)
    for job in [] if options.table else rows(section):
        if any(str(getattr(job, field)) != value for field, value in wanted.items()):
            continue
        if _is_finished(job, path, keys):
            continue
        warnings.simplefilter("default")
        origin = provenance()  # of the code as it was when it began
        for row in run(job):
            append_row(_rounded(row) | origin, path, keys=keys)
            print(row, flush=True)
    print(table(pd.read_csv(path), section))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}


def _is_finished(job: Any, path: Path, keys: Sequence[str]) -> bool:
    if not path.exists():
        return False
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    same = np.ones(len(found), dtype=bool)
    for key in keys:
        if hasattr(job, key):
            same &= (found[key] == str(getattr(job, key))).to_numpy()
    return bool(same.any())
