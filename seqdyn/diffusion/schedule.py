"""Noise schedules of discrete diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqdyn._arguments import check_count

__all__ = ["NoiseSchedule", "Transition"]


class Transition(NamedTuple):
    r"""One reverse step :math:`x_u \sim N(c_0 \hat x_0 + c_1 x_t,\; v)` of the Gaussian posterior, as plain
    numbers.
    """

    estimate: float  # c_0
    current: float  # c_1
    variance: float  # v


class NoiseSchedule(nn.Module):
    r"""A discrete schedule of T steps, index 0 to T - 1.

    .. math::
        x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
        \bar\alpha_t = \prod_{i \le t} (1 - \beta_i), \qquad \bar\alpha_{-1} = 1

    Args:
        betas: Variances :math:`\beta_t` added at each step, T numbers in (0, 1).

    Raises:
        ValueError: If a beta lies outside (0, 1).
    """

    beta: Tensor
    alpha_bar: Tensor

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        super().__init__()
        beta = torch.as_tensor(betas, dtype=torch.float64)
        bad = (~((beta > 0) & (beta < 1))).nonzero()
        if beta.ndim != 1 or not len(beta) or len(bad):
            where = (
                f"beta[{int(bad[0])}] = {float(beta[bad[0]]):.3g}"
                if len(bad)
                else f"shape {tuple(beta.shape)}"
            )
            raise ValueError(
                f"betas must be a list of numbers strictly between 0 and 1, got {where}; "
                "for the usual schedule type NoiseSchedule.linear(100)."
            )
        alpha_bar = torch.cumprod(1 - beta, dim=0)
        # Samplers read exact host numbers (a device buffer would cost a synchronisation at every step).
        self._alpha_bar = (*alpha_bar.tolist(), 1.0)
        self.register_buffer("beta", beta.to(torch.get_default_dtype()))
        self.register_buffer("alpha_bar", alpha_bar.to(torch.get_default_dtype()))

    @classmethod
    def linear(
        cls, num_diffusion_steps: int, beta_start: float = 1e-4, beta_end: float = 0.1
    ) -> NoiseSchedule:
        """Betas equally spaced from ``beta_start`` to ``beta_end``: TSDiff's schedule."""
        return cls(torch.linspace(beta_start, beta_end, _positive(num_diffusion_steps), dtype=torch.float64))

    @classmethod
    def cosine(cls, num_diffusion_steps: int, offset: float = 0.008) -> NoiseSchedule:
        r"""Betas from :math:`\bar\alpha(u) \propto \cos^2\left(\frac{u/T + o}{1 + o} \frac{\pi}{2}\right)`,
        clipped to [1e-4, 0.9999].
        """
        u = torch.arange(_positive(num_diffusion_steps) + 1, dtype=torch.float64) / num_diffusion_steps
        level = torch.cos((u + offset) / (1 + offset) * math.pi / 2).square()
        return cls((1 - level[1:] / level[:-1]).clamp(1e-4, 0.9999))

    @property
    def num_diffusion_steps(self) -> int:
        """Number of steps T."""
        return len(self._alpha_bar) - 1

    def level(self, step: int) -> float:
        r""":math:`\bar\alpha` at ``step``, which may be -1 for clean data."""
        return self._alpha_bar[step]

    def add_noise(self, x0: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Diffuse clean windows ``x0`` (B, L, C) to steps (B,) with standard normal ``noise`` (B, L, C)."""
        signal, spread = self.scales(step, x0)
        return signal * x0 + spread * noise

    def scales(self, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}` at steps (B,)."""
        level = self.alpha_bar[step].to(like.dtype).view(-1, *[1] * (like.ndim - 1))
        return level.sqrt(), (1 - level).sqrt()

    def transition(self, step: int, to: int) -> Transition:
        r"""The posterior :math:`q(x_u \mid x_t, x_0)` from ``step`` t back to ``to`` u (-1: clean data).

        .. math::
            b = 1 - \bar\alpha_t / \bar\alpha_u, \quad
            c_0 = \frac{\sqrt{\bar\alpha_u}\, b}{1 - \bar\alpha_t}, \quad
            c_1 = \frac{\sqrt{\bar\alpha_t / \bar\alpha_u}\,(1 - \bar\alpha_u)}{1 - \bar\alpha_t}, \quad
            v = \frac{b\,(1 - \bar\alpha_u)}{1 - \bar\alpha_t}

        For u = t - 1 this is the usual ancestral step.
        """
        now, then = self.level(step), self.level(to)
        added = 1 - now / then
        return Transition(
            estimate=math.sqrt(then) * added / (1 - now),
            current=math.sqrt(now / then) * (1 - then) / (1 - now),
            variance=added * (1 - then) / (1 - now),
        )

    def reverse_steps(self, num_steps: int | None = None) -> list[tuple[int, int]]:
        """Pairs (step, next step) of a reverse run over the steps 0, m, 2m, ... with m = T / ``num_steps``.

        Raises:
            ValueError: If ``num_steps`` does not divide T.
        """
        total = self.num_diffusion_steps
        count = total if num_steps is None else check_count(num_steps, "num_steps", hint=f"all are {total}")
        if total % count:
            divisors = [n for n in range(1, total + 1) if total % n == 0]
            below, above = [n for n in divisors if n < count], [n for n in divisors if n > count]
            near = below[-1:] + above[:1]
            raise ValueError(
                f"num_steps must divide the {total} diffusion steps, got {num_steps!r}; "
                f"try num_steps={' or '.join(map(str, near))}."
            )
        stride = total // count
        steps = range(total - stride, -1, -stride)
        return [(step, step - stride if step else -1) for step in steps]


def _positive(num_diffusion_steps: int) -> int:
    if num_diffusion_steps < 1:
        raise ValueError(
            f"num_diffusion_steps must be at least 1, got {num_diffusion_steps}; the usual number is 100."
        )
    return num_diffusion_steps
