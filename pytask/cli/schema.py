"""`pytask schema`: what data a task takes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

import click

from pytask.cli.escape import escaped, json_line
from pytask.cli.loading import load_app
from pytask.errors import UnknownTaskError
from pytask.names import shown
from pytask.params import get_schema


@click.command(short_help="Show what data a task takes, or its JSON Schema.")
@click.argument("app", metavar="MODULE:APP")
@click.argument("task", metavar="NAME")
@click.option("--path", default=".", show_default=True, help="Import the module from this directory.")
@click.option("--json", "as_json", is_flag=True, help="The JSON Schema, on one line.")
def schema(app: str, task: str, path: str, as_json: bool) -> None:
    """Show what data the task NAME of the app at MODULE:APP takes: a line for each field.

    It needs no Redis. Exit status: 0, 1 where there is no such task, 2 usage or import, or pydantic is missing.
    """
    known = load_app(app, path).known_tasks
    if task not in known:
        close = difflib.get_close_matches(task[:200], known, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise UnknownTaskError(f"{app} has no task {shown(task)}{hint}")
    found = get_schema(known[task])
    if as_json:
        click.echo(json_line(found))
        return
    for row in rows(found):
        click.echo("  ".join(row).rstrip())


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Name, type, whether it must be there, and description of each field, in columns."""
    required = found.get("required", [])
    table = [_row(name, part, found, name in required) for name, part in found.get("properties", {}).items()]
    widths = [max((len(row[column]) for row in table), default=0) for column in range(3)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + row[3:] for row in table]


def _row(name: str, part: Mapping[str, Any], found: Mapping[str, Any], required: bool) -> list[str]:
    return [escaped(name), _type(part, found), _need(required, part), escaped(str(part.get("description", "")))]


def _need(required: bool, part: Mapping[str, Any]) -> str:
    if required:
        return "required"
    return f"default {escaped(json.dumps(part['default']))}" if "default" in part else "optional"


def _type(part: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A type in a word or a few: `integer`, `array of string`, `string (date) or null`."""
    if "$ref" in part:
        name = str(part["$ref"]).rpartition("/")[2]
        return _type(found.get("$defs", {}).get(name, {}), found)
    if "anyOf" in part:
        return " or ".join(_type(item, found) for item in part["anyOf"])
    if "enum" in part:
        return " or ".join(json.dumps(value) for value in part["enum"])
    word = str(part.get("type", "anything"))
    if word == "array" and "items" in part:
        return f"array of {_type(part['items'], found)}"
    return f"{word} ({part['format']})" if "format" in part else word
