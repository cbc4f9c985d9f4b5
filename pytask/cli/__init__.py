"""The command line: `pytask COMMAND`. Results go to standard output, the rest to standard error."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from pytask.errors import ConfigurationError, PyTaskError, StoreError
from pytask.version import __version__

USAGE, NO_REDIS, FAILED = 2, 3, 1

# Where each command lives; loaded when it is used, so that `pytask worker` starts fast.
COMMANDS = {
    "dead": "pytask.cli.queues",
    "delete": "pytask.cli.deleting",
    "demo": "pytask.cli.demo",
    "events": "pytask.cli.results",
    "list": "pytask.cli.listing",
    "logs": "pytask.cli.logs",
    "namespace": "pytask.cli.namespaces",
    "namespaces": "pytask.cli.namespaces",
    "nodes": "pytask.cli.listing",
    "orchestrate": "pytask.cli.orchestrate",
    "pause": "pytask.cli.queues",
    "purge": "pytask.cli.queues",
    "queues": "pytask.cli.queues",
    "redis": "pytask.cli.raw",
    "reload": "pytask.cli.control",
    "restart": "pytask.cli.control",
    "result": "pytask.cli.results",
    "resume": "pytask.cli.queues",
    "schedule": "pytask.cli.schedules",
    "schedules": "pytask.cli.schedules",
    "schema": "pytask.cli.schema",
    "send": "pytask.cli.results",
    "service": "pytask.cli.services",
    "services": "pytask.cli.services",
    "show": "pytask.cli.inspect",
    "start": "pytask.cli.control",
    "stop": "pytask.cli.control",
    "sweep": "pytask.cli.sweep",
    "watch": "pytask.cli.inspect",
    "worker": "pytask.cli.worker",
    "workflow": "pytask.cli.workflows",
    "workflows": "pytask.cli.workflows",
}


class Group(click.Group):
    """Loads commands when they are used, and turns pytask's errors into one line and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what went wrong is one line, never a traceback."""
        try:
            return super().invoke(ctx)
        except PyTaskError as error:
            click.echo(f"pytask: {error}", err=True)
            sys.exit(status_of(error))


def status_of(error: PyTaskError) -> int:
    """The exit status that tells of an error: 2 usage, 3 no Redis, 1 anything else."""
    if isinstance(error, ConfigurationError):
        return USAGE
    return NO_REDIS if isinstance(error, StoreError) else FAILED


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pytask")
def cli() -> None:
    """A daemon for IO-bound tasks, on greenlets and Redis."""
