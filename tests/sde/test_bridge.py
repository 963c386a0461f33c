"""The bridge between Gaussians, against figures of its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seqdyn.sde.bridge import GaussianBridge, gaussian_bridge
from seqdyn.sde.transition import affine_transition


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(found: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=tolerance)


def plane(matrix: Tensor, offset: Tensor) -> GaussianBridge:
    return gaussian_bridge(
        tensor([-1, 0]), tensor([[1, 0.3], [0.3, 0.5]]), tensor([2, 1]), tensor([[0.4, -0.1], [-0.1, 0.9]]),
        matrix, offset, 0.8, 2.0,
    )  # fmt: skip


def test_brownian_bridge_in_one_dimension() -> None:
    one = tensor([[1.0]])
    found = gaussian_bridge(tensor([0.0]), one, tensor([0.0]), one, tensor([[0.0]]), tensor([0.0]), 1.0, 1.0)

    # (sqrt(4 + 1) - 1) / 2, the golden ratio's inverse.
    assert_near(found.cross_covariance, [[(math.sqrt(5) - 1) / 2]], 1e-12)
    assert_near(found.covariance(0.5), [[1.059017]])


def test_brownian_bridge_in_the_plane() -> None:
    found = plane(torch.zeros(2, 2, dtype=torch.float64), tensor([0.0, 0.0]))

    assert_near(found.cross_covariance, [[0.240843, 0.094992], [0.039114, 0.268782]])
    assert_near(found.mean(1.0), [0.5, 0.5])
    assert_near(found.covariance(1.0), [[0.790422, 0.083527], [0.083527, 0.804391]])


def test_rotating_reference() -> None:
    matrix = tensor([[-0.5, -1.5], [1.5, -0.5]])
    found = plane(matrix, tensor([0.2, 0.0]))

    assert_near(found.cross_covariance, [[-0.228387, -0.015529], [-0.055710, -0.214682]])
    assert_near(found.mean(0.5), [-0.552699, -0.884107])
    assert_near(found.covariance(0.5), [[0.548582, 0.123468], [0.123468, 0.832062]])
    assert_near(found.mean(1.0), [0.511155, -1.183058])
    assert_near(found.covariance(1.0), [[0.644575, -0.039062], [-0.039062, 0.672160]])


@pytest.mark.parametrize("volatility", [0.8, [0.3, 1.1], [[0.5, 0.2], [-0.1, 0.7]]])
def test_the_plan_is_in_the_reciprocal_class_of_the_reference(volatility: object) -> None:
    # Whatever the marginals, the cross block of the joint precision is that of the reference.
    matrix, offset = tensor([[-0.5, -1.5], [1.5, -0.5]]), tensor([0.2, 0.0])
    cov0, cov1 = tensor([[1, 0.3], [0.3, 0.5]]), tensor([[0.4, -0.1], [-0.1, 0.9]])
    found = gaussian_bridge(tensor([0, 0]), cov0, tensor([0, 0]), cov1, matrix, offset, volatility, 2.0)
    sigma = tensor(volatility)
    noise = sigma @ sigma.mT if sigma.ndim == 2 else torch.diag(sigma.expand(2) ** 2)
    move = affine_transition(matrix, offset, noise, tensor(2.0))

    cross = found.cross_covariance
    joint = torch.cat([torch.cat([cov0, cross], dim=1), torch.cat([cross.mT, cov1], dim=1)])
    block = torch.linalg.inv(joint)[:2, 2:]

    torch.testing.assert_close(block, -torch.linalg.solve(move.covariance, move.matrix).mT, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rate", [1.0, 10.0, 50.0, 200.0])
def test_ends_that_hardly_know_of_each_other(rate: float) -> None:
    """A drift that forgets: exp(-400) of the beginning is left at the end."""
    one = tensor([[0.3]])
    found = gaussian_bridge(
        tensor([2.0]), one, tensor([0.1]), one, tensor([[-rate]]), tensor([0.0]), 0.7, 2.0
    )

    decay = math.exp(-2 * rate)
    variance = 0.49 * (1 - decay**2) / (2 * rate)
    ratio = 0.3**2 * decay**2 / variance**2
    expected = 2 * 0.3**2 * decay / variance / (math.sqrt(4 * ratio + 1) + 1)
    assert float(found.cross_covariance) == pytest.approx(expected, rel=1e-10)
    if rate > 1:  # the stationary law in between
        assert float(found.covariance(1.0)) == pytest.approx(0.49 / (2 * rate), rel=1e-6)
    assert found.kl > 0


def test_rates_of_decay_may_be_far_apart() -> None:
    fast, slow = -100.0, -0.1
    found = gaussian_bridge(
        tensor([2.0, 1.0]), torch.diag(tensor([0.3, 0.1])), tensor([0.1, 0.4]),
        torch.diag(tensor([0.2, 0.3])),
        torch.diag(tensor([fast, slow])), tensor([0.0, 0.0]), 0.7, 2.0,
    )  # fmt: skip
    alone = gaussian_bridge(
        tensor([1.0]),
        tensor([[0.1]]),
        tensor([0.4]),
        tensor([[0.3]]),
        tensor([[slow]]),
        tensor([0.0]),
        0.7,
        2.0,
    )

    assert_near(found.cross_covariance[1, 1], float(alone.cross_covariance), 1e-10)
    assert_near(found.covariance(0.7)[1, 1], float(alone.covariance(0.7)), 1e-10)
    assert_near(found.cross_covariance[0], [0.0, 0.0], 1e-10)


def test_the_ends_are_the_marginals() -> None:
    found = plane(tensor([[-0.5, -1.5], [1.5, -0.5]]), tensor([0.2, 0.0]))

    for time, mean, covariance in ((0.0, found.mean0, found.cov0), (2.0, found.mean1, found.cov1)):
        torch.testing.assert_close(found.mean(time), mean)
        torch.testing.assert_close(found.covariance(time), covariance)
        near = abs(time - 1e-7)
        torch.testing.assert_close(found.covariance(near), covariance, rtol=0, atol=1e-5)


def test_alternation_on_an_ornstein_uhlenbeck_chain() -> None:
    """Population moments of a known process; the refit of k uses the bridge's second moments alone."""
    truth, sigma, times = 1.0, 0.7, [0.0, 0.5, 1.0, 2.0]
    stationary = sigma**2 / (2 * truth)
    means = [2 * math.exp(-truth * t) for t in times]
    variances = [stationary + (0.3 - stationary) * math.exp(-2 * truth * t) for t in times]
    rate, rates, divergences = 0.0, [], []
    for _ in range(5):
        bridges = [
            gaussian_bridge(
                tensor([means[i]]), tensor([[variances[i]]]), tensor([means[i + 1]]), tensor([[variances[i +
                1]]]), tensor([[-rate]]), tensor([0.0]), sigma, times[i + 1] - times[i],
            )
            for i in range(3)
        ]  # fmt: skip
        divergences.append(sum(one.kl for one in bridges))
        rates.append(rate)
        integral = 0.0
        nodes, weights = torch.tensor(_GAUSS_NODES), torch.tensor(_GAUSS_WEIGHTS)
        for one in bridges:
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                time = one.duration * (node + 1) / 2
                second = float(one.covariance(time)) + float(one.mean(time)) ** 2
                integral += weight * one.duration / 2 * second
        ends = variances[0] + means[0] ** 2 - variances[-1] - means[-1] ** 2
        rate = (sigma**2 * times[-1] + ends) / (2 * integral)

    assert rates[1:] == pytest.approx([0.94173, 0.99356, 0.99927, 0.99992], abs=1e-4)
    assert divergences[:3] == pytest.approx([2.454937, 0.007669, 9.3e-5], abs=1e-4)


# Gauss-Legendre, eight points.
_GAUSS_NODES = [
    -0.9602898564975363, -0.7966664774136267, -0.5255324099163290, -0.1834346424956498,
    0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363,
]  # fmt: skip
_GAUSS_WEIGHTS = [
    0.1012285362903763, 0.2223810344533745, 0.3137066458778873, 0.3626837833783620,
    0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763,
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cov0": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}, "cov0 must be symmetric and positive definite"),
        ({"mean1": torch.zeros(3)}, r"mean1 must have shape \(2,\), got \(3,\)"),
        ({"volatility": 0.0}, "volatility must leave noise"),
        ({"duration": 0.0}, "duration must be a positive number"),
        ({"drift_offset": torch.tensor([0.0, math.nan])}, "drift_offset must be finite"),
    ],
)
def test_what_has_no_bridge_is_refused(change: dict[str, object], message: str) -> None:
    eye = torch.eye(2)
    arguments = {
        "mean0": torch.zeros(2), "cov0": eye, "mean1": torch.zeros(2), "cov1": eye, "drift_matrix": -eye,
        "drift_offset": torch.zeros(2), "volatility": 1.0, "duration": 1.0,
    }  # fmt: skip

    with pytest.raises(ValueError, match=message):
        gaussian_bridge(**{**arguments, **change})  # type: ignore[arg-type]


def test_a_time_outside_the_bridge_is_refused() -> None:
    found = plane(torch.zeros(2, 2, dtype=torch.float64), tensor([0.0, 0.0]))

    with pytest.raises(ValueError, match="time must lie from 0 to the duration 2.0, got 2.5"):
        found.mean(2.5)
