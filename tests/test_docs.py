"""The documentation is true: its tables are those of the code, its links lead somewhere, its examples run.

How a page is run: a Python block that begins with `# name.py` belongs to that file, which a node loads; any
other one is executed here. The commands of `redis` blocks are sent; lines behind them are the replies. `events`
blocks are what was published, `log` blocks what the node wrote; "..." in them stands for any text.

`python tests/test_docs.py` writes the tables of keys and of states into the page of the protocol.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import html
import inspect
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import redis
from conftest import ON_ONE_SERVER, Events, NodeProcess, wait_until

from pytask import PyTask, PyTaskHelpers, settings, states
from pytask.cli import COMMANDS, cli
from pytask.cli.orchestrate import orchestrate
from pytask.cli.raw import as_lines
from pytask.cli.worker import worker
from pytask.key_table import KEY_TABLE
from pytask.node.daemon import CLEAN, KILLED, NO_REDIS, USAGE
from pytask.node.heartbeat import BLOCKED_STATUS
from pytask.store.scripts import script, script_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "pytask"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
PROTOCOL, EVENTS = DOCS / "protocol.md", DOCS / "events.md"
README_ADDRESS = "{'host': 'localhost', 'port': 6379}"


# Reading pages.


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [Block(*pair) for pair in found if not languages or pair[0] in languages]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def tables(page: Path) -> dict[str, list[list[str]]]:
    """The rows of a page's tables, as cells, by the table's first line. Tables of equal first lines are joined."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for group in re.findall(r"(?:^\|.*\n?)+", prose(page), re.M):
        head, _, *rows = group.splitlines()
        found[head] += [[cell.strip() for cell in row[1:-1].split("|")] for row in rows]
    return found


def code(cell: str) -> list[str]:
    """The code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def section(page: Path, title: str) -> str:
    """The text below a heading, down to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", page.read_text(), re.M | re.S)
    assert found, title
    return found[1]


def slug(title: str) -> str:
    """The anchor of a heading."""
    words = re.sub(r"[^\w\- ]", "", html.unescape(title).replace("`", "").lower())
    return words.replace(" ", "-")


# Links, commands and names.


def name_of(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_page_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in {slug(title) for title in re.findall(r"^#+ (.*)", other.read_text(), re.M)}, target


def test_the_contents_list_every_page():
    targets = re.findall(r"\]\(([^)#]+\.md)\)", (DOCS / "index.md").read_text())
    linked = {(DOCS / target).resolve() for target in targets}
    assert {page for page in linked if DOCS in page.parents} == set(DOCS.rglob("*.md")) - {DOCS / "index.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_python(page):
    for block in blocks(page, "python"):
        compile(block.text, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_is_one_that_pytask_takes(page):
    for block in blocks(page, "sh", "ini"):
        for line in re.findall(r"(?:^|/)(pytask .*)$", block.text, re.M):
            _, name, *arguments = shlex.split(line, comments=True)
            command = cli.get_command(click.Context(cli), name)
            assert command, line
            command.make_context(name, arguments)  # raises for what it does not take
    for words in map(str.split, re.findall(r"`pytask ([^`]+)`", prose(page))):
        assert words[0] in COMMANDS or words[0] in ("--help", "COMMAND"), words
        if words[0] in COMMANDS:
            command = cli.get_command(click.Context(cli), words[0])
            known = {flag for option in command.params for flag in option.opts} | {"-h", "--help"}
            assert {word for word in words if word.startswith("-")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_and_every_extra_of_a_page_exists(page):
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    extras = set(package["options.extras_require"])
    text = page.read_text()
    assert set(re.findall(r"(?:^|`)make (\w[\w-]*)", text, re.M)) <= targets
    for named in re.findall(r"pip install (?:-e )?'\.\[([\w,]+)\]'", text):
        assert set(named.split(",")) <= extras


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_variable_of_a_page_is_one_that_is_read(page):
    known = {variable for row in settings.SETTINGS.values() for variable in row.variables}
    known |= set(settings._OTHER_VARIABLES)
    named = set(re.findall(r"\bPYTASK_[A-Z_]*[A-Z]\b", page.read_text()))
    assert {name for name in named if not name.startswith("PYTASK_TEST_")} <= known


# The protocol: keys and states.


def key_rows() -> list[str]:
    return [
        f"| `{row.pattern}` | {row.type} | {row.slot} | {row.writers} | {row.lifetime} | {row.holds} |"
        for row in KEY_TABLE
    ]


def state_rows() -> list[str]:
    moves = {state: [to for to in states.MEANINGS if to in states.MOVES[state]] for state in states.MEANINGS}
    return [f"| {state} | {states.MEANINGS[state]} | {', '.join(to)} |" for state, to in moves.items()]


MADE = {
    "| key | type | slot | written by | lives | holds |": key_rows,
    "| state | is | may become |": state_rows,
}


def write_tables() -> None:
    """Put the tables of keys and of states into the page."""
    text = PROTOCOL.read_text()
    for head, rows in MADE.items():
        table = "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows()]) + "\n"
        text = re.sub(rf"^{re.escape(head)}\n(?:\|.*\n)*", lambda _, table=table: table, text, flags=re.M)
    PROTOCOL.write_text(text)


@pytest.mark.parametrize("head", MADE)
def test_the_tables_of_keys_and_states_are_those_of_the_code(head):
    lines = PROTOCOL.read_text().splitlines()
    first = lines.index(head) + 2
    assert lines[first : lines.index("", first)] == MADE[head]()


WRITES = {
    "DEL", "HDEL", "HINCRBY", "HSET", "INCR", "LMOVE", "LPUSH", "LREM", "LTRIM", "PERSIST", "PEXPIRE", "RENAME",
    "RPOP", "RPUSH", "SADD", "SET", "SREM", "XADD", "ZADD", "ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE",
}  # fmt: skip


def legend(name: str) -> list[str]:
    """What a script's header calls its keys, in their order."""
    found = re.search(r"^-- KEYS  (.*)$", script(name).source, re.M)
    assert found, name
    text = re.sub(r", \.\.\..*", "", found[1])
    return [re.sub(r"^\d+ ", "", part) for part in text.split(", ")]


def row_of(key: str) -> str:
    """The pattern in the table of keys of what a header calls a key."""
    if key == "task":
        return "<ns>task-<id>"
    if key in ("events", "{task}:events"):
        return "{<ns>task-<id>}:events"
    if key in ("held", "line", "meter"):
        return "{<ns>limit-<label>}:" + key
    if key == "schedule":
        return "<ns>schedule-<name>"
    if key == "schedules":
        return "<ns>schedules"
    if key == "services":
        return "<ns>services"
    if key == "service":
        return "<ns>service-<name>"
    if key in ("services' counts", "services' changed"):
        return "{<ns>services}:" + key.split()[1]
    if key == "applied":
        return "{<ns>service-<name>}:applied"
    if key == "workflow":
        return "<ns>workflow-<id>"
    if key in ("tasks", "gates", "open", "ready"):
        return "{<ns>workflow-<id>}:" + key
    if key == "unique":
        return "<ns>unique-<task>-<digest>"
    if "end-task" in key:
        return key.replace("end-task", "<ns>end-task")
    return "<q>" if key == "q" else "{<q>}:" + key


# What a script calls keys that come one after the other: the task's, its stream, and in a loop inbox and queue.
NAMED = {"key": (), "stream": ("events",), "list": ("q", "inbox:<node>")}


def changed_by(name: str) -> set[str]:
    """The patterns of the keys that a script changes."""
    source, named = script(name).source, legend(name)
    changed = set()
    source = source.replace("KEYS[i + 1]", "KEYS[2]")  # each key's second one, in a loop
    for command, first, second in re.findall(r"redis\.p?call\('(\w+)', ([\w\[\]]+)(?:, (KEYS\[\d\]))?", source):
        if command not in WRITES:
            continue
        if first in NAMED:
            changed |= {row_of(named[0])} if first == "key" else {row_of(name) for name in NAMED[first]}
        for key in (first, second if command in ("LMOVE", "RENAME") else ""):
            if index := re.fullmatch(r"KEYS\[(\d|i)\]", key):  # i: the first key of each queue, in a loop
                changed.add(row_of(named[int(index[1].replace("i", "1")) - 1]))
    return changed


@pytest.mark.parametrize("row", KEY_TABLE, ids=lambda row: row.pattern)
def test_the_table_of_keys_names_every_script_that_changes_a_key(row):
    told = set(row.writers.split(", "))
    assert {name for name in script_names() if row.pattern in changed_by(name)} == told & set(script_names())


def test_the_page_tells_the_fields_of_a_node(server, start_node):
    node_id = start_node().node_id
    record = wait_until(lambda: server.redis.hgetall(f"node-{node_id}"))
    told = re.search(r"^- `<ns>node-<node>`: `([^`]+)`", PROTOCOL.read_text(), re.M)
    assert told
    assert sorted(told[1].split()) == sorted(name.decode() for name in record)


# The protocol: fields.

IN_TASK_SLOT = [name for name in script_names() if legend(name)[0] == "task"]
FIELDS = {row[0].strip("`"): row for row in tables(PROTOCOL)["| field | written by | removed by | holds |"]}


def calls(name: str, *commands: str) -> str:
    """The arguments of these commands in a script, all together."""
    source = script(name).source
    found = []
    for match in re.finditer(rf"redis\.p?call\('(?:{'|'.join(commands)})'", source):
        end = match.end()
        depth = 1
        while depth:
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        found.append(source[match.end() : end])
    return "\n".join(found)


def fields_in(text: str) -> set[str]:
    return set(re.findall(r"'([a-z_]+)'", text))


@pytest.mark.parametrize("field", FIELDS)
def test_the_page_names_the_scripts_that_write_and_remove_a_field(field):
    _, writers, removers, _ = FIELDS[field]
    assert {name for name in IN_TASK_SLOT if field in fields_in(calls(name, "HSET"))} == set(code(writers))
    assert {name for name in IN_TASK_SLOT if field in fields_in(calls(name, "HDEL"))} == set(code(removers))


@pytest.mark.parametrize("name", IN_TASK_SLOT)
def test_every_field_of_a_script_is_on_the_page(name):
    # what the scripts also write in quotes: values, and a name for no field
    values = {"stop", "none", "false", "restarted"}
    assert fields_in(calls(name, "HSET", "HDEL", "HMGET", "HSTRLEN")) - values <= set(FIELDS)


def test_the_fields_that_helpers_and_nodes_write_are_on_the_page(app, server, start_node):
    app.helpers.start_task("noop", task_id="kept", cleanup=False)
    written = set(app.helpers.get_task("kept"))
    assert written <= set(FIELDS)
    assert {name for name, row in FIELDS.items() if "helpers" in row[1]} == {"created", "limits"}
    assert all("producer" in FIELDS[name][1] for name in written - {"created"})
    local = f"task-pytask/monitor@{start_node().node_id}"
    assert {name.decode() for name in wait_until(lambda: server.redis.hgetall(local))} <= set(FIELDS)


# The protocol: scripts and their answers.


def test_every_script_has_its_paragraph_and_every_paragraph_its_script():
    assert sorted(re.findall(r"^#### (\w+)$", PROTOCOL.read_text(), re.M)) == script_names()


@pytest.mark.parametrize("name", script_names())
def test_the_paragraph_of_a_script_names_its_keys(name):
    told = re.search(r"^Keys: (.*)$", section(PROTOCOL, name), re.M)
    assert told
    assert html.unescape(told[1]).split(", ") == legend(name)


def answers(name: str) -> set[str]:
    """The words with which a script answers, as its lines say."""
    return set(re.findall(r"(?:return |out\[i\] = |verdict = |\{)\{?'([a-z]+)'[,}]", script(name).source))


def test_the_page_lists_every_answer_of_begin():
    told = {code(answer)[0] for _, answer in tables(PROTOCOL)["| the record | answer |"] if "`tail`" not in answer}
    told |= {"tail", "run"}
    assert told == answers("begin")


def test_the_page_says_what_follows_every_answer():
    told = defaultdict(set)
    for answer, of, _ in tables(PROTOCOL)["| answer | of | the node |"]:
        for name in of.split(", "):
            told[name] |= set(code(answer))
    assert told["begin"] == answers("begin")
    assert told["finish"] == answers("finish")
    assert told["unknown"] - {"restarted"} == answers("unknown")
    assert set(told) <= set(script_names())


# The events.

SENT = {
    code(row[0])[0]: row for row in tables(EVENTS)["| event | data | sent when | by | the task's state |"]
}  # fmt: skip
OF_NODES = {code(row[0])[0]: row for row in tables(EVENTS)["| event | data | sent when |"]}


def sent_by_scripts() -> dict[str, set[str]]:
    """The events that are written out in the scripts: name -> scripts."""
    found = defaultdict(set)
    for name in script_names():
        source = script(name).source
        events = set(re.findall(r'"event":"(\w+)"', source))
        if "string.lower(new)" in source:
            events |= {state.lower() for state in re.findall(r"new(?:, why)? = '([A-Z]+)'", source)}
        for event in events:
            found[event].add(name)
    return found


@cache
def python_calls() -> list[tuple[str, ast.expr]]:
    """Every call in the package that has an argument: the function's last name, and that argument."""
    return [
        (getattr(node.func, "attr", getattr(node.func, "id", "")), node.args[0])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and node.args
    ]


@cache
def sent_by_outcomes() -> set[str]:
    """The events that tell of outcomes, which `finish` publishes."""
    return {
        first.attr.lower()
        for name, first in python_calls()
        if name in ("make_outcome", "failure", "Outcome")
        and isinstance(first, ast.Attribute)
        and first.attr in states.MOVES
    }


def sent_by_nodes() -> set[str]:
    """The events that are written out in Python."""
    return {
        first.value
        for name, first in python_calls()
        if name == "encode_event" and isinstance(first, ast.Constant) and isinstance(first.value, str)
    }


def test_every_event_of_the_code_is_on_the_page_and_every_one_of_the_page_in_the_code():
    sent = set(sent_by_scripts()) | sent_by_outcomes() | sent_by_nodes()
    assert sent == set(SENT) | set(OF_NODES)


def test_every_state_has_an_event_of_its_name():
    assert {state.lower() for state in states.MOVES} <= set(SENT)


@pytest.mark.parametrize("event", SENT)
def test_the_page_says_which_script_sends_an_event(event):
    by = sent_by_scripts().get(event, set()) | ({"finish"} if event in sent_by_outcomes() else set())
    if not by:
        by = {"unknown"} if event == "unknown" else {"the node"}
    assert set(SENT[event][3].split(", ")) == by


def test_the_table_of_events_matches_what_a_node_sends(server, start_node, events):
    """One of each: what is in quotes on the page is compared with what arrives."""
    server.redis.hset("{new-task}:claims", "poison", "-lost push young")
    node = start_node("--grace", "0", block_warning="0.3")
    of_nodes = Events(redis.Redis.from_url(server.url), "node-*")
    for task_id, task, data, fields in (
        ("ok", "echo", '{"a": [1]}', {}),
        ("error", "fail", None, {}),
        ("exception", "boom", None, {}),
        ("loop", "loop", None, {}),
        ("long", "sleep", '{"seconds": 600}', {}),
        ("early", "noop", None, {"due": "9999999999"}),
        ("late", "noop", None, {"expires": "1"}),
        ("poison", "noop", None, {"state": "RUNNING", "suspect": "4"}),
        ("nobody", "no-such-task", None, {}),
        ("again", "boom", None, {"retries": "1", "retry_delay": "0.1"}),
        ("slow", "sleep", '{"seconds": 600}', {"timeout": "0.1"}),
        ("dropped", "discard", None, {}),
        ("listener", "listen", None, {}),
        ("flow", "pytask/workflow", '{"stages": [[{"task": "noop"}]]}', {}),
    ):
        server.create(task_id, task, data, **fields)
    events.wait_for("loop", "turn")
    server.redis.publish("task-loop-control", "reload")
    events.wait_for("loop", "reloaded")
    server.redis.publish("task-loop-control", "stop")
    events.wait_for("loop", "stopped")
    events.wait_for("ok", "success")
    server.redis.lpush("new-task", "ok")
    with contextlib.closing(PyTask(server.url)) as producer:
        producer.helpers.start_task("noop", task_id="goner", queue="nobody-serves")
        producer.helpers.purge_queue("nobody-serves")
    server.create("block", "block", '{"seconds": 1.5}')
    arrived = {
        "running": events.wait_for("ok", "running"),
        "success": events.wait_for("ok", "success"),
        "error": events.wait_for("error", "error"),
        "exception": events.wait_for("exception", "exception"),
        "stopped": events.wait_for("loop", "stopped"),
        "reloaded": events.wait_for("loop", "reloaded"),
        "ignored": events.wait_for("ok", "ignored"),
        "scheduled": events.wait_for("early", "scheduled"),
        "expired": events.wait_for("late", "expired"),
        "lost": events.wait_for("poison", "lost"),
        "unknown": events.wait_for("nobody", "unknown"),
        "retry": events.wait_for("again", "retry"),
        "timeout": events.wait_for("slow", "timeout"),
        "discarded": events.wait_for("dropped", "discarded"),
        "progress": events.wait_for("listener", "progress"),
        "log": events.wait_for("listener", "log"),
        "held": events.wait_for("flow", "held"),
        "purged": events.wait_for("goner", "purged"),
    }
    server.redis.publish("task-listener-control", '{"fail": true}')
    arrived["message-failed"] = events.wait_for("listener", "message-failed")
    wait_until(lambda: (of_nodes.read(), of_nodes.seen)[1], "the node tells that it is blocked")
    arrived["blocked"] = json.loads(of_nodes.seen[0][1])
    of_nodes.close()
    node.terminate()
    arrived["wait"] = events.wait_for("long", "wait")

    assert set(arrived) == (set(SENT) | set(OF_NODES)) - {"stalled", "skipped"}  # these have tests of their own
    assert arrived["success"] == {"event": "success", "data": {"a": [1]}}
    assert arrived["ignored"]["data"] == {"state": "SUCCESS"}
    assert arrived["unknown"]["data"] == {"task": "no-such-task", "node": node.node_id}
    assert arrived["running"]["data"]["node"] == node.node_id
    assert arrived["error"]["data"] == "no luck"
    assert arrived["exception"]["data"].endswith("ValueError: boom")
    assert "(" in arrived["blocked"]["data"]["stack"]
    for name, event in arrived.items():
        told = ({**SENT, **OF_NODES})[name][1]
        if name != "success":
            assert event.keys() - {"id"} == {"event", "data"}
            assert re.fullmatch(as_pattern(code(told)[0]), json.dumps(event["data"])), (name, event)


def as_pattern(shown: str) -> str:
    """A regular expression for the data that a cell shows: `<number>` is a number, `<anything else>` text."""
    pattern = re.escape(shown).replace("<number>", r"\d+(?:\.\d+)?")
    return re.sub(r'"<[^"]*>"', lambda _: r'"(?:[^"\\]|\\.)+"', pattern)


# Nodes.


@pytest.mark.parametrize(("word", "command"), [("flag", worker), ("flag of orchestrate", orchestrate)])
def test_the_page_lists_every_flag_of_a_command_that_runs_nodes(word, command):
    told = {
        flag
        for row in tables(DOCS / "running.md")[f"| {word} | what it does |"]
        for flag in re.findall(r"(?<!\w)--?[\w-]+", row[0])
    }
    known = {flag for option in command.params for flag in option.opts if flag.startswith("-")}
    assert told == known | {"-h", "--help"}


def test_the_page_lists_every_exit_status():
    told = {int(row[0]) for row in tables(DOCS / "running.md")["| status | means |"]}
    assert told == {CLEAN, KILLED, USAGE, NO_REDIS, BLOCKED_STATUS}


@cache
def messages() -> list[str]:
    """Every text in the package, with "..." for what is filled in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(?:\.\d)?[sdgf]", "...", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
    return found


@pytest.mark.parametrize(
    "message",
    [
        text
        for row in tables(DOCS / "running.md")["| the message | what it means, and what to do |"]
        for text in code(row[0])
    ],
)
def test_a_message_of_the_troubleshooting_is_one_of_the_code(message):
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.S)
    assert any(pattern.search(text) for text in messages())


def test_the_page_lists_every_helper():
    told = {name for row in tables(DOCS / "tasks.md")["| helper | does |"] for name in code(row[0])}
    public = inspect.getmembers(PyTaskHelpers, inspect.isfunction)
    assert told == {name for name, _ in public if not name.startswith("_")}


# What five small libraries promise.

FEATURES = DOCS / "coming-from" / "index.md"
PROVED = tables(FEATURES)["| the document says | here | proved by |"]


@cache
def names_in(file: str) -> set[str]:
    """The names of the tests that stand in a file below tests/; read, not imported."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"}


def test_every_promise_of_the_five_documents_is_proved_by_tests_that_there_are():
    assert PROVED
    for said, here, cell in PROVED:
        proofs = [proof.partition("::") for proof in code(cell)]
        assert bool(proofs) is (here != "not yet"), said
        assert [proof for proof in proofs if proof[2] not in names_in(proof[0])] == [], said


def test_each_of_the_five_documents_has_its_promises():
    for name in ("pytask", "taskit", "taskkit", "task-framework", "Taskue"):
        assert "| the document says | here | proved by |" in section(FEATURES, name)


# The examples.


def like(told: Any, actual: Any) -> bool:
    """Is this what the page shows? "..." in a text stands for any text."""
    if isinstance(told, dict) and isinstance(actual, dict):
        return told.keys() == actual.keys() and all(like(told[key], actual[key]) for key in told)
    if isinstance(told, str) and isinstance(actual, str):
        return bool(re.fullmatch(".*".join(map(re.escape, told.split("..."))), actual, re.S))
    return bool(told == actual)


class Example:
    """A page that is being run: block by block, on a server and with a node's output."""

    def __init__(self, server, events: Events, node: NodeProcess) -> None:
        self.server = server
        self.events = events
        self.node = node
        self.names: dict[str, Any] = {"__name__": "example"}
        self.read: dict[str, int] = {}  # how far the events of a channel were compared
        self.steps: dict[str, Callable[[str], None]] = {
            "redis": self.redis,
            "events": self.published,
            "log": self.logged,
            "python": self.python,
            "sh": self.shell,
        }

    def run(self, page: Path, *languages: str) -> None:
        for block in blocks(page, *languages):
            if block.language in self.steps and not file_of(block):
                self.steps[block.language](block.text)

    def redis(self, text: str) -> None:
        reply: list[str] = []
        for line in text.splitlines():
            if line[0].isupper():
                assert not reply, "the reply on the page is longer"
                reply = [] if line.startswith("PSUBSCRIBE") else self.send(line)
                if not is_shown(text, line):
                    reply = []
            else:
                assert line == reply.pop(0)

    def send(self, line: str) -> list[str]:
        return as_lines(self.server.redis.execute_command(*shlex.split(line)))

    def published(self, text: str) -> None:
        for line in text.splitlines():
            channel, _, shown = line.partition(" ")
            told = json.loads(shown)
            wait_until(
                lambda channel=channel, told=told: self.find(channel, told),
                f"{line}, but: {self.events.seen[-5:]}",
            )

    def find(self, channel: str, told: Any) -> bool:
        self.events.read()
        for index in range(self.read.get(channel, 0), len(self.events.seen)):
            name, data = self.events.seen[index]
            if name.endswith(b"-control") or not like(channel, name.decode()):
                continue
            event = json.loads(data)
            if like(told, {key: event[key] for key in event if key in told or key != "id"}):
                self.read[channel] = index + 1
                return True
        return False

    def logged(self, text: str) -> None:
        for line in text.splitlines():
            self.node.wait_for_log(line)

    def python(self, text: str) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(text, self.names)
        assert printed.getvalue().splitlines() == re.findall(r"# -> (.*)", text)

    def shell(self, text: str) -> None:
        for line in text.splitlines():
            if re.match(r"pytask (start|stop|reload|restart|show|redis) ", line):
                command = [sys.executable, "-m", *shlex.split(line)]
                environ = {**os.environ, "PYTASK_REDIS_URL": self.server.url}
                subprocess.run(command, env=environ, check=True, capture_output=True, timeout=30)

    def close(self) -> None:
        for value in self.names.values():
            if isinstance(value, PyTask):
                value.close()


def is_shown(text: str, command: str) -> bool:
    """Does a block show the reply to this command?"""
    _, _, rest = text.partition(command + "\n")
    return bool(rest) and not rest[0].isupper()


def file_of(block: Block) -> str:
    """The file to which a Python block belongs; empty for one that is executed."""
    found = re.match(r"# (\w+\.py)\n", block.text) if block.language == "python" else None
    return found[1] if found else ""


def write_files(page: Path, folder: Path) -> set[str]:
    """Write the files of a page, each out of all its blocks; returns their names."""
    texts: dict[str, str] = defaultdict(str)
    for block in blocks(page, "python"):
        if name := file_of(block):
            texts[name] += block.text + "\n"
    for name, text in texts.items():
        (folder / name).write_text(text)
    return set(texts)


SHOWS = re.compile(r"^```events$|^# tasks\.py$", re.M)
EXECUTED = sorted(page.name for page in DOCS.glob("*.md") if SHOWS.search(page.read_text()))
COMING = sorted(page.name for page in (DOCS / "coming-from").glob("*.md") if SHOWS.search(page.read_text()))


@pytest.fixture
def run_page(server, start_node, events, tmp_path, monkeypatch):
    """Runs a page, on a node with its files."""

    def run(page: Path) -> None:
        files = write_files(page, tmp_path)
        options = ("--path", str(tmp_path)) if files else ()
        node = start_node(*options, app="tasks:task_app" if files else "nodeapp:app")
        monkeypatch.setenv("PYTASK_REDIS_URL", server.url)
        monkeypatch.syspath_prepend(tmp_path)
        example = Example(server, events, node)
        try:
            example.run(page)
        finally:
            example.close()
            for file in files:
                sys.modules.pop(file.removesuffix(".py"), None)
        assert "failed; it begins again" not in node.text()

    return run


@pytest.mark.parametrize("name", EXECUTED)
def test_the_examples_of_a_page_do_what_it_says(name, run_page):
    run_page(DOCS / name)


@ON_ONE_SERVER
@pytest.mark.parametrize("name", COMING)
def test_the_program_of_a_page_for_users_of_another_library_does_what_it_says(name, run_page):
    run_page(DOCS / "coming-from" / name)


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_the_script_of_the_readme_does_what_it_says(patched, server, events, tmp_path):
    page = ROOT / "README.md"
    (block,) = blocks(page, "python")
    assert README_ADDRESS in block.text
    address = {"unix_socket_path": server.embedded.socket_path}
    text = block.text.replace(README_ADDRESS, repr(address))
    file, log = tmp_path / "my_app.py", tmp_path / "log"
    file.write_text("from gevent import monkey; monkey.patch_all()\n" * patched + text)
    with log.open("wb") as out:
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([sys.executable, str(file)], stdout=out, stderr=out, env=environ)
    node = NodeProcess(process, log)
    try:
        node.wait_for_log("local   ")
        Example(server, events, node).run(page, "redis", "events")
        wait_until(lambda: node.text().count("Not hello world\n") == 2, "it runs, and runs again")
        assert ("gevent patches late" in node.text()) is not patched
        node.signal(signal.SIGINT)
        assert node.wait() == 0
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    write_tables()
