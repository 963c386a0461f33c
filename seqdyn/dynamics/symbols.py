"""Symbols of logits: the likeliest one, or a draw from their softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["SymbolKind", "gumbel_like", "symbols_of"]

SymbolKind = Literal["argmax", "sampled"]


def symbols_of(logits: Tensor, kind: SymbolKind = "argmax", gumbel: Tensor | None = None) -> Tensor:
    """Symbols (...) of logits (..., K).

    Args:
        logits: Unnormalised log-probabilities.
        kind: ``"argmax"`` for the likeliest symbol, ``"sampled"`` for a draw from softmax of the logits.
        gumbel: Standard Gumbel noise of the draw, see :func:`gumbel_like`; fresh from the ambient stream by
            default. Systems that share it draw alike.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "argmax":
        return logits.argmax(dim=-1)
    if kind != "sampled":
        raise ValueError(f"symbol must be 'argmax' or 'sampled', got {kind!r}.")
    return (logits + (gumbel_like(logits) if gumbel is None else gumbel)).argmax(dim=-1)


def gumbel_like(logits: Tensor) -> Tensor:
    """Standard Gumbel noise with the shape of the logits, from the ambient stream."""
    return -torch.empty_like(logits).exponential_().log()
