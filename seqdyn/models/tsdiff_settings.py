"""What TSDiff's constructor arguments mean: presets, named lags and the checks of the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from seqdyn._arguments import check_count, check_lower, is_count

__all__ = ["LAGS", "PRESETS", "expand"]

LAGS = {
    "hourly": tuple(24 * n for n in (1, 2, 3, 4, 5, 6, 7, 14, 21, 28)),
    "daily": tuple(30 * n for n in range(1, 13)),
}
# The paper's settings, and a small network for a laptop's processor on an hourly panel.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "context_length": 336,
        "prediction_length": 24,
        "lags": (),
        "hidden_size": 64,
        "num_blocks": 3,
        "state_size": 128,
        "embedding_size": 128,
    },
    "small": {
        "context_length": 168,
        "prediction_length": 24,
        "lags": "hourly",
        "hidden_size": 32,
        "num_blocks": 2,
        "state_size": 128,
        "embedding_size": 128,
    },
}

COUNTS = (
    "num_features",
    "context_length",
    "prediction_length",
    "num_diffusion_steps",
    "num_covariates",
    "hidden_size",
    "num_blocks",
    "state_size",
    "embedding_size",
    "batch_size",
    "batches_per_epoch",
)


def expand(given: dict[str, Any], preset: str) -> dict[str, Any]:
    """Fill arguments left at ``None`` from the preset, expand named lags and check the numbers.

    Args:
        given: The constructor's arguments by name.
        preset: Name of the preset.

    Returns:
        The hyperparameters, complete and explicit.

    Raises:
        ValueError: If an argument is out of range, with the usual value.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {tuple(PRESETS)}, got {preset!r}.")
    defaults = PRESETS[preset]
    values: dict[str, Any] = {k: defaults.get(k) if v is None else v for k, v in given.items()}
    values["lags"] = _expand_lags(values["lags"])
    for name in COUNTS:
        values[name] = check_count(values[name], name, least=0 if name == "num_covariates" else 1)
    values["lower"] = check_lower(values["lower"])
    for name in ("learning_rate", "beta_end"):
        if not isinstance(values[name], Real):
            raise ValueError(f"{name} must be a number, got {values[name]!r}.")
    if not isinstance(values["init_skip"], bool):
        raise ValueError(f"init_skip must be True or False, got {values['init_skip']!r}.")
    if not values["learning_rate"] > 0:
        raise ValueError(
            f"learning_rate must be positive, got {values['learning_rate']}; the usual value is 1e-3."
        )
    if not 1e-4 <= values["beta_end"] < 1:
        raise ValueError(
            f"beta_end must lie between 1e-4 and 1, got {values['beta_end']}; the usual value is 0.1."
        )
    return values


def _expand_lags(lags: Sequence[int] | str) -> tuple[int, ...]:
    if isinstance(lags, str):
        if lags not in LAGS:
            raise ValueError(f"lags must be {' or '.join(map(repr, LAGS))} or a list of steps, got {lags!r}.")
        lags = LAGS[lags]
    steps = () if isinstance(lags, Real) else tuple(lags)
    valid = all(is_count(step) for step in steps) and len({*steps}) == len(steps)
    if isinstance(lags, Real) or not valid:
        raise ValueError(
            f"lags must list different whole numbers of steps, at least 1 each, got {lags!r}; "
            "for instance lags=[24, 168]."
        )
    return tuple(int(step) for step in steps)
