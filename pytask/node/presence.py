"""Presence: writes what the node says of itself, `node-<node>`, for lists. It goes when the node does."""

from __future__ import annotations

import os
import socket
import time

import gevent

from pytask.node.local import LocalTasks
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.version import __version__


class Presence(Service):
    """The node's own record and those of its local tasks."""

    name = "presence"

    def __init__(self, state: NodeState, local: LocalTasks) -> None:
        super().__init__()
        self.state = state
        self.local = local
        self.started = time.time()

    def run(self) -> None:
        """Write, for ever: what has changed, and all before half the life of the records is over."""
        timeout = self.state.settings.node_timeout
        before: dict[str, object] = {}
        written = 0.0
        while True:
            fields = self._fields()
            if fields != before or time.monotonic() - written >= timeout * 1.4:
                self.write(fields)
                before, written = fields, time.monotonic()
            gevent.sleep(timeout / 2)

    def write(self, fields: dict[str, object]) -> None:
        """Write once; the records live for three times `node_timeout`."""
        ttl = 3 * self.state.settings.node_timeout
        now = {**fields, "last_update": f"{time.time():.3f}"}
        self.state.store.node_records.write(self.state.id, now, ttl)
        self.local.write(ttl)

    def _fields(self) -> dict[str, object]:
        state = self.state
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "queues": ",".join(name or "default" for name in state.queue_names),
            "running": len(state.registry),
            "concurrency": state.settings.concurrency,
            "accepting": int(state.accepting.is_set()),
            "tasks": ",".join(sorted(state.classes)),
            "started": f"{self.started:.3f}",
        }
