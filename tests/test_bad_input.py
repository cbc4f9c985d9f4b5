"""Bad input: what all its tests share, the table in docs/bad-input.md against them, and what reaches the log.

Every test names its row of the table with `@row`, and works through `attack`, which pushes innocent tasks
beside the bad ones and checks at the end that they went through, that nothing is left behind, that every node
lives, that no service of a node failed, and that no line of a log was forged.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import HERE, Events, NodeProcess, Server, StartNode, raw_key, wait_until

from pytask.states import ENDED

TABLE = HERE.parent / "docs" / "bad-input.md"
ROWS: dict[str, list[str]] = {}
"""First column of the table -> the names of the tests that show what the row says."""

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ [A-Z]+ +pytask(\.[a-z]+)*: .*")
FURTHER_LINE = "    | "


def row(*texts: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test as the one for these rows of the table."""

    def note(test: Callable[..., None]) -> Callable[..., None]:
        for text in texts:
            ROWS.setdefault(text, []).append(test.__name__)
        return test

    return note


class Attack:
    """Bad input among innocent tasks."""

    def __init__(self, server: Server, events: Events, start_node: StartNode) -> None:
        self.server = server
        self.events = events
        self.start_node = start_node
        self.nodes: list[NodeProcess] = []
        self.innocents: list[str] = []

    @property
    def node(self) -> NodeProcess:
        """The first node."""
        return self.nodes[0]

    def start(self, *options: str, **more: Any) -> NodeProcess:
        """Start a node, as `start_node` does."""
        self.nodes.append(self.start_node(*options, **more))
        return self.nodes[-1]

    def innocent(self) -> str:
        """The id of a new innocent task, written and not pushed yet."""
        task_id = f"innocent-{len(self.innocents)}"
        self.server.redis.hset(raw_key(task_id), mapping={"task": "echo", "data": f'{{"id": "{task_id}"}}'})
        self.innocents.append(task_id)
        return task_id

    def push(self, *ids: str | bytes) -> None:
        """Push the bad ids between two innocent ones, all in one command."""
        self.server.redis.lpush("new-task", self.innocent(), *ids, self.innocent())

    def create(self, task_id: str | bytes, task: str | bytes | None, data: Any = None, **fields: Any) -> None:
        """Write a record, with `data` as JSON unless it is bytes, and push it among innocent tasks."""
        self.write(task_id, task, data, **fields)
        self.push(task_id)

    def write(self, task_id: str | bytes, task: str | bytes | None, data: Any = None, **fields: Any) -> None:
        """Write a record."""
        if data is not None:
            fields["data"] = data if isinstance(data, bytes) else json.dumps(data)
        if task is not None:
            fields["task"] = task
        self.server.redis.hset(raw_key(task_id), mapping=fields)

    def ends(self, task_id: str | bytes, state: str, *texts: str) -> str:
        """Wait for this end; returns the output, which holds the texts and is what the event says."""
        wait_until(lambda: self.server.state(task_id) in (*ENDED, state), f"the end of {task_id!r}")
        output = self.server.field(task_id, "output") or ""
        assert self.server.state(task_id) == state, output
        for text in texts:
            assert text in output, output
        said = self.events.wait_for(task_id, state.lower())["data"]
        assert said == (json.loads(output) if state == "SUCCESS" else output)
        return output

    def control(self, task_id: str | bytes, message: str | bytes) -> None:
        """Publish on a control channel."""
        self.server.redis.publish(raw_key(task_id) + b"-control", message)

    def stop(self, task_id: str) -> None:
        """Tell a task to stop, and wait until it has."""
        self.control(task_id, "stop")
        self.events.wait_for(task_id, "stopped")
        assert self.server.state(task_id) == "STOPPED"

    def wait_for_log(self, *texts: str) -> None:
        """Wait for a line of the first node's log that holds all the texts."""
        wait_until(
            lambda: any(all(text in line for text in texts) for line in self.lines()), f"{texts} in the log"
        )

    def lines(self) -> list[str]:
        """The first node's log."""
        return self.node.text().split("\n")

    def end(self, status: int) -> None:
        """End the first node with SIGTERM, which must have this status, and go on with a new one."""
        self.check_innocents()
        old = self.nodes.pop(0)
        assert old.terminate() == status, old.text()
        check_log(old.text())
        self.start()

    def check_innocents(self) -> None:
        """Every innocent task goes through, new ones too, and every node lives."""
        self.push()
        for task_id in self.innocents:
            self.server.wait_for_state(task_id, "SUCCESS")
            assert json.loads(self.server.field(task_id, "output") or "") == {"id": task_id}
        for node in self.nodes:
            assert node.process.poll() is None, node.text()

    def check(self) -> None:
        """What must be true after every attack."""
        assert self.innocents, "no innocent task was in danger"
        self.check_innocents()
        self.server.wait_until_idle()
        assert not self.server.redis.exists("{new-task}:again")
        for node in self.nodes:
            check_log(node.text())


def check_log(text: str) -> None:
    """No service failed, and every line is one that the formatter wrote."""
    assert "begins again" not in text, text
    for line in text.split("\n")[:-1]:
        assert LOG_LINE.fullmatch(line) or line.startswith(FURTHER_LINE), f"a forged line: {line!r}"
        assert line.replace("\t", " ").isprintable(), f"a line that is not printable: {line!r}"


def guarded(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    """The body of the fixture `attack`."""
    attack = Attack(server, events, start_node)
    yield attack
    attack.check()


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


# The table.


def import_all() -> None:
    """Their tests enter themselves in ROWS; a run of some files alone has not imported the others."""
    for path in HERE.glob("test_bad_input_*.py"):
        importlib.import_module(path.stem)


def test_every_row_of_the_table_has_a_test_and_every_test_a_row():
    import_all()
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    documented = [line.split(" | ")[0].removeprefix("| ").strip() for line in lines[1:]]
    assert len(documented) == len(set(documented))
    assert sorted(documented) == sorted(ROWS)


def test_every_test_that_is_attacked_names_its_row():
    import_all()
    marked = {name for names in ROWS.values() for name in names}
    for path in HERE.glob("test_bad_input*.py"):
        for name, arguments in re.findall(r"^def (test_\w+)\((.*)\):$", path.read_text("utf-8"), re.MULTILINE):
            assert name in marked or "attack" not in arguments, f"{path.name}: {name} has no @row"


# The log.

FORGED = "2026-01-01 00:00:00,000 1 ERROR   pytask.node: forged"
NASTY = f"x\n{FORGED}\r\x1b[31mred\x1b[0m\x00\x85\u2028\u202e"
NASTY_ID = b"id\n" + FORGED.encode() + b"\r\x1b[2J\xff\x00"


@row("newlines, ANSI escapes and other control characters in an id, a task name, an error message")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_cannot_be_forged(attack, form):
    attack.start("--log-format", form, unknown_wait="1")
    attack.write(NASTY_ID, "fail", {"message": NASTY})
    attack.write("raises", "boom", {"message": NASTY})
    attack.write("name", NASTY)
    attack.write("key", "noop", {NASTY: 1})
    attack.write("data", "noop", NASTY.encode())
    attack.write("local", "loop")
    attack.push(NASTY_ID, "raises", "name", "key", "data", "local", NASTY_ID + b"-control")
    attack.events.wait_for("local", "turn")
    attack.control("local", NASTY)
    attack.wait_for_log("control message", "ignored")
    attack.stop("local")
    attack.server.wait_for_state(NASTY_ID, "ERROR")
    attack.server.wait_for_state("raises", "EXCEPTION")
    attack.server.wait_for_state("name", "EXCEPTION")
    attack.server.wait_for_state("key", "ERROR")
    attack.server.wait_for_state("data", "ERROR")
    assert attack.server.field(NASTY_ID, "output") == NASTY
    wait_until(lambda: attack.server.dead() == [NASTY_ID + b"-control"])
    lines = attack.lines()
    for what in ("is on the dead list", "ended as ERROR", "ended as EXCEPTION", "no task is called"):
        told = [line for line in lines if what in line and "forged" in line]
        assert told, f"{what}: nothing in the log"
        assert all("\\n" in line and "\\x1b" in line for line in told), told
    if form == "json":
        check_json_log(attack.node)
        attack.nodes.clear()


def check_json_log(node: NodeProcess) -> None:
    """Every line is one JSON object."""
    assert node.process.poll() is None
    for line in node.text().split("\n")[:-1]:
        assert set(json.loads(line)) >= {"time", "level", "logger", "message"}


@row("an error message of 5 MB")
def test_an_endless_error_message_fills_neither_the_record_nor_the_log(attack):
    attack.start(max_data="20000000")
    attack.create("E", "fail", {"message": "é" * 2_500_000})
    output = attack.ends("E", "ERROR", "characters left out")
    assert len(output) < 17_000
    attack.create("X", "boom", {"message": "x" * 5_000_000})
    output = attack.ends("X", "EXCEPTION", "characters left out")
    assert len(output) < 17_000
    attack.wait_for_log("'E'", "ended as ERROR")
    attack.wait_for_log("'X'", "ended as EXCEPTION")
    assert max(map(len, attack.lines())) < 500
