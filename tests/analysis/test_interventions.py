"""Interventions: their steps and Jacobians against the formula (spec check D4), windows, combinations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn.analysis import clamp, fixed_points, jacobian, perturb, scale, silence
from seqdyn.datasets import chaos
from seqdyn.dynamics import MapDynamics, from_torch, simulate

DOUBLE = torch.float64
UNITS = [1, 4]


@pytest.fixture(params=["tanh", "relu"])
def module(request: pytest.FixtureRequest) -> nn.RNN:
    return nn.RNN(3, 6, nonlinearity=request.param).double()


def by_hand(
    module: nn.RNN, *, recurrent: float = 1.0, inputs: float = 1.0, current: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """φ(c_rec W h + c_in U x + b + I) with the three changed at UNITS."""

    def at_units(value: float, otherwise: float) -> Tensor:
        full = torch.full((6,), otherwise, dtype=DOUBLE)
        full[UNITS] = value
        return full

    phi = torch.tanh if module.nonlinearity == "tanh" else torch.relu
    bias = (module.bias_hh_l0 + module.bias_ih_l0).detach()

    def step(h: Tensor, u: Tensor) -> Tensor:
        from_units = at_units(recurrent, 1.0) * (h @ module.weight_hh_l0.detach().mT)
        from_inputs = at_units(inputs, 1.0) * (u @ module.weight_ih_l0.detach().mT)
        return phi(from_units + from_inputs + bias + at_units(current, 0.0))

    return step


def clamped(step: Callable[[Tensor, Tensor], Tensor], value: float) -> Callable[[Tensor, Tensor], Tensor]:
    mask = torch.zeros(6, dtype=torch.bool)
    mask[UNITS] = True
    return lambda h, u: torch.where(mask, torch.tensor(value, dtype=DOUBLE), step(h, u))


CASES = {
    "silence": (lambda d: silence(d, UNITS), lambda m: clamped(by_hand(m), 0.0)),
    "clamp": (lambda d: clamp(d, UNITS, 0.7), lambda m: clamped(by_hand(m), 0.7)),
    "gain": (lambda d: scale(d, UNITS, recurrent=0.3), lambda m: by_hand(m, recurrent=0.3)),
    "input gain": (lambda d: scale(d, UNITS, inputs=2.0), lambda m: by_hand(m, inputs=2.0)),
    "current": (lambda d: perturb(d, UNITS, -0.4), lambda m: by_hand(m, current=-0.4)),
    "all": (
        lambda d: clamp(perturb(scale(d, UNITS, 0.3, 2.0), UNITS, -0.4), [], 1.0),
        lambda m: by_hand(m, recurrent=0.3, inputs=2.0, current=-0.4),
    ),
    "current, then gain": (
        lambda d: scale(perturb(d, UNITS, -0.4), UNITS, 0.3, 2.0),
        lambda m: by_hand(m, recurrent=0.3, inputs=2.0, current=-0.4),
    ),
    "clamped and driven": (
        lambda d: perturb(silence(d, UNITS), UNITS, 3.0),
        lambda m: clamped(by_hand(m), 0.0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_d4_steps_and_jacobians_are_those_of_the_formula(module: nn.RNN, case: str) -> None:
    intervene, expected = CASES[case]
    changed, step = intervene(from_torch(module)), expected(module)
    h, u = torch.randn(5, 6, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)

    torch.testing.assert_close(changed.step(h, u), step(h, u), rtol=0, atol=1e-14)
    found = jacobian(changed, h, u)
    for row in range(5):
        by_autograd = torch.autograd.functional.jacobian(lambda x, row=row: step(x, u[row]), h[row])
        torch.testing.assert_close(found[row], by_autograd, rtol=0, atol=1e-12)


def test_d4_gains_multiply_the_rows_of_the_jacobian() -> None:
    module = nn.RNN(3, 6).double()
    dynamics, h = from_torch(module), torch.zeros(6, dtype=DOUBLE)
    # At h = 0 the drive is the bias alone, whatever the gain.
    plain, scaled = jacobian(dynamics, h), jacobian(scale(dynamics, UNITS, recurrent=0.3), h)

    expected = plain.clone()
    expected[UNITS] *= 0.3
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-15)


def test_the_drive_stays_known_after_an_intervention(module: nn.RNN) -> None:
    h, u = torch.randn(5, 6, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)
    for intervene, _ in CASES.values():
        changed = intervene(from_torch(module))
        phi = changed.activation
        assert changed.preactivation is not None and phi is not None
        torch.testing.assert_close(phi(changed.preactivation(h, u)), changed.step(h, u))


def test_each_unit_may_have_its_own_value() -> None:
    dynamics, h = from_torch(nn.GRU(2, 5)), torch.randn(3, 5)

    after = clamp(dynamics, [4, 0], [1.0, -2.0]).step(h, None)

    assert after[:, 4].tolist() == [1.0] * 3 and after[:, 0].tolist() == [-2.0] * 3
    assert torch.equal(after[:, 1:4], dynamics.step(h, None)[:, 1:4])


def test_a_gated_cell_can_be_silenced_and_scaled_but_not_driven() -> None:
    dynamics, h = from_torch(nn.GRU(2, 5)), torch.randn(3, 5)

    assert not silence(dynamics, [2]).step(h, None)[:, 2].any()
    scaled = scale(dynamics, [2], recurrent=0.5).step(h, None)
    torch.testing.assert_close(scaled[:, 2], dynamics.step(0.5 * h, None)[:, 2])
    with pytest.raises(ValueError, match="no preactivation"):
        perturb(dynamics, [2], 1.0)


def test_a_window_acts_in_its_steps_only() -> None:
    dynamics, start = from_torch(nn.GRU(2, 5)), torch.randn(3, 5)
    plain = simulate(dynamics, start, 6)

    windowed = simulate(silence(dynamics, [1], start=2, stop=4), start, 6)

    assert torch.equal(windowed[:, :2], plain[:, :2])
    assert (windowed[:, :, 1] == 0).all(dim=0).tolist() == [False, False, True, True, False, False]
    after = simulate(dynamics, windowed[:, 3], 2)
    torch.testing.assert_close(windowed[:, 4:], after)


def test_windows_can_be_laid_over_each_other() -> None:
    dynamics, start = from_torch(nn.GRU(2, 5)), torch.randn(3, 5)
    changed = clamp(silence(dynamics, [1], stop=3), [2], 0.5, start=1)

    hidden = simulate(changed, start, 5)

    assert (hidden[:, :, 1] == 0).all(dim=0).tolist() == [True, True, True, False, False]
    assert (hidden[:, :, 2] == 0.5).all(dim=0).tolist() == [False, True, True, True, True]
    # An intervention without a window on top of one with: still there in every step.
    always = simulate(clamp(changed, [0], 1.0), start, 5)
    assert bool((always[:, :, 0] == 1.0).all())


def test_a_windowed_map_asks_for_a_step() -> None:
    changed = silence(from_torch(nn.GRU(2, 5)), [1], start=2)

    with pytest.raises(ValueError, match=r"dynamics\.at\(0\)"):
        changed.step(torch.zeros(5), None)
    with pytest.raises(ValueError, match=r"dynamics\.at\(0\)"):
        jacobian(changed, torch.zeros(5))
    assert changed.at(2).step(torch.ones(5), None)[1] == 0


def test_an_intervention_moves_the_fixed_points() -> None:
    # Two units that excite each other: tanh(2 h_other). With one silent, the other is left with 0.
    swap = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=DOUBLE)
    dynamics = MapDynamics(lambda h, u: torch.tanh(h @ swap), None, 2, 0)
    start = torch.randn(50, 2, dtype=DOUBLE)

    assert fixed_points(dynamics, start).sizes["point"] == 3
    np.testing.assert_allclose(fixed_points(silence(dynamics, [0]), start).hidden, [[0.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda d: silence(d, [5]), "numbers from 0 to 4, got unit 5"),
        (lambda d: silence(d, [-1]), "got unit -1"),
        (lambda d: silence(d, [1, 1]), "got a unit twice"),
        (lambda d: silence(d, [0.5]), r"whole numbers, such as \[3, 7\]"),
        (lambda d: clamp(d, [0, 1], [1.0]), "one for each of 2 units"),
        (lambda d: clamp(d, [0], float("nan")), "one finite number"),
        (lambda d: scale(d, [0], recurrent=float("inf")), "recurrent must be one finite gain"),
        (lambda d: silence(d, [0], start=3, stop=3), "stop must be a whole number of at least 4"),
        (lambda d: silence(d, [0], start=-1), "start must be a whole number of at least 0"),
        (lambda d: silence(chaos.lorenz().dynamics, [0]), "got a flow; wrap one step"),
    ],
)
def test_arguments_are_checked(act: Callable[[MapDynamics], MapDynamics], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act(from_torch(nn.GRU(2, 5)))


def test_units_are_named_by_index_or_by_truth_values(module: nn.RNN) -> None:
    dynamics, h = from_torch(module), torch.randn(4, 6, dtype=DOUBLE)
    mask = np.isin(np.arange(6), UNITS)

    expected = silence(dynamics, UNITS).step(h, None)
    for units in (mask, torch.from_numpy(mask), xr.DataArray(mask, dims="unit"), np.array(UNITS)):
        torch.testing.assert_close(silence(dynamics, units).step(h, None), expected)
    torch.testing.assert_close(silence(dynamics, 4).step(h, None), silence(dynamics, [4]).step(h, None))
    wrong = ((mask[:3], "or 6 truth values"), ([6], "got unit 6"), ([1, 1], "got a unit twice"))
    for units, message in wrong:
        with pytest.raises(ValueError, match=message):
            silence(dynamics, units)
