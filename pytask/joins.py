"""What waits for what in a workflow: tasks, by their numbers, and what waits for the same ones together. Pure.

Everything here goes through each task and each edge once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pytask.errors import InvalidInputError
from pytask.names import shown
from pytask.options import suggestion

MOST_EDGES = 1_000_000  # names in all the `after` of a workflow
MOST_SHOWN = 10  # tasks of a circle that are told
MOST_COMPARED = 1000  # names among which the closest one is looked for


class Join(NamedTuple):
    """Tasks that wait for the same ones: the numbers of these, and theirs. In order."""

    after: Sequence[int]
    tasks: Sequence[int]


def numbers_of(names: Sequence[str]) -> dict[str, int]:
    """The number of each task, by its name. Raises InvalidInputError where two have the same."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        first = numbers.setdefault(name, number)
        if first != number:
            raise InvalidInputError(f"the tasks {first} and {number} of the workflow have one name: {name}")
    return numbers


def joins_of(names: Sequence[str], afters: Sequence[Sequence[str]]) -> list[Join]:
    """What waits for the same ones, of tasks that each name those they wait for.

    Raises InvalidInputError for names that are none, for a circle, and for too many names.
    """
    edges = sum(map(len, afters))
    if edges > MOST_EDGES:
        raise InvalidInputError(
            f"a workflow has at most {MOST_EDGES} names in its after, this one has {edges}: stages need none"
        )
    numbers = numbers_of(names)
    found: dict[tuple[int, ...], list[int]] = {}
    for number, after in enumerate(afters):
        if after:
            before = tuple(sorted({_number_of(numbers, names[number], name) for name in after}))
            found.setdefault(before, []).append(number)
    joins = [Join(after, waiting) for after, waiting in found.items()]
    _refuse_circle(names, joins)
    return joins


def _number_of(numbers: Mapping[str, int], name: str, after: str) -> int:
    number = numbers.get(after)
    if number is None:
        known = suggestion(after, numbers) if len(numbers) <= MOST_COMPARED else ""
        raise InvalidInputError(f"task {name} of the workflow: after names no task of it: {shown(after)}{known}")
    if after == name:
        raise InvalidInputError(f"task {name} of the workflow waits for itself")
    return number


def feeds_of(count: int, joins: Iterable[Join]) -> list[list[int]]:
    """The numbers of the joins that wait for each of so many tasks."""
    feeds: list[list[int]] = [[] for _ in range(count)]
    for place, join in enumerate(joins):
        for number in join.after:
            feeds[number].append(place)
    return feeds


def _refuse_circle(names: Sequence[str], joins: Sequence[Join]) -> None:
    """Raises InvalidInputError where tasks wait for each other."""
    feeds = feeds_of(len(names), joins)
    before = {number: join.after for join in joins for number in join.tasks}
    missing = [len(join.after) for join in joins]
    free = [number for number in range(len(names)) if number not in before]
    done = set(free)
    while free:
        for place in feeds[free.pop()]:
            missing[place] -= 1
            if not missing[place]:
                free += joins[place].tasks
                done.update(joins[place].tasks)
    if len(done) < len(names):
        circle = " -> ".join(_circle(before, done, names))
        raise InvalidInputError(f"tasks of the workflow wait for each other, in a circle: {circle}")


def _circle(before: Mapping[int, Sequence[int]], done: set[int], names: Sequence[str]) -> list[str]:
    """The names along a circle in what waits for ever, each waiting for the next; of a long one the beginning."""
    number = next(number for number in range(len(names)) if number not in done)
    path: dict[int, int] = {}  # number -> its place
    while number not in path:
        path[number] = len(path)
        number = next(earlier for earlier in before[number] if earlier not in done)
    circle = list(path)[path[number] :]
    if len(circle) > MOST_SHOWN:
        return [*(names[number] for number in circle[:MOST_SHOWN]), "..."]
    return [names[number] for number in (*circle, number)]
