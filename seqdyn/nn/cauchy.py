r"""Sums of a state-space kernel over its poles, with an analytic gradient.

With poles ``w`` in conjugate pairs and nodes :math:`z = i\zeta` on the imaginary axis, every sum of the S4
kernel is a real combination of :math:`R_{nk} = 1 / (|w_n|^2 - \zeta_k^2 - 2 i \zeta_k \mathrm{Re}\,w_n)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["pole_sums"]

# Channels are worked on in groups whose (states x nodes) tables stay in a processor's second-level cache.
_CACHE_ELEMENTS = 2**17


def pole_sums(rows: Tensor, real: Tensor, imag: Tensor, zeta: Tensor) -> Tensor:
    r"""Evaluate :math:`\sum_n m_{hqn} R_{hnk}`.

    Args:
        rows: Real coefficients m, (H, Q, N).
        real: Real parts of the poles, (H, N).
        imag: Imaginary parts of the poles, (H, N).
        zeta: Nodes, (K,).

    Returns:
        Complex sums, (H, Q, K).
    """
    sums = _PoleSums.apply(rows, real, imag, zeta)
    return torch.complex(*sums.unflatten(-1, (2, -1)).unbind(-2))


class _PoleSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, real: Tensor, imag: Tensor, zeta: Tensor) -> Tensor:
        out = rows.new_empty(*rows.shape[:2], 2 * len(zeta))
        table = rows.new_empty(*real.shape, 2 * len(zeta))
        for part in _groups(real, zeta):
            # |w|^2 - zeta^2 as a product of differences: exact where a pole meets a node.
            y = imag[part, :, None]
            a = (y - zeta).mul_(y + zeta).add_(real[part].square()[..., None])
            d = (2 * real[part])[..., None] * zeta
            norm = (a * a).addcmul_(d, d)
            k = len(zeta)
            torch.div(a, norm, out=table[part, :, :k])
            torch.div(d, norm, out=table[part, :, k:])
            torch.bmm(rows[part], table[part], out=out[part])
        ctx.save_for_backward(rows, real, imag, zeta, table)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, real, imag, zeta, table = ctx.saved_tensors
        grad_rows, k = torch.empty_like(rows), len(zeta)
        # Only two moments over the nodes reach the poles: sums of grad * R^2, plain and weighted with zeta.
        by_a, by_d = torch.empty_like(real), torch.empty_like(real)
        for part in _groups(real, zeta):
            torch.bmm(grad[part], table[part].mT, out=grad_rows[part])
            g = rows[part].mT @ grad[part]
            x, y, gx, gy = table[part, :, :k], table[part, :, k:], g[..., :k], g[..., k:]
            square_real = (x * x).addcmul_(y, y, value=-1)
            square_imag = (x * y).mul_(2)
            by_a[part] = -((gx * square_real).addcmul_(gy, square_imag)).sum(-1)
            by_d[part] = (gy * square_real).addcmul_(gx, square_imag, value=-1) @ zeta
        return grad_rows, 2 * (real * by_a + by_d), 2 * imag * by_a, None


def _groups(real: Tensor, zeta: Tensor) -> list[slice]:
    channels, states = real.shape
    size = channels if real.is_cuda else max(1, _CACHE_ELEMENTS // (states * len(zeta)))
    return [slice(start, start + size) for start in range(0, channels, size)]
