"""The options: their table, and what is refused."""

from __future__ import annotations

import datetime
import inspect
import math
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pytask import Task, retry
from pytask.errors import InvalidInputError, TaskDefinitionError
from pytask.options import OF_STARTS, OPTIONS, Rate, check_class, write_options
from pytask.producing import Producing
from pytask.store.scripts import script
from pytask.task import check_task_class

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
HEAD = "| option | values | default | class | read by | meaning |"


def option_rows() -> list[str]:
    return [
        f"| `{o.name}` | {', '.join(filter(None, (o.kind, o.unit)))} | {o.default} "
        f"| {'yes' if o.in_class else 'no'} | {o.reader} | {o.help} |"
        for o in OPTIONS.values()
    ]


def write_table() -> None:
    table = "\n".join([HEAD, "|---" * 6 + "|", *option_rows()]) + "\n"
    PAGE.write_text(re.sub(rf"^{re.escape(HEAD)}\n(?:\|.*\n)*", lambda _: table, PAGE.read_text(), flags=re.M))


def test_the_table_of_the_page_is_that_of_the_code():
    lines = PAGE.read_text().splitlines()
    first = lines.index(HEAD) + 2
    assert lines[first : lines.index("", first)] == option_rows()


def test_every_option_is_a_keyword_of_start_task_and_no_other_is():
    given = inspect.signature(Producing.start_task).parameters.values()
    keywords = {p.name for p in given if p.kind is p.KEYWORD_ONLY}
    assert keywords - set(OF_STARTS) == set(OPTIONS)


def test_every_option_that_may_stand_in_a_class_is_an_attribute_of_task():
    assert {name for name, option in OPTIONS.items() if option.in_class} <= set(Task.__annotations__)


def test_begin_knows_every_option_and_hands_on_those_that_nodes_and_limits_read():
    known = dict(re.findall(r"(\w+) = (\d)[,}]", script("begin").source))
    assert set(OPTIONS) <= set(known)
    handed_on = {name for name, kind in known.items() if kind == "2"} - {"kept", "workflow", "round"}
    assert handed_on == {name for name, option in OPTIONS.items() if option.reader in ("node", "limits")}


BERLIN = datetime.datetime(2027, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("due", 0, "0.000000"),
        ("due", BERLIN, "1798758000.000000"),
        ("due", datetime.datetime.max.replace(tzinfo=datetime.UTC), "253402300800.000000"),
        ("delay", "5m", "300"),
        ("delay", 0.25, "0.25"),
        ("expires_in", 0, "0"),
        ("timeout", "500ms", "0.5"),
        ("retries", 3, "3"),
        ("retry_delay", 10, "10.0"),
        ("retry_delay", [1, "5s"], "[1.0, 5.0]"),
        ("retry_on", ConnectionError, "ConnectionError"),
        ("retry_on", ["a.B", OSError], "OSError,a.B"),
        ("unique", True, "true"),
        ("unique", "k" * 1_000_000, "k" * 1_000_000),
        ("rate", "3/10s", "3/10s"),
        ("rate", "100/m", "100/60s"),
        ("cleanup", False, "false"),
        ("title", "a title", "a title"),
        ("queue", "default", "default"),
    ],
)
def test_an_option_is_written_as_text_that_reads_as_the_same(name, value, text):
    word, written = write_options({name: value})
    assert (word, written.decode() if isinstance(written, bytes) else written) == (name, text)
    assert OPTIONS[name].read(text.encode()) == OPTIONS[name].check(value)


LISTS = [1] * 2000
WRONG = {
    ("delay", "expires_in", "timeout"): (-1, "x", "1 w", math.inf, []),
    ("due", "expires"): (-1, "2027", math.inf, True, 1e13, BERLIN.replace(tzinfo=None)),
    ("timeout",): (0,),
    ("retries", "max_running", "max_running_per_key"): (-1, 1.5, "x", 10**10, True),
    ("max_running",): (0,),
    ("retry_delay",): ([], [-1], ["x"], {"bas": 1}, {"factor": 0}, {"jitter": 2}, 10**12, LISTS),
    ("retry_on", "no_retry_on"): ([], "", 5, [int], "a b", ["x", "y-z"]),
    ("unique",): ("", 5, ["a"]),
    ("rate",): ("", "10", "10/", "/s", "0/s", "-1/s", "10/0s", "10/x", "x/s", "1.5/s", 10, "nan/s"),
    ("concurrency_key", "rate_key"): ("", 5, "k" * 300),
    ("title",): (5, "t" * 1001, "\ud800"),
    ("queue",): ("a b", 5, "x" * 65),
    ("cleanup", "rescheduling"): ("perhaps", 5),
    tuple(OPTIONS): (math.nan,),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for names, values in WRONG.items() for name in names for value in values],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_value_is_refused_and_named(name, value):
    with pytest.raises(InvalidInputError, match=f"option {name}: "):
        write_options({name: value})


def test_an_option_that_does_not_exist_is_refused_with_the_one_that_is_meant():
    with pytest.raises(InvalidInputError, match=r"no option 'retires': did you mean retries\?"):
        write_options({"retires": 3})


@pytest.mark.parametrize(("one", "other"), [("due", "delay"), ("expires", "expires_in")])
def test_two_options_that_say_the_same_are_refused(one, other):
    with pytest.raises(InvalidInputError, match=f"give {one} or {other}, not both"):
        write_options({one: 1, other: 1})


@pytest.mark.parametrize(
    "raw", [b"\xff", b"nan", b"-1", b"0x", b"[1", b'{"base": NaN}', b"[" * 100_000, b"x" * 4096]
)
@pytest.mark.parametrize("name", ["timeout", "retries", "retry_delay", "delay", "rate", "max_running"])
def test_a_field_that_is_no_good_is_refused_and_named(name, raw):
    with pytest.raises(InvalidInputError, match=f"the field '{name}'"):
        OPTIONS[name].read(raw)


def test_a_class_with_a_wrong_option_cannot_be_added():
    class Wrong(Task):
        NAME = "wrong"
        retries = -1

        def start(self):
            pass

    with pytest.raises(TaskDefinitionError, match="Wrong: option retries: -1 is not allowed"):
        check_task_class(Wrong)


def test_a_method_that_is_called_as_an_option_is_the_class_s_own_affair():
    class Own(Task):
        NAME = "own"
        rate = "3/s"

        def cleanup(self):
            pass

    assert check_class(Own) == {"rate": Rate(3, 1.0)}


def test_delays_grow_up_to_their_most():
    delay = retry.exponential(base=2, factor=3, max=10, jitter=0)
    assert [delay.get(attempt) for attempt in (1, 2, 3, 10_000)] == [2, 6, 10, 10]
    assert retry.delay_after((1.0, 5.0), 7) == 5.0


def test_jitter_keeps_a_delay_within_its_bounds():
    delay = retry.exponential(base=10, factor=1, max=10, jitter=0.5)
    found = [delay.get(1) for _ in range(1000)]
    assert 5 <= min(found) < 7.5 < max(found) <= 15


def test_an_exception_counts_with_what_it_comes_from():
    names = retry.check_names([OSError])
    assert retry.is_among(ConnectionResetError, names)
    assert not retry.is_among(ValueError, names)


if __name__ == "__main__":
    write_table()
