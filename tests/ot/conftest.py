"""Points of the checks, and a plain oracle of the divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor


class Example(NamedTuple):
    x: Tensor  # (4, 2)
    y: Tensor  # (5, 2)
    a: Tensor  # weights that are not uniform
    b: Tensor


@pytest.fixture
def example() -> Example:
    """The points of checks S2 and S3."""
    x = [(0, 0), (1, 0), (0, 2), (1.5, 1)]
    y = [(0.5, 0.5), (2, 0), (0, 1), (1, 3), (2, 2)]
    weights = ([0.1, 0.4, 0.2, 0.3], [0.3, 0.1, 0.25, 0.15, 0.2])
    return Example(*(torch.tensor(values, dtype=torch.float64) for values in (x, y, *weights)))


def transport_value(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float) -> float:
    """OT_ε by many plain iterations, read off the plan: <P, C> + ε KL(P | a bᵀ)."""
    cost = ((x[:, None] - y[None]) ** 2).sum(axis=2) / 2
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(1500):
        f = -epsilon * logsumexp(log_b + (g - cost) / epsilon, axis=1)
        g = -epsilon * logsumexp(log_a[:, None] + (f[:, None] - cost) / epsilon, axis=0)
    ratio = (f[:, None] + g - cost) / epsilon
    plan = a[:, None] * b * np.exp(ratio)
    return float((plan * cost).sum() + epsilon * ((plan * ratio).sum() - plan.sum() + 1))


@pytest.fixture
def oracle() -> Callable[..., float]:
    """S_ε(x, y) from the primal definition."""

    def divergence(x: Tensor, y: Tensor, a: Tensor, b: Tensor, epsilon: float) -> float:
        points = tuple(one.numpy() for one in (x, y, a, b))
        u, v, p, q = points
        return (
            transport_value(u, v, p, q, epsilon)
            - transport_value(u, u, p, p, epsilon) / 2
            - transport_value(v, v, q, q, epsilon) / 2
        )

    return divergence


def chain_points(crossing: float, num_states: int, num_series: int, num_steps: int, seed: int) -> Tensor:
    """One-hot sequences of a linear chain with three symbols, (num_series, num_steps * 3)."""
    generator = np.random.default_rng(seed)
    states = np.arange(num_states)
    transition = crossing * (np.abs(states[:, None] - states) == 1.0)
    transition[states, states] = 1 - transition.sum(axis=1)
    share = states / (num_states - 1)
    emission = np.stack([0.99 * (1 - share), np.full(num_states, 0.01), 0.99 * share], axis=1)
    state = generator.integers(num_states, size=num_series)
    symbols = np.empty((num_series, num_steps), dtype=np.int64)
    for step in range(num_steps):
        draw = generator.random((2, num_series, 1))
        symbols[:, step] = (draw[0] > emission.cumsum(axis=1)[state]).sum(axis=1).clip(max=2)
        state = (draw[1] > transition.cumsum(axis=1)[state]).sum(axis=1).clip(max=num_states - 1)
    return torch.nn.functional.one_hot(torch.from_numpy(symbols), 3).float().flatten(1)


@pytest.fixture
def make_chain() -> Callable[..., Tensor]:
    return chain_points
