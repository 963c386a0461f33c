"""Guidance scores against finite differences and closed forms; what is unobserved has no say (D6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.diffusion import Denoiser, NoiseSchedule, QuantileGuidance, SquareGuidance
from seqdyn.nn.backbone import FrozenBackbone, S4Backbone

BATCH, LENGTH, CHANNELS, SCALE = 3, 7, 2, 1.7


@pytest.fixture
def denoiser(double_precision: None) -> Denoiser:
    network = S4Backbone(CHANNELS, length=LENGTH, hidden_size=5, num_blocks=2, state_size=4, embedding_size=6)
    return Denoiser(FrozenBackbone(network, 20), NoiseSchedule.linear(20, beta_end=0.3))


LEVELS = (0.1, 0.5, 0.9)


def square(denoiser: Denoiser, target: Tensor, observed: Tensor, **options: Any) -> SquareGuidance:
    return SquareGuidance(denoiser, target, observed, SCALE, **options)


def quantile(denoiser: Denoiser, target: Tensor, observed: Tensor, **options: Any) -> QuantileGuidance:
    levels = torch.tensor(LEVELS[: len(target)])
    return QuantileGuidance(denoiser, target, observed, SCALE, levels, **options)


KINDS = pytest.mark.parametrize("make", [square, quantile])
Make = Callable[..., Any]


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, target = torch.randn(BATCH, LENGTH, CHANNELS), 3 * torch.randn(BATCH, LENGTH, CHANNELS)
    return x, target, torch.rand(BATCH, LENGTH, CHANNELS) < 0.6, torch.tensor([2, 11, 19])


def energy(
    make: Make, denoiser: Denoiser, x: Tensor, target: Tensor, observed: Tensor, step: Tensor
) -> Tensor:
    """The published energies, summed over the observed cells."""
    e = (target - denoiser.x0(x, step))[observed]
    if make is square:
        return (e**2).sum()
    kappa = torch.tensor(LEVELS)[:, None, None].expand_as(x)[observed]
    return torch.maximum(kappa * e, (kappa - 1) * e).sum()


@KINDS
def test_d6_the_score_is_a_central_finite_difference_of_the_energy(make: Make, denoiser: Denoiser) -> None:
    x, target, observed, step = example()

    score = make(denoiser, target, observed)(x, step)

    assert score.shape == x.shape and not score.requires_grad
    h, numeric = 1e-6, torch.zeros_like(x)
    for cell in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[cell] += h
        down[cell] -= h
        values = [energy(make, denoiser, at, target, observed, step) for at in (up, down)]
        numeric[cell] = -SCALE * (values[0] - values[1]) / (2 * h)
    assert bool(score[~observed].any())  # the network carries the pull to unobserved cells
    torch.testing.assert_close(score, numeric, rtol=1e-6, atol=1e-6)


@KINDS
@pytest.mark.parametrize("value", [0.0, 1e9, float("nan"), float("inf")])
def test_d6_what_stands_in_unobserved_cells_changes_no_bit(
    make: Make, denoiser: Denoiser, value: float
) -> None:
    x, target, observed, step = example()

    score = make(denoiser, target, observed)(x, step)

    other = torch.where(observed, target, torch.full_like(target, value))
    assert torch.equal(make(denoiser, other, observed)(x, step), score)


@KINDS
def test_with_nothing_observed_there_is_no_pull(make: Make, denoiser: Denoiser) -> None:
    x, target, observed, step = example()

    score = make(denoiser, target, torch.zeros_like(observed))(x, step)

    assert torch.equal(score, torch.zeros_like(x))


@KINDS
def test_the_score_of_a_path_does_not_depend_on_its_batch_mates(make: Make, denoiser: Denoiser) -> None:
    x, target, observed, step = example()

    score = make(denoiser, target, observed)(x, step)

    alone = make(denoiser, target[:1], observed[:1])(x[:1], step[:1])
    torch.testing.assert_close(alone, score[:1], rtol=1e-12, atol=1e-12)


def test_the_score_is_proportional_to_the_scale(denoiser: Denoiser) -> None:
    x, target, observed, step = example()

    one, three = (SquareGuidance(denoiser, target, observed, scale)(x, step) for scale in (1.0, 3.0))

    torch.testing.assert_close(three, 3 * one)


@KINDS
def test_estimate_and_score_in_one_pass_are_those_of_two(make: Make, denoiser: Denoiser) -> None:
    x, target, observed, step = example()
    guidance = make(denoiser, target, observed)

    estimate, score = guidance.x0_and_score(x, step)

    torch.testing.assert_close(estimate, denoiser.x0(x, step))
    assert torch.equal(score, guidance(x, step))
    assert not estimate.requires_grad and not score.requires_grad


@pytest.mark.parametrize("kind", ["square", "quantile"])
def test_the_score_of_a_linear_denoiser_is_its_transpose_times_the_slope(strong: Any, kind: str) -> None:
    x, y = torch.randn(3, 36, 1), torch.randn(3, 36, 1)
    observed, step = torch.rand(3, 36, 1) < 0.7, torch.full((3,), 40)
    levels = torch.tensor([0.2, 0.5, 0.95])
    if kind == "square":
        guidance: Any = SquareGuidance(strong.denoiser, y, observed, SCALE)
    else:
        guidance = QuantileGuidance(strong.denoiser, y, observed, SCALE, levels)

    clean = torch.as_tensor(strong.clean_maps[40])
    e = y - clean @ x
    slope = (
        2 * e if kind == "square" else torch.where(e > 0, levels[:, None, None], levels[:, None, None] - 1)
    )
    torch.testing.assert_close(guidance(x, step), SCALE * clean.mT @ (slope * observed))


def test_the_median_path_is_pulled_up_and_down_alike_and_others_are_not(strong: Any) -> None:
    x, observed = torch.zeros(2, 36, 1), torch.ones(2, 36, 1, dtype=torch.bool)
    y = torch.stack([torch.ones(36, 1), -torch.ones(36, 1)])
    step = torch.full((2,), 10)

    def pull(level: float) -> Tensor:
        return QuantileGuidance(strong.denoiser, y, observed, 1.0, torch.full((2,), level))(x, step).sum(
            (1, 2)
        )

    up, down = pull(0.5)
    torch.testing.assert_close(up, -down)
    up, down = pull(0.9)
    torch.testing.assert_close(up, -9 * down)


@KINDS
def test_it_works_inside_no_grad_and_leaves_the_input_alone(make: Make, denoiser: Denoiser) -> None:
    x, target, observed, step = example()
    before = x.clone()

    with torch.no_grad():
        score = make(denoiser, target, observed)(x, step)

    assert torch.equal(x, before) and not x.requires_grad
    assert bool(score.any())


@KINDS
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(make: Make, scale: float, denoiser: Denoiser) -> None:
    _, target, observed, _ = example()
    kind = SquareGuidance if make is square else QuantileGuidance
    rest = () if make is square else (torch.tensor(LEVELS),)

    with pytest.raises(
        ValueError, match=f"must be positive, got {scale}; without guidance pass guidance=None"
    ):
        kind(denoiser, target, observed, scale, *rest)  # type: ignore[call-arg, arg-type]


@KINDS
def test_an_unknown_point_is_refused_with_the_choices(make: Make, denoiser: Denoiser) -> None:
    _, target, observed, _ = example()

    with pytest.raises(ValueError, match=r"one of \('proposal', 'xt'\), got 'x0'"):
        make(denoiser, target, observed, point="x0")


@pytest.mark.parametrize("level", [0.0, 1.0, float("nan")])
def test_a_level_outside_the_open_unit_interval_is_refused(level: float, denoiser: Denoiser) -> None:
    _, target, observed, _ = example()

    with pytest.raises(ValueError, match=r"between 0 and 1, for instance k / \(num_samples \+ 1\)"):
        QuantileGuidance(denoiser, target, observed, 1.0, torch.tensor([0.5, level, 0.5]))
