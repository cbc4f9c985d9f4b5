"""The table of keys: of each its type, its slot, who writes it and how long it lives.

docs/protocol.md is checked against it. The keys themselves are made in `keys`.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        "producer, create, begin, finish, emit, unknown, survive, restart, stop, unhold, skip, cleanup, purge",
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
        "{<q>}:ended", "zset", "queue", "release, note_ended", "the newest `keep_ended`", "ended ids; score = epoch seconds"
    ),
    KeyRow("{<q>}:counts", "hash", "queue", "release, note_ended", "for ever, a field a state", "ended so far, by state"),
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
        "<ns>workflow-<id>",
        "hash",
        "workflow",
        "node, helpers, lay_out, step",
        "as the record of its task",
        "how a workflow stands: `state`, `title`, `total`, `done`, `failed`, and how many ended in each state",
    ),
    KeyRow(
        "{<ns>workflow-<id>}:spec",
        "list",
        "workflow",
        "producer",
        "as the record of its task",
        "the spec of a large workflow, in parts; a small one stands in `data`",
    ),
    KeyRow(
        "{<ns>workflow-<id>}:tasks",
        "hash",
        "workflow",
        "lay_out, step",
        "as the record of its task",
        "name of a task -> state, when, allow_failure, the gate it waits for, the gates that wait for it",
    ),
    KeyRow(
        "{<ns>workflow-<id>}:gates",
        "hash",
        "workflow",
        "lay_out",
        "as the record of its task",
        "number of a gate -> the names that it waits for, and of those that wait for it",
    ),
    KeyRow(
        "{<ns>workflow-<id>}:open",
        "hash",
        "workflow",
        "lay_out, step",
        "as the record of its task",
        "number of a gate -> how many tasks it waits for still, and 1 where something before it has failed",
    ),
    KeyRow(
        "{<ns>workflow-<id>}:ready",
        "list",
        "workflow",
        "step, node",
        "until the tasks of the gate are let go",
        "numbers of gates that have opened",
    ),
    KeyRow(
        "<ns>workflows",
        "zset",
        "workflows",
        "node, helpers",
        "while workflows go on",
        "ids of workflows that have not ended; score = since when",
    ),
    KeyRow(
        "{<ns>workflows}:ended",
        "zset",
        "workflows",
        "node, helpers",
        "as long as their records, the newest 10,000",
        "ids of ended workflows; score = when they are forgotten",
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
