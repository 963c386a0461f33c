"""The logarithm of a process with proportional noise: Itô's term, against geometric Brownian motion."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqdyn.sde.drifts import Linear, LotkaVolterra
from seqdyn.sde.integrate import simulate
from seqdyn.sde.lamperti import InLogCoordinates


def growth(rates: list[float]) -> Linear:
    """``dx_j = rate_j x_j``."""
    drift = Linear(len(rates))
    with torch.no_grad():
        drift.matrix.copy_(torch.diag(torch.tensor(rates, dtype=torch.float64)))
    return drift


def test_the_drift_follows_its_formula() -> None:
    inner = LotkaVolterra(1.0, 0.4, 0.3, 0.1)
    x = torch.rand(6, 2, dtype=torch.float64) + 0.5
    sigma = torch.tensor([0.2, 0.5], dtype=torch.float64)

    found = InLogCoordinates(inner, [0.2, 0.5])(x.log(), 0.0)

    torch.testing.assert_close(found, inner(x, 0.0) / x - sigma**2 / 2)
    # And that of Lotka-Volterra is (alpha - beta y, delta x - gamma) before Itô's term.
    first = 1.0 - 0.4 * x[:, 1] - 0.02
    torch.testing.assert_close(found[:, 0], first)


def test_ito_the_mean_of_geometric_brownian_motion_grows_with_its_rate() -> None:
    # E x_T = x_0 exp(r T) whatever the noise: a wrong sign or factor of Itô's term shifts log E x_T by
    # sigma² T / 2 = 0.18 and more. Simulating log x is exact here. 40,000 paths, 4 standard errors of each of
    # two means: false-alarm rate 1.3e-4, fixed seed.
    rates, sigma, duration, count = [0.3, -0.5], [0.4, 0.6], 1.0, 40_000
    x0 = torch.tensor([2.0, 3.0], dtype=torch.float64)
    drift = InLogCoordinates(growth(rates), sigma)

    z = simulate(drift, sigma, x0.log().expand(count, 2), [0.0, duration], step_size=0.5, seed=7)[:, -1]

    for j in range(2):
        expected = float(x0[j]) * math.exp(rates[j] * duration)
        spread = expected * math.sqrt(math.expm1(sigma[j] ** 2 * duration) / count)
        assert abs(float(z[:, j].exp().mean()) - expected) < 4 * spread
        # The logarithm itself is Gaussian with variance sigma² T.
        assert float(z[:, j].var()) == pytest.approx(sigma[j] ** 2 * duration, rel=4 * math.sqrt(2 / count))


def test_the_parameters_are_shared_and_bounds_keep_their_names() -> None:
    inner = LotkaVolterra(1.0, 0.4, 0.4, 0.1)
    wrapped = InLogCoordinates(inner, 0.02)

    names = dict(wrapped.named_parameters())

    assert names["drift.alpha"] is inner.alpha
    assert wrapped.lower_bounds == {f"drift.{name}": bound for name, bound in inner.lower_bounds.items()}
    assert wrapped.lower_bounds.keys() <= names.keys()
    before = wrapped(torch.zeros(1, 2, dtype=torch.float64), 0.0)
    with torch.no_grad():
        inner.alpha.add_(1.0)
    after = wrapped(torch.zeros(1, 2, dtype=torch.float64), 0.0)
    torch.testing.assert_close(after - before, torch.tensor([[1.0, 0.0]], dtype=torch.float64))


def test_the_time_is_handed_on() -> None:
    class Clock(nn.Module):
        def forward(self, x: Tensor, t: Any) -> Tensor:
            return t * torch.ones_like(x)

    z = torch.zeros(3, 1, dtype=torch.float64)

    torch.testing.assert_close(InLogCoordinates(Clock(), 0.0)(z, 2.5), torch.full_like(z, 2.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_and_shape_are_those_of_the_states(dtype: torch.dtype) -> None:
    z = torch.zeros(2, 4, 2, dtype=dtype)

    value = InLogCoordinates(LotkaVolterra(1.0, 0.4, 0.4, 0.1), [0.1, 0.2])(z, 0.0)

    assert value.dtype == dtype and value.shape == z.shape


@pytest.mark.parametrize(
    ("volatility", "message"),
    [
        ([[0.1, 0.0], [0.0, 0.1]], r"shape \(2, 2\); pass the diagonal"),
        (-0.1, "finite and not negative, got -0.1"),
        ([0.1, float("nan")], "finite and not negative"),
        ("much", "a number, one number per feature.* got 'much'"),
    ],
)
def test_other_volatilities_are_refused(volatility: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InLogCoordinates(LotkaVolterra(), volatility)
