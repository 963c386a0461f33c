"""The automatic blur, and the bias that it avoids (S4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.ot import auto_blur, sinkhorn_divergence

Make = Callable[..., Tensor]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_blur_is_the_root_of_a_share_of_the_mean_cost_between_halves(offset: float) -> None:
    targets = torch.randn(21, 3, dtype=torch.float64) + offset
    cost = torch.cdist(targets[::2], targets[1::2], compute_mode="donot_use_mm_for_euclid_dist") ** 2 / 2

    assert auto_blur(targets) == pytest.approx(float(0.27 * cost.mean()) ** 0.5, rel=1e-9)
    assert auto_blur(7 * targets) == pytest.approx(7 * auto_blur(targets), rel=1e-9)


# 4096 sequences; the mean cost has a relative standard error of about 0.3 %, the blur half of that.
@pytest.mark.parametrize(
    ("states", "crossing", "steps", "blur"), [(2, 0.05, 100, 3.71), (3, 0.2236, 30, 2.03)]
)
def test_the_blur_of_the_presets(
    make_chain: Make, states: int, crossing: float, steps: int, blur: float
) -> None:
    assert auto_blur(make_chain(crossing, states, 4096, steps, seed=0)) == pytest.approx(blur, rel=0.01)


def mean_divergence(
    make_chain: Make, states: int, steps: int, crossings: tuple[float, float], **options: Any
) -> float:
    """Mean of four draws of 512 + 512 sequences; the draws of the first chain share their random numbers."""
    values = []
    for draw in range(4):
        x = make_chain(crossings[0], states, 512, steps, seed=draw)
        y = make_chain(crossings[1], states, 512, steps, seed=100 + draw)
        values.append(float(sinkhorn_divergence(x, y, **options)))
    return sum(values) / len(values)


def test_s4_with_the_published_blur_a_less_variable_chain_is_nearer_than_the_true_one(
    make_chain: Make,
) -> None:
    options: dict[str, Any] = {"epsilon": 0.04, "mode": "annealed"}
    slow, true = (mean_divergence(make_chain, 2, 100, (q, 0.05), **options) for q in (0.03, 0.05))

    # 13.63 and 15.46 in the table of the specification.
    assert slow == pytest.approx(13.6, abs=0.3) and true == pytest.approx(15.5, abs=0.3)


@pytest.mark.parametrize(
    ("states", "steps", "true", "crossings", "values"),
    [
        (2, 100, 0.05, (0.03, 0.04, 0.05, 0.06, 0.07), (0.959, 0.652, 0.622, 0.710, 0.856)),
        (3, 30, 0.2236, (0.14, 0.18, 0.2236, 0.27, 0.32), (0.253, 0.207, 0.195, 0.209, 0.240)),
    ],
)
def test_s4_with_the_automatic_blur_the_true_chain_is_nearest(
    make_chain: Make,
    states: int,
    steps: int,
    true: float,
    crossings: tuple[float, ...],
    values: tuple[float, ...],
) -> None:
    epsilon = auto_blur(make_chain(true, states, 512, steps, seed=50)) ** 2

    found = [mean_divergence(make_chain, states, steps, (q, true), epsilon=epsilon) for q in crossings]

    assert min(found) == found[2]
    # The published means are of four other draws, which differ by several per cent.
    assert found == pytest.approx(values, rel=0.15)
