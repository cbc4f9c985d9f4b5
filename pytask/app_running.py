"""What an app offers for daemons: being a node in this process, or having several in processes of their own."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytask import supervision
from pytask.errors import ConfigurationError, StoreError
from pytask.names import shown
from pytask.patching import is_patched, patch_late, warn_late
from pytask.settings import Settings

if TYPE_CHECKING:
    from pytask.forking import Forked
    from pytask.helpers import PyTaskHelpers
    from pytask.processes import Parent

log = logging.getLogger("pytask.parent")

MOST = 256  # processes


class NodeProcesses:
    """Nodes that `start_processes` has started, and the process that looks after them."""

    def __init__(self, process: Forked) -> None:
        self._process = process
        self._is_told = False  # to end: a second signal would skip the grace

    @property
    def pid(self) -> int:
        """The process that looks after the nodes; signals to it go on to them."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Has it not ended?"""
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until all have ended; the exit status, 0 where each ended clean. None after `timeout` seconds."""
        return self._process.wait(timeout)

    def stop(self, timeout: float | None = None) -> int | None:
        """End them in order, as a signal does, and wait for that; as `wait`. A second call only waits."""
        if not self._is_told:
            self._tell_to_end()
        return self.wait(timeout)

    def _tell_to_end(self) -> None:
        self._is_told = True
        self._process.send_signal(signal.SIGTERM)

    def wait_at_exit(self, daemon: bool) -> None:
        """At the end of the program, of whose terminal they know nothing. Ctrl-C ends them, as a signal does."""
        has_to_tell = daemon and not self._is_told
        while self.is_alive():
            try:
                if has_to_tell:
                    self._tell_to_end()
                self.wait()
            except KeyboardInterrupt:
                has_to_tell = True


class AppRunning:
    """The part of an app that runs nodes."""

    settings: Settings
    _lock: Any
    _embedded: Any

    if TYPE_CHECKING:

        @property
        def is_embedded(self) -> bool:
            """Of the app."""

        @property
        def url(self) -> str:
            """Of the app."""

        @property
        def helpers(self) -> PyTaskHelpers:
            """Of the app."""

        def disconnect(self) -> None:
            """Of the app."""

        def close(self) -> None:
            """Of the app."""

        def make_node(self) -> Any:
            """Of the app."""

    def run(self, processes: int | None = None, *, burst: bool = False) -> None:
        """Be a node until SIGTERM or SIGINT. Returns after a clean end, else raises SystemExit with the status.

        With `burst` it also ends when its queues are empty and its tasks have ended. With `processes` this process
        has so many nodes, each forked off it, and looks after them: see `start_processes`. Where gevent has not
        patched yet a node does so now, late, and says so; `pytask worker` patches first.
        """
        if processes is not None and not supervision.is_looked_after():
            status = self._run_processes(processes, burst)
        else:
            if not is_patched():
                self._patch_late()
                warn_late()
            _ensure_logging()
            status = self.run_node(*_looked_after(), burst=burst)
        if status:
            raise SystemExit(status)

    def start_processes(self, count: int, *, daemon: bool = True, burst: bool = False) -> NodeProcesses:
        """Start nodes, each in a process of its own, and return at once.

        The processes are forked off this one, so that the program is not run again; code that was imported stays
        as it is when they are replaced. One that dies is replaced. With `daemon` they are ended when this process
        ends, however it ends; else this process waits for them at its end. `burst` is as in `run`. Start them
        before the program starts threads of its own. Raises ConfigurationError.
        """
        from pytask.forking import Forked

        self._prepare(count)
        owner = os.getpid() if daemon or self.is_embedded else None  # whose server ends with it

        def look_after() -> int:
            self._lock = threading.RLock()
            _ensure_logging()
            return self._make_parent(count, burst, owner).run()

        # No copy is made while another thread makes connections, or imports what that needs.
        with self._lock:
            nodes = NodeProcesses(Forked(look_after))
        atexit.register(nodes.wait_at_exit, daemon)
        return nodes

    def _run_processes(self, count: int, burst: bool) -> int:
        if threading.current_thread() is not threading.main_thread():  # signals come to the main thread only
            return self.start_processes(count, burst=burst).wait() or 0
        self._prepare(count)
        _ensure_logging()
        try:
            return self._make_parent(count, burst).run()
        finally:
            self.close()

    def _prepare(self, count: object) -> None:
        """Before copies of this process are made."""
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST:
            raise ConfigurationError(f"processes is a number from 1 to {MOST}, not {shown(count)}")
        if not is_patched():
            warn_late()
        if self.is_embedded:
            _ = self.url  # the server is that of this process
        _ = self.helpers

    def _make_parent(self, count: int, burst: bool, owner: int | None = None) -> Parent:
        from pytask.processes import Parent, by_fork

        start = by_fork(lambda: self._be_forked_node(burst))
        return Parent(count, start, self.reap_node, owner=owner, burst=burst)

    def _be_forked_node(self, burst: bool) -> int:
        """In the new process: nothing of the one that it is a copy of may be used."""
        self._lock = threading.RLock()
        if self.is_embedded:
            self.settings = self.settings.replace(redis=self.url)
            self._embedded = None
        self.disconnect()
        if not is_patched():
            self._patch_late()
        return self.run_node(*_looked_after(), may_start_anew=False, burst=burst)

    def reap_node(self, label: str) -> None:
        """Put back what a node has that is dead for certain. For parents, which have waited for its process."""
        store = self.helpers.store
        for name in self.settings.queues:
            try:
                store.membership(name).leave(label.encode())
            except StoreError as error:
                log.warning("the tasks of node %s wait for a Monitor: %s", label, error)

    def _patch_late(self) -> None:
        self.disconnect()
        patch_late()
        self._lock = threading.RLock()

    def run_node(
        self,
        parent: int | None = None,
        prepare: Callable[[Any], None] | None = None,
        *,
        may_start_anew: bool = True,
        burst: bool = False,
    ) -> int:
        """Be a node in this process, which is patched; returns the exit status. For command lines.

        `prepare` is called with the node before it starts.
        """
        import gevent

        from pytask.node.banner import log_banner
        from pytask.node.daemon import Daemon

        if "GEVENT_TRACK_GREENLET_TREE" not in os.environ:
            gevent.config.track_greenlet_tree = False  # a third of what the birth of a greenlet costs
        node = self.make_node()
        if prepare:
            prepare(node)
        daemon = Daemon(node, log_banner, parent, burst=burst)
        try:
            status = daemon.run()
        finally:
            self.close()
        if daemon.again and may_start_anew:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line
        return status


def _looked_after() -> tuple[int | None, Callable[[Any], None]]:
    """What `run_node` takes of a parent, where there is one."""
    return (supervision.get_parent() if supervision.is_looked_after() else None, supervision.tell_parent)


def _ensure_logging() -> None:
    from pytask.logs import ensure_logging

    ensure_logging()
