"""`pytask queues`, `pause`, `resume`, `purge` and `dead`: whole queues, for people and scripts."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from pytask.cli.connect import Where, connected, json_option, takes_connection
from pytask.cli.counting import CountingBar
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain, interruptible
from pytask.helpers import PyTaskHelpers
from pytask.names import check_queue_name, queue_label

COLUMNS = ("waiting", "running", "due", "dead", "nodes")
MOST_SHOWN = 10_000  # dead ids

names_argument = click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
queue_option = click.option("-q", "--queue", default="default", metavar="NAME", help="Of this queue.")


@contextlib.contextmanager
def helping(where: Where) -> Iterator[PyTaskHelpers]:
    """The helpers on a server that has answered. Ctrl-C ends it."""
    with interruptible(), connected(where) as connection:
        yield connection.helpers


@click.command(short_help="List queues, and how each stands.")
@takes_connection
@json_option
def queues(where: Where, as_json: bool) -> None:
    """List the queues of which there is anything, with the numbers of their ids: what waits, is with nodes, is due
    later, is dead, and has ended so far.

    Exit status: 0, 1 where a key of a queue is of a wrong type, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.get_queues()
    if as_json:
        for name, row in found.items():
            click.echo(json_line({"queue": name, **row}))
    else:
        for line in table(found, time.time()):
            click.echo(line)
    for name in [name for name, row in found.items() if "error" in row]:
        complain(f"queue {name} cannot be read: {escaped(found[name]['error'])}")
    if any("error" in row for row in found.values()):
        sys.exit(1)


def table(found: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
    """A row a queue, for people."""
    rows = [["queue", *COLUMNS, "ended", ""]]
    for name, row in found.items():
        if "error" not in row:
            numbers = [str(row[column]) for column in COLUMNS]
            rows.append([name, *numbers, str(sum(row["ended"].values())), _remarks(row, now)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Numbers end at the right, text begins at the left."""
    for n, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if 0 < n < len(row) - 1 else cell.ljust(width)


def _remarks(row: Mapping[str, Any], now: float) -> str:
    parts = []
    if row["paused"] is not None:
        parts.append(f"paused for {max(now - row['paused'], 0):.0f} s" if row["paused"] else "paused")
    if row["purging"]:
        parts.append(f"{row['purging']} to be purged")
    return ", ".join(parts)


@click.command(short_help="Let nothing of queues start, on any node.")
@names_argument
@takes_connection
@json_option
def pause(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Let nothing of the queues QUEUE start, on any node, until they are resumed. What runs goes on.

    Exit status: 0, 2 usage, 3 no Redis.
    """

    def pause_one(helpers: PyTaskHelpers, name: str) -> str:
        helpers.pause_queue(name)
        return "paused"

    _each(names, where, as_json, pause_one, {"paused": "is paused"})


@click.command(short_help="Let queues go on.")
@names_argument
@takes_connection
@json_option
def resume(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Let tasks of the queues QUEUE start again.

    Exit status: 0 (also for one that was not paused), 2 usage, 3 no Redis.
    """

    def resume_one(helpers: PyTaskHelpers, name: str) -> str:
        return "resumed" if helpers.resume_queue(name) else "was not paused"

    _each(names, where, as_json, resume_one, {"resumed": "goes on", "was not paused": "was not paused"})


def _each(
    names: Sequence[str],
    where: Where,
    as_json: bool,
    act: Callable[[PyTaskHelpers, str], str],
    words: Mapping[str, str],
) -> None:
    with helping(where) as helpers:
        labels = [queue_label(check_queue_name(name)) for name in names]
        for name in labels:
            result = act(helpers, name)
            click.echo(
                json_line({"queue": name, "result": result}) if as_json else f"queue {name} {words[result]}"
            )


@click.command(short_help="Remove what waits in a queue.")
@click.argument("name", metavar="QUEUE")
@click.option("--scheduled", is_flag=True, help="Remove what waits for a time as well.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@takes_connection
@json_option
def purge(name: str, scheduled: bool, yes: bool, where: Where, as_json: bool) -> None:
    """Remove what waits in the queue QUEUE, with the records. What runs goes on. Asks first, unless --yes.

    Exit status: 0, 1 where the answer was no, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        label = queue_label(check_queue_name(name))
        if not yes:
            confirm(f"Remove all tasks that wait in queue {label}?")
        with CountingBar(f"purge {label}", quiet=as_json) as bar:
            count = helpers.purge_queue(name, scheduled=scheduled, progress=bar)
    click.echo(json_line({"queue": label, "purged": count}) if as_json else f"{count} tasks are gone")


def confirm(question: str) -> None:
    """Ask a person; without a terminal it is a usage error, since nobody could answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask: say --yes")
    if not click.confirm(question, err=True):
        sys.exit(1)


@click.group(short_help="Ids that could not be worked on: list, push again, drop.")
def dead() -> None:
    """The dead list of a queue: ids for which no record came, or whose record is none."""


@dead.command("list", short_help="List dead ids, the newest first.")
@queue_option
@takes_connection
@json_option
def list_dead(queue: str, where: Where, as_json: bool) -> None:
    """List the dead ids of a queue, the newest first, at most 10,000 of them.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        for task_id in helpers.get_dead_task_ids(queue, MOST_SHOWN):
            click.echo(json_line({"id": task_id}) if as_json else escaped(task_id))


@dead.command("requeue", short_help="Push dead ids again.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@queue_option
@takes_connection
@json_option
def requeue_dead(ids: Sequence[str], everything: bool, queue: str, where: Where, as_json: bool) -> None:
    """Push the dead ids ID of a queue again, or all of them.

    Exit status: 0, 1 where one is not dead, 2 usage, 3 no Redis.
    """
    _bury(
        ids, everything, where, as_json, "queued again", lambda helpers, given: helpers.requeue_dead(queue, given)
    )


@dead.command("drop", short_help="Forget dead ids.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@queue_option
@takes_connection
@json_option
def drop_dead(ids: Sequence[str], everything: bool, queue: str, where: Where, as_json: bool) -> None:
    """Take the ids ID, or all of them, off the dead list of a queue. What stands in their keys stays.

    Exit status: 0, 1 where one is not dead, 2 usage, 3 no Redis.
    """

    def drop(helpers: PyTaskHelpers, given: Sequence[str] | None) -> int:
        return helpers.drop_dead(queue, given)

    _bury(ids, everything, where, as_json, "dropped", drop)


def _bury(
    ids: Sequence[str],
    everything: bool,
    where: Where,
    as_json: bool,
    word: str,
    act: Callable[[PyTaskHelpers, Sequence[str] | None], int],
) -> None:
    if bool(ids) == everything:
        raise click.UsageError("name ids, or say --all")
    with helping(where) as helpers:
        count = act(helpers, None if everything else list(dict.fromkeys(ids)))
    click.echo(json_line({"count": count}) if as_json else f"{count} ids are {word}")
    if ids and count < len(set(ids)):
        complain(f"{len(set(ids)) - count} of the ids are not on the dead list")
        sys.exit(1)
