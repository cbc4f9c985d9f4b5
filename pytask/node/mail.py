"""Mail: messages for running tasks. Each task takes its own one after the other, in a greenlet of its own.

A message that comes before the task has been made waits for it. What is left when it ends is dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import gevent
from gevent import GreenletExit

from pytask import wire
from pytask.context import current
from pytask.node import outcome as outcomes
from pytask.node.report import Report
from pytask.node.run import BEGIN, RUN, Run
from pytask.task import takes_messages

log = logging.getLogger("pytask.task")

MOST = 1000  # messages that wait for one task


class Mail:
    """The messages of one run."""

    __slots__ = ("_greenlet", "_report", "_run", "_waiting")

    def __init__(self, run: Run, report: Report) -> None:
        self._run = run
        self._report = report
        self._waiting: deque[dict[str, Any]] = deque()
        self._greenlet: gevent.Greenlet | None = None

    def put(self, message: dict[str, Any]) -> None:
        """Take a message."""
        if len(self._waiting) >= MOST:
            log.warning("id %s: %d messages wait for it; one more is dropped", wire.shown(self._run.id), MOST)
            return
        self._waiting.append(message)
        self.begin()

    def begin(self) -> None:
        """Hand messages over, where there is a task to take them."""
        if self._run.task is not None and self._waiting and (self._greenlet is None or self._greenlet.dead):
            self._greenlet = gevent.spawn(self._hand_over)

    def halt(self) -> None:
        """Hand nothing over any more."""
        if self._greenlet is not None and self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)

    def _hand_over(self) -> None:
        current.set(self._run.task._context)
        while self._waiting and self._run.phase == RUN:
            self._call(self._waiting.popleft())

    def _call(self, message: dict[str, Any]) -> None:
        task = self._run.task
        if not takes_messages(type(task)):
            self._fail(f"task {type(task).NAME} takes no messages: define on_message(self, message)")
            return
        try:
            task.on_message(message)
        except GreenletExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            self._fail(f"on_message() raised {type(error).__name__} {outcomes.text_of(error)}")

    def _fail(self, text: str) -> None:
        log.warning("id %s: %s", wire.shown(self._run.id), wire.shown(text, 300))
        words = wire.encode_json(outcomes.tellable(text))
        self._report.emit(self._run, wire.encode_event("message-failed", words), "keep")


def deliver(run: Run, raw: bytes, report: Report, most: int) -> None:
    """Give a message, of at most so many bytes, to a run. One that is no JSON object is told of in the log."""
    try:
        if len(raw) > most:
            raise wire.WireError(f"has {len(raw)} bytes; the limit (max_data) is {most}")
        message = wire.decode_object(raw)
    except wire.WireError as error:
        log.warning("id %s: a message for it %s: ignored", wire.shown(run.id), wire.shown(str(error), 200))
        return
    if run.phase in (BEGIN, RUN):
        if run.mail is None:
            run.has_more = True
            run.mail = Mail(run, report)
        run.mail.put(message)
