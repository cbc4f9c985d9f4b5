"""`pytask schedules` and `pytask schedule`: what fires when, and the hand on it, for people and scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.control import data_of
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain
from pytask.cli.queues import helping
from pytask.cli.task_options import task_options
from pytask.errors import InvalidInputError, ScheduleNotFoundError
from pytask.helpers import PyTaskHelpers
from pytask.schedule import RANGES, RegularSchedule, write_fire_time
from pytask.zones import read_zone

names_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True)


@click.command(short_help="List schedules, with their next times.")
@click.option(
    "--times", type=click.IntRange(0, 1000), default=5, show_default=True, help="How many times of each."
)
@takes_connection
@json_option
def schedules(times: int, where: Where, as_json: bool) -> None:
    """List the schedules, when they fire next (in their own time zones), and what is wrong with those that do not.

    Exit status: 0, 1 where one is broken, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.get_schedules(times)
    for name, row in found.items():
        if as_json:
            click.echo(json_line({"schedule": name, **row}))
        else:
            for line in lines_of(name, row, time.time()):
                click.echo(line)
    broken = [name for name, row in found.items() if row["error"] is not None]
    for name in broken:
        complain(f"schedule {escaped(name)} is broken: {escaped(found[name]['error'])}")
    if broken:
        sys.exit(1)


def lines_of(name: str, row: Mapping[str, Any], now: float) -> Iterator[str]:
    """What it is, and a line for each of its next times."""
    parts = [f"starts {escaped(row['task'] or '?')}", escaped(row["when"])] if row["fields"] else []
    if row["paused"] is not None:
        since = f" for {max(now - row['paused'], 0):.0f} s" if row["paused"] else ""
        parts.append(f"paused{since}")
    if row["error"] is not None:
        parts.append("broken")
    yield f"{escaped(name)}  {'; '.join(part for part in parts if part)}"
    for instant in row["times"]:
        yield f"    {_local(instant, row['fields'].get('tz', 'UTC'))}"


def _local(instant: float, zone: str) -> str:
    try:
        return datetime.fromtimestamp(instant, read_zone(zone)).isoformat(sep=" ")
    except InvalidInputError:
        return write_fire_time(instant)


@click.group(short_help="Add, run, pause, resume or remove schedules.")
def schedule() -> None:
    """One schedule, or some: add, run, pause, resume, remove. `pytask schedules` lists them."""


@schedule.command(short_help="Define a schedule, or define it anew.")
@click.argument("name", metavar="NAME")
@click.argument("task", metavar="TASK")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--cron", metavar="TEXT", help="Five fields, or six with the seconds first.")
@click.option("--every", metavar="SECONDS", help="So often.")
@click.option("--seconds", metavar="LIST", help="At these seconds: numbers and spans, 0,30 or 0-9.")
@click.option("--minutes", metavar="LIST", help="At these minutes.")
@click.option("--hours", metavar="LIST", help="At these hours.")
@click.option("--days", metavar="LIST", help="On these days of the month.")
@click.option("--weekdays", metavar="LIST", help="On these days: mon to sun, or 0 (Monday) to 6.")
@click.option("--months", metavar="LIST", help="In these months: jan to dec, or 1 to 12.")
@click.option("--tz", metavar="ZONE", help="In this time zone: Europe/Berlin, +09:00. UTC by default.")
@click.option("--missed", metavar="WORD", help="What nobody was there for: latest (by default), all or skip.")
@click.option("--jitter", metavar="SECONDS", help="Be so late at most, at random.")
@click.option("--data", metavar="JSON", help="The data as a JSON object; - reads it from standard input.")
@click.option("--queue", metavar="NAME", help="The queue to put the tasks into.")
@click.option("--keep", is_flag=True, help="Keep the records after the end.")
@task_options
@takes_connection
@json_option
def add(
    name: str,
    task: str,
    pairs: Sequence[str],
    data: str | None,
    keep: bool,
    where: Where,
    as_json: bool,
    **options: Any,
) -> None:
    """Define the schedule NAME: when it starts the task TASK, and with what data. One that is there is changed.

    The data are KEY=VALUE pairs, as in `pytask start`. SECONDS may be text such as 5m.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        parts = {part: options.pop(part) for part in RANGES}
        given = {part: value for part, value in parts.items() if value is not None}
        regular = RegularSchedule(**given) if given else None
        values = data_of(data, pairs)
        cleanup = False if keep else None
        changed = helpers.add_schedule(name, task, values, regular, cleanup=cleanup, **options)
    result = "defined" if changed else "unchanged"
    click.echo(json_line({"schedule": name, "result": result}) if as_json else f"schedule {name} is {result}")


@schedule.command(short_help="Start the task of schedules now; prints its id.")
@names_argument
@takes_connection
@json_option
def run(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Start the tasks of the schedules NAME now, whatever their times, and print the ids.

    Exit status: 0, 1 where there is no such schedule, 2 usage, 3 no Redis.
    """

    def run_one(helpers: PyTaskHelpers, name: str) -> dict[str, Any]:
        return {"result": "started", "id": str(helpers.run_schedule(name))}

    _each(names, where, as_json, run_one, lambda _, row: escaped(row["id"]))


@schedule.command(short_help="Let schedules fire no more.")
@names_argument
@takes_connection
@json_option
def pause(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Let the schedules NAME fire no more until they are resumed. What would have fired is not made up for.

    Exit status: 0, 1 where there is no such schedule, 2 usage, 3 no Redis.
    """

    def pause_one(helpers: PyTaskHelpers, name: str) -> dict[str, Any]:
        return {"result": "paused" if helpers.pause_schedule(name) else "was paused"}

    _each(names, where, as_json, pause_one, _in_words)


@schedule.command(short_help="Let schedules fire again.")
@names_argument
@takes_connection
@json_option
def resume(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Let the schedules NAME fire again, from their next times on.

    Exit status: 0, 1 where there is no such schedule, 2 usage, 3 no Redis.
    """

    def resume_one(helpers: PyTaskHelpers, name: str) -> dict[str, Any]:
        return {"result": "resumed" if helpers.resume_schedule(name) else "was not paused"}

    _each(names, where, as_json, resume_one, _in_words)


@schedule.command(short_help="Remove schedules.")
@names_argument
@takes_connection
@json_option
def remove(names: Sequence[str], where: Where, as_json: bool) -> None:
    """Remove the schedules NAME. Tasks that they have started go on.

    One that an app declares is there again when a node of that app starts.

    Exit status: 0, 1 where there is no such schedule, 2 usage, 3 no Redis.
    """

    def remove_one(helpers: PyTaskHelpers, name: str) -> dict[str, Any]:
        if not helpers.remove_schedule(name):
            raise ScheduleNotFoundError(f"there is no schedule {name!r}")
        return {"result": "removed"}

    _each(names, where, as_json, remove_one, _in_words)


def _in_words(name: str, row: Mapping[str, Any]) -> str:
    words = {"was paused": "is paused already", "was not paused": "was not paused"}
    return f"schedule {name} {words.get(row['result'], 'is ' + row['result'])}"


def _each(
    names: Sequence[str],
    where: Where,
    as_json: bool,
    act: Callable[[PyTaskHelpers, str], dict[str, Any]],
    shown: Callable[[str, Mapping[str, Any]], str],
) -> None:
    """Do it to every name, also after one that is not there, and tell of each."""
    failed = False
    with helping(where) as helpers:
        for name in names:
            try:
                row = act(helpers, name)
                text = shown(name, row)
            except ScheduleNotFoundError as error:
                failed, row, text = True, {"result": "missing"}, ""
                complain(str(error))
            if as_json:
                click.echo(json_line({"schedule": name, **row}))
            elif text:
                click.echo(text)
    if failed:
        sys.exit(1)
