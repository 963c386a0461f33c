"""Episodes from fixed data, pools of classes and task generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from seqdyn.data import ClassPool, EpisodeDataModule

SHAPE = {"num_ways": 3, "num_shots": 2, "num_queries": 4}


def pool() -> ClassPool:
    """Six classes of eight examples; pixel 0 names the class and pixel 1 the example."""
    label = np.repeat(list("abcdef"), 8)
    x = np.zeros((48, 2, 2), dtype=np.uint8)
    x[:, 0, 0], x[:, 0, 1] = np.repeat(np.arange(6), 8), np.arange(48)
    return ClassPool(x, label)


def line(num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A line with a slope of its own."""
    x = rng.uniform(-1, 1, num_points)
    return x, rng.normal() * x


def fixed(num_tasks: int = 7) -> xr.Dataset:
    x = np.arange(num_tasks * 3.0).reshape(num_tasks, 3, 1)
    return xr.Dataset(
        {
            "support_x": (("task", "support", "input"), x),
            "support_y": (("task", "support", "output"), x * 2),
            "query_x": (("task", "query", "input"), x[:, :2]),
            "query_y": (("task", "query", "output"), x[:, :2] * 2),
        }
    )


def epoch(module: EpisodeDataModule, number: int = 0) -> dict[str, torch.Tensor]:
    """All batches of one epoch, joined."""
    loader = module.train_dataloader()
    loader.set_epoch(number)
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def test_an_episode_of_a_pool_shows_disjoint_examples_of_renumbered_classes() -> None:
    batch = epoch(EpisodeDataModule(pool(), **SHAPE, batch_size=10, batches_per_epoch=3, seed=1))

    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "support_x": (30, 6, 4),
        "support_y": (30, 6),
        "query_x": (30, 12, 4),
        "query_y": (30, 12),
    }
    assert batch["support_x"].dtype == torch.float32
    assert batch["support_y"].dtype == torch.int64
    for sx, sy, qx, qy in zip(*batch.values(), strict=True):
        classes = [sx[sy == way, 0].unique().tolist() for way in range(3)]
        assert all(len(names) == 1 for names in classes)
        assert len({names[0] for names in classes}) == 3
        for way in range(3):
            assert (sy == way).sum() == 2
            assert (qy == way).sum() == 4
            assert qx[qy == way, 0].unique().tolist() == classes[way]
        assert len(set(sx[:, 1].tolist()) | set(qx[:, 1].tolist())) == 18


def test_every_class_is_drawn_about_equally_often() -> None:
    batch = epoch(EpisodeDataModule(pool(), **SHAPE, batch_size=300, batches_per_epoch=1, seed=0))

    counts = torch.bincount(batch["support_x"][:, ::2, 0].long().flatten(), minlength=6)
    # Each of 300 episodes holds a class with probability 1/2: mean 150, standard deviation 8.7. Five of them
    # are exceeded by one of six counts with a probability below 1e-5, and the seed is fixed.
    assert counts.sum() == 900
    assert (counts - 150).abs().max() < 44


@pytest.mark.parametrize(
    ("tasks", "shape"),
    [(pool(), SHAPE), (line, {"num_shots": 3, "num_queries": 5})],
    ids=["pool", "generator"],
)
def test_episodes_depend_on_seed_and_epoch_and_not_on_the_batch_size(
    tasks: Any, shape: dict[str, int]
) -> None:
    def drawn(seed: int, number: int, batch_size: int) -> torch.Tensor:
        module = EpisodeDataModule(
            tasks, **shape, batch_size=batch_size, batches_per_epoch=12 // batch_size, seed=seed
        )
        return epoch(module, number)["support_x"]

    reference = drawn(1, 0, 12)
    assert torch.equal(drawn(1, 0, 12), reference)
    assert torch.equal(drawn(1, 0, 3), reference)
    assert not torch.equal(drawn(2, 0, 12), reference)
    assert not torch.equal(drawn(1, 1, 12), reference)


def test_drawing_episodes_leaves_the_global_streams_alone() -> None:
    module = EpisodeDataModule(line, num_shots=3, num_queries=5, batches_per_epoch=2, seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    epoch(module)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_generated_task_is_the_same_in_support_and_query() -> None:
    batch = epoch(
        EpisodeDataModule(line, num_shots=3, num_queries=5, batch_size=6, batches_per_epoch=1, seed=1)
    )

    assert batch["support_x"].shape == (6, 3, 1)
    assert batch["query_y"].shape == (6, 5, 1)
    slope = batch["support_y"][:, :1] / batch["support_x"][:, :1]
    torch.testing.assert_close(batch["query_y"], slope * batch["query_x"])
    assert slope.unique().numel() == 6


def test_fixed_episodes_are_passed_through_once_an_epoch_in_a_new_order() -> None:
    module = EpisodeDataModule(fixed(), batch_size=3, seed=5)

    first, second = epoch(module), epoch(module, 1)

    assert len(module.train_dataloader()) == 3
    assert not torch.equal(first["support_x"], second["support_x"])
    for batch in (first, second):
        order = batch["support_x"][:, 0, 0].argsort()
        for name, value in batch.items():
            np.testing.assert_array_equal(value[order], fixed()[name])


def test_validation_shows_the_same_episodes_every_time() -> None:
    module = EpisodeDataModule(pool(), **SHAPE, batch_size=4, val=pool(), num_val_episodes=10, seed=1)

    first, second = (torch.cat([b["query_x"] for b in module.val_dataloader()]) for _ in range(2))

    assert len(first) == 10
    assert torch.equal(first, second)
    assert not torch.equal(first[:10], epoch(module)["query_x"][:10])
    assert len(list(EpisodeDataModule(line, num_shots=1, num_queries=1, val=fixed()).val_dataloader())) == 1


def test_the_draw_is_stored_and_restored() -> None:
    module = EpisodeDataModule(line, num_shots=3, num_queries=5, batches_per_epoch=2)
    module.setup("fit")
    drawn = epoch(module)["support_x"]
    other = EpisodeDataModule(line, num_shots=3, num_queries=5, batches_per_epoch=2)

    other.load_state_dict(module.state_dict())

    assert torch.equal(epoch(other)["support_x"], drawn)


def nan_task(num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(num_points), np.full(num_points, np.nan)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "too_many_ways": (pool(), {**SHAPE, "num_ways": 7}, "num_ways=7 but only 6 of 6 classes.*lower num_ways"),
    "too_few_examples": (pool(), {**SHAPE, "num_shots": 6}, "only 0 of 6 classes have the 10 examples"),
    "size_left_out": (
        pool(),
        {"num_ways": 2, "num_shots": 1},
        "num_queries must be at least 1.*num_queries=5",
    ),
    "ways_of_a_generator": (line, SHAPE, "num_ways=3 is not used.*leave it out"),
    "shots_of_fixed_episodes": (fixed(), {"num_shots": 2}, "num_shots=2 is not used.*leave it out"),
    "labels_of_another_length": (
        (np.ones((4, 2)), np.arange(3)),
        SHAPE,
        r"\(4, 2\) and \(3,\).*equal first sizes",
    ),
    "infinite_example": (
        (np.array([[1.0], [np.inf]]), np.arange(2)),
        SHAPE,
        "example 1 of the pool.*drop it",
    ),
    "no_batches": (fixed(), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "no_episodes": (np.ones(3), {}, r"must be an episode Dataset, a ClassPool\(x, label\) or a function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_refused(case: str) -> None:
    tasks, arguments, remedy = REFUSED[case]

    with pytest.raises((ValueError, TypeError), match=f"(?s){remedy}"):
        EpisodeDataModule(tasks, **arguments)


def test_a_generator_that_returns_nan_is_named() -> None:
    module = EpisodeDataModule(nan_task, num_shots=2, num_queries=2, seed=0)

    with pytest.raises(
        ValueError, match=r"returned y of shape \(4, 1\) with NaN.*it must return finite x \(n, X\)"
    ):
        epoch(module)
