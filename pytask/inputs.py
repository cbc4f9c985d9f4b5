"""Inputs: what a task of a workflow sees of the tasks that it waited for. Read when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pytask import states, wire
from pytask.workflow import decode_gate, id_of

if TYPE_CHECKING:
    from pytask.store.store import Store

BATCH = 500  # records a round trip


class Found(NamedTuple):
    """The outputs of those that ended in SUCCESS, why the others did not, and the states of all.

    By name, in the order of the workflow.
    """

    outputs: Mapping[str, Any]
    errors: Mapping[str, str]
    states: Mapping[str, str]


NOTHING = Found({}, {}, {})


class Inputs(Mapping[str, Any]):
    """The outputs of the tasks that a task of a workflow waited for, by name, in the order of the workflow.

    Those are in it that ended in SUCCESS. They are read once, when one is first asked for, and kept. Empty outside
    a workflow, and for its first tasks.
    """

    __slots__ = ("_found", "_read")

    def __init__(self, read: Callable[[], Found]) -> None:
        self._read = read
        self._found: Found | None = None

    @property
    def _all(self) -> Found:
        if self._found is None:
            self._found = self._read()
        return self._found

    @property
    def states(self) -> Mapping[str, str]:
        """How each of them ended, by name, those that are no inputs too."""
        return self._all.states

    @property
    def errors(self) -> Mapping[str, str]:
        """Why each did not end in SUCCESS, by name: the message, or the traceback; empty where nobody said so."""
        return self._all.errors

    def __getitem__(self, name: str) -> Any:
        return self._all.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all.outputs)

    def __len__(self) -> int:
        return len(self._all.outputs)

    def __repr__(self) -> str:
        return f"<inputs {'not read yet' if self._found is None else dict(self)}>"


def given_inputs(outputs: Mapping[str, Any] | None) -> Inputs:
    """Inputs for a task that runs without a workflow, in a test."""
    if not outputs:
        return Inputs(lambda: NOTHING)
    found = Found(dict(outputs), {}, dict.fromkeys(outputs, states.SUCCESS))
    return Inputs(lambda: found)


def inputs_of(store: Callable[[], Store], workflow: bytes, task_id: bytes) -> Inputs:
    """The inputs of a task of this workflow; `b''` for a task of none."""
    if not workflow:
        return given_inputs(None)
    return Inputs(lambda: _read(store(), workflow, wire.id_to_str(task_id[len(workflow) + 1 :])))


def _read(store: Store, workflow: bytes, name: str) -> Found:
    row = store.workflows.get_gate_row(workflow, name)
    names = decode_gate(row).after if row else []
    outputs: dict[str, Any] = {}
    errors: dict[str, str] = {}
    ends: dict[str, str] = {}
    for start in range(0, len(names), BATCH):
        _read_some(store, workflow, names[start : start + BATCH], outputs, errors, ends)
    return Found(outputs, errors, ends)


def _read_some(
    store: Store,
    workflow: bytes,
    names: list[str],
    outputs: dict[str, Any],
    errors: dict[str, str],
    ends: dict[str, str],
) -> None:
    records = store.records.get_each([id_of(workflow, name) for name in names], ("state", "output"))
    noted = store.workflows.get_noted(workflow, names)
    for name, record, known in zip(names, records, noted, strict=True):
        state, output = record or (None, None)
        # the workflow knows how it ended, even where the record is gone, or runs again
        ends[name] = known.state if known else wire.to_str(state or b"")
        as_it_ended = state == ends[name].encode()
        if ends[name] != states.SUCCESS:
            errors[name] = wire.to_str(output or b"") if as_it_ended else ""
        elif as_it_ended:
            outputs[name] = wire.decode_json(output) if output else None
