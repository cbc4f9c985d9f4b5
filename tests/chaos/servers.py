"""Servers of the tests' own, on loopback: each a process that can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import redis

from pytask.embedded import find_binary

START_SECONDS = 20.0
MEMORY = Path("/dev/shm")  # a killed process loses nothing that it wrote there, and fsync costs nothing
KINDS = ("valkey", "redis")


def binary_of(kind: str) -> str:
    """The program of a kind of server. Raises FileNotFoundError where it is not installed."""
    if kind == "valkey":
        return find_binary()
    found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError("redis-server is not installed: on Debian, apt install redis-server")
    return found


def make_folder() -> Path:
    """A new directory for servers' data."""
    return Path(tempfile.mkdtemp(prefix="chaos-", dir=MEMORY if MEMORY.is_dir() else None))


def find_ports(count: int) -> list[int]:
    """Free ports on loopback whose number plus 10,000, the bus of a cluster, is free as well."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 30_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class ServerProcess:
    """One server process. Its directory, and so its data, outlives it.

    `options` are those of the command line, as `{"appendonly": "yes"}`. `connect` are the arguments with which a
    client reaches it besides host and port.
    """

    def __init__(
        self, binary: str, folder: Path, port: int, options: dict[str, Any], connect: dict[str, Any] | None = None
    ) -> None:
        self.binary = binary
        self.folder = folder
        self.port = port
        self.options = options
        self.connect = connect or {}
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        """What starts it."""
        words = [self.binary]
        for name, value in {"bind": "127.0.0.1", "port": self.port, "dir": self.folder, **self.options}.items():
            words += [f"--{name}", *(str(value).split() or [""])]
        return words

    def start(self, wait: bool = True) -> None:
        """Start it, and block until it answers."""
        assert not self.alive
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Block until it answers and has loaded its data."""
        deadline = time.monotonic() + START_SECONDS
        with self.client(socket_timeout=2) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(redis.RedisError):
                    if client.ping():
                        return
                if not self.alive:
                    break
                time.sleep(0.01)
        raise RuntimeError(f"the server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def client(self, **arguments: Any) -> redis.Redis:
        """A client of this very process."""
        return redis.Redis(host="127.0.0.1", port=self.port, **{**self.connect, **arguments})

    def has_obeyed(self, offset: int) -> bool:
        """Has it, as a replica, all that its master had sent up to this offset?

        After it has loaded a snapshot its link is up, and what was written meanwhile may still be on its way.
        """
        try:
            with self.client(socket_timeout=1) as client:
                role = client.execute_command("ROLE")
        except redis.RedisError:
            return False
        return bool(role[0] == b"slave" and role[3] == b"connected" and int(role[4]) >= offset)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; what it had not written is gone."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """SIGTERM: it ends in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.alive:
            self.signal(number)
            self.signal(signal.SIGCONT)
            assert self.process is not None
            self.process.wait(20)


class Deployment:
    """One or more servers that belong together. `url` is what apps are given."""

    name = ""
    url = ""

    def __init__(self) -> None:
        self.folder = make_folder()
        self.servers: list[ServerProcess] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all of it."""
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait_until_ready()

    def client(self) -> Any:
        """A client as the application would have it, without retries of its own."""
        raise NotImplementedError

    def masters(self) -> list[ServerProcess]:
        """Those that hold the data now."""
        return list(self.servers)

    def is_whole(self) -> bool:
        """Do all servers work, each master with its replicas?"""
        return all(server.alive for server in self.servers)

    def iter_keys(self, pattern: str = "*") -> Iterator[bytes]:
        """The keys on all masters."""
        for server in self.masters():
            with server.client() as client:
                yield from client.scan_iter(pattern, count=1000)

    def environ(self) -> dict[str, str]:
        """What nodes need in their environment to reach it."""
        return {}

    def close(self) -> None:
        """End every process and remove the data."""
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


DURABLE = {"appendonly": "yes", "appendfsync": "always", "save": "", "loglevel": "notice"}
"""A command is on the file before its reply leaves: a kill takes nothing back that was acknowledged."""


class Single(Deployment):
    """One server with an append-only file."""

    def __init__(self, kind: str = "valkey") -> None:
        super().__init__()
        self.name = f"single {kind}"
        (port,) = find_ports(1)
        self.server = ServerProcess(binary_of(kind), self.folder, port, DURABLE)
        self.servers = [self.server]
        self.url = f"redis://127.0.0.1:{port}/0"

    def client(self) -> redis.Redis:
        return self.server.client()


def is_running(pid: int) -> bool:
    """Is there such a process, and is it no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def resident_bytes(pid: int) -> int:
    """The memory of a process, as the system counts it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
