"""Transport between sets of discrete sequences, and what single symbols do to it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from seqdyn.ot.categorical import flip_effects, matched, transport, witness

T, K = 4, 3


def sequences(size: int, seed: int, law: tuple[float, ...] = (0.5, 0.2, 0.3)) -> Tensor:
    """Sequences that like to repeat their symbol, one-hot (size, T, K)."""
    generator = torch.Generator().manual_seed(seed)
    fresh = torch.multinomial(torch.tensor(law), size * T, True, generator=generator).view(size, T)
    stay = torch.rand(size, T, generator=generator) < 0.6
    for t in range(1, T):
        fresh[:, t] = torch.where(stay[:, t], fresh[:, t - 1], fresh[:, t])
    return torch.nn.functional.one_hot(fresh, K).double()


def cost(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] != y).any(-1).sum(-1).double()


def softmin(x: Tensor, y: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    exponents = (potential - cost(x, y)) / epsilon - math.log(len(y))
    return -epsilon * exponents.logsumexp(dim=1)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0])
def test_the_plan_has_the_marginals_and_the_value_is_cost_plus_entropy(epsilon: float) -> None:
    x, y = sequences(20, 0), sequences(30, 1)

    found = transport(x, y, epsilon=epsilon, tolerance=1e-12, max_iters=10_000)

    f = softmin(x, y, found.potential, epsilon)
    plan = torch.exp((f[:, None] + found.potential - cost(x, y)) / epsilon) / (20 * 30)
    torch.testing.assert_close(plan.sum(0), torch.full((30,), 1 / 30).double())
    torch.testing.assert_close(plan.sum(1), torch.full((20,), 1 / 20).double())
    entropy = (plan * torch.log(plan * 20 * 30)).sum()
    torch.testing.assert_close(found.value, (plan * cost(x, y)).sum() + epsilon * entropy)
    assert found.error < 1e-12


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0])
def test_the_effect_of_a_symbol_is_that_of_the_sequence_with_it(epsilon: float) -> None:
    x, y = sequences(6, 0), sequences(30, 1)
    potential = torch.linspace(-1, 1, 30).double()

    effects = flip_effects(x, matched(x, y, potential, epsilon), epsilon)

    before = softmin(x, y, potential, epsilon)
    for t, k in itertools.product(range(T), range(K)):
        changed = x.clone()
        changed[:, t] = torch.nn.functional.one_hot(torch.tensor(k), K).double()
        torch.testing.assert_close(effects[:, t, k], softmin(changed, y, potential, epsilon) - before)


def test_the_expected_effect_is_zero_where_model_and_data_are_alike() -> None:
    # 400 draws of four sets of 12: the mean of 12 cells against its standard error, so that |z| > 4.5 in any
    # of them has probability 1e-4.
    epsilon, draws = 1.0, []
    for i in range(400):
        x, data, first, second = (sequences(12, 4 * i + j) for j in range(4))
        found = witness(x, data, first, second, epsilon=epsilon)
        draws.append((x[0, :, :, None] * found.effects[0, :, None]).flatten())

    values = torch.stack(draws)
    spread = values.std(0)
    z = (values.mean(0) / (spread / math.sqrt(len(draws))))[spread > 0]

    assert len(z) == T * K * (K - 1) and z.abs().max() < 4.5


def test_where_a_symbol_is_too_frequent_its_effect_is_to_raise_the_divergence() -> None:
    data = sequences(400, 0)
    x, first, second = (sequences(400, seed, (0.8, 0.1, 0.1)) for seed in (1, 2, 3))

    found = witness(x, data, first, second, epsilon=1.0)
    mean = found.effects[:, :, 0][x[:, :, 0] == 0].mean()

    assert mean > 0.01
    same = witness(sequences(400, 4), data, sequences(400, 5), sequences(400, 6), epsilon=1.0)
    assert found.value > same.value + 0.01


def test_single_precision_is_close_to_double() -> None:
    sets = [sequences(50, seed) for seed in range(4)]

    double = witness(*sets, epsilon=0.5, tolerance=1e-6)
    single = witness(*(s.float() for s in sets), epsilon=0.5, tolerance=1e-5)

    assert single.effects.dtype == torch.float32
    torch.testing.assert_close(single.effects.double(), double.effects, atol=2e-4, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 0.04, math.nan])
def test_an_epsilon_too_small_names_the_smallest(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"at least 0.05, a blur of 0.224"):
        transport(sequences(3, 0), sequences(3, 1), epsilon=epsilon)
