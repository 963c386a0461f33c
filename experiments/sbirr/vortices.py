r"""Choose reference and volatility of the drifters, on their training snapshots alone.

Run ``python -m experiments.sbirr.vortices`` from the root of the repository, with the data under
``SEQDYN_DATA``. Every family and volatility of ``config.yaml`` is fitted to the training snapshots; the
smallest value of Schwarz's criterion wins, among all families and among those of the linear solver.
``experiments.sbirr.heldout`` reads the winners and opens the held-out snapshots. ``--table`` prints all
candidates, ``--fast`` shows that it runs.

The criterion is the divergence and a charge for parameters, in nats per particle:

.. math:: L + \frac{k}{2 n} \log(n K)

for k parameters and n particles in each of K intervals. It is no likelihood: couplings are optimised, and
only the snapshots count, not the way between them. It misled here, see ``README.md``; the published family
and volatility stand beside its choice.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import pandas as pd
import yaml

from experiments.sbirr import shared
from seqdyn import datasets
from seqdyn.data.schema import FEATURE, PARTICLE
from seqdyn.sde.regression import get_parameters

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


def rows(section: dict[str, Any]) -> list[Config]:
    """Every candidate."""
    common = {name: section[name] for name in ("seed", "max_epochs")}
    return [
        Config(data, name, volatility, family["reference"], family["solver"], **common)
        for data in section["data"]
        for volatility in section["volatilities"]
        for name, family in section["families"].items()
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """The criterion of a candidate."""
    data = datasets.load(config.data)
    indices = data.attrs["train_index"]
    train = shared.snapshots_at(data, indices)
    arguments = {"volatility": config.volatility, "reference": config.reference, "solver": config.solver}
    model = shared.bridge(arguments, data.sizes[FEATURE])
    before = time.process_time()
    shared.fitted(model, train, config.seed, max_epochs=config.max_epochs)
    seconds = time.process_time() - before
    assert model.history is not None
    count = len(get_parameters(model.process))
    row = {"data": config.data, "family": config.family, "volatility": config.volatility}
    row |= {"solver": config.solver, "divergence": float(model.divergence), "num_parameters": count}
    row |= {
        "criterion": criterion(float(model.divergence), count, train.sizes[PARTICLE], len(indices)),
        "epochs": model.history.sizes["epoch"],
    }
    return [row | {"seed": config.seed, "cpu_seconds": round(seconds, 2)}]


def criterion(divergence: float, num_parameters: int, num_particles: int, num_snapshots: int) -> float:
    """Schwarz's criterion, half of it, in nats per particle of a snapshot; ``num_particles`` are all."""
    each = num_particles / num_snapshots
    return divergence + num_parameters / (2 * each) * math.log(each * (num_snapshots - 1))


def filled_in(arguments: dict[str, Any], data: str) -> dict[str, Any]:
    """Arguments of a bridge, in which ``chosen: SOLVER`` or ``chosen: any`` stands for the winner."""
    given = dict(arguments)
    solver = given.pop("chosen", None)
    if solver is None:
        return given
    found, section = pd.read_csv(RESULTS), yaml.safe_load(shared.CONFIG.read_text())["vortices"]
    shared.check_complete(found, rows(section), KEYS, "experiments.sbirr.vortices")
    best = winner(found, data, solver)
    return given | {"volatility": float(best["volatility"])} | section["families"][best["family"]]


def winner(found: pd.DataFrame, data: str, solver: str) -> pd.Series:
    """The row of the smallest criterion."""
    some = found[(found["data"] == data) & ((found["solver"] == solver) | (solver == "any"))]
    return some.loc[some["criterion"].idxmin()]


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Every candidate, and the winners."""
    parts = []
    for data in section["data"]:
        some = found[found["data"] == data]
        if not len(some):
            continue
        wide = some.pivot_table("criterion", "family", "volatility", sort=False)
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
