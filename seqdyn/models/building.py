"""Build a model from the numbers in a file without letting absurd ones exhaust the machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["WithinSize"]

# A constructor may draw larger tensors than it keeps, such as the square of its state size.
_FREE_NUMBERS, _FREE_OPERATIONS = 2**24, 10_000


class WithinSize(TorchDispatchMode):
    """Refuse, before it is done, work out of proportion to the weights that a constructor's arguments are of.

    Every tensor operation is tried on the meta device first, where it costs nothing.

    Args:
        num_numbers: Numbers in the weights.
        num_tensors: Tensors among the weights.

    Raises:
        RuntimeError: From within the block, if a tensor, all new tensors together, or the number of
            operations is out of proportion.
    """

    def __init__(self, num_numbers: int, num_tensors: int) -> None:
        super().__init__()
        self._weights = num_numbers
        self._largest = max(_FREE_NUMBERS, 16 * num_numbers)
        self._numbers = 4 * self._largest
        self._operations = _FREE_OPERATIONS + 100 * num_tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        sizes, is_new = _sizes(func, args, kwargs)
        self._operations -= 1
        self._numbers -= sum(sizes) if is_new else 0
        if max(sizes, default=0) > self._largest or self._numbers < 0 or self._operations < 0:
            raise RuntimeError(
                f"its hyperparameters ask for networks far larger than its {self._weights:,} weights"
            )
        return func(*args, **kwargs)


def _sizes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[int], bool]:
    """Numbers in each tensor that an operation will return, and whether it takes no other tensor."""
    is_new = not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs)))
    if is_new:
        kwargs = {**kwargs, "device": torch.device("meta")}
    args, kwargs = tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), (args, kwargs))
    try:
        results = func(*args, **kwargs)
    except (NotImplementedError, RuntimeError, TypeError):
        return [], is_new  # depends on values, hence returns little; or an error that will come again
    return [leaf.numel() for leaf in tree_leaves(results) if isinstance(leaf, Tensor)], is_new
