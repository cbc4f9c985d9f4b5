"""The settings: what is allowed, where values come from, and what an error says."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytask.errors import SettingError
from pytask.names import check_namespace, check_node_name, check_queue_name, queue_label, shown
from pytask.settings import SETTINGS, Setting, Settings, load

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
DURATIONS = [name for name, setting in SETTINGS.items() if setting.kind == "duration"]
INTEGERS = [name for name, setting in SETTINGS.items() if setting.kind == "integer"]
MEGABYTE = "x" * 1_000_000
YEAR = 365 * 86_400


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """`load` with an empty environment and an empty directory."""

    def _read(arguments: dict[Any, Any] | None = None, **options: Any) -> Settings:
        return load(arguments, **{"environ": {}, "cwd": tmp_path, **options})

    return _read


@pytest.fixture
def refuse(read: Callable[..., Settings]) -> Callable[..., str]:
    """What `load` says against a value."""

    def _refuse(arguments: dict[Any, Any] | None = None, **options: Any) -> str:
        with pytest.raises(SettingError) as caught:
            read(arguments, **options)
        return str(caught.value)

    return _refuse


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# The table


def test_settings_has_a_field_for_each_row_of_the_table_with_its_default():
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert fields == {
        **{name: setting.default for name, setting in SETTINGS.items()},
        "redis_password": None,
        "warnings": (),
    }


def test_nothing_given_means_the_defaults(read):
    assert read() == Settings()
    assert read().queues == ("",)
    assert read().redis == "redis://localhost:6379/0"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_each_default_is_allowed_and_so_is_its_text(setting: Setting, read):
    assert setting.check(setting.default) == setting.default
    variable = setting.variables[0]
    assert getattr(read(environ={variable: setting.default_text}), setting.name) == setting.default


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_each_row_has_a_sentence_of_help_and_a_flag(setting: Setting):
    assert setting.help.endswith(".")
    assert setting.help[0].isupper()
    short = {"queues": "--queue", "node_name": "--name", "redis": "--url"}
    assert setting.flag == short.get(setting.name, "--" + setting.name.replace("_", "-"))


def test_a_setting_knows_its_variables():
    assert SETTINGS["node_timeout"].variables == ("PYTASK_NODE_TIMEOUT",)
    assert SETTINGS["redis"].variables == ("PYTASK_REDIS_URL", "REDIS_URL")


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        SETTINGS["grace"] = SETTINGS["hash_wait"]  # type: ignore[index]


def test_the_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().grace = 1.0  # type: ignore[misc]


def test_settings_import_neither_redis_nor_gevent_nor_click():
    code = "import sys, pytask.settings; print({'redis', 'gevent', 'click'} & set(sys.modules))"
    assert run([sys.executable, "-c", code], ROOT) == "set()\n"


# Durations


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (10, 10.0),
        (2.5, 2.5),
        (0, 0.0),
        ("10", 10.0),
        ("2.5", 2.5),
        ("500ms", 0.5),
        ("9ms", 0.009),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("1.5h", 5400.0),
        (" 10 s ", 10.0),
    ],
)
def test_a_duration_is_seconds_or_text_with_a_unit(given, seconds, read):
    grace = read({"grace": given}).grace
    assert grace == seconds
    assert type(grace) is float


def test_a_negative_zero_becomes_a_plain_one(read):
    assert str(read({"grace": -0.0}).grace) == "0.0"


# fmt: off
BAD_DURATIONS = [
    True, False, -1, -0.001, float("nan"), float("inf"), float("-inf"), 1e400, 10**400, 10**5000, 1e300,
    11 * YEAR, "", " ", "ten", "-1", "-1s", "+1", "1e3", "1e400", "nan", "inf", "1_000", "0x10", "10S",
    "10 sec", "1h30m", "1.", ".5", "1,5", "10\x00", "10\x1c", "10\x1b[31m", "١٠", "9" * 400, "999999999d",
    MEGABYTE, b"10", bytearray(b"10"), [10], (10,), {"s": 10}, 10j, object(),
]
# fmt: on


@pytest.mark.parametrize("value", BAD_DURATIONS, ids=lambda value: shown(value)[:20])
def test_a_duration_that_is_none_is_refused_with_its_name_and_what_is_allowed(value, refuse):
    message = refuse({"grace": value})
    assert message.startswith(f"argument grace: {shown(value)} is not allowed: it must be a duration, 0 to ")
    assert "'500ms'" in message
    assert len(message) < 300
    assert message.isprintable()


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [True, -1, float("nan"), float("inf"), "soon", b"1", [1]])
def test_every_duration_refuses_what_is_none(name, value, refuse):
    assert f"argument {name}: " in refuse({name: value})


@pytest.mark.parametrize(("name", "least"), [("node_timeout", 2), ("block_warning", 0.001)])
def test_a_duration_has_a_least_value(name, least, read, refuse):
    assert getattr(read({name: least}), name) == least
    assert f"argument {name}" in refuse({name: least * 0.999})


def test_node_timeout_is_at_most_an_hour(read, refuse):
    assert read({"node_timeout": "1h"}).node_timeout == 3600.0
    assert "2 to 3600 s" in refuse({"node_timeout": 3600.5})


@pytest.mark.parametrize("name", ["block_warning", "block_timeout"])
def test_a_limit_for_blocking_is_more_than_zero(name, refuse):
    assert f"argument {name}: 0 is not allowed" in refuse({name: 0})


@pytest.mark.parametrize("name", ["grace", "hash_wait", "unknown_wait", "connect_timeout", "result_ttl"])
def test_other_durations_may_be_zero(name, read):
    assert getattr(read({name: 0}), name) == 0.0


@pytest.mark.parametrize(("timeout", "warning"), [(5, 5), (5, 6), ("1s", "1000ms")])
def test_block_timeout_must_be_longer_than_block_warning(timeout, warning, refuse):
    message = refuse({"block_timeout": timeout}, flags={"block_warning": warning})
    assert message.startswith("block_timeout (")
    assert "argument block_timeout) must be longer than block_warning (" in message
    assert message.endswith("flag --block-warning)")


def test_block_timeout_is_compared_with_the_default_too(refuse):
    message = refuse({"block_warning": 90})
    assert message == (
        "block_timeout (60 s, default) must be longer than block_warning (90 s, argument block_warning)"
    )


# Integers


@pytest.mark.parametrize(("given", "number"), [(1, 1), (1_000_000, 1_000_000), (10.0, 10), ("10", 10), (" 7 ", 7)])
def test_an_integer_is_an_int_an_integral_float_or_text(given, number, read):
    concurrency = read({"concurrency": given}).concurrency
    assert concurrency == number
    assert type(concurrency) is int


# fmt: off
BAD_INTEGERS = [
    True, False, 0, -1, 1_000_001, 10**400, 10**5000, 10.5, 1e300, 1e400, float("nan"), float("-inf"), "",
    "many", "-1", "10.0", "1e3", "1_000", "٣", "9" * 5000, "10\x00", MEGABYTE, b"10", [10], {},
]
# fmt: on


@pytest.mark.parametrize("value", BAD_INTEGERS, ids=lambda value: shown(value)[:20])
def test_an_integer_that_is_none_or_out_of_range_is_refused(value, refuse):
    message = refuse({"concurrency": value})
    assert message == (
        f"argument concurrency: {shown(value)} is not allowed: it must be an integer, 1 to 1000000 tasks"
    )


@pytest.mark.parametrize("name", INTEGERS)
def test_every_integer_keeps_to_its_range(name, read, refuse):
    setting = SETTINGS[name]
    for edge in (int(setting.minimum), int(setting.maximum)):
        assert getattr(read({name: edge}), name) == edge
    for outside in (setting.minimum - 1, setting.maximum + 1, True, "much"):
        assert f"argument {name}: " in refuse({name: outside})


def test_max_data_is_at_least_a_kibibyte_and_at_most_what_redis_takes():
    assert (SETTINGS["max_data"].minimum, SETTINGS["max_data"].maximum) == (1024, 512 * 1024 * 1024)


# Booleans


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("False", False),
        ("YES", True),
        ("no", False),
        ("on", True),
        ("off", False),
        ("1", True),
        (" 0 ", False),
    ],
)
def test_a_boolean_is_one_or_a_word_for_one(given, value, read):
    assert read({"local_tasks": given}).local_tasks is value


@pytest.mark.parametrize("value", [1, 0, 1.0, "", "maybe", "2", "t", b"true", [], [True], MEGABYTE, "true\x00"])
def test_a_boolean_that_is_none_is_refused(value, refuse):
    message = refuse({"local_tasks": value})
    assert message.startswith(f"argument local_tasks: {shown(value)} is not allowed: it must be true or false")


# Names


@pytest.mark.parametrize(
    ("given", "queues"),
    [
        ("a,b", ("a", "b")),
        ("a", ("a",)),
        (" a , b ", ("a", "b")),
        (["a", "b"], ("a", "b")),
        (("b", "a"), ("b", "a")),
        ("", ("",)),
        ("default", ("",)),
        (["default"], ("",)),
        ([""], ("",)),
        ("mail,default", ("mail", "")),
        (["default", "a", "", "b", "a"], ("", "a", "b")),
        ("A-Z_a.z-09," + "q" * 64, ("A-Z_a.z-09", "q" * 64)),
    ],
)
def test_queues_are_text_with_commas_or_a_list_and_default_means_the_default_queue(given, queues, read):
    assert read({"queues": given}).queues == queues


@pytest.mark.parametrize("value", [[], (), " ", ",", "a,", "a,,b", 5, True, b"a", {}, {"a"}, iter("a")])
def test_queues_that_are_no_list_of_names_are_refused(value, refuse):
    message = refuse({"queues": value})
    assert message.startswith(f"argument queues: {shown(value)} is not allowed: it must be one queue or more")


# fmt: off
BAD_NAMES = [
    "a b", "a:b", "a/b", "{a}", "a*", "a\n", "\x00", "a\x1b[31m", "ä", "\udcff", "x" * 65, MEGABYTE, b"a",
    5, None, True, ["a"],
]
# fmt: on


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: shown(name)[:20])
@pytest.mark.parametrize("check", [check_queue_name, check_namespace, check_node_name])
def test_a_name_of_other_characters_or_length_is_refused_with_the_rule(check, name):
    with pytest.raises(SettingError) as caught:
        check(name)
    message = str(caught.value)
    assert f" {shown(name)} is not allowed: it must be 1 to 64 characters out of A-Z" in message
    assert len(message) < 250
    assert message.isprintable()


@pytest.mark.parametrize("name", ["queues", "namespace", "node_name"])
def test_a_bad_name_in_a_setting_is_refused_with_its_origin(name, refuse):
    assert refuse({name: "a:b"}).startswith(f"argument {name}: ")
    assert refuse(environ={f"PYTASK_{name.upper()}": "a\n"}).startswith(
        f"environment variable PYTASK_{name.upper()}: "
    )


@pytest.mark.parametrize("prefix", ["task-", "new-task", "end-task", "node-", "schedule-", "workflow-"])
def test_a_namespace_must_not_begin_like_a_key(prefix, read, refuse):
    for namespace in (prefix, prefix + "a"):
        assert f"namespace '{namespace}' is not allowed: it must not begin" in refuse({"namespace": namespace})
    assert read({"namespace": "my-" + prefix}).namespace == "my-" + prefix


def test_names_may_be_empty_where_that_means_something():
    assert (check_namespace(""), check_node_name(""), check_queue_name("")) == ("", "", "")
    assert (queue_label(""), queue_label("mail")) == ("default", "mail")


def test_a_member_of_a_str_enum_becomes_plain_text():
    class Queue(str, enum.Enum):  # noqa: UP042  its format differs from StrEnum's
        MAIL = "mail"

    assert type(check_queue_name(Queue.MAIL)) is str


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ("", ()),
        ([], ()),
        ("shop", ("shop",)),
        ("shop.mail, shop.tasks", ("shop.mail", "shop.tasks")),
        (["a.b", "a.b", "_c"], ("a.b", "_c")),
    ],
)
def test_callable_prefixes_are_dotted_python_paths(given, paths, read):
    assert read({"callable_prefixes": given}).callable_prefixes == paths


@pytest.mark.parametrize(
    "value",
    [
        "a.",
        ".a",
        "a..b",
        "a b",
        "a-b",
        "1a",
        "a,",
        "a,,b",
        "os:system",
        "a\n",
        5,
        True,
        b"a",
        [b"a"],
        [""],
        [5],
        {},
    ],
)
def test_callable_prefixes_that_are_no_paths_are_refused(value, refuse):
    message = refuse({"callable_prefixes": value})
    assert message.startswith(f"argument callable_prefixes: {shown(value)} is not allowed: it must be dotted")


# What a message shows


@pytest.mark.parametrize("value", [MEGABYTE, MEGABYTE.encode(), [MEGABYTE], "\x00" * 50, "x" * 79, 10**80])
def test_a_long_value_is_cut_at_80_characters(value):
    assert len(shown(value)) == 80
    assert shown(value).endswith("...")


def test_a_value_of_80_characters_is_shown_whole():
    assert shown("x" * 78) == repr("x" * 78)


def test_a_value_that_has_no_repr_is_shown_by_its_type():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(10**5000) == "<int>"
    assert shown([10**5000]) == "<list>"
    assert shown(deep) == "<list>"


# Precedence


def levels(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The four places, strongest first: how the value reads there, and the arguments of `load`."""
    write(tmp_path / "daemon.toml", "grace = 4")
    return [
        ("1", {"flags": {"grace": "1"}}),
        ("2", {"arguments": {"grace": 2}}),
        ("3", {"environ": {"PYTASK_GRACE": "3"}}),
        ("4", {"file": "daemon.toml"}),
        ("25", {}),
    ]


@pytest.mark.parametrize(("stronger", "weaker"), [(a, b) for a in range(5) for b in range(a + 1, 5)])
def test_flag_over_argument_over_environment_over_file_over_default(stronger, weaker, tmp_path, read):
    value, options = levels(tmp_path)[stronger]
    assert read(**{**options, **levels(tmp_path)[weaker][1]}).grace == float(value)


def test_none_in_flags_and_arguments_means_not_given(read):
    settings = read({"grace": None, "redis": None}, flags={"grace": None}, environ={"PYTASK_GRACE": "3"})
    assert (settings.grace, settings.redis) == (3.0, "redis://localhost:6379/0")


def test_an_empty_variable_means_not_given(read, tmp_path):
    write(tmp_path / "pyproject.toml", '[tool.pytask-daemon]\nnamespace = "shop"')
    assert read(environ={"PYTASK_NAMESPACE": "", "PYTASK_GRACE": ""}).namespace == "shop"
    assert read(environ={"PYTASK_NAMESPACE": ""}, flags={"namespace": ""}).namespace == ""


def test_a_bad_value_that_a_stronger_one_replaces_does_no_harm(read):
    assert read(flags={"grace": 1}, environ={"PYTASK_GRACE": "soon"}).grace == 1.0


def test_an_error_names_where_the_value_came_from(refuse, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.pytask-daemon]\nnode_timeout = 1")
    write(tmp_path / "daemon.toml", "node_timeout = 1")
    assert refuse(flags={"node_timeout": 1}).startswith("flag --node-timeout: 1 is not allowed")
    assert refuse({"node_timeout": 1}).startswith("argument node_timeout: 1 is")
    assert refuse(environ={"PYTASK_NODE_TIMEOUT": "1"}).startswith(
        "environment variable PYTASK_NODE_TIMEOUT: '1' is"
    )
    assert refuse().startswith("key node_timeout in pyproject.toml: 1 is")
    assert refuse(file="daemon.toml").startswith("key node_timeout in daemon.toml: 1 is")


def test_the_real_environment_and_directory_are_read_if_none_is_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTASK_HASH_WAIT", "3")
    write(tmp_path / "pyproject.toml", "[tool.pytask-daemon]\nconcurrency = 4")
    settings = load()
    assert (settings.hash_wait, settings.concurrency) == (3.0, 4)


# Unknown names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arguments": {"graec": 1}}, "argument graec is unknown: did you mean grace?"),
        ({"flags": {"node-timeout": 1}}, "flag --node-timeout is unknown: did you mean node_timeout?"),
        ({"flags": {"concurency": None}}, "flag --concurency is unknown: did you mean concurrency?"),
        ({"arguments": {"zzz": 1}}, "argument zzz is unknown"),
        ({"arguments": {5: 1}}, "argument 5 is unknown"),
        ({"arguments": {"redis_password": "x"}}, "argument redis_password is unknown"),
    ],
)
def test_an_unknown_argument_or_flag_is_an_error_with_a_suggestion(options, message, refuse):
    assert refuse(**options) == message


def test_an_unknown_key_in_a_file_is_an_error_with_a_suggestion(refuse, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.pytask-daemon]\nnode-timeout = 5")
    assert refuse() == "key node-timeout in pyproject.toml is unknown: did you mean node_timeout?"


@pytest.mark.parametrize("name", [MEGABYTE, "\x1b[31m" * 100, "a\nb"], ids=["long", "escapes", "newline"])
def test_an_unknown_name_is_shown_short_and_printable(name, refuse):
    message = refuse({name: 1})
    assert len(message) < 150
    assert message.isprintable()


def test_an_unknown_variable_makes_a_warning_with_a_suggestion_but_not_its_value(read):
    settings = read(
        environ={"PYTASK_CONCURENCY": "se%cret", "PYTASK_ZZZ": "1", "PYTASK_REDIS_PASSWORD": "se%cret"}
    )
    assert settings.warnings == (
        "environment variable PYTASK_CONCURENCY is unknown and ignored: did you mean PYTASK_CONCURRENCY?",
        "environment variable PYTASK_REDIS_PASSWORD is unknown and ignored: "
        "did you mean PYTASK_REDIS_PASSWORD_FILE?",
        "environment variable PYTASK_ZZZ is unknown and ignored",
    )
    assert "se%cret" not in repr(settings)


def test_known_variables_of_other_modules_and_of_tests_make_no_warning(read):
    names = [
        "PYTASK_LOG_LEVEL",
        "PYTASK_LOG_FORMAT",
        "PYTASK_TEST_SERVER",
        "PYTASK_INTERNAL_READY_FD",
        "PYTHONPATH",
    ]
    assert read(environ=dict.fromkeys(names, "1")).warnings == ()


# Files


def test_the_table_of_pyproject_in_the_directory_is_read(read, tmp_path):
    write(
        tmp_path / "pyproject.toml",
        '[tool.pytask-daemon]\nqueues = ["mail", "default"]\ngrace = "5m"\nlocal_tasks = false',
    )
    settings = read()
    assert settings == Settings(queues=("mail", ""), grace=300.0, local_tasks=False)


@pytest.mark.parametrize(
    "text", ["", "[tool.pytask]\ngrace = 1", "[project]\nname = 'a'", "tool = 3", "grace = 1"]
)
def test_a_pyproject_without_our_table_is_ignored(text, read, tmp_path):
    write(tmp_path / "pyproject.toml", text)
    assert read() == Settings()


def test_a_directory_that_is_not_there_has_no_settings(read, tmp_path):
    assert read(cwd=tmp_path / "nowhere") == Settings()
    assert read(cwd=write(tmp_path / "file", "")) == Settings()


def test_a_file_that_is_given_stands_in_for_pyproject(read, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.pytask-daemon]\ngrace = 1\nhash_wait = 1")
    write(tmp_path / "other.toml", "[tool.pytask-daemon]\ngrace = 2")
    assert read(file="other.toml") == Settings(grace=2.0)


@pytest.mark.parametrize("text", ["grace = 2", "[tool.pytask-daemon]\ngrace = 2"])
def test_a_file_has_the_table_or_the_settings_at_its_top(text, read, tmp_path):
    path = write(tmp_path / "daemon.toml", text)
    assert read(file=path).grace == 2.0
    assert read(file=str(path), cwd=None).grace == 2.0


@pytest.mark.parametrize(
    "text", ["[tool.ruff]\nline-length = 9", "[tool.pytask]\ngrace = 1", "[tool]\npytask-daemon = 3"]
)
def test_a_file_with_tables_of_other_tools_only_is_refused(text, refuse, tmp_path):
    write(tmp_path / "pyproject.toml", text)
    assert refuse(file="pyproject.toml") == "file 'pyproject.toml' has no table [tool.pytask-daemon]"


def test_a_table_that_is_no_table_is_refused_in_the_directory_too(refuse, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool]\npytask-daemon = 3")
    assert refuse() == "file 'pyproject.toml' has no table [tool.pytask-daemon]"


@pytest.mark.parametrize("file", ["missing.toml", "", "a\x00b", "d" * 5000])
def test_a_file_that_cannot_be_read_is_refused_with_its_path(file, refuse):
    message = refuse(file=file)
    assert message.startswith(f"file {shown(file)} ")
    assert len(message) < 200


@pytest.mark.parametrize(
    "content",
    [
        b"grace = ",
        b"grace",
        b"\xff\xfe",
        b"grace = 1\ngrace = 2",
        b"a = " + b"[" * 100_000,
        b"a = " + b"9" * 5000,
    ],
    ids=["no value", "no key", "binary", "twice", "deep", "long"],
)
def test_a_file_that_is_no_toml_is_refused_with_its_path(content, refuse, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(content)
    assert refuse().startswith("file 'pyproject.toml' is no valid TOML: ")
    assert refuse(file="pyproject.toml").startswith("file 'pyproject.toml' is no valid TOML: ")


@pytest.mark.parametrize(
    "text", ["grace = nan", "grace = -inf", "grace = 1e400", "grace = 1979-05-27", "grace = {}"]
)
def test_odd_values_in_a_file_are_refused(text, refuse, tmp_path):
    write(tmp_path / "daemon.toml", text)
    assert refuse(file="daemon.toml").startswith("key grace in daemon.toml: ")


# Redis


def test_redis_comes_from_flag_argument_own_variable_common_variable_file(read, tmp_path):
    write(tmp_path / "pyproject.toml", '[tool.pytask-daemon]\nredis = "redis://file"')
    places: list[tuple[str, dict[str, Any]]] = [
        ("redis://flag", {"flags": {"redis": "redis://flag"}}),
        ("redis://argument", {"arguments": {"redis": "redis://argument"}}),
        ("redis://own", {"environ": {"PYTASK_REDIS_URL": "redis://own", "REDIS_URL": "redis://common"}}),
        ("redis://common", {"environ": {"REDIS_URL": "redis://common", "PYTASK_REDIS_URL": ""}}),
        ("redis://file", {}),
    ]
    for at, (url, options) in enumerate(places):
        weaker = {key: value for _, place in reversed(places[at:]) for key, value in place.items()}
        assert read(**{**weaker, **options}).redis == url


@pytest.mark.parametrize("address", ["redis://a", {"host": "a"}, [("a", 1)], object()], ids=type)
def test_redis_is_handed_on_as_it_was_given(address, read):
    assert read({"redis": address}).redis is address


def test_redis_may_be_a_table_in_a_file(read, tmp_path):
    write(tmp_path / "daemon.toml", 'grace = 1\n[redis]\nhost = "a"\nport = 7')
    assert read(file="daemon.toml").redis == {"host": "a", "port": 7}


@pytest.mark.parametrize(("content", "password"), [("s3cret\n", "s3cret"), (" s3 \r\n", " s3 "), ("s3", "s3")])
def test_the_password_comes_from_a_file_without_its_last_newline(content, password, read, tmp_path):
    path = tmp_path / "password"
    path.write_bytes(content.encode())
    assert read(environ={"PYTASK_REDIS_PASSWORD_FILE": str(path)}).redis_password == password


def test_there_is_no_password_without_the_variable(read):
    assert read().redis_password is None
    assert read(environ={"PYTASK_REDIS_PASSWORD_FILE": ""}).redis_password is None


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"s3cret\xff", b"s3cret" * 20_000], ids=lambda content: len(content)
)
def test_a_password_file_that_is_no_good_is_refused_without_a_word_of_it(content, refuse, read, tmp_path):
    path = tmp_path / "password"
    path.write_bytes(content)
    message = refuse(environ={"PYTASK_REDIS_PASSWORD_FILE": str(path)})
    assert message.startswith("environment variable PYTASK_REDIS_PASSWORD_FILE: file '")
    assert "s3cret" not in message


@pytest.mark.parametrize("path", ["/nowhere/password", "/", "a\x00b", MEGABYTE])
def test_a_password_file_that_cannot_be_read_is_refused_with_its_path(path, refuse):
    message = refuse(environ={"PYTASK_REDIS_PASSWORD_FILE": path})
    assert message.startswith(f"environment variable PYTASK_REDIS_PASSWORD_FILE: file {shown(path)} ")


def test_no_repr_shows_a_password(read, tmp_path):
    path = write(tmp_path / "password", "s3cret")
    settings = read({"redis": "redis://:s3cret@a"}, environ={"PYTASK_REDIS_PASSWORD_FILE": str(path)})
    assert settings.redis_password == "s3cret"
    assert "s3cret" not in repr(settings) + str(settings) + repr(settings.replace(grace=1))


def test_settings_can_be_hashed_whatever_redis_is():
    assert hash(Settings(redis={"host": "a"})) == hash(Settings(redis=[1]))


# Settings made and changed in a program


def test_replace_changes_a_copy(read):
    before = read({"concurrency": 5, "redis": "redis://a"})
    after = before.replace(grace="1m", queues="a,default")
    assert (after.grace, after.queues, after.concurrency, after.redis) == (60.0, ("a", ""), 5, "redis://a")
    assert before.grace == 25.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grace": -1}, "setting grace: -1 is not allowed"),
        ({"grace": None}, "setting grace: None is not allowed"),
        ({"graec": 1}, "setting graec is unknown: did you mean grace?"),
        (
            {"block_timeout": 1},
            "block_timeout (1 s, setting block_timeout) must be longer than block_warning (1 s",
        ),
    ],
)
def test_replace_checks_as_load_does(changes, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        Settings().replace(**changes)


def test_settings_made_by_hand_are_checked_too():
    assert Settings(grace="1m").grace == 60.0  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="setting concurrency: True is not allowed"):
        Settings(concurrency=True)


# The page


def documentation_rows() -> list[str]:
    """The rows of the page's table, as they must read."""
    return [
        f"| `{setting.name}` | {setting.type_text} | {default_cell(setting)} | "
        f"{' '.join(f'`{variable}`' for variable in setting.variables)} | {setting.help} |"
        for setting in SETTINGS.values()
    ]


def default_cell(setting: Setting) -> str:
    return f"`{setting.default_text}`" if setting.default_text else "empty"


def run(command: list[str], directory: Path) -> str:
    """What the command prints, with this Python as `python` and without settings in the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTASK_", "REDIS_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environ = {**clean, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=directory, env=environ, check=True, capture_output=True, text=True).stdout


def test_the_table_of_the_page_is_the_table_of_the_module():
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert table == documentation_rows()


def test_the_examples_of_the_page_print_what_they_say(tmp_path):
    shown_by_all = []
    for language, code in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        if language == "toml":
            write(tmp_path / code.splitlines()[0].removeprefix("# "), code)
            continue
        command = [sys.executable, "-c"] if language == "python" else ["sh", "-ec"]
        expected = re.findall(r"# -> (.*)", code)
        assert run([*command, code], tmp_path).splitlines() == expected
        shown_by_all += expected
    assert shown_by_all == ["60.0"] * 5
