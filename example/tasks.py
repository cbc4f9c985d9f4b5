"""Is it up? Checks of TCP services, once or for as long as you like, with a journal in SQLite."""

import contextlib
import os
import socket
import sqlite3
import threading
import time

from pytask import PyTask, Task
from pytask.helpers import run_loop

JOURNAL = os.environ.get("JOURNAL", "journal.db")

# Where Redis is, is up to PYTASK_REDIS_URL; localhost without it.
task_app = PyTask()


def connect(host, port, timeout):
    """How long it takes to connect, in milliseconds; OSError where it does not work."""
    began = time.monotonic()
    with socket.create_connection((host, port), timeout):
        return round((time.monotonic() - began) * 1000, 1)


@task_app.add_task
class Check(Task):
    """One look at one service: {"up": true, "ms": 0.4}, or {"up": false, "error": ...}."""

    NAME = "check"

    def __init__(self, host, port, seconds=3.0):
        self.host, self.port, self.seconds = host, port, seconds

    def start(self):
        try:
            return {"up": True, "ms": connect(self.host, self.port, self.seconds)}
        except socket.gaierror as error:
            raise self.Error(f"there is no host called {self.host}") from error
        except OSError as error:
            return {"up": False, "error": str(error)}


@task_app.add_task
class Sweep(Task):
    """Looks at many ports of a host, one after the other, and tells how far it is."""

    NAME = "sweep"

    def __init__(self, host, ports, seconds=1.0):
        self.host, self.ports, self.seconds = host, ports, seconds

    def start(self):
        found = []
        for done, port in enumerate(self.ports, 1):
            with contextlib.suppress(OSError):
                connect(self.host, port, self.seconds)
                found.append(port)
            self.emit("progress", {"done": done, "total": len(self.ports)})
        return {"open": found}


@task_app.add_task
class Guard(Task):
    """Looks at a service for ever; when that goes down or comes back it says so, and has it noted."""

    NAME = "guard"
    forever = True  # a node that ends gives it to another one at once

    def __init__(self, host, port, interval=5.0):
        self.host, self.port, self.interval = host, port, interval
        self.up = None

    def start(self):
        run_loop(self.look, self.interval)

    def look(self):
        try:
            connect(self.host, self.port, 3.0)
            up = True
        except OSError:
            up = False
        if up != self.up:
            self.up = up
            service = f"{self.host}:{self.port}"
            self.emit("up" if up else "down", {"service": service})
            self.helpers.start_task("note", service=service, up=up)


# Each task that uses the journal has a connection of its own, made before its __init__ and closed after its end.
# On a node, which is patched by gevent, threading.local belongs to the greenlet: to the task.
local = threading.local()


@contextlib.contextmanager
def open_journal():
    with contextlib.closing(sqlite3.connect(JOURNAL)) as local.journal:
        local.journal.execute("CREATE TABLE IF NOT EXISTS notes (time REAL, service TEXT, up INTEGER)")
        yield


@task_app.add_task
class Note(Task):
    """Writes a line into the journal."""

    NAME = "note"
    provide_context = staticmethod(open_journal)

    def __init__(self, service, up):
        self.service, self.up = service, up

    def start(self):
        with local.journal as journal:
            journal.execute("INSERT INTO notes VALUES (?, ?, ?)", (time.time(), self.service, self.up))


@task_app.add_task
class Report(Task):
    """What the journal says: service -> how often it came up and went down."""

    NAME = "report"
    provide_context = staticmethod(open_journal)

    def start(self):
        rows = local.journal.execute("SELECT service, sum(up), sum(NOT up) FROM notes GROUP BY service")
        return {service: {"up": up, "down": down} for service, up, down in rows}


if __name__ == "__main__":
    task_app.run()
