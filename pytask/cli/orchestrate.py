"""`pytask orchestrate`: a parent that looks after several nodes, each of which runs the same Python file.

A child is this command again, with its part of the environment. Where Redis is stands there and not on its command
line, which everybody can read.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from pytask import settings as settings_module
from pytask import supervision
from pytask.cli.files import check_file, find_app, run_program
from pytask.errors import ConfigurationError, StoreError
from pytask.logs import FORMAT_VARIABLE, FORMATS, LEVEL_VARIABLE, LEVELS, choose, ensure_logging, setup_logging
from pytask.names import check_node_name, check_queue_name, queue_name_of
from pytask.processes import Parent, Process, by_command
from pytask.store.addresses import HOST, resolve_target
from pytask.store.store import Store
from pytask.store.target import Target

log = logging.getLogger("pytask.parent")

WORKER_ID = "WORKER_ID"  # each child's own name, `worker_1` for example, which begins the id of its node
QUEUE_NAME = "QUEUE_NAME"
PROGRAM = "PYTASK_INTERNAL_PROGRAM"  # the file holds no app: run it as a program
MOST_PORT = 65_535


@click.command(short_help="Run a Python file as several nodes, and look after them.")
@click.argument("file", metavar="FILE[:NAME]")
@click.option("-n", "--workers", type=click.IntRange(1, 256), default=4, show_default=True, help="Nodes.")
@click.option("-q", "--queue", metavar="HOST:PORT", help="Where Redis is; a URL does as well.")
@click.option("--queue-name", metavar="NAME", help="Serve this queue, in place of what the file says.")
@click.option("--path", metavar="DIR", help="Import from this directory; by default the file's.")
@click.option("--namespace", metavar="NAME", help="Stands before every key.")
@click.option("--grace", metavar="SECONDS", help="How long tasks may go on after a signal to end.")
@click.option("-l", "--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="INFO by default.")
@click.option("--log-format", type=click.Choice(FORMATS), help="text by default.")
def orchestrate(
    file: str,
    workers: int,
    queue: str | None,
    path: str | None,
    log_level: str | None,
    log_format: str | None,
    **flags: Any,
) -> None:
    """Run FILE as several nodes until SIGTERM or Ctrl-C; one that dies is replaced.

    An app in FILE, or what has one (a registry, a worker, a kit), is found; several are told apart by NAME.
    Without one FILE is run as a program that is a node itself.
    """
    level, form = choose(log_level, log_format)
    given = {name: value for name, value in flags.items() if value is not None}
    if supervision.is_looked_after():
        sys.exit(_be_a_node(file, path, given))
    setup_logging(level, form)
    check_file(file)
    url = None if queue is None else url_of(queue)
    found = settings_module.load(flags=_settings_of(given) | {"redis": url})
    target = resolve_target(found.redis, found.redis_password)
    environ = {LEVEL_VARIABLE: level, FORMAT_VARIABLE: form} | _environment(target, url, given)
    start = Children(_child_command(file, path, given), environ)
    sys.exit(Parent(workers, start, Reaper(Store(target, found.namespace))).run())


def url_of(text: str) -> str:
    """The URL for `host:port`, `host` or a URL. Raises ConfigurationError, which never quotes a password."""
    if text.partition(":")[0] in ("embedded", "embedded+tcp"):
        raise ConfigurationError("-q: the nodes share one Redis: an embedded server would be each node's own")
    found = HOST.fullmatch(text)
    if "://" not in text and (not found or int(found[2] or found[4] or 0) > MOST_PORT):
        raise ConfigurationError("-q is host:port or a URL of Redis, such as localhost:6379")
    url = f"redis://{text}" if found else text
    resolve_target(url)
    return url


def _settings_of(given: dict[str, str]) -> dict[str, Any]:
    """The settings that flags stand for."""
    found: dict[str, Any] = {name: value for name, value in given.items() if name != "queue_name"}
    if "queue_name" in given:
        found["queues"] = (queue_name_of(given["queue_name"]),)
    return found


def _child_command(file: str, path: str | None, given: dict[str, str]) -> list[str]:
    flags = given if path is None else {"path": path, **given}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "pytask", "orchestrate", *words, "--", file]


def _environment(target: Target, url: str | None, given: dict[str, str]) -> dict[str, str]:
    """What a program finds in its environment: where Redis is, and what else the flags say."""
    environ = {f"PYTASK_{name.upper()}": value for name, value in given.items() if name != "queue_name"}
    if "queue_name" in given:
        environ[QUEUE_NAME] = given["queue_name"]
    environ[supervision.URL] = url or ""
    if url is not None:
        environ |= {"PYTASK_REDIS_URL": url, "REDIS_URL": url}
    if "path" not in target.arguments:  # a unix socket
        found = (target.arguments.get("host", "localhost"), target.arguments.get("port", 6379))
        host, port = getattr(target, "seeds", [found])[0]  # of a cluster, of Sentinel
        environ |= {"REDIS_HOST": host, "REDIS_PORT": str(port)}
    return environ


class Children:
    """Starts children, each with a WORKER_ID that no other one has that lives."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._command = command
        self._environ = environ
        self._by_number: dict[int, Process] = {}

    def __call__(self, descriptor: int) -> Process:
        """Start one."""
        number = 1
        while number in self._by_number and self._by_number[number].poll() is None:
            number += 1
        environ = self._environ | {WORKER_ID: f"worker_{number}"}
        process = self._by_number[number] = by_command(self._command, environ)(descriptor)
        return process


class Reaper:
    """Puts back what dead nodes had. Which queues they served their own records tell."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, label: str) -> None:
        """A node is dead for certain."""
        node = label.encode()
        try:
            record = self._store.node_records.read([node])[node]
            for name in filter(None, record.get(b"queues", b"").decode().split(",")):
                self._store.membership(check_queue_name(name)).leave(node)
        except StoreError as error:
            log.warning("the tasks of node %s wait for a Monitor: %s", label, error)


# In a child.


def _be_a_node(file: str, path: str | None, given: dict[str, str]) -> int:
    if os.environ.pop(PROGRAM, ""):
        run_program(file, path)  # which sets logging up as it likes
        return 0
    ensure_logging()
    app = find_app(file, path)
    if app is None:  # what its import has left behind in this process is no part of the program
        sys.stdout.flush()
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, PROGRAM: "1"})  # noqa: S606 - our own command line
    url = os.environ.get(supervision.URL) or None
    if url is None and app.is_embedded:
        raise ConfigurationError(
            f"the app in {file} starts a server of its own in each node: say -q where Redis is"
        )
    flags = _settings_of(given) | {
        "redis": url,
        "node_name": check_node_name(os.environ.get(WORKER_ID, "")),
    }
    app.configure(**flags)
    return app.run_node(supervision.get_parent(), supervision.tell_parent)
