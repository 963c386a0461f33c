"""The noise-predicting network of TSDiff: residual S4 blocks with a gate, shifted by the diffusion step.

Inside, activations are channels first, (D, B, L): every linear map is then one matrix product and every
convolution runs along contiguous time, without a transposed copy.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqdyn.nn.block import BlockOperators, S4Block
from seqdyn.nn.embeddings import StepEmbedding

__all__ = ["FrozenBackbone", "S4Backbone"]

_CACHE_ELEMENTS = 2**17


class Operators(NamedTuple):
    """What a forward pass needs from the parameters alone."""

    blocks: tuple[BlockOperators, ...]
    shift_bias: tuple[Tensor, ...]  # residual biases of the blocks before, (D, 1)
    skips: tuple[Tensor, ...]  # head weight times each block's skip weight, (D, D)
    head_bias: Tensor  # (D, 1)


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
        self.blocks = nn.ModuleList(
            S4Block(hidden_size, length, state_size, num_covariates, kernel) for _ in range(num_blocks)
        )
        self.head = nn.Linear(hidden_size, hidden_size)
        self.decode = nn.Linear(hidden_size, num_channels)

    def windows_at_a_time(self, device: torch.device) -> int:
        """How many windows are worked on together: on a processor as many as its second-level cache holds."""
        if device.type != "cpu":
            return 1024
        return max(1, _CACHE_ELEMENTS // (len(self.head.bias) * self.length))

    def operators(self) -> Operators:
        """Everything that depends on parameters only; once per training step, once per sampling call.

        The head is linear in the skips and the shifts are linear in the residual biases, so both are folded.
        """
        bias = torch.zeros_like(self.head.bias)
        shift_bias, skip_bias = [], torch.zeros_like(bias)
        for block in self.blocks:
            shift_bias.append(bias[:, None])
            bias = bias + block.residual.bias
            skip_bias = skip_bias + block.skip.bias
        return Operators(
            blocks=tuple(block.operators() for block in self.blocks),
            shift_bias=tuple(shift_bias),
            skips=tuple(self.head.weight @ block.skip.weight for block in self.blocks),
            head_bias=(self.head.weight @ skip_bias + self.head.bias)[:, None],
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
        return self.apply_operators(x, self.shifts(step), self.operators(), covariates)

    def apply_operators(
        self, x: Tensor, shifts: Tensor, operators: Operators, covariates: Tensor | None = None
    ) -> Tensor:
        """The part of :meth:`forward` that depends on the data; ``shifts`` is (R, D, B).

        A processor works through a few windows at a time, so that their activations stay in its cache.
        """
        size = self.windows_at_a_time(x.device)
        parts = zip(
            x.split(size),
            shifts.split(size, dim=-1),
            [None] * len(x) if covariates is None else covariates.split(size),
            strict=False,
        )
        return torch.cat([self._predict(part, shift, operators, known) for part, shift, known in parts])

    def _predict(self, x: Tensor, shifts: Tensor, operators: Operators, covariates: Tensor | None) -> Tensor:
        batch, length, channels = x.shape
        h = torch.addmm(self.encode.bias[:, None], self.encode.weight, x.reshape(-1, channels).mT)
        h = h.relu_().unflatten(1, (batch, length))
        if covariates is not None:
            covariates = covariates.permute(2, 0, 1)
        total, last = operators.head_bias, len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            shift = (shifts[i] + operators.shift_bias[i])[..., None]
            gate = block.gate(h, shift, operators.blocks[i], covariates)
            total = torch.addmm(total, operators.skips[i], gate.flatten(1))
            if i < last:  # nothing reads the last residual
                h = torch.addmm(h.flatten(1), block.residual.weight, gate.flatten(1)).view_as(h)
        out = torch.addmm(self.decode.bias, total.relu().mT, self.decode.weight.mT)
        out = out.view(batch, length, channels)
        return out + x if self.init_skip else out


class FrozenBackbone:
    """A network for sampling: parameters fixed, all that depends on them alone computed once.

    Gradients flow to ``x`` only. Calls are ``predict_noise(x, step)`` as the samplers expect.

    Args:
        network: The network; it is copied, so later training does not reach this object.
        num_diffusion_steps: Number of steps T whose shifts are tabulated.
    """

    def __init__(self, network: S4Backbone, num_diffusion_steps: int) -> None:
        self._network = copy.deepcopy(network).requires_grad_(False)
        with torch.no_grad():
            self._operators = self._network.operators()
            steps = torch.arange(num_diffusion_steps, device=network.encode.weight.device)
            self._shifts = self._network.shifts(steps)

    def __call__(self, x: Tensor, step: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Predict the noise in ``x`` (B, L, C) at ``step`` (B,)."""
        return self._network.apply_operators(x, self._shifts[:, :, step], self._operators, covariates)
