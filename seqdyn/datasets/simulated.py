"""Recipes of published snapshots that were simulated from equations; ``population`` draws new ones."""

from __future__ import annotations

from functools import partial

from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe
from seqdyn.datasets.snapshots import BENCHMARKS, SBIRR, SHEN, read_benchmark, read_grid

__all__ = ["RECIPES"]

_PREY = ("prey", "predators")
_GENES = ("gene_1", "gene_2", "gene_3")
_UNIT = "units of the rates"
_UNSTATED = "unclear (the repository states no licence)"
_SOURCE = "simulated; repository YunyiShen/SBIRR"
_BENCHMARK_SOURCE = "simulated; repository YunyiShen/mmTrajectory-inference-benchmarks"
_PREDATION = "alpha 1, beta 0.4, gamma 0.4, delta 0.1, started in [5, 5.1] x [4, 4.1]"
_REPRESSION = "beta 10, n 3, k 1, gamma 1, started in [1, 1.1] x [1, 1.1] x [2, 2.1]"
_ADDITIVE = "additive noise of volatility 0.1; moments agree with Euler steps of 0.01"
_PROPORTIONAL = "noise 0.02 x_j dW_j; moments agree with Euler steps of 0.001"

RECIPES = (
    Recipe(
        name="lotka_volterra_published",
        title="Predators and prey with additive noise, 9 snapshots of 50",
        kind="snapshots",
        source=_SOURCE,
        licence=_UNSTATED,
        citation=SHEN,
        units="1",
        files=(
            DataFile(
                "sbirr/LV_data.npy",
                "046bca800e73da683b4f37af89fe15792966e71d9dbc16ec3fce194bafea7e23",
                SBIRR + "LV_data.npy",
            ),
        ),
        read=partial(read_grid, times=tuple(range(9)), features=_PREY, unit=_UNIT),
        train_index=tuple(range(0, 9, 2)),
        held_out_index=tuple(range(1, 9, 2)),
        notes=f"Lotka-Volterra, {_PREDATION}, {_ADDITIVE}. No particle is seen twice.",
    ),
    Recipe(
        name="repressilator_published",
        title="Three genes in a ring of repression with additive noise, 11 snapshots of 50",
        kind="snapshots",
        source=_SOURCE,
        licence=_UNSTATED,
        citation=SHEN,
        units="1",
        files=(
            DataFile(
                "sbirr/repres_data.npy",
                "4d637f49e6b6b47a3f8b50a59a13ea6bd86f5054f23b4d37e81840878f3216e2",
                SBIRR + "repres_data.npy",
            ),
        ),
        read=partial(read_grid, times=tuple(0.75 * i for i in range(11)), features=_GENES, unit=_UNIT),
        train_index=tuple(range(0, 11, 2)),
        held_out_index=tuple(range(1, 11, 2)),
        notes=f"Repressilator, {_REPRESSION}, {_ADDITIVE}. No particle is seen twice.",
    ),
    Recipe(
        name="lotka_volterra_benchmark",
        title="Predators and prey with proportional noise, 11 snapshots of 200",
        kind="snapshots",
        source=_BENCHMARK_SOURCE,
        licence="MIT",
        citation=SHEN,
        units="1",
        files=(
            DataFile(
                "mm_trajectory/LV_data.npz",
                "3b0d2cad0dc8c8593259a764c8d48df42a55f9249e6c33d65747ef10c31ec4e7",
                BENCHMARKS + "LV_data.npz",
            ),
        ),
        read=partial(read_benchmark, features=_PREY, unit=_UNIT),
        train_index=tuple(range(10)),
        held_out_index=(10,),
        forecast_index=(10,),
        notes=f"Lotka-Volterra, {_PREDATION}, {_PROPORTIONAL}.",
    ),
    Recipe(
        name="repressilator_benchmark",
        title="Three genes in a ring of repression with proportional noise, 11 snapshots of 200",
        kind="snapshots",
        source=_BENCHMARK_SOURCE,
        licence="MIT",
        citation=SHEN,
        units="1",
        files=(
            DataFile(
                "mm_trajectory/Repressilatormrna_data.npz",
                "74a1433c1b4c071de1def0912c1f7d478aaf7c1c67a2983807276b8dccd9a929",
                BENCHMARKS + "Repressilatormrna_data.npz",
            ),
        ),
        read=partial(read_benchmark, features=_GENES, unit=_UNIT),
        train_index=tuple(range(10)),
        held_out_index=(10,),
        forecast_index=(10,),
        notes=(
            f"Repressilator, {_REPRESSION}, {_PROPORTIONAL}. The file Repressilatormrnaprotein_data.npz "
            "beside it is another draw of the same kind, without proteins."
        ),
    ),
)
