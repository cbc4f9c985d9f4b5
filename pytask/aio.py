"""Tasks from asyncio: `task_app.aio` makes, controls and awaits them, on redis-py's own asyncio client.

The counterpart of the helpers, with the same options, checks and errors. Tasks themselves run in greenlets on
nodes; nothing here needs gevent or imports it. Each event loop has connections of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from pytask import states, wire
from pytask.aio_following import AioFollower
from pytask.aio_handle import AioTaskHandle
from pytask.aio_waiting import AioWaiting
from pytask.collecting import output_or_error
from pytask.collection import Collection, End, in_order_of_ends, output_of
from pytask.conducting import Conductor
from pytask.errors import PyTaskError, StoreUnavailable, TaskTimeout
from pytask.following import encode_message, read_progress
from pytask.handle import Id
from pytask.helpers import check_states, not_found
from pytask.keys import Keys
from pytask.options import OPTIONS
from pytask.producing import (
    NO_IDS,
    NO_LOCKS,
    Batch,
    Batches,
    Classes,
    NewTask,
    check_front,
    check_one_kind_of_data,
    make_records,
    make_row,
)
from pytask.result import FIELDS, tells_of_end
from pytask.store.aio_client import AioClient
from pytask.store.aio_store import AioStore
from pytask.store.store import Store
from pytask.store.target import Target
from pytask.story import TaskEvent
from pytask.task import AnyTask
from pytask.uniqueness import Locked, settle
from pytask.waiting import LOOK_EVERY, Deadline


class Session:
    """The connections of one event loop."""

    def __init__(self, target: Target, namespace: str, durable: bool) -> None:
        self.client = AioClient(target, durable=durable)
        self.store = AioStore(self.client, Keys(namespace))
        self.waiting = AioWaiting(self.client)

    async def close(self) -> None:
        """Close them; who waits gets StoreUnavailable."""
        await self.waiting.close()
        await self.client.close()


class AioTasks:
    """The tasks of one app, for coroutines: `task_app.aio`.

    ::

        handle = await task_app.aio.start_task("resize", width=100)
        print(await handle.get(timeout=30))

    `await task_app.aio.close()` at the end of the program, or `async with task_app.aio as aio:`.
    Every method raises StoreUnavailable or StoreRefused where Redis cannot be used, and InvalidInputError. One
    that is cancelled leaves nothing behind; what it has sent may have been done.
    """

    def __init__(
        self,
        target: Target,
        namespace: str,
        classes: Classes,
        store: Callable[[], Store],
        *,
        max_data: int,
        queues: Sequence[str] = ("",),
        durable: bool = False,
    ) -> None:
        self._target = target
        self._namespace = namespace
        self._classes = classes
        self._store = store  # that of the helpers
        self._max_data = max_data
        self._queues = tuple(queues)
        self._durable = durable
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Session] = weakref.WeakKeyDictionary()

    @property
    def _session(self) -> Session:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = Session(self._target, self._namespace, self._durable)
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this event loop; they are made anew when used. Safe to repeat."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    # Making tasks.

    async def start_task(
        self,
        task: AnyTask,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: Id | None = None,
        queue: str | None = None,
        front: bool = False,
        **more: Any,
    ) -> AioTaskHandle:
        """Make a task and push it; returns its id, which is also its handle.

        The other keywords are options (see docs/options.md) where they have the name of one, else data, as in
        `helpers.start_task`. Raises InvalidInputError.
        """
        check_front(front)
        options = {name: more.pop(name) for name in list(more) if name in OPTIONS}
        check_one_kind_of_data(data, more)
        given = {name: value for name, value in options.items() if value is not None}
        row = make_row(self._classes, task, more if data is None else data, task_id, given, queue)
        batch = Batch(make_records([row]), [row.queue], {0: row.lock} if row.lock else NO_LOCKS)
        return (await self._create(batch, front))[0]

    async def start_tasks(
        self, tasks: Iterable[NewTask], *, queue: str | None = None, front: bool = False
    ) -> list[AioTaskHandle]:
        """Make many tasks, in batches of 500; returns their handles in order. See `helpers.start_tasks`."""
        check_front(front)
        handles: list[AioTaskHandle] = []
        batches = Batches(self._classes, tasks, queue)
        while batch := batches.take():
            handles += await self._create(batch, front)
        return handles

    async def start_workflow(self, tasks: Any, /, **options: Any) -> AioTaskHandle:
        """Start a workflow; see `helpers.start_workflow`. Its handle is that of its task."""
        starter = Conductor(self._store(), self._queues, self._classes, self._max_data)
        return self.handle(await asyncio.to_thread(lambda: starter.start_workflow(tasks, **options)))

    async def _create(self, batch: Batch, front: bool) -> list[AioTaskHandle]:
        """Write and push a batch; returns the handles, those of others where these have the locks."""
        store, lost = self._session.store, NO_IDS
        ids = [record.id for record in batch.records]
        if batch.locks:  # which are taken as the helpers take them, in a thread
            rows = [Locked(batch.records[number], label) for number, label in batch.locks.items()]
            won, lost = await asyncio.to_thread(lambda: settle(self._store(), rows))
            batch = batch.with_winners(won, lost)
        for name, records in batch.by_queue():
            await store.create(records, name, first=front)
        return [AioTaskHandle(wire.id_to_str(lost.get(task_id, task_id)), self) for task_id in ids]

    def handle(self, task_id: Id) -> AioTaskHandle:
        """The handle of any task. Nothing is sent."""
        return AioTaskHandle(wire.id_to_str(wire.id_to_bytes(task_id)), self)

    # Waiting for results.

    async def get(self, task: Id, timeout: float | None = None) -> Any:
        """What the task returned; waits until it has ended, for `timeout` seconds at most.

        Raises TaskFailed, TaskTimeout, TaskGone.
        """
        async with contextlib.aclosing(self._iter_ends([wire.id_to_bytes(task)], Deadline(timeout))) as coming:
            ends = [end async for _, end in coming]
        return output_of(ends[0])

    async def wait_all(
        self, tasks: Iterable[Id], timeout: float | None = None, *, return_errors: bool = False
    ) -> list[Any]:
        """What the tasks returned, in their order; waits for `timeout` seconds at most.

        The first one that fails ends the wait with its error. With `return_errors` all are waited for, and a
        TaskFailed, TaskGone or TaskTimeout stands in the place of each that has no output.
        """
        deadline, ids, ends = Deadline(timeout), [wire.id_to_bytes(task) for task in tasks], dict[bytes, Any]()
        late: TaskTimeout | None = None
        try:
            async with contextlib.aclosing(self._iter_ends(ids, deadline)) as coming:
                async for task_id, end in coming:
                    ends[task_id] = output_or_error(end)
                    if not return_errors and isinstance(ends[task_id], PyTaskError):
                        raise ends[task_id]
        except TaskTimeout as error:
            if not return_errors:
                raise
            late = error
        return [ends.get(task_id, late) for task_id in ids]

    async def as_completed(
        self, tasks: Iterable[Id], timeout: float | None = None
    ) -> AsyncIterator[AioTaskHandle]:
        """The handles of the tasks in the order of their ends, each once, as they end: `async for handle in ...`.

        `get` of such a handle answers at once, from what it holds. Raises TaskTimeout.
        """
        ids, deadline = [wire.id_to_bytes(task) for task in tasks], Deadline(timeout)
        async with contextlib.aclosing(self._iter_ends(ids, deadline)) as coming:
            async for task_id, end in coming:
                yield AioTaskHandle(wire.id_to_str(task_id), self, end)

    async def _iter_ends(self, ids: list[bytes], deadline: Deadline) -> AsyncGenerator[tuple[bytes, End], None]:
        """The ends (id, end) as they come. Raises TaskTimeout behind those that have come in time."""
        session = self._session
        collection = Collection(session.store.keys, ids)
        ends = await self._read(collection)
        if collection.open and not deadline.is_over:
            async with session.waiting.watch(collection.channels, tells_of_end) as watch:
                for end in ends:
                    yield end
                while collection.open and not deadline.is_over:
                    most = collection.seconds_to_wait(LOOK_EVERY)
                    collection.note(await session.waiting.wait(watch, deadline, most))
                    for end in await self._read(collection, anew=True):
                        yield end
        else:
            for end in ends:
                yield end
        if collection.open:
            raise collection.too_late(deadline.timeout)

    async def _read(self, collection: Collection, *, anew: bool = False) -> list[tuple[bytes, End]]:
        """The ends that records tell. Where they cannot be read: StoreUnavailable, but later if it was `anew`."""
        ends: list[tuple[bytes, End]] = []
        while ids := collection.take_doubtful():
            try:
                ends += collection.judge(ids, await self._session.store.get_each(ids, FIELDS))
            except StoreUnavailable:
                collection.put_back(ids)
                if not ends and not anew:
                    raise
                break
        return in_order_of_ends(ends)

    # Watching one task, and talking to it.

    async def state(self, task: Id) -> str | None:
        """The state of a task; None where there is no record. One that says nothing waits."""
        (row,) = await self._session.store.get_each([wire.id_to_bytes(task)], ("state",))
        return None if row is None else wire.to_str(row[0] or states.WAIT.encode())

    async def record(self, task: Id) -> dict[str, str] | None:
        """The record as a dict of `str`; None where there is none."""
        record = await self._session.store.get(wire.id_to_bytes(task))
        return {wire.to_str(k): wire.to_str(v) for k, v in record.items()} or None

    async def progress(self, task: Id) -> Any:
        """The newest progress that a task has told; None where there is none."""
        return read_progress(await self._session.store.get_field(wire.id_to_bytes(task), "progress"))

    def events(self, task: Id, *, replay: bool = True, timeout: float | None = None) -> AsyncIterator[TaskEvent]:
        """The events of a task until it has ended: those that are kept, then the new ones as they come.

        `replay=False` leaves out what is kept. Raises TaskTimeout after `timeout` seconds, and TaskGone.
        """
        return self._follow(wire.id_to_bytes(task), replay, Deadline(timeout))

    async def _follow(self, raw: bytes, replay: bool, deadline: Deadline) -> AsyncIterator[TaskEvent]:
        session = self._session
        events = AioFollower(session.store, session.waiting, raw, replay, deadline).run()
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def send(self, task: Id, message: Mapping[str, Any]) -> int:
        """Send a message, which becomes a JSON object, to a task that runs; see `helpers.send_to_task`."""
        raw = wire.id_to_bytes(task)
        return await self._session.store.control(raw, encode_message(message, self._max_data))

    # Controlling tasks.

    async def stop(self, task: Id) -> bool:
        """Stop a task, whether it runs or waits: its state becomes STOPPED. Does not wait for that.

        False where it has ended or is stopped already. Raises TaskNotFoundError.
        """
        raw, store = wire.id_to_bytes(task), self._session.store
        answer = await store.stop(raw)
        if answer[0] == b"missing":
            raise not_found(raw)
        if answer[0] == b"ended":
            return False
        state = wire.to_str(answer[1])
        if state == states.STOPPED:  # obeyed already: the reply of the first try was lost
            return True
        queue = store.keys.queue_of_record(answer[2], answer[3])
        if state == states.RUNNING:
            await store.note_stop(queue, raw, answer[4])
        elif state in states.PARKED:
            await store.nudge(queue, raw)
        elif state == states.HELD and answer[4]:  # what steers others: its next run stops them
            await store.push(queue, raw)
        return True

    async def reload(self, task: Id) -> None:
        """Tell a running task to stop, read its record anew and start, on the same node. Does not wait."""
        await self._session.store.control(wire.id_to_bytes(task), "reload")

    async def restart(self, task: Id, states_allowed: str | Sequence[str] | None = None) -> bool:
        """Let a task run again; one that runs now does so after its end.

        With `states_allowed` only where its state is one of these; False where it is another. Raises
        TaskNotFoundError.
        """
        raw, store = wire.id_to_bytes(task), self._session.store
        allowed = () if states_allowed is None else check_states(states_allowed)
        if states_allowed is not None and not allowed:
            return False
        answer = await store.restart(raw, allowed)
        if answer[0] == b"missing":
            raise not_found(raw)
        if answer[0] == b"refused":
            return False
        if answer[0] != b"begun":
            await store.push(store.keys.queue_of_record(answer[2], answer[3]), raw)
        return True
