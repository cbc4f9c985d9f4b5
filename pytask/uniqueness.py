"""Unique tasks, as their producers make them: who has the lock is pushed, whoever has not gets the first one's id.

The record is written before the lock is taken, and pushed afterwards. So a producer that dies on its way leaves a
lock whose owner has no record, or one that was never pushed: the next producer takes over, or pushes it. Nodes ask
the lock again when a task begins, and what they say counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytask import states
from pytask.store.limits import Glance
from pytask.store.queues import NewRecord
from pytask.store.store import Store

UNPUSHED = 5.0  # seconds after which a record without a state was never pushed: its producer died
MOST_TAKEOVERS = 3


class Locked(NamedTuple):
    """A record that is to be made where it gets the lock with this label."""

    record: NewRecord
    label: str


def is_over(glance: Glance | None) -> bool:
    """Is the task of this record gone, or at its end?"""
    return glance is None or glance.state in states.CLOSED_RAW


def was_never_pushed(glance: Glance | None) -> bool:
    """Did its producer die between taking the lock and the push?"""
    if glance is None or glance.state or glance.fence:
        return False
    try:
        return time.time() - float(glance.created) > UNPUSHED
    except ValueError:  # a raw producer's record says nothing, and it has no lock before it was claimed
        return False


def settle(store: Store, rows: Sequence[Locked]) -> tuple[dict[bytes, NewRecord], dict[bytes, bytes]]:
    """Take the locks of records that are to be made: those that may be pushed, and for the others the owner's id.

    Both by their ids. Records with new ids are written already, and removed again where they lose.
    """
    write = [row.record for row in rows if row.record.new]
    store.queues.write(write)
    lost = _take(store, rows)
    store.queues.remove([record.id for record in write if record.id in lost])
    won = [row.record for row in rows if row.record.id not in lost]
    return {record.id: record._replace(new=False, written=record.new) for record in won}, lost


def _take(store: Store, rows: Sequence[Locked]) -> dict[bytes, bytes]:
    """Take locks; returns the ids that lost, each with the owner of its lock."""
    lost: dict[bytes, bytes] = {}
    replaced: Mapping[bytes, bytes] = {}
    for _ in range(MOST_TAKEOVERS):
        asked = [(row.label, row.record.id, b"0", replaced.get(row.record.id, b"")) for row in rows]
        refused = []
        for row, owner in zip(rows, store.limits.take_locks(asked), strict=True):
            lost.pop(row.record.id, None)
            if owner is not None:
                lost[row.record.id] = owner
                refused.append((row, owner))
        replaced = _replaceable(store, refused)
        rows = [row for row, _ in refused if row.record.id in replaced]
        if not rows:
            break
    return lost


def _replaceable(store: Store, refused: Sequence[tuple[Locked, bytes]]) -> dict[bytes, bytes]:
    """Those whose lock may be taken from its owner; an owner that was never pushed is pushed instead."""
    owners = [owner for _, owner in refused]
    found = {}
    for (row, owner), glance in zip(refused, store.limits.glance(owners) if owners else [], strict=True):
        if is_over(glance):
            found[row.record.id] = owner
        elif glance is not None and was_never_pushed(glance):
            keys = store.keys
            queue = keys.queue_of_key(keys.queue().key + b":" + glance.queue) or ""
            store.queues.create([NewRecord(owner, (), new=False, written=True)], queue)
    return found
