"""Cleanup: drains `end-task`: tells a handler of each ended task, and lets its record expire.

Ids are moved to a list of this node first and leave it when they are done: a crash loses none, and what a
dead Cleanup had taken goes back. So a handler is called at least once for each end.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from collections.abc import Callable
from typing import Any

import gevent

from pytask import states, wire
from pytask.errors import ConfigurationError, InvalidInputError, StoreError, StoreRefused, StoreUnavailable
from pytask.retention import class_ttls
from pytask.task import Task

log = logging.getLogger("pytask.cleanup")

BATCH = 500
BLOCK = 4.0  # seconds; less than a connection waits for a reply
MOST_FAILURES = 5
ANNOUNCE = 4.0  # seconds between signs of life, with a node_timeout of 10 or more
REST, LONGEST_REST = 0.01, 0.5  # seconds, for each other Cleanup
RETRY_DELAY = 1.0  # seconds until ids whose handler failed are tried again

Handler = Callable[[str, dict[str, str]], Any]


def load_handler(path: str) -> Handler:
    """The function at `module:attribute`. Raises ConfigurationError where there is none."""
    module, _, name = path.partition(":")
    try:
        handler = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"task_handler {path!r} cannot be loaded: {error}") from error
    if not callable(handler):
        raise ConfigurationError(f"task_handler {path!r} is no function")
    return handler  # type: ignore[no-any-return]


def seconds_of_rest(cleanups: int) -> float:
    """After a batch that was not full: where many wait for ids, a few ids would wake them all, for one id each."""
    return min(REST * max(cleanups - 1, 0), LONGEST_REST)


class Cleanup(Task):
    """Drains `end-task`.

    `task_handler`: `module:attribute` of a function of id and record (a dict of `str`), called for each end.
    `result_ttl`, `failure_ttl`: seconds that the record of a success, of a failure, is kept; 0 removes at once.
    What a record says of itself goes before them, then what its class says, where the app of this node knows it.
    """

    NAME = "pytask/cleanup"
    forever = True
    local_only = True  # its data would let a producer name code to import

    def __init__(
        self,
        task_handler: str | None = None,
        result_ttl: float = 3600.0,
        failure_ttl: float = 604_800.0,
        node_timeout: float = 10.0,
    ) -> None:
        self.handler = load_handler(task_handler) if task_handler else None
        self.ttls = states.ttl_by_state(result_ttl, failure_ttl)
        self.class_ttls = class_ttls(self.helpers.classes.values())
        self.node_timeout = node_timeout
        self.store = self.helpers.store
        self.name = self.id.encode()
        self.sequence = 0
        self.others: dict[bytes, tuple[bytes, float]] = {}

    def start(self) -> None:
        """Drain, for ever."""
        self._show_life()  # before the first id is taken: others look only after those that were announced
        announcer = gevent.spawn(self._announce)
        try:
            while True:
                self._drain_once()
        finally:
            announcer.kill()
            with contextlib.suppress(StoreError):  # an error in place of GreenletExit would begin it again
                self._leave()

    def _drain_once(self) -> None:
        try:
            ids = self.store.endings.take(self.name, BATCH)
            if ids:
                self._serve(ids)
                if len(ids) < BATCH:
                    gevent.sleep(seconds_of_rest(len(self.others)))
                return
            while not self.store.endings.wait_for_id(self.name, BLOCK):
                pass
        except StoreError as error:
            level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
            log.log(level, "end-task is tried again: %s", wire.shown(str(error), 200))
            gevent.sleep(RETRY_DELAY)

    def _serve(self, ids: list[bytes]) -> None:
        failed = {task_id for task_id in ids if not self._handle(task_id)} if self.handler else set()
        done = [task_id for task_id in ids if task_id not in failed] if failed else ids
        self.store.expiry.let_expire(done, self.ttls, self.class_ttls)
        if self.handler and done:
            self.store.endings.forget_failures(done)
        if not failed:
            self.store.endings.drop_all(self.name, len(ids))
            return
        self.store.endings.drop(self.name, done)
        self._keep(failed)
        gevent.sleep(RETRY_DELAY)

    def _handle(self, task_id: bytes) -> bool:
        assert self.handler is not None
        try:
            record = self.helpers.get_task(task_id) or {}
        except (InvalidInputError, StoreRefused) as error:
            log.warning("id %s in end-task is dropped: %s", wire.shown(task_id), wire.shown(str(error), 200))
            return True
        try:
            self.handler(wire.id_to_str(task_id), record)
        except gevent.GreenletExit:
            raise
        except BaseException:  # the edge of user code: sys.exit() in a handler must not end the node
            log.exception("the task handler failed for id %s", wire.shown(task_id))
            return False
        return True

    def _keep(self, failed: set[bytes]) -> None:
        """Try ids again later, except those that have failed too often."""
        for task_id in failed:
            if self.store.endings.count_failure(task_id) >= MOST_FAILURES:
                log.error(
                    "id %s is on end-task:dead: its handler failed %d times", wire.shown(task_id), MOST_FAILURES
                )
                self.store.expiry.let_expire([task_id], self.ttls, self.class_ttls)
                self.store.endings.give_up(task_id)
                self.store.endings.drop(self.name, [task_id])

    def _announce(self) -> None:
        """Show that this Cleanup lives, and give back what dead ones had taken."""
        while True:
            gevent.sleep(ANNOUNCE * min(self.node_timeout / 10, 1))
            try:
                self._show_life()
                if self.sequence % 2:
                    self._watch_others()
            except StoreError as error:
                log.debug("observations of other Cleanups start over: %s", error)
                self.others.clear()

    def _show_life(self) -> None:
        self.sequence += 1
        self.store.endings.announce(self.name, self.sequence)

    def _watch_others(self) -> None:
        now = time.monotonic()
        takers = self.store.endings.get_takers()
        self.others = {name: seen for name, seen in self.others.items() if name in takers}
        for name, sequence in takers.items():
            seen = self.others.get(name)
            if seen is None or seen[0] != sequence:
                self.others[name] = (sequence, now)
            elif name != self.name and now - seen[1] >= self.node_timeout:
                moved = self.store.endings.give_back(name, sequence)
                if moved > 0:
                    log.warning("%d ended ids of a dead Cleanup are back in end-task", moved)

    def _leave(self) -> None:
        self.store.endings.give_back(self.name, str(self.sequence).encode())
