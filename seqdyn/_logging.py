"""Shows the package's messages where the application has not set up logging."""

from __future__ import annotations

import logging
import sys

__all__ = ["show_messages"]


class _FallbackHandler(logging.StreamHandler):
    """Writes to the current standard error while nobody else handles the package's messages."""

    def emit(self, record: logging.LogRecord) -> None:
        # Asked at every message, so that an application may set up its logging after the import.
        others = (*logging.getLogger().handlers, *logging.getLogger("seqdyn").handlers)
        if all(handler is self for handler in others):
            self.stream = sys.stderr  # looked up late: notebooks and test runners replace it
            super().emit(record)


def show_messages() -> None:
    """Give the logger ``seqdyn`` level INFO and a handler, unless the application configured logging."""
    logger = logging.getLogger("seqdyn")
    if logging.getLogger().handlers or logger.handlers or logger.level != logging.NOTSET:
        return
    logger.setLevel(logging.INFO)
    logger.addHandler(_FallbackHandler())
