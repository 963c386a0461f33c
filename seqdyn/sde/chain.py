r"""The bridge through a sequence of snapshots, for one reference process.

For a Markov reference the bridge that has every snapshot as its marginal is a chain of bridges between
neighbours, glued so that past and future are independent given the state at a snapshot. Each is coupled by
entropic transport with the reference's own transition density as the cost, and filled with the reference's
own pinned paths:

.. math::
    \pi_k = \arg\min_\pi \langle \pi, -\log p \rangle + KL(\pi \,\|\, \mu_k \mu_{k+1}), \qquad
    L = \sum_k \langle \pi_k, -\log p \rangle + KL(\pi_k \,\|\, \mu_k \mu_{k+1}) .

L is the divergence of the bridge from the reference, up to a constant of neither; its gradient in the
reference's parameters is that of the first term at fixed :math:`\pi_k`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from seqdyn.errors import NonFiniteError
from seqdyn.ot.coupling import Coupling, couple, entropic_plan
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.pinned import PinnedPaths
from seqdyn.sde.regression import FEW, BridgePaths
from seqdyn.sde.sampling import pick, systematic
from seqdyn.sde.solvers import PairSolver
from seqdyn.sde.transition import Transition, in_blocks, transition_cost, whitener

__all__ = ["Chain", "Reference", "bridge_paths", "gradient", "is_solved", "objective"]

_ROWS = 2000  # states for which a drift is computed at once
_ENTRIES = 2**23  # of the cost matrices that are held at once, 64 MB
_STATES = 20_000  # coordinates of states through which derivatives of a drift are followed at once
_NETWORK_STATES = 2_000  # likewise of one with many parameters, which keeps about 100 kB for each
_MATRICES = 2**22  # entries of the covariances of all steps that are held at once, 32 MB
_LOOSE = 1e-3  # error of its marginals above which a coupling is no solution
_Tensors = TypeVar("_Tensors", Intervals, Transition)


class Reference(NamedTuple):
    """A reference process: drift, covariance S of its noise per unit of time (C, C), how it is solved."""

    drift: nn.Module
    noise: Tensor
    solver: PairSolver


class Chain:
    """A solved bridge through the snapshots of some intervals.

    Args:
        reference: The reference process.
        intervals: Its intervals.
        start: Potentials g (K, M) of a similar chain to start from.
        coupling: Potentials that were found before; solved anew by default.
    """

    def __init__(
        self,
        reference: Reference,
        intervals: Intervals,
        *,
        start: Tensor | None = None,
        coupling: Coupling | None = None,
    ) -> None:
        self.reference, self.intervals = reference, intervals
        with torch.no_grad():
            self.transitions = _transitions(reference, intervals)
            if coupling is None:
                groups = _groups(self.transitions, intervals, start)
                coupling = _joined([group.coupling for group in groups])
        self.coupling = coupling

    @property
    def value(self) -> Tensor:
        """L of each interval in nats, (K,)."""
        return self.coupling.value

    @property
    def error(self) -> Tensor:
        """Sum of the absolute errors of each coupling's marginals, (K,)."""
        return self.coupling.error

    @property
    def is_solved(self) -> bool:
        """Whether every coupling has its marginals, to a thousandth of the mass; else L is too low."""
        return is_solved(self.coupling)

    @property
    def complaint(self) -> str:
        """What is wrong with a bridge that is not solved, and what to do."""
        return (
            f"the coupling of two snapshots misses their weights by {float(self.error.max()):.2g} of the "
            "mass: the noise is too small against the distances for float64. Raise the volatility, or drop "
            "particles that are far from all others."
        )

    @property
    def solution(self) -> Tensor:
        """What was found, a row of numbers for each interval, for :meth:`restored`."""
        f, g, value, error, _ = self.coupling
        return torch.cat([torch.stack([error, value], dim=1), f, g], dim=1)

    @classmethod
    def restored(cls, reference: Reference, intervals: Intervals, solution: Tensor) -> Chain:
        """The bridge of a reference that has this solution."""
        error, value = solution[:, 0], solution[:, 1]
        f, g = solution[:, 2:].split([part.shape[1] for part in intervals[:2]], dim=1)
        return cls(reference, intervals, coupling=Coupling(f, g, value, error, 0))

    def cost(self, index: int) -> Tensor:
        """Costs of one interval in nats, (N, M) with padding; made anew, for all together fill the memory."""
        only = slice(index, index + 1)
        return transition_cost(_part(self.transitions, only), self.intervals.target[only])[0]

    def plan(self, index: int) -> Tensor:
        """Coupling of one interval, (N, M) with padding."""
        a, b = self.intervals.source_weight[index], self.intervals.target_weight[index]
        return entropic_plan(self.cost(index), a, b, self.coupling.f[index], self.coupling.g[index])

    def onward(self, index: int) -> Tensor:
        """Law of the target given each source of an interval, (N, M), rows with the sum 1.

        Unlike the coupling it is there for sources without weight too, the padding included.
        """
        potential = self.coupling.g[index] + self.intervals.target_weight[index].log()
        return (potential - self.cost(index)).softmax(dim=-1)

    def pairs(self, index: int, num_samples: int, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Particles at both ends of an interval, (S, C) each, drawn from the coupling.

        ``share`` (N,) are factors to the weights of the sources.
        """
        plan = self.plan(index) if share is None else self.plan(index) * share[:, None]
        here = systematic(plan.sum(dim=1), num_samples)
        there = pick(plan, here)
        return self.intervals.source[index][here], self.intervals.target[index][there]

    def fill(self, index: int, a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
        """States (F, N, C) at fractions of an interval, of pinned paths from a to b (N, C)."""
        ends = torch.tensor([0.0, 1.0], dtype=a.dtype, device=a.device)
        grid = self.reference.solver.refined(torch.cat([ends, fractions]).unique())
        wanted = torch.searchsorted(grid, fractions)
        only = _part(self.intervals, slice(index, index + 1))
        parts = _pinned(self.reference, only, a[None], b[None], grid)
        return torch.cat([paths.states[wanted, 0] for paths in parts], dim=1)

    def sample(self, index: int, num_samples: int, fractions: Tensor, share: Tensor | None = None) -> Tensor:
        """States (F, S, C) of paths of the bridge at fractions (F,) of an interval; see :meth:`pairs`."""
        return self.fill(index, *self.pairs(index, num_samples, share), fractions)

    def walk(self, indices: Sequence[int], num_samples: int, fractions: Sequence[Tensor]) -> list[Tensor]:
        """Paths through neighbouring intervals: states (F_k, S, C) at fractions (F_k,) of each of them.

        Lines of descent of the last targets, drawn by their weights: from each back to its ancestors. Where
        sources multiply, an earlier one counts by its descendants at the end.
        """
        there = systematic(self.intervals.target_weight[indices[-1]], num_samples)
        states = []
        for index, wanted in zip(reversed(indices), reversed(fractions), strict=True):
            here = pick(self.plan(index).mT, there)
            ends = self.intervals.source[index][here], self.intervals.target[index][there]
            states.append(self.fill(index, *ends, wanted) if len(wanted) else ends[0][None][:0])
            there = here
        return states[::-1]

    def paths(self, num_paths: int, num_steps: int) -> BridgePaths:
        """Draw paths in every interval, from the ambient random stream, as data for a regression."""
        pairs = [self.pairs(index, num_paths) for index in range(len(self.intervals.start))]
        a, b = (torch.stack(ends) for ends in zip(*pairs, strict=True))
        return bridge_paths(self.reference, self.intervals, a, b, num_steps)

    def again(self, reference: Reference) -> Chain:
        """The bridge of another reference through the same snapshots."""
        return Chain(reference, self.intervals, start=self.coupling.g)

    def drift(self, index: int, x: Tensor, time: float) -> Tensor:
        r"""Drift of the bridge at states (N, C) and a time within an interval, before its end.

        .. math::
            b^*(x, t) = b(x, t) + S\, \nabla_x \log \sum_j v_j e^{g_j} p(y_j | x; t_{k+1} - t)
        """
        return torch.cat([self._drift(index, rows, time) for rows in x.split(_ROWS)])

    @torch.no_grad()
    def _drift(self, index: int, x: Tensor, time: float) -> Tensor:
        reference, target = self.reference, self.intervals.target[index]
        left = float(self.intervals.start[index] + self.intervals.duration[index]) - time
        ahead = reference.solver.remaining(reference.drift, reference.noise, x, time, left)
        potential = self.coupling.g[index] + self.intervals.target_weight[index].log()
        shares = (potential - transition_cost(ahead, target)).softmax(dim=-1)
        missing = (shares @ target - ahead.mean)[..., None]
        score = ahead.tangent.mT @ torch.linalg.solve(ahead.covariance, missing)
        return reference.drift(x, time) + score[..., 0] @ reference.noise


@torch.no_grad()
def bridge_paths(
    reference: Reference, intervals: Intervals, a: Tensor, b: Tensor, num_steps: int
) -> BridgePaths:
    """Draw pinned paths from a to b (K, N, C), one for each pair of ends.

    The velocity is the drift of the path given its end: it has the mean of the increments, without their
    noise.
    """
    grid = torch.linspace(0, 1, num_steps + 1, dtype=a.dtype, device=a.device)
    found = [
        torch.cat(parts, dim=2) for parts in zip(*_pinned(reference, intervals, a, b, grid), strict=True)
    ]
    step = (intervals.duration / num_steps)[:, None, None].expand_as(a[..., :1])
    places = torch.arange(num_steps, dtype=a.dtype, device=a.device).view(-1, 1, 1, 1)
    times = intervals.start[:, None, None] + step * places
    states, pull = found[0][:-1], found[1]
    velocities = in_blocks(reference.drift, states, times) + pull / step
    weights = step.expand_as(times).flatten()
    return BridgePaths(states.flatten(0, 2), times.flatten(0, 2), velocities.flatten(0, 2), weights)


def _pinned(
    reference: Reference, intervals: Intervals, a: Tensor, b: Tensor, grid: Tensor
) -> Iterator[PinnedPaths]:
    """Draw pinned paths from a to b (K, N, C), as many at once as may be held in memory."""
    solver, start, duration = reference.solver, intervals.start, intervals.duration
    rows = _rows(reference, len(start), len(grid))
    for x, y in zip(a.split(rows, dim=1), b.split(rows, dim=1), strict=True):
        yield solver.pinned(reference.drift, reference.noise, x, y, start, duration, grid)


def _rows(reference: Reference, count: int, num_steps: int) -> int:
    """Of how many states in each of K intervals all steps may be held at once."""
    if not reference.solver.num_steps:  # the steps are the same for all states
        return sys.maxsize
    return max(1, _MATRICES // (count * num_steps * reference.noise.numel()))


def objective(reference: Reference, intervals: Intervals, start: Tensor | None) -> tuple[Tensor, Coupling]:
    """L in nats, a scalar with its gradient in the reference's parameters, and the coupling.

    Args:
        reference: The reference process; volatility may need a gradient too.
        intervals: The intervals.
        start: Potentials g (K, M) to start from.

    Raises:
        NonFiniteError: If the reference has no finite transition density.
    """
    return _value(_transitions(reference, intervals), intervals, start)


def gradient(
    reference: Reference, intervals: Intervals, start: Tensor | None, parameters: Sequence[Tensor]
) -> tuple[float, list[Tensor], Coupling]:
    """L in nats, its gradient in some parameters, and the coupling: :func:`objective` in bounded memory.

    Where there are many sources the transitions from all of them are found without derivatives first, then
    again from a few at a time.

    Args:
        reference: The reference process.
        intervals: The intervals.
        start: Potentials g (K, M) to start from.
        parameters: What to differentiate by; zeros come back for what has no influence.

    Raises:
        NonFiniteError: If the reference has no finite transition density.
    """
    count, size, width = intervals.source.shape
    steps = reference.solver.num_steps
    many = sum(parameter.numel() for parameter in parameters) > FEW
    states = _NETWORK_STATES if many else _STATES
    rows = max(1, states // (count * width * steps)) if steps else size
    with torch.enable_grad():
        if rows >= size:
            value, coupling = objective(reference, intervals, start)
            return float(value.detach()), _gradients([value], parameters, None), coupling
        with torch.no_grad():
            transitions = _transitions(reference, intervals)
        mean, covariance = transitions.mean.requires_grad_(), transitions.covariance.requires_grad_()
        value, coupling = _value(transitions, intervals, start)
        pulls = torch.autograd.grad(value, [mean, covariance])
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for first in range(0, size, rows):
            some = slice(first, first + rows)
            found = _transitions(reference, intervals._replace(source=intervals.source[:, some]))
            ends = [found.mean, found.covariance]
            parts = _gradients(ends, parameters, [pull[:, some] for pull in pulls])
            total = [one + another for one, another in zip(total, parts, strict=True)]
    return float(value.detach()), total, coupling


def _gradients(
    outputs: Sequence[Tensor], parameters: Sequence[Tensor], pulls: Sequence[Tensor] | None
) -> list[Tensor]:
    """Gradients in the parameters, zeros where there is no influence; what parts have in common is kept."""
    found = torch.autograd.grad(outputs, parameters, pulls, allow_unused=True, retain_graph=True)
    pairs = zip(parameters, found, strict=True)
    return [torch.zeros_like(parameter) if one is None else one for parameter, one in pairs]


def _value(transitions: Transition, intervals: Intervals, start: Tensor | None) -> tuple[Tensor, Coupling]:
    """L with its gradient in the transitions, and the coupling."""
    surrogate, couplings = transitions.mean.new_zeros(()), []
    for transition, part, cost, coupling in _groups(transitions, intervals, start):
        plan = entropic_plan(cost, part.source_weight, part.target_weight, coupling.f, coupling.g)
        moments = _moments(plan, part.target, transition.mean)
        surrogate = surrogate + _expected_cost(transition, *moments)
        couplings.append(coupling)
    coupling = _joined(couplings)
    return surrogate + (coupling.value.sum() - surrogate.detach()), coupling


def is_solved(coupling: Coupling) -> bool:
    """Whether couplings have their marginals, to a thousandth of the mass; else L is too low."""
    return bool((coupling.error < _LOOSE).all())


class _Group(NamedTuple):
    """Some of the intervals, with their costs (G, N, M)."""

    transitions: Transition
    intervals: Intervals
    cost: Tensor
    coupling: Coupling


def _groups(transitions: Transition, intervals: Intervals, start: Tensor | None) -> Iterator[_Group]:
    """Couple the intervals, as many at once as may be held in memory."""
    size = intervals.source.shape[1] * intervals.target.shape[1]
    count = max(1, _ENTRIES // size)
    for first in range(0, len(intervals.start), count):
        some = slice(first, first + count)
        transition, part = _part(transitions, some), _part(intervals, some)
        with torch.no_grad():
            cost = transition_cost(transition, part.target)
            weights = part.source_weight, part.target_weight
            coupling = couple(cost, *weights, start=None if start is None else start[some])
        yield _Group(transition, part, cost, coupling)


def _part(parts: _Tensors, some: slice) -> _Tensors:
    return type(parts)(*(tensor[some] for tensor in parts))


def _joined(couplings: Sequence[Coupling]) -> Coupling:
    parts = zip(*(coupling[:4] for coupling in couplings), strict=True)
    f, g, value, error = (torch.cat(tensors) for tensors in parts)
    return Coupling(f, g, value, error, sum(coupling.num_iters for coupling in couplings))


def _transitions(reference: Reference, intervals: Intervals) -> Transition:
    """Transitions over all intervals.

    Raises:
        NonFiniteError: If one has no finite mean and covariance.
    """
    found = _unchecked_transitions(reference, intervals)
    lost = ~torch.isfinite(found.mean).flatten(1).all(dim=1)
    lost |= (torch.linalg.cholesky_ex(found.covariance.detach()).info != 0).flatten(1).any(dim=1)
    if bool(lost.any()):
        first = int(lost.int().argmax())
        start, end = intervals.start[first], intervals.start[first] + intervals.duration[first]
        raise NonFiniteError(
            f"the reference has no transition density from time {float(start):g} to {float(end):g}: its "
            "paths run away from some of the snapshot's particles. Start from parameters with a weaker "
            "drift, or take more num_steps."
        )
    return found


def _unchecked_transitions(reference: Reference, intervals: Intervals) -> Transition:
    """Transitions over all intervals, without derivatives from a part of the sources at a time."""
    count, size = intervals.source.shape[:2]
    rows = _rows(reference, count, reference.solver.num_steps)
    if torch.is_grad_enabled() or rows >= size:
        return reference.solver.transitions(reference.drift, reference.noise, intervals)
    parts = [
        reference.solver.transitions(reference.drift, reference.noise, intervals._replace(source=source))
        for source in intervals.source.split(rows, dim=1)
    ]
    return Transition(*(torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)))


def _moments(plan: Tensor, target: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mass (K, N) of each source, and mean and second moment of its targets about ``mean``."""
    with torch.no_grad():
        mass = plan.sum(dim=2)
        shares = plan / mass.masked_fill(mass == 0, 1.0)[..., None]
        centre = target.mean(dim=1, keepdim=True)
        y, mean = target - centre, mean - centre
        barycentre = shares @ y
        second = (shares @ (y[..., :, None] * y[..., None, :]).flatten(-2)).unflatten(-1, 2 * y.shape[-1:])
        mixed = barycentre[..., :, None] * mean[..., None, :]
        second = second - mixed - mixed.mT + mean[..., :, None] * mean[..., None, :]
        return mass, mean + centre, barycentre - mean, second


def _expected_cost(
    transitions: Transition, mass: Tensor, centre: Tensor, shift: Tensor, second: Tensor
) -> Tensor:
    """Cost of the plan as a function of the transitions, from moments about ``centre``."""
    inverse, constant = whitener(transitions.covariance)
    moved = transitions.mean - centre
    mixed = moved[..., :, None] * shift[..., None, :]
    spread = second - mixed - mixed.mT + moved[..., :, None] * moved[..., None, :]
    square = ((inverse.mT @ inverse) * spread).sum(dim=(-2, -1))
    return (mass * (square / 2 + constant)).sum()
