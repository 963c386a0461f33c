r"""The bridge by iterative proportional fitting with regression of drifts: no transition density is needed.

The bridge between two snapshots is the limit of half-bridges. Each has one of the snapshots exactly and keeps
all else of the one before it: run a process from one end, learn its reversal, run that from the snapshot at
the other end, learn its reversal, and so on, starting with the reference,

.. math::
    P_0 = P_\theta, \qquad P_{2i+1} = \arg\min_{Q_{t_{k+1}} = \mu_{k+1}} KL(Q \,\|\, P_{2i}), \qquad
    P_{2i+2} = \arg\min_{Q_{t_k} = \mu_k} KL(Q \,\|\, P_{2i+1}) .

Two departures from the published form, which regresses on the increments of simulated paths. Paths are drawn
anew between their ends, from the reference pinned there, before they are regressed on
(:func:`seqdyn.sde.half_bridges.reversal`); else the reference is forgotten over the projections. And where
the noise is small against the way to go, so that the first half-bridges would not meet, projections with more
noise come first.

Source: Vargas, Thodoroff, Lamacraft & Lawrence (2021), arXiv 2106.02081, for the regression by Gaussian
processes; Shi, De Bortoli, Campbell & Doucet (2023), arXiv 2303.16852, for the pinned paths, and Kholkin et
al., arXiv 2410.02601, for the limit being the same from any first process.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.errors import NonFiniteError
from seqdyn.rng import ambient_seed, fork_rng
from seqdyn.sde.chain import Reference, bridge_paths
from seqdyn.sde.gaussian_process import GaussianProcess
from seqdyn.sde.half_bridges import HalfBridge, reversal
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.regression import BridgePaths
from seqdyn.sde.sampling import systematic

__all__ = ["ProjectedChain", "Settings", "least_paths", "project"]

_COOLINGS = 10  # most of them
_COOLING = 4.0  # factor from one noise to the next
_LOOSE = 0.5  # error above which half-bridges do not meet
_WARM_NATS = 3.0  # half the squared way to go, in units of the noise, at which half-bridges meet


class Settings(NamedTuple):
    """How a bridge is projected.

    Attributes:
        num_projections: Pairs of half-bridges, after the first one and those with more noise.
        num_steps: Equal time steps in each interval.
        num_paths: Paths from which each half-bridge is learned; more make it more accurate.
        num_centres: Centres of each regression, see :func:`seqdyn.sde.gaussian_process.fit_process`.
        refill: Whether to draw paths anew between their ends; ``False`` is the published form, which drifts
            away from the reference over the projections.
        anneal: Whether to begin with more noise where the half-bridges would not meet.
    """

    num_projections: int = 10
    num_steps: int = 50
    num_paths: int = 400
    num_centres: int = 50
    refill: bool = True
    anneal: bool = True


_DEFAULTS = Settings()


class ProjectedChain:
    """A bridge through the snapshots of some intervals, as a process in either direction of time.

    Its paths are exact at one snapshot each, where they start; at the others they are as good as what was
    learned, see ``error``. Made by :func:`project`.

    Args:
        reference: The reference process.
        intervals: Its intervals.
        forward: The process from the sources of each interval, with a copy of the reference.
        backward: The process from its targets, likewise.
        settings: How they were found.
        seed: Seed of the projections.
        measured: ``error`` and ``value`` that were found before; simulated by default.

    Attributes:
        error: How far each of the two processes ends from the snapshot there, the larger of the two, (K,):
            the 2-Wasserstein distance of Gaussians with their moments, relative to the spread of the snapshot
            and the noise together. It does not see shapes.
        value: Relative entropy of the forward process to the reference in nats, (K,), with the excess that
            the noise of the regressions adds.
    """

    def __init__(
        self,
        reference: Reference,
        intervals: Intervals,
        forward: HalfBridge,
        backward: HalfBridge,
        settings: Settings,
        seed: int,
        measured: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.reference, self.intervals = reference, intervals
        self.forward, self.backward, self.settings, self.seed = forward, backward, settings, seed
        self.error, self.value = self._measured() if measured is None else measured

    def _measured(self) -> tuple[Tensor, Tensor]:
        intervals = self.intervals
        with fork_rng(self.seed):
            there, back = self._runs(self.settings.num_paths, self.settings.num_paths)
        error = torch.maximum(
            _mismatch(there[-1], intervals.target, intervals.target_weight, self._noise()),
            _mismatch(back[-1], intervals.source, intervals.source_weight, self._noise()),
        )
        return error, self.forward.effort(there)

    @property
    def is_solved(self) -> bool:
        """Whether the half-bridges meet: no error is above a half. Sampling alone makes a tenth or two."""
        return bool((self.error < _LOOSE).all())

    @property
    def complaint(self) -> str:
        """What is wrong with a bridge that is not solved, and what to do."""
        return (
            f"half-bridges end {float(self.error.max()):.2g} away from a snapshot, in units of its spread "
            "and the noise: they do not meet. Raise the volatility, or num_projections and "
            "projection_paths, start from a reference nearer to the data, or use solver='static'."
        )

    @property
    def solution(self) -> Tensor:
        """What was found, a row of numbers for each interval, for :meth:`restored`."""
        learned = [part.packed() for half in (self.forward, self.backward) for part in half.learned]
        return torch.cat([torch.stack([self.error, self.value], dim=1), *learned], dim=1)

    @classmethod
    def restored(
        cls, reference: Reference, intervals: Intervals, settings: Settings, seed: int, solution: Tensor
    ) -> ProjectedChain:
        """The bridge of a reference that has this solution."""
        still = _frozen(reference)
        rows = solution[:, 2:].chunk(2 * settings.num_steps, dim=1)
        learned = [GaussianProcess.unpacked(part, intervals.source.shape[-1]) for part in rows]
        first = HalfBridge(still, intervals.start, intervals.duration, False, learned[: settings.num_steps])
        second = first._replace(backward=True, learned=learned[settings.num_steps :])
        measured = solution[:, 0], solution[:, 1]
        return cls(reference, intervals, first, second, settings, seed, measured)

    def walk(self, indices: Sequence[int], num_samples: int, fractions: Sequence[Tensor]) -> list[Tensor]:
        """Paths through neighbouring intervals: states (F_k, S, C) at fractions (F_k,) of each of them.

        Each path starts at a particle of one of the snapshots, equally many at each, and runs from there to
        both ends. They are lines of descent of the last targets: where sources multiply, from the last
        snapshot on after whose interval none does any more.
        """
        starts = self._anchors(indices, num_samples)
        later, behind = [], starts[-1]
        for place in reversed(range(len(indices))):
            states, end = _reach(self.backward.only(indices[place]), behind, 1 - fractions[place].flip(0))
            later.append(states.flip(0))
            behind = torch.cat([starts[place], end])
        found, ahead = [], starts[0]
        for place, states in enumerate(reversed(later)):
            earlier, end = _reach(self.forward.only(indices[place]), ahead, fractions[place])
            found.append(torch.cat([earlier, states], dim=1))
            ahead = torch.cat([end, starts[place + 1]])
        return found

    def _anchors(self, indices: Sequence[int], num_samples: int) -> list[Tensor]:
        """Particles of each snapshot at which paths start.

        The sources of an interval are drawn by their offspring in it, which is by their descendants at the
        end unless those multiply again.
        """
        intervals = self.intervals
        first = max((k for k in range(1, len(indices)) if self._multiplies(indices[k])), default=0)
        count = len(indices) + 1 - first
        sizes = [0] * first + [(num_samples + i) // count for i in range(count)]
        ends = [(intervals.source[k], intervals.source_weight[k]) for k in indices]
        ends.append((intervals.target[indices[-1]], intervals.target_weight[indices[-1]]))
        return [x[systematic(weight, size)] for (x, weight), size in zip(ends, sizes, strict=True)]

    def _multiplies(self, index: int) -> bool:
        """Whether the sources of an interval have other weights than as targets of the one before."""
        before, now = self.intervals.target_weight[index - 1], self.intervals.source_weight[index]
        size = min(len(before), len(now))  # of the particles; the rest is padding
        return not torch.allclose(before[:size], now[:size], rtol=1e-9, atol=0)

    def sample(self, index: int, num_samples: int, fractions: Tensor, share: Tensor | None = None) -> Tensor:
        """States (F, S, C) of paths of the bridge at fractions (F,) of an interval.

        ``share`` (N,) are factors to the weights of the sources; all paths then start at sources.
        """
        if share is None:
            return self.walk([index], num_samples, [fractions])[0]
        weight = self.intervals.source_weight[index] * share
        x = self.intervals.source[index][systematic(weight, num_samples)]
        return _reach(self.forward.only(index), x, fractions)[0]

    @torch.no_grad()
    def drift(self, index: int, x: Tensor, time: float) -> Tensor:
        """Drift of the forward process at states (N, C) and a time within an interval."""
        start, duration = float(self.intervals.start[index]), float(self.intervals.duration[index])
        learned = self.forward.only(index).correction(x[None], (time - start) / duration)
        return self.forward.reference.drift(x, time) + learned[0]

    def paths(self, num_paths: int, num_steps: int) -> BridgePaths:
        """Draw paths in every interval, from the ambient random stream, as data for a regression.

        Their ends are those of paths in both directions, equally many; in between they are pinned.
        """
        there, back = self._runs((num_paths + 1) // 2, num_paths // 2)
        a, b = torch.cat([there[0], back[-1]], dim=1), torch.cat([there[-1], back[0]], dim=1)
        return bridge_paths(self.forward.reference, self.intervals, a, b, num_steps)

    def again(self, reference: Reference) -> ProjectedChain:
        """The bridge of another reference through the same snapshots, with the same noise."""
        return _project(reference, self.intervals, self.settings, self.seed, self)

    def _runs(self, ahead: int, behind: int) -> tuple[Tensor, Tensor]:
        """Paths of the forward and the backward process on the grid of their steps, (m + 1, K, N, C)."""
        grid = _grid(self.settings.num_steps, self.intervals.start)
        there = self.forward.run(_starts(self.intervals, ahead, backward=False), grid)
        return there, self.backward.run(_starts(self.intervals, behind, backward=True), grid)

    def _noise(self) -> Tensor:
        """Variance (K,) that the noise adds over an interval, of all coordinates together."""
        return self.intervals.duration * self.forward.reference.noise.trace()


def project(
    reference: Reference,
    intervals: Intervals,
    settings: Settings = _DEFAULTS,
    *,
    seed: int | None = None,
    start: ProjectedChain | None = None,
) -> ProjectedChain:
    """Solve the bridge of each interval by alternating half-bridges.

    Args:
        reference: The reference process.
        intervals: The intervals.
        settings: How it is projected.
        seed: Seed; ``None`` takes one from the ambient stream.
        start: A bridge of a similar reference to start from.

    Raises:
        NonFiniteError: If simulated paths leave the finite numbers.
        ValueError: If a number is out of range.
    """
    for name in ("num_projections", "num_steps", "num_centres"):
        check_count(getattr(settings, name), name)
    size = intervals.source.shape[-1]
    hint = f"{size} coordinates need as many"
    check_count(settings.num_paths, "num_paths", least=least_paths(size), hint=hint)
    return _project(reference, intervals, settings, ambient_seed(seed) % 2**62, start)


def least_paths(size: int) -> int:
    """Fewest paths from which a half-bridge in so many coordinates can be learned."""
    return 2 * size + 4


def _project(
    reference: Reference,
    intervals: Intervals,
    settings: Settings,
    seed: int,
    start: ProjectedChain | None,
) -> ProjectedChain:
    grid = _grid(settings.num_steps, intervals.start)
    frozen = _frozen(reference)

    def run(half: HalfBridge, factor: float) -> Tensor:
        noisy = half._replace(reference=half.reference._replace(noise=frozen.noise * factor))
        return noisy.run(_starts(intervals, settings.num_paths, backward=half.backward), grid)

    def projected(half: HalfBridge, number: int, factor: float) -> HalfBridge:
        # Noise of its own for each projection: the same one in all of them would push all the same way.
        with fork_rng(seed + number):
            noisy = frozen._replace(noise=frozen.noise * factor)
            return _reversed(run(half, factor), half._replace(reference=noisy), settings)

    first = HalfBridge(frozen, intervals.start, intervals.duration, backward=False)
    half = first if start is None else start.forward
    factors = [1.0] * settings.num_projections
    if settings.anneal:
        with fork_rng(seed):
            factors = [*_warm(run(half, 1.0)[-1], intervals, reference.noise), *factors]
    backward = projected(half, 0, factors[0])
    for number, factor in enumerate(factors):
        forward = projected(backward, 2 * number + 1, factor)
        backward = projected(forward, 2 * number + 2, factor)
    return ProjectedChain(
        reference,
        intervals,
        forward._replace(reference=frozen),
        backward._replace(reference=frozen),
        settings,
        seed,
    )


def _reversed(paths: Tensor, half: HalfBridge, settings: Settings) -> HalfBridge:
    """The reversal, or an error where there is none in finite numbers."""
    finite = torch.isfinite(paths).all(dim=3).all(dim=2).all(dim=0)
    try:
        if bool(finite.all()):
            return reversal(paths, half, settings.num_centres, refill=settings.refill)
    except torch.linalg.LinAlgError:
        pass
    where = f"interval {int((~finite).nonzero()[0])}" if not bool(finite.all()) else "an interval"
    raise NonFiniteError(
        f"half-bridges leave the finite numbers in {where}: the reference runs away where the other snapshot "
        "lies; raise the volatility or the number of steps, choose another family, or use solver='static'."
    )


def _warm(ends: Tensor, intervals: Intervals, noise: Tensor) -> list[float]:
    """Factors of the noise, falling towards 1, for the projections before those at the noise itself.

    Args:
        ends: Where the first process arrives, (K, N, C).
        intervals: The intervals.
        noise: S = σσᵀ, (C, C).
    """
    aim = (intervals.target_weight[..., None] * intervals.target).sum(dim=1)
    way = torch.linalg.solve_triangular(
        torch.linalg.cholesky(noise), (aim - ends.mean(dim=1)).mT, upper=False
    )
    nats = float((way.square().sum(dim=0) / intervals.duration / 2).max())
    # A first process that left the finite numbers is for the projections to report.
    count = math.ceil(math.log(max(1.0, nats / _WARM_NATS), _COOLING)) if math.isfinite(nats) else 0
    count = min(count, _COOLINGS)
    return [_COOLING**power for power in range(count, 0, -1)]


def _mismatch(x: Tensor, y: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """Relative distance (K,) of the moments of x (K, N, C) from those of y (K, M, C) with weights (K, M)."""
    equal = torch.full_like(x[..., 0], 1 / x.shape[1])
    (mean_x, root_x), (mean_y, root_y) = _moments(x, equal), _moments(y, weight)
    overlap = torch.linalg.svdvals(root_x @ root_y).sum(dim=-1)
    spread_x, spread_y = (root.square().sum(dim=(-2, -1)) for root in (root_x, root_y))
    square = (mean_x - mean_y).square().sum(dim=-1) + spread_x + spread_y - 2 * overlap
    return (square.clamp(min=0) / (spread_y + noise)).sqrt()


def _moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (K, C) and root (K, C, C) of the covariance of weighted clouds."""
    mean = (weight[..., None] * x).sum(dim=1)
    about = x - mean[:, None]
    values, vectors = torch.linalg.eigh(about.mT @ (weight[..., None] * about))
    return mean, (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def _frozen(reference: Reference) -> Reference:
    """A copy: a refit changes the drift in place, and what was learned belongs to the drift as it is now."""
    return reference._replace(drift=copy.deepcopy(reference.drift).requires_grad_(False))


def _grid(num_steps: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, num_steps + 1, dtype=like.dtype, device=like.device)


def _starts(intervals: Intervals, num_paths: int, *, backward: bool) -> Tensor:
    """Particles (K, N, C) of the snapshot at which a process starts, drawn with their weights."""
    clouds, weights = (
        (intervals.target, intervals.target_weight)
        if backward
        else (intervals.source, intervals.source_weight)
    )
    return torch.stack([x[systematic(w, num_paths)] for x, w in zip(clouds, weights, strict=True)])


def _reach(half: HalfBridge, x: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """States (F, N, C) at fractions of one interval, and at its end (N, C), of paths from x (N, C)."""
    grid = torch.cat([_grid(len(half.learned), fractions), fractions]).unique()
    states = half.run(x[None], grid)[:, 0]
    return states[torch.searchsorted(grid, fractions.contiguous())], states[-1]
