r"""The residual S4 block of the diffusion backbone, with a hand-written gradient.

.. math::
    z = h + \mathrm{shift}, \quad o = z + S4(\mathrm{LayerNorm}(z)) + W_u u, \quad g = \tanh(o)\,\sigma(o)

Activations are channels first, (D, B, L): every linear map is one matrix product and every convolution runs along
contiguous time. The gradient is written out because nearly all of the cost outside the matrix products is memory
traffic: in place, without saved copies, it takes half of what composed operations take.

Source: Kollovieh et al. (2023), arXiv 2307.11494, appendix on architecture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqdyn.nn.s4 import S4Layer

__all__ = ["BlockOperators", "S4Block"]


class BlockOperators(NamedTuple):
    """What a block needs from its parameters alone.

    The layer norm's gain and bias are folded into the convolution: ``spectrum`` (D, 1, F) is that of the two-sided
    kernel times the gain, ``offset`` (D, 1, L) the response to the bias.
    """

    spectrum: Tensor
    offset: Tensor


class S4Block(nn.Module):
    """One residual block; :meth:`gate` gives g, from which the backbone forms residual and skip.

    Args:
        hidden_size: Width D.
        length: Window length L.
        state_size: S4 states N per channel.
        num_covariates: Number of covariates F; 0 creates no weights for them.
        kernel: Kind of S4 kernel, see :class:`~seqdyn.nn.s4.S4Layer`.
    """

    def __init__(self, hidden_size: int, length: int, state_size: int, num_covariates: int, kernel: str) -> None:
        super().__init__()
        self.shift = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.s4 = S4Layer(hidden_size, state_size, length, kernel)
        self.covariates = nn.Linear(num_covariates, hidden_size) if num_covariates else None
        self.skip = nn.Linear(hidden_size, hidden_size)
        self.residual = nn.Linear(hidden_size, hidden_size)

    def operators(self) -> BlockOperators:
        """Everything that depends on parameters only."""
        taps = self.s4.kernel()
        spectrum, response = self.s4.operator(taps), self.s4.step_response(taps)
        return BlockOperators(
            spectrum * self.norm.weight[:, None, None], (response * self.norm.bias[:, None])[:, None]
        )

    def gate(self, h: Tensor, shift: Tensor, operators: BlockOperators, covariates: Tensor | None = None) -> Tensor:
        """The gated activation.

        Args:
            h: Input, (D, B, L).
            shift: Shift by the diffusion step, (D, B, 1) or (D, 1, 1).
            operators: What :meth:`operators` returned.
            covariates: Covariates, (F, B, L), if the block was built with them.

        Returns:
            g, (D, B, L).
        """
        drive = None
        if self.covariates is not None and covariates is not None:
            flat = self.covariates.weight @ covariates.flatten(1) + self.covariates.bias[:, None]
            drive = flat.unflatten(1, covariates.shape[1:])
        mix = self.s4.mix
        return _Gate.apply(h, shift, *operators, mix.weight, mix.bias, drive, self.s4.fft_length, self.norm.eps)


class _Gate(torch.autograd.Function):
    """z -> tanh(o) sigmoid(o) with o = z + W GELU(conv(norm(z))) + b + drive."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        shift: Tensor,
        spectrum: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor,
        drive: Tensor | None,
        fft_length: int,
        eps: float,
    ) -> Tensor:
        z = h + shift
        padded, scale = _normalise(z, fft_length, eps)
        y = torch.add(_convolve(padded, spectrum)[..., : z.shape[-1]], offset)
        o = z.flatten(1).addmm_(weight, nn.functional.gelu(y).flatten(1)).add_(bias[:, None])
        if drive is not None:
            o.add_(drive.flatten(1))
        o = o.view_as(h)
        tanh, sigmoid = torch.tanh(o), o.sigmoid_()
        ctx.save_for_backward(padded, scale, spectrum, y, weight, tanh, sigmoid)
        ctx.shift_shape = shift.shape
        return tanh * sigmoid

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, scale, spectrum, y, weight, tanh, sigmoid = ctx.saved_tensors
        wants = ctx.needs_input_grad
        length, rows = grad.shape[-1], grad.shape[0]
        # d(tanh sigmoid) = sigmoid (1 + tanh (1 - tanh - sigmoid))
        d_o = (1 - tanh).sub_(sigmoid).mul_(tanh).add_(1).mul_(sigmoid).mul_(grad)
        flat = d_o.view(rows, -1)
        d_weight = flat @ nn.functional.gelu(y).view(rows, -1).mT if wants[4] else None
        d_bias = flat.sum(1) if wants[5] else None
        d_drive = d_o.clone() if wants[6] else None
        d_y = torch.ops.aten.gelu_backward((weight.mT @ flat).view_as(d_o), y)
        d_offset = d_y.sum(1, keepdim=True) if wants[3] else None

        out_spectrum = torch.fft.rfft(d_y, n=padded.shape[-1])
        d_spectrum = _spectrum_grad(padded, out_spectrum) if wants[2] else None
        d_norm = torch.fft.irfft(out_spectrum.mul_(spectrum.conj()), n=padded.shape[-1])[..., :length]
        # Layer norm without gain: scale (d - mean d - n mean(d n)).
        n = padded[..., :length]
        inner = (d_norm * n).mean(0)
        d_z = (d_norm - d_norm.mean(0)).sub_(n * inner).mul_(scale).add_(d_o)
        d_shift = _sum_to(d_z, ctx.shift_shape) if wants[1] else None
        return d_z, d_shift, d_spectrum, d_offset, d_weight, d_bias, d_drive, None, None


def _normalise(z: Tensor, fft_length: int, eps: float) -> tuple[Tensor, Tensor]:
    """Layer norm over the leading dimension, written into a buffer already padded for the FFT."""
    padded = z.new_empty(*z.shape[:-1], fft_length)
    padded[..., z.shape[-1] :] = 0
    n = padded[..., : z.shape[-1]]
    torch.sub(z, z.mean(0), out=n)
    scale = (n * n).mean(0).add_(eps).rsqrt_()
    n.mul_(scale)
    return padded, scale


def _convolve(padded: Tensor, spectrum: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(padded).mul_(spectrum), n=padded.shape[-1])


def _spectrum_grad(padded: Tensor, out_spectrum: Tensor) -> Tensor:
    """Gradient with respect to the kernel's half spectrum; interior frequencies stand for two."""
    size = padded.shape[-1]
    grad = (torch.fft.rfft(padded).conj().resolve_conj().mul_(out_spectrum)).sum(1, keepdim=True).mul_(2 / size)
    grad[..., 0] *= 0.5
    if size % 2 == 0:
        grad[..., -1] *= 0.5
    return grad


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    x = x.sum(-1, keepdim=True)
    return x.sum(1, keepdim=True) if shape[1] == 1 else x
