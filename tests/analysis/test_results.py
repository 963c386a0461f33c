"""Every analysis on an untrained network: finite, documented dims, attributes, through a file (check A1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from seqdyn import analysis, plot
from seqdyn.data.convert import from_netcdf, to_netcdf
from seqdyn.dynamics import MapDynamics, from_torch, simulate

ANALYSES: dict[str, tuple[Callable[[MapDynamics, torch.Tensor], xr.Dataset], set[str]]] = {
    "fixed_points": (
        lambda d, h: analysis.fixed_points(d, h[:, -1], seed=0),
        {"point", "unit", "mode", "start", "input"},
    ),
    "lyapunov_spectrum": (
        lambda d, h: analysis.lyapunov_spectrum(d, h[:, -1], num_steps=40, sigma=0.5, seed=0),
        {"mode", "time", "start"},
    ),
    "local_spectra": (lambda d, h: analysis.local_spectra(d, h[0]), {"time", "mode"}),
    "pca": (lambda d, h: analysis.pca(h), {"pc", "unit", "start", "time"}),
    "subspace_angles": (
        lambda d, h: analysis.subspace_angles(analysis.pca(h[0], 2), analysis.pca(h[1], 2)),
        {"pc"},
    ),
}


@pytest.fixture
def dynamics() -> MapDynamics:
    return from_torch(nn.RNN(4, 16).double())


@pytest.mark.parametrize("name", ANALYSES)
def test_a1_an_analysis_runs_on_any_network_and_survives_a_file(
    dynamics: MapDynamics, name: str, tmp_path: Path
) -> None:
    analyse, dims = ANALYSES[name]
    hidden = simulate(dynamics, torch.zeros(6, 16, dtype=torch.float64), 60, sigma=0.5, seed=0)

    data = analyse(dynamics, hidden)

    assert set(data.dims) == dims
    assert data.attrs["seqdyn_version"] and data.attrs["dtype"] == "float64"
    numbers = [v for n, v in data.data_vars.items() if v.dtype.kind in "fc" and n != "growth_rate"]
    assert all(np.isfinite(v.values).all() for v in numbers)
    to_netcdf(data, tmp_path / "result.nc")
    read = from_netcdf(tmp_path / "result.nc")
    xr.testing.assert_allclose(read, data, rtol=0)
    picture = getattr(plot, name)
    np.testing.assert_equal(drawn(picture(read)), drawn(picture(data)))


def drawn(axes: object) -> list[np.ndarray]:
    """Points of all lines and clouds of a picture."""
    parts = []
    for ax in np.ravel(np.array(axes, dtype=object)):
        parts += [line.get_xydata() for line in ax.lines]
        parts += [np.asarray(cloud.get_offsets()) for cloud in ax.collections]
    return parts


FEWER_THAN_TEN_LINES = """
dynamics = from_torch(gru, readout)
hidden = simulate(dynamics, torch.zeros(200, 24), 300, sigma=0.7, seed=0)
points = analysis.fixed_points(dynamics, hidden[:, ::30].flatten(0, 1))
memories = dynamics.readout(torch.from_numpy(points.hidden.values[points.stable.values]))
ax = plot.phase(analysis.pca(hidden[:20]), points)
without = analysis.fixed_points(analysis.silence(dynamics, [0, 1, 2]), hidden[:, -1])
"""


def flip_flops(count: int, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pulses of ±1 on three channels, on all at the first step; the target holds the last of each."""
    sign = 2.0 * torch.randint(2, (count, num_steps, 3)) - 1
    pulse = sign * (torch.rand(count, num_steps, 3) < 0.05)
    pulse[:, 0] = sign[:, 0]
    held, rows = pulse[:, 0], []
    for u in pulse.unbind(1):
        held = torch.where(u != 0, u, held)
        rows.append(held)
    return pulse, torch.stack(rows, dim=1)


@pytest.mark.slow
def test_the_memories_of_a_flip_flop_trained_in_plain_torch_are_found_in_a_few_lines() -> None:
    gru, readout = nn.GRU(3, 24, batch_first=True), nn.Linear(24, 3)
    parameters = [*gru.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(1500):
        pulse, target = flip_flops(64, 50)
        loss = (readout(gru(pulse)[0]) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert float(loss.detach()) < 0.01
    names = {
        "analysis": analysis,
        "plot": plot,
        "from_torch": from_torch,
        "simulate": simulate,
        "torch": torch,
    }

    exec(FEWER_THAN_TEN_LINES, names | {"gru": gru, "readout": readout}, found := {})

    assert FEWER_THAN_TEN_LINES.strip().count("\n") + 1 < 10
    codes = {tuple(row) for row in found["memories"].sign().int().tolist()}
    near = (found["memories"].abs() - 1).abs().max(dim=1).values < 0.3
    assert len(codes) == 8 and int(near.sum()) >= 8
    assert set(found["points"].stability.values) >= {"saddle"}
    assert found["without"].sizes["point"] > 0 and not found["without"].hidden[:, :3].any()
