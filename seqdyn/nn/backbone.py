"""The noise-predicting network of TSDiff: residual S4 blocks with a gate, shifted by the diffusion step.

Inside, activations are channels first, (D, B, L): every linear map is then one matrix product and every
convolution runs along contiguous time, without a transposed copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from seqdyn.nn.block import BlockOperators, S4Block, gate
from seqdyn.nn.embeddings import StepEmbedding
from seqdyn.nn.parts import sum_over_parts

__all__ = ["FrozenBackbone", "Operators", "S4Backbone"]

# A processor works through so many activations at a time, which its second-level cache holds.
_CACHE_ELEMENTS = 2**17


class Operators(NamedTuple):
    """A network with the work done that depends on its parameters alone, as :func:`predict` needs it."""

    blocks: tuple[BlockOperators, ...]
    encode: Tensor  # (D, C)
    encode_bias: Tensor  # (D, 1)
    head_bias: Tensor  # (D, 1); the head's weight is folded into the skips
    decode: Tensor  # (D, C)
    decode_bias: Tensor  # (C,)


class S4Backbone(nn.Module):
    """Predict the noise in a diffused window: (B, L, C) and steps (B,) to (B, L, C).

    Args:
        num_channels: Diffused channels C.
        length: Window length L.
        hidden_size: Width D.
        num_blocks: Residual blocks R.
        state_size: S4 states N per channel.
        embedding_size: Sinusoids E of the step embedding.
        num_covariates: Covariates F per time step; 0 creates no weights for them.
        kernel: Kind of S4 kernel, see :class:`S4Layer`.
        init_skip: Add the input to the output.

    Source: Kollovieh et al. (2023), arXiv 2307.11494, appendix on architecture.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        length: int,
        hidden_size: int = 64,
        num_blocks: int = 3,
        state_size: int = 128,
        embedding_size: int = 128,
        num_covariates: int = 0,
        kernel: str = "nplr-legs",
        init_skip: bool = False,
    ) -> None:
        super().__init__()
        self.num_channels, self.length, self.init_skip = num_channels, length, init_skip
        self.embedding = StepEmbedding(embedding_size, hidden_size)
        self.encode = nn.Linear(num_channels, hidden_size)
        blocks = [S4Block(hidden_size, length, state_size, num_covariates, kernel) for _ in range(num_blocks)]
        self.blocks: Sequence[S4Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        # Nothing reads the last residual: it is kept, as published, and frozen, because training in several
        # processes waits for the gradient of every parameter that wants one.
        blocks[-1].residual.requires_grad_(False)
        self.head = nn.Linear(hidden_size, hidden_size)
        self.decode = nn.Linear(hidden_size, num_channels)

    def windows_at_a_time(self, device: torch.device) -> int:
        """How many windows are worked on together: on a processor as many as its second-level cache holds."""
        if device.type != "cpu":
            return 1024
        return max(1, _CACHE_ELEMENTS // (len(self.head.bias) * self.length))

    def operators(self) -> Operators:
        """Everything a pass needs, once per training step and once per sampling call.

        The head is linear in the skips, and a block's shift in the residual biases before it: both are
        folded.
        """
        blocks, residual_bias = [], torch.zeros_like(self.head.bias)[:, None]
        skip_bias = torch.zeros_like(residual_bias)
        for block in self.blocks:
            raw = block.operators()
            blocks.append(raw._replace(skip=self.head.weight @ raw.skip, residual_bias=residual_bias))
            residual_bias, skip_bias = residual_bias + raw.residual_bias, skip_bias + raw.skip_bias
        return Operators(
            blocks=tuple(blocks),
            encode=self.encode.weight,
            encode_bias=self.encode.bias[:, None],
            head_bias=self.head.weight @ skip_bias + self.head.bias[:, None],
            decode=self.decode.weight.mT,
            decode_bias=self.decode.bias,
        )

    def shifts(self, step: Tensor) -> Tensor:
        """Each block's shift at the given steps (B,), as (R, D, B)."""
        tau = self.embedding(step)
        return torch.stack([block.shift(tau).mT for block in self.blocks])

    def forward(self, x: Tensor, step: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Args:
            x: Diffused window, (B, L, C).
            step: Diffusion steps, int64 (B,).
            covariates: Known covariates, (B, L, F), if the network was built with them.

        Returns:
            Noise estimate, (B, L, C).
        """
        return self._finish(predict(x, self.shifts(step), self.operators(), covariates), x)

    def sum_over_windows(
        self,
        function: Callable[[Tensor, slice], Tensor],
        x: Tensor,
        step: Tensor,
        covariates: Tensor | None = None,
    ) -> Tensor:
        """A sum over windows of a function of the prediction, differentiable with respect to the parameters.

        Equal to ``function(self(x, step, covariates), slice(None))``, in a fraction of the memory: see
        :func:`~seqdyn.nn.parts.sum_over_parts`.

        Args:
            function: ``function(prediction, rows)``, the sum over the windows in the slice ``rows``.
            x: Diffused windows, (B, L, C).
            step: Diffusion steps, int64 (B,).
            covariates: Known covariates, (B, L, F).

        Returns:
            The sum, a scalar.
        """
        leaves, tree = pytree.tree_flatten((self.shifts(step), self.operators()))

        def part(rows: slice, shared: Sequence[Tensor | None]) -> Tensor:
            shifts, operators = pytree.tree_unflatten(list(shared), tree)
            known = None if covariates is None else covariates[rows]
            return function(
                self._finish(predict(x[rows], shifts[..., rows], operators, known), x[rows]), rows
            )

        return sum_over_parts(part, len(x), self.windows_at_a_time(x.device), leaves)

    def _finish(self, noise: Tensor, x: Tensor) -> Tensor:
        return noise + x if self.init_skip else noise


def predict(x: Tensor, shifts: Tensor, operators: Operators, covariates: Tensor | None = None) -> Tensor:
    """The part of a pass that depends on the data.

    Args:
        x: Diffused windows, (B, L, C).
        shifts: Shift of each block by the diffusion step, (R, D, B).
        operators: What :meth:`S4Backbone.operators` returned.
        covariates: Known covariates, (B, L, F).

    Returns:
        Noise estimate without the initial skip, (B, L, C).
    """
    batch, length, channels = x.shape
    h = torch.addmm(operators.encode_bias, operators.encode, x.reshape(-1, channels).mT)
    h = h.relu_().unflatten(1, (batch, length))
    if covariates is not None:
        covariates = covariates.permute(2, 0, 1)
    total, last = operators.head_bias, operators.blocks[-1]
    for block, shift in zip(operators.blocks, shifts.unbind(0), strict=True):
        g = gate(h, (shift + block.residual_bias)[..., None], block, covariates).flatten(1)
        total = _add(total, block.skip, g)
        if block is not last:  # nothing reads the last residual
            h = _add(h.flatten(1), block.residual, g).view_as(h)
    return torch.addmm(operators.decode_bias, total.relu_().mT, operators.decode).view(
        batch, length, channels
    )


def _add(base: Tensor, weight: Tensor, g: Tensor) -> Tensor:
    """``base + weight @ g``, in place where no gradient needs the old values and nothing expands."""
    if torch.is_grad_enabled() or base.shape != g.shape:
        return torch.addmm(base, weight, g)
    return base.addmm_(weight, g)


class FrozenBackbone:
    """A network for sampling: all that depends on its parameters is computed once, gradients flow to ``x``
    only.

    Calls are ``predict_noise(x, step)`` as the samplers expect, or ``(x, step, covariates)``.

    Args:
        network: The network; later training does not reach this object.
        num_diffusion_steps: Number of steps T whose shifts are tabulated.
    """

    @torch.no_grad()
    def __init__(self, network: S4Backbone, num_diffusion_steps: int) -> None:
        steps = torch.arange(num_diffusion_steps, device=network.encode.weight.device)
        self._shifts = network.shifts(steps)
        # A copy: some operators are the parameters themselves.
        self._operators = pytree.tree_map_only(Tensor, torch.clone, network.operators())
        self._part_size = network.windows_at_a_time(steps.device)
        self._finish = network._finish

    def __call__(self, x: Tensor, step: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Predict the noise in ``x`` (B, L, C) at ``step`` (B,)."""
        noise = []
        for start in range(0, len(x), self._part_size):
            rows = slice(start, start + self._part_size)
            known = None if covariates is None else covariates[rows]
            noise.append(predict(x[rows], self._shifts[:, :, step[rows]], self._operators, known))
        return self._finish(noise[0] if len(noise) == 1 else torch.cat(noise), x)
