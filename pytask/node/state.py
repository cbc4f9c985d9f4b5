"""What the services of a node share: who it is, what it serves, and whether it takes work."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from gevent.event import Event

from pytask.hooks import Hooks, NodeInfo
from pytask.keys import QueueKeys
from pytask.names import queue_label
from pytask.node.held import Held
from pytask.node.replica import ServiceCounts
from pytask.node.run import Registry
from pytask.settings import Settings
from pytask.store.store import Store
from pytask.task import Task
from pytask.version import __version__


def new_node_id(name: str = "") -> bytes:
    """A new id: `<name or host>:<pid>:<8 hex>`, of characters that need no escape; none begins with a minus."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", name or socket.gethostname())[:64].lstrip("-") or "node"
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}".encode()


class NodeState:
    """Shared by the services; `id` changes where the node was declared dead (see `identity`)."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        classes: Mapping[str, type[Task]],
        exception_handlers: list[Callable[[BaseException], Any]],
        hooks: Hooks | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.classes = classes
        self.exception_handlers = exception_handlers
        self.hooks = hooks or Hooks()
        self.id = new_node_id(settings.node_name)
        self.queues: dict[str, QueueKeys] = {name: store.keys.queue(name) for name in settings.queues}
        self.queue_names = list(self.queues)
        self.registry = Registry(settings.concurrency, settings.queues.plans)
        self.counts = ServiceCounts()
        self.held = Held()
        self.accepting = Event()
        self.wanted = False  # is it to take tasks, whenever it can? Not while it is paused, nor at its end
        self.given_up = b""  # the last id under which this node ended its runs by itself, or was declared dead

        self.away: set[str] = set()  # queues that no beat reaches: given up until one does (see `identity`)
        self.absences: Counter[str] = Counter()  # how often each was given up

    def goes_by(self, node: bytes) -> bool:
        """Is this id ours, and still believed to live?"""
        return node == self.id and node != self.given_up

    def want(self, work: bool) -> None:
        """Take tasks, or none; a node that is about to come back under a new id obeys when it is back."""
        self.wanted = work
        if work and self.goes_by(self.id):
            self.accepting.set()
        elif not work:
            self.accepting.clear()

    @property
    def label(self) -> str:
        """The node's id as text."""
        return self.id.decode()

    @property
    def info(self) -> NodeInfo:
        """What hooks are told of the node."""
        settings = self.settings
        queues = tuple(map(queue_label, self.queue_names))
        return NodeInfo(self.label, os.getpid(), queues, settings.concurrency, settings.namespace, __version__)
