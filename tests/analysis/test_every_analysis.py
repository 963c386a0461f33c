"""Check A1: every analysis runs on a small untrained network, says what it cannot tell, and can be saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn import analysis
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import simulate
from seqdyn.models import HMMRNN
from seqdyn.rng import fork_rng


def network(**arguments: object) -> MapDynamics:
    with fork_rng(1):
        return HMMRNN(3, hidden_size=16, input_size=4, **arguments).dynamics()


def logit_gradients(dynamics: MapDynamics, seed: int) -> xr.Dataset:
    zeros = torch.zeros(3, 16)
    return analysis.logit_gradients(dynamics, simulate(dynamics, zeros, 30, sigma=1.0, seed=seed))


def training_dynamics(dynamics: MapDynamics, seed: int) -> xr.Dataset:
    return analysis.training_dynamics({0: dynamics, 5: dynamics}, num_steps=500, num_jacobians=4, seed=seed)


SMALL = {"num_steps": 480, "num_chains": 8, "burn_in": 20}
ANALYSES: dict[str, tuple[Callable[..., xr.Dataset], dict[str, set[str]]]] = {
    "autonomous_dynamics": (
        lambda dynamics, seed: analysis.autonomous_dynamics(dynamics, num_starts=10, num_steps=60, seed=seed),
        {"trajectory_pc": {"start", "time", "pc"}, "end_hidden": {"start", "unit"}, "growth_rate": {"start"}},
    ),
    "orbit": (
        lambda dynamics, seed: analysis.orbit(dynamics, **SMALL, num_shuffles=20, seed=seed),
        {
            "phase": {"sample", "time"},
            "area_rate_null": {"null", "shuffle"},
            "profile_prob": {"bin", "output"},
        },
    ),
    "noise_sweep": (
        lambda dynamics, seed: analysis.noise_sweep(dynamics, [0.5, 1.0], **SMALL, seed=seed),
        {"scores": {"sigma", "sample", "time", "pc"}, "contour_level": {"sigma", "mass"}},
    ),
    "resonance": (
        lambda dynamics, seed: analysis.resonance(dynamics, [0.5, 1.0], **SMALL, num_bootstrap=10, seed=seed),
        {"mutual_information": {"sigma", "lag"}, "optimum_interval": {"criterion", "bound"}},
    ),
    "readout_axes": (
        lambda dynamics, seed: analysis.readout_axes(dynamics, **SMALL, seed=seed),
        {"readout_projection": {"output", "pc"}, "angle_deg": {"output"}},
    ),
    "logit_gradients": (logit_gradients, {"alignment": {"sample", "time", "output"}}),
    "speed_field": (
        lambda dynamics, seed: analysis.speed_field(dynamics, **SMALL, num_bins=6, seed=seed),
        {"drift": {"bin_pc1", "bin_pc2", "pc"}, "diffusion": {"bin_pc1", "bin_pc2", "pc", "pc_"}},
    ),
    "training_dynamics": (
        training_dynamics,
        {"transition": {"epoch", "output", "output_next"}, "noise_drift": {"epoch", "unit"}},
    ),
    "composition": (
        lambda dynamics, seed: analysis.composition(dynamics, **SMALL, num_jacobians=4, seed=seed),
        {"pair_profile": {"pair", "bin", "quantity"}, "pair_distance": {"pair", "pair_"}},
    ),
}
WITHOUT_SEED = {"logit_gradients"}


@pytest.mark.parametrize("name", ANALYSES)
def test_runs_on_an_untrained_network_and_round_trips(name: str, tmp_path: Path) -> None:
    analyse, dims = ANALYSES[name]

    data = analyse(network(), seed=3)

    assert {variable: set(data[variable].dims) for variable in dims} == dims
    # A time that is NaN says that the event did not happen.
    numbers = list(data.drop_vars("hitting_time", errors="ignore").data_vars.values())
    numbers = [value for value in numbers if value.dtype.kind == "f"]
    assert not any(np.isposinf(value).any() for value in numbers)
    if any(value.isnull().all() for value in numbers):
        assert data.attrs["reason"]
    data.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "result.nc"), data)


@pytest.mark.parametrize("name", sorted(set(ANALYSES) - WITHOUT_SEED))
def test_the_seed_decides_and_the_ambient_stream_is_untouched(name: str) -> None:
    analyse, _ = ANALYSES[name]
    before = torch.get_rng_state()

    first, again, other = (analyse(network(), seed=seed) for seed in (3, 3, 4))

    xr.testing.assert_identical(first, again)
    assert not first.drop_attrs().identical(other.drop_attrs())
    assert first.attrs["seed"] == 3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(set(ANALYSES) - WITHOUT_SEED))
def test_double_precision_stays(name: str) -> None:
    with fork_rng(1):
        dynamics = HMMRNN(3, hidden_size=16, input_size=4, activation="tanh", bias=True).double().dynamics()

    assert ANALYSES[name][0](dynamics, seed=3).attrs["dtype"] == "float64"


@pytest.mark.parametrize("name", ["resonance", "readout_axes", "composition"])
def test_a_missing_readout_is_named(name: str) -> None:
    dynamics = MapDynamics(lambda h, u: h if u is None else 0.5 * h + u, None, 4, 4)

    with pytest.raises(ValueError, match=r"no readout.*dataclasses\.replace"):
        ANALYSES[name][0](dynamics, seed=0)
