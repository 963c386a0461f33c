"""Recipes of population snapshots: clouds of particles at a few times, no particle seen twice."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from seqdyn.data import read_snapshots
from seqdyn.data.schema import PARTICLE, TIME
from seqdyn.datasets.files import DataFile
from seqdyn.datasets.recipe import Recipe, cloud

__all__ = [
    "BENCHMARKS",
    "RECIPES",
    "SBIRR",
    "SHEN",
    "read_benchmark",
    "read_grid",
    "read_hesc",
    "read_moscot",
]

SBIRR = "https://raw.githubusercontent.com/YunyiShen/SBIRR/77f2f661afae/Notebooks/data/"
BENCHMARKS = (
    "https://raw.githubusercontent.com/YunyiShen/mmTrajectory-inference-benchmarks/"
    "bff2efdf4c49744f33b3397cbcf5bfe12c1439fc/asset/"
)
SHEN = (
    "Shen, Berlinghieri, Broderick (2025), Multi-marginal Schrödinger bridges with iterative reference "
    "refinement"
)
_HYCOM = (
    "HYCOM surface currents of the Gulf of Mexico, 1 June 2024 17:00 (US Department of Defense), particles "
    "simulated"
)


def read_grid(path: Path, *, times: tuple[float, ...], features: tuple[str, ...], unit: str) -> xr.Dataset:
    """Read an array (time, particle, feature) with the same number of particles at every time."""
    x = np.load(path, allow_pickle=False)
    return cloud(x.reshape(-1, x.shape[2]), np.repeat(times, x.shape[1]), features=list(features), unit=unit)


def read_benchmark(path: Path, *, features: tuple[str, ...], unit: str) -> xr.Dataset:
    """Read a file of the trajectory benchmarks: ``Xs`` (time, particle, feature) and the times ``dts``.

    Times that were divided by ``time_scale`` for the benchmark are multiplied by it again.
    """
    with np.load(path, allow_pickle=False) as arrays:
        x, times = arrays["Xs"], arrays["dts"].astype(float)
        if "time_scale" in arrays:
            times = times * float(arrays["time_scale"])
    # The times are multiples of one step, stored in float32 or divided: bring them back to short decimals.
    return cloud(
        x.reshape(-1, x.shape[2]), np.repeat(times.round(6), x.shape[1]), features=list(features), unit=unit
    )


def read_hesc(path: Path) -> xr.Dataset:
    """Read 570 cells with the number of their snapshot, and give each its day."""
    days = np.array([0.0, 0.5, 1.0, 1.5, 3.0])
    with np.load(path, allow_pickle=False) as arrays:
        return cloud(arrays["x"], days[arrays["snapshot"]], features=_components(5), unit="days")


def read_moscot(path: Path) -> xr.Dataset:
    """Read expression of 1479 genes in 250 cells, ordered by day."""
    data = read_snapshots(path, time="day")
    data = data.isel({PARTICLE: np.argsort(data[TIME].values, kind="stable")})
    data[TIME].attrs["units"] = "days"
    return data


def _components(count: int) -> list[str]:
    return [f"pc{i}" for i in range(1, count + 1)]


def _vortex(name: str, file: str, sha256: str, which: str) -> Recipe:
    return Recipe(
        name=name,
        title=f"Drifters around {which} vortex in the Gulf of Mexico, 9 snapshots of 111",
        kind="snapshots",
        source=f"{_HYCOM}; repository YunyiShen/SBIRR",
        licence="unclear (currents are a US government work; the repository states no licence)",
        citation=f"{SHEN}; Panagiotis (2014), doi 10.7266/N7X63JZ5",
        units="degrees from the centre of the region",
        files=(DataFile(f"sbirr/{file}", sha256, SBIRR + file),),
        read=partial(
            read_grid,
            times=tuple(range(9)),
            features=("longitude", "latitude"),
            unit="steps of the publication",
        ),
        train_index=tuple(range(0, 9, 2)),
        held_out_index=tuple(range(1, 9, 2)),
        notes="The time between two snapshots is called 1 in the publication; its length is not stated.",
    )


RECIPES = (
    Recipe(
        name="embryoid_body",
        title="Embryoid body development, five principal components, 5 snapshots of 300 cells",
        kind="snapshots",
        source="Moon et al. (2019), single-cell RNA sequencing; repository YunyiShen/SBIRR",
        licence="unclear (the repository states no licence)",
        citation=(
            "Moon et al. (2019), Visualizing structure and transitions with PHATE, Nat. Biotechnol. 37; "
            f"{SHEN}"
        ),
        units="1 (standardised)",
        files=(
            DataFile(
                "sbirr/eb_data.npy",
                "d15fc2070bde4dd2ae41d846fe765426457826dbb85607edfba93324779ea242",
                SBIRR + "eb_data.npy",
            ),
        ),
        read=partial(
            read_grid,
            times=(0.0, 0.5, 1.0, 1.5, 2.0),
            features=tuple(_components(5)),
            unit="two collection intervals (27 days in five of them)",
        ),
        train_index=(0, 2, 4),
        held_out_index=(1, 3),
        notes="Cells were collected in five intervals over 27 days; one unit of time is two intervals.",
    ),
    Recipe(
        name="hesc",
        title=(
            "Human embryonic stem cells becoming endoderm, five principal components, 5 snapshots, 570 cells"
        ),
        kind="snapshots",
        source="Chu et al. (2016), single-cell RNA sequencing; repository YunyiShen/SBIRR",
        licence="unclear (the repository states no licence)",
        citation=(
            f"Chu et al. (2016), Single-cell RNA-seq reveals novel regulators, Genome Biology 17:173; {SHEN}"
        ),
        units="principal component score",
        files=(
            DataFile(
                "sbirr/hESC_data.npz",
                "2d0c4340a1faa6f8f3670bde232b79035acfdc31df3f2ab4332702312ed12c69",
                note=(
                    "Make it from hESC_data.npy of the repository YunyiShen/SBIRR with "
                    "datasets/hesc/prepare.py."
                ),
            ),
        ),
        read=read_hesc,
        train_index=(0, 2, 4),
        held_out_index=(1, 3),
        notes="Collected after 0, 12, 24, 36 and 72 hours: the steps in time are not equal.",
    ),
    _vortex(
        "gulf_of_mexico",
        "GoMvortex_data.npy",
        "b2603b1767b83f8810bc94c4d252f485b44cdb82e14a9a1858883f6aa1025020",
        "a large",
    ),
    _vortex(
        "gulf_of_mexico_small",
        "GoMvortexsmall_data.npy",
        "d7798de80626b2272fcf8e86cb6c948cc183dbe80bf88cc6e4f3084a9e70ce90",
        "a small",
    ),
    Recipe(
        name="gulf_of_mexico_benchmark",
        title="Drifters around a vortex in the Gulf of Mexico, 11 snapshots of 200",
        kind="snapshots",
        source=f"{_HYCOM}; repository YunyiShen/mmTrajectory-inference-benchmarks",
        licence="MIT (repository); the currents are a US government work",
        citation=f"{SHEN}; Panagiotis (2014), doi 10.7266/N7X63JZ5",
        units="degrees from longitude -90.5, latitude 25.75",
        files=(
            DataFile(
                "mm_trajectory/GoM_data.npz",
                "e6a5878daf65519cdf80d8f993dcd2ee26f90104a706f6fc3aa37708a62b061a",
                BENCHMARKS + "GoM_data.npz",
            ),
        ),
        read=partial(read_benchmark, features=("longitude", "latitude"), unit="units of the benchmark"),
        train_index=(0, 2, 4, 6, 8),
        held_out_index=(1, 3, 5, 7),
        forecast_index=(9, 10),
        notes=(
            "Drifters move by the current in m / s, taken as degrees per unit of time, with volatility 0.01."
        ),
    ),
    Recipe(
        name="pbmc",
        title="Immune activation of blood cells, 30 gene programs, 21 snapshots of 500 cells",
        kind="snapshots",
        source="Jiang et al. (2024); repository YunyiShen/mmTrajectory-inference-benchmarks",
        licence="CC BY-NC 4.0 (data, as the repository states; the repository itself is MIT)",
        citation="Jiang et al. (2024), PMC10153191; Berlinghieri, Shen et al. (2025), arXiv 2505.16082",
        units="gene program score, divided by 11.54",
        files=(
            DataFile(
                "mm_trajectory/processed_pbmc_data_sub500_every_2_until20.npz",
                "dcad24192c61804e135f01a5b4b74aaaff48d4ab63301e0bb94a5ef0ebdce821",
                BENCHMARKS + "processed_pbmc_data_sub500_every_2_until20.npz",
            ),
        ),
        read=partial(read_benchmark, features=tuple(f"program{i}" for i in range(1, 31)), unit="hours"),
        train_index=tuple(range(0, 21, 2)),
        held_out_index=tuple(range(1, 21, 2)),
        notes=(
            "Not for commercial use. Every second of the snapshots that were taken each half hour until 20 "
            "hours."
        ),
    ),
    Recipe(
        name="moscot_temporal",
        title="Expression of 1479 genes in 250 cells at days 10, 10.5 and 11",
        kind="snapshots",
        source="moscot project, tests/data/moscot_temporal_tests.h5ad",
        licence="BSD-3-Clause",
        citation="Klein et al. (2025), Mapping cells through time and space with moscot, Nature 638",
        units=None,
        files=(
            DataFile(
                "moscot_temporal/moscot_temporal_tests.h5ad",
                "746a098fbf84e941e67e494bb4b61b741eff8945850e0056e6857cccd07f5885",
                "https://raw.githubusercontent.com/theislab/moscot/89a7936314da/tests/data/moscot_temporal_tests.h5ad",
            ),
        ),
        read=read_moscot,
        notes=(
            "A small sample made for software tests. Reading it needs anndata: pip install 'seqdyn[anndata]'."
        ),
    ),
)
