"""Every key and channel of the wire protocol, made here and nowhere else.

Keys are bytes, since ids are bytes. On Redis Cluster the companions of a queue carry the queue's key
as their hash tag, so that one script may touch them together with the queue itself. What each of them holds, who
writes it and how long it lives stands in `key_table`.
"""

from __future__ import annotations

import re

MOST_KNOWN = 1000  # queues whose keys are kept
MAX_ID = 512  # bytes
CONTROL_SUFFIX = b"-control"
QUEUE_KEY = re.compile(rb"new-task(?::([A-Za-z0-9_.-]{1,64}))?")


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
        "replicas",
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
        self.replicas = tag + b"replicas"
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


class WorkflowKeys:
    """The keys of one workflow; all lie in one slot. `key` is the record's own."""

    __slots__ = ("gates", "key", "open", "ready", "spec", "tasks")

    def __init__(self, key: bytes) -> None:
        self.key = key
        tag = b"{" + key + b"}:"
        self.spec = tag + b"spec"
        self.tasks = tag + b"tasks"
        self.gates = tag + b"gates"
        self.open = tag + b"open"
        self.ready = tag + b"ready"

    @property
    def all(self) -> tuple[bytes, ...]:
        """Each of them."""
        return (self.key, self.spec, self.tasks, self.gates, self.open, self.ready)


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
        "schedules",
        "service_counts",
        "services",
        "services_changed",
        "workflows",
        "workflows_ended",
        "workflows_until",
    )

    def __init__(self, namespace: str = "") -> None:
        self.prefix = prefix = f"{namespace}:".encode() if namespace else b""
        self._task = prefix + b"task-"
        self._queues: dict[str, QueueKeys] = {}
        self.control_pattern = self._task + b"*" + CONTROL_SUFFIX
        self.end = prefix + b"end-task"
        self.schedules = prefix + b"schedules"
        self.services = prefix + b"services"
        self.service_counts = b"{" + self.services + b"}:counts"
        self.services_changed = b"{" + self.services + b"}:changed"
        self.workflows = prefix + b"workflows"
        self.workflows_ended = b"{" + self.workflows + b"}:ended"
        self.workflows_until = b"{" + self.workflows + b"}:until"
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
        if has_brace(task_id):
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

    def schedule(self, name: bytes) -> bytes:
        """What a schedule is, and how far it has come."""
        return self.prefix + b"schedule-" + name

    def workflow(self, workflow: bytes) -> WorkflowKeys:
        """The keys of a workflow, which must not have a brace: they would lie elsewhere."""
        return WorkflowKeys(self.prefix + b"workflow-" + workflow)

    def service(self, service: bytes) -> bytes:
        """The definition of a service."""
        return self.prefix + b"service-" + service

    def service_applied(self, service: bytes) -> bytes:
        """What has been done of the definition of a service, whose name must not have a brace."""
        return b"{" + self.service(service) + b"}:applied"

    def end_of(self, node: bytes) -> bytes:
        """The ended ids that the Cleanup of one node has taken."""
        return self._end_tag() + b"of:" + node


def has_brace(task_id: bytes) -> bool:
    """Would companions of such a key lie in another slot than the key itself?"""
    return b"{" in task_id or b"}" in task_id


def flaw_of_id(task_id: bytes) -> str | None:
    """What is wrong with an id, in words; None for a good one."""
    if not task_id:
        return "an id must not be empty"
    if len(task_id) > MAX_ID:
        return f"an id has at most {MAX_ID} bytes, this one has {len(task_id)}"
    if task_id.endswith(CONTROL_SUFFIX):
        return "an id must not end in '-control': its events would be another task's control channel"
    return None
