"""How well the parameters of Lotka-Volterra are recovered, and whether the bootstrap's intervals cover them.

Run ``python -m experiments.sbirr.parameters`` from the root of the repository: half an hour of CPU time, one
row per data set and parameter; finished data sets are skipped, so that it may be stopped at any time.
``--table`` prints errors and coverage, ``--fast`` shows that it runs.

Each data set is drawn anew: 50 particles at the times 0, 2, ..., 8, additive noise of volatility 0.1, which
is given to the fit. Three intervals of nominal 90 % are formed from the same draws of ``model.bootstrap``,
with the estimate :math:`\\hat\\theta` and quantiles q of the draws: ``percentile``, [q(5 %), q(95 %)],
which ``bootstrap`` gives; ``basic``, :math:`[2 \\hat\\theta - q(95 \\%), 2 \\hat\\theta - q(5 \\%)]`;
and ``corrected``, Efron's bias-corrected percentiles, whose levels are shifted by twice the normal score of
the share of draws below the estimate.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta, norm

from experiments.sbirr import shared
from experiments.sbirr.scoring import rows_of_bridge, rows_of_truth
from seqdyn import datasets
from seqdyn.data.schema import PARTICLE, TIME

KEYS = ("seed", "parameter")
QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
INTERVALS = ("percentile", "basic", "corrected")
LEVEL = 0.9


@dataclasses.dataclass(frozen=True)
class Config:
    """One data set."""

    seed: int
    num_particles: int
    times: list[float]
    held_out: list[float]
    volatility: float
    max_epochs: int
    num_replicates: int
    num_samples: int


def rows(section: dict[str, Any]) -> list[Config]:
    """Every data set."""
    names = [field.name for field in dataclasses.fields(Config) if field.name != "seed"]
    return [
        Config(seed, **{name: section[name] for name in names}) for seed in range(section["num_data_sets"])
    ]


def run(config: Config) -> list[dict[str, Any]]:
    """Estimate, draws and intervals of each parameter; the error of the population between snapshots."""
    times = sorted([*config.times, *config.held_out])
    truth = {"system": "lotka_volterra", "volatility": config.volatility}
    data = datasets.lotka_volterra(
        config.num_particles, times, volatility=config.volatility, seed=config.seed
    )
    is_held_out = np.isin(data[TIME].values, config.held_out)
    train, held_out = data.isel({PARTICLE: ~is_held_out}), data.isel({PARTICLE: is_held_out})
    model = shared.bridge({"volatility": config.volatility, "reference": "LotkaVolterra"}, 2)
    start = time.process_time()
    shared.fitted(model, train, config.seed, max_epochs=config.max_epochs)
    middle = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a wide interval is a result here
        found = model.bootstrap(num_replicates=config.num_replicates, seed=config.seed, progress=False)
    end = time.process_time()
    options = ("w2",), config.num_samples, config.seed
    scores = rows_of_bridge(model, held_out, {"model": "static"}, *options)
    floor = rows_of_truth(truth, train, held_out, *options)
    common = {
        "w2": np.mean([row["w2"] for row in scores]),
        "w2_truth": np.mean([row["w2"] for row in floor]),
        "cpu_seconds_fit": round(middle - start, 2),
        "cpu_seconds_bootstrap": round(end - middle, 2),
    }
    return [
        {"seed": config.seed, "parameter": name, "truth": data.attrs[name]}
        | _summary(
            found.sel(parameter=name)["parameter_draw"].values, float(found["estimate"].sel(parameter=name))
        )
        | common
        for name in found["parameter"].values.tolist()
    ]


def _summary(draws: np.ndarray, estimate: float) -> dict[str, float]:
    """Draws of one parameter in a few numbers, with the intervals."""
    row = {"estimate": estimate, "mean": draws.mean(), "sd": draws.std(ddof=1)}
    row |= {
        f"q{100 * level:g}": value
        for level, value in zip(QUANTILES, np.quantile(draws, QUANTILES), strict=True)
    }
    row |= {"share_below": (draws < estimate).mean()}
    for name, ends in zip(INTERVALS, intervals(draws, estimate), strict=True):
        row |= {f"{name}_lower": ends[0], f"{name}_upper": ends[1]}
    return row


def intervals(draws: np.ndarray, estimate: float, level: float = LEVEL) -> list[np.ndarray]:
    """Percentile, basic and bias-corrected interval from bootstrap draws (B,) of an estimate."""
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    percentile = np.quantile(draws, tails)
    # Half a draw keeps the normal score finite where all draws lie on one side.
    below = np.clip((draws < estimate).mean(), 0.5 / len(draws), 1 - 0.5 / len(draws))
    shifted = norm.cdf(2 * norm.ppf(below) + norm.ppf(tails))
    return [percentile, 2 * estimate - percentile[::-1], np.quantile(draws, shifted)]


def coverage(found: pd.DataFrame) -> pd.DataFrame:
    """Share of intervals that hold the truth, with the exact 95 % binomial interval (Clopper-Pearson)."""
    rows = []
    for name in INTERVALS:
        covers = (found[f"{name}_lower"] <= found["truth"]) & (found["truth"] <= found[f"{name}_upper"])
        width = (found[f"{name}_upper"] - found[f"{name}_lower"]) / found["truth"]
        for parameter, some in covers.groupby(found["parameter"], sort=False):
            hits, count = int(some.sum()), len(some)
            low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
            high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
            row = {
                "interval": name,
                "parameter": parameter,
                "coverage": hits / count,
                "low": low,
                "high": high,
            }
            rows.append(row | {"width": width[some.index].mean(), "data_sets": count})
        rows.append({"interval": name, "parameter": "mean", "coverage": covers.mean(), "width": width.mean()})
    return pd.DataFrame(rows).set_index(["interval", "parameter"])


def table(found: pd.DataFrame, section: dict[str, Any]) -> str:
    """Errors of the first data sets and of all, and the coverage."""
    error = (found["estimate"] / found["truth"] - 1).abs().groupby(found["seed"]).max()
    first = error[error.index < section["num_recovered"]]
    spread = (found["estimate"] / found["truth"]).groupby(found["parameter"], sort=False).agg(["mean", "std"])
    spread["draws"] = (found["sd"] / found["truth"]).groupby(found["parameter"], sort=False).mean()
    spread["shift"] = (
        ((found["mean"] - found["estimate"]) / found["truth"]).groupby(found["parameter"]).mean()
    )
    ratio = (found["w2"] / found["w2_truth"]).groupby(found["seed"]).first()
    return "\n\n".join(
        [
            f"largest relative error: {first.round(3).tolist()}, median {first.median():.3f}; of all "
            f"{len(error)} data sets median {error.median():.3f}, largest {error.max():.3f}",
            f"W2 between snapshots over that of the truth: median {ratio.median():.3f}",
            shared.markdown(spread),
            shared.markdown(coverage(found)),
        ]
    )


if __name__ == "__main__":
    shared.main(str(__doc__), "parameters", KEYS, rows, run, table)
