"""The tests' app, on nodes where a second is long enough to be clean again."""

from __future__ import annotations

from nodeapp import app

from pytask.node import probation

probation.LONG_ENOUGH = 1.0

__all__ = ["app"]
