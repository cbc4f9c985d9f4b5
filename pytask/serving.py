"""Serving: what helpers do with services: define, read, scale, change, reload and remove them, from any process.

They write what is to be; the nodes bring it about, within a second. No node need live for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pytask import states, wire
from pytask.errors import InvalidInputError, ServiceNotFoundError, StoreRefused
from pytask.params import check_data
from pytask.producing import task_name
from pytask.services import (
    SYSTEM,
    Definition,
    check_name,
    id_of_replica,
    read_definition,
    write_definition,
)
from pytask.store.services import batches, is_wrong_type
from pytask.store.store import Store
from pytask.task import AnyTask, Task, class_of

RUNNING = states.RUNNING
OF_REPLICAS = ("service", "state", "node", "attempt", "backoff", "due")


class Serving:
    """The helpers for services."""

    store: Store
    classes: Mapping[str, type[Task]]
    max_data: int

    def start_service(
        self,
        name: str,
        task: AnyTask,
        replicas: int = 1,
        data: Mapping[str, Any] | None = None,
        restart: str = "always",
        queue: str | None = None,
        **options: Any,
    ) -> bool:
        """Define a service, or define it anew; False where that changes nothing.

        `task` is a name or a class, `restart` is `always` or `on-failure`, the options are those of
        docs/services.md. Raises InvalidInputError.
        """
        fields = service_fields(self.classes, self.max_data, name, task, replicas, data, restart, queue, options)
        return self._define(name, "set", fields)

    def scale_service(self, name: str, replicas: int) -> bool:
        """Let a service have so many replicas; False where it has so many.

        Raises ServiceNotFoundError, InvalidInputError.
        """
        return self._change(name, write_definition({"replicas": replicas}, self.max_data))

    def update_service(self, name: str, /, **changes: Any) -> bool:
        """Change some fields of a definition: `data`, `replicas`, `restart`, `queue`, `task` and options.

        None leaves a field out from now on. Replicas begin anew one after the other, unless their number alone has
        changed. False where nothing changes. Raises ServiceNotFoundError, InvalidInputError.
        """
        if not changes:
            raise InvalidInputError("update_service needs at least one change")
        given = dict(changes)
        if given.get("task") is not None:
            given["task"] = task_name(given["task"])
        if given.get("data") is not None:
            label = given.get("task") or wire.to_str(self._get(name)[0].get(b"task", b""))
            given["data"] = _check_data(self.classes.get(label), given["data"])
        fields = write_definition(given, self.max_data)
        if given.get("task", "") is None:
            raise InvalidInputError("a service needs a task")
        return self._change(name, {**dict.fromkeys(given, ""), **fields})

    def reload_service(self, name: str) -> None:
        """Let all replicas begin anew, one after the other. Raises ServiceNotFoundError."""
        raw = check_name(name).encode()
        self._defined(name, self.store.services.define(raw, "count", {"reload": ""}))
        self.store.services.want_look(raw)

    def remove_service(self, name: str) -> bool:
        """Stop all replicas and remove them and the service; False where there is none. Does not wait for that."""
        raw = name.encode("utf-8", "surrogateescape")
        found = self.store.services.undefine(raw)
        self.store.services.want_look(raw)
        return found

    def _change(self, name: str, fields: Mapping[str, str | bytes]) -> bool:
        return self._define(name, "change", fields)

    def _define(self, name: str, how: str, fields: Mapping[str, str | bytes]) -> bool:
        raw = check_name(name).encode()
        changed = self._defined(name, self.store.services.define(raw, how, fields))
        self.store.services.want_look(raw)  # also where the reply of a first try was lost
        return changed

    def _defined(self, name: str, answer: int) -> bool:
        if answer < 0:
            raise ServiceNotFoundError(f"there is no service {name!r}")
        return bool(answer)

    # Reading.

    def get_service(self, name: str) -> dict[str, Any] | None:
        """How a service stands; None where there is none.

        A dict of `name`, `state`, `wanted`, `running`, `states` (how many replicas are in each), `nodes` (how many
        each runs), `restarts`, `task`, `data`, `restart`, `queue`, `options` and `problem` (what is wrong with the
        definition, or None). The state is `running` (all that are wanted do), `incomplete`, `rolling` (replicas
        begin anew, one after the other), `removing` or `broken`.
        """
        raw = name.encode("utf-8", "surrogateescape")
        try:
            fields, applied = self._get(name)
        except StoreRefused as error:
            if not is_wrong_type(error):
                raise
            return _broken(name, "its key is no hash")
        if not fields and not applied:
            return None
        standing = self._count_replicas(raw, max(_whole(applied.get(b"made")), 0))
        if not fields:
            return {**_nothing(name), **standing, "state": "removing"}
        try:
            definition = read_definition(raw, fields, self.max_data)
        except InvalidInputError as error:
            return {**_broken(name, str(error)), **standing}
        return {**_told(definition), **standing, "state": _state(definition, applied, standing)}

    def list_services(self) -> list[dict[str, Any]]:
        """How every service stands, by name, as `get_service` tells it."""
        names = sorted(wire.id_to_str(raw) for raw in self.store.services.get_names())
        return [found for name in names if (found := self.get_service(name)) is not None]

    def get_replicas(self, name: str) -> list[dict[str, Any]]:
        """The replicas of a service: a dict of `id`, `replica`, `state`, `node`, `restarts` and `due` for each."""
        raw = name.encode("utf-8", "surrogateescape")
        _, applied = self._get(name)
        return [
            {
                "id": wire.id_to_str(task_id),
                "replica": number,
                "state": wire.to_str(state or b"WAIT"),
                "node": wire.to_str(node or b"") if state == RUNNING.encode() else "",
                "restarts": max(_whole(attempt) - 1, 0),
                "due": float(due) if due and state == states.RETRY.encode() else None,
            }
            for number, task_id, (_, state, node, attempt, _, due) in self._iter_replicas(
                raw, _whole(applied.get(b"made"))
            )
        ]

    def _get(self, name: str) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        return self.store.services.get(name.encode("utf-8", "surrogateescape"))

    def _iter_replicas(self, name: bytes, made: int) -> Iterator[tuple[int, bytes, list[bytes | None]]]:
        """Number, id and fields of those that there are."""
        label = wire.id_to_str(name)
        for numbers in batches(range(made)):
            ids = [id_of_replica(label, number) for number in numbers]
            for number, task_id, row in zip(numbers, ids, self._read_each(ids), strict=True):
                if row is not None and row[0] == name:
                    yield number, task_id, row

    def _read_each(self, ids: list[bytes]) -> list[list[bytes | None] | None]:
        """The fields of replicas; None for each that is not there, or is no hash."""
        try:
            return self.store.records.get_each(ids, OF_REPLICAS)
        except StoreRefused as error:
            if not is_wrong_type(error):
                raise
            return [None] if len(ids) == 1 else [row for each in ids for row in self._read_each([each])]

    def _count_replicas(self, name: bytes, made: int) -> dict[str, Any]:
        by_state: Counter[str] = Counter()
        by_node: Counter[str] = Counter()
        restarts = 0
        for _, _, (_, state, node, attempt, *_) in self._iter_replicas(name, made):
            label = wire.to_str(state or b"WAIT")
            by_state[label] += 1
            restarts += max(_whole(attempt) - 1, 0)
            if label == RUNNING:
                by_node[wire.to_str(node or b"")] += 1
        return {
            "running": by_state[RUNNING],
            "states": dict(sorted(by_state.items())),
            "nodes": dict(sorted(by_node.items())),
            "restarts": restarts,
        }


def service_fields(
    classes: Mapping[str, type[Task]],
    max_data: int,
    name: str,
    task: AnyTask,
    replicas: int,
    data: Mapping[str, Any] | None,
    restart: str,
    queue: str | None,
    options: Mapping[str, Any],
) -> dict[str, str | bytes]:
    """The fields of a definition, checked. Raises InvalidInputError."""
    check_name(name)
    label = task_name(task)
    known = classes.get(label) if isinstance(task, str) else class_of(task)
    if queue is None and known is not None and isinstance(known.queue, str):
        queue = known.queue
    data = _check_data(known, {} if data is None else data)
    given = {"task": label, "replicas": replicas, "data": data, "restart": restart, "queue": queue}
    _refuse_twice(given, options)
    return write_definition({**given, **options}, max_data)


def _check_data(known: type[Task] | None, data: Any) -> Any:
    if known is not None and known.local_only:
        raise InvalidInputError(f"the task {known.NAME} runs on nodes by itself: it cannot be a service")
    return data if known is None else check_data(known, data)


def _refuse_twice(given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for name in options:
        if name in given or name in SYSTEM:
            raise InvalidInputError(f"{name} is no option of a service")


def _whole(raw: bytes | None) -> int:
    return int(raw) if raw is not None and len(raw) <= 9 and raw.isdigit() else 0


def _nothing(name: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"name": name, "state": "broken", "wanted": 0, "running": 0, "states": {}, "nodes": {}}
    more = {"restarts": 0, "task": "", "data": None, "restart": "", "queue": "", "options": {}, "problem": None}
    return {**empty, **more}


def _broken(name: str, problem: str) -> dict[str, Any]:
    return {**_nothing(name), "problem": problem}


def _told(definition: Definition) -> dict[str, Any]:
    own = ("task", "data", "restart", "queue")
    return {
        **_nothing(definition.name),
        "wanted": definition.replicas,
        "task": definition.task,
        "data": wire.decode_json(definition.shared["data"]),
        "restart": definition.restart,
        "queue": definition.queue or "default",
        "options": {name: value.decode() for name, value in definition.shared.items() if name not in own},
    }


def _state(definition: Definition, applied: Mapping[bytes, bytes], standing: Mapping[str, Any]) -> str:
    if b"rolling" in applied or applied.get(b"digest", b"").decode() not in ("", definition.digest):
        return "rolling"
    total = sum(standing["states"].values())
    return "running" if standing["running"] == total == definition.replicas else "incomplete"
