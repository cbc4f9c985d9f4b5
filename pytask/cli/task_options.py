"""The options of a task as flags of a command: one for each row of the table in `pytask.options`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from pytask.errors import SettingError
from pytask.options import KINDS, OPTIONS, Option

ELSEWHERE = ("queue", "cleanup")  # these have flags of their own
METAVARS = {
    "boolean": "BOOLEAN", "exceptions": "NAMES", "name of a data field": "FIELD", "rate": "RATE", "text": "TEXT",
    "time": "TIME", "true or a key": "KEY",
}  # fmt: skip


class TaskOption(click.ParamType[Any]):
    """The value of an option, as a record would hold it; a time may be ISO 8601 with a zone as well."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The canonical value; fails with what is allowed."""
        if not isinstance(value, str):
            return value
        kind = KINDS[self.option.kind]
        try:
            if self.option.kind == "time" and "-" in value[1:]:
                return kind.check(datetime.fromisoformat(value))
            return kind.read(value)
        except (SettingError, ValueError) as error:
            self.fail(str(error), param, ctx)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags; their values arrive under the options' names, None where none is given."""
    for option in reversed(list(OPTIONS.values())):
        if option.name not in ELSEWHERE:
            flag = "--" + option.name.replace("_", "-")
            metavar = "N" if "integer" in option.kind else METAVARS.get(option.kind, "SECONDS")
            made = click.option(flag, option.name, type=TaskOption(option), metavar=metavar, help=option.help)
            command = made(command)
    return command
