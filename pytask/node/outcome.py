"""What became of a run: an explicit outcome, judged from what was returned or raised. Pure."""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

from greenlet import GreenletExit  # gevent's own; so it is there without gevent

from pytask import states, wire
from pytask.task import Leave, Task

MOST_TEXT = 16_384  # characters of a message or traceback that a record keeps
RELOAD = "RELOAD"  # a wish, not a state: read the record anew and start again
DROP = "DROP"  # a wish, not a state: end without a finish, give the claim up: the record is not ours any more
ABANDON = "ABANDON"  # a wish, not a state: end without a word: the claim itself is not ours any more


class BadInput(Exception):
    """What the producer wrote cannot be run; the text says why."""


class UnknownName(Exception):
    """This node knows no task of this name."""


EVENT_HEADS = {state: wire.encode_event(state.lower(), b"")[:-1] for state in states.MOVES}


class Outcome(NamedTuple):
    """The state to write, the output as it goes into the record, and the event that tells of it."""

    state: str
    output: bytes
    event: bytes
    error: BaseException | None = None
    due: bytes = b""  # of RETRY: `+` and seconds; of HELD: `stop` where it has obeyed one

    @property
    def size(self) -> int:
        """Bytes that it takes to tell of it."""
        return len(self.output) + len(self.event)


def make_outcome(state: str, output: bytes, data: bytes, error: BaseException | None = None) -> Outcome:
    """An outcome whose event carries `data`, which is JSON already."""
    return Outcome(state, output, EVENT_HEADS[state] + data + b"}", error)


DONE = make_outcome(states.SUCCESS, b"null", b"null")
PUT_BACK = make_outcome(states.WAIT, b"", b"null")
STOPPED = make_outcome(states.STOPPED, b"", b"null")
HELD = make_outcome(states.HELD, b"", b"null")
HELD_TO_STOP = HELD._replace(due=b"stop")  # a stop has been obeyed

CUT_SHORT_TEXT = "its node ended while it ran, and it may start only once (rescheduling is false)"
CUT_SHORT = make_outcome(states.LOST, CUT_SHORT_TEXT.encode(), wire.encode_json(CUT_SHORT_TEXT))


def success(value: Any, limit: int) -> Outcome:
    """The task returned. Raises WireError where the value cannot be an output."""
    if value is None:
        return DONE
    try:
        encoded = wire.encode_json(value, limit)
    except wire.WireError as error:
        raise wire.WireError(f"what start() returned {error}") from error
    return make_outcome(states.SUCCESS, encoded, encoded)


def judge(error: BaseException) -> Outcome:
    """The outcome of a task that raised."""
    if isinstance(error, Leave):
        return STOPPED if error.state == states.STOPPED else HELD_TO_STOP if error.stops else HELD
    if isinstance(error, Task.Error | BadInput | Task.Retry):
        return failure(states.ERROR, text_of(error), error)
    if isinstance(error, Task.Discard):
        return failure(states.DISCARDED, text_of(error))
    return failure(states.EXCEPTION, traceback_of(error), error)


def timed_out(seconds: float, note: str = "") -> Outcome:
    """The attempt took too long."""
    text = f"the attempt took longer than its timeout of {seconds:g} s{note}"
    return failure(states.TIMEOUT, text, TimeoutError(text))


def retry(failed: Outcome, attempt: int, seconds: float) -> Outcome:
    """The attempt failed (or it is a replica of a service that has ended); another follows in so many seconds."""
    words = None if failed.state == states.SUCCESS else failed.output.decode("utf-8", "backslashreplace")
    told = {"attempt": attempt, "state": failed.state, "error": words, "delay": round(seconds, 3)}
    event = wire.encode_event("retry", wire.encode_json(told))
    return Outcome(states.RETRY, failed.output, event, failed.error, b"+%.6f" % seconds)


def failure(state: str, text: str, error: BaseException | None = None) -> Outcome:
    """An end whose output is words."""
    text = tellable(text)
    return make_outcome(state, text.encode(), wire.encode_json(text), error)


def text_of(error: BaseException) -> str:
    """The error's message; an error that cannot say its own is named."""
    try:
        return str(error) or type(error).__name__
    except GreenletExit:
        raise
    except BaseException:  # noqa: BLE001 - __str__ is user code
        return f"{type(error).__name__} (its message cannot be shown)"


def traceback_of(error: BaseException) -> str:
    """The traceback from the task's own code on, ending in the message."""
    lines = []
    if isinstance(error, SystemExit | KeyboardInterrupt | GreenletExit):
        lines.append(f"{type(error).__name__} was raised inside the task; the node goes on\n")
    try:
        lines += traceback.format_exception(type(error), error, _from_the_task(error))
    except GreenletExit:
        raise
    except BaseException:  # noqa: BLE001 - __str__ of an error is user code
        lines.append(f"{type(error).__name__}: {text_of(error)}")
    return "".join(lines).rstrip()


def _from_the_task(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("pytask.node."):
        frame = frame.tb_next
    return frame or error.__traceback__


def tellable(text: str) -> str:
    """The text as a record and an event can hold it: shortened, and what UTF-8 cannot hold escaped."""
    return shortened(text).encode("utf-8", "backslashreplace").decode()


def shortened(text: str) -> str:
    """At most MOST_TEXT characters: the head and the tail of a longer text."""
    if len(text) <= MOST_TEXT:
        return text
    half = MOST_TEXT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
