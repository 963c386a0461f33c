"""Composition: orbits within pairs of symbols, and distances that forget rotation and phase."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import composition
from seqdyn.analysis.pairs import _stretches, jaccard, procrustes_distance, profile_distance
from seqdyn.analysis.stays import REGIONS
from seqdyn.dynamics.maps import MapDynamics


def ring(angle: float) -> MapDynamics:
    """Four units: a noisy rotation, and two of noise; the symbol is 0 or 1 by the half of the circle."""
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn = 0.97 * turn
    turn[2:, 2:] *= 0.1

    def step(h: Tensor, u: Tensor | None) -> Tensor:
        scale = torch.tensor([0.5, 0.5, 0.3, 0.1])
        return h @ turn.T + (0 if u is None else scale * u)

    def readout(h: Tensor) -> Tensor:
        return torch.stack([2 * h[..., 0], -2 * h[..., 0], -99 + 0 * h[..., 0]], dim=-1)

    return MapDynamics(step, readout, 4, 4)


SMALL = {"num_steps": 9600, "num_chains": 16, "num_jacobians": 8, "axes": (1, 2), "seed": 0}


def test_a_ring_of_two_symbols_is_one_orbit() -> None:
    found = composition(ring(0.2), **SMALL)

    assert found.pair.values.tolist() == ["0-1", "0-2", "1-2"]
    one = found.sel(pair="0-1")
    assert int(one.num_stretches) == 16 and not bool(one.relaxed)
    assert float(one.winding_rate) == pytest.approx(1000 * 0.2 / (2 * math.pi), rel=0.15)
    assert np.isnan(found.pair_profile.sel(pair="0-2")).all()
    assert "'0-2', '1-2'" in found.attrs["reason"]
    assert float(one.pair_profile.sel(quantity="occupancy").sum()) == pytest.approx(1)


def test_regions_of_a_direction_are_those_of_its_states() -> None:
    found = composition(ring(0.2), **SMALL).region_fraction

    assert found.direction.values.tolist() == ["0->1", "1->0", "0->2", "2->0", "1->2", "2->1"]
    assert found.region.values.tolist() == list(REGIONS)
    # Half a turn takes 5 π steps, and 2 to 8 of them are left in a share of 6 / 5 π; 200 states each.
    both = found.sel(direction=["0->1", "1->0"])
    np.testing.assert_allclose(both.sum("region"), 1)
    np.testing.assert_allclose(both.sel(region="kick-zone"), 6 / (5 * math.pi), atol=0.12)
    assert np.isnan(found.sel(direction=["2->0", "2->1"])).all()
    slow = composition(ring(0.02), **SMALL).region_fraction
    assert float(slow.sel(direction="0->1", region="cluster")) > 0.8


def test_turning_is_counted_forward_either_way() -> None:
    found = composition({"left": ring(0.2), "right": ring(-0.2), "still": ring(0.0)}, **SMALL)

    rates = found.winding_rate.sel(pair=["left: 0-1", "right: 0-1", "still: 0-1"]).values
    np.testing.assert_allclose(rates[:2], 1000 * 0.2 / (2 * math.pi), rtol=0.15)
    assert abs(rates[2]) < 5
    distance = found.orbit_distance
    np.testing.assert_allclose(distance, distance.values.T, atol=1e-9)
    assert float(distance.sel(pair="left: 0-1", pair_="right: 0-1")) < 0.1


def test_short_stretches_relax_to_all_steps() -> None:
    found = composition(ring(0.2), **{**SMALL, "min_length": 5000})

    assert bool(found.relaxed.sel(pair="0-1"))
    assert "no stretch of 5000 steps for ['0-1']" in found.attrs["reason"]
    assert int(found.num_points.sel(pair="0-1")) == 16 * 599


def test_stretches_are_marked_by_brute_force() -> None:
    symbol = np.random.default_rng(0).choice(3, (5, 200), p=[0.6, 0.35, 0.05])

    kept, count = _stretches(symbol, 0, 1, 20)

    expected, number = np.zeros((5, 199), dtype=bool), 0
    for chain, row in enumerate(symbol):
        begin = 0
        for end in [*np.flatnonzero(row == 2), 200]:
            if end - begin > 20 and len(set(row[begin:end])) == 2:
                expected[chain, begin : end - 1] = True
                number += 1
            begin = end + 1
    np.testing.assert_array_equal(kept, expected)
    assert count == number > 0


def test_procrustes_forgets_rotation_shift_and_size_only() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((20, 3))
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))

    assert procrustes_distance(points, 3 * points @ rotation + 5) == pytest.approx(0, abs=1e-7)
    assert procrustes_distance(points, points * [1, 1, 4]) > 0.3
    other = rng.standard_normal((20, 3))
    from scipy.spatial import procrustes

    assert procrustes_distance(points, other) ** 2 == pytest.approx(procrustes(points, other)[2])
    assert math.isnan(procrustes_distance(points, np.full((20, 3), np.nan)))
    assert math.isnan(procrustes_distance(points, np.ones((20, 3))))


def test_profiles_are_compared_up_to_phase_and_scale() -> None:
    phase = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    profile = np.stack([np.sin(phase), np.cos(phase) + 0.5 * np.sin(3 * phase)], axis=1)

    assert profile_distance(profile, 3 * np.roll(profile, 7, axis=0) + 2) == pytest.approx(0)
    assert profile_distance(profile, profile[::-1]) > 0.3
    flat = np.column_stack([profile[:, 0], np.ones(24)])
    assert profile_distance(flat, profile) == pytest.approx(0)  # the flat quantity does not count
    assert math.isnan(profile_distance(np.ones((24, 2)), profile))


def test_overlap_of_kick_units() -> None:
    found = composition(ring(0.2), **SMALL, kick_units={"0-1": [0, 1], "0-2": [1, 2]})

    np.testing.assert_allclose(found.kick_jaccard, [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, np.nan]])
    assert math.isnan(jaccard(set(), set()))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"axes must be two of the components"):
        composition(ring(0.2), axes=(1, 4))
    with pytest.raises(ValueError, match=r"dynamics\['a'\] must be a MapDynamics, got int"):
        composition({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="empty mapping"):
        composition({})
