r"""Structured state-space (S4) layer: a long convolution whose kernel is a linear system's impulse response.

Per channel a complex system with diagonal-plus-rank-one matrix :math:`A = \mathrm{diag}(w) - p\,p^*`, input
``b`` and two outputs ``c`` (one per time direction) is discretised with step ``dt`` by the bilinear rule.
Only one of each conjugate pair of the ``N`` states is stored; every sum below runs over both.

The kernel is evaluated on the roots of unity :math:`\omega_k = e^{-2\pi i k/L}`, where
:math:`z_k = 2(1-\omega_k)/(1+\omega_k) = i\zeta_k`, and brought back by one inverse FFT. For a conjugate
pair, with :math:`w' = dt\,w` and any product ``v``,

.. math::
    \frac{v}{z-w'} + \frac{\bar v}{z-\bar w'}
    = \frac{2\,\mathrm{Re}(v)\,z - 2\,\mathrm{Re}(v \bar w')}{|w'|^2 - \zeta^2 - 2 i \zeta\,\mathrm{Re}(w')},

so that one reciprocal per (state, node, channel) serves all six products, and the sum over states is a real
matmul.

Sources: Gu, Goel & Ré (2022), arXiv 2111.00396; diagonal variants: Gu et al. (2022), arXiv 2206.11893.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn

from seqdyn.nn.cauchy import pole_sums

__all__ = ["KERNELS", "S4Layer", "StateSpace", "hippo_legs"]

KERNELS = ("nplr-legs", "s4d-legs", "s4d-lin")


class StateSpace(NamedTuple):
    """A discrete linear system per channel: ``x' = A x + B u``, ``y = Re(C x') + D u``, complex over all N
    states.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


def hippo_legs(state_size: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""HiPPO-LegS in diagonal-plus-rank-one form.

    The matrix :math:`A + P P^T` equals :math:`-\tfrac12 I` plus a skew-symmetric matrix, hence is
    diagonalised by a unitary V; the eigenvalues with negative imaginary part are kept, smallest first.

    Args:
        state_size: Number of states N, even.

    Returns:
        ``w``, ``p``, ``b``: eigenvalues, rank-one factor and input in the eigenbasis, each (N/2,),
        complex128.
    """
    n = torch.arange(state_size, dtype=torch.float64)
    scale = torch.sqrt(2 * n + 1)
    A = -torch.tril(scale[:, None] * scale, diagonal=-1) - torch.diag(n + 1)
    P = torch.sqrt(n + 0.5)
    skew = A + P[:, None] * P + 0.5 * torch.eye(state_size, dtype=torch.float64)
    frequency, V = torch.linalg.eigh(-1j * skew.to(torch.complex128))  # ascending
    half = state_size // 2
    basis = V[:, :half].mH
    return (
        torch.complex(torch.full((half,), -0.5, dtype=torch.float64), frequency[:half]),
        basis @ P.to(V.dtype),
        basis @ scale.to(V.dtype),
    )


class S4Layer(nn.Module):
    r"""A bidirectional S4 convolution per channel, then GELU, then a linear map across channels.

    .. math::
        y_i = \sum_{j \le i} k^0_{i-j} u_j + \sum_{j > i} k^1_{j-i-1} u_j + D u_i, \qquad
        S4(u) = W\,\mathrm{GELU}(y) + b

    Args:
        num_channels: Number of channels H.
        state_size: Number of states N per channel, even.
        length: Window length L in time steps.
        kernel: ``"nplr-legs"`` (exact S4), or the cheaper diagonal ``"s4d-legs"`` and ``"s4d-lin"``.

    Raises:
        ValueError: If ``state_size`` is odd or ``kernel`` is unknown.
    """

    def __init__(self, num_channels: int, state_size: int, length: int, kernel: str = "nplr-legs") -> None:
        super().__init__()
        if state_size < 2 or state_size % 2:
            raise ValueError(
                f"state_size must be even and at least 2, got {state_size}; try {max(2, state_size + 1)}."
            )
        if length < 2:
            raise ValueError(f"length must be at least 2 time steps, got {length}.")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {KERNELS}, got {kernel!r}.")
        self.num_channels, self.state_size = num_channels, state_size
        self.length, self.variant = length, kernel
        self.fft_length = 2 * int(next_fast_len(length, real=True))  # even, and free of wrap-around
        half, dtype = state_size // 2, torch.get_default_dtype()

        w, p, b = hippo_legs(state_size)
        if kernel == "s4d-lin":
            w = torch.complex(torch.full_like(w.real, -0.5), math.pi * torch.arange(half).to(w.real))
        self.log_neg_real = nn.Parameter(torch.log(-w.real).to(dtype).repeat(num_channels, 1))
        self.imag = nn.Parameter(w.imag.to(dtype).repeat(num_channels, 1))
        # The drawn output is c~ = c (I - A^L): a circular evaluation of length L then gives the taps exactly.
        self.output = nn.Parameter(torch.randn(2, num_channels, half, 2) * math.sqrt(0.5))
        low, high = math.log(1e-3), math.log(1e-1)
        self.log_dt = nn.Parameter(torch.rand(num_channels) * (high - low) + low)
        if kernel == "nplr-legs":
            self.input = nn.Parameter(torch.view_as_real(b).to(dtype).repeat(num_channels, 1, 1))
            self.low_rank = nn.Parameter(torch.view_as_real(p).to(dtype).repeat(num_channels, 1, 1))
        self.skip = nn.Parameter(torch.randn(num_channels))
        self.mix = nn.Linear(num_channels, num_channels)

    def kernel(self) -> Tensor:
        """Impulse responses of both directions without the skip term, (2, H, L)."""
        return self._nplr_kernel() if self.variant == "nplr-legs" else self._diagonal_kernel()

    def operator(self, taps: Tensor | None = None) -> Tensor:
        """Spectrum of the two-sided kernel, skip term included, (H, 1, F): depends on parameters only."""
        causal, anticausal = self.kernel() if taps is None else taps
        gap = causal.new_zeros(self.num_channels, self.fft_length - 2 * self.length)
        causal = torch.cat([causal[:, :1] + self.skip[:, None], causal[:, 1:]], dim=1)
        circle = torch.cat([causal, gap, anticausal.flip(1)], dim=1)
        return torch.fft.rfft(circle)[:, None]

    def step_response(self, taps: Tensor | None = None) -> Tensor:
        """Response to an input of ones, (H, L)."""
        causal, anticausal = (self.kernel() if taps is None else taps).cumsum(-1)
        before = torch.cat([anticausal[:, :-1].flip(1), anticausal.new_zeros(self.num_channels, 1)], dim=1)
        return causal + before + self.skip[:, None]

    def convolve(self, u: Tensor, operator: Tensor) -> Tensor:
        """Both convolutions and the skip term.

        Args:
            u: Input, channels first: (H, B, L).
            operator: What :meth:`operator` returned.

        Returns:
            Output before the nonlinearity, (H, B, L).
        """
        spectrum = torch.fft.rfft(u, n=self.fft_length) * operator
        return torch.fft.irfft(spectrum, n=self.fft_length)[..., : self.length]

    def forward(self, u: Tensor) -> Tensor:
        """Apply the layer to ``u``, (B, L, H)."""
        y = self.convolve(u.permute(2, 0, 1), self.operator())
        return self.mix(nn.functional.gelu(y).permute(1, 2, 0))

    @torch.no_grad()
    def state_space(self) -> StateSpace:
        """The dense discrete system whose impulse response is the kernel, in complex128.

        Returns:
            A (H, N, N), B (H, N), C (2, H, N), D (H), with ``kernel[d, h, l] = Re(C[d, h] A[h]^l B[h])``.
        """
        dt = self.log_dt.double().exp()[:, None]
        w = _pair(torch.complex(-self.log_neg_real.double().exp(), self.imag.double()))
        c = _pair(torch.view_as_complex(self.output.double()))
        skip = self.skip.double()
        if self.variant != "nplr-legs":
            pole = torch.exp(dt * w)
            return StateSpace(torch.diag_embed(pole), (pole - 1) / w, c, skip)
        p, b = (_pair(torch.view_as_complex(v.double())) for v in (self.low_rank, self.input))
        eye = torch.eye(self.state_size, dtype=w.dtype, device=w.device)
        step = 0.5 * dt[..., None] * (torch.diag_embed(w) - p[:, :, None] * p.conj()[:, None, :])
        A = torch.linalg.solve(eye - step, eye + step)
        B = torch.linalg.solve(eye - step, (dt * b)[..., None])[..., 0]
        # Row vectors: c (I - A^L) = c~, solved through the transpose.
        remainder = (eye - torch.linalg.matrix_power(A, self.length)).mT
        C = torch.linalg.solve(remainder, c[..., None])[..., 0]
        return StateSpace(A, B, C, skip)

    def _nplr_kernel(self) -> Tensor:
        """The Cauchy kernel on the roots of unity, all sums over states as one real matmul per channel."""
        L = self.length
        dt = self.log_dt.exp()[:, None]  # (H, 1)
        real, imag = -dt * self.log_neg_real.exp(), dt * self.imag  # w', (H, N/2)
        b, p = torch.view_as_complex(self.input), torch.view_as_complex(self.low_rank)
        c = torch.view_as_complex(self.output)
        right = torch.stack([c[0], c[1], p.conj()])  # (3, H, N/2)
        v = torch.stack([b * right, p * right])  # (2, 3, H, N/2): {b, p} x {c0, c1, p*}
        pole = torch.complex(real, imag)
        rows = torch.stack([v.real, (v * pole.conj()).real])  # (2, 2, 3, H, N/2)
        rows = rows.permute(3, 0, 1, 2, 4).flatten(1, 3)  # (H, 12, N/2)

        tan = torch.tan(torch.arange((L + 1) // 2, dtype=torch.float64) * (math.pi / L))
        zeta = (2 * tan).to(device=dt.device, dtype=dt.dtype)  # (K,), without the node at infinity
        sums = pole_sums(rows, real, imag, zeta).unflatten(1, (2, 2, 3))  # (H, 2, 2, 3, K)
        r = (2 * dt[..., None, None]) * (1j * zeta * sums[:, 0] - sums[:, 1])
        (b_c, b_p), (p_c, p_p) = ((r[:, i, :2], r[:, i, 2:]) for i in range(2))  # (H, 2, K), (H, 1, K)
        spectrum = (1 + 0.5j * zeta) * (b_c - b_p * p_c / (1 + p_p))
        if L % 2 == 0:  # the node omega = -1, where z is infinite
            nyquist = (dt[:, None] * v.real[0, :2].sum(-1).mT[..., None]).to(spectrum.dtype)
            spectrum = torch.cat([spectrum, nyquist], dim=-1)
        return torch.fft.irfft(spectrum, n=L).transpose(0, 1)

    def _diagonal_kernel(self) -> Tensor:
        """Zero-order-hold taps of the diagonal system with unit input, as one complex matmul per channel."""
        w = torch.complex(-self.log_neg_real.exp(), self.imag)
        exponent = self.log_dt.exp()[:, None] * w  # (H, N/2)
        weights = torch.view_as_complex(self.output) * torch.expm1(exponent) / w  # (2, H, N/2)
        taps = torch.arange(self.length, device=w.device, dtype=self.log_dt.dtype)
        powers = torch.exp(exponent[..., None] * taps)  # (H, N/2, L)
        return 2 * (weights.transpose(0, 1) @ powers).real.transpose(0, 1)


def _pair(half: Tensor) -> Tensor:
    return torch.cat([half, half.conj()], dim=-1)
