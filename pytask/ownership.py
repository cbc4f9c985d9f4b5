"""Whose a key is: its namespace, and its row in the table of keys. Pure.

The patterns are made of the table itself. A namespace is known by its keys alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pytask.key_table import KEY_TABLE, KeyRow
from pytask.names import RESERVED_PREFIXES

_NAMESPACE = (
    rb"(?:(?!" + b"|".join(re.escape(p.encode()) for p in RESERVED_PREFIXES) + rb")[A-Za-z0-9_.-]{1,64}:)?"
)
_PARTS = {
    "<q>": rb"<ns>new-task(?::[A-Za-z0-9_.-]{1,64})?",
    "<ns>": rb"(?P<ns>" + _NAMESPACE + rb")",
    "<digest>": rb"[0-9a-f]{32}",
}


class Owned(NamedTuple):
    """A key of ours: the namespace (`''` for none), and what it is."""

    namespace: str
    row: KeyRow


def _pattern_of(row: KeyRow) -> re.Pattern[bytes]:
    text = re.escape(row.pattern).encode()
    for name, pattern in _PARTS.items():
        text = text.replace(re.escape(name).encode(), pattern)
    return re.compile(re.sub(rb"(?<!\?P)<\w+>", rb".+", text), re.DOTALL)


_PATTERNS = [(_pattern_of(row), row) for row in KEY_TABLE]


def find_owner(key: bytes) -> Owned | None:
    """The namespace of a key, and its row of the table; None for a key that is none of ours."""
    for pattern, row in _PATTERNS:
        if match := pattern.fullmatch(key):
            return Owned(match["ns"].removesuffix(b":").decode(), row)
    return None
