"""Few-shot episodes as batches: from a fixed dataset, a pool of labelled examples or a generator of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.schema import QUERY_X, QUERY_Y, SUPPORT_X, SUPPORT_Y, TASK, check_episodes
from seqdyn.data.sequences import WindowLoader
from seqdyn.rng import ambient_seed

__all__ = ["ClassPool", "EpisodeDataModule", "TaskGenerator"]

TaskGenerator = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""``generator(num_points, rng)`` draws one task and returns its points: x (n, X) and y (n, Y)."""

_NAMES = (SUPPORT_X, SUPPORT_Y, QUERY_X, QUERY_Y)
_VIRTUAL_SIZE = 2**40


class ClassPool(NamedTuple):
    """Labelled examples to build classification tasks from: ``x`` (N, ...) and ``label`` (N,) of any type."""

    x: np.ndarray
    label: np.ndarray


class EpisodeDataModule(pl.LightningDataModule):
    """Episodes of support and query points for training and validation.

    A batch is a dict of ``support_x`` (E, k, X) and ``query_x`` (E, q, X) in float32 and ``support_y``,
    ``query_y``: class labels (E, k), (E, q) in int64, or values (E, k, Y), (E, q, Y) in float32. The episodes
    of an epoch are a function of (seed, epoch), not of ``batch_size``.

    Args:
        tasks: A dataset of fixed episodes; a :class:`ClassPool` (or a pair of arrays), from which an episode
            draws ``num_ways`` classes and numbers them 0, 1, ...; or a generator ``(num_points, rng)
            -> (x, y)`` of one task, whose first ``num_shots`` points are the support.
        num_ways: Classes of an episode; only for a pool.
        num_shots: Support points, per class for a pool.
        num_queries: Query points, per class for a pool.
        batch_size: Episodes in a batch.
        batches_per_epoch: Batches of an epoch; None makes it one shuffled pass over fixed episodes, and 100
            batches otherwise.
        val: Validation tasks of the same kinds.
        num_val_episodes: Episodes of validation, where they are drawn; the same ones after every epoch.
        seed: Seed of the draws; None draws one from the ambient stream when a fit starts.

    Raises:
        ValueError: If the data break the schema, or an episode cannot be drawn as asked.
    """

    def __init__(
        self,
        tasks: xr.Dataset | ClassPool | tuple[np.ndarray, np.ndarray] | TaskGenerator,
        *,
        num_ways: int | None = None,
        num_shots: int | None = None,
        num_queries: int | None = None,
        batch_size: int = 16,
        batches_per_epoch: int | None = None,
        val: xr.Dataset | ClassPool | tuple[np.ndarray, np.ndarray] | TaskGenerator | None = None,
        num_val_episodes: int = 200,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        shape = {"num_ways": num_ways, "num_shots": num_shots, "num_queries": num_queries}
        _check_shape([tasks] if val is None else [tasks, val], shape)
        self._tasks = _episode_source(tasks, shape)
        self._val = None if val is None else _episode_source(val, shape)
        if not isinstance(self._tasks, _FixedEpisodes) and batches_per_epoch is None:
            batches_per_epoch = 100
        counts = {
            "batch_size": batch_size,
            "batches_per_epoch": batches_per_epoch,
            "num_val_episodes": num_val_episodes,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.num_val_episodes = num_val_episodes
        self._seed = seed
        self._draw_seed: int | None = None

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self._draw_seed = ambient_seed(self._seed)

    def train_dataloader(self) -> WindowLoader:
        source = self._tasks.collection(self._known_seed(), stream=0, size=_VIRTUAL_SIZE)
        return WindowLoader(source, self.batch_size, self.batches_per_epoch, seed=self._known_seed())

    def val_dataloader(self) -> WindowLoader | list[WindowLoader]:
        if self._val is None:
            return []
        source = self._val.collection(self._known_seed(), stream=1, size=self.num_val_episodes)
        return WindowLoader(source, self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        return {"draw_seed": self._draw_seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draw_seed = state["draw_seed"]

    def _known_seed(self) -> int:
        if self._draw_seed is None:
            self.setup()
        return int(self._draw_seed or 0)


class _Episodes(Protocol):
    """What a loader takes batches from."""

    def __len__(self) -> int: ...
    def __getitems__(self, indices: np.ndarray) -> dict[str, Tensor]: ...


class _Source(Protocol):
    """A kind of tasks."""

    def collection(self, seed: int, *, stream: int, size: int) -> _Episodes: ...


class _FixedEpisodes:
    """The episodes of a dataset; also their own collection, whatever the seed."""

    def __init__(self, data: xr.Dataset) -> None:
        check_episodes(data)
        self._arrays = _tensors([data[name].values for name in _NAMES])
        self._size = data.sizes[TASK]

    def collection(self, seed: int, *, stream: int, size: int) -> _FixedEpisodes:
        return self

    def __len__(self) -> int:
        return self._size

    def __getitems__(self, indices: np.ndarray) -> dict[str, Tensor]:
        chosen = torch.as_tensor(np.asarray(indices))
        return {name: array[chosen] for name, array in self._arrays.items()}


class _DrawnEpisodes:
    """A collection in which episode i is a function of (seed, stream, i), drawn when it is asked for."""

    def __init__(
        self, draw: Callable[[np.random.Generator], tuple[np.ndarray, ...]], key: tuple[int, int], size: int
    ) -> None:
        self._draw, self._key, self._size = draw, key, size

    def __len__(self) -> int:
        return self._size

    def __getitems__(self, indices: np.ndarray) -> dict[str, Tensor]:
        seed, stream = self._key
        episodes = []
        for index in indices:
            sequence = np.random.SeedSequence(seed, spawn_key=(stream, int(index)))
            episodes.append(self._draw(np.random.default_rng(sequence)))
        return _tensors([np.stack(column) for column in zip(*episodes, strict=True)])


class _PoolSource:
    """Episodes of ``num_ways`` classes drawn from a pool without replacement."""

    def __init__(self, pool: ClassPool, num_ways: int, num_shots: int, num_queries: int) -> None:
        x, label = np.asarray(pool.x), np.asarray(pool.label)
        if label.ndim != 1 or len(x) != len(label) or len(x) == 0 or x.dtype.kind not in "biuf":
            raise ValueError(
                f"a pool needs numbers x (N, ...) and one label each, got shapes {x.shape} and "
                f"{label.shape}, dtype {x.dtype}; give ClassPool(x, label) with equal first sizes."
            )
        self._x = x.reshape(len(x), -1)
        if not np.isfinite(self._x).all():
            row = int((~np.isfinite(self._x)).any(axis=1).argmax())
            raise ValueError(
                f"example {row} of the pool holds NaN or infinity; drop it: keep = np.isfinite(x).all(1)."
            )
        names, codes = np.unique(label, return_inverse=True)
        members = [np.flatnonzero(codes == code) for code in range(len(names))]
        needed = num_shots + num_queries
        self._members = [rows for rows in members if len(rows) >= needed]
        if len(self._members) < num_ways:
            raise ValueError(
                f"num_ways={num_ways} but only {len(self._members)} of {len(names)} classes have the "
                f"{needed} examples that num_shots + num_queries ask for; lower num_ways, num_shots or "
                "num_queries."
            )
        self._num_ways, self._num_shots, self._needed = num_ways, num_shots, needed

    def collection(self, seed: int, *, stream: int, size: int) -> _DrawnEpisodes:
        return _DrawnEpisodes(self._draw, (seed, stream), size)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        classes = rng.choice(len(self._members), size=self._num_ways, replace=False)
        rows = np.stack([rng.choice(self._members[c], size=self._needed, replace=False) for c in classes])
        label = np.repeat(np.arange(self._num_ways)[:, None], self._needed, axis=1)
        parts = []
        for columns in (slice(None, self._num_shots), slice(self._num_shots, None)):
            parts += [self._x[rows[:, columns].ravel()], label[:, columns].ravel()]
        return tuple(parts)


class _GeneratorSource:
    """Episodes of tasks that a function draws."""

    def __init__(self, generator: TaskGenerator, num_shots: int, num_queries: int) -> None:
        self._generator, self._num_shots = generator, num_shots
        self._num_points = num_shots + num_queries

    def collection(self, seed: int, *, stream: int, size: int) -> _DrawnEpisodes:
        return _DrawnEpisodes(self._draw, (seed, stream), size)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        x, y = (np.asarray(part) for part in self._generator(self._num_points, rng))
        x, y = x[:, None] if x.ndim == 1 else x, y[:, None] if y.ndim == 1 else y
        for name, part in (("x", x), ("y", y)):
            if part.ndim != 2 or len(part) != self._num_points or not np.isfinite(part).all():
                raise ValueError(
                    f"the task generator returned {name} of shape "
                    f"{part.shape}{'' if np.isfinite(part).all() else ' with NaN or infinity'} when asked "
                    f"for {self._num_points} points; it must return finite x (n, X) and y (n, Y) with "
                    f"n={self._num_points}."
                )
        k = self._num_shots
        return x[:k], y[:k], x[k:], y[k:]


def _check_shape(kinds: list[Any], shape: dict[str, int | None]) -> None:
    """Require the sizes that drawing needs, and no others."""
    pools = any(_is_pool(tasks) for tasks in kinds)
    drawn = pools or any(callable(tasks) for tasks in kinds)
    needed = {"num_ways": pools, "num_shots": drawn, "num_queries": drawn}
    for name, count in shape.items():
        if needed[name] and (count is None or count < 1):
            raise ValueError(f"{name} must be at least 1 to draw episodes, got {count}; pass {name}=5.")
        if not needed[name] and count is not None:
            source = "a task generator has no classes" if drawn else "the episodes of a dataset settle it"
            raise ValueError(f"{name}={count} is not used, {source}; leave it out.")


def _is_pool(tasks: Any) -> bool:
    return isinstance(tasks, tuple) and len(tasks) == 2


def _episode_source(tasks: Any, shape: dict[str, int | None]) -> Any:
    if isinstance(tasks, xr.Dataset):
        return _FixedEpisodes(tasks)
    sizes = {name: count for name, count in shape.items() if count is not None}
    if _is_pool(tasks):
        return _PoolSource(ClassPool(*tasks), **sizes)
    if callable(tasks):
        return _GeneratorSource(tasks, sizes["num_shots"], sizes["num_queries"])
    raise TypeError(
        "tasks must be an episode Dataset, a ClassPool(x, label) or a function (num_points, rng) -> (x, y), "
        f"got {type(tasks).__name__}."
    )


def _tensors(arrays: tuple[np.ndarray, ...] | list[np.ndarray]) -> dict[str, Tensor]:
    """Support and query arrays of several tasks; class labels are those answers without a dim of outputs."""
    labels = arrays[1].ndim == 2
    kinds = (np.float32, np.int64 if labels else np.float32) * 2
    named = zip(_NAMES, arrays, kinds, strict=True)
    return {name: torch.from_numpy(array.astype(kind)) for name, array, kind in named}
