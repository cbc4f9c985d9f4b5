"""`pytask result`, `pytask events`, `pytask send`: wait for one task, follow it, talk to it."""

from __future__ import annotations

import sys
from typing import Any

import click

from pytask import states, wire
from pytask.checks import YEARS_10, check_duration
from pytask.cli.connect import Where, connected, json_option, takes_connection
from pytask.cli.escape import escaped_lines, json_line, json_shown
from pytask.cli.inspect import complain, interruptible
from pytask.cli.screen import make_screen
from pytask.cli.watching import Event
from pytask.errors import SettingError, TaskFailed, TaskTimeout

LATE = 4  # exit status: it has not ended in time


def _seconds(_ctx: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else check_duration(value, 0, YEARS_10, f"0 to {YEARS_10:.0f} s")
    except SettingError as error:
        raise click.BadParameter(str(error)) from error


timeout_option = click.option(
    "--timeout", callback=_seconds, metavar="TIME", help="How long to wait: 500ms, 30s, 5m. As long as it takes."
)


@click.command(short_help="Wait for a task and print its result.")
@click.argument("task_id", metavar="ID")
@timeout_option
@takes_connection
@json_option
def result(task_id: str, timeout: float | None, where: Where, as_json: bool) -> None:
    """Wait until the task ID has ended, and print its output as JSON; --timeout 0 only looks.

    With --json it prints an object with id, state and output, also for a task that failed (without: its output
    goes to standard error).

    Exit status: 0, 1 where it failed, was stopped or has no record, 2 usage, 3 no Redis, 4 where it has not ended
    in time.
    """
    status = 0
    with interruptible(), connected(where) as connection:
        try:
            output = connection.helpers.get_result(task_id, timeout)
            click.echo(json_line(_told(task_id, states.SUCCESS, output)) if as_json else json_shown(output))
        except TaskFailed as error:
            status = 1
            if as_json:
                click.echo(json_line(_told(task_id, error.state, error.output)))
            else:
                complain(f"the task {wire.shown(task_id)} ended as {error.state}")
                for line in escaped_lines(error.output) if error.output else ():
                    click.echo(line, err=True)
        except TaskTimeout as error:
            status = LATE
            complain(str(error))
    sys.exit(status)


def _told(task_id: str, state: str, output: Any) -> dict[str, Any]:
    return {"id": task_id, "state": state, "output": output}


@click.command(short_help="Print the events of a task until it has ended.")
@click.argument("task_id", metavar="ID")
@click.option("--replay/--no-replay", default=True, help="Begin with the events that are kept, or with new ones.")
@timeout_option
@click.option("--no-color", is_flag=True, help="No colours. NO_COLOR in the environment says the same.")
@takes_connection
@json_option
def events(task_id: str, replay: bool, timeout: float | None, no_color: bool, where: Where, as_json: bool) -> None:
    """Print the events of the task ID, those that are kept and then the new ones, one a line, until it has ended.

    A JSON line holds time, id, event and data.

    Exit status: 0, 1 where it failed or has no record, 2 usage, 3 no Redis, 4 where it has not ended in time.
    """
    status, last = 0, ""
    with interruptible(), connected(where) as connection:
        try:
            with make_screen(as_json=as_json, color=not no_color) as screen:
                for told in connection.helpers.follow_task(task_id, replay=replay, timeout=timeout):
                    screen.event(Event(told.time, task_id, told.event, told.data))
                    last = told.state or last
            status = int(last in states.FAILED)
        except TaskTimeout as error:
            status = LATE
            complain(str(error))
    sys.exit(status)


@click.command(short_help="Send a message to a task that runs.")
@click.argument("task_id", metavar="ID")
@click.argument("message", metavar="JSON")
@takes_connection
@json_option
def send(task_id: str, message: str, where: Where, as_json: bool) -> None:
    """Send the task ID a message, a JSON object (- reads it from standard input), which its on_message takes.

    It is not kept: a task that does not run never gets it.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    raw = sys.stdin.buffer.read() if message == "-" else message.encode("utf-8", "surrogateescape")
    try:
        value = wire.decode_object(raw)
    except wire.WireError as error:
        raise click.UsageError(f"the message {error}") from error
    with connected(where) as connection:
        heard = connection.helpers.send_to_task(task_id, value)
    if as_json:
        click.echo(json_line({"id": task_id, "subscribers": heard}))
