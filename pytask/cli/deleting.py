"""`pytask delete`: tasks that have ended, with all that is known of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain
from pytask.cli.queues import helping
from pytask.errors import TaskStateError


@click.command(short_help="Remove tasks that have ended.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Stop them first where they wait or run.")
@takes_connection
@json_option
def delete(ids: Sequence[str], force: bool, where: Where, as_json: bool) -> None:
    """Remove the tasks ID, each with its record and its kept events. One that waits or runs is refused, unless
    --force. The id of a workflow removes it with its tasks.

    Exit status: 0, 1 where there is no such task or one has not ended, 2 usage, 3 no Redis.
    """
    failed = False
    with helping(where) as helpers:
        for task_id in dict.fromkeys(ids):
            try:
                result = "removed" if helpers.delete_task(task_id, force=force) else "not found"
            except TaskStateError as error:
                complain(str(error))
                result = "refused"
            failed = failed or result != "removed"
            row = {"id": task_id, "result": result}
            click.echo(json_line(row) if as_json else f"{escaped(task_id)} {result}")
    sys.exit(int(failed))
