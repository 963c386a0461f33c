"""The experiments on bridges run from end to end, and their arithmetic is right."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import norm

from experiments.benchmarks import bridges
from experiments.sbirr import (
    cells,
    cells_heldout,
    heldout,
    parameters,
    pbmc,
    pbmc_heldout,
    proportional,
    shared,
    volatility,
    vortices,
)
from experiments.sbirr.drifts import EllipticVortex, StreamFunction
from experiments.sbirr.scoring import rows_of_truth, spread_displacement
from seqdyn import datasets
from seqdyn.data.schema import PARTICLE, TIME, X
from seqdyn.ot.exact import displacement
from seqdyn.sde.drifts import Rotation, Vortex

MODULES = (heldout, vortices, proportional, parameters, volatility, cells, cells_heldout, pbmc, pbmc_heldout)
AFTER_CHOICE = (cells_heldout, pbmc_heldout)
NEEDS_DATA = (heldout, vortices, cells, cells_heldout, pbmc, pbmc_heldout)


@pytest.mark.parametrize("module", MODULES)
def test_the_fast_version_runs_once_and_stays_away_from_the_real_rows(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if module in NEEDS_DATA:
        request.getfixturevalue("data_dir")
    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(shared, "RESULTS", tmp_path / "real")
    monkeypatch.setattr("sys.argv", [name, "--fast", "--runs", str(tmp_path)])

    main(module)
    found = pd.read_csv(tmp_path / f"sbirr_{name}.csv")
    monkeypatch.setattr(module, "run", lambda job: pytest.fail("a finished job ran again"))
    main(module)

    assert not (tmp_path / "real").exists()
    assert found[["commit", "device", "seed"]].notna().all(axis=None)
    assert not found.duplicated(list(module.KEYS)).any()
    assert any(column.startswith("cpu_seconds") for column in found)


def main(module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    shared.main(str(module.__doc__), name, module.KEYS, module.rows, module.run, module.table)


def test_every_job_of_the_configuration_is_named_once() -> None:
    config = yaml.safe_load(shared.CONFIG.read_text())

    for module in MODULES:
        section = config[module.__name__.rpartition(".")[2]]
        section |= section["fast"] if module in AFTER_CHOICE else {}
        jobs = module.rows(section)
        names = [tuple(getattr(job, key, None) for key in module.KEYS) for job in jobs]
        assert jobs and len(set(names)) == len(names)
    assert {family["solver"] for family in config["vortices"]["families"].values()} == {"linear", "static"}


def test_a_stream_function_has_no_sources_and_contains_the_rotation() -> None:
    flow = StreamFunction(4)
    torch.nn.init.normal_(flow.coefficient)
    x = torch.randn(20, 2, dtype=torch.float64)

    slopes = torch.vmap(torch.func.jacfwd(lambda one: flow(one, 0.0)))(x)
    torch.testing.assert_close(slopes.diagonal(dim1=1, dim2=2).sum(1), torch.zeros(20, dtype=torch.float64))

    # psi = r_x y²/2 + c_x y + r_y x²/2 - c_y x
    rotation, flow = Rotation(2.0, 3.0, 0.5, -0.7), StreamFunction(2)
    values = {(0, 1): 0.5, (0, 2): 1.0, (1, 0): 0.7, (2, 0): 1.5}
    with torch.no_grad():
        flow.coefficient.copy_(torch.tensor([values.get(tuple(p), 0.0) for p in flow.places.mT.tolist()]))
    torch.testing.assert_close(flow(x, 0.0), rotation(x, 0.0))


def test_an_elliptic_vortex_has_no_sources_and_contains_the_round_one() -> None:
    x = torch.randn(20, 2, dtype=torch.float64)
    flow, vortex = EllipticVortex(core=0.5), Vortex(circulation=-1.5, centre_x=0.2, centre_y=-0.3, core=0.5)
    with torch.no_grad():
        flow.circulation.fill_(-1.5)
        flow.centre.copy_(torch.tensor([0.2, -0.3]))
    torch.testing.assert_close(flow(x, 0.0), vortex(x, 0.0))

    with torch.no_grad():
        flow.stretch.fill_(0.4)
        flow.shear.fill_(-0.7)
    slopes = torch.vmap(torch.func.jacfwd(lambda one: flow(one, 0.0)))(x)
    torch.testing.assert_close(slopes.diagonal(dim1=1, dim2=2).sum(1), torch.zeros(20, dtype=torch.float64))
    # It goes round on ellipses: |M (x - c)| does not change.
    stretched, shear = np.exp(0.4), -0.7
    m = torch.tensor([[stretched, 0.0], [shear, 1 / stretched]], dtype=torch.float64)
    z = (x - flow.centre.detach()) @ m.T
    assert (z * (flow(x, 0.0).detach() @ m.T)).sum(1).abs().max() < 1e-12


def test_schwarz_charges_for_parameters() -> None:
    found = vortices.criterion(-3.0, 4, num_particles=500, num_snapshots=5)

    assert found == pytest.approx(-3.0 + 4 / 200 * np.log(400))  # 100 particles through 4 intervals


def test_references_are_built_from_names() -> None:
    built = shared.build({"Sum": ["Vortex", {"StreamFunction": {"degree": 1}}]})

    assert [type(term).__name__ for term in built.terms] == ["Vortex", "StreamFunction"]
    assert shared.build({"LotkaVolterra": {"beta": 0.25}}).beta.item() == 0.25


def test_displacement_spreads_like_a_brownian_bridge() -> None:
    x, y = np.zeros((1, 2)), np.array([[4.0, 8.0]])

    found = spread_displacement(x, y, 0.25, 2.0, 40_000, seed=0)

    # Variance 2² · 0.25 · 0.75 in each coordinate; four standard errors of 40 000 draws.
    np.testing.assert_allclose(found.mean(axis=0), [1.0, 2.0], atol=4 * 0.75**0.5 / 200)
    np.testing.assert_allclose(found.var(axis=0), 0.75, rtol=4 * (2 / 40_000) ** 0.5)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))
    points, weights = displacement(x, y, 0.5)
    mean = spread_displacement(x, y, 0.5, 0.0, 10_000, seed=0).mean(axis=0)
    np.testing.assert_allclose(mean, weights @ points, atol=1e-3)  # drawn in proportion to the weights


def test_the_truth_goes_on_from_the_last_training_snapshot() -> None:
    data = datasets.lotka_volterra(30, times=[0, 1, 2], noise="proportional", volatility=0.02, seed=0)
    last = data[TIME].values == 2
    held_out = data.isel({PARTICLE: last})
    train = data.isel({PARTICLE: ~last})
    train[X].values[train[TIME].values == 1] = [5.05, 4.05]  # where the system starts

    (row,) = rows_of_truth(
        {"system": "lotka_volterra", "noise": "proportional", "volatility": 0.02},
        train, held_out, ("w2",), 200, seed=0,
    )  # fmt: skip

    # Restarted at time 1 it is at time 2 where the system was at time 1.
    ahead = datasets.lotka_volterra(30, times=[1], noise="proportional", volatility=0.02, seed=1)
    expected = np.linalg.norm(ahead[X].values.mean(axis=0) - held_out[X].values.mean(axis=0))
    assert row["method"] == "truth" and row["w2"] == pytest.approx(expected, rel=0.1)


def test_bias_correction_shifts_intervals_only_where_draws_are_lopsided() -> None:
    draws = np.linspace(-1, 1, 1001)

    percentile, basic, corrected = parameters.intervals(draws, 0.0)
    np.testing.assert_allclose([basic, corrected], [percentile] * 2, atol=2e-3)

    # Draws that lie too high by 0.2: basic takes that off twice over, and so does the correction in levels.
    percentile, basic, corrected = parameters.intervals(draws + 0.2, 0.0)
    np.testing.assert_allclose(percentile, [-0.7, 1.1], atol=1e-9)
    np.testing.assert_allclose(basic, [-1.1, 0.7], atol=1e-9)
    levels = norm.cdf(2 * norm.ppf(0.4) + norm.ppf([0.05, 0.95]))  # 0.4 of the draws are below
    np.testing.assert_allclose(corrected, 2 * levels - 0.8, atol=2e-3)


def test_coverage_comes_with_its_binomial_interval() -> None:
    held = [True, True, True, False]
    found = pd.DataFrame({"seed": range(4), "parameter": "alpha", "truth": 1.0})
    for name in parameters.INTERVALS:
        found[f"{name}_lower"], found[f"{name}_upper"] = 0.5, np.where(held, 1.5, 0.9)

    row = parameters.coverage(found).loc[("percentile", "alpha")]

    # Clopper and Pearson for 3 of 4.
    np.testing.assert_allclose(
        row[["coverage", "low", "high"]].astype(float), [0.75, 0.1941, 0.9937], atol=1e-4
    )


def test_the_smallest_criterion_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("rotation", "static", 0.1, 0.3), ("vortex", "static", 0.05, 0.2), ("linear", "linear", 0.1, 0.6)]
    found = pd.DataFrame(rows, columns=["family", "solver", "volatility", "criterion"]).assign(data="sea")

    chosen, linear = (vortices.winner(found, "sea", solver) for solver in ("any", "linear"))

    assert (chosen["family"], chosen["volatility"]) == ("vortex", 0.05) and linear["family"] == "linear"
    assert vortices.filled_in({"volatility": 1.0}, "sea") == {"volatility": 1.0}
    found.to_csv(tmp_path / "rows.csv")
    monkeypatch.setattr(vortices, "RESULTS", tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="candidates have no row.*run python -m experiments.sbirr.vortices"):
        vortices.filled_in({"chosen": "any"}, "gulf_of_mexico")


def test_the_lowest_sum_of_ranks_is_chosen() -> None:
    scores = {
        "left_out_w2": [1.0, 2.0, 3.0],
        "left_out_energy": [3.0, 1.0, 2.0],
        "forecast_back_w2": [3, 2, 1],
    }
    found = pd.DataFrame({"data": "cells", "family": ["a", "b", "c"], **scores})

    assert cells.ranked(found, "cells")["family"].tolist() == ["b", "c", "a"]


def test_a_clock_that_slows_down() -> None:
    np.testing.assert_allclose(pbmc.by_clock([0.0, 1.0, 3.0], 1.0), np.log([1, 2, 4]))
    np.testing.assert_array_equal(pbmc.by_clock([0.0, 1.0], np.inf), [0, 1])


def test_a_fit_is_timed_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (lambda: datasets.lotka_volterra(5, [0, 1], seed=0), "LotkaVolterra", 1.0)
    monkeypatch.setattr(bridges, "FITS", {"small": small})
    monkeypatch.setattr(bridges, "CASES", ("small",))
    monkeypatch.setattr("sys.argv", ["bridges", "--case", "small", "--here"])

    bridges.main()
    row = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert row["particles"] == 5 and row["peak_mb"] >= row["before_mb"] > 100
    assert row["cpu_seconds"] == pytest.approx(row["epochs"] * row["cpu_seconds_per_epoch"], rel=0.05)
    row = {"case": "particles_5", **row}
    bridges.picture(
        pd.DataFrame([row, {**row, "particles": 10, "peak_mb": 2 * row["peak_mb"]}]), tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").stat().st_size > 1000
