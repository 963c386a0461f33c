"""When in training a system's dynamics appear: the same measurements on every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_count
from seqdyn.analysis.autonomous import growth_rate
from seqdyn.analysis.common import attributes
from seqdyn.analysis.conditions import over_conditions
from seqdyn.analysis.jacobians import count_eigenvalues, drive_matrices, spectra
from seqdyn.analysis.projection import fit_plane
from seqdyn.analysis.runs import outputs_of, start_chains
from seqdyn.analysis.stochastic import FREQUENT
from seqdyn.analysis.symbols import lagged_pairs, switch_rate
from seqdyn.dynamics.homogeneity import is_homogeneous
from seqdyn.dynamics.maps import MapDynamics
from seqdyn.dynamics.rollout import Drive, simulate
from seqdyn.dynamics.symbols import symbols_of
from seqdyn.inference.hmm import HMM
from seqdyn.rng import ambient_seed, fork_rng

__all__ = ["ChangePoint", "change_point", "training_dynamics"]

JUMP = 0.02  # of the critical fraction between two checkpoints that counts as the transition, as published
_NUM_PC = 10


class ChangePoint(NamedTuple):
    """The best cut of a curve into two levels.

    Attributes:
        place: First place of the second level; −1 if there are fewer than four finite values or no change.
        gain: Log-likelihood of two levels over that of one, in nats; NaN if there is no cut.
    """

    place: int
    gain: float


def change_point(values: Any) -> ChangePoint:
    r"""Cut a curve into two levels with Gaussian scatter of one variance,

    .. math::
        \hat k = \arg\min_k \sum_{i<k} (y_i - \bar y_{<k})^2 + \sum_{i \ge k} (y_i - \bar y_{\ge k})^2 ,

    the maximum-likelihood change point. The gain is :math:`\tfrac n2 \log` of the ratio of the sums of
    squares without and with the cut. Values that are not finite are skipped.

    Args:
        values: Curve (T,).

    Returns:
        Index into the curve, and gain.
    """
    curve = np.asarray(values, dtype=np.float64)
    place = np.flatnonzero(np.isfinite(curve))
    y = curve[place]
    if len(y) < 4 or np.ptp(y) == 0:
        return ChangePoint(-1, np.nan)
    y = y - y.mean()
    cuts = np.arange(1, len(y))
    left = np.cumsum(y)[:-1]
    # With the mean taken off, the squares explained by a cut are those of its two level sums.
    explained = left**2 / cuts + left**2 / (len(y) - cuts)
    best = int(explained.argmax())
    total = float((y**2).sum())
    rest = max(total - float(explained[best]), np.finfo(float).eps * total)
    return ChangePoint(int(place[best + 1]), 0.5 * len(y) * float(np.log(total / rest)))


@over_conditions
def training_dynamics(
    checkpoints: Mapping[int, MapDynamics],
    *,
    loss: Any = None,
    hmm: HMM | None = None,
    sigma: float = 1.0,
    num_steps: int = 5000,
    num_chains: int = 10,
    burn_in: int = 100,
    num_jacobians: int = 64,
    input: Any = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Measure the driven and the noise-free system at every checkpoint, from zero and under common noise.

    For unstable and critical eigenvalues see :func:`seqdyn.analysis.local_spectra`. The published
    second-order estimate of what noise does to the mean is left out: it rests on the second derivative of the
    rectifier, which is zero almost everywhere. ``noise_drift`` is the mean itself, by simulation;
    :func:`seqdyn.analysis.mean_map` has it in closed form.

    Args:
        checkpoints: Maps with a readout, by epoch or step, such as ``KeepWeights.dynamics(model)``.
        loss: Loss by epoch: a mapping, or a DataArray with the coordinate ``epoch``, such as
            ``model.history["train_loss"]``; epochs without one are NaN.
        hmm: The process that is learned, for the error of the transitions.
        sigma: Standard deviation of the noise.
        num_steps: Steps of all chains together.
        num_chains: Chains that run side by side.
        burn_in: Steps of each chain before those that count.
        num_jacobians: Driven states at which eigenvalues are taken.
        input: Constant input (X,), or a batch (B, X) of conditions.
        seed: Seed of noise and symbols; the same draws for every checkpoint.

    Returns:
        On ``epoch``: ``switch_rate`` of sampled symbols per step and ``argmax_switch_rate``;
        ``mean_reciprocal_interval``, the published rate: the mean of 1/interval between switches;
        ``unstable_fraction`` and ``critical_fraction`` of driven states with at least one such eigenvalue,
        ``num_unstable``, ``num_critical``, their mean numbers (a pair counts once); ``spectral_radius`` of
        the recurrent weights; ``growth_rate`` of the noise-free map (largest over starts);
        ``lyapunov_driven``, ``lyapunov_autonomous``, the largest exponents per step; ``state_norm``;
        ``loss``; ``transition_error`` over rows of symbols with frequency above 0.05; ``frequency (epoch,
        output)``; ``transition (epoch, output, output_next)``; ``explained_variance_ratio (epoch, pc)``;
        ``noise_drift (epoch, unit)``, mean of F(h, u + σξ) − F(h, u): how far noise moves the mean;
        ``scores (epoch, step, plane)``, one chain in the plane of its own checkpoint; ``finite (epoch)``. A
        checkpoint whose activity diverges stays, as NaN with ``finite`` false. ``transition_epoch``: first
        epoch at which the critical fraction has jumped by more than 0.02; ``change_epoch (quantity)`` and
        ``change_gain (quantity)`` of loss, growth and switch rate, see :func:`change_point`. NaN where there
        is none.

    Raises:
        ValueError: If an argument does not fit.
    """
    epochs = _checked(checkpoints)
    check_count(num_jacobians, "num_jacobians")
    seed = ambient_seed(seed)
    settings = {"sigma": sigma, "input": input}
    rows = []
    for epoch in epochs:
        with fork_rng(seed):
            states, length = start_chains(checkpoints[epoch], None, num_chains, num_steps, least=3)
            runs = simulate(checkpoints[epoch], states, length, burn_in=burn_in, **settings)
            rows.append(_measured(checkpoints[epoch], runs, settings, num_jacobians, hmm))
    shapes = {name: np.shape(value) for row in rows for name, value in row.items()}
    columns = {name: _column(rows, name, shape) for name, shape in shapes.items()}
    data = xr.Dataset(
        {name: (("epoch", *_DIMS.get(name, ())), column) for name, column in columns.items()},
        {"epoch": epochs},
        attributes(states, seed=seed, sigma=sigma, burn_in=burn_in),
    )
    data["finite"] = ("epoch", np.array([len(row) > 0 for row in rows]))
    data["loss"] = ("epoch", _losses(loss, epochs))
    return _with_transitions(data, hmm)


_DIMS: dict[str, tuple[str, ...]] = {
    "frequency": ("output",),
    "transition": ("output", "output_next"),
    "explained_variance_ratio": ("pc",),
    "noise_drift": ("unit",),
    "scores": ("step", "plane"),
}


@torch.no_grad()
def _measured(
    dynamics: MapDynamics, runs: Tensor, settings: dict[str, Any], num_jacobians: int, hmm: HMM | None
) -> dict[str, Any]:
    """All measurements on one checkpoint; none if its activity diverged."""
    if not bool(torch.isfinite(runs).all()):
        return {}
    states = runs.flatten(0, 1)
    few = states[torch.randperm(len(states), device=states.device)[:num_jacobians]]
    plane = fit_plane(runs, min(_NUM_PC, runs.shape[2]))
    still = simulate(dynamics, states, 1, input=settings["input"])[:, 0]
    driven = simulate(dynamics, states, 1, **settings)[:, 0]
    growth = growth_rate(dynamics, few, num_steps=300, input=settings["input"])
    return {
        **_symbol_statistics(dynamics, runs, hmm),
        **_eigenvalues(dynamics, few, settings),
        "spectral_radius": _spectral_radius(dynamics, runs),
        "growth_rate": float(growth["growth_rate"].values.max()),
        "lyapunov_driven": _top_exponent(dynamics, few, settings),
        "lyapunov_autonomous": _top_exponent(dynamics, few, {**settings, "sigma": 0.0}),
        "state_norm": float(runs.norm(dim=2).mean()),
        "explained_variance_ratio": plane.share.cpu().numpy(),
        "noise_drift": (driven - still).double().mean(dim=0).cpu().numpy(),
        "scores": plane.scores(runs[0])[:, :2].cpu().numpy(),
    }


def _symbol_statistics(dynamics: MapDynamics, runs: Tensor, hmm: HMM | None) -> dict[str, Any]:
    logits = outputs_of(dynamics, runs)
    num_symbols = logits.shape[-1]
    sampled, likeliest = symbols_of(logits, "sampled")[None], symbols_of(logits)[None]
    pairs = lagged_pairs(sampled, num_symbols, 1)[0, :, 0].sum(dim=0)
    total = pairs.sum(dim=1, keepdim=True)
    transition = pairs / total.where(total > 0, torch.nan)
    error = np.nan
    if hmm is not None:
        exact = hmm.output_statistics()
        rows = (exact.frequency > FREQUENT).to(pairs.device)
        error = float((transition - exact.transition.to(pairs))[rows].abs().max())
    frequency = torch.nn.functional.one_hot(sampled, num_symbols).double().mean(dim=(0, 1, 2))
    return {
        "switch_rate": float(switch_rate(sampled)),
        "argmax_switch_rate": float(switch_rate(likeliest)),
        "mean_reciprocal_interval": _mean_reciprocal(sampled[0]),
        "transition_error": error,
        "frequency": frequency.cpu().numpy(),
        "transition": transition.cpu().numpy(),
    }


def _mean_reciprocal(symbols: Tensor) -> float:
    """Mean of 1/interval between switches of the chains (N, T); NaN with no interval."""
    chain, step = (symbols[:, 1:] != symbols[:, :-1]).nonzero(as_tuple=True)
    interval = (step[1:] - step[:-1])[chain[1:] == chain[:-1]]
    return float((1 / interval.double()).mean()) if len(interval) else np.nan


def _eigenvalues(dynamics: MapDynamics, states: Tensor, settings: dict[str, Any]) -> dict[str, float]:
    values = spectra(dynamics, states, Drive(dynamics, states, num_steps=1, **settings)(0))
    counts = count_eigenvalues(values)
    return {
        "unstable_fraction": float((counts.unstable > 0).mean()),
        "critical_fraction": float((counts.critical > 0).mean()),
        "num_unstable": float(counts.unstable.mean()),
        "num_critical": float(counts.critical.mean()),
    }


def _top_exponent(
    dynamics: MapDynamics, states: Tensor, settings: dict[str, Any], num_steps: int = 200
) -> float:
    """Largest Lyapunov exponent per step: mean growth of a tangent vector in the second half of the steps."""
    h, tangent = states, torch.randn_like(states)
    drive, log = Drive(dynamics, states, num_steps=num_steps, **settings), []
    # Without drive a homogeneous map has the same derivative along a ray: unit length keeps h in range.
    cone = settings["sigma"] == 0 and is_homogeneous(dynamics, states, settings["input"])
    for step in range(num_steps):
        if cone:
            size = h.norm(dim=1, keepdim=True)
            h = h / size.where(size > 0, 1.0)
        tangent = tangent / tangent.norm(dim=1, keepdim=True)
        now, u = dynamics.at(step), drive(step)
        h, tangent = torch.func.jvp(lambda x, now=now, u=u: now.step(x, u), (h,), (tangent,))  # type: ignore[misc]
        log.append(tangent.norm(dim=1).log())
        if bool((log[-1] == -torch.inf).all()):
            return -np.inf  # all units silent: the tangent map is zero
        tangent = torch.where(log[-1].isfinite()[:, None], tangent, torch.randn_like(tangent))
    rates = torch.stack(log)[num_steps // 2 :].mean(dim=0)
    return float(rates.mean())


def _spectral_radius(dynamics: MapDynamics, runs: Tensor) -> float:
    """Largest modulus of the recurrent weights' eigenvalues; NaN where the drive is unknown or not linear."""
    try:
        recurrent, _, _ = drive_matrices(dynamics, runs)
    except ValueError:
        return np.nan
    return float(torch.linalg.eigvals(recurrent.double()).abs().max())


def _column(rows: list[dict[str, Any]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([np.asarray(row.get(name, np.full(shape, np.nan)), dtype=float) for row in rows])


def _losses(loss: Any, epochs: list[int]) -> np.ndarray:
    if loss is None:
        return np.full(len(epochs), np.nan)
    if isinstance(loss, xr.DataArray):
        if loss.dims != ("epoch",):
            raise ValueError(f"loss must have the one dim 'epoch', got {loss.dims}.")
        loss = dict(zip(loss["epoch"].values.tolist(), loss.values.tolist(), strict=True))
    if not isinstance(loss, Mapping):
        raise ValueError(
            f"loss must give a value by epoch, got {type(loss).__name__}; type loss=model.history"
            "['train_loss'] or {epoch: value}."
        )
    return np.array([loss.get(epoch, np.nan) for epoch in epochs], dtype=float)


def _with_transitions(data: xr.Dataset, hmm: HMM | None) -> xr.Dataset:
    epochs = data["epoch"].values
    if not bool(data["finite"].any()):
        return data.assign_attrs(reason="the activity diverges at every checkpoint")
    known = data["critical_fraction"].values
    jump = np.flatnonzero(np.diff(known) > JUMP)
    data["transition_epoch"] = float(epochs[jump[0] + 1]) if len(jump) else np.nan
    names = ["loss", "growth_rate", "switch_rate"]
    found = [change_point(data[name].values) for name in names]
    data["change_epoch"] = (
        "quantity",
        np.array([float(epochs[one.place]) if one.place >= 0 else np.nan for one in found]),
    )
    data["change_gain"] = ("quantity", np.array([one.gain for one in found]))
    data = data.assign_coords(quantity=names)
    reasons = []
    if not bool(data["finite"].all()):
        reasons.append(f"the activity diverges at epoch {epochs[~data['finite'].values].tolist()}")
    if not len(jump):
        reasons.append("no jump of the critical fraction")
    reasons += [f"no change of {name}" for name, one in zip(names, found, strict=True) if one.place < 0]
    if hmm is None:
        reasons.append("no transition error without hmm=")
    return data.assign_attrs(reason="; ".join(reasons)) if reasons else data


def _checked(checkpoints: Any) -> list[int]:
    if not isinstance(checkpoints, Mapping) or not checkpoints:
        raise ValueError(
            "checkpoints must be a mapping from epoch to dynamics, such as KeepWeights(...).dynamics(model), "
            f"got {'nothing' if checkpoints == {} else type(checkpoints).__name__}."
        )
    for epoch, dynamics in checkpoints.items():
        check_count(epoch, "an epoch of checkpoints", least=0)
        if not isinstance(dynamics, MapDynamics):
            raise ValueError(
                f"checkpoints[{epoch}] must be a MapDynamics, got {type(dynamics).__name__}; type "
                "model.dynamics() with its weights loaded."
            )
    return sorted(checkpoints)
