"""Every setting: its name, type, default, unit, range and help, in one table; and where values come from.

`load` finds the value of each setting (flag, argument, environment, file, default), `Settings` holds them,
checked. Durations are float seconds, sizes are bytes. Nothing here connects to Redis or reads the command
line, and no message holds the value of `redis` or the password.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pytask import names
from pytask.checks import YEARS_10, as_number, check_boolean, check_duration, check_integer
from pytask.errors import SettingError
from pytask.names import shown
from pytask.queue_names import QueueNames, check_queues

Kind = Literal[
    "address", "namespace", "queue names", "node name", "integer", "duration", "boolean", "dotted paths"
]

FILE_TABLE = "pytask-daemon"
"""The settings' table in pyproject.toml is `[tool.pytask-daemon]`; `[tool.pytask]` is another project's."""


_PREFIX = "PYTASK_"
_PASSWORD_FILE = "PYTASK_REDIS_PASSWORD_FILE"  # noqa: S105  the name of a variable
_PASSWORD_MAX = 65_536  # bytes; a limit so that /dev/zero ends
_OTHER_VARIABLES = (_PASSWORD_FILE, "PYTASK_LOG_LEVEL", "PYTASK_LOG_FORMAT")
_IGNORED_PREFIXES = ("PYTASK_TEST_", "PYTASK_INTERNAL_")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. The range, which holds its two ends, is for integers and durations."""

    name: str
    kind: Kind
    default: Any
    help: str
    unit: str = ""
    minimum: float = 0
    maximum: float = YEARS_10

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it; the first that is not empty counts."""
        if self.name == "redis":
            return ("PYTASK_REDIS_URL", "REDIS_URL")
        return (_PREFIX + self.name.upper(),)

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return _flag(self.name)

    @property
    def range_text(self) -> str:
        """The range in words, `''` where there is none."""
        if self.kind not in ("integer", "duration"):
            return ""
        return f"{as_number(self.minimum)} to {as_number(self.maximum)} {self.unit}"

    @property
    def type_text(self) -> str:
        """Type, range and unit, for the documentation and for help."""
        return f"{self.kind}, {self.range_text}" if self.range_text else self.kind

    @property
    def default_text(self) -> str:
        """The default as it is written in an environment variable."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return self.default.text if isinstance(self.default, QueueNames) else ",".join(self.default)
        return as_number(self.default) if isinstance(self.default, int | float) else str(self.default)

    def check(self, value: object) -> Any:
        """The value in its canonical type, or SettingError with the value and what is allowed."""
        if self.kind in ("integer", "duration"):
            check = check_integer if self.kind == "integer" else check_duration
            return check(value, self.minimum, self.maximum, self.range_text)
        return _CHECKS[self.kind](value)


def _duration(name: str, default: float, help: str, least: float = 0, most: float = YEARS_10) -> Setting:
    return Setting(name, "duration", default, help, "s", least, most)


def _integer(name: str, default: int, unit: str, help: str, least: int, most: int = 1_000_000) -> Setting:
    return Setting(name, "integer", default, help, unit, least, most)


_URL = "redis://localhost:6379/0"
_HALF_GIB = 536_870_912  # the largest string that Redis takes by default

_ROWS = (
    Setting("redis", "address", _URL, "Where Redis is: a URL; in a file also a table, in code also a client."),
    Setting("namespace", "namespace", "", "Goes before all keys and channels, so that apps can share one Redis."),
    Setting("queues", "queue names", QueueNames(("",)), "The queues that a node serves, with limits and weights."),
    _integer("concurrency", 1000, "tasks", "How many tasks a node runs at once.", 1),
    Setting("node_name", "node name", "", "The node's label and first part of its id; empty: the hostname."),
    _duration("node_timeout", 10.0, "How long after its last heartbeat a node counts as dead.", 2, 3600),
    _duration("grace", 25.0, "How long running tasks may go on after a stop of the node."),
    _duration("hash_wait", 30.0, "How long an id whose hash has not come yet is tried again."),
    _duration("unknown_wait", 60.0, "How long a task whose name no node knows goes round."),
    _duration("connect_timeout", 10.0, "How long the first connection to Redis is tried."),
    _integer("max_data", 1_048_576, "bytes", "The largest data, output or event of a task.", 1024, _HALF_GIB),
    _integer("max_deliveries", 5, "deaths", "How many deaths of its nodes in a row end a task as LOST.", 1),
    _duration("block_warning", 1.0, "How long a task may block the node before a log line shows where.", 0.001),
    _duration("block_timeout", 60.0, "How long it may block the node before the process ends itself.", 0.001),
    _duration("result_ttl", 3600.0, "How long the record of a success is kept; 0 removes it at once."),
    _duration("failure_ttl", 604_800.0, "How long the record of a failure is kept; 0 removes it at once."),
    _integer("keep_ended", 10_000, "ids", "How many ended ids a queue remembers; 0: none.", 0, 10_000_000),
    _integer("keep_events", 200, "events", "How many events of a task are kept for late watchers; 0: none.", 0),
    Setting("capture_logs", "boolean", True, "Whether what tasks log goes out as events, too."),
    Setting("capture_print", "boolean", False, "Whether what tasks print goes out as events, too."),
    _duration("sweep_interval", 60.0, "How often one node looks for tasks that were lost; 0: never.", 0, 86_400),
    _integer("threads", 32, "threads", "How many calls of `in_thread` run at once on a node.", 1, 1000),
    Setting("callable_prefixes", "dotted paths", (), "Modules whose functions tasks may call by path."),
    Setting("durable", "boolean", False, "Whether a write counts only when a replica has confirmed it (`WAIT`)."),
    Setting("local_tasks", "boolean", True, "Whether the node runs Monitor, Cleanup and the others by itself."),
)

SETTINGS: Mapping[str, Setting] = MappingProxyType({row.name: row for row in _ROWS})
"""The table, by name, in the order of the documentation."""

_DEFAULTS: Mapping[str, Any] = {row.name: row.default for row in _ROWS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One checked value for each setting. `Settings()` holds the defaults, without a look at the environment.

    Its repr shows neither `redis` nor the password.
    """

    redis: object = field(default=_DEFAULTS["redis"], repr=False, hash=False)
    namespace: str = _DEFAULTS["namespace"]
    queues: QueueNames = _DEFAULTS["queues"]
    concurrency: int = _DEFAULTS["concurrency"]
    node_name: str = _DEFAULTS["node_name"]
    node_timeout: float = _DEFAULTS["node_timeout"]
    grace: float = _DEFAULTS["grace"]
    hash_wait: float = _DEFAULTS["hash_wait"]
    unknown_wait: float = _DEFAULTS["unknown_wait"]
    connect_timeout: float = _DEFAULTS["connect_timeout"]
    max_data: int = _DEFAULTS["max_data"]
    max_deliveries: int = _DEFAULTS["max_deliveries"]
    block_warning: float = _DEFAULTS["block_warning"]
    block_timeout: float = _DEFAULTS["block_timeout"]
    result_ttl: float = _DEFAULTS["result_ttl"]
    failure_ttl: float = _DEFAULTS["failure_ttl"]
    keep_ended: int = _DEFAULTS["keep_ended"]
    keep_events: int = _DEFAULTS["keep_events"]
    capture_logs: bool = _DEFAULTS["capture_logs"]
    capture_print: bool = _DEFAULTS["capture_print"]
    sweep_interval: float = _DEFAULTS["sweep_interval"]
    threads: int = _DEFAULTS["threads"]
    callable_prefixes: tuple[str, ...] = _DEFAULTS["callable_prefixes"]
    durable: bool = _DEFAULTS["durable"]
    local_tasks: bool = _DEFAULTS["local_tasks"]
    redis_password: str | None = field(default=None, repr=False, hash=False)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = {name: _Found(getattr(self, name), f"setting {name}") for name in SETTINGS}
        for name, value in _check_all(found).items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Settings:
        """A copy with these settings changed and checked."""
        for name in changes:
            if name not in ("redis_password", "warnings"):
                _check_known(name, "setting {}".format)
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class _Found:
    """A value as it was given, and where: `flag --grace`, `key grace in pyproject.toml`."""

    value: object = field(repr=False)
    origin: str


def load(
    arguments: Mapping[str, object] | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: str | Path | None = None,
    cwd: Path | None = None,
) -> Settings:
    """The settings: a flag counts more than an argument, then come environment, file and default.

    `file` stands in for `pyproject.toml` in `cwd`. None in `flags` and `arguments`, and an empty environment
    variable, mean "not given". Reads files; raises SettingError, which names where the value came from.
    """
    environ = os.environ if environ is None else environ
    found = {
        **_from_file(file, Path(cwd or "")),
        **_from_environment(environ),
        **_from_mapping(arguments or {}, "argument {}".format),
        **_from_mapping(flags or {}, lambda name: f"flag {_flag(name)}"),
    }
    return Settings(
        **_check_all(found),
        redis_password=_read_password(environ.get(_PASSWORD_FILE)),
        warnings=tuple(_iter_warnings(environ)),
    )


def _check_all(found: Mapping[str, _Found]) -> dict[str, Any]:
    values = {name: _check_one(SETTINGS[name], given) for name, given in found.items()}
    _check_blocking(values, found)
    return values


def _check_one(setting: Setting, given: _Found) -> Any:
    try:
        return setting.check(given.value)
    except SettingError as error:
        raise SettingError(f"{given.origin}: {error}") from None


def _check_blocking(values: Mapping[str, float], found: Mapping[str, _Found]) -> None:
    """A node warns before it gives up."""
    timeout, warning = ({**_DEFAULTS, **values}[name] for name in ("block_timeout", "block_warning"))
    if timeout > warning:
        return
    texts = [
        f"{name} ({as_number(value)} s, {found[name].origin if name in found else 'default'})"
        for name, value in (("block_timeout", timeout), ("block_warning", warning))
    ]
    raise SettingError(f"{texts[0]} must be longer than {texts[1]}")


# Where values come from


def _from_mapping(values: Mapping[str, object], origin: Callable[[str], str]) -> dict[str, _Found]:
    for name in values:
        _check_known(name, origin)
    return {name: _Found(value, origin(name)) for name, value in values.items() if value is not None}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Found]:
    return {
        setting.name: _Found(environ[variable], f"environment variable {variable}")
        for setting in _ROWS
        for variable in reversed(setting.variables)  # a later one, which counts more, replaces an earlier one
        if environ.get(variable)
    }


def _from_file(file: str | Path | None, cwd: Path) -> dict[str, _Found]:
    shown_path = "pyproject.toml" if file is None else str(file)
    document = _read_toml(cwd / shown_path, shown_path, may_miss=file is None)
    table = _find_table(document, shown_path, is_own=file is not None)
    return _from_mapping(table, lambda name: f"key {name} in {shown_path}")


def _read_toml(path: Path, shown_path: str, *, may_miss: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        if may_miss and isinstance(error, FileNotFoundError | NotADirectoryError):
            return {}
        raise SettingError(f"file {shown(shown_path)} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a NUL in the path, nested too deep
        raise SettingError(f"file {shown(shown_path)} is no valid TOML: {str(error)[:200]}") from None


def _find_table(document: dict[str, Any], shown_path: str, *, is_own: bool) -> dict[str, Any]:
    """The settings in a document; without any [tool...] they are at its top, if it is our own."""
    tools = document.get("tool")
    if not isinstance(tools, dict):
        return document if is_own else {}
    table = tools.get(FILE_TABLE)
    if isinstance(table, dict):
        return table
    if FILE_TABLE in tools or is_own:
        raise SettingError(f"file {shown(shown_path)} has no table [tool.{FILE_TABLE}]")
    return {}


def _read_password(path: str | None) -> str | None:
    """The password in the file, without the newline at its end. No error holds a part of it."""
    if not path:
        return None
    origin = f"environment variable {_PASSWORD_FILE}: file {shown(path)}"
    try:
        with open(path, "rb") as file:
            password = file.read(_PASSWORD_MAX).decode().rstrip("\r\n")
    except OSError as error:
        raise SettingError(f"{origin} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path, or bytes that are not UTF-8
        raise SettingError(f"{origin} holds no UTF-8 text") from None
    if not 0 < len(password) < _PASSWORD_MAX:
        raise SettingError(f"{origin} is empty or too long")
    return password


def _iter_warnings(environ: Mapping[str, str]) -> Iterable[str]:
    """Environments are shared, so that a variable that nobody knows is no error."""
    known = {variable for setting in _ROWS for variable in setting.variables}.union(_OTHER_VARIABLES)
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_IGNORED_PREFIXES):
            advice = _suggestion(name, known, _PREFIX)
            yield f"environment variable {_shown_name(name)} is unknown and ignored{advice}"


def _check_known(name: object, origin: Callable[[str], str]) -> None:
    if name not in SETTINGS:
        raise SettingError(f"{origin(_shown_name(name))} is unknown{_suggestion(name, SETTINGS)}")


def _shown_name(name: object) -> str:
    return shown(name).strip("'")


def _suggestion(name: object, known: Iterable[str], prefix: str = "") -> str:
    """`: did you mean ...?` with the name that is closest, the prefix that all share left out; or `''`."""
    rest = str(name)[:80].removeprefix(prefix).replace("-", "_") if isinstance(name, str) else ""
    close = difflib.get_close_matches(rest, [item.removeprefix(prefix) for item in sorted(known)], n=1)
    return f": did you mean {prefix}{close[0]}?" if close else ""


_FLAGS = {"queues": "--queue", "node_name": "--name", "redis": "--url"}  # shorter than their settings


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


_CHECKS: Mapping[Kind, Callable[[object], object]] = {
    "namespace": names.check_namespace,
    "queue names": check_queues,
    "node name": names.check_node_name,
    "boolean": check_boolean,
    "dotted paths": names.check_python_paths,
    "address": lambda value: value,  # the store knows what it can connect to
}
