"""Text that somebody else wrote, made safe for a terminal: nothing in it can move a cursor or forge a line.

What is shown is always one of: a printable character, a space, or an escape such as `\\x1b`.
"""

from __future__ import annotations

import json
from typing import Any

SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """The text in one line; what is not printable (controls, bidirectional marks, lone surrogates) is escaped."""
    return text if text.isprintable() else "".join(map(_one, text))


def _one(char: str) -> str:
    if char.isprintable():
        return char
    if char in SHORT:
        return SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escaped_lines(text: str) -> list[str]:
    """The lines of a text (a traceback, for example), each escaped."""
    return [escaped(line.expandtabs(8)) for line in text.split("\n")]


def json_line(value: Any) -> str:
    """A JSON value in one line of ASCII, for programs. Raises ValueError or RecursionError for what is none."""
    return json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f")


def json_shown(value: Any, indent: int | None = None) -> str:
    """A JSON value for people: other scripts stay readable, nothing else that is not printable does."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent)
    except RecursionError:
        return "(nested too deep to be shown)"
    return "\n".join(map(escaped, text.split("\n")))


def cut(text: str, limit: int) -> str:
    """At most about `limit` characters, and how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more)"
