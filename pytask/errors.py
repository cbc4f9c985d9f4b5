"""The tree of errors: one root, a subclass for each decision that a caller can take.

::

    PyTaskError
    ├── ConfigurationError      the program or its settings are wrong: mend and start again
    │   ├── SettingError        a setting is unknown, of a wrong type or out of range
    │   ├── TaskDefinitionError a Task class cannot be registered as it is
    │   └── EmbeddedError       the embedded server cannot be started
    ├── InvalidInputError       an argument of a call is no good (id, data, event, message)
    ├── UnknownTaskError        a task name is not registered
    ├── TaskNotFoundError       there is no record for this id
    │   └── TaskGone            ... while its result is waited for: it is not kept any more, or there never was one
    ├── ScheduleNotFoundError   there is no schedule of this name
    ├── ServiceNotFoundError    there is no service of this name
    ├── TaskFailed              the task whose result is wanted ended otherwise than in SUCCESS
    ├── TaskTimeout             it has not ended in time
    ├── TaskStateError          the record's state does not allow what was asked
    ├── StoreError              Redis answered with an error, or not at all
    │   ├── StoreUnavailable    it could not be reached in time: try again later
    │   └── StoreRefused        it refused: wrong password, no permission, wrong type of a key
    └── NodeGone                this node was declared dead; it must come back under a new id

No message holds a password. Nothing here imports anything of pytask.
"""

from __future__ import annotations


class PyTaskError(Exception):
    """Root of every error that pytask raises on purpose."""


class ConfigurationError(PyTaskError):
    """The program or its settings are wrong; trying again does not help."""


class SettingError(ConfigurationError):
    """A setting is unknown, of a wrong type, or out of range. The message names it."""


class TaskDefinitionError(ConfigurationError):
    """A Task class cannot be registered: no NAME, no start, a NAME that is taken."""


class EmbeddedError(ConfigurationError):
    """The embedded server is not installed or cannot be started."""


class InvalidInputError(PyTaskError, ValueError):
    """An argument of a call is no good: an id, data that JSON cannot hold, an event name."""


class UnknownTaskError(PyTaskError, LookupError):
    """A task name is not registered with this app."""


class TaskNotFoundError(PyTaskError, LookupError):
    """There is no record `task-<id>`."""


class TaskGone(TaskNotFoundError):
    """There is no record of a task whose result is wanted: it is not kept any more, or there never was one."""


class ScheduleNotFoundError(PyTaskError, LookupError):
    """There is no schedule of this name."""


class ServiceNotFoundError(PyTaskError, LookupError):
    """There is no service of this name."""


class TaskFailed(PyTaskError):
    """A task whose result is wanted ended otherwise than in SUCCESS, or was stopped.

    `id`, `state` (ERROR, EXCEPTION, TIMEOUT, STOPPED, ...), `output` (the text in its record), `message` (what
    went wrong, in short), `traceback` (None where there is none), `kind` (`task`, or `workflow`).
    """

    def __init__(self, task_id: str, state: str, output: str = "", kind: str = "task") -> None:
        super().__init__(task_id, state, output, kind)
        self.kind = kind
        self.id = task_id
        self.state = state
        self.output = output
        self.traceback = output if output.startswith("Traceback ") else None
        self.message = _last_words(output) if self.traceback else output

    def __str__(self) -> str:
        return f"{self.kind} {self.id!a} ended as {self.state}" + (f": {self.message}" if self.message else "")


def _last_words(traceback: str) -> str:
    """What a traceback says below its last frame: the error and its message."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(("  ", "Traceback "))]
    return "\n".join(lines[frames[-1] + 1 :]) or lines[-1].strip()


class TaskTimeout(PyTaskError, TimeoutError):
    """A task has not ended in the time that its result was waited for. It goes on."""


class TaskStateError(PyTaskError):
    """The record's state does not allow what was asked (restart of a running task, for example)."""


class StoreError(PyTaskError):
    """Redis answered with an error, or not at all."""


class StoreUnavailable(StoreError):
    """Redis could not be reached, or did not answer in time."""


class StoreRefused(StoreError):
    """Redis refused: wrong password, missing permission, or a key of another type."""


class NodeGone(PyTaskError):
    """This node was declared dead by another one; it comes back under a new id. `node` is the old one."""

    def __init__(self, node: bytes) -> None:
        super().__init__(f"node {node.decode()} was declared dead")
        self.node = node
