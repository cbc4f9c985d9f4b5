"""`python -m pytask.compat.taskue`: Taskue's commands, which are pytask's under other names, and runners."""

from __future__ import annotations

import sys

if __name__ == "__main__" and "runner" in sys.argv[1:] and "start" in sys.argv[2:]:
    from gevent import monkey

    monkey.patch_all()

from collections.abc import Sequence
from typing import Any

import click

from pytask.cli import deleting, inspect, listing, logs, namespaces, status_of, workflows
from pytask.cli.connect import Where, json_option, takes_connection
from pytask.cli.escape import escaped, json_line
from pytask.cli.queues import helping
from pytask.errors import PyTaskError, TaskNotFoundError
from pytask.names import queue_name_of


@click.command(short_help="Run tasks, one at a time, until SIGTERM or Ctrl-C.")
@click.option("-n", "--name", metavar="NAME", help="The first part of its id; by default the host's name.")
@click.option("-q", "--queue", "queues", metavar="TAG", multiple=True, help="Tasks of this tag; may be repeated.")
@click.option("--timeout", type=float, default=3600, show_default=True, help="Seconds, for tasks without one.")
@click.option(
    "--run-untagged-tasks/--no-run-untagged-tasks", "untagged", default=True, help="Those without a tag."
)
@click.option("-m", "--auto-load-module", "modules", metavar="MODULE", multiple=True, help="Tasks may call it.")
@click.option("--path", metavar="DIR", help="Import modules from there, too.")
@click.option("--namespace", metavar="NAME", help="Stands before every key.")
@click.option("-u", "--url", metavar="URL", help="Where Redis is; by default what the settings say.")
def start(
    name: str | None,
    queues: Sequence[str],
    timeout: float,
    untagged: bool,
    modules: Sequence[str],
    path: str | None,
    namespace: str | None,
    url: str | None,
) -> None:
    """Run tasks, one at a time, until SIGTERM or Ctrl-C."""
    from pytask.compat.taskue.runner import TaskueRunner

    TaskueRunner(name, namespace, queues, timeout, untagged, modules, url, path).start(processes=None)


@click.command("get", short_help="Show a runner, by its name or id.")
@click.argument("name")
@takes_connection
@json_option
def get_runner(name: str, where: Where, as_json: bool) -> None:
    """Show the runners with a name, or with an id."""
    wanted = {name, queue_name_of(name)}  # a runner of any name has one that fits an id
    with helping(where) as helpers:
        nodes = helpers.get_nodes(find=True)
    rows = {uid: row for uid, row in nodes.items() if wanted & {uid, uid.partition(":")[0]}}
    if not rows:
        raise TaskNotFoundError(f"there is no runner {name!a}")
    for uid, row in rows.items():
        lines = [f"{key:<12}{escaped(value)}" for key, value in {"uid": uid, **row}.items()]
        click.echo(json_line({"uid": uid, **row}) if as_json else "\n".join(lines))


GROUPS: dict[str, dict[str, Any]] = {
    "runner": {"start": start, "list": listing.nodes, "get": get_runner},
    "task": {"list": listing.list_tasks, "get": inspect.show, "logs": logs.logs, "delete": deleting.delete},
    "workflow": {"list": workflows.workflows, "get": workflows.get, "delete": workflows.delete},
    "namespace": {"list": namespaces.namespaces, "delete": namespaces.delete},
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--redis-host", metavar="HOST", help="Where Redis is; by default what the settings say.")
@click.option("--redis-port", type=click.IntRange(1, 65_535), metavar="PORT", help="Its port, 6379 by default.")
@click.pass_context
def cli(context: click.Context, redis_host: str | None, redis_port: int | None) -> None:
    """Taskue's commands."""
    if redis_host is not None or redis_port is not None:
        host = redis_host or "localhost"
        url = f"redis://{f'[{host}]' if ':' in host else host}:{redis_port or 6379}"
        context.default_map = {name: {key: {"url": url} for key in group} for name, group in GROUPS.items()}


for _name, _commands in GROUPS.items():
    cli.add_command(click.Group(_name, _commands, help=f"{_name.capitalize()}s: {', '.join(_commands)}."))


def main() -> None:
    """Run the command line and exit; what went wrong is one line and a status, as with `pytask`."""
    try:
        cli(prog_name="taskue")
    except PyTaskError as error:
        click.echo(f"taskue: {error}", err=True)
        sys.exit(status_of(error))


if __name__ == "__main__":
    main()
