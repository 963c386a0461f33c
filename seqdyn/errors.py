"""The package's four own exception and warning classes."""

from __future__ import annotations

__all__ = ["ConvergenceWarning", "EarlyEndWarning", "NonFiniteError", "NotFittedError"]


class NotFittedError(RuntimeError):
    """A verb was called that needs a fitted model."""


class NonFiniteError(RuntimeError):
    """A loss or a sampler left the finite numbers; the message names where."""


class ConvergenceWarning(UserWarning):
    """An iterative routine stopped before it reached its tolerance."""


class EarlyEndWarning(UserWarning):
    """A series ends before the data do, so that its forecast does not start at its own end."""
