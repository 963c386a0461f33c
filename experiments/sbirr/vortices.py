"""Choose reference and volatility of the drifters, on their training snapshots alone.

Run ``python -m experiments.sbirr.vortices`` from the root of the repository, with the data under
``SEQDYN_DATA``. Every family and volatility of ``config.yaml`` is fitted without each inner training snapshot
in turn and scored on it; the smallest mean W2 wins, among all families and among those of the linear solver.
``experiments.sbirr.heldout`` reads the winners and opens the held-out snapshots. ``--table`` prints all
candidates, ``--fast`` shows that it runs.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pandas as pd
import yaml

from experiments.sbirr import shared
from seqdyn import datasets
from seqdyn.data.schema import FEATURE

KEYS = ("data", "family", "volatility")
RESULTS = shared.RESULTS / "sbirr_vortices.csv"


@dataclasses.dataclass(frozen=True)
class Config:
    """A family and a volatility for one dataset."""

    data: str
    family: str
    volatility: float
    reference: str | dict[str, Any]
    solver: str
    seed: int
    max_epochs: int
    num_samples: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every candidate."""
    common = {name: section[name] for name in ("seed", "max_epochs", "num_samples")}
    return [
        Config(data, name, volatility, family["reference"], family["solver"], **common)
        for data in section["data"]
        for volatility in section["volatilities"]
        for name, family in section["families"].items()
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Scores of a candidate on training snapshots."""
    data = datasets.load(config.data)
    train = shared.snapshots_at(data, data.attrs["train_index"])
    arguments = {"volatility": config.volatility, "reference": config.reference, "solver": config.solver}
    model = shared.bridge(arguments, data.sizes[FEATURE])
    before = time.process_time()
    found = model.compare_references(
        train,
        {config.family: shared.build(config.reference)},
        num_samples=config.num_samples,
        seed=config.seed,
        max_epochs=config.max_epochs,
        progress=False,
    ).isel(reference=0)
    row = {"data": config.data, "family": config.family, "volatility": config.volatility}
    row |= {"solver": config.solver, "divergence": found["divergence"].item()}
    row |= {"num_parameters": found["num_parameters"].item()}
    for score in ("left_out", "left_out_sd", "forecast_back"):
        row |= {f"{score}_{metric}": found[score].sel(metric=metric).item() for metric in ("w2", "energy")}
    return [row | {"seed": config.seed, "cpu_seconds": round(time.process_time() - before, 2)}]


def filled_in(arguments: dict[str, Any], data: str) -> dict[str, Any]:
    """Arguments of a bridge, in which ``chosen: SOLVER`` or ``chosen: any`` stands for the winner."""
    given = dict(arguments)
    solver = given.pop("chosen", None)
    if solver is None:
        return given
    best = winner(pd.read_csv(RESULTS), data, solver)
    families = yaml.safe_load(shared.CONFIG.read_text())["vortices"]["families"]
    return given | {"volatility": float(best["volatility"])} | families[best["family"]]


def winner(found: pd.DataFrame, data: str, solver: str) -> pd.Series:
    """The row of the smallest mean W2 to snapshots left out."""
    some = found[(found["data"] == data) & ((found["solver"] == solver) | (solver == "any"))]
    return some.loc[some["left_out_w2"].idxmin()]


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Every candidate, and the winners."""
    parts = []
    for data in section["data"]:
        some = found[found["data"] == data]
        if not len(some):
            continue
        wide = some.pivot_table("left_out_w2", "family", "volatility", sort=False)
        best = [
            winner(found, data, solver)
            for solver in ("any", "linear")
            if (some["solver"] == solver).any() or solver == "any"
        ]
        chosen = "; ".join(f"{one['family']} at {one['volatility']:g}" for one in best)
        parts.append(f"{data}: {chosen}\n\n{shared.markdown(wide)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    shared.main(str(__doc__), "vortices", KEYS, rows, run, table)
