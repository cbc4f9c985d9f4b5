"""AioTaskHandle: the id of a task that an asyncio program has started, as text that can do something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from pytask.collection import End, output_of

if TYPE_CHECKING:
    from pytask.aio import AioTasks
    from pytask.story import TaskEvent


class AioTaskHandle(str):
    """A task's id, and a way to the task whose methods are awaited: what `task_app.aio.start_task` returns.

    It is a `str` in every respect. A copy that was pickled is the text alone.
    """

    __slots__ = ("_aio", "end")

    _aio: AioTasks
    end: End | None
    """How the task ended, where `as_completed` gave this handle out."""

    def __new__(cls, task_id: str, aio: AioTasks, end: End | None = None) -> AioTaskHandle:
        """A handle that acts through `aio`."""
        handle = str.__new__(cls, task_id)
        handle._aio = aio
        handle.end = end
        return handle

    def __repr__(self) -> str:
        return f"AioTaskHandle({super().__repr__()})"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    def __copy__(self) -> AioTaskHandle:
        return self

    def __deepcopy__(self, _memo: object) -> AioTaskHandle:
        return self

    async def get(self, timeout: float | None = None) -> Any:
        """What the task returned; waits until it has ended, for `timeout` seconds at most.

        Raises TaskFailed, TaskTimeout, TaskGone.
        """
        return output_of(self.end) if self.end is not None else await self._aio.get(self, timeout)

    async def state(self) -> str | None:
        """Its state now; None where there is no record."""
        return await self._aio.state(self)

    async def record(self) -> dict[str, str] | None:
        """Its record; None where there is none."""
        return await self._aio.record(self)

    async def progress(self) -> Any:
        """The newest progress that it has told; None where there is none."""
        return await self._aio.progress(self)

    def events(self, *, replay: bool = True, timeout: float | None = None) -> AsyncIterator[TaskEvent]:
        """Its events until it has ended: `async for event in handle.events()`."""
        return self._aio.events(self, replay=replay, timeout=timeout)

    async def send(self, message: Mapping[str, Any]) -> int:
        """Send it a message while it runs."""
        return await self._aio.send(self, message)

    async def stop(self) -> bool:
        """Stop it, whether it runs or waits; False where it has ended."""
        return await self._aio.stop(self)

    async def reload(self) -> None:
        """Let it read its record anew and start again, on its node."""
        await self._aio.reload(self)

    async def restart(self) -> None:
        """Let it run again; one that runs now does so after its end."""
        await self._aio.restart(self)
