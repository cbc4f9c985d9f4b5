"""What the sweep remembers of a queue while it looks: who serves it, and which ids stand in it. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

LEAST = 1024  # ids: a small filter costs little, and errs hardly ever


class Filter:
    """Which ids were added, in two to four bytes each.

    Says yes for each of these, and for one in 400 others: which ones differs with the salt.
    """

    def __init__(self, expected: int, salt: int) -> None:
        size = 1 << (16 * max(expected, LEAST) - 1).bit_length()  # bits
        self._mask = size - 1
        self._bits = bytearray(size // 8)
        self._salt = salt.to_bytes(8, "big")

    def add(self, ids: Iterable[bytes]) -> None:
        """Remember ids."""
        bits, mask = self._bits, self._mask
        for task_id in ids:
            for word in self._words(task_id):
                place = word & mask
                bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, task_id: bytes) -> bool:
        places = [word & self._mask for word in self._words(task_id)]
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in places)

    def _words(self, task_id: bytes) -> tuple[int, ...]:
        return struct.unpack("<4I", hashlib.blake2b(task_id, digest_size=16, salt=self._salt).digest())


@dataclass(frozen=True, slots=True)
class Place:
    """What was read of one queue: its nodes, and the ids in its list and inboxes."""

    nodes: set[bytes]
    listed: Filter

    def owns(self, claim: bytes | None) -> bool:
        """Is this entry of `claims` that of a node which is known?"""
        return claim is not None and not is_mark(claim) and claim.rpartition(b" ")[0] in self.nodes


def is_mark(claim: bytes) -> bool:
    """Does this entry of `claims` say where an id in the queue comes from, and not who owns it?"""
    return claim.startswith(b"-")
