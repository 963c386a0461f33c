"""The reference of a bridge: made from what a user gives, checked, and told apart at load."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqdyn.sde import drifts
from seqdyn.sde.solvers import AffineDrift

__all__ = ["check_kind", "check_reference", "check_same", "reference_facts", "reference_of"]

_FROZEN = "requires_grad of "


def check_kind(reference: Any) -> None:
    """Check that a reference is a module or a name.

    Raises:
        ValueError: If it is something else.
    """
    if reference is None or isinstance(reference, nn.Module | str):
        return
    if isinstance(reference, type):
        what = f"the class {reference.__name__}; make one: reference={reference.__name__}()"
    else:
        what = (
            f"{type(reference).__name__}; write it as the forward(x, t) of an nn.Module, with what is to be "
            "fitted as nn.Parameter"
        )
    raise ValueError(f"reference must be a drift, got {what}.")


def reference_of(reference: nn.Module | str | None, size: int) -> nn.Module:
    """A drift of its own: a copy of the one given, or one by the name of its class.

    Raises:
        ValueError: If there is no such class, or it needs arguments.
    """
    if isinstance(reference, nn.Module):
        return copy.deepcopy(reference).double()
    name = "Linear" if reference is None else reference
    if name not in drifts.__all__:
        raise ValueError(
            f"there is no reference {name!r}; give a module, or one of the names {', '.join(drifts.__all__)}."
        )
    family = getattr(drifts, name)
    needed = inspect.signature(family).parameters
    try:
        return family(size) if "num_features" in needed else family()
    except TypeError as error:
        raise ValueError(f"{name} needs arguments ({error}); build it: reference={name}(...).") from error


def check_reference(drift: nn.Module, size: int, hparams: Any) -> None:
    """Check that a reference is a drift of so many coordinates, and one that the solver can take.

    Raises:
        ValueError: If it is not.
    """
    x = torch.ones(3, size, dtype=torch.float64)
    for time in (torch.zeros(3, 1, dtype=torch.float64), 0.0):
        _check_velocity(drift, x, time)
    if isinstance(drift, AffineDrift):
        _check_affine(drift, size)
    if hparams.solver == "linear" and (
        hparams.coordinates == "log" or not isinstance(drift, AffineDrift | drifts.Zero)
    ):
        raise ValueError(
            f"solver='linear' needs a reference A x + c in raw coordinates, got {type(drift).__name__} in "
            f"{hparams.coordinates}; use solver='static'."
        )


def _check_affine(drift: nn.Module, size: int) -> None:
    """Check that a drift which offers a matrix and an offset has the velocities that they say."""
    name = type(drift).__name__
    remedy = (
        "a reference with affine() is solved as A x + c. If it is not linear, write affine = None and "
        "solve = None in its class, or derive it from nn.Module; rename a layer that is called affine."
    )
    x = torch.linspace(-2, 3, 4 * size, dtype=torch.float64).reshape(size, 4).T.contiguous()
    try:
        with torch.no_grad():
            matrix, offset = drift.affine()  # type: ignore[operator]
            wanted = x @ matrix.mT + offset
            found = [drift(x, time) for time in (0.0, 1.0)]
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"affine() of reference {name} does not give a matrix {(size, size)} and an offset {(size,)}: "
            f"{str(error).rstrip('.')}. {remedy[0].upper()}{remedy[1:]}"
        ) from error
    if not all(torch.allclose(wanted, part, rtol=1e-6, atol=1e-9) for part in found):
        raise ValueError(f"reference {name} has other velocities than the A x + c of its affine(): {remedy}")


def _check_velocity(drift: nn.Module, x: Tensor, time: Tensor | float) -> None:
    name, size = type(drift).__name__, x.shape[1]
    kind = f"times {tuple(time.shape)}" if isinstance(time, Tensor) else f"the time {time}"
    wanted = (
        f"forward(x, t) must map states (..., {size}) and times, a number or a tensor that broadcasts, to "
        "velocities of the states' shape and precision."
    )
    try:
        with torch.no_grad():
            found = drift(x, time)
    except (AttributeError, RuntimeError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"reference {name} failed on states {tuple(x.shape)} and {kind}: {str(error).rstrip('.')}. "
            f"{wanted}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != x.shape or found.dtype != x.dtype:
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"reference {name} gave {what} for states {x.dtype} {tuple(x.shape)}; {wanted}")


def reference_facts(drift: nn.Module) -> dict[str, str]:
    """What a reference is, beside its parameters: classes, plain settings, which parameters are frozen."""
    facts = {}
    for prefix, module in drift.named_modules():
        dot = f"{prefix}." if prefix else ""
        facts[f"{dot}class"] = type(module).__name__
        for name, value in vars(module).items():
            if (
                name != "training"
                and not name.startswith("_")
                and isinstance(value, bool | int | float | str)
            ):
                facts[dot + name] = repr(value)
    free = {name: p.requires_grad for name, p in drift.named_parameters()}
    return facts | {_FROZEN + name: repr(value) for name, value in free.items()}


def check_same(drift: nn.Module, saved: Mapping[str, Any] | None) -> None:
    """Check that a reference is the one that was saved, by what :func:`reference_facts` said of it then.

    Args:
        drift: The reference.
        saved: What was said; ``None`` where nothing is known.

    Raises:
        ValueError: If it is another.
    """
    if saved is None:
        return
    here = reference_facts(drift)
    # Only what both know: another version of a class may have more settings.
    names = [name for name in here.keys() & saved.keys() if here[name] != saved[name]]
    if names:
        listed = ", ".join(f"{name} was {saved[name]}, here it is {here[name]}" for name in sorted(names)[:3])
        raise ValueError(
            f"the model was fitted with another reference ({listed}); hand it in again: load(path, "
            "reference=...), with the same settings and the same parameters frozen."
        )
