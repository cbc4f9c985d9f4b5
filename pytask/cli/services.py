"""`pytask services` and `pytask service ...`: services, for people and scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from pytask import wire
from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain
from pytask.cli.queues import helping
from pytask.cli.task_options import TaskOption
from pytask.errors import InvalidInputError
from pytask.options import OPTIONS
from pytask.services import OPTIONS_OF_SERVICES, RESTARTS

name_argument = click.argument("name", metavar="NAME")


@click.command(short_help="List services, and how each stands.")
@takes_connection
@json_option
def services(where: Where, as_json: bool) -> None:
    """List all services: how many replicas are wanted and run, on how many nodes, how often they were started
    again, and the state.

    Exit status: 0, 1 where one is broken, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.list_services()
    for line in map(json_line, found) if as_json else table(found):
        click.echo(line)
    if any(row["problem"] for row in found):
        sys.exit(1)


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row a service, for people."""
    rows = [["service", "wanted", "running", "nodes", "restarts", "state"]]
    for row in found:
        numbers = [str(row["wanted"]), str(row["running"]), str(len(row["nodes"])), str(row["restarts"])]
        problem = f": {escaped(row['problem'])}" if row["problem"] else ""
        rows.append([escaped(row["name"]), *numbers, row["state"] + problem])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Numbers end at the right, text begins at the left."""
    last = len(row) - 1
    return [cell.rjust(widths[n]) if 0 < n < last else cell.ljust(widths[n]) for n, cell in enumerate(row)]


@click.group(short_help="Services: add, show, scale, update, reload, remove.")
def service() -> None:
    """One service: so many replicas of a task, which the nodes keep running."""


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags for what a definition says; their values arrive in `given`, without those that were not used."""
    for name in reversed(OPTIONS_OF_SERVICES):
        flag = "--" + name.replace("_", "-")
        command = click.option(flag, name, type=TaskOption(OPTIONS[name]), help=OPTIONS[name].help)(command)
    command = click.option("-q", "--queue", metavar="NAME", help="The queue whose nodes run it.")(command)
    command = click.option(
        "--restart", type=click.Choice(RESTARTS), help="When a replica that ends starts again."
    )(command)
    command = click.option("-d", "--data", metavar="JSON", help="The arguments of every replica, a JSON object.")(
        command
    )
    return click.option("-n", "--replicas", type=int, metavar="N", help="How many.")(command)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if "data" in given:
        try:
            given["data"] = wire.decode_object(given["data"].encode("utf-8", "surrogateescape"))
        except InvalidInputError as error:
            raise click.UsageError(f"--data {error}") from None
    return given


@service.command(short_help="Define a service.")
@name_argument
@click.argument("task", metavar="TASK")
@definition_options
@takes_connection
@json_option
def add(name: str, task: str, where: Where, as_json: bool, **options: Any) -> None:
    """Let the nodes keep replicas of the task TASK running as the service NAME; one of that name is defined anew.

    Exit status: 0, also where that changes nothing, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        changed = helpers.start_service(name, task, **_given(options))
    _tell(name, "defined" if changed else "unchanged", as_json)


@service.command(short_help="Change how many replicas there are.")
@name_argument
@click.argument("replicas", metavar="N", type=int)
@takes_connection
@json_option
def scale(name: str, replicas: int, where: Where, as_json: bool) -> None:
    """Let the service NAME have N replicas.

    Exit status: 0, 1 where there is no such service, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        changed = helpers.scale_service(name, replicas)
    _tell(name, "changed" if changed else "unchanged", as_json)


@service.command(short_help="Change data or options.")
@name_argument
@click.option("--task", metavar="TASK", help="Another task.")
@definition_options
@takes_connection
@json_option
def update(name: str, where: Where, as_json: bool, **options: Any) -> None:
    """Change what is given of the service NAME. Its replicas begin anew, one after the other, unless their number
    alone has changed.

    Exit status: 0, 1 where there is no such service, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        changed = helpers.update_service(name, **_given(options))
    _tell(name, "changed" if changed else "unchanged", as_json)


@service.command(short_help="Let all replicas begin anew.")
@name_argument
@takes_connection
@json_option
def reload(name: str, where: Where, as_json: bool) -> None:
    """Let all replicas of the service NAME begin anew, one after the other.

    Exit status: 0, 1 where there is no such service, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        helpers.reload_service(name)
    _tell(name, "reloads", as_json)


@service.command(short_help="Stop all replicas and remove the service.")
@name_argument
@takes_connection
@json_option
def remove(name: str, where: Where, as_json: bool) -> None:
    """Remove the service NAME: its replicas are stopped, and their records removed.

    Exit status: 0, 1 where there is no such service, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        if not helpers.remove_service(name):
            complain(f"there is no service {escaped(name)}")
            sys.exit(1)
    _tell(name, "removed", as_json)


def _tell(name: str, result: str, as_json: bool) -> None:
    click.echo(json_line({"service": name, "result": result}) if as_json else f"service {escaped(name)}: {result}")


@service.command(short_help="Show a service and its replicas.")
@name_argument
@takes_connection
@json_option
def show(name: str, where: Where, as_json: bool) -> None:
    """Show the service NAME: its definition, how it stands, and where each replica is.

    Exit status: 0, 1 where there is no such service, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.get_service(name)
        replicas = helpers.get_replicas(name) if found and found["state"] != "broken" else []
    if found is None:
        complain(f"there is no service {escaped(name)}")
        sys.exit(1)
    if as_json:
        click.echo(json_line({**found, "replicas": replicas}))
        return
    for line in [*_lines_of(found), *(_line_of(row, time.time()) for row in replicas)]:
        click.echo(line)


def _lines_of(found: Mapping[str, Any]) -> list[str]:
    parts = {
        "service": escaped(found["name"]),
        "state": found["state"] + (f": {escaped(found['problem'])}" if found["problem"] else ""),
        "task": escaped(found["task"]),
        "data": json_line(found["data"]) if found["data"] is not None else "",
        "queue": found["queue"],
        "restart": found["restart"],
        "options": ", ".join(f"{name}={escaped(value)}" for name, value in found["options"].items()),
        "wanted": str(found["wanted"]),
        "running": str(found["running"]),
        "restarts": str(found["restarts"]),
        "nodes": ", ".join(f"{escaped(node)} {count}" for node, count in found["nodes"].items()),
    }
    return [f"{name:9} {text}" for name, text in parts.items() if text]


def _line_of(row: Mapping[str, Any], now: float) -> str:
    due = f"in {max(row['due'] - now, 0):.0f} s" if row["due"] else ""
    restarts = f"{row['restarts']} restarts" if row["restarts"] else ""
    parts = [escaped(row["id"]), row["state"], escaped(row["node"]), due, restarts]
    return "  " + "  ".join(part for part in parts if part)
