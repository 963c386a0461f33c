"""Changes of coordinates: inverses, drifts by Itô's formula, and components against the covariance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqdyn.nn.working import WorkingSpace

DOUBLE = torch.float64


def states(num: int = 30, size: int = 5) -> Tensor:
    scale = torch.arange(1, size + 1, dtype=DOUBLE)
    return torch.randn(num, size, dtype=DOUBLE) * scale + 10 * scale


def fitted(x: Tensor, components: int, weight: Tensor | None = None) -> WorkingSpace:
    space = WorkingSpace(x.shape[1], log=False, num_components=components)
    space.fit(x, torch.ones(len(x), dtype=DOUBLE) if weight is None else weight)
    return space


def test_without_a_change_states_are_their_own_coordinates() -> None:
    x, space = states(), WorkingSpace(5, log=False, num_components=None)
    space.fit(x, torch.ones(30, dtype=DOUBLE))

    assert space(x) is x and space.back(x) is x and space.back_drift(x, x, torch.eye(5)) is x
    assert (space.size, space.state_dict()) == (5, {})


def test_components_are_the_eigenvectors_of_the_weighted_covariance() -> None:
    x, weight = states(), torch.rand(30, dtype=DOUBLE)
    space = fitted(x, 3, weight)

    covariance = torch.cov(x.T, aweights=weight, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    z = space(x)

    torch.testing.assert_close(space.mean, (weight[:, None] * x).sum(dim=0) / weight.sum())
    expected = vectors[:, -3:].flip(1)
    torch.testing.assert_close((expected * space.loadings).sum(dim=0).abs(), torch.ones(3, dtype=DOUBLE))
    spread = torch.cov(z.T, aweights=weight, correction=0)
    torch.testing.assert_close(spread, values[-3:].flip(0).diag(), rtol=1e-8, atol=1e-8)
    assert bool((space.loadings.gather(0, space.loadings.abs().argmax(dim=0)[None]) > 0).all())


def test_all_components_are_inverted_and_fewer_give_the_nearest_states() -> None:
    x = states()
    full, few = fitted(x, 5), fitted(x, 2)

    torch.testing.assert_close(full.back(full(x)), x)
    left = x - few.back(few(x))
    torch.testing.assert_close(left @ few.loadings, torch.zeros(30, 2, dtype=DOUBLE), rtol=0, atol=1e-10)
    torch.testing.assert_close(few(few.back(few(x))), few(x))


def test_more_features_than_particles_leave_as_many_components_as_there_are_directions() -> None:
    x = torch.randn(6, 40, dtype=DOUBLE)
    space = fitted(x, 5)  # six points span five directions

    torch.testing.assert_close(space.back(space(x)), x)
    torch.testing.assert_close(space.loadings.T @ space.loadings, torch.eye(5, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"num_components=6.*6 training particles.*only 5 directions.*=5 or"):
        fitted(x, 6)


@pytest.mark.parametrize("x", [torch.full((8, 4), 3.7, dtype=DOUBLE), torch.zeros(8, 4, dtype=DOUBLE)])
def test_states_that_do_not_vary_have_no_components(x: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"8 training particles vary in only 0 directions; they are all alike"
    ):
        fitted(x, 1)


def test_logarithms_are_inverted_and_their_drift_obeys_itos_formula() -> None:
    # x = exp(z) with dz = m dt + s dW has the drift x (m + s²/2).
    space = WorkingSpace(2, log=True, num_components=None)
    x = torch.tensor([[0.5, 2.0], [3.0, 1.0]], dtype=DOUBLE)
    drift, noise = (
        torch.tensor([[0.1, -0.2], [0.0, 0.3]], dtype=DOUBLE),
        torch.diag(torch.tensor([0.04, 0.09])),
    )

    torch.testing.assert_close(space.back(space(x)), x)
    expected = x * (drift + torch.tensor([0.02, 0.045]))
    torch.testing.assert_close(space.back_drift(space(x), drift, noise.double()), expected, rtol=1e-7, atol=0)


def test_a_drift_of_components_is_that_of_the_states_they_stand_for() -> None:
    space = fitted(states(), 3)
    z, drift = torch.randn(4, 3, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)

    step = (space.back(z + 1e-3 * drift) - space.back(z)) / 1e-3

    torch.testing.assert_close(space.back_drift(z, drift, torch.eye(3)), step, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_states_keep_their_precision(own: torch.dtype, given: torch.dtype) -> None:
    space = fitted(states(), 3).to(own)
    x = states().to(given)

    assert space(x).dtype == space.back(space(x)).dtype == given
    assert space.back_drift(space(x), space(x), torch.eye(3)).dtype == given
