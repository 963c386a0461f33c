"""Take apart the networks that the emulation trained: how do they switch, and which units make them?

Run ``python -m experiments.hmm_rnn.mechanism`` after ``experiments.hmm_rnn.emulation``, with the same
``--runs``. For each network and seed named under ``mechanism`` in ``config.yaml`` it leaves the results as
NetCDF and as pictures in ``RUNS/mechanism/NAME`` and appends a row to
``experiments/results/hmm_rnn_mechanism.csv``; finished ones are skipped. ``--training`` trains the network
``three`` once more, keeps its weights, and measures when the dynamics appear. ``--table`` prints the rows,
``--fast`` shows within a minute that it runs.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml

import seqdyn
from experiments.record import append_row, provenance
from seqdyn import analysis, plot
from seqdyn.data import to_netcdf
from seqdyn.dynamics import MapDynamics, simulate
from seqdyn.models import HMMRNN
from seqdyn.train import KeepWeights

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "hmm_rnn_mechanism.csv"
KEYS = ("model", "seed")
KICK_SEED, GROUP_SEED = 1, 2  # noise that chooses a group must not judge it

logger = logging.getLogger("seqdyn")


def results(model: HMMRNN, steps: dict[str, int]) -> dict[str, xr.Dataset]:
    """Every analysis of one network, by the name of its function.

    Args:
        model: The trained network.
        steps: Steps of all chains together: ``reference`` for pictures, ``kicks`` for rates.
    """
    dynamics, some, many = model.dynamics(), steps["reference"], steps["kicks"]
    run = analysis.reference_run(dynamics, num_steps=some, seed=0)
    states = run.hidden[:, ::10].flatten(0, 1)[: steps["states"]]
    found = {
        "autonomous_dynamics": analysis.autonomous_dynamics(dynamics, reference=run, seed=0),
        "pca": analysis.pca(run.hidden[:4, :250]),
        "fixed_points": analysis.fixed_points(dynamics, states[:200]),
        "lyapunov_spectrum": analysis.lyapunov_spectrum(
            dynamics, states[0], num_steps=min(some, 5000), num_exponents=5, sigma=1.0, seed=0
        ),
        "orbit": analysis.orbit(dynamics, axes=turning_axes(dynamics, some), num_steps=some, seed=0),
        "speed_field": analysis.speed_field(dynamics, reference=run, seed=0),
        "readout_axes": analysis.readout_axes(dynamics, reference=run, seed=0),
        "residence": analysis.residence(dynamics, states, jacobians=True, seed=0),
        "regimes": analysis.regimes(dynamics, num_steps=some, seed=0),
        "noise_sweep": analysis.noise_sweep(dynamics, [0.1, 1, 2, 3, 4], num_steps=some, seed=0),
        "resonance": analysis.resonance(
            dynamics, np.geomspace(0.25, 4, 9), hmm=model.hmm, num_steps=some, seed=0
        ),
        "noise_sensitivity": analysis.noise_sensitivity(dynamics, num_steps=some, seed=0),
        "kick_units": analysis.kick_units(dynamics, num_steps=many, seed=KICK_SEED),
    }
    triplets = analysis.kick_units(dynamics, num_steps=many, num_units=3, seed=KICK_SEED)
    groups = [np.flatnonzero(kick) for kick in triplets["is_kick"].values]
    found["triplets"] = triplets
    for name, data in {"group_effect": found["kick_units"], "triplets_effect": triplets}.items():
        units = np.flatnonzero(data["is_kick"].any("direction"))
        if len(units):
            found[name] = analysis.group_effect(dynamics, units, num_steps=many, seed=GROUP_SEED)
    if len(groups) == 2 and not set(groups[0]) & set(groups[1]):
        found["populations"] = analysis.populations(dynamics, groups, num_steps=some, seed=0)
        found["gains"] = gains(dynamics, found["populations"], groups, some)
    return found


def turning_axes(dynamics: MapDynamics, num_steps: int) -> tuple[int, int]:
    """The two of the first four principal components in which a run turns most one way; a run of its own."""

    def directedness(axes: tuple[int, int]) -> float:
        found = analysis.orbit(dynamics, axes=axes, num_steps=num_steps, num_shuffles=2, seed=KICK_SEED)
        return float(found["directedness"])

    return max(itertools.combinations(range(1, 5), 2), key=directedness)


def gains(dynamics: MapDynamics, found: xr.Dataset, groups: list[np.ndarray], num_steps: int) -> xr.Dataset:
    """Switch rate with the drive of sets of units scaled, as published: kicks, their noise input, a control.

    Args:
        dynamics: The network.
        found: The populations around the groups.
        groups: Units of the two groups.
        num_steps: Steps of all chains together.
    """
    kicks = np.concatenate(groups)
    projecting = np.setdiff1d(np.flatnonzero(found["population"].values), kicks)
    rest = np.setdiff1d(np.arange(dynamics.state_size), np.concatenate([kicks, projecting]))
    sets = {
        "kick": ("recurrent", kicks),
        "noise projection": ("inputs", projecting),
        "control": ("inputs", rest),
    }
    factors, start = np.linspace(0, 2, 9), torch.zeros(64, dynamics.state_size)
    rates = np.full((len(sets), len(factors)), np.nan)
    for row, (gain, units) in zip(rates, sets.values(), strict=True):
        for at, factor in enumerate(factors):
            changed = analysis.scale(dynamics, units, **{gain: float(factor)})
            hidden = simulate(changed, start, num_steps // len(start), sigma=1.0, burn_in=200, seed=0)
            symbol = changed.readout(hidden).argmax(dim=2)
            # Too large a gain makes the activity explode: that point stays NaN.
            if torch.isfinite(hidden).all():
                row[at] = float((symbol[:, 1:] != symbol[:, :-1]).double().mean())
    return xr.Dataset(
        {"switch_rate": (("neuron_set", "mu"), rates, {"long_name": "switch rate", "units": "per step"})},
        {"neuron_set": list(sets), "mu": ("mu", factors, {"long_name": "gain"})},
        {"seed": 0, "num_steps": num_steps},
    )


def row_of(name: str, seed: int, found: dict[str, xr.Dataset]) -> dict[str, Any]:
    """The figures of one network for the table."""
    orbit, kicks = found["orbit"], found["kick_units"]
    resonance = found["resonance"]
    row: dict[str, Any] = {"model": name, "seed": seed}
    row |= {
        "num_attractors": found["autonomous_dynamics"].attrs["num_attractors"],
        "growth_rate": float(found["autonomous_dynamics"]["growth_rate"].max()),
        "lyapunov_driven": float(found["lyapunov_spectrum"]["exponent"].max()),
        "orbit_axes": "-".join(map(str, orbit.attrs["axes"])),
        "turns_per_1000": float(orbit["winding_rate"]),
        "directedness": float(orbit["directedness"]),
        "p_value": float(orbit["p_value"].max()),
        "region_share": _joined(found["residence"]["region_share"].values),
        "best_sigma": float(resonance["optimum"].sel(criterion="transition_error")),
        "directions": " ".join(kicks["direction"].values),
        "kick_units": "|".join(_joined(np.flatnonzero(one)) for one in kicks["is_kick"].values),
        "triplets": "|".join(_joined(np.flatnonzero(one)) for one in found["triplets"]["is_kick"].values),
        "reference_rate": float(found["triplets_effect"]["reference_rate"][0]),
    }
    for group, key in (("kick", "group_effect"), ("triplets", "triplets_effect")):
        row |= _effect_of(group, found.get(key))
    return row | provenance()


def _effect_of(group: str, effect: xr.Dataset | None) -> dict[str, Any]:
    """Effect of removing a group, its interval, its rank among random groups, and the verdict."""
    names = ("effect", "low", "high", "rank", "random", "hazard_effect", "hazard_rank")
    changes = ("silence", "recurrent")
    if effect is None:  # no unit passes
        empty = {f"{group}_{change}_{name}": "" for change in changes for name in names}
        return empty | {f"{group}_verdict": "no separable kick group"}
    row: dict[str, Any] = {}
    for change in changes:
        one = effect.sel(change=change)
        low, high = one["effect_ci"].values
        random = " ".join(f"{value:.3f}" for value in one["random_effect"].quantile([0.05, 0.5, 0.95]).values)
        hazard = (float(one[name]) for name in ("mean_hazard_effect", "hazard_rank"))
        values = (float(one["effect"]), low, high, float(one["rank"]), random, *hazard)
        row |= {f"{group}_{change}_{name}": value for name, value in zip(names, values, strict=True)}
    return row | {f"{group}_verdict": effect.attrs["verdict"]}


def _joined(values: Any) -> str:
    return " ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values)


def pictures(found: dict[str, xr.Dataset]) -> dict[str, Callable[[], Any]]:
    """What draws each result."""
    own: dict[str, Callable[[], Any]] = {
        name: functools.partial(getattr(plot, name), data)
        for name, data in found.items()
        if hasattr(plot, name) and data.data_vars
    }
    if "pca" in found:
        own["fixed_points"] = lambda: plot.phase(found["pca"], found["fixed_points"])
    if "triplets" in found:
        own["triplets"] = lambda: plot.kick_units(found["triplets"])
        own["triplets_effect"] = lambda: plot.group_effect(found["triplets_effect"])
    if "gains" in found:
        own["gains"] = lambda: found["gains"]["switch_rate"].plot.line(x="mu", marker="o", figsize=(5, 3.4))
    return own


def keep(found: dict[str, xr.Dataset], folder: Path) -> None:
    """Write results and pictures."""
    for name, data in found.items():
        to_netcdf(data, folder / f"{name}.nc")
    for name, picture in pictures(found).items():
        picture()
        plt.gcf().savefig(folder / f"{name}.png", dpi=90, bbox_inches="tight")
        plt.close("all")


def training(runs: Path, process: str, arguments: dict[str, Any], fit: dict[str, Any]) -> None:
    """Train a network once more with its weights kept, and measure when the dynamics appear."""
    weights = KeepWeights(every_n_steps=fit.pop("every_n_steps"))
    model = HMMRNN.preset(process, **arguments)
    model.fit(seed=0, run_dir=runs / "training" / "run", resume=True, callbacks=[weights], **fit)
    maps, history = weights.dynamics(model), model.history
    loss = {
        step: history["train_loss"].values[max(step // model.hparams.batches_per_epoch, 1) - 1]
        for step in maps
    }
    found = analysis.training_dynamics(maps, loss=loss, hmm=model.hmm, seed=0)
    found["epoch"].attrs["long_name"] = "step"
    keep({"training_dynamics": found}, runs / "training")
    logger.info(
        "transition at step %s, change points %s",
        found["transition_epoch"].item(),
        found["change_epoch"].values,
    )


def trained(runs: Path, name: str, process: str, seed: int) -> HMMRNN:
    """A network of the emulation.

    Raises:
        ValueError: If it has not been trained.
    """
    place = runs / f"{name}-{process}-{seed}" / "run" / "model"
    if not place.is_dir():
        raise ValueError(
            f"{place} is not there; train it: python -m experiments.hmm_rnn.emulation --only {name} "
            f"--process {process} --seed {seed} --runs {runs}"
        )
    model = seqdyn.load(place)
    assert isinstance(model, HMMRNN)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="name of one setting")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/hmm_rnn"), help="folder of the emulation's runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are appended to")
    parser.add_argument("--training", action="store_true", help="the dynamics over training, instead")
    parser.add_argument("--table", action="store_true", help="print the finished rows")
    parser.add_argument("--fast", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())["mechanism"]
    if options.fast:  # never among the real rows
        options.runs = options.runs.with_name(f"{options.runs.name}_fast")
        options.results = options.runs / "mechanism.csv"
        config |= config["fast"]
    if options.training:
        return training(options.runs, config["process"], **config["training"])
    for name, seed in [] if options.table else itertools.product(config["models"], config["seeds"]):
        folder = options.runs / "mechanism" / f"{name}-{seed}"
        if options.only not in (None, name) or options.seed not in (None, seed) or (folder / "done").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        found = results(trained(options.runs, name, config["process"], seed), config["steps"])
        keep(found, folder)
        append_row(row_of(name, seed, found), options.results, keys=KEYS)
        (folder / "done").touch()
    if options.results.exists():
        print(pd.read_csv(options.results).T.to_string())
    return None


if __name__ == "__main__":
    main()
