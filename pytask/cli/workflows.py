"""`pytask workflow ...` and `pytask workflows`: start workflows out of files, look at them, stop, delete."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import click

from pytask import states, wire
from pytask.cli.connect import Command, Where, connected, json_option, takes_connection
from pytask.cli.counting import CountingBar
from pytask.cli.escape import cut, escaped, escaped_lines, json_line
from pytask.cli.inspect import complain, follow, interruptible
from pytask.cli.queues import helping
from pytask.cli.results import LATE, timeout_option
from pytask.cli.screen import make_screen
from pytask.cli.tables import ago, print_table
from pytask.cli.watching import Ends, Feed
from pytask.errors import TaskGone, TaskNotFoundError, TaskStateError, TaskTimeout
from pytask.helpers import PyTaskHelpers
from pytask.result import WORKFLOW

LONGEST_TITLE = 60  # characters, in a table
MOST_SPEC = 512 * 1024 * 1024  # bytes of a file: what a server takes at most
Cells = Callable[[Mapping[str, Any]], list[str]]
FAILED = states.FAILED | {states.STOPPED}

id_argument = click.argument("workflow_id", metavar="ID")
page_option = click.option("--page", type=click.IntRange(1, 10**9), default=1, help="Which page, from 1 on.")


def limit_option(default: int) -> Callable[[Command], Command]:
    """How many rows a page has."""
    return click.option(
        "--limit", type=click.IntRange(1, 10_000), default=default, show_default=True, help="Rows of a page."
    )


@click.group(short_help="Workflows: start, look, stop, delete.")
def workflow() -> None:
    """Workflows: tasks that belong together, in stages or with tasks that wait for others."""


@workflow.command(short_help="Start a workflow out of a file; prints its id.")
@click.argument("spec", metavar="FILE|-", type=click.File("rb"))
@click.option("--id", "workflow_id", metavar="ID", help="The workflow's id; a random one by default.")
@click.option("--title", metavar="TEXT", help="In place of the title in the file.")
@click.option("--queue", metavar="NAME", help="Where its own steps are taken; its tasks have queues of their own.")
@click.option("--delay", metavar="SECONDS", help="Start it not before so long from now.")
@click.option("--watch", "watched", is_flag=True, help="Follow its events until it has ended.")
@takes_connection
@json_option
def start(
    spec: BinaryIO,
    workflow_id: str | None,
    title: str | None,
    queue: str | None,
    delay: str | None,
    watched: bool,
    where: Where,
    as_json: bool,
) -> None:
    """Start the workflow whose spec, a JSON object, stands in FILE (- is standard input), and print its id.

    Exit status: 0, 1 where the id is taken or (with --watch) the workflow failed, 2 usage or a spec that is no
    good, 3 no Redis.
    """
    given = _read(spec)
    with interruptible(), connected(where) as connection:
        if workflow_id is not None and connection.helpers.get_workflow_state(workflow_id) is not None:
            raise TaskStateError(f"the id {wire.shown(workflow_id)} is taken: take another one")
        made = connection.helpers.start_workflow(
            given, workflow_id=workflow_id, title=title, queue=queue, delay=delay
        )
        click.echo(json_line({"id": made}) if as_json else escaped(made))
    if watched:
        _watch(made, as_json, where)


def _read(file: BinaryIO) -> dict[str, Any]:
    try:
        return wire.decode_object(file.read(MOST_SPEC))
    except wire.WireError as error:
        raise click.UsageError(f"the spec {error}") from error


@workflow.command("list", short_help="List workflows, the newest first.")
@page_option
@limit_option(50)
@takes_connection
@json_option
def list_them(page: int, limit: int, where: Where, as_json: bool) -> None:
    """List workflows: those that go on, then those that have ended, the newest first, in pages.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    _list(page, limit, where, as_json)


@click.command(short_help="List workflows, the newest first.")
@page_option
@limit_option(50)
@takes_connection
@json_option
def workflows(page: int, limit: int, where: Where, as_json: bool) -> None:
    """List workflows, as `pytask workflow list` does.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    _list(page, limit, where, as_json)


def _list(page: int, limit: int, where: Where, as_json: bool) -> None:
    with helping(where) as helpers:
        rows, total = helpers.list_workflows(page=page, limit=limit), helpers.count_workflows()
    _print(rows, as_json, ("id", "state", "done", "failed", "since", "title"), _cells)
    if total > page * limit and not as_json:
        complain(f"{total} workflows in all: --page {page + 1} shows the next ones")


def _cells(row: Mapping[str, Any]) -> list[str]:
    done = "" if row["total"] is None else f"{row['done']}/{row['total']}"
    moment = row["ended"] or row["created"]
    failed = str(row["failed"] or "")
    return [escaped(row["id"]), row["state"], done, failed, ago(moment), escaped(cut(row["title"], LONGEST_TITLE))]


def _print(rows: Iterable[Mapping[str, Any]], as_json: bool, head: Sequence[str], cells: Cells) -> None:
    """Rows as JSON, or as a table."""
    if as_json:
        for row in rows:
            click.echo(json_line(row))
        return
    print_table([head, *map(cells, rows)])


@workflow.command(short_help="Show how a workflow stands.")
@id_argument
@click.option("--wait", is_flag=True, help="Wait until it has ended, with a bar on a terminal.")
@timeout_option
@takes_connection
@json_option
def get(workflow_id: str, wait: bool, timeout: float | None, where: Where, as_json: bool) -> None:
    """Show how the workflow ID stands; with --wait once it has ended (--timeout: how long to wait for that).

    Exit status: 0, 1 where there is no such workflow or (with --wait) it failed or was stopped, 2 usage, 3 no
    Redis, 4 where it has not ended in time.
    """
    status = 0
    with helping(where) as helpers:
        if wait:
            status = _wait(helpers, workflow_id, timeout, as_json)
        found = _found(helpers, workflow_id)
    if as_json:
        click.echo(json_line(found))
    else:
        for label, lines in _rows(found):
            click.echo(f"{label:<12}" + ("\n" + " " * 12).join(lines))
    sys.exit(status or int(wait and found["state"] in FAILED))


def _wait(helpers: PyTaskHelpers, workflow_id: str, timeout: float | None, quiet: bool) -> int:
    try:
        with CountingBar("workflow", quiet=quiet) as bar, contextlib.suppress(TaskGone):
            for event in helpers.follow_task(workflow_id, timeout=timeout):
                if event.event == "progress" and isinstance(event.data, dict):
                    bar(_number(event.data.get("done")), _number(event.data.get("total")))
    except TaskTimeout as error:
        complain(str(error))
        return LATE
    return 0


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _found(helpers: PyTaskHelpers, workflow_id: str) -> dict[str, Any]:
    found = helpers.get_workflow(workflow_id)
    if found is None:
        raise _not_found(workflow_id)
    return found


def _not_found(workflow_id: str) -> TaskNotFoundError:
    return TaskNotFoundError(f"there is no workflow with the id {wire.shown(workflow_id)}")


def _rows(found: Mapping[str, Any]) -> Iterable[tuple[str, list[str]]]:
    """A row a field, for people."""
    yield "id", [escaped(found["id"])]
    if found["title"]:
        yield "title", [escaped(found["title"])]
    yield "state", [found["state"]]
    if found["total"] is not None:
        yield "tasks", [f"{found['done']} of {found['total']} have ended, {found['failed']} failed"]
    if found["states"]:
        yield "ended as", [f"{count} {state}" for state, count in found["states"].items()]
    for name in ("created", "ended"):
        if found[name] is not None:
            yield name, [ago(found[name])]
    if found["output"]:
        yield "output", escaped_lines(found["output"])


@workflow.command(short_help="List the tasks of a workflow.")
@id_argument
@page_option
@limit_option(1000)
@takes_connection
@json_option
def tasks(workflow_id: str, page: int, limit: int, where: Where, as_json: bool) -> None:
    """List the tasks of the workflow ID, in its order, in pages: name, state, task and title of each.

    Exit status: 0, 1 where there is no such workflow, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        rows = helpers.get_workflow_tasks(workflow_id, page=page, limit=limit)
    _print(rows, as_json, ("name", "state", "task", "title"), _task_cells)


def _task_cells(row: Mapping[str, Any]) -> list[str]:
    return [row["name"], escaped(row["state"]), *(escaped(cut(row[key] or "", 60)) for key in ("task", "title"))]


@workflow.command(short_help="Stop a workflow: what runs is stopped, the rest skipped.")
@id_argument
@takes_connection
@json_option
def stop(workflow_id: str, where: Where, as_json: bool) -> None:
    """Stop the workflow ID: what runs of it is stopped, the rest skipped. Does not wait for that.

    Exit status: 0 (also where it has ended), 1 where there is no such workflow, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        try:
            asked = helpers.stop_task(workflow_id)
        except TaskNotFoundError:
            raise _not_found(workflow_id) from None
    word = "told to stop" if asked else "has ended already"
    click.echo(json_line({"id": workflow_id, "result": word}) if as_json else f"{escaped(workflow_id)} {word}")


@workflow.command(short_help="Remove a workflow that has ended, with its tasks.")
@id_argument
@click.option("--force", is_flag=True, help="Stop it first where it goes on.")
@takes_connection
@json_option
def delete(workflow_id: str, force: bool, where: Where, as_json: bool) -> None:
    """Remove the workflow ID, with the records of its tasks. One that goes on is refused, unless --force.

    Exit status: 0, 1 where there is no such workflow or it goes on, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        if not helpers.delete_workflow(workflow_id, force=force):
            raise _not_found(workflow_id)
    click.echo(
        json_line({"id": workflow_id, "result": "removed"}) if as_json else f"{escaped(workflow_id)} removed"
    )


@workflow.command(short_help="Follow a workflow until it has ended.")
@id_argument
@takes_connection
@json_option
def watch(workflow_id: str, where: Where, as_json: bool) -> None:
    """Follow the events of the workflow ID until it has ended, with a bar on a terminal.

    Exit status: 0, 1 where it failed or there is no such workflow, 2 usage, 3 no Redis.
    """
    _watch(workflow_id, as_json, where)


def _watch(workflow_id: str, as_json: bool, where: Where) -> None:
    with interruptible(), connected(where) as connection:
        raw = [wire.id_to_bytes(workflow_id)]
        with contextlib.closing(Feed(connection, raw, complain)) as feed:
            status = follow(feed, make_screen(as_json=as_json), Ends(connection, raw), WORKFLOW)
    sys.exit(status)
