"""`pytask redis`: one raw command, for machines without redis-cli."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from pytask.cli.connect import Where, connected, json_option, takes_url
from pytask.cli.escape import json_line
from pytask.cli.inspect import interruptible
from pytask.errors import StoreRefused
from pytask.store.client import Client

ENDLESS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"})
REFUSED = frozenset({"SYNC", "PSYNC", "REPLCONF", "HELLO"})  # the reply is a stream, or in another protocol
STATUS_OF = frozenset({"TYPE", "PING", "BGSAVE", "BGREWRITEAOF"})  # commands that answer with a word of their own
VALUE_OF = frozenset(
    {
        "ECHO", "GET", "GETDEL", "GETEX", "GETRANGE", "GETSET", "HGET", "HRANDFIELD", "LINDEX", "LMOVE", "LPOP",
        "RANDOMKEY", "RPOP", "RPOPLPUSH", "SPOP", "SRANDMEMBER", "SUBSTR",
    }
)  # fmt: skip


@click.command(
    short_help="Send one raw Redis command.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.argument("command", metavar="COMMAND")
@click.argument("arguments", metavar="[ARG]...", nargs=-1, type=click.UNPROCESSED)
@takes_url
@click.option("--raw/--no-raw", default=None, help="Replies as they are, or as text for people (on a terminal).")
@json_option
def redis(command: str, arguments: Sequence[str], where: Where, raw: bool | None, as_json: bool) -> None:
    """Send COMMAND with its arguments and print the reply as redis-cli does; options stand before COMMAND.

    Keys are sent as they are written, a namespace too. Exit status: 0, 1 for an error reply, 2 usage, 3 no Redis.
    """
    name = command.upper()
    if name in ENDLESS:
        raise click.UsageError(f"{name} has no end: `pytask watch` follows events")
    if name in REFUSED:
        raise click.UsageError(f"{name} cannot be sent from here")
    show = _printer(name, as_json, raw)
    with interruptible(), connected(where) as connection:
        client = Client(connection.target.servers(timeout=None, size=1), patience=0)
        try:
            show(client.execute(*map(os.fsencode, (command, *arguments))))
        except StoreRefused as error:
            show(error.__cause__)
            sys.exit(1)
        finally:
            client.close()


def _printer(name: str, as_json: bool, raw: bool | None) -> Callable[[Any], None]:
    if as_json:
        return lambda reply: click.echo(json_line(as_data(reply)))
    if raw or (raw is None and not sys.stdout.isatty()):
        return lambda reply: click.echo(as_raw(reply))
    return lambda reply: click.echo("\n".join(as_lines(reply, name)))


def as_data(reply: Any) -> Any:
    """A reply for programs: text, number, null, list; an error is an object."""
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "surrogateescape")
    if isinstance(reply, Exception):
        return {"error": error_text(reply)}
    return [as_data(item) for item in reply] if isinstance(reply, list) else reply


def as_raw(reply: Any) -> bytes:
    """A reply as it is, for a pipe: bytes untouched, an item a line, nothing for nil."""
    if isinstance(reply, bytes):
        return reply
    if isinstance(reply, list):
        return b"\n".join(map(as_raw, reply))
    if isinstance(reply, Exception):
        return error_text(reply).encode()
    return b"" if reply is None else str(reply).encode()


def as_lines(reply: Any, name: str = "") -> list[str]:
    """A reply for people, in redis-cli's manner."""
    if reply is None:
        return ["(nil)"]
    if isinstance(reply, Exception):
        return [f"(error) {error_text(reply)}"]
    if isinstance(reply, bytes):
        return [reply.decode() if _is_status(reply, name) else quoted(reply)]
    if not isinstance(reply, list):
        return [f"(integer) {reply}"]
    width = len(str(len(reply)))
    lines = []
    for number, item in enumerate(reply, 1):
        first, *rest = as_lines(item)
        lines += [f"{number:>{width}}) {first}", *[" " * (width + 2) + line for line in rest]]
    return lines or ["(empty array)"]


def _is_status(reply: bytes, name: str) -> bool:
    """Was it a status? The client does not tell statuses from values."""
    if name in STATUS_OF:
        return reply.isascii() and reply.decode().isprintable()
    return reply in (b"OK", b"QUEUED") and name not in VALUE_OF


def quoted(value: bytes) -> str:
    """The value in double quotes, with redis-cli's escapes."""
    short = {ord("\\"): "\\\\", ord('"'): '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}
    body = (short.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in value)
    return f'"{"".join(body)}"'


def error_text(error: BaseException | None) -> str:
    """The error as the server wrote it."""
    code = getattr(error, "status_code", None)
    text = " ".join(f"{code or ''} {error}".split())
    return text if text.isprintable() else shlex.quote(ascii(text))
