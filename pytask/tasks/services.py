"""Services: keeps the services of the cluster as they are defined. Runs on every node; each look is one node's.

The set `services` says when a service is looked at next. Whoever finds one whose turn has come takes it, by
putting its turn off for a few seconds, and does what is to be done; who dies leaves it to the next. A replica that
ends needs nobody here: its record waits for its time, as that of any task which is tried again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import gevent

from pytask import wire
from pytask.errors import StoreError, StoreRefused, StoreUnavailable
from pytask.services import digest_of
from pytask.store.services import Visit, is_wrong_type
from pytask.task import Task
from pytask.tasks.replication import Broken, Replication, Superseded

log = logging.getLogger("pytask.services")

POLL = 0.45  # seconds between two looks at whose turn it is
EMPTY_POLL = 2.0  # while there is no service
LEASE = 6.0  # seconds for which a service is taken
MOST = 20  # services that one node works at
BROKEN_LOOK = 30.0  # seconds until a service whose definition is no good is looked at again


class Services(Task):
    """Keeps services. `definitions`: those of the app's code, fields by name; written where it has changed."""

    NAME = "pytask/services"
    forever = True
    local_only = True  # its data are definitions, which begin with the node

    def __init__(self, definitions: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.definitions = dict(definitions or {})
        self.services = self.helpers.store.services
        self._working: dict[bytes, Any] = {}  # name -> the greenlet that works at it
        self._told: dict[bytes, str] = {}  # what was said of broken ones
        self._first: object = None  # who is next, whose turn comes at `_when` on our clock
        self._when = 0.0
        self._any = True  # is there any service?

    def start(self) -> None:
        """Look and work, for ever."""
        try:
            while True:
                self._turn()
                pause = POLL if self._any else EMPTY_POLL
                time.sleep(pause * random.uniform(0.8, 1.0))
        finally:
            gevent.killall(list(self._working.values()), block=False)

    def _turn(self) -> None:
        try:
            for name in list(self.definitions):
                self._define(name)
            first = self.services.get_first()
            self._any = first is not None
            if first is not None and (first != self._first or time.monotonic() >= self._when):
                self._visit(first)
            elif first is None:
                self._first = None
        except StoreError as error:
            level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
            log.log(level, "services cannot be looked at: %s", wire.shown(str(error), 200))

    def _define(self, name: str) -> None:
        """Write a definition of the code, once."""
        fields, raw = self.definitions[name], name.encode()
        try:
            changed = self.services.define(raw, "code", fields, digest_of(fields))
        except StoreRefused as error:
            if not is_wrong_type(error):
                raise
            changed = 0
            log.error("service %s cannot be defined: its key is no hash", name)
        self.services.want_look(raw, new=not changed)
        del self.definitions[name]

    def _visit(self, first: object) -> None:
        """Take what is due, and work at it beside this."""
        room = MOST - len(self._working)
        if room <= 0:
            return
        visits, wait = self.services.visit(LEASE, room)
        self._first = None if visits else first
        self._when = time.monotonic() + (wait or 0.0)
        for visit in visits:
            self._working[visit.name] = gevent.spawn(self._work, visit)

    def _work(self, visit: Visit) -> None:
        hold = Hold(self.services, visit)
        try:
            self._look_at(hold)
        except Superseded:
            pass
        except StoreError as error:  # others look at it when the time is over for which it was taken
            level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
            log.log(level, "service %s: %s", wire.shown(visit.name), wire.shown(str(error), 200))
        except Exception:
            log.exception("service %s", wire.shown(visit.name))
        finally:
            if self._working.get(visit.name) is gevent.getcurrent():
                del self._working[visit.name]

    def _look_at(self, hold: Hold) -> None:
        name = hold.visit.name
        try:
            pause = Replication(self.helpers, name, hold).run()
            self._told.pop(name, None)
        except Broken as error:
            pause = BROKEN_LOOK
            if self._told.get(name) != str(error):
                self._told[name] = str(error)
                log.error("service %s is broken: %s", wire.shown(name), error)
        self.services.revisit(hold.visit, pause)


class Hold:
    """Keeps a service for this node while it is worked at; called before each step. Raises Superseded."""

    def __init__(self, services: Any, visit: Visit) -> None:
        self.services = services
        self.visit = visit
        self._looked = 0.0

    def __call__(self) -> None:
        """Look at most four times a second whether it is still ours, and make that last."""
        now = time.monotonic()
        if now - self._looked < 0.25:
            return
        visit = self.services.revisit(self.visit, LEASE)
        if visit is None:
            raise Superseded
        self.visit, self._looked = visit, now
