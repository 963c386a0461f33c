"""Kick units: found where they were planted, nowhere else, and judged against random groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from seqdyn import plot
from seqdyn.analysis import (
    clamp,
    greedy_group,
    group_effect,
    kick_units,
    noise_sensitivity,
    populations,
    reference_run,
)
from seqdyn.analysis.groups import CAUSE, NO_GROUP, PART, _effects, matched_groups
from seqdyn.analysis.kicks import _group_size
from seqdyn.analysis.screens import bootstrap_chains, screen
from seqdyn.analysis.signatures import auc, contrast
from seqdyn.dynamics import MapDynamics, from_callable
from seqdyn.errors import NonFiniteError

MEMBERS, KICKS, INTEGRATORS, BYSTANDERS = 6, 3, 12, 14


class Planted(NamedTuple):
    dynamics: MapDynamics
    kicks: dict[str, list[int]]
    members: np.ndarray


def planted(dtype: torch.dtype = torch.float32) -> Planted:
    """A network whose switches are made by known units.

    Two groups of units (A for symbol 0, B for symbol 2) excite themselves and silence each other: without a
    push A settles at 1 with B at 0, exactly, and B would need 1 more of drive to wake, so that the map is
    bistable and never switches by itself. Linear units with a decay of 0.8 sum up the noise. Three kick units
    per direction read the mean of twelve of them less a threshold, are shut by an active target group, and
    push the target up and the other group down. One step of a push above 1 switches the groups; with one of
    three kick units gone the rest must reach higher, with all three gone nothing pushes and the direction has
    no switch at all, which is what makes the plant exact. The directions read separate noise. Bystanders see
    noise and group A, half of them as quiet as kick units, and reach nobody. A third symbol is never
    the largest.
    """
    sizes = (MEMBERS, MEMBERS, KICKS, KICKS, INTEGRATORS, INTEGRATORS, BYSTANDERS)
    a, b, to_b, to_a, sums_b, sums_a, rest = (
        slice(stop - size, stop) for size, stop in zip(sizes, np.cumsum(sizes).tolist(), strict=True)
    )
    size, inputs = sum(sizes), 2 * INTEGRATORS + BYSTANDERS
    recurrent, bias = torch.zeros(size, size, dtype=dtype), torch.zeros(size, dtype=dtype)
    for own, other, pushed_by, pulled_by in ((a, b, to_a, to_b), (b, a, to_b, to_a)):
        recurrent[own, own], recurrent[own, other] = 0.5 / MEMBERS, -1.5 / MEMBERS
        recurrent[own, pushed_by], recurrent[own, pulled_by] = 0.25, -0.25
        bias[own] = 0.5
    for kicks, sums, target in ((to_b, sums_b, b), (to_a, sums_a, a)):
        recurrent[kicks, sums], recurrent[kicks, target] = INTEGRATORS**-0.5, -10.0 / MEMBERS
        bias[kicks] = -0.8
    linear = torch.zeros(size, dtype=torch.bool)
    linear[sums_b], linear[sums_a] = True, True
    recurrent += 0.8 * torch.diag(linear.to(dtype))
    recurrent[rest, a] = 0.3 / MEMBERS
    bias[rest.stop - BYSTANDERS // 2 :] = -1.2
    weights = torch.zeros(size, inputs, dtype=dtype)
    weights[sums_b.start :] = torch.eye(inputs, dtype=dtype)
    readout = torch.zeros(3, size, dtype=dtype)
    readout[0, a], readout[2, b] = 5.0 / MEMBERS, 5.0 / MEMBERS
    offset = torch.tensor([0.0, -1.0, 0.0], dtype=dtype)

    def preactivation(h: Tensor, u: Tensor) -> Tensor:
        return h @ recurrent.mT + u @ weights.mT + bias

    def activation(z: Tensor) -> Tensor:
        return torch.where(linear, z, z.relu())

    dynamics = from_callable(
        lambda h, u: activation(preactivation(h, u)),
        size,
        inputs,
        lambda h: h @ readout.mT + offset,
        preactivation=preactivation,
        activation=activation,
        input=torch.zeros(inputs, dtype=dtype),
    )
    kicks = {"0->2": list(range(to_b.start, to_b.stop)), "2->0": list(range(to_a.start, to_a.stop))}
    return Planted(dynamics, kicks, np.arange(2 * MEMBERS))


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return kick_units(planted().dynamics, num_steps=12_000, seed=0)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_planted_units_rank_first_in_their_direction_and_alone_are_kick_units(found: xr.Dataset) -> None:
    for direction, units in planted().kicks.items():
        one = found.sel(direction=direction)
        assert np.flatnonzero(one.is_kick).tolist() == units
        assert np.argsort(one.kick_rank.values)[:KICKS].tolist() == units
        assert (one.causal_ci.sel(bound="low", unit=units) > 0.1).all()


@pytest.mark.parametrize("direction", ["0->2", "2->0"])
def test_silencing_planted_units_ends_their_direction_and_random_sets_do_little(direction: str) -> None:
    network = planted()

    effect = group_effect(
        network.dynamics, network.kicks[direction], num_steps=12_800, num_random=100, num_chains=64, seed=7
    )

    before, after = (int(symbol) for symbol in direction.split("->"))
    silent = effect.sel(change="silence")
    assert float(silent.direction_effect.sel(symbol=before, symbol_next=after)) >= 0.8
    assert float(abs(silent.random_effect).median()) < 0.2
    assert (effect["rank"] >= 0.95).all() and effect.verdict.values.tolist() == [CAUSE, CAUSE]
    assert effect.attrs["verdict"] == CAUSE and effect.criterion_met.all()
    low, high = silent.effect_ci.values
    assert low <= float(silent.effect) <= high
    assert float(silent.hazard_rank) >= 0.95 and float(silent.mean_hazard_effect_ci[0]) > 0


def test_a_double_precision_network_has_the_same_kick_units() -> None:
    network = planted(torch.float64)

    found = kick_units(network.dynamics, num_steps=8000, seed=3, num_states=2000)

    assert found.attrs["dtype"] == "float64"
    for direction, units in network.kicks.items():
        assert np.flatnonzero(found.is_kick.sel(direction=direction)).tolist() == units


def test_units_of_a_symbol_are_no_kick_units_though_silencing_them_matters(found: xr.Dataset) -> None:
    members = found.isel(unit=planted().members)

    assert float(abs(members.causal_effect).max()) > 0.1
    assert not members.is_kick.any()
    assert int(members.kick_rank.min()) > KICKS


def test_kick_zone_holds_states_before_a_switch_near_threshold(found: xr.Dataset) -> None:
    units = planted().kicks["0->2"]
    zone = found.isel(sample=found.kick_zone.sel(direction="0->2").values)

    assert zone.sizes["sample"] > 10
    assert (zone.symbol == 0).all() and (zone.residence_time <= 8).all()
    assert (abs(zone.drive / zone.sd_z).isel(unit=units).mean("unit") < 0.5).all()
    means = found.region_mean_z.sel(direction="0->2").isel(unit=units[0])
    cluster, near, switch = means.sel(region_name=["cluster", "kick-zone", "transition"]).values
    assert cluster < near < switch and switch > 0


def test_a_group_of_bystanders_is_no_cause() -> None:
    dynamics = planted().dynamics
    bystanders = list(range(dynamics.state_size - BYSTANDERS, dynamics.state_size))[:3]

    effect = group_effect(dynamics, bystanders, num_steps=4000, num_random=50, seed=1)

    silent = effect.sel(change="silence")
    assert float(silent.effect) == 0 and silent.effect_ci.values.tolist() == [0, 0]
    assert effect.attrs["verdict"] == NO_GROUP and not silent.criterion_met.any()


@pytest.mark.parametrize(("kept", "verdict"), [(0.3, CAUSE), (0.7, PART), (1.0, NO_GROUP)])
def test_special_units_that_leave_most_switches_take_part_and_are_no_cause(kept: float, verdict: str) -> None:
    spread = np.random.default_rng(0).normal(0, 0.02, (22, 30))  # of 22 sets, in 30 chains
    spread[1] += kept - 1
    switches = 100 * (1 + spread)[..., None, None] * (1 - np.eye(2))
    moves = switches + (1000 - switches.sum(axis=-1))[..., None] * np.eye(2)

    found = _effects(moves, moves, bootstrap_chains(30, 200, 0))

    assert str(found.verdict.values) == verdict
    assert float(found.mean_hazard_effect) == pytest.approx(1 - kept, abs=0.02)


def test_taking_a_symbol_away_is_no_cause_though_the_rate_falls() -> None:
    network = planted()
    group_b = list(range(MEMBERS, 2 * MEMBERS))

    effect = group_effect(network.dynamics, group_b, num_steps=20_000, num_random=60, seed=1)

    silent = effect.sel(change="silence")
    assert float(silent.effect) == 1 and float(silent["rank"]) == 1
    assert float(silent.symbol_share.sel(symbol=2)) == 0
    # Put back into symbol 2, the network leaves it at once.
    assert float(silent.hazard_effect.sel(symbol=2, symbol_next=0)) < -1
    assert str(silent.verdict.values) == NO_GROUP
    met = silent.criterion_met
    assert dict(zip(met.criterion.values.tolist(), met.values.tolist(), strict=True)) == {
        "rank": True, "interval": True, "hazard": False, "size": True,
    }  # fmt: skip


def test_batched_silencing_equals_a_loop_over_silenced_networks() -> None:
    dynamics = planted(torch.float64).dynamics
    sets = torch.zeros(3, dynamics.state_size, dtype=torch.bool)
    sets[1, :4], sets[2, 12] = True, True
    hidden = torch.rand(5, dynamics.state_size, dtype=torch.float64)
    assert dynamics.readout is not None and dynamics.preactivation is not None
    for change in ("silence", "recurrent"):
        torch.manual_seed(0)
        found = screen(dynamics, sets, hidden, num_steps=60, change=change)
        for row, units in enumerate(sets):
            torch.manual_seed(0)
            h, moves = hidden, np.zeros((5, 3, 3))
            for _ in range(60):
                before = dynamics.readout(h).argmax(dim=-1)
                u = torch.randn(5, dynamics.input_size, dtype=torch.float64)
                after = dynamics.step(h, u)
                after[:, units] = 0 if change == "silence" else dynamics.step(0 * h, u)[:, units]
                h = after
                np.add.at(moves, (np.arange(5), before, dynamics.readout(h).argmax(dim=-1)), 1)
            np.testing.assert_array_equal(found[row], moves)


def test_restarts_put_every_set_back_on_the_first() -> None:
    network = planted()
    sets = torch.zeros(2, network.dynamics.state_size, dtype=torch.bool)
    sets[1, network.kicks["0->2"]] = True

    moves = screen(network.dynamics, sets, torch.zeros(64, 56), num_steps=400, restart=20).sum(axis=1)

    # Left alone, the second set would end in symbol 0 and never show how symbol 2 is left.
    # What switches still was pushed before the set was put back.
    assert moves[1, 0, 2] < 0.25 * moves[0, 0, 2]
    assert moves[1, 2].sum() > 0.5 * moves[0, 2].sum()


def test_random_groups_match_in_size_and_activity_even_of_the_most_active() -> None:
    activity = np.linspace(0, 1, 40)
    for units, close in (([30, 33, 36], 0.02), ([37, 38, 39], 0.2), ([0, 1, 2], 0.2)):
        groups = matched_groups(activity, np.array(units), 50, np.random.default_rng(0))

        assert len({tuple(group) for group in groups}) == 50
        assert all(len(set(group)) == 3 and not set(group) & set(units) for group in groups)
        means = [activity[group].mean() for group in groups]
        assert np.abs(np.array(means) - activity[units].mean()).max() < close
    few = matched_groups(np.ones(4), np.array([1]), 5, np.random.default_rng(0))
    assert sorted(int(group[0]) for group in few) == [0, 2, 3]


def test_a_single_unit_is_judged_beside_all_others_and_an_extreme_one_says_so() -> None:
    dynamics = planted().dynamics

    effect = group_effect(dynamics, [int(planted().members[0])], num_steps=2000, num_resamples=20, seed=0)

    assert effect.sizes["group"] == dynamics.state_size - 1
    assert "reason" not in effect.attrs
    last = dynamics.state_size - 1  # a bystander, which reaches nobody
    found = group_effect(clamp(dynamics, last, 50.0), [last], num_steps=2000, num_resamples=20, seed=0)
    assert "no other group is as active" in found.attrs["reason"]


def test_a_unit_without_which_the_activity_diverges_is_never_chosen() -> None:
    found = greedy_group(held_down(), 2, num_steps=2000, start=torch.eye(8)[0], seed=0)

    assert np.isnan(found.single_effect[0]) and np.isfinite(found.single_effect[1:]).all()
    assert int(found.chosen[0]) > 0 and np.isfinite(found.effect).all()


def test_greedy_choice_starts_with_a_planted_unit_and_never_repeats() -> None:
    network = planted()

    found = greedy_group(network.dynamics, 3, num_steps=6000, seed=0)

    assert int(found.chosen[0]) in sum(network.kicks.values(), [])
    assert len(set(found.chosen.values.tolist())) == 3
    assert (np.diff(found.effect) > 0).all()


def test_area_under_the_curve_counts_pairs() -> None:
    values = np.array([[1.0], [2.0], [2.0], [3.0], [0.0]])
    positive, negative = np.array([0, 1.0, 0, 1, 0]), np.array([1.0, 0, 1, 0, 1])

    pairs = [(x > y) + (x == y) / 2 for x in (2, 3) for y in (1, 2, 0)]

    np.testing.assert_allclose(auc(values, positive, negative), [np.mean(pairs)])
    assert np.isnan(auc(values, positive, 0 * negative)).all()


def test_contrast_is_zero_or_less_for_a_step_and_positive_for_a_bump() -> None:
    lags = np.arange(-20, 11)
    traces = np.stack([lags >= 0, np.abs(lags) <= 1]).astype(float)

    assert contrast(traces, lags, np.array([1.0, 0.5]), 8).tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("scores", "size"), [([0.9, 0.8, 0.85 / 8, 0.1], 2), ([0.5, 0.0], 1), ([0.0, 0.0], 0)]
)
def test_group_ends_at_the_largest_drop(scores: list[float], size: int) -> None:
    assert _group_size(np.array(scores), 10) == size


def test_kick_units_survive_netcdf(found: xr.Dataset, tmp_path: Path) -> None:
    found.to_netcdf(tmp_path / "kicks.nc")

    xr.testing.assert_identical(xr.load_dataset(tmp_path / "kicks.nc"), found)
    assert set(found.dims) == {
        "direction", "unit", "lag", "region_name", "bound", "sample", "pc",
    }  # fmt: skip


def test_noise_fans_out_more_the_more_of_it_is_fresh(tmp_path: Path) -> None:
    dynamics = planted().dynamics

    found = noise_sensitivity(dynamics, num_steps=6000, seed=0)

    np.testing.assert_allclose(found.cov_trace.sel(gamma=0.0), 0, atol=1e-9)
    assert (found.cov_trace.isel(time=slice(1, None)).diff("gamma") > 0).all()
    end = found.switch_probability.sel(gamma=1.0).isel(time=-1)
    assert float(end.sel(region="transition")) == 1.0 and float(end.sel(region="cluster")) < 0.5
    # All noise fresh is the same for both mixtures.
    linear = noise_sensitivity(dynamics, num_steps=6000, seed=0, mixing="linear")
    np.testing.assert_allclose(linear.cov_trace.sel(gamma=1.0), found.cov_trace.sel(gamma=1.0), rtol=1e-4)
    found.to_netcdf(tmp_path / "fans.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "fans.nc"), found)


def test_without_an_event_the_result_is_empty_and_says_why() -> None:
    found = noise_sensitivity(planted().dynamics, num_steps=640, seed=0, min_dwell=500)

    assert not found.data_vars and "longest dwells" in found.attrs["reason"]
    with pytest.raises(ValueError, match="longest dwells"):
        plot.noise_sensitivity(found)


def wired() -> MapDynamics:
    """Units 0-2 and 3-5 are groups; 6-10 drive the first and hold the second down, 11-15 the reverse."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.02 * torch.randn(24, 24, generator=generator)
    for unit in range(6, 11):
        weights[:3, unit], weights[3:6, unit] = 0.3, -0.3
        weights[3:6, unit + 5], weights[:3, unit + 5] = 0.3, -0.3
    inputs = torch.eye(24)

    def preactivation(h: Tensor, u: Tensor) -> Tensor:
        return h @ weights.mT + u @ inputs.mT

    def readout(h: Tensor) -> Tensor:
        return torch.stack([h[..., :3].mean(-1), h[..., 3:6].mean(-1)], dim=-1)

    return from_callable(
        lambda h, u: preactivation(h, u).relu(), 24, 24, readout, preactivation=preactivation
    )


def test_populations_are_found_where_they_are_wired(tmp_path: Path) -> None:
    found = populations(
        wired(), [[0, 1, 2], [3, 4, 5]], num_steps=6400, seed=0, top_k=10, num_permutations=500
    )

    assert np.flatnonzero(found.population == 1).tolist() == [6, 7, 8, 9, 10]
    assert np.flatnonzero(found.population == 2).tolist() == [11, 12, 13, 14, 15]
    block = found.sel(neuron_set_to="group 1")
    assert float(block.block_mean.sel(neuron_set_from="population 1")) == pytest.approx(0.3)
    assert float(block.block_mean.sel(neuron_set_from="population 2")) == pytest.approx(-0.3)
    assert float(block.block_p.sel(neuron_set_from="population 1")) == pytest.approx(1 / 501)
    assert float(found.block_p.sel(neuron_set_to="group 1", neuron_set_from="group 1")) > 0.01
    # Noise that pushes towards the second group ends the first symbol.
    assert float(found.integration_auc[0]) < 0.48 and float(found.integration_auc[1]) > 0.52
    found.to_netcdf(tmp_path / "populations.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "populations.nc"), found)


def test_untrained_networks_go_through_every_tool() -> None:
    generator = torch.Generator().manual_seed(1)
    weights, inputs, out = (
        torch.randn(n, m, generator=generator) / 4 for n, m in ((16, 16), (16, 4), (3, 16))
    )

    def preactivation(h: Tensor, u: Tensor) -> Tensor:
        return h @ weights.mT + u @ inputs.mT

    dynamics = from_callable(
        lambda h, u: preactivation(h, u).relu(), 16, 4, lambda h: h @ out.mT, preactivation=preactivation
    )
    found = kick_units(dynamics, num_steps=2000, seed=0, num_states=200, num_units=2)

    assert (found.is_kick.sum("unit") == 2).all()
    assert np.isfinite(found.causal_effect).all() and np.isfinite(found.collateral).all()
    ranks = np.sort(found.kick_rank.values, axis=1)
    np.testing.assert_array_equal(ranks, np.tile(np.arange(1, 17), (len(ranks), 1)))


def test_errors_say_what_to_type() -> None:
    dynamics = planted().dynamics
    with pytest.raises(ValueError, match="preactivation=lambda h, u"):
        kick_units(dataclasses.replace(dynamics, preactivation=None), num_steps=640, seed=0)
    with pytest.raises(ValueError, match="raise num_steps, or lower min_switches"):
        kick_units(dynamics, num_steps=640, seed=0, min_switches=1000)
    with pytest.raises(ValueError, match="more than the 56 units"):
        kick_units(dynamics, num_steps=640, seed=0, num_units=57)
    with pytest.raises(ValueError, match="names no unit; those of a direction are"):
        group_effect(dynamics, np.zeros(56, dtype=bool))
    with pytest.raises(ValueError, match="different numbers from 0 to 55"):
        group_effect(dynamics, [3, 3])
    with pytest.raises(ValueError, match="at most half of the units"):
        group_effect(dynamics, list(range(29)))
    single = dataclasses.replace(dynamics, readout=lambda h: h[..., :1])
    with pytest.raises(ValueError, match=r"two outputs or more.* turns a state into \(1,\)"):
        group_effect(single, [0])
    with pytest.raises(ValueError, match="two lists of unit indices"):
        populations(dynamics, [[1, 2]], num_steps=64)
    with pytest.raises(ValueError, match=r"in both groups, got \[2\]"):
        populations(dynamics, [[1, 2], [2, 3]], num_steps=64)
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        noise_sensitivity(dynamics, num_steps=64, gammas=(2.0,))


def test_every_picture_draws_what_it_is_given(found: xr.Dataset) -> None:
    dynamics = planted().dynamics
    axes = plot.kick_units(found)
    assert [ax.get_title() for ax in axes] == [
        f"symbol {name}, {int(count)} of {int(all_of_them)} switches"
        for name, count, all_of_them in zip(
            found.direction.values, found.num_events, found.num_switches, strict=True
        )
    ]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert sum("(kick)" in label for label in labels) == KICKS
    zones = plot.kick_zone(found)
    assert len(zones[0].collections[1].get_offsets()) == int(found.kick_zone[0].sum())
    effect = group_effect(dynamics, [12, 13, 14], num_steps=2000, num_random=30, seed=1)
    assert plot.group_effect(effect).get_title() == CAUSE
    fans = plot.noise_sensitivity(noise_sensitivity(dynamics, num_steps=6000, seed=0))
    assert len(fans) == 9 and math.isclose(fans[0].get_xlim()[0], fans[5].get_xlim()[0])
    blocks = plot.populations(
        populations(wired(), [[0, 1], [3, 4]], num_steps=640, seed=0, num_permutations=20)
    )
    assert len(blocks[0].texts) == 16
    with pytest.raises(ValueError, match=r"seqdyn.analysis.kick_units\(dynamics"):
        plot.kick_units(effect)


def test_pictures_of_residence_and_regimes() -> None:
    from seqdyn.analysis import regimes, residence

    dynamics = planted().dynamics
    run = reference_run(dynamics, num_steps=320)
    found = residence(dynamics, run.hidden[:, -1], num_runs=4, seed=0)
    axes = plot.residence(found)
    assert sum(len(dots.get_offsets()) for dots in axes[1].collections) == 64
    parts = plot.regimes(regimes(dynamics, num_steps=3200, seed=0))
    assert [text.get_text() for text in parts[2].texts][3:6] == ["–", "–", "–"]
    with pytest.raises(ValueError, match="dwell_length"):
        plot.regimes(found)


def held_down() -> MapDynamics:
    """Unit 0 keeps unit 1 from growing a thousandfold each step; the others flip coins."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.3 * torch.randn(8, 8, generator=generator)
    weights[0], weights[1], weights[:, 1] = 0, 0, 0
    weights[1, 1], weights[1, 0] = 1000.0, -1e6
    bias = torch.eye(8)[0]

    def preactivation(h: Tensor, u: Tensor) -> Tensor:
        return h @ weights.mT + u * (torch.arange(8) > 0) + bias

    return from_callable(
        lambda h, u: preactivation(h, u).relu(), 8, 8, lambda h: h[..., 2:4], preactivation=preactivation
    )


def test_units_without_which_the_activity_diverges_are_unknown_and_count_against_the_claim() -> None:
    dynamics, options = held_down(), {"start": torch.eye(8)[0], "seed": 0}

    found = kick_units(dynamics, num_steps=2000, num_states=100, num_resamples=10, **options)
    assert np.isnan(found.causal_effect[:, 0]).all() and np.isnan(found.causal_ci[:, 0]).all()
    assert np.isfinite(found.causal_effect[:, 1:]).all() and not found.is_kick[:, 0].any()

    small = {"num_steps": 2000, "num_random": 4, "num_resamples": 10, **options}
    effect = group_effect(dynamics, [3, 7], **small)
    unknown = np.isnan(effect.random_effect)
    np.testing.assert_array_equal(unknown.sel(change="silence"), (effect.random_unit == 0).any("group_unit"))
    assert unknown.sel(change="silence").any() and not unknown.sel(change="recurrent").any()
    assert float(effect["rank"].sel(change="silence")) < 1
    silent = group_effect(dynamics, [0, 4], **small).sel(change="silence")
    assert np.isnan(silent.effect) and float(silent["rank"]) == 0 and str(silent.verdict.values) == NO_GROUP
    with pytest.raises(NonFiniteError, match="with the first set"):
        screen(dynamics, torch.eye(8, dtype=torch.bool)[:1], torch.zeros(4, 8), num_steps=40)
