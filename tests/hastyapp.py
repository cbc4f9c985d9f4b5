"""The tasks of nodeapp on nodes of less patience: what takes them 5 to 12 seconds takes these one or two."""

from __future__ import annotations

from nodeapp import app

from pytask.node import node, stopper

__all__ = ["app"]

node.FLUSH_SECONDS = 1.0
node.END_SECONDS = 2.0
stopper.STOP_SECONDS = 1.0
