"""``python -m seqdyn`` is the command ``seqdyn``."""

from __future__ import annotations

from seqdyn.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
