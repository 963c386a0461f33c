r"""SchrodingerBridge: trajectories from snapshots, under a reference that is refined by them.

Snapshots are clouds of particles at a few times, no particle seen twice. Of all processes that have them as
marginals the bridge is the one nearest, in relative entropy, to a reference process of a family
:math:`dX = b_\theta(X, t)\, dt + \sigma\, dW`. A fit alternates two projections,

.. math::
    Q \leftarrow \arg\min_Q KL(Q \,\|\, P_\theta), \qquad
    \theta \leftarrow \arg\min_\theta KL(Q \,\|\,
    P_\theta),

the first a chain of entropic transport problems (:mod:`seqdyn.sde.chain`), the second maximum likelihood
(:mod:`seqdyn.sde.refit`), until the divergence falls no more.

Source: Shen, Berlinghieri & Broderick (2025), arXiv 2408.06277. The refit by quasi-Newton steps on the
divergence itself, which follow the regression on paths, is ours.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from seqdyn._arguments import check_count
from seqdyn.data.clouds import read_snapshots
from seqdyn.data.convert import provenance
from seqdyn.data.marginals import condition_labels
from seqdyn.data.schema import (
    CONDITION,
    GROWTH,
    PARTICLE,
    TIME,
    WEIGHT,
    X,
)
from seqdyn.data.snapshots import MarginalLoader, SnapshotDataModule
from seqdyn.dynamics import FlowDynamics
from seqdyn.errors import ConvergenceWarning, NonFiniteError
from seqdyn.models import bridge_records, bridge_scores, bridge_uncertainty
from seqdyn.models.base import Model
from seqdyn.models.bridge_annotate import Particles, annotate
from seqdyn.models.bridge_cells import ancestors, fates
from seqdyn.models.bridge_reference import (
    check_kind,
    check_reference,
    check_same,
    check_start,
    reference_facts,
    reference_of,
)
from seqdyn.models.bridge_settings import (
    ESTIMATE,
    check_data,
    check_settings,
    first_volatility,
    method_of,
    plain_volatility,
    warn_of_dimensions,
)
from seqdyn.models.bridge_view import BridgeView, Facts, condition_numbers
from seqdyn.nn.working import WorkingSpace
from seqdyn.persistence import Record
from seqdyn.rng import ambient_seed, fork_rng
from seqdyn.sde.drifts import Zero
from seqdyn.sde.intervals import Intervals, Snapshots, make_intervals
from seqdyn.sde.methods import AnyChain, Method
from seqdyn.sde.noise import volatility_matrix
from seqdyn.sde.process import Process
from seqdyn.sde.refit import Refinement, can_descend, refine
from seqdyn.sde.regression import FEW, get_parameters
from seqdyn.sde.solvers import Affine, AffineDrift, Linearized, PairSolver
from seqdyn.train.callbacks import AverageWeights
from seqdyn.train.history import History

if TYPE_CHECKING:
    import pytorch_lightning as pl

__all__ = ["SchrodingerBridge"]

logger = logging.getLogger("seqdyn")

# Buffers whose sizes a fit decides.
_SIZED = ("snapshot_x", "snapshot_time", "snapshot_weight", "snapshot_growth", "snapshot_condition",
          "snapshot_particle", "solution", "volatility_ratio", "volatility_rested",
          "start_values")  # fmt: skip
_WHOLE = ("snapshot_condition", "snapshot_particle", "volatility_rested")
CELLS = "cells"


class SchrodingerBridge(Model):
    """Multi-marginal Schrödinger bridge with a reference that is refined from a family.

    It alternates instead of descending a loss: one epoch of ``fit`` is one refinement, with manual
    optimisation. It learns from snapshots ``x (particle, feature)`` with the coordinate ``time (particle)``;
    optionally ``weight (particle)``, ``growth (particle)`` (a prior on the rate at which a particle
    multiplies, per unit of time) and the coordinate ``condition (particle)``, whose conditions share the
    reference. The fit ends early where, twice in a row, the divergence changes by less than ``tolerance`` and
    no parameter by more than a thousandth; one that reaches ``max_epochs`` before warns. Everything is
    computed in float64.

    Args:
        num_features: Features F of the data.
        volatility: Noise of the reference per square root of time, in the units of the working coordinates:
            one number, one per coordinate, or a matrix (coordinate, coordinate). ``"estimate"`` learns one
            number.
        reference: Family of drifts, an ``nn.Module`` with ``forward(x, t)``, see :mod:`seqdyn.sde.drifts`; a
            copy of it is fitted, starting from its parameters; those with ``requires_grad=False`` stay as
            they are. The name of a class there, such as ``"LotkaVolterra"``, stands for one with its default
            arguments, and need not be handed in again at :meth:`load`. ``"Linear"`` by default.
        solver: ``"static"`` couples snapshots by the reference's transition density and fills in pinned
            paths: exactly where the reference says that it is linear (``affine()``), else in the linear noise
            approximation and by guided proposals. ``"linear"`` is the same, but refuses references for which
            it would not be exact. ``"ipf"``, the published way, needs no transition density: it alternates
            half-bridges, whose drifts are learned from simulated paths, and refits the reference by
            regressions alone; of Lotka-Volterra that takes a minute instead of a second. Its parameters are
            less exact, being regressions on learned half-bridges: confirm them with ``"static"``. Its
            half-bridges know a cloud by mean, covariance and some of its particles: between separate groups a
            few paths get lost, and many small groups are blurred. A path goes through a particle of one
            snapshot and only near those of the others. Particles are not coupled, so that there is no
            :meth:`coupling`, :meth:`fates`, :meth:`ancestors` and :meth:`bootstrap`, and the volatility must
            be given. Half-bridges that do not meet are warned of, see :attr:`convergence`.
        coordinates: ``"raw"``, or ``"log"`` for noise proportional to the state, σ x dW; σ is then relative.
        num_components: Work on so many principal components of the features, found in the training
            snapshots of the first fit and kept by later ones; the reference then acts on components. All
            verbs still answer in features, dense: 100 paths at 21 times in 1479 genes are 25 MB, and twice as
            much while they are made. ``None`` works on the features.
        num_steps: Time steps in each interval between snapshots.
        num_paths: Paths drawn in each interval for a regression.
        tolerance: Change of the divergence, in nats, below which a refinement counts as the last but one.
        network_steps: Steps of Adam in each refinement, for a reference with more than 64 parameters.
        learning_rate: Of these.
        weight_decay: Of these.
        num_simulations: Simulations by which an estimated volatility is corrected for the size of the clouds;
            0 for none.
        num_projections: Pairs of half-bridges of ``solver="ipf"``, after those with more noise than there is.
        projection_paths: Paths in each interval from which it learns a half-bridge.

    Raises:
        ValueError: If an argument is out of range.
    """

    data_kind = "snapshots"
    default_epochs = 30

    snapshot_x: Tensor
    snapshot_time: Tensor
    snapshot_weight: Tensor
    snapshot_growth: Tensor
    snapshot_condition: Tensor
    snapshot_particle: Tensor
    solution: Tensor
    volatility_ratio: Tensor
    volatility_rested: Tensor
    start_values: Tensor
    path_seed: Tensor
    calm: Tensor
    last_value: Tensor
    last_gain: Tensor
    cells: list[Any] | None = None  # names of the training particles

    def __init__(
        self,
        num_features: int,
        volatility: Any,
        reference: nn.Module | str | None = None,
        solver: str = "static",
        coordinates: str = "raw",
        num_components: int | None = None,
        num_steps: int = 30,
        num_paths: int = 100,
        tolerance: float = 1e-2,
        network_steps: int = 200,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        num_simulations: int = 8,
        num_projections: int = 10,
        projection_paths: int = 400,
    ) -> None:
        super().__init__()
        check_kind(reference)
        volatility = plain_volatility(volatility)
        self.save_hyperparameters(ignore=["reference"] if isinstance(reference, nn.Module) else [])
        self.automatic_optimization = False
        check_settings(self.hparams)
        self.space = WorkingSpace(num_features, coordinates == "log", num_components)
        size = self.space.size
        drift = reference_of(reference, size)
        check_reference(drift, size, self.hparams)
        self.process = Process(drift, size, self.space.log, volatility == ESTIMATE)
        if volatility != ESTIMATE:
            self.process.volatility.copy_(volatility_matrix(volatility, size))
        for name in _SIZED:
            kind = torch.int64 if name in _WHOLE else torch.float64
            self.register_buffer(name, torch.zeros(0, dtype=kind))
        self.register_buffer("path_seed", torch.tensor(-1))
        self.register_buffer("calm", torch.tensor(0))
        self.register_buffer("last_value", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("last_gain", torch.tensor(math.inf, dtype=torch.float64))
        self.double()

    # Training -------------------------------------------------------------------------------------------

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        for part in (data, val):
            if part is not None:
                self._check_data(part)
        return SnapshotDataModule(data, val=val)

    def configure_optimizers(self) -> None:
        return None

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Divergence of the bridge from the reference in nats, up to a constant of neither.

        Its gradient is that in the parameters of the reference; with ``solver="ipf"`` it has none.
        """
        intervals, _ = make_intervals(self._working(batch))
        reference = self.process.reference(self._solver(), frozen=False)
        return {"loss": self._method().loss(reference, intervals)}

    def on_fit_start(self) -> None:
        if any(isinstance(callback, AverageWeights) for callback in self.trainer.callbacks):
            raise ValueError("a bridge takes no steps to average weights over; leave ema_decay out.")
        self.double()

    def on_train_start(self) -> None:
        self.cells = getattr(self.trainer.train_dataloader, "cells", None)
        if self.hparams.solver != "ipf":
            warn_of_dimensions(self.space.size, next(iter(self.trainer.train_dataloader))[X])
        if self.trainer.ckpt_path is not None:
            self.trainer.should_stop = self._is_calm()  # interrupted after it had come to rest
            return
        batch = next(iter(self.trainer.train_dataloader))
        self.calm.fill_(0)
        self.last_value.fill_(math.inf)
        self.last_gain.fill_(math.inf)
        is_first = int(self.path_seed) < 0
        self.path_seed.fill_(ambient_seed(None) % 2**62)
        if is_first:
            device = self.device
            x, weight = (torch.cat(batch[name]).to(device) for name in (X, WEIGHT))
            self.space.fit(x, weight)
            if self.hparams.volatility == ESTIMATE:
                size = self.space.size
                intervals, _ = make_intervals(self._working(batch))
                start = first_volatility(intervals, len(get_parameters(self.process)))
                self.process.volatility.copy_(volatility_matrix(start, size, self.process.volatility))
        if self.history is None:
            self.start_values = self.last_value.new_tensor(list(self._scalars().values()))
        working = self._working(batch)
        x = torch.cat(working.x).double()
        time = working.time.double().repeat_interleave(
            torch.tensor([len(part) for part in working.x]).to(x.device)
        )
        check_start(self.process.drift, x.exp() if self.space.log else x, time[:, None])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One refinement: the bridge of the reference, then a reference nearer to it."""
        with torch.no_grad():
            self._remember(batch)
            intervals, _ = make_intervals(self._working(batch))
            chain = self._resume(intervals)
            start = float(chain.value.sum())
            before = get_parameters(self.process)
            settings = Refinement(
                self.hparams.num_paths, self.hparams.num_steps, self.hparams.network_steps,
                self.hparams.learning_rate, self.hparams.weight_decay,
            )  # fmt: skip
            # A regression that found nothing once, near the solution, finds nothing later.
            with fork_rng(int(self.path_seed)):
                chain, gain = refine(
                    self.process, self._solver(), chain, settings, regression=float(self.last_gain) > 0
                )
            self.last_gain.fill_(gain)
        _warn_if_unsolved(chain)
        value = float(chain.value.sum())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the divergence is {value} in epoch {self.trainer.current_epoch + 1}; raise the "
                "volatility, or look for extreme values in the data."
            )
        self._stop_when_calm(value, before)
        self._keep(chain)
        losses = {
            "loss": chain.value.sum(),
            "divergence_before": chain.value.new_tensor(start),
            "marginal_error": chain.error.max(),
        }
        losses |= {name: chain.value.new_tensor(number) for name, number in self._scalars().items()}
        return self._log("train", {TIME: batch[TIME]}, losses)

    def on_train_end(self) -> None:
        if not self._is_calm():
            count = self.trainer.current_epoch
            warnings.warn(
                f"not at rest after {count} refinement{'s' * (count != 1)}; fit(max_epochs=...) with more, "
                "or go on with another fit.",
                ConvergenceWarning,
                stacklevel=2,
            )
        if not any(isinstance(callback, History) for callback in self.trainer.callbacks):
            # A trainer of the user's own; in a fit the weights that are kept come first.
            self.after_training(progress=self.trainer.progress_bar_callback is not None)

    def after_training(self, *, progress: bool) -> None:
        if self.hparams.volatility == ESTIMATE and self.hparams.num_simulations:
            with torch.no_grad(), fork_rng(int(self.path_seed)):
                self._correct_volatility(progress)

    def _correct_volatility(self, progress: bool) -> None:
        """Take out of the volatility what simulations say it is too large by, and refit the rest."""
        solver, view = self._solver(), self.view()
        if not can_descend(self.process, solver):
            logger.warning(
                "the volatility is not corrected for the size of the clouds, which needs a reference that is "
                "linear or has at most %d parameters: it is on the large side; give a number, for instance "
                "that of such a reference, or num_simulations=0.",
                FEW,
            )
            return
        found = bridge_uncertainty.corrected(
            self.process,
            solver,
            view.snapshots,
            view.coupled("estimate of the volatility").coupling.g,
            self.hparams.num_simulations,
            self.hparams.num_steps,
            progress,
        )
        self.volatility_ratio = self.snapshot_x.new_tensor(found.ratio)
        self.volatility_rested = torch.as_tensor(found.rested, device=self.device).long()
        self._keep(found.chain)

    def _keep(self, chain: AnyChain) -> None:
        """Keep the solution and the divergence of a chain with the weights."""
        self.solution = chain.solution
        self.last_value.fill_(float(chain.value.sum()))

    def _stop_when_calm(self, value: float, before: np.ndarray) -> None:
        """End the training after two refinements in a row that changed next to nothing."""
        after = get_parameters(self.process)
        change = np.abs(after - before) / np.maximum(np.abs(before), 1e-3)
        is_calm = abs(value - float(self.last_value)) < self.hparams.tolerance
        is_calm = is_calm and bool((change < 1e-3).all())
        self.calm.fill_(int(self.calm) + 1 if is_calm else 0)
        if self._is_calm():
            self.trainer.should_stop = True

    def _is_calm(self) -> bool:
        return int(self.calm) >= 2

    def _scalars(self) -> dict[str, float]:
        """Parameters by name, for the record of a fit; of a large reference none."""
        numbers = self.process.named_values()
        return numbers if len(numbers) <= FEW else {}

    def _resume(self, intervals: Intervals) -> AnyChain:
        """The chain of the reference as it is: that of the last refinement, solved anew before the first."""
        reference, method = self.process.reference(self._solver()), self._method()
        if math.isfinite(float(self.last_value)):
            return method.restore(reference, intervals, self.solution)
        return method.solve(reference, intervals, self.solution)

    def _remember(self, batch: dict[str, Any]) -> None:
        """Keep the training snapshots, and their names and units, with the weights."""
        self.data_info = getattr(self.trainer.train_dataloader, "facts", self.data_info)
        sizes = torch.tensor([len(x) for x in batch[X]], device=self.device)
        self.snapshot_x = torch.cat(batch[X])
        self.snapshot_time = batch[TIME].repeat_interleave(sizes)
        self.snapshot_weight = torch.cat(batch[WEIGHT])
        self.snapshot_growth = torch.cat(batch[GROWTH])
        self.snapshot_condition = batch[CONDITION].repeat_interleave(sizes)
        self.snapshot_particle = torch.cat(batch[PARTICLE])

    def _working(self, batch: dict[str, Any]) -> Snapshots:
        x = [self.space(part) for part in batch[X]]
        return Snapshots(x, batch[WEIGHT], batch[GROWTH], batch[TIME], batch[CONDITION])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in _SIZED:
            stored = state_dict.get(prefix + name)
            if stored is None and name == "start_values":  # a folder from before it was kept
                state_dict[prefix + name] = getattr(self, name)
            elif stored is not None:
                setattr(self, name, torch.zeros_like(stored, device=self.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    # Verbs ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def infer(
        self,
        snapshots: xr.Dataset,
        times: Sequence[float] | np.ndarray | None = None,
        *,
        num_samples: int = 100,
        seed: int | None = None,
        condition: Any = None,
    ) -> xr.Dataset:
        """Trajectories through snapshots: the bridge of the fitted reference, solved for the given ones.

        A path visits a particle of each snapshot, chosen by the couplings, and follows the reference, pinned,
        in between. With ``solver="ipf"`` it starts at a particle of one snapshot, each in turn, and follows
        the half-bridges from there to both ends.

        Paths are lines of descent: each ends at a particle of the last snapshot, drawn by its weight, and
        comes from one ancestor in each before, as for :meth:`ancestors`. Without a growth prior they visit
        every snapshot by its weights. With one they do so at the last; before, a particle counts by its
        descendants there. :meth:`marginal` gives the population as it is at each time.

        Args:
            snapshots: Snapshots, those of the training or others of the same features.
            times: Increasing times from the first snapshot to the last; by default the snapshots' own and
                nine between any two.
            num_samples: Paths S, in each condition.
            seed: Seed; ``None`` takes one from the ambient stream.
            condition: Label of one condition; all by default.

        Returns:
            ``x (particle, time, feature)`` in the units of the data; of several conditions with the
            coordinate ``condition (particle)``.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If the data do not fit the model, or a time lies outside them.
        """
        self.require_fitted()
        self._check_data(snapshots)
        batch = self._to_device(next(iter(MarginalLoader(snapshots, 1))))
        labels = condition_labels(snapshots)
        bridge = self._bridge(self._working(batch), labels)
        return bridge.trajectories(times, num_samples, seed, condition)

    @torch.no_grad()
    def marginal(
        self,
        times: Sequence[float] | np.ndarray | float,
        *,
        num_samples: int = 1000,
        seed: int | None = None,
        condition: Any = None,
    ) -> xr.Dataset:
        """The population at any time from the first training snapshot to the last.

        At the time of a snapshot its particles are drawn, with their weights; in between, those that multiply
        by the growth prior are as many as they are by then. With ``solver="ipf"`` half of the particles come
        from either snapshot around a time, and all from the one before where some multiply more than others.

        Args:
            times: Increasing times.
            num_samples: Particles at each time, in each condition.
            seed: Seed; ``None`` takes one from the ambient stream.
            condition: Label of one condition; all by default.

        Returns:
            ``x (particle, time, feature)`` in the units of the data; particles are the same path only at
            times between the same two snapshots, and not at all where some multiply more than others.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If a time lies outside the training snapshots.
        """
        return self.view().population(times, num_samples, seed, condition)

    @torch.no_grad()
    def forecast(
        self,
        times: Sequence[float] | np.ndarray | float,
        *,
        start: str = "last",
        num_samples: int = 1000,
        seed: int | None = None,
        condition: Any = None,
    ) -> xr.Dataset:
        """Run the fitted reference on from a training snapshot: an extrapolation, and labelled as one.

        Args:
            times: Increasing times after the snapshot to start from.
            start: ``"last"`` snapshot, or ``"first"`` to see what the reference alone makes of it.
            num_samples: Particles S, in each condition.
            seed: Seed; ``None`` takes one from the ambient stream.
            condition: Label of one condition; all by default.

        Returns:
            ``x (particle, time, feature)`` in the units of the data, each particle a path. The attribute
            ``extrapolation_from`` is the time of the last snapshot, after which nothing holds the paths; a
            coordinate ``extrapolation_from (particle)`` where conditions end at different times.

        Raises:
            NonFiniteError: If paths leave the finite numbers.
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If a time is not after the start.
        """
        return self.view().forecast(times, start, num_samples, seed, condition)

    @torch.no_grad()
    def bridge_drift(
        self, x: Any, times: float | Sequence[float] | np.ndarray | None = None, *, condition: Any = None
    ) -> xr.Dataset:
        r"""Drift of the bridge: where a particle at a state and time is going, given all later snapshots.

        .. math::
            b^*(x, t) = b(x, t) + S \nabla_x \log \textstyle\sum_j v_j e^{g_j} p(y_j | x; t_{k+1} - t)

        At the time of a snapshot it is that of the interval that begins; at the last it is the reference's.
        With ``solver="ipf"`` it is what was learned of it.

        Args:
            x: States: snapshots, whose times and conditions are used, or an array (particle, feature).
            times: One time, or one per particle, for an array.
            condition: Label of the condition of an array, where there are several.

        Returns:
            ``drift (particle, feature)`` in units of the data per unit of time, with the time and, of several
            conditions, the condition of each particle.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If states do not fit the model, or a time lies outside the training snapshots.
        """
        view = self.view()
        if isinstance(x, xr.Dataset):
            self._check_data(x, min_times=1)
        return view.drift(x, times, condition)

    @torch.no_grad()
    def coupling(self, interval: int, *, condition: Any = None) -> xr.DataArray:
        """Coupling of two neighbouring training snapshots: the mass that goes from each particle to each
        other.

        Args:
            interval: Number of the interval, from 0.
            condition: Label of the condition, where there are several.

        Returns:
            Dims ``source`` and ``target``, whose coordinates are the numbers of the particles in the training
            data, and ``source_cell`` and ``target_cell`` their names if they have some; sum 1.
            The attributes ``start`` and ``end`` are the times of the two snapshots.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If there is no such interval or condition.
        """
        return self.view().coupling(interval, condition)

    @torch.no_grad()
    def fates(self, labels: Any, *, condition: Any = None) -> xr.Dataset:
        """What each training particle becomes: the probability of each label of the last snapshot.

        The laws of the next particle given one, composed from snapshot to snapshot. With a growth prior one
        descendant is followed, at each division either daughter, so that a kind of particle is no likelier a
        fate for multiplying.

        Args:
            labels: One label per particle of the last snapshot, or of all particles, from which those of the
                last snapshot are taken: their number tells which. An array, a Series, a DataArray, or a
                Dataset with ``label (particle)``. In the order of the training data; a Series whose index
                names cells, or an array with the coordinate ``cell``, is put in order by the names of the
                training data, if these have them. The last snapshots of all conditions count as one.
            condition: Label of one condition; all by default.

        Returns:
            ``fate (particle, label)``, rows with the sum 1; at the last snapshot each particle's own label.
            ``particle`` is the number in the training data, with its ``time``, of several conditions its
            ``condition``, and the name ``cell`` if it has one. Labels have the order of a categorical column,
            else they are sorted.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If there is no such condition, or labels are missing or too few or many.
        """
        return fates(self.view(), labels, condition)

    @torch.no_grad()
    def ancestors(self, labels: Any, *, condition: Any = None) -> xr.Dataset:
        """Where the particles of each label of the last snapshot come from.

        Args:
            labels: As for :meth:`fates`.
            condition: Label of one condition; all by default.

        Returns:
            ``ancestry (label, particle)``: in each snapshot (of each condition) the law of the ancestor of a
            particle with that label, drawn by its weight; sum 1. NaN in a condition whose last snapshot has
            none of the label. Coordinates as for :meth:`fates`.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If there is no such condition, or labels are missing or too few or many.
        """
        return ancestors(self.view(), labels, condition)

    @torch.no_grad()
    def annotate(
        self,
        adata: Any,
        *,
        labels: str | None = None,
        time: str | None = None,
        representation: str | None = None,
        condition: str | None = None,
        key: str = "bridge",
    ) -> Any:
        """Write what the bridge says of each cell into the AnnData that the model was fitted on.

        Its cells may stand in another order than those of the training data: each is told by its condition,
        time and values.

        Args:
            adata: AnnData with the training cells, no more and no fewer; changed in place.
            labels: Column of ``obs`` with the label of each cell, such as its type, for fates.
            time: Column of ``obs`` that holds the time, as for :func:`seqdyn.data.read_snapshots`.
            representation: Key of ``obsm`` that the model was fitted on; None takes ``X``.
            condition: Column of ``obs`` that holds the condition.
            key: Name under which all is written.

        Returns:
            ``adata``, with ``obsm["bridge_drift"]``, the drift of the bridge at each cell in units of the
            data (cells × genes for a model of genes); ``obsm["X_bridge"]``, the coordinates that the model
            works on, and of principal components also their drift, ``obsm["bridge_drift_components"]``; with
            labels ``obsm["bridge_fate"]``, see :meth:`fates`, and their names in
            ``uns["bridge"]["fate_labels"]``.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If the cells are not those of the training, or a column is missing.
        """
        view = self.view()
        data = read_snapshots(adata, time=time, representation=representation, condition=condition)
        self._check_data(data)
        columns = (self.snapshot_x, self.snapshot_time, self.snapshot_condition, self.snapshot_particle)
        trained = Particles(*(column.cpu().numpy() for column in columns))
        return annotate(view, trained, adata, data, labels, key)

    @torch.no_grad()
    def score(
        self,
        held_out: xr.Dataset,
        metrics: Sequence[str] | str = ("w2",),
        *,
        num_samples: int = 1000,
        seed: int | None = None,
    ) -> xr.Dataset:
        """Distances to held-out snapshots, beside those of predictions that need no model.

        Methods: ``model``, its marginal, or its forecast after the last training snapshot; ``nearest``, the
        better of the training snapshots on either side; ``displacement``, these joined by exact transport;
        ``brownian``, the bridge of a reference without drift, of the same volatility; ``floor``, two random
        halves of the held-out snapshot, which is what sampling alone puts between clouds. Of a model on
        principal components everything is compared there.

        Args:
            held_out: Snapshots at one or more times that the fit has not seen.
            metrics: One or some of ``"w2"``, the root of the mean squared transport distance, ``"w1"``,
                ``"energy"``, ``"mmd2"`` and ``"swd"``, see :mod:`seqdyn.metrics`.
            num_samples: Particles drawn of the model and of the Brownian bridge.
            seed: Seed of the draws.

        Returns:
            ``score (method, time, metric)``, of several conditions with the dim ``condition`` first; NaN
            where a method has no prediction. Select with ``scores.sel({"method": "model"})``.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If the snapshots do not fit the model, or lie before the training snapshots.

        Warns:
            UserWarning: If some are training snapshots, whose particles the model draws again.
        """
        self.require_fitted()
        self._check_data(held_out, min_times=1)
        return bridge_scores.score(self, held_out, metrics, num_samples, seed)

    def leave_one_out(
        self,
        snapshots: xr.Dataset,
        *,
        metrics: Sequence[str] | str = ("w2", "energy"),
        num_samples: int = 1000,
        seed: int | None = None,
        max_epochs: int = 30,
        progress: bool = True,
    ) -> xr.Dataset:
        """Score each snapshot but the first and the last under a fit, from the beginning, to all others.

        Of several conditions a time is left out in those in which it is neither the first nor the last.

        Args:
            snapshots: Snapshots at three or more times, in one condition at least.
            metrics: Some of ``"w2"``, ``"w1"``, ``"energy"``, ``"mmd2"`` and ``"swd"``, see :meth:`score`.
            num_samples: Particles drawn of the model and of the Brownian bridge.
            seed: Seed of fits and draws.
            max_epochs: Most refinements in each fit.
            progress: Show a progress bar.

        Returns:
            ``score (method, time, metric)``, of several conditions also with the dim ``condition``, NaN where
            nothing was left out; this model is left as it is.

        Raises:
            ValueError: If the snapshots do not fit the model or are at fewer than three times.
        """
        self._check_data(snapshots)
        return bridge_scores.leave_one_out(self, snapshots, metrics, num_samples, seed, max_epochs, progress)

    def compare_references(
        self,
        snapshots: xr.Dataset,
        references: Mapping[str, nn.Module | str],
        *,
        metrics: Sequence[str] | str = ("w2", "energy"),
        num_samples: int = 1000,
        seed: int | None = None,
        max_epochs: int = 30,
        progress: bool = True,
    ) -> xr.Dataset:
        """Fit families of references to the same snapshots, with this model's other settings.

        Do not rank by the divergence: a family that contains another is never farther from the data it was
        fitted to. What was left out decides.

        Args:
            snapshots: Snapshots at three or more times, in one condition at least.
            references: Families by name, each as ``reference`` of the constructor.
            metrics: See :meth:`score`.
            num_samples: See :meth:`score`.
            seed: Seed of fits and draws.
            max_epochs: Most refinements in each fit.
            progress: Show a progress bar.

        Returns:
            Dims ``reference`` and ``metric``: ``divergence (reference)`` of the fit to all snapshots, in
            nats; ``num_parameters (reference)``; mean ``left_out (reference, metric)`` and standard deviation
            ``left_out_sd`` over inner snapshots left out in turn, NaN of a single one;
            ``forecast_back (reference, metric)``, the last snapshot forecast by a fit to those before it.

        Raises:
            ValueError: If the snapshots do not fit the model or are at fewer than three times.
        """
        self._check_data(snapshots)
        return bridge_scores.compare_references(
            self, snapshots, references, metrics, num_samples, seed, max_epochs, progress
        )

    def bootstrap(
        self,
        num_replicates: int = 50,
        *,
        level: float = 0.9,
        seed: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Uncertainty of the parameters that comes from the number of particles.

        Particles are drawn anew, with replacement, within each training snapshot, and the reference is
        refitted to them from where it is. Intervals are those of the draws' quantiles. They are on the wide
        side: a resampled cloud has but two thirds of its particles apart, so that a bridge through it is
        rougher than through the data. For the same reason draws of an estimated volatility are too large;
        they are scaled to have the estimate as their median. Intervals do not know of a wrong family.

        Args:
            num_replicates: Replicates.
            level: Coverage of the intervals.
            seed: Seed; ``None`` takes one from the ambient stream.
            progress: Show a progress bar.

        Returns:
            ``parameter_draw (replicate, parameter)``, NaN for a replicate that has no bridge; ``estimate``,
            ``lower`` and ``upper (parameter)``; ``converged (replicate)``, whether its refit came to rest.

        Raises:
            NonFiniteError: If no replicate has a bridge.
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If an argument is out of range, or the reference has more than 64 parameters and
                is not linear: such are refitted by regressions, which are too rough for this.

        Warns:
            ConvergenceWarning: If replicates did not come to rest, or have no bridge.
            UserWarning: If a parameter spreads over more than half of its value: the snapshots hardly tell
                it.
        """
        self.require_fitted()
        check_count(num_replicates, "num_replicates", least=2, hint="for instance num_replicates=50")
        view, seed = self.view(), ambient_seed(seed)
        process = copy.deepcopy(self.process).double()
        with fork_rng(seed):
            found = bridge_uncertainty.bootstrap(
                process,
                self._solver(),
                view.snapshots,
                view.coupled("bootstrap").coupling.g,
                num_replicates,
                level,
                progress,
            )
        return found.assign_attrs(provenance(type(self).__name__, seed) | {"level": level})

    @property
    def volatility_estimate(self) -> xr.Dataset:
        """How ``volatility="estimate"`` came to its number.

        ``raw`` minimises the divergence, which is too large for finite clouds; ``ratio (simulation)`` is the
        estimate from each simulation of the fitted process, at the sizes of the data, relative to the truth
        there, ``converged (simulation)`` whether its refit came to rest; ``corrected`` is raw over their
        median, and is in force.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
            ValueError: If the volatility was given.
        """
        self.require_fitted()
        if self.hparams.volatility != ESTIMATE:
            raise ValueError(
                f"the volatility was given, as {self.hparams.volatility}; nothing was estimated. Build the "
                "model with volatility='estimate'."
            )
        return bridge_records.volatility(self.process, self.volatility_ratio, self.volatility_rested)

    @property
    def convergence(self) -> xr.Dataset:
        """How well the bridge of each interval was solved.

        ``divergence (interval)`` from the reference in nats, and ``marginal_error (interval)``: the mass by
        which a coupling misses the weights of its snapshots; of ``solver="ipf"`` how far half-bridges end
        from a snapshot, by their means and covariances, in units of its spread and the noise together. There
        a tenth is sampling, and a half no bridge. Coordinates ``start`` and ``end`` are times. The attribute
        ``at_rest`` is 1 where the fit came to rest, 0 where refinements would change more.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        return self.view().record().assign_attrs(at_rest=int(self._is_calm()))

    @property
    def divergence(self) -> Tensor:
        """Divergence of the bridge from the fitted reference in nats, up to a constant of neither.

        The constant is another for other coordinates: densities per unit of x and of log x differ by a factor
        x. The divergence of a model with ``coordinates="log"`` compares with that of one with ``"raw"`` after
        adding, for each snapshot but the first, the mean over its particles of Σ log x; that of a model on
        principal components with that of no other components.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        self.require_fitted()
        return self.last_value

    def dynamics(self) -> FlowDynamics:
        """The fitted reference in working coordinates, for :mod:`seqdyn.analysis`: a copy, frozen.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        self.require_fitted()
        return copy.deepcopy(self.process).flow()

    @property
    def reference_parameters(self) -> xr.Dataset:
        """Fitted parameters of the reference.

        ``value (parameter)``, and over the fit ``trace (refinement, parameter)`` with the ``divergence
        (refinement)``, of which number 0 is the start and, of an estimated volatility, the last its
        correction; ``volatility (component, noise)`` is the matrix σ in force.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        self.require_fitted()
        corrected = float(self.last_value) if len(self.volatility_ratio) else None
        start = self.start_values.cpu().numpy()
        found = bridge_records.parameters(self.process, self.history, start, corrected)
        return found.assign_attrs(model=type(self).__name__, reference=type(self.process.drift).__name__)

    def view(self) -> BridgeView:
        """The bridge through the training snapshots, from the potentials that the fit found.

        Raises:
            NotFittedError: If the model was neither fitted nor loaded.
        """
        self.require_fitted()
        labels = (self.data_info or {}).get("conditions") or condition_numbers(self.snapshot_condition)
        particles = [part.cpu().numpy() for part in self.snapshot_particle.split(self._boundaries())]
        return self._bridge(self._snapshots(), labels, solution=self.solution, particles=particles)

    def _snapshots(self) -> Snapshots:
        """The training snapshots in working coordinates."""
        counts = self._boundaries()
        parts = {name: list(getattr(self, f"snapshot_{name}").split(counts)) for name in (X, WEIGHT, GROWTH)}
        firsts = np.cumsum([0, *counts[:-1]])
        ends = {TIME: self.snapshot_time[firsts], CONDITION: self.snapshot_condition[firsts]}
        return self._working(parts | ends)

    def _boundaries(self) -> list[int]:
        """Sizes of the training marginals."""
        keys = torch.stack([self.snapshot_condition.double(), self.snapshot_time.double()], dim=1)
        return torch.unique_consecutive(keys, dim=0, return_counts=True)[1].tolist()

    def _bridge(
        self,
        snapshots: Snapshots,
        labels: list[Any],
        *,
        solution: Tensor | None = None,
        particles: list[np.ndarray] | None = None,
    ) -> BridgeView:
        model = self if self.dtype == torch.float64 else copy.deepcopy(self).double()
        x, weight, growth = ([part.double() for part in parts] for parts in snapshots[:3])
        weight = [part / part.sum() for part in weight]  # 1 to rounding in double precision too
        snapshots = Snapshots(x, weight, growth, snapshots.time.double(), snapshots.condition)
        intervals, sources = make_intervals(snapshots)
        reference, method = model.process.reference(self._solver()), self._method()
        if solution is None:
            chain = method.solve(reference, intervals)
            _warn_if_unsolved(chain)
        else:
            chain = method.restore(reference, intervals, solution)
        return BridgeView(
            chain,
            snapshots,
            sources,
            labels,
            model.space,
            model.process.scale(),
            particles,
            self._facts(),
            self.hparams.num_steps,
        )

    def _facts(self) -> Facts:
        info = self.data_info or {}
        names = info.get("features") or [f"x_{i}" for i in range(self.hparams.num_features)]
        units, time_units = info.get("units"), info.get("time_units")
        return Facts(type(self).__name__, names, units, time_units, self.dtype, self.cells)

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        def move(value: Any) -> Any:
            return [move(part) for part in value] if isinstance(value, list) else value.to(self.device)

        return {name: move(value) for name, value in batch.items()}

    def facts(self) -> dict[str, Any]:
        named = {} if self.cells is None else {CELLS: self.cells}
        return {"reference": reference_facts(self.process.drift), **named}

    def check_facts(self, info: Mapping[str, Any]) -> None:
        saved = info.get("reference")
        check_same(self.process.drift, saved if isinstance(saved, dict) else None)

    def restore(self, record: Record) -> None:
        super().restore(record)
        self.cells = record.info.get(CELLS)
        if self.cells is not None and np.shape(self.cells) != (len(self.snapshot_x),):
            raise ValueError(f"it names other cells than its {len(self.snapshot_x)} particles")

    # Parts of a fitted model ----------------------------------------------------------------------------

    def _solver(self) -> PairSolver:
        is_affine = isinstance(self.process.drift, AffineDrift | Zero)
        return Affine() if is_affine and not self.space.log else Linearized(self.hparams.num_steps)

    def _method(self) -> Method:
        return method_of(self.hparams, int(self.path_seed))

    def _check_data(self, data: xr.Dataset, min_times: int = 2) -> None:
        known = (self.data_info or {}).get("features")
        check_data(data, self.hparams.num_features, known, self.space.log, min_times)


def _warn_if_unsolved(chain: AnyChain) -> None:
    if not chain.is_solved:
        warnings.warn(chain.complaint, ConvergenceWarning, stacklevel=2)
