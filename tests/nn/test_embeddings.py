"""The embedding of diffusion steps."""

from __future__ import annotations

import math

import pytest
import torch

from seqdyn.nn.embeddings import StepEmbedding


def test_the_embedding_is_the_formula_with_sinusoids_from_1_to_one_ten_thousandth() -> None:
    embedding = StepEmbedding(8, 5).double()
    first, second = embedding.layers[0], embedding.layers[2]
    step = torch.tensor([0, 3, 99])

    angle = step[:, None].double() * torch.tensor([1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4]).double()
    x = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
    for layer in (first, second):
        x = x @ layer.weight.mT + layer.bias
        x = x / (1 + torch.exp(-x))

    # The frequencies were rounded to float32: 99 of them are off by 6e-6 at most.
    torch.testing.assert_close(embedding(step), x, rtol=0, atol=1e-5)


def test_every_one_of_a_hundred_steps_is_embedded_differently() -> None:
    embedded = StepEmbedding(128, 64)(torch.arange(100)).detach()

    distance = torch.cdist(embedded, embedded) + 1e9 * torch.eye(100)
    assert float(distance.min()) > 1e-3


def test_the_sinusoids_are_no_part_of_the_saved_weights() -> None:
    assert {name.split(".")[0] for name in StepEmbedding(8, 5).state_dict()} == {"layers"}


@pytest.mark.parametrize("size", [2, 7])
def test_a_size_that_makes_no_pairs_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"even and at least 4, got {size}; try 128"):
        StepEmbedding(size, 5)


def test_the_slowest_sinusoid_is_monotone_over_the_steps() -> None:
    embedding = StepEmbedding(128, 64)

    slowest = torch.sin(torch.arange(100) * embedding.frequency[-1])

    assert embedding.frequency.shape == (64,)
    assert float(embedding.frequency[-1]) == pytest.approx(math.exp(-math.log(10_000)))
    assert bool((slowest.diff() > 0).all())
