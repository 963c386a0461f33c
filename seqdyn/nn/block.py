r"""The residual S4 block of the diffusion backbone, with a hand-written gradient.

.. math::
    z = h + \mathrm{shift}, \quad o = z + S4(\mathrm{LayerNorm}(z)) + W_u u, \quad g = \tanh(o)\,\sigma(o)

Activations are channels first, (D, B, L): every linear map is one matrix product and every convolution runs
along contiguous time. The gradient is written out because nearly all of the cost outside the matrix products
is memory traffic, which it saves by working in place and by keeping few copies.

Source: Kollovieh et al. (2023), arXiv 2307.11494, appendix on architecture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqdyn.nn.s4 import S4Layer

__all__ = ["BlockOperators", "S4Block", "gate"]

_EPS = 1e-5


class BlockOperators(NamedTuple):
    """A block with the work done that depends on its parameters alone.

    The layer norm's gain and bias are folded into the convolution, biases into the shift.
    """

    spectrum: Tensor  # of the two-sided kernel times the gain, (D, 1, F)
    offset: Tensor  # response to the layer norm's bias, (D, 1, L)
    mix: Tensor  # (D, D)
    mix_bias: Tensor  # (D, 1)
    residual: Tensor  # (D, D)
    residual_bias: Tensor  # (D, 1)
    skip: Tensor  # (D, D)
    skip_bias: Tensor  # (D, 1)
    drive: Tensor | None  # weight of the covariates, (D, F)
    drive_bias: Tensor | None  # (D, 1)


class S4Block(nn.Module):
    """Parameters of one residual block.

    Args:
        hidden_size: Width D.
        length: Window length L.
        state_size: S4 states N per channel.
        num_covariates: Number of covariates F; 0 creates no weights for them.
        kernel: Kind of S4 kernel, see :class:`~seqdyn.nn.s4.S4Layer`.
    """

    def __init__(
        self, hidden_size: int, length: int, state_size: int, num_covariates: int, kernel: str
    ) -> None:
        super().__init__()
        self.shift = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=_EPS)
        self.s4 = S4Layer(hidden_size, state_size, length, kernel)
        self.covariates = nn.Linear(num_covariates, hidden_size) if num_covariates else None
        self.skip = nn.Linear(hidden_size, hidden_size)
        self.residual = nn.Linear(hidden_size, hidden_size)

    def operators(self) -> BlockOperators:
        """Everything the block needs, differentiable with respect to its parameters."""
        taps, norm, drive = self.s4.kernel(), self.norm, self.covariates
        return BlockOperators(
            spectrum=self.s4.operator(taps) * norm.weight[:, None, None],
            offset=(self.s4.step_response(taps) * norm.bias[:, None])[:, None],
            mix=self.s4.mix.weight,
            mix_bias=self.s4.mix.bias[:, None],
            residual=self.residual.weight,
            residual_bias=self.residual.bias[:, None],
            skip=self.skip.weight,
            skip_bias=self.skip.bias[:, None],
            drive=None if drive is None else drive.weight,
            drive_bias=None if drive is None else drive.bias[:, None],
        )


def gate(h: Tensor, shift: Tensor, block: BlockOperators, covariates: Tensor | None = None) -> Tensor:
    """The gated activation of a block.

    Args:
        h: Input, (D, B, L).
        shift: Shift by the diffusion step, (D, B, 1) or (D, 1, 1).
        block: The block's operators.
        covariates: Covariates, (F, B, L), if the block was built with them.

    Returns:
        g, (D, B, L).
    """
    drive = None
    if block.drive is not None and block.drive_bias is not None and covariates is not None:
        drive = torch.addmm(block.drive_bias, block.drive, covariates.flatten(1)).view_as(h)
    return _Gate.apply(h, shift, block.spectrum, block.offset, block.mix, block.mix_bias, drive)


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
    ) -> Tensor:
        z = h + shift
        padded, scale = _normalise(z, 2 * (spectrum.shape[-1] - 1))
        trains = ctx.needs_input_grad[2]  # the kernel
        source = torch.fft.rfft(padded)
        result = source * spectrum if trains else source.mul_(spectrum)
        y = torch.add(torch.fft.irfft(result, n=padded.shape[-1])[..., : z.shape[-1]], offset)
        keeps = any(ctx.needs_input_grad)  # else a buffer serves twice and stays in the cache
        active = nn.functional.gelu(y) if keeps else torch.ops.aten.gelu_(y)
        o = z.flatten(1).addmm_(weight, active.flatten(1)).add_(bias)
        if drive is not None:
            o.add_(drive.flatten(1))
        o = o.view_as(h)
        tanh = torch.tanh(o) if keeps else torch.tanh(o, out=active)
        sigmoid = o.sigmoid_()
        if not keeps:
            return tanh.mul_(sigmoid)
        g = tanh * sigmoid
        # d(tanh sigmoid) = sigmoid + tanh sigmoid (1 - tanh - sigmoid)
        slope = sigmoid.addcmul_(tanh.neg_().add_(1).sub_(sigmoid), g)
        extra = (source if trains else None, active if ctx.needs_input_grad[4] else None)
        ctx.save_for_backward(padded, scale, spectrum, y, weight, slope, *extra)
        ctx.shift_shape = shift.shape
        return g

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, scale, spectrum, y, weight, slope, source, active = ctx.saved_tensors
        wants = ctx.needs_input_grad
        length, rows, size = grad.shape[-1], grad.shape[0], padded.shape[-1]
        d_o = slope * grad
        flat = d_o.view(rows, -1)
        d_weight = flat @ active.view(rows, -1).mT if wants[4] else None
        d_bias = flat.sum(1, keepdim=True) if wants[5] else None
        d_drive = d_o.clone() if wants[6] else None
        padded_d_y, d_y = _padded(d_o, size)
        torch.ops.aten.gelu_backward.grad_input((weight.mT @ flat).view_as(d_o), y, grad_input=d_y)
        d_offset = d_y.sum(1, keepdim=True) if wants[3] else None

        result = torch.fft.rfft(padded_d_y)
        d_spectrum = _spectrum_grad(source, result) if wants[2] else None
        result.mul_(spectrum.conj().resolve_conj())  # a lazy conjugate would slow down the product
        d_norm = torch.fft.irfft(result, n=size)[..., :length]
        # Layer norm without gain: scale (d - mean d - n mean(d n)).
        n = padded[..., :length]
        mean, inner = d_norm.mean(0), (d_norm * n).mean(0)
        d_z = d_o.addcmul_(d_norm, scale[None]).sub_(mean.mul_(scale))
        d_z.addcmul_(n, inner.mul_(scale)[None], value=-1)
        d_shift = _sum_to(d_z, ctx.shift_shape) if wants[1] else None
        return d_z, d_shift, d_spectrum, d_offset, d_weight, d_bias, d_drive


def _normalise(z: Tensor, fft_length: int) -> tuple[Tensor, Tensor]:
    """Layer norm over the leading dimension, written into a buffer already padded for the FFT."""
    padded, n = _padded(z, fft_length)
    torch.sub(z, z.mean(0), out=n)
    scale = (n * n).mean(0).add_(_EPS).rsqrt_()
    n.mul_(scale)
    return padded, scale


def _padded(like: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A buffer as long as the FFT, zero beyond the length of ``like``, and the part to be written."""
    padded = like.new_empty(*like.shape[:-1], size)
    padded[..., like.shape[-1] :] = 0
    return padded, padded[..., : like.shape[-1]]


def _spectrum_grad(source: Tensor, result: Tensor) -> Tensor:
    """Gradient with respect to the kernel's half spectrum, in which an inner frequency stands for two."""
    grad = source.conj().resolve_conj().mul_(result).sum(1, keepdim=True)
    grad *= 2 / (2 * (source.shape[-1] - 1))
    grad[..., [0, -1]] *= 0.5
    return grad


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    x = x.sum(-1, keepdim=True)
    return x.sum(1, keepdim=True) if shape[1] == 1 else x
