"""Every key and channel of the wire protocol, made here and nowhere else.

Keys are bytes, since ids are bytes. On Redis Cluster the companions of a queue carry the queue's key
as their hash tag, so that one script may touch them together with the queue itself. `KEY_TABLE` says
of each its type, its slot, who writes it and how long it lives; docs/protocol.md is checked against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_KNOWN = 1000  # queues whose keys are kept
MAX_ID = 512  # bytes
CONTROL_SUFFIX = b"-control"
QUEUE_KEY = re.compile(rb"new-task(?::([A-Za-z0-9_.-]{1,64}))?")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One row of the table of keys. `slot` names what the key shares its slot with."""

    pattern: str
    type: str
    slot: str
    writers: str
    lifetime: str
    holds: str


KEY_TABLE = (
    KeyRow(
        "<ns>task-<id>",
        "hash",
        "task",
        "producer, begin, finish, emit, unknown, survive, restart, stop, cleanup, purge",
        "until Cleanup or its producer removes it",
        "the record of a task",
    ),
    KeyRow(
        "{<ns>task-<id>}:events",
        "stream",
        "task",
        "emit, finish, purge",
        "seven days without a new event, or `failure_ttl` where that is longer",
        "what the task emitted and logged, and how its attempts failed; none where the id has a brace",
    ),
    KeyRow(
        "<q>",
        "list",
        "queue",
        "producer, claim, release, park, miss, promote, reap, orphan, nudge, recall, rescue, set_aside, "
        "drop_purged, requeue_dead",
        "while ids wait",
        "ids that wait: LPUSH in turn, RPUSH next",
    ),
    KeyRow(
        "{<q>}:inbox:<node>",
        "list",
        "queue",
        "BLMOVE, claim, reap, orphan",
        "milliseconds",
        "the id that a blocking BLMOVE handed to a node",
    ),
    KeyRow(
        "{<q>}:claims",
        "hash",
        "queue",
        "claim, release, park, miss, promote, reap, renew, hold, nudge, recall, rescue, drop_purged",
        "while ids are claimed",
        "id -> `<node> <fence>`, or the mark `-lost <how>`, `-lost <how> young` or `-back`",
    ),
    KeyRow(
        "{<q>}:of:<node>",
        "hash",
        "queue",
        "claim, release, park, miss, reap, renew, hold, rescue, disown",
        "while the node has claims",
        "id -> `<fence> <lost> <how> <early>`",
    ),
    KeyRow(
        "{<q>}:nodes",
        "hash",
        "queue",
        "join, beat, reap",
        "while nodes serve the queue",
        "node -> heartbeat sequence; while it is reaped `-<node>` in its place",
    ),
    KeyRow(
        "{<q>}:gone",
        "zset",
        "queue",
        "reap",
        "an hour a member",
        "nodes reaped a moment ago; score = epoch seconds",
    ),
    KeyRow(
        "{<q>}:control",
        "hash",
        "queue",
        "note_stop, release, miss",
        "until the claim is released",
        "id -> the fence of a run that was told to stop",
    ),
    KeyRow("{<q>}:fence", "string", "queue", "claim, renew", "for ever, one number", "the last fence given out"),
    KeyRow(
        "{<q>}:again",
        "set",
        "queue",
        "claim, release, park, miss, nudge",
        "until the claim is released",
        "ids that were pushed, or are to come back, while they were claimed",
    ),
    KeyRow(
        "{<q>}:due",
        "zset",
        "queue",
        "park, miss, promote, release, nudge, recall, rescue, set_aside",
        "until due",
        "ids that wait for a time; score = epoch seconds",
    ),
    KeyRow(
        "{<q>}:missing",
        "zset",
        "queue",
        "miss, requeue_dead",
        "an hour a member",
        "ids whose hash has not come yet; score = first seen, epoch seconds",
    ),
    KeyRow(
        "{<q>}:dead",
        "list",
        "queue",
        "release, miss, requeue_dead, helpers",
        "the newest 100,000",
        "ids that could not be worked on at all",
    ),
    KeyRow(
        "{<q>}:ended", "zset", "queue", "release", "the newest `keep_ended`", "ended ids; score = epoch seconds"
    ),
    KeyRow("{<q>}:counts", "hash", "queue", "release", "for ever, a field a state", "ended so far, by state"),
    KeyRow(
        "{<q>}:paused",
        "string",
        "queue",
        "helpers",
        "until the queue is resumed",
        "nothing of the queue starts; epoch seconds when it was paused",
    ),
    KeyRow(
        "{<q>}:purged",
        "list",
        "queue",
        "set_aside, drop_purged",
        "until they are removed",
        "ids that a purge has taken out of the queue",
    ),
    KeyRow(
        "{<q>}:sweep",
        "string",
        "queue",
        "lease",
        "three times `node_timeout`, renewed by its holder",
        "of the default queue alone: who sweeps",
    ),
    KeyRow(
        "<ns>end-task",
        "list",
        "end-task",
        "nodes, take_ended, return_ended",
        "until a consumer takes them",
        "ids that ended: LPUSH by nodes, RPOP by consumers",
    ),
    KeyRow(
        "{<ns>end-task}:of:<node>",
        "list",
        "end-task",
        "Cleanup, take_ended, return_ended",
        "while its Cleanup works on them",
        "ids that the Cleanup of a node has taken",
    ),
    KeyRow(
        "{<ns>end-task}:takers",
        "hash",
        "end-task",
        "Cleanup, return_ended",
        "while Cleanups live",
        "node -> the sequence of its Cleanup",
    ),
    KeyRow(
        "{<ns>end-task}:failed",
        "hash",
        "end-task",
        "Cleanup",
        "until the handler accepts the id",
        "id -> how often its handler failed",
    ),
    KeyRow(
        "{<ns>end-task}:dead",
        "list",
        "end-task",
        "Cleanup",
        "the newest 100,000",
        "ids whose handler kept failing",
    ),
    KeyRow(
        "{<ns>limit-<label>}:held",
        "zset",
        "limit",
        "places",
        "while somebody has a place",
        "`<q> <id>` of each that was let in; score = its fence",
    ),
    KeyRow(
        "{<ns>limit-<label>}:line",
        "zset",
        "limit",
        "places",
        "while somebody waits for a place",
        "`<q> <id>` of each that waits; score = the fence with which it asked first",
    ),
    KeyRow(
        "{<ns>limit-<label>}:meter",
        "string",
        "limit",
        "places",
        "until a rate has recovered",
        "of a rate alone: until when the starts that it gave out would last one by one, in microseconds",
    ),
    KeyRow(
        "<ns>unique-<task>-<digest>",
        "string",
        "own",
        "lock, unlock",
        "until its owner ends",
        "`<fence> <id>` of the one task that waits or runs",
    ),
    KeyRow(
        "<ns>node-<node>",
        "hash",
        "own",
        "node",
        "a time to live, renewed by the node",
        "what a node says of itself",
    ),
)


class QueueKeys:
    """The keys of one queue and its companions; all lie in one slot. `key` is the queue's own."""

    __slots__ = (
        "again",
        "claims",
        "control",
        "counts",
        "dead",
        "due",
        "ended",
        "fence",
        "gone",
        "key",
        "missing",
        "name",
        "nodes",
        "paused",
        "purged",
        "sweep",
        "tag",
    )

    def __init__(self, key: bytes, name: str) -> None:
        self.key = key
        self.name = name
        self.tag = tag = b"{" + key + b"}:"
        self.claims = tag + b"claims"
        self.nodes = tag + b"nodes"
        self.gone = tag + b"gone"
        self.control = tag + b"control"
        self.fence = tag + b"fence"
        self.again = tag + b"again"
        self.due = tag + b"due"
        self.missing = tag + b"missing"
        self.dead = tag + b"dead"
        self.ended = tag + b"ended"
        self.counts = tag + b"counts"
        self.paused = tag + b"paused"
        self.purged = tag + b"purged"
        self.sweep = tag + b"sweep"

    def claims_of(self, node: bytes) -> bytes:
        """The claims of one node, seen from the node."""
        return self.tag + b"of:" + node

    def inbox(self, node: bytes) -> bytes:
        """Where a blocking move hands an id to the node."""
        return self.tag + b"inbox:" + node


class LimitKeys:
    """The keys of one limit; all lie in one slot."""

    __slots__ = ("held", "line", "meter")

    def __init__(self, tag: bytes) -> None:
        self.held = tag + b"held"
        self.line = tag + b"line"
        self.meter = tag + b"meter"


class Keys:
    """The keys of one namespace: `''`, or a name that stands before every key with a colon."""

    __slots__ = (
        "_control",
        "_queues",
        "_task",
        "control_pattern",
        "end",
        "end_dead",
        "end_failed",
        "end_takers",
        "prefix",
    )

    def __init__(self, namespace: str = "") -> None:
        self.prefix = prefix = f"{namespace}:".encode() if namespace else b""
        self._task = prefix + b"task-"
        self._queues: dict[str, QueueKeys] = {}
        self.control_pattern = self._task + b"*" + CONTROL_SUFFIX
        self.end = prefix + b"end-task"
        self.end_takers = self._end_tag() + b"takers"
        self.end_failed = self._end_tag() + b"failed"
        self.end_dead = self._end_tag() + b"dead"

    def _end_tag(self) -> bytes:
        return b"{" + self.end + b"}:"

    def task(self, task_id: bytes) -> bytes:
        """The record of a task; the channel of its events has the same name."""
        return self._task + task_id

    def events(self, task_id: bytes) -> bytes | None:
        """The stream of a task's kept events; None for an id with a brace, whose stream would lie elsewhere."""
        if b"{" in task_id or b"}" in task_id:
            return None
        return b"{" + self._task + task_id + b"}:events"

    def id_of_task(self, key: bytes) -> bytes | None:
        """The id of the task whose record has this key; None for any other key."""
        return key[len(self._task) :] if key.startswith(self._task) else None

    def control(self, task_id: bytes) -> bytes:
        """The channel on which a task is told to stop or reload."""
        return self._task + task_id + CONTROL_SUFFIX

    def id_of_control(self, channel: bytes) -> bytes:
        """The task id of a control channel."""
        return channel[len(self._task) : -len(CONTROL_SUFFIX)]

    def queue(self, name: str = "") -> QueueKeys:
        """The keys of a queue; `''` is the default queue."""
        keys = self._queues.get(name)
        if keys is None:
            key = self.prefix + b"new-task"
            keys = QueueKeys(key + b":" + name.encode() if name else key, name)
            if len(self._queues) < MOST_KNOWN:
                self._queues[name] = keys
        return keys

    def queue_of_key(self, key: bytes) -> str | None:
        """The name of the queue with this key, as a record's field `at` holds it; None where it is no queue's."""
        match = QUEUE_KEY.fullmatch(key.removeprefix(self.prefix)) if key.startswith(self.prefix) else None
        return None if match is None else (match[1] or b"").decode()

    def queue_of_record(self, at: bytes, field: bytes) -> str:
        """The queue that a record ran from, else the one that its field `queue` names, else the default one.

        A record may hold anything: what names no queue is passed over.
        """
        ran_in = self.queue_of_key(at)
        if ran_in is not None:
            return ran_in
        return self.queue_of_key(self.queue().key + b":" + field) or ""

    def node(self, node: bytes) -> bytes:
        """What a node says of itself."""
        return self.prefix + b"node-" + node

    def alive(self, node: bytes) -> bytes:
        """The channel whose only subscriber is the node: its liveness subscription."""
        return self.prefix + b"alive-" + node

    def watches(self, node: bytes) -> bytes:
        """A channel to which the node subscribes as well, where it runs a Monitor."""
        return self.alive(node) + b":monitor"

    def limit(self, label: str) -> LimitKeys:
        """The keys of a limit that nodes share; its label says which."""
        return LimitKeys(b"{" + self.prefix + b"limit-" + label.encode() + b"}:")

    def lock(self, label: str) -> bytes:
        """Who holds the lock of a unique task; the label begins with `unique-`."""
        return self.prefix + label.encode("utf-8", "backslashreplace")

    def end_of(self, node: bytes) -> bytes:
        """The ended ids that the Cleanup of one node has taken."""
        return self._end_tag() + b"of:" + node


def flaw_of_id(task_id: bytes) -> str | None:
    """What is wrong with an id, in words; None for a good one."""
    if not task_id:
        return "an id must not be empty"
    if len(task_id) > MAX_ID:
        return f"an id has at most {MAX_ID} bytes, this one has {len(task_id)}"
    if task_id.endswith(CONTROL_SUFFIX):
        return "an id must not end in '-control': its events would be another task's control channel"
    return None
