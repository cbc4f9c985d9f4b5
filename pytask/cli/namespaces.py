"""`pytask namespaces` and `pytask namespace delete`: all that stands in a namespace."""

from __future__ import annotations

import click

from pytask.cli.connect import Where, json_option, takes_url
from pytask.cli.counting import CountingBar
from pytask.cli.escape import escaped, json_line
from pytask.cli.queues import confirm, helping
from pytask.cli.tables import print_table

COLUMNS = ("keys", "tasks", "nodes")
IN_NONE = (
    "Remove all keys that are in no namespace, of whatever app: each new-task..., node-..., schedule-...,"
    " service-..., workflow-..., end-task and so on, and each task-... that is a record of a task?"
)


@click.command(short_help="List the namespaces of a server.")
@takes_url
@json_option
def namespaces(where: Where, as_json: bool) -> None:
    """List the namespaces of which there is any key: how many keys, records of tasks, and nodes each has.

    Looks at every key of the servers: some seconds for each million.

    Exit status: 0, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        found = helpers.find_namespaces()
    if as_json:
        for name, row in found.items():
            click.echo(json_line({"namespace": name, **row}))
        return
    rows = [[escaped(name) or "(none)", *(str(row[key]) for key in COLUMNS)] for name, row in found.items()]
    print_table([["namespace", *COLUMNS], *rows])


@click.group(short_help="A namespace: delete.")
def namespace() -> None:
    """A namespace: what stands before every key of an app."""


@namespace.command(short_help="Remove all keys of a namespace.")
@click.argument("name", metavar="NAME")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even where nodes of it live.")
@takes_url
@json_option
def delete(name: str, yes: bool, force: bool, where: Where, as_json: bool) -> None:
    """Remove all keys of the namespace NAME ('' is that of apps without one). Asks first, unless --yes.

    Only keys of pytask are removed, which are known by their names and types; without a namespace somebody else's
    may be named alike. Where a node of the namespace lives it is refused, unless --force.

    Exit status: 0, 1 where the answer was no or a node lives, 2 usage, 3 no Redis.
    """
    with helping(where) as helpers:
        if not yes:
            confirm(f"Remove all keys of the namespace {escaped(name)}?" if name else IN_NONE)
        with CountingBar("delete", quiet=as_json) as bar:
            count = helpers.delete_namespace(name, force=force, progress=bar)
    click.echo(json_line({"namespace": name, "deleted": count}) if as_json else f"{count} keys are gone")
