"""The reference of a bridge: made from what a user gives, checked, and told apart at load."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from seqdyn.rng import fork_rng
from seqdyn.sde import drifts
from seqdyn.sde.regression import free_parameters
from seqdyn.sde.solvers import AffineDrift

__all__ = ["check_kind", "check_reference", "check_same", "check_start", "reference_facts", "reference_of"]

_FROZEN = "requires_grad of "


def check_kind(reference: Any) -> None:
    """Check that a reference is a module or a name.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(reference, nn.Module) and "_parameters" not in vars(reference):
        raise ValueError(
            f"reference {type(reference).__name__} was not set up as a module; begin its __init__ with "
            "super().__init__()."
        )
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
    names = [known for known in drifts.__all__ if known != "Sum"]  # which is nothing without its terms
    if name not in names:
        raise ValueError(
            f"there is no reference {name!r}; give one of {', '.join(names)}, or in Python a module."
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
    _try(copy.deepcopy(drift), size)
    _check_bounds(drift)
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


def _try(drift: nn.Module, size: int) -> None:
    """Ask a drift for velocities, and how they change with its parameters, in the ways that a fit does."""
    clock = torch.zeros(2, 3, 1, dtype=torch.float64)
    calls: list[tuple[tuple[int, ...], Tensor | float]]
    calls = [((3, size), clock[0]), ((3, size), 0.0), ((2, 3, size), clock)]
    reached: set[str] = set()
    # Positive states, which logarithms need; their gradient tells what leaves torch.
    with fork_rng(0), torch.enable_grad():
        for shape, time in calls:
            x = torch.ones(shape, dtype=torch.float64, requires_grad=True).clone()
            reached |= _influences(drift, x, time)
    without = [name for name, _ in free_parameters(drift) if name not in reached]
    if without and not torch.is_inference_mode_enabled():  # which knows no gradients
        raise ValueError(
            f"parameter {without[0]!r} does not influence the drift {type(drift).__name__}: do not use "
            "float(), .item(), .detach() or no_grad() in forward; set requires_grad_(False) to fix it on "
            "purpose."
        )


def _influences(drift: nn.Module, x: Tensor, time: Tensor | float) -> set[str]:
    """Names of the free parameters that are on the way to the velocities at some states."""
    name, size = type(drift).__name__, x.shape[-1]
    kind = f"times {tuple(time.shape)}" if isinstance(time, Tensor) else f"the time {time}"
    wanted = (
        f"forward(x, t) must map states (..., {size}) and times, a number or a tensor that broadcasts, to "
        "velocities of the states' shape and precision"
    )
    if x.ndim > 2:
        wanted += ": index features with x[..., 0] and stack with dim=-1"
    free = free_parameters(drift)
    try:
        found = drift(x, time)
        is_right = isinstance(found, Tensor) and found.shape == x.shape and found.dtype == x.dtype
        grads: Sequence[Tensor | None] = [None] * len(free)
        if is_right and free and found.requires_grad:
            grads = torch.autograd.grad(found.sum(), [p for _, p in free], allow_unused=True)
    except (AttributeError, RuntimeError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"reference {name} failed on states {tuple(x.shape)} and {kind}: {str(error).rstrip('.')}. "
            f"{_remedy(str(error)) or wanted}."
        ) from error
    if not is_right:
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"reference {name} gave {what} for states {x.dtype} {tuple(x.shape)}; {wanted}.")
    return {key for (key, _), grad in zip(free, grads, strict=True) if grad is not None}


def _remedy(message: str) -> str | None:
    """What to write instead of what torch complains of."""
    if "numpy()" in message:
        return "In forward use torch.exp and so on, not numpy"
    if "Boolean value" in message:
        return "In forward use torch.where(condition, this, that) instead of if"
    return None


def _check_bounds(drift: nn.Module) -> None:
    """Check that lower bounds are numbers of parameters that there are, below which none starts."""
    for module in reversed(list(drift.modules())):  # a term before its sum
        name, bounds = type(module).__name__, getattr(module, "lower_bounds", {})
        if not isinstance(bounds, Mapping) or not all(isinstance(bound, Real) for bound in bounds.values()):
            raise ValueError(
                f"lower_bounds of {name} must map names of parameters to numbers, got {bounds!r}; write for "
                "instance lower_bounds = {'rate': 0.0}."
            )
        known = dict(module.named_parameters())
        for key, bound in bounds.items():
            if key not in known:
                raise ValueError(
                    f"lower_bounds of {name} names {key!r}, but its parameters are {sorted(known)}; write "
                    "one of these."
                )
            if known[key].requires_grad and bool((known[key] < bound).any()):
                raise ValueError(
                    f"{key} of {name} must be at least {bound:g}, its lower bound, but starts at "
                    f"{float(known[key].min()):g}; start higher, or lower the bound."
                )


def check_start(drift: nn.Module, x: Tensor, time: Tensor) -> None:
    """Check that a drift starts with finite velocities at the states (N, C) and times (N, 1) of the data.

    Raises:
        ValueError: If it does not.
    """
    with torch.no_grad():
        bad = ~torch.isfinite(drift(x, time)).all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        found = drift(x, time)[first].tolist()
        raise ValueError(
            f"the drift is {found} at state {x[first].tolist()}, time {float(time[first]):g}, a particle of "
            "the data; start from other parameters, or keep logarithms, roots and quotients in forward "
            "away from zero."
        )


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
