"""Sums over the windows of a batch, differentiated part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["sum_over_parts"]


def sum_over_parts(
    function: Callable[[slice, Sequence[Tensor | None]], Tensor],
    num_rows: int,
    part_size: int,
    shared: Sequence[Tensor | None],
) -> Tensor:
    """Sum a function over parts of a batch, taking each part's gradient right after its value.

    The activations of one part are alive at a time: memory does not grow with the batch, and on a processor
    they stay in its cache between the forward and the backward pass.

    Args:
        function: ``function(rows, shared)`` gives the scalar sum over the rows of the slice. Gradients flow
            only through ``shared``.
        num_rows: Number of rows B of the batch.
        part_size: Rows taken together.
        shared: What every part uses, handed to ``function`` in this order.

    Returns:
        The scalar sum. It can be differentiated once, with respect to ``shared``.
    """
    slices = [slice(start, min(start + part_size, num_rows)) for start in range(0, num_rows, part_size)]
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in shared)):
        return torch.stack([function(rows, shared) for rows in slices]).sum()
    return _SumOverParts.apply(function, slices, *shared)


class _SumOverParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], slices: Sequence[slice], *shared: Tensor | None
    ) -> Tensor:
        leaves = [None if t is None else t.detach().requires_grad_(t.requires_grad) for t in shared]
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        values: list[Tensor] = []
        gradients: list[Tensor | None] = [None] * len(wanted)
        for rows in slices:
            with torch.enable_grad():
                value = function(rows, leaves)
            new = torch.autograd.grad(value, wanted, allow_unused=True)
            gradients = [_add(total, g) for total, g in zip(gradients, new, strict=True)]
            values.append(value.detach())
        found = iter(gradients)
        wants = [leaf is not None and leaf.requires_grad for leaf in leaves]
        ctx.save_for_backward(*[next(found) if want else None for want in wants])
        return torch.stack(values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *[None if g is None else g * grad for g in ctx.saved_tensors])


def _add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Sum in a new tensor: autograd may return one tensor for two inputs, or one with a stride of 0."""
    if total is None or new is None:
        return new if total is None else total
    return total + new
