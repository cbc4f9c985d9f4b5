"""`pytask logs`: what a task has logged."""

from __future__ import annotations

from typing import Any

import click

from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.escape import escaped, escaped_lines, json_line
from pytask.cli.queues import helping
from pytask.cli.screen import clock
from pytask.helpers import not_found
from pytask.wire import id_to_bytes


@click.command(short_help="Show what a task has logged.")
@click.argument("task_id", metavar="ID")
@takes_connection
@json_option
def logs(task_id: str, where: Where, as_json: bool) -> None:
    """Show what the task ID has logged, as far as it is kept (`keep_events`): the newest 200 lines and events.

    Times are local. Follow a task that runs with `pytask events`. Exit status: 0, 1 where there is no such task, 2
    usage, 3 no Redis.
    """
    with helping(where) as helpers:
        lines = helpers.get_logs(task_id)
        if not lines and helpers.get_state(task_id) is None:
            raise not_found(id_to_bytes(task_id))
    for line in lines:
        click.echo(json_line(line) if as_json else shown(line))


def shown(line: dict[str, Any]) -> str:
    """The line for people; further lines of its message are indented."""
    when = "--:--:--.---" if line["time"] is None else clock(line["time"])
    head = f"{when} {escaped(line['level']):<8} {escaped(line['logger'])}: "
    return head + "\n    ".join(escaped_lines(line["message"]))
