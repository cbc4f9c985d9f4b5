"""`pytask list` and `pytask nodes`: all tasks, wherever they stand, and all nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.escape import cut, escaped, json_line
from pytask.cli.inspect import complain
from pytask.cli.queues import helping
from pytask.cli.tables import ago, print_table
from pytask.cli.workflows import limit_option, page_option

LONGEST = 60  # characters of a title, in a table
HEAD = ("id", "state", "task", "queue", "since", "title")
NODE_HEAD = ("id", "running", "queues", "host", "pid", "since")
COUNTS, TIMES, LISTS = ("running", "concurrency", "pid"), ("started", "last_update"), ("queues", "tasks")


@click.command("list", short_help="List tasks: what runs, waits, is due, is held, has ended.")
@click.option("-q", "--queue", metavar="NAME", help="Of this queue; what is held is in none.")
@click.option("--state", "states", metavar="STATE", multiple=True, help="In this state; may be repeated.")
@click.option("--name", metavar="TASK", help="Called so.")
@page_option
@limit_option(50)
@takes_connection
@json_option
def list_tasks(
    queue: str | None,
    states: Sequence[str],
    name: str | None,
    page: int,
    limit: int,
    where: Where,
    as_json: bool,
) -> None:
    """List tasks, in pages: those that run, then those that wait, are due, are held, and the newest that ended.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    asked: dict[str, Any] = {"queue": queue, "name": name, "state": [s.upper() for s in states] or None}
    with helping(where) as helpers:
        rows = helpers.list_tasks(**asked, page=page, limit=limit)
        total = 0 if as_json else helpers.count_tasks(**asked)
    if as_json:
        for row in rows:
            click.echo(json_line(row))
        return
    print_table([HEAD, *map(_cells, rows)])
    if total > page * limit:
        complain(f"{total} tasks in all: --page {page + 1} shows the next ones")


list = list_tasks


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    moment = next((row[key] for key in ("ended", "started", "created") if row[key] is not None), None)
    texts = (row["id"], row["state"] or "(no record)", cut(row["task"] or "", LONGEST), row["queue"] or "")
    return (*map(escaped, texts), ago(moment), escaped(cut(row["title"] or "", LONGEST)))


@click.command(short_help="List nodes.")
@takes_connection
@json_option
def nodes(where: Where, as_json: bool) -> None:
    """List the nodes: which queues each serves, how many tasks it runs, on which host, and since when.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.get_nodes(find=True)
    if as_json:
        for name, record in found.items():
            click.echo(json_line({"id": name, **{key: _value(key, text) for key, text in record.items()}}))
        return
    print_table([NODE_HEAD, *(_node_cells(name, record) for name, record in found.items())])


def _value(field: str, text: str) -> Any:
    """What a node said, for programs; what is not as it should be stays text."""
    if field in LISTS:
        return text.split(",") if text else []
    try:
        value: Any = int(text) if field in COUNTS else float(text) if field in TIMES else text
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _node_cells(name: str, record: Mapping[str, str]) -> tuple[str, ...]:
    if not record:
        return (escaped(name), "(no record)", "", "", "", "")
    running = f"{record.get('running', '')}/{record.get('concurrency', '')}"
    texts = (name, running, record.get("queues", ""), record.get("host", ""), record.get("pid", ""))
    started = _value("started", record.get("started", ""))
    return (*map(escaped, texts), ago(started) if isinstance(started, float) else "")
