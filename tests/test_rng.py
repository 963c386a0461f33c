"""Seeded scopes and noise that belongs to a path."""

from __future__ import annotations

import contextlib
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.rng import NoiseSource, ambient_seed, check_seed, fork_rng


def draw_everything() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_a_seeded_scope_reproduces_every_stream() -> None:
    results = []
    for seed in (1, 1, 2):
        with fork_rng(seed):
            results.append(draw_everything())

    assert results[0] == results[1]
    assert all(a != b for a, b in zip(results[0], results[2], strict=True))


@pytest.mark.parametrize("seed", [0, 5, -3, 2**40])
def test_the_callers_streams_go_on_as_if_nothing_had_happened(seed: int) -> None:
    with fork_rng(9):
        expected = draw_everything(), draw_everything()

    with fork_rng(9):
        first = draw_everything()
        with fork_rng(seed):
            draw_everything()
        assert (first, draw_everything()) == expected


def test_an_error_inside_gives_the_streams_back_too() -> None:
    with fork_rng(9):
        expected = draw_everything()

    with fork_rng(9):
        with pytest.raises(ZeroDivisionError), fork_rng(1):
            draw_everything()
            raise ZeroDivisionError
        assert draw_everything() == expected


def test_without_a_seed_the_ambient_streams_run_on() -> None:
    with fork_rng(4):
        expected = [draw_everything() for _ in range(3)]

    with fork_rng(4):
        first = draw_everything()
        with fork_rng(None):
            second = draw_everything()
        assert [first, second, draw_everything()] == expected


def test_scopes_nest() -> None:
    with fork_rng(1):
        with fork_rng(2):
            inner = draw_everything()
        outer = draw_everything()

    with fork_rng(2):
        assert draw_everything() == inner
    with fork_rng(1):
        assert draw_everything() == outer


def test_a_given_seed_is_used_and_none_is_drawn_from_the_ambient_stream() -> None:
    assert ambient_seed(7) == 7 and ambient_seed(np.int64(7)) == 7
    drawn = []
    for seed in (3, 3, 4):
        with fork_rng(seed):
            drawn.append(ambient_seed(None))
    assert drawn[0] == drawn[1] != drawn[2]


# Noise
# ---------------------------------------------------------------------------------------------------------


def noise(
    streams: list[tuple[object, ...]], step: int = 5, seed: int = 1, dtype: torch.dtype = torch.float64
) -> Tensor:
    return NoiseSource(seed, streams).normal(step, torch.empty(len(streams), 8, 3, dtype=dtype))


def test_the_noise_of_a_stream_does_not_depend_on_the_batch() -> None:
    streams: list[tuple[object, ...]] = [("a", 0), ("a", 1), ("b", 0), (7, 0)]
    together = noise(streams)

    for row, stream in enumerate(streams):
        assert torch.equal(noise([stream])[0], together[row])
    assert torch.equal(noise(streams[::-1]), together.flip(0))


def test_the_noise_of_a_step_does_not_depend_on_the_steps_before() -> None:
    source, like = NoiseSource(1, [("a", 0)]), torch.empty(1, 8, 3)
    for step in (3, 99, 3):
        source.normal(step, like)

    assert torch.equal(source.normal(5, like), noise([("a", 0)], dtype=torch.float32))


def test_seeds_labels_samples_steps_and_types_of_labels_all_make_their_own_noise() -> None:
    draws = [
        noise([("a", 0)]),
        noise([("a", 0)], seed=2),
        noise([("b", 0)]),
        noise([("a", 1)]),
        noise([("a", 0)], step=6),
        noise([("7", 0)]),
        noise([(7, 0)]),
        noise([("a", "0")]),
        noise([("a0",)]),
        noise([("a", 0, 0)]),
    ]

    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not bool((one == other).any())


def test_noise_is_standard_normal_and_uncorrelated_between_streams_steps_and_places() -> None:
    # 200 streams x 20 steps x 50 places = 200,000 draws. Mean, variance, kurtosis and four correlations
    # within 4.5 standard errors: false-alarm rate 5e-5.
    count = 200 * 20 * 50
    source, like = NoiseSource(0, [("s", k) for k in range(200)]), torch.empty(200, 50, dtype=torch.float64)

    x = torch.stack([source.normal(step, like) for step in range(20)])  # (step, stream, place)

    limit = 4.5 / count**0.5
    assert abs(float(x.mean())) < limit
    assert abs(float(x.square().mean()) - 1) < limit * 2**0.5
    assert abs(float((x**4).mean()) - 3) < limit * 96**0.5
    for a, b in [(x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x[..., 1:], x[..., :-1]), (x[1:, 1:], x[:-1, :-1])]:
        assert abs(float((a * b).mean())) < 4.5 / a.numel() ** 0.5


def test_draws_take_shape_and_type_from_the_example() -> None:
    source = NoiseSource(0, [("a", 0), ("b", 0)])

    for dtype in (torch.float32, torch.float64, torch.float16):
        draw = source.normal(0, torch.empty(2, 5, 4, dtype=dtype))
        assert draw.shape == (2, 5, 4) and draw.dtype == dtype
    assert source.normal(0, torch.empty(2, dtype=torch.float64)).shape == (2,)


def test_a_batch_of_another_size_than_the_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="2 streams.*3 rows"):
        NoiseSource(0, [("a", 0), ("b", 0)]).normal(0, torch.empty(3, 4))


def test_noise_leaves_the_global_streams_alone() -> None:
    with fork_rng(9):
        expected = draw_everything()
    with fork_rng(9):
        noise([("a", 0)])
        assert draw_everything() == expected


@pytest.mark.parametrize("seed", ["0", 1.5, 1.0, True, 2**63, -(2**63) - 1, [1]])
@pytest.mark.parametrize("use", [ambient_seed, fork_rng])
def test_a_seed_that_is_no_whole_number_of_64_bits_is_refused(use: Any, seed: Any) -> None:
    with pytest.raises(ValueError, match=rf"seed must be .*, or None, got {re.escape(repr(seed))}; type"):
        with contextlib.nullcontext(use(seed)) if use is ambient_seed else use(seed):
            pass


@pytest.mark.parametrize("seed", [np.int64(3), -(2**63), 2**63 - 1])
def test_every_whole_number_of_64_bits_is_a_seed(seed: int) -> None:
    assert check_seed(seed) == seed and type(check_seed(seed)) is int
    with fork_rng(seed):
        first = draw_everything()
    with fork_rng(seed):
        assert draw_everything() == first
