"""Randomness: a seeded scope for verbs, and noise that belongs to a series and a sample path."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

__all__ = ["NoiseSource", "ambient_seed", "check_seed", "fork_rng"]


def check_seed(seed: object) -> int:
    """Return a seed as an int.

    Raises:
        ValueError: If it is no whole number of 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not -(2**63) <= int(seed) < 2**63:
        raise ValueError(
            f"seed must be a whole number from -2**63 to 2**63 - 1, or None, got {seed!r}; type for instance "
            "seed=0."
        )
    return int(seed)


@contextlib.contextmanager
def fork_rng(seed: int | None) -> Iterator[None]:
    """Run a block under ``seed`` and give every global random state back untouched.

    Covers torch (CPU and CUDA), NumPy's global state (torchsde reads it) and ``random``.

    Args:
        seed: Seed of the block; ``None`` leaves the ambient streams running as they are.

    Raises:
        ValueError: If the seed is no whole number of 64 bits.
    """
    if seed is None:
        yield
        return
    seed = check_seed(seed)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def ambient_seed(seed: int | None) -> int:
    """Return ``seed``, or draw one from torch's ambient stream where it is ``None``.

    Raises:
        ValueError: If the seed is no whole number of 64 bits.
    """
    return int(torch.randint(2**62, ()).item()) if seed is None else check_seed(seed)


class NoiseSource:
    """Standard normal noise that is a function of (seed, stream label, step), whatever the batch.

    Each stream is one sample path of one series. A path's noise at a step comes from its own counter-based
    generator, so that batching, chunking, the order of series and the presence of others change nothing.

    Args:
        seed: Seed of the verb.
        streams: One label per row of the batch, for instance ``("store 7", 12)``: series and sample index.
    """

    def __init__(self, seed: int, streams: Sequence[tuple[object, ...]]) -> None:
        self._keys = [_stream_key(seed, stream) for stream in streams]

    def normal(self, step: int, like: Tensor) -> Tensor:
        """Draw the noise of one step.

        Args:
            step: Index of the draw, 0 <= step < 2**32.
            like: Tensor (B, ...) that gives shape, dtype and device; B is the number of streams.

        Returns:
            Standard normal draws with the shape of ``like``.

        Raises:
            ValueError: If ``like`` has another number of rows.
        """
        if len(like) != len(self._keys):
            raise ValueError(f"there are {len(self._keys)} streams of noise but {len(like)} rows.")
        dtype = np.float64 if like.dtype == torch.float64 else np.float32
        out = np.empty(like.shape, dtype=dtype)
        for row, key in zip(out.reshape(len(self._keys), -1), self._keys, strict=True):
            # The step sits in the counter's top word: 2**192 draws apart, streams of steps never meet.
            bits = np.random.Philox(key=key, counter=[0, 0, 0, step])
            np.random.Generator(bits).standard_normal(out=row, dtype=dtype)
        return torch.from_numpy(out).to(device=like.device, dtype=like.dtype)


def _stream_key(seed: int, stream: tuple[object, ...]) -> np.ndarray:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (int(seed), *stream))
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype=np.uint64)
