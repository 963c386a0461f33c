"""The two ways to a bridge through snapshots: couplings of their particles, and half-bridges."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from seqdyn.sde.chain import Chain, Reference, objective
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.projections import ProjectedChain, Settings, project

__all__ = ["AnyChain", "Couplings", "Method", "Projections"]

AnyChain = Chain | ProjectedChain


class Method(Protocol):
    """How a bridge is found. What was found is kept as numbers, a row for each interval."""

    def solve(self, reference: Reference, intervals: Intervals, solution: Tensor | None = None) -> AnyChain:
        """The bridge, from the solution of a similar one if that fits."""
        ...

    def restore(self, reference: Reference, intervals: Intervals, solution: Tensor) -> AnyChain:
        """The bridge that has this solution, which may be in less precision."""
        ...

    def loss(self, reference: Reference, intervals: Intervals) -> Tensor:
        """Divergence from the reference in nats, a scalar."""
        ...


class Couplings:
    """Entropic transport on the cost of the reference's transition density, and pinned paths."""

    def solve(self, reference: Reference, intervals: Intervals, solution: Tensor | None = None) -> Chain:
        sizes = intervals.source.shape[1], intervals.target.shape[1]
        if solution is None or solution.shape != (len(intervals.start), 2 + sum(sizes)):
            return Chain(reference, intervals)
        return Chain(reference, intervals, start=solution[:, -sizes[1] :])

    def restore(self, reference: Reference, intervals: Intervals, solution: Tensor) -> Chain:
        """The bridge; solved again where potentials were rounded, with which a plan misses its marginals."""
        if solution.dtype != intervals.start.dtype:
            return self.solve(reference, intervals, solution.to(intervals.start))
        return Chain.restored(reference, intervals, solution)

    def loss(self, reference: Reference, intervals: Intervals) -> Tensor:
        """It has the gradient in the parameters of the reference."""
        return objective(reference, intervals, None)[0]


class Projections:
    """Alternating half-bridges that are learned from paths, with noise of their own.

    Args:
        settings: How they are found.
        seed: Seed of the noise.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def solve(
        self, reference: Reference, intervals: Intervals, solution: Tensor | None = None
    ) -> ProjectedChain:
        """The bridge; never from another solution, so that it is a function of the reference."""
        return project(reference, intervals, self.settings, seed=self.seed)

    def restore(self, reference: Reference, intervals: Intervals, solution: Tensor) -> ProjectedChain:
        solution = solution.to(intervals.start)
        return ProjectedChain.restored(reference, intervals, self.settings, self.seed, solution)

    def loss(self, reference: Reference, intervals: Intervals) -> Tensor:
        """It has no gradient, for it comes from simulations."""
        return self.solve(reference, intervals).value.sum()
