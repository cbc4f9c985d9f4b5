"""`pytask sweep`: one pass of the sweep, now, for people who want to know whether anything was lost."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from pytask import settings as settings_module
from pytask.cli.connect import Connection, Where, connected, json_option, takes_connection
from pytask.cli.escape import escaped, json_line
from pytask.cli.inspect import complain, interruptible
from pytask.names import queue_label
from pytask.tasks.sweep import pause_between_looks
from pytask.tasks.sweeping import Report, Sweeping

SHOW_AFTER = 1.0  # seconds without an end, until a bar is drawn
STEP = 0.1  # seconds
MOST_PAUSE = 86_400.0  # seconds
BAR = "sweep"

ROWS = (
    ("pushed", "tasks in no queue", "pushed"),
    ("parked", "tasks whose time is lost", "parked"),
    ("claims", "claims of unknown nodes, marks of ids in no queue", "pushed"),
    ("inboxes", "ids in inboxes of unknown nodes", "pushed"),
    ("endings", "ended ids that an unknown Cleanup had taken", "back in end-task"),
    ("unpushed", "records without a state in no queue", "as they were"),
)


@click.command(short_help="Look for tasks that were lost, and put them back.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@click.option(
    "--pause",
    type=float,
    metavar="SECONDS",
    help="How long to wait before the second look; 1.5 times node_timeout by default.",
)
@takes_connection
@json_option
def sweep(dry_run: bool, pause: float | None, where: Where, as_json: bool) -> None:
    """Look for tasks that are in no queue and on no node, look again after a pause, and put them back.

    Nodes do this by themselves (see the setting sweep_interval); a second sweep does no harm. What is still being
    made (a record that is written, and pushed later than the pause) is taken for lost where its state is WAIT.

    Exit status: 0, also where something was lost, 2 usage, 3 no Redis.
    """
    if pause is None:
        found = settings_module.load(file=where.config)
        pause = pause_between_looks(found.node_timeout)
    if not 0 <= pause <= MOST_PAUSE:
        raise click.UsageError(f"--pause is 0 to {MOST_PAUSE:g} seconds")
    with interruptible(), connected(where) as connection, Progress(connection, as_json) as progress:
        queues = connection.helpers.queues
        sweeping = Sweeping(
            connection.store, queues, pace=progress.step, salt=random.getrandbits(62), dry_run=dry_run
        )
        report = sweeping.run(lambda: progress.wait(pause))
    show(report, dry_run, as_json)


def show(report: Report, dry_run: bool, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        click.echo(json_line({"dry_run": dry_run, **report.as_json()}))
        return
    for line in report_lines(report.as_json(), dry_run):
        click.echo(line)
    for queue, reason in sorted(report.refused.items()):
        complain(f"queue {queue_label(queue)} cannot be read: {escaped(reason)}")
    if report.more:
        complain("there is more than one pass takes: sweep again")


def report_lines(report: Mapping[str, Any], dry_run: bool) -> list[str]:
    """A table of what was found, and what was done with it."""
    rows = [("found", "what", "would be" if dry_run else "now")]
    rows += [(str(report[name]), what, done if report[name] else "") for name, what, done in ROWS]
    width = max(len(row[0]) for row in rows)
    middle = max(len(row[1]) for row in rows)
    table = [f"{number:>{width}}  {what:<{middle}}  {done}".rstrip() for number, what, done in rows]
    return [f"records: {report['seen']}, queues: {report['queues']}", *table]


class Progress:
    """Draws a bar on standard error where it is a terminal and the sweep takes long."""

    def __init__(self, connection: Connection, as_json: bool) -> None:
        self._draws = sys.stderr.isatty() and not as_json
        self._total = connection.store.traces.count_keys() if self._draws else 0
        self._done = 0
        self._began = time.monotonic()
        self._bars: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.drop(BAR)

    def step(self, records: int) -> None:
        """So many records were looked at."""
        self._done += records
        self._draw(self._done, max(self._total, self._done), f"{self._done} looked at")

    def wait(self, seconds: float) -> None:
        """Wait, and show how much of it is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._draw(seconds - left, seconds, f"second look in {left:.0f} s")
            time.sleep(min(left, STEP))
        self._done = 0

    def _draw(self, done: float, total: float, told: str) -> None:
        if not self._draws or time.monotonic() - self._began < SHOW_AFTER:
            return
        from rich.console import Console

        from pytask.cli.bars import Bar, Bars

        if self._bars is None:
            self._bars = Bars(Console(stderr=True, highlight=False, markup=False, emoji=False))
        self._bars.step(BAR, Bar(BAR, done, total or 1, told))
