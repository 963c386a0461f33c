"""Checks of what a bridge is built with, and its first guess of the volatility."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn._arguments import check_amount, check_count
from seqdyn.data.schema import FEATURE, X, check_snapshots
from seqdyn.ot.exact import exact_cost
from seqdyn.sde.intervals import Intervals
from seqdyn.sde.methods import Couplings, Method, Projections
from seqdyn.sde.noise import volatility_matrix
from seqdyn.sde.projections import Settings, least_paths

__all__ = [
    "ESTIMATE",
    "check_data",
    "check_settings",
    "first_volatility",
    "method_of",
    "plain_volatility",
    "warn_of_dimensions",
]

SOLVERS = ("static", "linear", "ipf")
COORDINATES = ("raw", "log")
ESTIMATE = "estimate"
_MANY_COORDINATES = 20
_VOLATILITY = "type a positive number, such as volatility=0.2, or volatility='estimate' to learn it"


def plain_volatility(volatility: Any) -> Any:
    """Volatility as plain data."""
    if isinstance(volatility, Tensor | np.ndarray):
        volatility = volatility.tolist()
    if isinstance(volatility, list | tuple):
        return tuple(plain_volatility(part) for part in volatility)
    return volatility


def check_settings(hparams: Any) -> None:
    """Check hyperparameters against each other.

    Raises:
        ValueError: If one is out of range or they do not fit.
    """
    for name in ("num_features", "num_steps", "num_paths", "network_steps"):
        check_count(hparams[name], name)
    for name in ("tolerance", "learning_rate"):
        check_amount(hparams[name], name, zero=False)
    check_amount(hparams.weight_decay, "weight_decay")
    check_count(hparams.num_simulations, "num_simulations", least=0)
    for name, known in (("solver", SOLVERS), ("coordinates", COORDINATES)):
        if hparams[name] not in known:
            raise ValueError(f"{name} must be one of {known}, got {hparams[name]!r}.")
    if hparams.num_components is not None:
        check_count(hparams.num_components, "num_components")
        if hparams.num_components > hparams.num_features:
            raise ValueError(
                f"num_components must be at most num_features={hparams.num_features}, got "
                f"{hparams.num_components}; None works on the features themselves."
            )
        if hparams.coordinates == "log":
            raise ValueError("choose one: coordinates='log', or num_components= of the features as they are.")
    size = hparams.num_features if hparams.num_components is None else hparams.num_components
    if hparams.volatility != ESTIMATE:
        _check_volatility(hparams.volatility, size, hparams.coordinates)
    for name in ("num_projections", "projection_paths"):
        check_count(hparams[name], name)
    if hparams.solver == "ipf":
        _check_projections(hparams, size)


def method_of(hparams: Any, seed: int) -> Method:
    """How a bridge with these hyperparameters is found; noise that this takes has the seed given."""
    if hparams.solver != "ipf":
        return Couplings()
    settings = Settings(hparams.num_projections, hparams.num_steps, hparams.projection_paths)
    return Projections(settings, max(seed, 0))


def _check_projections(hparams: Any, size: int) -> None:
    if hparams.volatility == ESTIMATE:
        raise ValueError(
            "solver='ipf' cannot estimate the volatility, of which half-bridges know no gradient; give a "
            "number, or estimate it with solver='static'."
        )
    hint = f"solver='ipf' needs as many for {size} coordinates; or lower num_components"
    check_count(hparams.projection_paths, "projection_paths", least=least_paths(size), hint=hint)


def _check_volatility(volatility: Any, size: int, coordinates: str) -> None:
    if isinstance(volatility, str | bool):
        raise ValueError(
            f"volatility must be a number, several, or 'estimate', got {volatility!r}; "
            f"{_number_in(volatility) or _VOLATILITY}."
        )
    try:
        matrix = volatility_matrix(volatility, size)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}; {_VOLATILITY}.") from error
    if bool(torch.linalg.matrix_rank(matrix) < size):
        raise ValueError(
            f"volatility must leave noise in every direction, got {volatility!r}: without it a bridge need "
            "not exist; give a small one, or volatility='estimate'."
        )
    if coordinates == "log" and bool((matrix - torch.diag(matrix.diagonal())).any()):
        raise ValueError("coordinates='log' takes one number or one per feature as volatility, no matrix.")


def _number_in(text: str | bool) -> str | None:
    """What to type instead of a number in quotes."""
    try:
        return f"type volatility={float(text):g}, without quotes" if isinstance(text, str) else None
    except ValueError:
        return None


def first_volatility(intervals: Intervals, num_parameters: int) -> float:
    """A volatility that would explain all movement by noise, to start from.

    Raises:
        ValueError: If no noise would explain the snapshots best: they coincide, or so few particles are seen
            that so many parameters lead paths through all of them.
    """
    seen = int((intervals.target_weight > 0).sum()) * intervals.target.shape[-1]
    if seen <= num_parameters:
        raise ValueError(
            f"there is no volatility to estimate from {seen} numbers, the particles after the first "
            f"snapshot, with {num_parameters} parameters, which can lead paths without noise through all of "
            "them; give a number, or a reference with fewer parameters."
        )
    squares = []
    for index in range(len(intervals.start)):
        x, y = intervals.source[index], intervals.target[index]
        weights = intervals.source_weight[index].cpu().numpy(), intervals.target_weight[index].cpu().numpy()
        squares.append(exact_cost(torch.cdist(x, y).square().cpu().numpy(), *weights))
    total = sum(squares) / float(intervals.duration.sum()) / intervals.source.shape[-1]
    if not total > 0:
        raise ValueError("all snapshots coincide, so that there is no volatility to estimate; give a number.")
    return math.sqrt(total)


def warn_of_dimensions(size: int, clouds: Sequence[Tensor]) -> None:
    """Warn where particles lie so far apart, in many coordinates, that each has but one partner."""
    if size <= _MANY_COORDINATES:
        return
    fewest = min(map(len, clouds))
    warnings.warn(
        f"the bridge works on {size} coordinates, with {fewest / size:.2g} particles for each in the "
        f"smallest snapshot: in more than {_MANY_COORDINATES} coordinates couplings follow the few "
        "particles there are, not the population. Take principal components: num_components=10, for "
        "instance.",
        UserWarning,
        stacklevel=2,
    )


def check_data(
    data: xr.Dataset, num_features: int, known: list[Any] | None, log: bool, min_times: int
) -> None:
    """Check that snapshots are such, and fit a model.

    Args:
        data: The snapshots.
        num_features: Features of the model.
        known: Their names, if the model was fitted.
        log: Whether it works on logarithms.
        min_times: Fewest times.

    Raises:
        ValueError: On the first violation.
    """
    check_snapshots(data, min_times=min_times)
    if known is not None and data.sizes[FEATURE] != num_features:
        raise ValueError(
            f"the snapshots have {data.sizes[FEATURE]} features but the model was fitted to {num_features}: "
            f"{known[:6]}; select them with data.sel(feature=[...])."
        )
    if data.sizes[FEATURE] != num_features:
        raise ValueError(
            f"the snapshots have {data.sizes[FEATURE]} features but the model was built with "
            f"num_features={num_features}; build it with num_features={data.sizes[FEATURE]}."
        )
    if known is not None and FEATURE in data.coords and list(data[FEATURE].values) != known:
        raise ValueError(
            f"the snapshots have the features {data[FEATURE].values[:6].tolist()}, the model was fitted to "
            f"{known[:6]}; select and order them with data.sel(feature=[...])."
        )
    if log and bool((data[X] <= 0).any()):
        low = data[X].values <= 0
        raise ValueError(
            f"coordinates='log' needs positive data, but 'x' is {float(data[X].values[low][0]):g} at "
            f"particle={int(low.any(axis=1).argmax())}; drop such particles, or use coordinates='raw'."
        )
