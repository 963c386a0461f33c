"""Sums over poles: their value and hand-written gradient against the formula and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqdyn.nn import cauchy
from seqdyn.nn.cauchy import pole_sums

CHANNELS, ROWS, STATES, NODES = 5, 3, 4, 6


def arguments() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = torch.randn(CHANNELS, ROWS, STATES, dtype=torch.float64)
    real = -torch.rand(CHANNELS, STATES, dtype=torch.float64) - 0.1
    imag = 3 * torch.randn(CHANNELS, STATES, dtype=torch.float64)
    return rows, real, imag, torch.linspace(0, 4, NODES, dtype=torch.float64)


def by_formula(rows: Tensor, real: Tensor, imag: Tensor, zeta: Tensor) -> Tensor:
    square = (real**2 + imag**2)[..., None]
    return (rows + 0j) @ (1 / (square - zeta**2 - 2j * zeta * real[..., None]))


@pytest.fixture(params=[2**17, 1], ids=["one group", "a channel at a time"], autouse=True)
def group_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cauchy, "_CACHE_ELEMENTS", request.param)


def test_the_sums_are_those_of_the_formula() -> None:
    values = arguments()

    sums = pole_sums(*values)

    assert sums.shape == (CHANNELS, ROWS, NODES)
    torch.testing.assert_close(sums, by_formula(*values))


def test_a_pair_of_poles_is_the_sum_of_both_fractions() -> None:
    # v/(z - w) + conj(v)/(z - conj w) with z = iζ is a combination of two sums with real coefficients.
    w, v = torch.tensor(-0.3 + 1.7j), torch.tensor(0.4 - 2.0j)
    zeta = torch.tensor([0.0, 0.9, 1.7, 40.0])
    z = 1j * zeta
    rows = torch.stack([v.real, (v * w.conj()).real])[None, :, None]

    sums = pole_sums(rows, w.real[None, None], w.imag[None, None], zeta)[0]

    expected = v / (z - w) + v.conj() / (z - w.conj())
    torch.testing.assert_close(2 * z * sums[0] - 2 * sums[1], expected)


def test_a_node_that_meets_a_pole_keeps_its_precision() -> None:
    # |w|² - ζ² = Re(w)² exactly at ζ = Im(w) = 5000: in float32, 25,000,000.01 - 25,000,000 would be 0.
    real, imag = torch.tensor([[-0.1]]), torch.tensor([[5000.0]])
    zeta = torch.tensor([5000.0])

    value = pole_sums(torch.ones(1, 1, 1), real, imag, zeta)[0, 0, 0]

    expected = 1 / (0.01 - 2j * 5000 * -0.1)
    assert complex(value) == pytest.approx(expected, rel=1e-5)
    assert complex(value).real == pytest.approx(expected.real, rel=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    rows, real, imag, zeta = arguments()
    inputs = [value.requires_grad_() for value in (rows, real, imag)]

    assert torch.autograd.gradcheck(lambda *poles: pole_sums(*poles, zeta), inputs)


def test_the_gradient_is_that_of_the_formula() -> None:
    *poles, zeta = arguments()
    poles = [value.requires_grad_() for value in poles]
    weights = torch.randn(CHANNELS, ROWS, NODES, dtype=torch.complex128)

    gradients = torch.autograd.grad((pole_sums(*poles, zeta) * weights).real.sum(), poles)

    expected = torch.autograd.grad((by_formula(*poles, zeta) * weights).real.sum(), poles)
    torch.testing.assert_close(gradients, expected)


def test_a_second_derivative_is_refused() -> None:
    *poles, zeta = arguments()
    poles = [value.requires_grad_() for value in poles]
    square = pole_sums(*poles, zeta).real.square().sum()
    (slope,) = torch.autograd.grad(square, poles[1:2], create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
