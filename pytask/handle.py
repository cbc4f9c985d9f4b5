"""TaskHandle: the id of a started task, as text that can do something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytask.collection import End, output_of
from pytask.result import TASK, WORKFLOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytask.story import TaskEvent

Id = str | bytes


class TaskHandle(str):
    """A task's id, which is also a way to the task: what `start_task` and `helpers.handle(id)` return.

    ::

        handle = helpers.start_task("resize", width=100)
        print(handle.get(timeout=30))

    It is a `str` in every respect: as JSON, as a key, in other helpers. A copy that was pickled is the text alone.
    """

    __slots__ = ("_helpers", "end")

    _helpers: Any
    end: End | None
    """How the task ended, where `as_completed` gave this handle out."""

    def __new__(cls, task_id: str, helpers: Any, end: End | None = None) -> TaskHandle:
        """A handle that acts through these helpers."""
        handle = str.__new__(cls, task_id)
        handle._helpers = helpers
        handle.end = end
        return handle

    def __repr__(self) -> str:
        return f"TaskHandle({super().__repr__()})"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    def __copy__(self) -> TaskHandle:
        return self

    def __deepcopy__(self, _memo: object) -> TaskHandle:
        return self

    def get(self, timeout: float | None = None) -> Any:
        """What the task returned; waits until it has ended, for `timeout` seconds at most.

        Raises TaskFailed (with `state`, `message`, `traceback`), TaskTimeout, and TaskGone where its record is not
        kept any more.
        """
        return output_of(self.end) if self.end is not None else self._helpers.get_result(self, timeout)

    def state(self) -> str | None:
        """Its state now; None where there is no record."""
        return self._helpers.get_state(self)  # type: ignore[no-any-return]

    def record(self) -> dict[str, str] | None:
        """Its record, as `get_task` gives it; None where there is none."""
        return self._helpers.get_task(self)  # type: ignore[no-any-return]

    def progress(self) -> Any:
        """The newest progress that it has told; None where there is none."""
        return self._helpers.get_progress(self)

    def events(self, *, replay: bool = True, timeout: float | None = None) -> Iterator[TaskEvent]:
        """Its events until it has ended; see `helpers.follow_task`."""
        return self._helpers.follow_task(self, replay=replay, timeout=timeout)  # type: ignore[no-any-return]

    def send(self, message: Mapping[str, Any]) -> int:
        """Send it a message while it runs; see `helpers.send_to_task`."""
        return self._helpers.send_to_task(self, message)  # type: ignore[no-any-return]

    def stop(self) -> bool:
        """Stop it, whether it runs or waits; False where it has ended. Does not wait for that."""
        return self._helpers.stop_task(self)  # type: ignore[no-any-return]

    def reload(self) -> None:
        """Let it read its record anew and start again, on its node. Does not wait."""
        self._helpers.reload_task(self)

    def restart(self) -> None:
        """Let it run again; one that runs now does so after its end."""
        self._helpers.restart_task(self)


class WorkflowHandle(TaskHandle):
    """A workflow's id, which is also a way to it: what `start_workflow` and `helpers.workflow(id)` return.

    ::

        handle = task_app.start_workflow([[fetch, fetch], [merge]], title="Nightly")
        print(handle.get(timeout=600))

    `get` waits and returns the outputs of its last tasks; `events` are its own, with `progress` as its tasks end.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"WorkflowHandle({str.__repr__(self)})"

    def state(self) -> str | None:
        """WAIT, RUNNING, SUCCESS, ERROR or STOPPED; None where there is no such workflow."""
        return self._helpers.get_workflow_state(self)  # type: ignore[no-any-return]

    def wait(self, timeout: float | None = None) -> str:
        """Wait until it has ended, for `timeout` seconds at most; the state that it ended in.

        Raises TaskTimeout, and TaskGone where it is not kept any more.
        """
        return self._helpers.wait_for_workflow(self, timeout)  # type: ignore[no-any-return]

    def info(self) -> dict[str, Any] | None:
        """How it stands; see `helpers.get_workflow`."""
        return self._helpers.get_workflow(self)  # type: ignore[no-any-return]

    def progress(self) -> dict[str, int] | None:
        """How many of its tasks there are (`total`), have ended (`done`), failed; None before its first step."""
        found = self.info()
        if found is None or found["total"] is None:
            return None
        return {key: found[key] for key in ("done", "total", "failed")}

    def tasks(self, *, page: int = 1, limit: int = 1000) -> list[dict[str, Any]]:
        """A page of its tasks, in order; see `helpers.get_workflow_tasks`."""
        return self._helpers.get_workflow_tasks(self, page=page, limit=limit)  # type: ignore[no-any-return]

    def delete(self, *, force: bool = False) -> bool:
        """Remove it with its tasks; see `helpers.delete_workflow`."""
        return self._helpers.delete_workflow(self, force=force)  # type: ignore[no-any-return]


def kind_of_handle(given: Id) -> str:
    """What an id, or a handle, is said to be by its type."""
    return WORKFLOW if isinstance(given, WorkflowHandle) else TASK
