"""A solved bridge as its user sees it: times, units and names around a chain of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn._arguments import check_count
from seqdyn.data.convert import provenance
from seqdyn.data.names import EXTRAPOLATION
from seqdyn.data.schema import CONDITION, FEATURE, PARTICLE, TIME, X
from seqdyn.errors import NonFiniteError
from seqdyn.nn.working import WorkingSpace
from seqdyn.rng import ambient_seed, fork_rng
from seqdyn.sde.chain import Chain, Reference
from seqdyn.sde.integrate import simulate
from seqdyn.sde.intervals import Snapshots
from seqdyn.sde.methods import AnyChain
from seqdyn.sde.sampling import systematic

__all__ = ["BridgeView", "Facts", "condition_numbers"]

_BETWEEN = 10  # parts into which an interval is cut where no times are asked for
_ROUNDING = 1e-9  # of the whole span, by which a time may miss a snapshot's
_SINGLE = 1e-4  # the most of it, where times may come from single precision


class Facts(NamedTuple):
    """What results say of their data: name of the model, features, units, their dtype, cells."""

    model: str
    features: list[Any]
    units: str | None
    time_units: str | None
    dtype: torch.dtype
    cells: list[Any] | None = None


class BridgeView:
    """A bridge through the snapshots of one or more conditions.

    Args:
        chain: The bridge in working coordinates, float64.
        snapshots: Its snapshots.
        sources: Number of the marginal at which each interval begins.
        labels: Labels of the conditions; none where there is but one.
        space: From working coordinates to states.
        scale: Volatility σ (C, C) of the reference.
        particles: Numbers of the particles of each marginal in the training data.
        facts: Names and units.
        num_steps: Time steps of a simulation over the shortest interval.
    """

    def __init__(
        self,
        chain: AnyChain,
        snapshots: Snapshots,
        sources: list[int],
        labels: list[Any],
        space: WorkingSpace,
        scale: Tensor,
        particles: list[np.ndarray] | None,
        facts: Facts,
        num_steps: int,
    ) -> None:
        self.chain, self.snapshots, self.labels = chain, snapshots, labels
        self._space, self._scale, self._particles, self._facts = space, scale, particles, facts
        self._sources = np.array(sources)
        self._conditions = snapshots.condition.cpu().numpy()
        self._times = snapshots.time.cpu().numpy()
        self._num_steps = num_steps

    # Where a time lies ----------------------------------------------------------------------------------

    def codes(self, condition: Any) -> list[int]:
        """Numbers of the conditions that are meant.

        Raises:
            ValueError: If there is no such condition.
        """
        if condition is None:
            return list(dict.fromkeys(self._conditions.tolist()))
        if condition not in self.labels:
            known = f"the conditions are {self.labels}" if self.labels else "the snapshots have none"
            raise ValueError(f"there is no condition {condition!r}; {known}.")
        return [self.labels.index(condition)]

    def times_of(self, code: int) -> np.ndarray:
        """Times of the snapshots of a condition."""
        return self._times[self._conditions == code]

    def intervals_of(self, code: int) -> list[int]:
        """Numbers of the intervals of a condition, in order."""
        return np.flatnonzero(self._conditions[self._sources] == code).tolist()

    def _within(self, times: Any, code: int) -> np.ndarray:
        """Times as an increasing array inside the snapshots of a condition, on them where they nearly are."""
        known = self.times_of(code)
        values = _increasing(times)
        slack = _slack(known)
        nearest = known[np.abs(values[:, None] - known).argmin(axis=1)]
        values = np.where(np.abs(values - nearest) <= slack, nearest, values)
        outside = (values < known[0]) | (values > known[-1])
        if outside.any():
            of = f" of {self.labels[code]!r}" if self.labels else ""
            raise ValueError(
                f"time {values[outside][0]:g} lies outside the snapshots{of}, which go from {known[0]:g} to "
                f"{known[-1]:g}; model.forecast(times) runs the reference on after the last one."
            )
        return values

    def _located(self, values: np.ndarray, code: int, *, after: bool) -> np.ndarray:
        """Number of each time's interval among those of its condition.

        ``after`` says which of two intervals a snapshot's time belongs to: the one that begins.
        """
        known = self.times_of(code)
        found = np.searchsorted(known, values, side="right" if after else "left")
        return np.clip(found - 1, 0, len(known) - 2)

    def _fractions(self, interval: int, values: np.ndarray) -> Tensor:
        intervals = self.chain.intervals
        start, duration = float(intervals.start[interval]), float(intervals.duration[interval])
        return torch.as_tensor((values - start) / duration).to(intervals.start).clamp(0, 1)

    # Comparisons ----------------------------------------------------------------------------------------

    def under(self, reference: Reference) -> BridgeView:
        """The same snapshots joined by the bridge of another reference."""
        chain = Chain(reference, self.chain.intervals)
        return BridgeView(
            chain,
            self.snapshots,
            self._sources.tolist(),
            self.labels,
            self._space,
            self._scale,
            self._particles,
            self._facts,
            self._num_steps,
        )

    def neighbours(self, time: float, code: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Particles and weights of the snapshots on either side of a time; of the nearest beyond the ends."""
        numbers = np.flatnonzero(self._conditions == code)
        after = int(np.searchsorted(self._times[numbers], time))
        sides = [i for i in (after - 1, after) if 0 <= i < len(numbers)]
        return [
            (self._compared(self.snapshots.x[numbers[i]]), self.snapshots.weight[numbers[i]].cpu().numpy())
            for i in sides
        ]

    def compared(self, x: Tensor) -> np.ndarray:
        """States as clouds are compared: on principal components where the model works on them."""
        like = self.chain.intervals.source
        return self._compared(self._space(x.to(like)))

    def _compared(self, z: Tensor) -> np.ndarray:
        return (z if self._space.projects else self._space.back(z)).cpu().numpy()

    # Draws ----------------------------------------------------------------------------------------------

    def trajectories(self, times: Any, num_samples: int, seed: int | None, condition: Any) -> xr.Dataset:
        """Paths through all snapshots; see ``SchrodingerBridge.infer``."""
        check_count(num_samples, "num_samples", hint="for instance num_samples=100")
        seed = ambient_seed(seed)
        codes = self.codes(condition)
        if times is None:
            self._check_same_times(codes)
            known = self.times_of(codes[0])
            steps = [np.linspace(a, b, _BETWEEN + 1)[:-1] for a, b in zip(known[:-1], known[1:], strict=True)]
            times = np.concatenate([*steps, known[-1:]])
        found = []
        with fork_rng(seed):
            for code in codes:
                values = self._within(times, code)
                places = self._located(values, code, after=False)
                intervals = self.intervals_of(code)
                wanted = [
                    self._fractions(interval, values[places == i]) for i, interval in enumerate(intervals)
                ]
                found.append(torch.cat(self.chain.walk(intervals, num_samples, wanted)))
        return self._dataset(found, values, codes, seed, {})

    def population(self, times: Any, num_samples: int, seed: int | None, condition: Any) -> xr.Dataset:
        """Marginals; see ``SchrodingerBridge.marginal``."""
        check_count(num_samples, "num_samples", hint="for instance num_samples=1000")
        seed = ambient_seed(seed)
        codes, found = self.codes(condition), []
        with fork_rng(seed):
            for code in codes:
                values = self._within(times, code)
                places = self._located(values, code, after=False)
                parts = [
                    self._population(interval, num_samples, self._fractions(interval, values[places == i]))
                    for i, interval in enumerate(self.intervals_of(code))
                    if (places == i).any()
                ]
                found.append(torch.cat(parts))
        return self._dataset(found, values, codes, seed, {})

    def _population(self, interval: int, num_samples: int, fractions: Tensor) -> Tensor:
        """States (F, S, C) of the population at fractions (F,) of an interval.

        The coupling counts the offspring at the end of the interval. Before it, a particle of growth rate g
        has had the time for fewer, by the factor exp(-g × time left), so that each time has paths of its own.
        """
        source = int(self._sources[interval])
        growth = self.snapshots.growth[source] * self.chain.intervals.duration[interval]
        growth = growth - growth.min()
        if not bool(growth.any()):
            return self.chain.sample(interval, num_samples, fractions)
        growth = nn.functional.pad(growth, (0, self.chain.intervals.source.shape[1] - len(growth)))
        drawn = [
            self.chain.sample(interval, num_samples, part, share=(growth * (part - 1)).exp())
            for part in fractions.split(1)
        ]
        return torch.cat(drawn)

    def forecast(
        self, times: Any, start: str, num_samples: int, seed: int | None, condition: Any
    ) -> xr.Dataset:
        """Paths of the reference; see ``SchrodingerBridge.forecast``."""
        if start not in ("last", "first"):
            raise ValueError(f"start must be 'last' or 'first', the snapshot to start from, got {start!r}.")
        check_count(num_samples, "num_samples", hint="for instance num_samples=1000")
        seed = ambient_seed(seed)
        codes, found, ends = self.codes(condition), [], []
        values = _increasing(times)
        with fork_rng(seed):
            for code in codes:
                marginal = np.flatnonzero(self._conditions == code)[-1 if start == "last" else 0]
                ends.append(float(self.times_of(code)[-1]))
                found.append(self._run(int(marginal), values, num_samples))
        if len(set(ends)) == 1:
            return self._dataset(found, values, codes, seed, {EXTRAPOLATION: ends[0]})
        each = np.repeat(ends, [part.shape[1] for part in found])
        return self._dataset(found, values, codes, seed, {}).assign_coords({EXTRAPOLATION: (PARTICLE, each)})

    def _run(self, marginal: int, values: np.ndarray, num_samples: int) -> Tensor:
        begin = float(self._times[marginal])
        if values[0] <= begin:
            raise ValueError(
                f"time {values[0]:g} is not after the snapshot at {begin:g} to start from; "
                "model.marginal(times) gives the population between snapshots."
            )
        x = self.snapshots.x[marginal]
        chosen = x[systematic(self.snapshots.weight[marginal], num_samples)]
        step = float(self.chain.intervals.duration.min()) / self._num_steps
        paths = simulate(self.chain.reference.drift, self._scale, chosen, [begin, *values], step_size=step)
        return paths[:, 1:].transpose(0, 1)

    def _check_same_times(self, codes: list[int]) -> None:
        first = self.times_of(codes[0])
        if not all(np.array_equal(self.times_of(code), first) for code in codes):
            raise ValueError(
                "the conditions have snapshots at different times; give times=[...] that all of them span, "
                "or condition= one of them."
            )

    def _dataset(
        self, found: list[Tensor], values: np.ndarray, codes: list[int], seed: int, attrs: dict[str, Any]
    ) -> xr.Dataset:
        """States (T, S, C) of each condition in working coordinates as a Dataset in the user's."""
        states = self._space.back(torch.cat(found, dim=1)).transpose(0, 1)
        finite = torch.isfinite(states).all(dim=2).all(dim=0)
        if not bool(finite.all()):
            raise NonFiniteError(
                f"paths leave the finite numbers before time {values[int((~finite).nonzero()[0])]:g}: the "
                "reference grows without bound there; ask for earlier times, or choose another family."
            )
        result = xr.Dataset(
            {X: ((PARTICLE, TIME, FEATURE), states.to(self._facts.dtype).cpu().numpy(), self._units())},
            {TIME: (TIME, values, self._time_units()), FEATURE: np.array(self._facts.features, dtype=object)},
            provenance(self._facts.model, seed) | attrs,
        )
        if self.labels:
            repeated = np.repeat([self.labels[code] for code in codes], [part.shape[1] for part in found])
            result = result.assign_coords({CONDITION: (PARTICLE, repeated)})
        return result

    def _units(self) -> dict[str, str]:
        return {} if self._facts.units is None else {"units": self._facts.units}

    def _time_units(self) -> dict[str, str]:
        return {} if self._facts.time_units is None else {"units": self._facts.time_units}

    # Structure ------------------------------------------------------------------------------------------

    def drift(self, x: Any, times: Any, condition: Any) -> xr.Dataset:
        """Drift of the bridge; see ``SchrodingerBridge.bridge_drift``."""
        states, times, codes = self._states(x, times, condition)
        z = self._space(states)
        out = torch.empty_like(z)
        for code, time in sorted(set(zip(codes.tolist(), times.tolist(), strict=True))):
            rows = torch.as_tensor((codes == code) & (times == time), device=z.device)
            out[rows] = self._drift_at(z[rows], time, code)
        velocity = self._space.back_drift(z, out, self.chain.reference.noise)
        units = [self._facts.units or "1", self._facts.time_units or "unit of time"]
        features = {FEATURE: np.array(self._facts.features, dtype=object)}
        return self.dataset(
            {"drift": ((PARTICLE, FEATURE), velocity, {"units": " / ".join(units)})},
            self.particle_coords(times, codes) | features,
        )

    def particle_coords(self, times: np.ndarray, codes: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Coordinates of particles with these times and numbers of conditions."""
        coords: dict[str, Any] = {TIME: (PARTICLE, times, self._time_units())}
        if self.labels:
            coords[CONDITION] = (PARTICLE, [self.labels[code] for code in codes])
        return coords

    def _states(self, x: Any, times: Any, condition: Any) -> tuple[Tensor, np.ndarray, np.ndarray]:
        if isinstance(x, xr.Dataset):
            if times is not None:
                raise ValueError(
                    "snapshots have times of their own; leave times out, or pass their x.values."
                )
            return self._snapshot_states(x)
        values = np.asarray(x, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self._facts.features) or not np.isfinite(values).all():
            raise ValueError(
                "x must be snapshots, or a finite array (particle, feature) with "
                f"{len(self._facts.features)} features, got shape {values.shape}."
            )
        if self._space.log and (values <= 0).any():
            row = int((values <= 0).any(axis=1).argmax())
            raise ValueError(
                "coordinates='log' knows no drift where a state is not positive, but x is "
                f"{values[row].min():g} at particle={row}; drop such states."
            )
        if times is None:
            raise ValueError("an array of states needs their times=, one number or one per particle.")
        code = self._one(condition)
        moments = np.asarray(times, dtype=float)
        if moments.shape not in ((), (len(values),)):
            raise ValueError(
                f"times must be one number or one per particle, {len(values)}, got shape {moments.shape}."
            )
        moments = np.broadcast_to(moments, (len(values),))
        ordered, inverse = np.unique(moments, return_inverse=True)
        moments = self._within(ordered, code)[inverse]
        like = self.chain.intervals.source
        return torch.as_tensor(values).to(like), moments, np.full(len(values), code)

    def _snapshot_states(self, data: xr.Dataset) -> tuple[Tensor, np.ndarray, np.ndarray]:
        codes = np.zeros(data.sizes[PARTICLE], dtype=int)
        if self.labels:
            if CONDITION not in data.coords:
                raise ValueError(f"the model has the conditions {self.labels}; the snapshots need them too.")
            codes = np.array([self.codes(label)[0] for label in data[CONDITION].values.tolist()])
        times = data[TIME].values.astype(float)
        for code in set(codes.tolist()):
            ordered, inverse = np.unique(times[codes == code], return_inverse=True)
            times[codes == code] = self._within(ordered, code)[inverse]
        return torch.as_tensor(data[X].values).to(self.chain.intervals.source), times, codes

    def _drift_at(self, z: Tensor, time: float, code: int) -> Tensor:
        if time == self.times_of(code)[-1]:
            return self.chain.reference.drift(z, time)
        place = int(self._located(np.array([time]), code, after=True)[0])
        return self.chain.drift(self.intervals_of(code)[place], z, time)

    def _one(self, condition: Any) -> int:
        """Number of the one condition that is meant.

        Raises:
            ValueError: If there are several.
        """
        codes = self.codes(condition)
        if len(codes) > 1:
            raise ValueError(f"say which condition= is meant, of {self.labels}.")
        return codes[0]

    def coupled(self, what: str) -> Chain:
        """The chain, where it couples particles.

        Raises:
            ValueError: If it joins clouds as a whole.
        """
        if not isinstance(self.chain, Chain):
            raise ValueError(
                f"solver='ipf' has no {what}: its half-bridges join clouds, not one particle to another; fit "
                "a model with solver='static'."
            )
        return self.chain

    def record(self) -> xr.Dataset:
        """How each interval was solved; see ``SchrodingerBridge.convergence``."""
        start = self._times[self._sources]
        coords = {"start": ("interval", start), "end": ("interval", self._times[self._sources + 1])}
        values = {"divergence": self.chain.value, "marginal_error": self.chain.error}
        if self.labels:
            names = [self.labels[code] for code in self._conditions[self._sources]]
            coords[CONDITION] = ("interval", np.array(names, dtype=object))
        return self.dataset({name: ("interval", value) for name, value in values.items()}, coords)

    def coupling(self, interval: int, condition: Any) -> xr.DataArray:
        """Coupling of an interval; see ``SchrodingerBridge.coupling``."""
        code = self._one(condition)
        intervals = self.intervals_of(code)
        if isinstance(interval, bool) or not isinstance(interval, int | np.integer):
            raise ValueError(f"interval must be a whole number, got {interval!r}.")
        if not 0 <= interval < len(intervals):
            raise ValueError(
                f"there are {len(intervals)} intervals, numbered from 0, got interval={interval!r}."
            )
        number = intervals[interval]
        source = int(self._sources[number])
        sizes = [len(self.snapshots.x[source]), len(self.snapshots.x[source + 1])]
        plan = self.coupled("couplings").plan(number)[: sizes[0], : sizes[1]].cpu().numpy()
        names = self.names_of(source), self.names_of(source + 1)
        cells = {}
        if self.cells is not None:
            cells = {
                f"{side}_cell": (side, self.cells[names[i]]) for i, side in enumerate(("source", "target"))
            }
        return xr.DataArray(
            plan,
            {"source": names[0], "target": names[1]} | cells,
            ("source", "target"),
            "coupling",
            {"start": float(self._times[source]), "end": float(self._times[source + 1])},
        )

    def steps(self, code: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each interval of a condition the number of its first marginal, coupling and next particles.

        The last is the law of the next particle given each, whose rows have the sum 1; unlike the coupling it
        is there for particles without weight too.
        """
        chain = self.coupled("fates and ancestors")
        for number in self.intervals_of(code):
            source = int(self._sources[number])
            rows, columns = len(self.snapshots.x[source]), len(self.snapshots.x[source + 1])
            plan, onward = chain.plan(number), chain.onward(number)
            yield source, plan[:rows, :columns].cpu().numpy(), onward[:rows, :columns].cpu().numpy()

    def dataset(self, values: dict[str, Any], coords: dict[str, Any]) -> xr.Dataset:
        """Arrays as a Dataset in the precision of the model, which it names."""
        parts = {name: (dims, self._cast(array), *attrs) for name, (dims, array, *attrs) in values.items()}
        return xr.Dataset(parts, coords, {"model": self._facts.model})

    def working(self, x: np.ndarray) -> np.ndarray:
        """Working coordinates (N, C) of states (N, F), in the precision of the model."""
        return self._cast(self._space(torch.as_tensor(x).to(self.chain.intervals.source)))

    def component_drift(self, drift: np.ndarray) -> np.ndarray | None:
        """Drift (N, C) of principal components from that (N, F) of states; ``None`` where there are none."""
        if not self._space.projects:
            return None
        return self._cast(torch.as_tensor(drift).to(self._space.loadings) @ self._space.loadings)

    def _cast(self, values: Tensor | np.ndarray) -> np.ndarray:
        return torch.as_tensor(values).to(self._facts.dtype).cpu().numpy()

    @property
    def cells(self) -> np.ndarray | None:
        """Names of the particles of the training data, by number."""
        return None if self._facts.cells is None else np.array(self._facts.cells, dtype=object)

    def marginals_of(self, code: int) -> list[int]:
        """Numbers of the marginals of a condition, in order of time."""
        return np.flatnonzero(self._conditions == code).tolist()

    def names_of(self, marginal: int) -> np.ndarray:
        """Numbers of the particles of a marginal in the training data."""
        if self._particles is None:
            return np.arange(len(self.snapshots.x[marginal]))
        return self._particles[marginal]


def condition_numbers(conditions: Tensor) -> list[int]:
    """Labels of conditions (P,) of which only the numbers are known; none where there is but one."""
    numbers = conditions.unique().tolist()
    return numbers if len(numbers) > 1 else []


def _slack(known: np.ndarray) -> float:
    """By how much a time may miss that of a snapshot, of which there are several; these may be rounded."""
    span = float(known[-1] - known[0])
    if (known.astype(np.float32) == known).all():  # as in data in single precision
        return min(float(np.spacing(np.abs(known).max().astype(np.float32))), _SINGLE * span)
    return _ROUNDING * span


def _increasing(times: Any) -> np.ndarray:
    """Times as an array of increasing finite numbers.

    Raises:
        ValueError: If they are none.
    """
    try:
        values = np.atleast_1d(np.asarray(times, dtype=float))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"times must be numbers in the unit of the snapshots' time, got {times!r}."
        ) from error
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise ValueError(f"times must be increasing finite numbers, got {times!r}; type sorted(set(times)).")
    return values
