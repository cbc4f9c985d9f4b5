"""`pytask show` and `pytask watch`: one record, and events as they come."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from pytask import states, wire
from pytask.cli.connect import INTERRUPTED, Where, connected, json_option, takes_connection
from pytask.cli.escape import escaped, escaped_lines, json_line, json_shown
from pytask.cli.screen import Screen, make_screen
from pytask.cli.watching import REMOVED, Ends, Feed
from pytask.errors import TaskNotFoundError
from pytask.result import TASK

POLL = 0.1  # seconds
FIRST = ("task", "state", "data", "title", "queue", "node", "attempt", "deliveries")  # what people read first
LAST = ("progress", "output")
TIMES = ("created", "due", "expires", "started", "last_update", "ended")
NUMBERS = ("attempt", "deliveries", "fence", "closed")


@click.command(short_help="Show the record of a task.")
@click.argument("task_id", metavar="ID")
@takes_connection
@json_option
def show(task_id: str, where: Where, as_json: bool) -> None:
    """Show the record of the task ID: what it is, how it went, what came of it.

    Exit status: 0, 1 where there is no such task, 2 usage, 3 no Redis.
    """
    with connected(where) as connection:
        record = connection.helpers.get_task(task_id)
    if record is None:
        raise TaskNotFoundError(f"there is no task with the id {wire.shown(task_id)}")
    if as_json:
        click.echo(json_line({"id": task_id, **decoded(record)}))
        return
    color = sys.stdout.isatty()
    for label, lines in record_rows(task_id, record):
        name = f"{label:<12}"
        click.echo((click.style(name, dim=True) if color else name) + ("\n" + " " * 12).join(lines))


def decoded(record: Mapping[str, str]) -> dict[str, Any]:
    """The record for programs: JSON, times and numbers as such where they are that, else as text."""
    values: dict[str, Any] = dict(record)
    for name in {"data", "progress"} & set(record):
        values[name] = _value(record[name])
    if record.get("state") == states.SUCCESS and "output" in record:
        values["output"] = _value(record["output"])
    for name in {*TIMES, *NUMBERS} & set(record):
        value = _value(record[name])
        values[name] = value if isinstance(value, int | float) and abs(value) < 1e300 else record[name]
    return values


def _value(text: str) -> Any:
    try:
        return wire.decode_json(text.encode())
    except ValueError:
        return text


def record_rows(task_id: str, record: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A row a field, for people: its label, and lines of text that are safe to show."""
    yield "id", [escaped(task_id)]
    rest = sorted(set(record) - {*FIRST, *TIMES, *LAST})
    for name in [name for name in (*FIRST, *TIMES, *rest, *LAST) if name in record]:
        text = record[name]
        if name in TIMES:
            lines = [_time_shown(text)]
        elif name in ("data", "progress") or (name == "output" and record.get("state") == states.SUCCESS):
            lines = _json_lines(text)
        else:
            lines = escaped_lines(text)
        yield escaped(name), lines


def _json_lines(text: str) -> list[str]:
    try:
        value = wire.decode_json(text.encode())
    except ValueError:
        return escaped_lines(text)
    line = json_shown(value)
    return [line] if len(line) <= 60 else json_shown(value, indent=2).split("\n")


def _time_shown(text: str) -> str:
    try:
        seconds = float(text)
        moment = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return escaped(text)
    distance = time.time() - seconds
    return f"{moment} ({_span(abs(distance))} {'ago' if distance >= 0 else 'from now'})"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


@click.command(short_help="Follow events live.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--until-end", is_flag=True, help="End when all these tasks have ended or were stopped.")
@click.option("--no-color", is_flag=True, help="No colours. NO_COLOR in the environment says the same.")
@takes_connection
@json_option
def watch(ids: Sequence[str], until_end: bool, no_color: bool, where: Where, as_json: bool) -> None:
    """Follow the events of the tasks ID, or of all tasks, one a line, until Ctrl-C (status 130).

    With --until-end the status tells how they ended: 1 where one failed or there is no such task, else 0.
    Times are those of this machine, when the event arrived. A JSON line holds time, id, event and data; event is
    null for a message that is no event.
    """
    if until_end and not ids:
        raise click.UsageError("--until-end needs the ids of the tasks")
    with interruptible(), connected(where) as connection:
        raw = [wire.id_to_bytes(task_id) for task_id in dict.fromkeys(ids)]
        feed = Feed(connection, raw, complain)
        with contextlib.closing(feed):
            ends = Ends(connection, raw) if until_end else None
            status = follow(feed, make_screen(as_json=as_json, color=not no_color), ends)
    sys.exit(status)


def follow(feed: Feed, screen: Screen, ends: Ends | None, kind: str = TASK) -> int:
    """Show events until the tasks of `ends` have ended (None: for ever); returns the exit status."""
    with screen:
        while ends is None or ends.open:
            event = feed.get(POLL)
            if event is not None:
                screen.event(event)
                if ends is not None:
                    ends.note(event)
            for late in ends.check(feed.connects) if ends is not None else ():
                screen.event(late)
            screen.tick()
    for task_id in [task_id for task_id, state in ends.states.items() if state == REMOVED]:
        complain(f"there is no {kind} with the id {wire.shown(task_id)}")
    return int(any(state in states.FAILED or state == REMOVED for state in ends.states.values()))


def complain(text: str) -> None:
    """A line for people on standard error."""
    click.echo(f"pytask: {text}", err=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends what is inside with status 130, SIGTERM with 143; both let it clean up first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
