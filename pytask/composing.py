"""Composing workflows in Python: classes, functions, names and groups become a spec, which is plain JSON. Pure.

What a spec may say, and what is made of it, stands in `workflow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard

from pytask import workflow
from pytask.errors import InvalidInputError
from pytask.names import queue_label, shown
from pytask.options import OPTIONS, Rate, suggestion
from pytask.params import check_data
from pytask.retry import Exponential
from pytask.task import Task, class_of

Classes = Mapping[str, type[Task]]
NOTHING: Mapping[str, Any] = {}
MOST_WORDS = 500  # characters of an error that gets more words before it

FORMS = "a name, a Task class, a function that is a task, (task, data), step(...), a workflow, or a dict"


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """A task of a workflow, as `step` makes it."""

    task: Any
    data: Any = None
    name: str | None = None
    when: str | None = None
    after: Any = None
    allow_failure: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, Any]:
        """What was given, by key."""
        own = {key: getattr(self, key) for key in workflow.OWN_KEYS}
        return {**{key: value for key, value in own.items() if value is not None}, **self.options}


def step(
    task: Any,
    data: Any = None,
    /,
    *,
    name: str | None = None,
    when: str | None = None,
    after: Any = None,
    allow_failure: bool | None = None,
    **options: Any,
) -> Step:
    """A task of a workflow.

    `task`: a name, a Task class, a function that is a task, or a workflow. `data`: a dict, or an object of the
    class's `Params`. `name`: how the workflow calls it, its number unless given. `when`: `on_success` (the
    default), `on_failure` or `always`. `after`: the tasks that it waits for, each a name or a `step`, where the
    workflow has no stages. With `allow_failure` what comes behind goes on though it failed. The options are those
    of docs/options.md. Raises InvalidInputError for one that is unknown.
    """
    for option in options:
        if option not in OPTIONS:
            raise InvalidInputError(f"there is no option {shown(option)}{suggestion(option)}")
    return Step(task, data, name, when, after, allow_failure, options)


class Workflow:
    """Tasks that belong together: stages, which are lists of tasks, or tasks that say for whom they wait.

    ::

        Workflow([[fetch, fetch], [merge]], title="Nightly")
        Workflow([step("fetch", name="a"), step("merge", after=["a"])])

    It is started with `start_workflow`, or is a task of another workflow. `returns`: `list` (the outputs of the
    last tasks), or `one`.
    """

    def __init__(self, tasks: Iterable[Any], *, title: str | None = None, returns: str | None = None) -> None:
        self.tasks = list(tasks)
        self.title = title
        self.returns = returns

    def __repr__(self) -> str:
        return f"<workflow of {len(self.tasks)}{'' if self.title is None else f', {self.title!r}'}>"


def group(tasks: Iterable[Any], *, title: str | None = None) -> Workflow:
    """Tasks that run beside each other; the output is the list of theirs, in order."""
    return Workflow([list(tasks)], title=title)


def chain(tasks: Iterable[Any], *, title: str | None = None) -> Workflow:
    """Tasks that run one after the other; the output is that of the last."""
    return Workflow([[task] for task in tasks], title=title, returns=workflow.ONE)


def spec_of(
    given: Any, classes: Classes = NOTHING, *, title: str | None = None, returns: str | None = None
) -> dict[str, Any]:
    """The spec of a workflow: of a Workflow, of what one is made of, or of a spec whose tasks are classes.

    `classes`: those that are known, by name, for the check of data. Raises InvalidInputError for what cannot be
    made JSON; what the spec says is checked by `plan_of`.
    """
    spec = _outline(given)
    for key, value in (("title", title), ("returns", returns)):
        if value is not None:
            spec[key] = value
    if isinstance(spec.get("stages"), Sequence):
        spec["stages"] = _stages(spec["stages"], classes)
    if isinstance(spec.get("tasks"), Sequence):
        (spec["tasks"],) = _stages([spec["tasks"]], classes)
    return spec


def _outline(given: Any) -> dict[str, Any]:
    """The spec with its tasks as they were given."""
    if isinstance(given, Mapping):
        return dict(given)
    told: dict[str, Any] = {}
    if isinstance(given, Workflow):
        told = {key: value for key in ("title", "returns") if (value := getattr(given, key)) is not None}
        given = given.tasks
    if isinstance(given, str | bytes | Step | type) or not isinstance(given, Iterable):
        raise InvalidInputError(f"a workflow is a list of stages or of tasks, not {shown(given)}")
    items = list(given)
    staged = [isinstance(item, list) for item in items]
    if any(staged) and not all(staged):
        place = staged.index(False)
        raise InvalidInputError(
            f"where one item is a stage, which is a list, all are: {shown(items[place])} is none"
        )
    return {**told, "stages" if all(staged) else "tasks": items}


def _stages(stages: Sequence[Any], classes: Classes) -> list[Any]:
    """The stages as JSON; numbers go on from one to the next."""
    names = _Names(stages)
    made: list[Any] = []
    number = 0
    for stage in stages:
        if not isinstance(stage, list | tuple):
            made.append(stage)  # refused by the plan
            continue
        made.append([_entry(number + place, item, classes, names) for place, item in enumerate(stage)])
        number += len(stage)
    return made


class _Names:
    """The name of each step that another one may wait for."""

    def __init__(self, stages: Iterable[Any]) -> None:
        items = [item for stage in stages if isinstance(stage, list | tuple) for item in stage]
        self._by_step: dict[int, str | None] = {}
        for number, item in enumerate(items):
            if isinstance(item, Step):
                name = str(number) if item.name is None else item.name
                self._by_step[id(item)] = None if id(item) in self._by_step else name

    def of(self, after: Any) -> Any:
        """An `after` with names in place of steps."""
        if isinstance(after, Step):
            return [self._name(after)]
        if isinstance(after, list | tuple | set | frozenset):
            return [self._name(item) if isinstance(item, Step) else item for item in after]
        return after

    def _name(self, item: Step) -> str:
        name = self._by_step.get(id(item), "")
        if not name:
            what = "twice" if name is None else "not at all"
            raise InvalidInputError(f"after: a step of {_label(item.task)!r} stands {what} in the workflow")
        return name


def _entry(number: int, item: Any, classes: Classes, names: _Names) -> Any:
    """A task of a workflow as JSON."""
    try:
        return _plain(_given(item), classes, names)
    except InvalidInputError as error:
        if len(str(error)) > MOST_WORDS:  # of workflows inside workflows inside workflows
            raise
        raise InvalidInputError(f"task {number} of the workflow: {error}") from error.__cause__


def _given(item: Any) -> dict[str, Any]:
    if isinstance(item, Step):
        return item.as_mapping()
    if isinstance(item, tuple):
        if not 1 <= len(item) <= 2:
            raise InvalidInputError("it is (task,) or (task, data): for more there is step(...)")
        return Step(*item).as_mapping()
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, str | Workflow) or _is_task(class_of(item)):
        return {"task": item}
    raise InvalidInputError(f"it is {FORMS}, not {shown(item)}")


def _plain(given: dict[str, Any], classes: Classes, names: _Names) -> dict[str, Any]:
    task = given.get("task")
    if isinstance(task, Workflow):
        given.update(task=workflow.NAME, data=_nested(task, given.get("data"), classes))
        if task.title is not None:
            given.setdefault("title", task.title)
    elif task is not None:
        _fill_in(given, task, classes)
    if "after" in given:
        given["after"] = names.of(given["after"])
    return {key: _of_option(key, value) if key in OPTIONS else value for key, value in given.items()}


def _nested(task: Workflow, data: Any, classes: Classes) -> dict[str, Any]:
    if data is not None:
        raise InvalidInputError("a workflow inside another has no data")
    try:
        spec = spec_of(task, classes)
    except RecursionError:
        raise InvalidInputError("workflows are nested too deep, or one is inside itself") from None
    workflow.plan_of(spec)
    return spec


def _fill_in(given: dict[str, Any], task: Any, classes: Classes) -> None:
    """Name, checked data and queue of a class or of a name, for which the class may be known."""
    found = classes.get(task) if isinstance(task, str) else class_of(task)
    if not _is_task(found):
        return  # a name that nobody knows here, or what the plan will refuse
    given["task"] = found.NAME
    if not found.local_only:
        data = check_data(found, NOTHING if given.get("data") is None else given["data"])
        given["data"] = dict(data)
    if given.get("queue") is None and isinstance(found.queue, str):
        given["queue"] = found.queue


def _is_task(found: object) -> TypeGuard[type[Task]]:
    return isinstance(found, type) and issubclass(found, Task)


def _label(task: Any) -> str:
    return task if isinstance(task, str) else str(getattr(class_of(task), "NAME", "workflow"))


def _of_option(name: str, value: Any) -> Any:
    """The value of an option as JSON. Raises InvalidInputError."""
    if value is None:
        return None
    checked = OPTIONS[name].check(value)
    if isinstance(checked, Rate):
        return OPTIONS[name].write(checked)
    if isinstance(checked, Exponential):
        return asdict(checked)
    if isinstance(checked, frozenset | tuple):
        return sorted(checked) if isinstance(checked, frozenset) else list(checked)
    return queue_label(checked) if name == "queue" else checked
