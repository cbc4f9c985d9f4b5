"""A queue of the user's own in place of Redis: what it must do, one in memory, and what works through it."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from pytask import states, supervision
from pytask.compat.task_framework.messages import (
    ENDED,
    STATUSES,
    MessageNotExist,
    ResultMessage,
    TaskMessage,
    TaskStatus,
    now,
)
from pytask.errors import InvalidInputError, TaskFailed, TaskTimeout, UnknownTaskError
from pytask.node.outcome import judge
from pytask.waiting import Deadline

log = logging.getLogger("pytask.task_framework")

LOOK = 1.0  # seconds that a worker waits for a message before it looks whether it is to end
EXTENSIONS = 3  # of a message that is lent, in the time after which it would be lent to another worker
FIRST_LOOK, LAST_LOOK = 0.01, 0.5  # seconds between two looks at a result
TRIED_AGAIN = frozenset({states.EXCEPTION, states.TIMEOUT})


class Queue(Protocol):
    """What a queue of one's own can do. It may keep messages as their `to_json()`."""

    def enqueue(self, message: TaskMessage) -> Any:
        """Add a message at the end."""

    def dequeue(self, timeout: float) -> TaskMessage | None:
        """Take the first message; None after so many seconds without one."""

    def update_message(self, message_id: str, message: ResultMessage) -> Any:
        """Keep how a task stands, in place of what was kept."""

    def get_message(self, message_id: str) -> ResultMessage | None:
        """What was kept last."""


@runtime_checkable
class LendingQueue(Queue, Protocol):
    """A queue that lends its messages: one whose worker died comes again.

    `dequeue` hands a message out again when `lease` seconds have passed since it handed it out or extended it
    last, unless it was acknowledged. It may set `receipt` of the message, to know it by.
    """

    lease: float

    def extend(self, message: TaskMessage) -> Any:
        """It is still worked on. Called from another thread, three times in each lease."""

    def acknowledge(self, message: TaskMessage) -> Any:
        """It was worked on, and what became of it is kept."""


class InMemoryQueue:
    """A queue in this process, for tests. Safe in threads."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._results: dict[str, str] = {}

    def enqueue(self, message: TaskMessage) -> str:
        """Add a message at the end."""
        self._waiting.put(message.to_json())
        return message.task_id

    def dequeue(self, timeout: float = LOOK) -> TaskMessage | None:
        """Take the first message; None after so many seconds without one."""
        try:
            return TaskMessage.from_json(self._waiting.get(timeout=timeout))
        except queue.Empty:
            return None

    def update_message(self, message_id: str, message: ResultMessage) -> None:
        """Keep how a task stands."""
        self._results[message_id] = message.to_json()

    def get_message(self, message_id: str) -> ResultMessage | None:
        """What was kept last."""
        text = self._results.get(message_id)
        return None if text is None else ResultMessage.from_json(text)


class Custom:
    """What producers do with a queue of one's own; the same methods as RedisTaskQueue has."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.get_message = queue.get_message

    def enqueue(self, message: TaskMessage, **options: Any) -> str:
        """PENDING is told first: a worker may be quick."""
        if options:
            raise InvalidInputError(f"{', '.join(options)}: a queue of your own knows no options of pytask")
        message = replace(message, task_id=message.task_id or secrets.token_hex(16))
        self.queue.update_message(message.task_id, result_of(message))
        self.queue.enqueue(message)
        return message.task_id

    def wait(self, message_id: str, timeout: float | None) -> ResultMessage:
        """How a task stands once it has ended; looks again and again. Raises TaskTimeout, MessageNotExist."""
        deadline, pause = Deadline(timeout), FIRST_LOOK
        while (message := self.get_message(message_id)) is not None:
            if message.status in ENDED:
                return message
            if deadline.is_over:
                raise TaskTimeout(f"task {message_id} has not ended within {timeout:g} s")
            time.sleep(min(pause, deadline.left))
            pause = min(pause * 2, LAST_LOOK)
        raise MessageNotExist(f"there is no message of task {message_id}")

    def cancel(self, message_id: str) -> bool:
        """A worker drops it when its turn comes; False where it runs or has ended."""
        message = self.get_message(message_id)
        if message is None or message.status not in (TaskStatus.PENDING, TaskStatus.RETRY):
            return False
        self.queue.update_message(message_id, replace(message, status=TaskStatus.CANCELLED, completed_at=now()))
        return True


def result_of(message: TaskMessage, **fields: Any) -> ResultMessage:
    """The message that tells how a task stands."""
    return ResultMessage(
        task_id=message.task_id,
        task_name=message.task_name,
        retry_count=message.retry_count,
        created_at=message.created_at,
        **{"status": message.status, **fields},
    )


class Loop:
    """Works through a queue in this process, one message after the other, until SIGTERM, SIGINT or `stop`.

    `run` runs a task, by its name with its params: it returns the result, and raises what the task raises.
    """

    def __init__(
        self, queue: Queue, run: Callable[[str, dict[str, Any]], Any], max_retries: int, worker_id: str
    ) -> None:
        self.queue = queue
        self.run_task = run
        self.max_retries = max_retries
        self.worker_id = worker_id
        self._stopping = threading.Event()
        self._before: dict[int, Any] = {}

    def stop(self) -> None:
        """End after the message that is being worked on."""
        self._stopping.set()

    def _note(self, number: int, _frame: object) -> None:
        self.stop()
        signal.signal(number, self._before[number])  # a second one does what it did before

    def run(self) -> None:
        """Until it is told to end, or the process that looks after this one is gone."""
        parent = supervision.get_parent() if supervision.is_looked_after() else None
        supervision.tell(self.worker_id)
        main = threading.current_thread() is threading.main_thread()
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT) if main}
        try:
            while not self._stopping.is_set() and parent in (None, os.getppid()):
                self._turn()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _turn(self) -> None:
        try:
            message = self.queue.dequeue(timeout=LOOK)
            if message is not None:
                self.work_on(message)
        except Exception:  # the edge of a service: the queue is user code
            log.exception("the queue failed; it is tried again")
            self._stopping.wait(LOOK)

    def work_on(self, message: TaskMessage) -> None:
        """Run a task, tell of it, and put it back where it is to be tried again.

        A message that is lent is acknowledged last, so that one whose worker dies at any point comes again.
        """
        with self._borrowed(message):
            known = self.queue.get_message(message.task_id)
            if known is not None and self._is_over(known):
                return
            if known is not None and self._is_orphan(known):
                message = replace(message, retry_count=max(known.retry_count, message.retry_count) + 1)
                if message.retry_count > self._most_retries(message):
                    self._give_up(message, known)
                    return
            self._run(message)

    def _is_over(self, known: ResultMessage) -> bool:
        """Was it cancelled, or did its worker die between its end and the word of it to the queue?"""
        return known.status is TaskStatus.CANCELLED or (known.status in ENDED and self._lends)

    def _is_orphan(self, known: ResultMessage) -> bool:
        """Did its worker die while it ran? That counts as an attempt."""
        return known.status is TaskStatus.RUNNING and self._lends

    @property
    def _lends(self) -> bool:
        return isinstance(self.queue, LendingQueue)

    def _most_retries(self, message: TaskMessage) -> int:
        return self.max_retries if message.max_retries is None else message.max_retries

    def _give_up(self, message: TaskMessage, known: ResultMessage) -> None:
        error = f"worker {known.worker_id} died while it ran, and its retries are used up"
        log.warning("task %s (%s) fails: %s", message.task_id, message.task_name, error)
        fields = {"worker_id": known.worker_id, "started_at": known.started_at, "completed_at": now()}
        end = result_of(message, status=TaskStatus.FAILED, error=error, **fields)
        self.queue.update_message(message.task_id, end)

    def _run(self, message: TaskMessage) -> None:
        told: dict[str, Any] = {"worker_id": self.worker_id, "started_at": now()}
        self.queue.update_message(message.task_id, result_of(message, status=TaskStatus.RUNNING, **told))
        end = self._attempt(message)
        again = end["status"] is TaskStatus.RETRY
        if again:
            tries = message.retry_count + 1
            message = replace(message, retry_count=tries, status=TaskStatus.RETRY, receipt=None)
        else:
            told["completed_at"] = now()
        self.queue.update_message(message.task_id, result_of(message, **told, **end))
        if again:
            self.queue.enqueue(message)

    @contextmanager
    def _borrowed(self, message: TaskMessage) -> Iterator[None]:
        """Extend the lease of a message that is lent, and acknowledge it behind what is done with it."""
        if not isinstance(self.queue, LendingQueue):
            yield
            return
        done = threading.Event()
        threading.Thread(target=self._extend, args=(self.queue, message, done), daemon=True).start()
        try:
            yield
        finally:
            done.set()
        self.queue.acknowledge(message)

    @staticmethod
    def _extend(queue: LendingQueue, message: TaskMessage, done: threading.Event) -> None:
        while not done.wait(queue.lease / EXTENSIONS):
            try:
                queue.extend(message)
            except Exception:  # the edge of a service: the queue is user code
                log.exception("the lease of task %s was not extended; it is tried again", message.task_id)

    def _attempt(self, message: TaskMessage) -> dict[str, Any]:
        """Status, and result or error."""
        try:
            return {
                "status": TaskStatus.COMPLETED,
                "result": self.run_task(message.task_name, message.params),
            }
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of user code
            outcome = judge(error)
            failure = TaskFailed(message.task_id, outcome.state, outcome.output.decode())
            wrong = isinstance(error, InvalidInputError | UnknownTaskError)
            final = wrong or message.retry_count >= self._most_retries(message)
            again = outcome.state in TRIED_AGAIN and not final
            status = TaskStatus.RETRY if again else STATUSES[outcome.state]
            log.warning(
                "task %s (%s) ended as %s: %s", message.task_id, message.task_name, status, failure.message
            )
            return {"status": status, "error": failure.message, "traceback": failure.traceback}
