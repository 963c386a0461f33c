"""Jacobians, weights read from a drive, spectra along a trajectory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seqdyn.analysis import drive_matrices, jacobian, local_spectra
from seqdyn.datasets import chaos
from seqdyn.dynamics import FlowDynamics, from_callable, from_torch, simulate

DOUBLE = torch.float64


def test_the_jacobian_of_a_network_is_its_formula_in_any_batch() -> None:
    module = nn.RNN(3, 6).double()
    h, u = torch.randn(2, 4, 6, dtype=DOUBLE), torch.randn(2, 4, 3, dtype=DOUBLE)
    dynamics = from_torch(module)

    found = jacobian(dynamics, h, u)

    slope = 1 - dynamics.step(h, u) ** 2
    torch.testing.assert_close(found, slope[..., None] * module.weight_hh_l0.detach())
    torch.testing.assert_close(jacobian(dynamics, h[0, 0], u[0, 0]), found[0, 0])
    torch.testing.assert_close(jacobian(dynamics, h, u[0, 0])[0, 0], found[0, 0])


def test_the_jacobian_of_lorenz_is_its_formula() -> None:
    x, y, z = 1.0, 2.0, 3.0

    found = jacobian(chaos.lorenz().dynamics, [x, y, z])

    expected = [[-10.0, 10.0, 0.0], [28 - z, -1.0, -x], [y, x, -8 / 3]]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_weights_are_read_from_the_drive() -> None:
    module = nn.RNN(3, 6)

    recurrent, inputs, offset = drive_matrices(from_torch(module), torch.zeros(1))

    torch.testing.assert_close(recurrent, module.weight_hh_l0.detach())
    torch.testing.assert_close(inputs, module.weight_ih_l0.detach())
    torch.testing.assert_close(offset, (module.bias_hh_l0 + module.bias_ih_l0).detach())


def test_a_drive_that_is_not_affine_has_no_weights() -> None:
    odd = from_callable(lambda h: torch.tanh(h * h), 2, preactivation=lambda h: h * h)

    with pytest.raises(ValueError, match=r"not W h \+ U x \+ b"):
        drive_matrices(odd, torch.zeros(1))
    with pytest.raises(ValueError, match="have no preactivation"):
        drive_matrices(from_torch(nn.GRU(2, 3)), torch.zeros(1))


def test_spectra_of_a_rectifier_leave_out_the_silent_units() -> None:
    # Oracle: eigenvalues of the full Jacobian at consistent pairs (state, input of the step that leaves it).
    dynamics = from_torch(nn.RNN(2, 20, nonlinearity="relu").double())
    noise = torch.randn(1, 30, 2, dtype=DOUBLE)
    start = torch.rand(1, 20, dtype=DOUBLE)
    hidden = torch.cat([start[:, None], simulate(dynamics, start, 30, sigma=1.0, noise=noise)], dim=1)[0, :-1]

    data = local_spectra(dynamics, hidden, noise[0])

    full = np.linalg.eigvals(jacobian(dynamics, hidden, noise[0]).numpy())
    full = np.sort_complex(np.where(np.abs(full) < 1e-9, 0, full))
    np.testing.assert_allclose(
        np.sort_complex(np.where(np.abs(data.eigenvalue.values) < 1e-9, 0, data.eigenvalue.values)),
        full, atol=1e-8,
    )  # fmt: skip
    np.testing.assert_allclose(data.spectral_radius, np.abs(full).max(axis=1), atol=1e-8)
    np.testing.assert_array_equal(data.num_unstable, (np.abs(full) > 1).sum(axis=1))
    assert (np.diff(np.abs(data.eigenvalue.values), axis=1) <= 1e-12).all()


def linear(*eigenvalues: complex) -> np.ndarray:
    """A real block matrix with these eigenvalues and their conjugates."""
    blocks = [np.array([[v.real, -v.imag], [v.imag, v.real]]) if v.imag else [[v.real]] for v in eigenvalues]
    size = sum(len(block) for block in blocks)
    matrix, at = np.zeros((size, size)), 0
    for block in blocks:
        matrix[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return matrix


@pytest.mark.parametrize(
    ("eigenvalues", "num_unstable", "num_critical"),
    [
        ((0.99 * np.exp(0.5j),), 0, 1),  # rotates and hardly decays
        ((1.05 * np.exp(0.5j),), 2, 1),  # rotates and hardly grows
        ((0.5 * np.exp(0.5j),), 0, 0),  # decays fast
        ((np.exp(0.05j),), 0, 0),  # Im m = tan(0.025): rotates too slowly
        ((complex(-1.0), complex(1.5)), 1, 0),  # -1 has no image, and does not rotate
        ((0.99 * np.exp(0.5j), np.exp(1j), complex(2.0)), 1, 2),
    ],
)
def test_unstable_and_critical_eigenvalues_are_counted(
    eigenvalues: tuple[complex, ...], num_unstable: int, num_critical: int
) -> None:
    matrix = torch.tensor(linear(*eigenvalues))
    dynamics = from_callable(lambda h: h @ matrix.mT, len(matrix))

    data = local_spectra(dynamics, np.ones((3, len(matrix))))

    moduli = np.abs(data.eigenvalue.values)
    assert set(((moduli > 1 + 1e-12).sum(axis=1)).tolist()) == {num_unstable}
    assert set(data.num_critical.values) == {num_critical}


def test_spectra_of_a_flow_count_positive_real_parts() -> None:
    matrix = torch.tensor(linear(complex(0.05, 1.0), complex(-2.0)))
    flow = FlowDynamics(lambda x, t: x @ matrix.mT, 0.0, 3)

    data = local_spectra(flow, np.ones((2, 3)))

    assert data.num_unstable.values.tolist() == [2, 2] and data.num_critical.values.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"one trajectory \(time, unit\)"):
        local_spectra(flow, np.ones((2, 2, 3)))
