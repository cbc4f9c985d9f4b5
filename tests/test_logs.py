"""Logging: entries that no text can forge, as text or JSON, under `pytask` alone."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from pytask.errors import SettingError
from pytask.logs import JSONFormatter, TextFormatter, choose, ensure_logging, setup_logging, share_logging

FORMAT = "%(asctime)s %(process)d %(levelname)-7s %(name)s: %(message)s"
ENTRY = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) +pytask[.\w]*: ")
FORGED = "2026-01-01 00:00:00,000 1 INFO    pytask.node: all is well"


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    root, ours = logging.getLogger(), logging.getLogger("pytask")
    before = (list(root.handlers), root.level, list(ours.handlers), ours.level, ours.propagate)
    ours.handlers, ours.propagate = [], True
    yield
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.handlers, ours.level, ours.propagate = before[2:]


@pytest.fixture
def written(capsys):
    """What went to standard error so far."""
    return lambda: capsys.readouterr().err


def test_an_empty_variable_says_nothing_of_the_log_in_any_command(monkeypatch, start_node):
    for name in ("PYTASK_LOG_LEVEL", "PYTASK_LOG_FORMAT"):
        monkeypatch.setenv(name, "")
    assert choose() == ("INFO", "text")
    assert choose("debug", "json") == ("debug", "json")
    assert start_node(log_level="", log_format="").terminate() == 0
    monkeypatch.setenv("PYTASK_LOG_LEVEL", "error")
    monkeypatch.setenv("PYTASK_LOG_FORMAT", "json")
    assert choose() == ("error", "json")
    assert choose("DEBUG") == ("DEBUG", "json")


def entry(message: str, *args: object, formatter: logging.Formatter | None = None, error=None) -> str:
    exc_info = (type(error), error, None) if error else None
    record = logging.LogRecord("pytask.node", logging.WARNING, __file__, 1, message, args, exc_info)
    return (formatter or TextFormatter(FORMAT)).format(record)


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
)
def test_no_text_can_forge_an_entry(end):
    for text in (entry("it says %s", f"x{end}{FORGED}"), entry("it failed", error=ValueError(f"x{end}{FORGED}"))):
        first, *others = text.splitlines()
        assert ENTRY.match(first)
        assert not any(ENTRY.match(line) for line in others)
        assert "all is well" in text


@pytest.mark.parametrize("code", [0, 7, 8, 13, 27, 127, 0x80, 0x9B])
def test_a_control_character_is_shown_and_not_sent_to_the_terminal(code):
    text = entry("a%sb", chr(code))
    assert chr(code) not in text
    assert f"a\\x{code:02x}b" in text


def test_further_lines_of_an_entry_stand_behind_a_bar():
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.LogRecord("pytask.node", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    first, *others = TextFormatter(FORMAT).format(record).split("\n")
    assert first.endswith("ERROR   pytask.node: failed")
    assert all(line.startswith("    | ") for line in others)
    assert others[-1] == "    | ValueError: boom"


def test_tabs_and_letters_stay_as_they_are():
    assert entry("ü\t\U0001f600").endswith(": ü\t\U0001f600")


def test_a_json_entry_is_one_object_on_one_line():
    text = entry("it says %s", f"ü\n\x1b{FORGED}", formatter=JSONFormatter(), error=ValueError("a\nb"))
    assert len(text.splitlines()) == 1
    assert text.isascii()
    row = json.loads(text)
    assert row["message"] == f"it says ü\n\x1b{FORGED}"
    assert (row["level"], row["logger"]) == ("warning", "pytask.node")
    assert row["exception"] == "ValueError: a\nb"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row["time"])
    assert isinstance(row["pid"], int)
    assert "exception" not in json.loads(entry("x", formatter=JSONFormatter()))


@pytest.mark.parametrize(
    ("level", "seen"), [("DEBUG", 4), ("info", 3), ("WARNING", 2), ("error", 1), ("critical", 0)]
)
def test_the_level_decides_what_is_written(written, level, seen):
    setup_logging(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("pytask.node"), name)("x")
    assert len(written().splitlines()) == seen


def test_both_formats_are_written_to_standard_error(written):
    setup_logging(form="text")
    logging.getLogger("pytask.task").info("one")
    setup_logging(form="json")
    logging.getLogger("pytask").warning("two")
    first, second = written().splitlines()
    assert ENTRY.match(first)
    assert json.loads(second)["message"] == "two"


def test_setting_up_twice_writes_each_entry_once_and_never_through_the_root(written, caplog):
    setup_logging()
    setup_logging()
    logging.getLogger("pytask").info("once")
    assert len(written().splitlines()) == 1
    assert caplog.records == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"level": "LOUD"}, "'LOUD' is none of DEBUG"),
        ({"level": ""}, "''"),
        ({"form": "xml"}, "'xml' is none of text"),
    ],
)
def test_an_unknown_level_or_format_is_refused(arguments, why):
    with pytest.raises(SettingError, match=why):
        setup_logging(**arguments)


def test_a_program_that_has_set_logging_up_keeps_it():
    ours = logging.getLogger("pytask")
    mine = logging.NullHandler()
    ours.addHandler(mine)
    ensure_logging()
    assert ours.handlers == [mine]


def test_a_program_that_set_nothing_up_gets_text(written, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    ensure_logging()
    logging.getLogger("pytask").info("x")
    assert ENTRY.match(written())


def test_what_tasks_log_goes_where_pytask_s_lines_go_unless_the_program_has_its_own_way(written, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    setup_logging()
    share_logging()
    logging.getLogger("shop").info("of a task")
    assert written().endswith("INFO    shop: of a task\n")
    root.handlers = [mine := logging.NullHandler()]
    share_logging()
    assert root.handlers == [mine]


# Of a node.


@pytest.mark.parametrize("options", [("--log-format", "json"), ()])
def test_every_line_of_a_node_in_json_is_an_object(server, start_node, options):
    node = start_node(*options, "-l", "debug", log_format="json")
    server.create("x\n" + FORGED, "fail", json.dumps({"message": FORGED}))
    server.wait_for_state("x\n" + FORGED, "ERROR")
    server.redis.lpush("new-task", "a-control")
    wait = "dead list"
    node.wait_for_log(wait)
    assert node.terminate() == 0
    rows = [json.loads(line) for line in node.text().splitlines()]
    assert {row["logger"].partition(".")[0] for row in rows} == {"pytask"}
    assert any("ended as ERROR" in row["message"] for row in rows)


def test_what_producers_write_cannot_forge_a_line_of_a_nodes_log(server, start_node):
    node = start_node()
    evil = "\r\n" + FORGED + "\x1b[31m\u2028" + FORGED
    server.create("x" + evil, "fail", json.dumps({"message": evil}))
    server.create("y" + evil, "no such task" + evil)
    server.create("z" + evil, "echo", "no json" + evil)
    server.create("e", "boom", json.dumps({"message": evil}))
    server.redis.lpush("new-task", evil + "-control")
    server.wait_for_state("e", "EXCEPTION")
    server.create("loop" + evil, "loop")
    server.wait_for_state("loop" + evil, "RUNNING")
    server.redis.publish(f"task-loop{evil}-control", evil)
    node.wait_for_log("is none of 'stop', 'reload'")
    for line in node.text().splitlines():
        assert ENTRY.match(line) or line.startswith("    | "), line
        assert not line.endswith("all is well")
        assert line.isprintable() or "\t" in line
