"""The states of a task and the moves between them: one table, which the docs are checked against.

An absent state means the same as WAIT. STOPPED is not an end: the record stays until somebody restarts
or removes the task.
"""

from __future__ import annotations

WAIT = "WAIT"
SCHEDULED = "SCHEDULED"
RETRY = "RETRY"
RUNNING = "RUNNING"
HELD = "HELD"
STOPPED = "STOPPED"
SUCCESS = "SUCCESS"
ERROR = "ERROR"
EXCEPTION = "EXCEPTION"
TIMEOUT = "TIMEOUT"
EXPIRED = "EXPIRED"
SKIPPED = "SKIPPED"
DISCARDED = "DISCARDED"
LOST = "LOST"

ENDED = frozenset({SUCCESS, ERROR, EXCEPTION, TIMEOUT, EXPIRED, SKIPPED, DISCARDED, LOST})
CLOSED = ENDED | {STOPPED}  # nothing more comes of it by itself
CLOSED_RAW = frozenset(state.encode() for state in CLOSED)  # as records hold them
FAILED = frozenset({ERROR, EXCEPTION, TIMEOUT, EXPIRED, LOST})
PARKED = frozenset({SCHEDULED, RETRY})

# What each state may become. An ended or stopped task becomes WAIT when it is restarted.
MOVES: dict[str, frozenset[str]] = {
    WAIT: frozenset({RUNNING, SCHEDULED, STOPPED, EXPIRED, SKIPPED}),
    SCHEDULED: frozenset({WAIT, RUNNING, STOPPED, EXPIRED, SKIPPED}),
    RETRY: frozenset({WAIT, RUNNING, STOPPED, EXPIRED, SKIPPED}),
    RUNNING: frozenset({WAIT, SCHEDULED, RETRY, STOPPED, *ENDED}),
    HELD: frozenset({WAIT, SKIPPED, STOPPED}),
    STOPPED: frozenset({WAIT}),
    **{state: frozenset({WAIT}) for state in ENDED},
}

# What each state is, in the words of the docs.
MEANINGS = {
    WAIT: "in a queue (an absent state means the same)",
    SCHEDULED: "waits for a time before its first start",
    RETRY: "waits for a time after a failed attempt",
    RUNNING: "claimed by a node, in a greenlet",
    HELD: "a later stage of a workflow, or a fire that is not won yet; in no queue",
    STOPPED: "stopped by request; the record stays",
    SUCCESS: "`start()` returned; `output` is its value as JSON",
    ERROR: "the task raised `Task.Error`, or its input is no good; `output` is the message",
    EXCEPTION: "anything else was raised; `output` is the traceback",
    TIMEOUT: "an attempt took longer than its timeout",
    EXPIRED: "not begun in time",
    SKIPPED: "will not run, for the reason in `output`",
    DISCARDED: "the task asked to be dropped",
    LOST: "its node died while it ran, and it is not started again; `output` says why",
}


def ttl_by_state(result_ttl: float, failure_ttl: float) -> dict[str, float]:
    """How long the record of each ended state lives, in seconds."""
    return {state: failure_ttl if state in FAILED else result_ttl for state in sorted(ENDED)}
