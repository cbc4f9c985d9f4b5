"""`pytask worker`: a node in this process, or a parent with several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pytask import supervision
from pytask.cli.loading import load_app
from pytask.errors import ConfigurationError
from pytask.logs import FORMATS, LEVELS, choose, setup_logging, share_logging
from pytask.processes import Parent, by_command
from pytask.settings import SETTINGS

OWN_FLAGS = {"redis", "namespace", "queues", "concurrency", "node_name", "grace"}


def other_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting that has none of its own below."""
    for setting in reversed(list(SETTINGS.values())):
        if setting.name not in OWN_FLAGS:
            unit = setting.unit.upper() or "VALUE"
            command = click.option(setting.flag, setting.name, metavar=unit, help=setting.help)(command)
    return command


@click.command(short_help="Run a node: take tasks and run them.")
@click.argument("app", metavar="MODULE:APP")
@click.option("--path", default=".", show_default=True, help="Import the module from this directory.")
@click.option("-C", "--config", metavar="FILE", help="A TOML file with settings.")
@click.option("-u", "--url", metavar="URL", help="Where Redis is, in place of what the app says.")
@click.option("--embedded", is_flag=True, help="Start a server of its own.")
@click.option("--namespace", metavar="NAME", help="Stands before every key.")
@click.option("-n", "--name", metavar="NAME", help="First part of the node's id; the host's name by default.")
@click.option("-c", "--concurrency", type=int, metavar="N", help="Tasks at once.")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[:N][=WEIGHT]",
    help="Serve this queue; may be repeated.",
)
@click.option("--grace", metavar="SECONDS", help="How long tasks may go on after a signal to end.")
@click.option("-p", "--processes", type=click.IntRange(1, 256), default=1, help="Nodes, each a process.")
@click.option("--burst", is_flag=True, help="End when the queues are empty and all tasks have ended.")
@other_settings
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Write the process id here.")
@click.option("-l", "--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="INFO by default.")
@click.option("--log-format", type=click.Choice(FORMATS), help="text by default.")
def worker(
    app: str,
    path: str,
    config: str | None,
    processes: int,
    burst: bool,
    pid_file: str | None,
    log_level: str | None,
    log_format: str | None,
    **options: Any,
) -> None:
    """Run a node with the app at MODULE:APP until SIGTERM or Ctrl-C.

    Exit status: 0 clean, 1 work had to be killed, 2 usage or import, 3 no Redis at the start.
    """
    setup_logging(*choose(log_level, log_format))
    flags = _flags(options)
    with _pid_file(pid_file):
        if processes > 1:
            status = _run_parent(app, path, config, flags, processes, burst)
        else:
            status = _run_node(app, path, config, flags, burst)
    sys.exit(status)


def _flags(options: dict[str, Any]) -> dict[str, Any]:
    if options["embedded"] and options["url"]:
        raise ConfigurationError("give --url or --embedded, not both")
    others = {name: value for name, value in options.items() if name in SETTINGS and name not in OWN_FLAGS}
    return others | {
        "redis": "embedded" if options["embedded"] else options["url"],
        "namespace": options["namespace"],
        "node_name": options["name"],
        "concurrency": options["concurrency"],
        "queues": options["queues"] or None,
        "grace": options["grace"],
    }


@contextlib.contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    file = Path(path)
    try:
        file.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigurationError(f"--pid-file {path!r} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _run_node(where: str, path: str, config: str | None, flags: dict[str, Any], burst: bool) -> int:
    app = load_app(where, path)
    share_logging()
    if supervision.URL in os.environ:
        flags["redis"] = os.environ[supervision.URL]
    app.configure(file=config, **flags)
    return app.run_node(supervision.get_parent(), supervision.tell_parent, burst=burst)


def _run_parent(
    where: str, path: str, config: str | None, flags: dict[str, Any], processes: int, burst: bool
) -> int:
    app = load_app(where, path)
    app.configure(file=config, **flags)
    environ = {supervision.URL: app.url} if app.is_embedded else {}
    try:
        return Parent(processes, by_command(_child_command(), environ), app.reap_node, burst=burst).run()
    finally:
        app.close()


def _child_command() -> list[str]:
    """This command for one process. What the parent adds behind it is stronger."""
    return [sys.executable, "-m", "pytask", *sys.argv[1:], "--processes=1"]
