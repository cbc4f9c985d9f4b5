"""Workflows as data: what a spec says, checked, and the plan that is made of it. Pure.

A spec is the data of a task `pytask/workflow`: tasks in stages, or tasks that say for whom they wait. A plan names
the record of each task, and the gates between them: what waits for the same tasks waits at the same gate, so that
10,000 tasks that wait for 10,000 others cost 20,000 steps. How a spec is put together in Python stands in
`composing`; how one is run, in `tasks.workflow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from pytask import wire
from pytask.checks import check_boolean
from pytask.errors import InvalidInputError, SettingError
from pytask.joins import Join, feeds_of, joins_of, numbers_of
from pytask.keys import CONTROL_SUFFIX, MAX_ID, flaw_of_id
from pytask.names import TASK_NAME, shown
from pytask.options import OPTIONS, suggestion, write_options

NAME = "pytask/workflow"  # of the task that steers a workflow
MOST_TASKS = 100_000

ON_SUCCESS, ON_FAILURE, ALWAYS = "on_success", "on_failure", "always"
WHEN = (ON_SUCCESS, ON_FAILURE, ALWAYS)
LIST, ONE = "list", "one"
RETURNS = (LIST, ONE)

KEYS_OF_SPEC = ("title", "stages", "tasks", "returns")
OWN_KEYS = ("task", "data", "name", "when", "allow_failure", "after")
KEYS_OF_ENTRY = (*OWN_KEYS, *OPTIONS)

_ENTRY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class PlanTask(NamedTuple):
    """A task of a workflow: its id is `<workflow>:<name>`.

    `words` are the fields of its record, field, value, field ..., without `state`, `workflow` and `created`;
    `gate` is the number of the gate that it waits at, -1 for none; `feeds` are those that wait for it.
    """

    name: str
    task: str
    words: list[Any]
    queue: str  # '' is the default queue
    when: str
    allow_failure: bool
    gate: int
    feeds: tuple[int, ...]


class Gate(NamedTuple):
    """What opens once `needs` tasks, those named in `after`, have ended; `tasks` wait at it. In order."""

    needs: int
    after: list[str]
    tasks: list[str]


class Plan(NamedTuple):
    """What a spec comes to. `returns`: `list`, or `one` where the output is that of the only last task."""

    title: str
    returns: str
    tasks: list[PlanTask]
    gates: list[Gate]


def plan_of(spec: object) -> Plan:
    """The plan of a spec, as JSON gives it. Raises InvalidInputError, which says what is wrong and where."""
    given = _check_spec(spec)
    title = OPTIONS["title"].check(given.get("title") or "")
    returns = _choice("returns", given.get("returns"), RETURNS)
    stages = given.get("stages")
    tasks, joins = _of_list(given["tasks"]) if stages is None else _of_stages(stages)
    plan = _joined(title, returns, tasks, joins)
    if returns == ONE and len(sinks(plan)) != 1:
        raise InvalidInputError(f"returns 'one' needs one last task; this workflow has {len(sinks(plan))}")
    return plan


def sinks(plan: Plan) -> list[int]:
    """The numbers of the tasks for which nobody waits, in order: their outputs are those of the workflow."""
    return [number for number, task in enumerate(plan.tasks) if not task.feeds]


def names_of(spec: Mapping[str, Any]) -> list[str]:
    """The names of the tasks of a good spec, in order. Raises InvalidInputError for what is none."""
    try:
        stages = spec["stages"] if spec.get("stages") is not None else [spec["tasks"]]
        entries = [entry for stage in stages for entry in stage]
        return [
            str(number if entry.get("name") is None else entry["name"]) for number, entry in enumerate(entries)
        ]
    except (KeyError, TypeError, AttributeError):
        raise InvalidInputError("this is no spec of a workflow") from None


def id_of(workflow: bytes, name: str) -> bytes:
    """The id of a task of a workflow."""
    return workflow + b":" + name.encode()


def check_ids(plan: Plan, workflow: bytes) -> None:
    """Raises InvalidInputError where the ids of the tasks would be too long behind this id of the workflow."""
    longest = id_of(workflow, max((task.name for task in plan.tasks), key=len))
    if flaw_of_id(longest):
        raise InvalidInputError(
            f"the id of a workflow and the names of its tasks have at most {MAX_ID} bytes together:"
            f" {wire.shown(longest)} has {len(longest)}"
        )


# The spec.


def _check_spec(spec: object) -> Mapping[str, Any]:
    if not isinstance(spec, Mapping):
        raise InvalidInputError(f"a workflow is an object with stages or tasks, not {shown(spec)}")
    _refuse_unknown("a workflow", spec, KEYS_OF_SPEC)
    if (spec.get("stages") is None) == (spec.get("tasks") is None):
        raise InvalidInputError("a workflow has stages, or tasks; one of the two")
    return spec


def _refuse_unknown(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            names = ", ".join(sorted(known))
            raise InvalidInputError(f"{what} has no key {shown(key)}{suggestion(key, known)}; it has {names}")


def _choice(what: str, value: object, allowed: Sequence[str]) -> str:
    """One of these words; the first for None."""
    if value is None:
        return allowed[0]
    for word in allowed:
        if word == value:
            return word
    raise InvalidInputError(f"{what} is {', '.join(allowed[:-1])} or {allowed[-1]}, not {shown(value)}")


def _listed(what: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidInputError(f"{what} is a list, not {shown(value)}")
    if not value:
        raise InvalidInputError(f"{what} is empty")
    return value


def _refuse_too_many(count: int) -> None:
    if count > MOST_TASKS:
        raise InvalidInputError(f"a workflow has at most {MOST_TASKS} tasks, this one has {count}")


def _of_stages(stages: object) -> tuple[list[PlanTask], list[Join]]:
    """The tasks of stages; each stage waits for the whole one before it."""
    rows = [_listed(f"stage {number}", stage) for number, stage in enumerate(_listed("stages", stages))]
    _refuse_too_many(sum(map(len, rows)))
    tasks: list[PlanTask] = []
    places = []
    for row in rows:
        places.append(range(len(tasks), len(tasks) + len(row)))
        tasks += [_read_entry(number, entry, True) for number, entry in zip(places[-1], row, strict=True)]
    numbers_of([task.name for task in tasks])
    return tasks, [Join(*pair) for pair in pairwise(places)]


def _of_list(entries: object) -> tuple[list[PlanTask], list[Join]]:
    """The tasks of a list, whose `after` names those that each waits for."""
    rows = _listed("tasks", entries)
    _refuse_too_many(len(rows))
    tasks = [_read_entry(number, entry, False) for number, entry in enumerate(rows)]
    afters = [_after_of(task.name, row.get("after")) for task, row in zip(tasks, rows, strict=True)]
    return tasks, joins_of([task.name for task in tasks], afters)


# One entry.


def _read_entry(number: int, entry: object, in_stage: bool) -> PlanTask:
    if not isinstance(entry, Mapping):
        raise InvalidInputError(f"task {number} of the workflow is an object, not {shown(entry)}")
    name = str(number)
    try:
        name = _name_of(number, entry.get("name"))
        return _checked_entry(name, entry, in_stage)
    except InvalidInputError as error:
        raise InvalidInputError(f"task {name} of the workflow: {error}") from None


def _checked_entry(name: str, entry: Mapping[str, Any], in_stage: bool) -> PlanTask:
    _refuse_unknown("a task", entry, KEYS_OF_ENTRY)
    if in_stage and entry.get("after") is not None:
        raise InvalidInputError("a task in a stage has no after: it waits for the stage before it")
    task = _task_of(entry)
    queue = "" if entry.get("queue") is None else OPTIONS["queue"].check(entry["queue"])
    when = _choice("when", entry.get("when"), WHEN)
    return PlanTask(name, task, _words_of(task, entry, queue), queue, when, _may_fail(entry), -1, ())


def _name_of(number: int, name: object) -> str:
    if name is None:
        return str(number)
    if not isinstance(name, str) or not _ENTRY_NAME.fullmatch(name):
        raise InvalidInputError(f"its name is 1 to 64 characters of A-Z a-z 0-9 _ . -, not {shown(name)}")
    if name.endswith(CONTROL_SUFFIX.decode()):
        raise InvalidInputError(f"its name must not end in '-control', as no id of a task may: {shown(name)}")
    return name


def _task_of(entry: Mapping[str, Any]) -> str:
    task = entry.get("task")
    if task is None:
        raise InvalidInputError("it needs the key 'task': the NAME of a task")
    if not isinstance(task, str) or not TASK_NAME.fullmatch(task):
        raise InvalidInputError(f"task is a name, 1 to 200 characters of A-Z a-z 0-9 _ . / : -, not {shown(task)}")
    return task


def _may_fail(entry: Mapping[str, Any]) -> bool:
    value = entry.get("allow_failure")
    try:
        return value is not None and check_boolean(value)
    except SettingError as error:
        raise InvalidInputError(f"allow_failure: {error}") from None


def _words_of(task: str, entry: Mapping[str, Any], queue: str) -> list[Any]:
    data = entry.get("data")
    words: list[Any] = ["task", task, "data", b"{}" if data is None else _json_of(data)]
    options = {name: value for name, value in entry.items() if name not in OWN_KEYS and name != "queue"}
    if options:
        words += write_options(options)
    if queue:
        words += ("queue", queue)
    return words


def _json_of(data: object) -> bytes:
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"data is an object, not {shown(data)}")
    try:
        return wire.encode_json(dict(data))
    except wire.WireError as error:
        raise InvalidInputError(f"data {error}") from None


def _after_of(name: str, after: object) -> list[str]:
    """The names that an `after` holds: a list of them, or one; a number stands for its text."""
    if after is None:
        return []
    listed = after if isinstance(after, list | tuple) else [after]
    for item in listed:
        if not isinstance(item, str) and not (type(item) is int and 0 <= item < MOST_TASKS):
            raise InvalidInputError(f"task {name} of the workflow: after holds names of tasks, not {shown(item)}")
    return [str(item) for item in listed]


def _joined(title: str, returns: str, tasks: Sequence[PlanTask], joins: Sequence[Join]) -> Plan:
    feeds = feeds_of(len(tasks), joins)
    gate_of = {number: gate for gate, join in enumerate(joins) for number in join.tasks}
    made = [
        task._replace(gate=gate_of.get(number, -1), feeds=tuple(feeds[number]))
        for number, task in enumerate(tasks)
    ]
    return Plan(title, returns, made, [_gate(tasks, join) for join in joins])


def _gate(tasks: Sequence[PlanTask], join: Join) -> Gate:
    after = [tasks[number].name for number in join.after]
    return Gate(len(after), after, [tasks[number].name for number in join.tasks])


# Gates as they are stored.


def encode_gate(gate: Gate) -> bytes:
    """A gate as one JSON text, in which `[3, 12]` stands for the names `3` to `12`."""
    return wire.encode_json({"needs": gate.needs, "after": _runs(gate.after), "tasks": _runs(gate.tasks)})


def decode_gate(raw: bytes) -> Gate:
    """The gate of such a text. Raises WireError for any other."""
    try:
        value = wire.decode_object(raw)
        return Gate(int(value["needs"]), list(_names(value["after"])), list(_names(value["tasks"])))
    except (KeyError, TypeError, ValueError) as error:
        raise wire.WireError(f"a gate cannot be read: {wire.shown(raw)}") from error


def _runs(names: Iterable[str]) -> list[Any]:
    """Names, of which numbers that follow each other are one pair."""
    runs: list[Any] = []
    for name in names:
        if not _NUMBER.fullmatch(name):
            runs.append(name)
        elif runs and isinstance(runs[-1], list) and runs[-1][1] + 1 == int(name):
            runs[-1][1] += 1
        else:
            runs.append([int(name), int(name)])
    return runs


def _names(runs: Iterable[Any]) -> Iterator[str]:
    for run in runs:
        if isinstance(run, str):
            yield run
        else:
            first, last = run
            if last - first >= MOST_TASKS:
                raise ValueError(f"more than {MOST_TASKS} names")
            yield from map(str, range(first, last + 1))
