"""What the start of a node tells: version, node, server, queues, tasks, and warnings. Goes to the log."""

from __future__ import annotations

import logging

import gevent

from pytask.errors import StoreError
from pytask.node.node import Node
from pytask.store.store import ServerInfo
from pytask.version import __version__

log = logging.getLogger("pytask.node")


def banner_lines(node: Node, info: ServerInfo) -> list[str]:
    """The lines, without warnings."""
    names = sorted(name for name in node.state.classes if not name.startswith("pytask/"))
    names += [f"functions of {prefix}" for prefix in node.settings.callable_prefixes]
    local = [run.task_class.NAME for run in node.local.all]
    settings = node.settings
    place = f"{info.name} {info.version} at {node.target.address}"
    if settings.namespace:
        place += f", namespace {settings.namespace}"
    return [
        f"pytask {__version__}, node {node.state.label}, gevent {gevent.__version__}",
        f"server  {place}",
        f"queues  {settings.queues.text.replace(',', ', ')}; {settings.concurrency} tasks at once",
        f"tasks   {', '.join(names) or 'none: add some with add_task'}",
        f"local   {', '.join(local) or 'none'}",
    ]


def log_banner(node: Node) -> None:
    """Write the lines and the warnings to the log."""
    try:
        info = node.store.get_server_info()
    except StoreError as error:  # a user without INFO, or a server that has just gone: neither is a reason to end
        log.warning("the server does not tell what it is: %s", error)
        info = ServerInfo("redis", "?", 0, "noeviction", True)
    for line in banner_lines(node, info):
        log.info("%s", line)
    for warning in [*info.warnings(), *node.settings.warnings]:
        log.warning("%s", warning)
