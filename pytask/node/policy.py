"""Policy: how long an attempt may take, and whether a failed one is followed by another.

A class says it with attributes, a record with fields, which go before them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from gevent import GreenletExit

from pytask import retry, states, wire
from pytask.errors import InvalidInputError
from pytask.node import outcome as outcomes
from pytask.node.outcome import BadInput, Outcome
from pytask.node.run import Run
from pytask.options import OPTIONS, check_class
from pytask.task import Leave, Task

log = logging.getLogger("pytask.task")

NAMES = ("timeout", "retries", "retry_delay", "retry_on", "no_retry_on")
DELAY = retry.exponential()
RETRIED = frozenset({states.EXCEPTION, states.TIMEOUT})
RESTARTED_ON_FAILURE = frozenset({states.ERROR, states.EXCEPTION, states.TIMEOUT})
RESTARTED = RESTARTED_ON_FAILURE | {states.SUCCESS, states.DISCARDED}


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, further attempts, the delays between them, and the exceptions that are tried again, or are not."""

    timeout: float | None = None
    retries: int | None = None
    retry_delay: retry.Delay = DELAY
    retry_on: frozenset[str] | None = None
    no_retry_on: frozenset[str] = frozenset()


_of_classes: dict[type[Task], Policy] = {}


def policy_of_class(task_class: type[Task]) -> Policy:
    """What the class says."""
    policy = _of_classes.get(task_class)
    if policy is None:
        found = check_class(task_class)
        policy = Policy(**{name: found[name] for name in NAMES if name in found})
        _of_classes[task_class] = policy
    return policy


def policy_of(task_class: type[Task], options: dict[str, bytes] | None) -> Policy:
    """What class and record say. Raises BadInput for a field that is no good, whichever option it is."""
    policy = policy_of_class(task_class)
    if not options:
        return policy
    found = read_fields(options)
    return replace(policy, **{name: found[name] for name in NAMES if name in found})


def read_fields(options: dict[str, bytes]) -> dict[str, Any]:
    """The values of fields, without those that are empty. Raises BadInput."""
    try:
        return {name: OPTIONS[name].read(value) for name, value in options.items() if value}
    except InvalidInputError as error:
        raise BadInput(str(error)) from None


def judge(run: Run, error: BaseException, failed: Outcome | None = None) -> Outcome:
    """The outcome of an attempt that raised, or took too long: its end, or RETRY."""
    failed = outcomes.judge(error) if failed is None else failed
    if isinstance(error, Leave):
        return failed
    try:
        seconds = _seconds_to_the_next(run, error, failed)
    except Task.Discard as discard:
        return outcomes.judge(discard)
    return failed if seconds is None else outcomes.retry(failed, run.attempt, seconds)


def _seconds_to_the_next(run: Run, error: BaseException, failed: Outcome) -> float | None:
    """How long to wait before another attempt; None where there is none."""
    if run.replica is not None:  # its service decides; but the task may have asked for a time
        return error.after if isinstance(error, Task.Retry) else None
    policy: Policy | None = run.policy
    if policy is None or isinstance(error, BadInput):
        return None
    if policy.retries is not None and run.attempt > policy.retries:
        return None
    if isinstance(error, Task.Retry):
        return retry.delay_after(policy.retry_delay, run.attempt) if error.after is None else error.after
    own = type(run.task).get_retry_interval if run.task is not None else Task.get_retry_interval
    if own is not Task.get_retry_interval and failed.state in RETRIED:
        return _ask(run, error)
    if not policy.retries or not _counts(policy, error, failed):
        return None
    return retry.delay_after(policy.retry_delay, run.attempt)


def again(run: Run, outcome: Outcome) -> Outcome:
    """The outcome of a run that has ended; of a replica of a service RETRY where it is to be started again."""
    if run.replica is None or outcome.state not in (RESTARTED_ON_FAILURE if run.replica.on_failure else RESTARTED):
        return outcome
    return outcomes.retry(outcome, run.attempt, run.replica.next_delay())


def _counts(policy: Policy, error: BaseException, failed: Outcome) -> bool:
    """Is this a failure after which the task is tried again?"""
    if failed.state == states.DISCARDED or retry.is_among(type(error), policy.no_retry_on):
        return False
    if policy.retry_on is None:
        return failed.state in RETRIED
    return retry.is_among(type(error), policy.retry_on)


def _ask(run: Run, error: BaseException) -> float | None:
    """The task's own answer. Raises Task.Discard where that is the answer."""
    try:
        seconds = run.task.get_retry_interval(error)
        return None if seconds is None else float(OPTIONS["delay"].check(seconds))
    except (GreenletExit, Task.Discard):
        raise
    except BaseException as problem:  # noqa: BLE001 - the edge of user code
        log.warning(
            "get_retry_interval() of id %s: %s %s; it is not tried again",
            wire.shown(run.id),
            type(problem).__name__,
            wire.shown(outcomes.text_of(problem), 200),
        )
        return None
