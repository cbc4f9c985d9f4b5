"""`pytask start`, `stop`, `reload`, `restart`: the helpers of producers, for people and scripts."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from pytask import states, wire
from pytask.cli.connect import Connection, Where, connected, json_option, takes_connection
from pytask.cli.counting import CountingBar
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain, follow, interruptible
from pytask.cli.queues import helping
from pytask.cli.screen import make_screen
from pytask.cli.task_options import task_options
from pytask.cli.watching import Ends, Feed
from pytask.errors import TaskNotFoundError, TaskStateError
from pytask.helpers import PyTaskHelpers
from pytask.mass_control import OPEN
from pytask.names import TASK_NAME


@click.command(short_help="Make a task and queue it; prints its id.")
@click.argument("name", metavar="NAME")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", metavar="JSON", help="The data as a JSON object; - reads it from standard input.")
@click.option("--id", "task_id", metavar="ID", help="The task's id; a random one by default.")
@click.option("--queue", default="default", metavar="NAME", help="The queue to put it into.")
@click.option("--front", is_flag=True, help="Before all that wait.")
@click.option("--keep", is_flag=True, help="Keep the record after the end.")
@click.option("--watch", "watched", is_flag=True, help="Follow its events until it has ended.")
@task_options
@takes_connection
@json_option
def start(
    name: str,
    pairs: Sequence[str],
    data: str | None,
    task_id: str | None,
    queue: str,
    keep: bool,
    front: bool,
    watched: bool,
    where: Where,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a task called NAME, queue it, and print its id.

    Its data are KEY=VALUE pairs, over those of --data. A VALUE is JSON where it is JSON, else text: n=3 is a
    number, n='"3"' and n=three are texts. An id whose task has begun is refused: see `pytask restart`. SECONDS may
    be text such as 5m, a TIME epoch seconds or 2027-01-01T08:00+01:00.

    Exit status: 0, 1 where the id is taken or (with --watch) the task failed, 2 usage, 3 no Redis.
    """
    if not TASK_NAME.fullmatch(name):
        raise click.UsageError("a task NAME is 1 to 200 characters of A-Z a-z 0-9 _ . / : -")
    new_id = secrets.token_hex(16) if task_id is None else task_id
    status = 0
    with interruptible(), connected(where) as connection, contextlib.ExitStack() as stack:
        values = data_of(data, pairs)
        raw = wire.id_to_bytes(new_id)
        if task_id is not None:
            _refuse_taken(connection.helpers, task_id)
        feed = stack.enter_context(contextlib.closing(Feed(connection, [raw], complain))) if watched else None
        options["cleanup"] = False if keep else None
        made = connection.helpers.start_task(name, values, task_id=raw, queue=queue, front=front, **options)
        click.echo(json_line({"id": made}) if as_json else escaped(made))
        if feed is not None and made != new_id:  # its unique key has an owner already
            raw = wire.id_to_bytes(made)
            feed = stack.enter_context(contextlib.closing(Feed(connection, [raw], complain)))
        if feed is not None:
            status = follow(feed, make_screen(as_json=as_json), Ends(connection, [raw]))
    sys.exit(status)


def data_of(text: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """The data that --data and KEY=VALUE pairs say. Raises UsageError."""
    return {**_object(text), **dict(map(_pair, pairs))}


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        raw = sys.stdin.buffer.read() if text == "-" else text.encode()
        return wire.decode_object(raw)
    except ValueError as error:
        raise click.UsageError(f"--data {error}") from error


def _pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not (key and equals):
        raise click.UsageError(f"{wire.shown(pair)} is no KEY=VALUE")
    try:
        return key, wire.decode_json(text.encode())
    except ValueError:
        return key, text


def _refuse_taken(helpers: PyTaskHelpers, task_id: str) -> None:
    state = helpers.get_task(task_id, "state")
    if state not in (None, states.WAIT):
        raise TaskStateError(
            f"the id {wire.shown(task_id)} is taken, its task is {escaped(state)}: take another id, or"
            " `pytask restart` it"
        )


ids_argument = click.argument("ids", metavar="ID...", nargs=-1, required=True)


some_ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1)
of_queue = click.option("-q", "--queue", metavar="NAME", help="With many: those of this queue.")
of_name = click.option("--name", metavar="TASK", help="With many: those with this name.")


@click.command(short_help="Stop tasks, whether they run or wait.")
@some_ids_argument
@click.option("--all", "everything", is_flag=True, help="All that wait, are due, or run.")
@of_queue
@of_name
@click.option(
    "--state",
    "wanted",
    multiple=True,
    metavar="STATE",
    type=click.Choice(sorted(OPEN), case_sensitive=False),
    help="With --all: those in this state; may be repeated.",
)
@takes_connection
@json_option
def stop(
    ids: Sequence[str],
    everything: bool,
    queue: str | None,
    name: str | None,
    wanted: Sequence[str],
    where: Where,
    as_json: bool,
) -> None:
    """Ask the tasks ID, or all, to stop. Does not wait until they have.

    Exit status: 0 (also for one that has ended), 1 where there is no such task, 2 usage, 3 no Redis.
    """
    _check_choice(ids, everything, "--all", queue, name, *wanted)
    if everything:
        with helping(where) as helpers, CountingBar("stop", quiet=as_json) as bar:
            count = helpers.stop_tasks(queue=queue, name=name, state=wanted or None, progress=bar)
        click.echo(json_line({"asked": count}) if as_json else f"{count} tasks are asked to stop")
        return

    def stop_one(connection: Connection, task_id: str) -> str:
        return "asked" if connection.helpers.stop_task(task_id) else "ended"

    words = {"asked": "is asked to stop", "ended": "has ended, or is stopped already"}
    _each(ids, where, as_json, stop_one, words)


def _check_choice(ids: Sequence[str], many: bool, flag: str, *narrowed: str | None) -> None:
    """Ids, or many with what narrows the choice; not both, and not neither."""
    if bool(ids) == many:
        raise click.UsageError(f"name ids, or say {flag}")
    if ids and any(narrowed):
        raise click.UsageError(f"-q, --name and --state narrow the choice of {flag}, not that of ids")


@click.command(short_help="Let running tasks read their records anew.")
@ids_argument
@takes_connection
@json_option
def reload(ids: Sequence[str], where: Where, as_json: bool) -> None:
    """Tell the running tasks ID to stop, read their records anew and start, on the same node. Does not wait.

    Exit status: 0, 1 where one does not run or there is no such task, 2 usage, 3 no Redis.
    """

    def reload_one(connection: Connection, task_id: str) -> str:
        _check_running(connection.helpers, task_id)
        connection.helpers.reload_task(task_id)
        return "asked"

    _each(ids, where, as_json, reload_one, {"asked": "is asked to reload"})


def _check_running(helpers: PyTaskHelpers, task_id: str) -> None:
    record = helpers.get_task(task_id)
    if record is None:
        raise TaskNotFoundError(f"there is no task with the id {wire.shown(task_id)}")
    state = record.get("state", states.WAIT)
    if state != states.RUNNING:
        raise TaskStateError(f"the task {wire.shown(task_id)} does not run, it is {escaped(state)}")


@click.command(short_help="Let tasks run again.")
@some_ids_argument
@click.option("--failed", is_flag=True, help="All that failed; with --if-state all that ended so.")
@of_queue
@of_name
@click.option(
    "--if-state",
    "allowed",
    multiple=True,
    metavar="STATE",
    type=click.Choice(list(states.MOVES), case_sensitive=False),
    help="Only where it is in this state; may be repeated.",
)
@takes_connection
@json_option
def restart(
    ids: Sequence[str],
    failed: bool,
    queue: str | None,
    name: str | None,
    allowed: Sequence[str],
    where: Where,
    as_json: bool,
) -> None:
    """Let the tasks ID run again; one that runs now does so after its end. With --failed all that failed, as far
    as the queues remember them (the setting keep_ended) and their records are still there.

    Exit status: 0, 1 where there is no such task or it is in another state than --if-state says, 2 usage,
    3 no Redis.
    """
    _check_choice(ids, failed, "--failed", queue, name)
    if failed:
        with helping(where) as helpers, CountingBar("restart", quiet=as_json) as bar:
            count = helpers.restart_all(queue=queue, name=name, states=allowed or None, progress=bar)
        click.echo(json_line({"restarted": count}) if as_json else f"{count} tasks are queued again")
        return

    def restart_one(connection: Connection, task_id: str) -> str:
        if not allowed:
            connection.helpers.restart_task(task_id)
        elif not connection.helpers.restart_if_state(task_id, allowed):
            state = connection.helpers.get_task(task_id, "state") or states.WAIT
            raise TaskStateError(f"the task {wire.shown(task_id)} is {escaped(state)}: it is left as it is")
        return "queued"

    _each(ids, where, as_json, restart_one, {"queued": "is queued again"})


def _each(
    ids: Sequence[str],
    where: Where,
    as_json: bool,
    act: Callable[[Connection, str], str],
    words: Mapping[str, str],
) -> None:
    """Do it to every id, also after one that failed, and tell of each. Exits with 1 where one failed."""
    failed = False
    with connected(where) as connection:
        for task_id in ids:
            wire.id_to_bytes(task_id)
        for task_id in ids:
            try:
                result = act(connection, task_id)
                text = f"{escaped(task_id)} {words[result]}"
            except (TaskNotFoundError, TaskStateError) as error:
                failed = True
                result, text = "missing" if isinstance(error, TaskNotFoundError) else "refused", str(error)
                complain(text)
                text = ""
            if as_json:
                click.echo(json_line({"id": task_id, "result": result}))
            elif text:
                click.echo(text)
    if failed:
        sys.exit(1)
