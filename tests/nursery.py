"""Nodes and other `pytask` commands as processes that are born with their imports done.

A nursery (nursery_process.py) has imported pytask and forks a child for each command, which is a process of its
own in every other respect: its id, environment, folder, streams, signals and exit status. That spares most of the
half second that a start takes. With PYTASK_TEST_FORK=0 each command is a new interpreter, as it always is where a
test starts `python -m pytask` itself, and with `make chaos` and `make soak`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from pytask.__main__ import runs_a_node

PROGRAM = Path(__file__).with_name("nursery_process.py")
Process = Any
"""A Popen, or a Forked, which has the same methods."""


def _can_fork() -> bool:
    """On Linux, unless told otherwise: it takes a descriptor of a process that is not one's own child."""
    if os.environ.get("PYTASK_TEST_FORK") == "0" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


FORKS = _can_fork()


class Nursery:
    """One process that forks others. `kind`: `patched` for nodes, `plain` for all other commands."""

    def __init__(self, kind: str) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, str(PROGRAM), kind, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._answers = self._socket.makefile("rb")

    def ask(self, request: dict[str, Any], streams: Sequence[int] = ()) -> Any:
        text = json.dumps(request).encode()
        socket.send_fds(self._socket, [struct.pack("!I", len(text))], streams)
        self._socket.sendall(text)
        return json.loads(self._answers.readline())

    def close(self) -> None:
        """End it, and all that it has forked."""
        self._answers.close()
        self._socket.close()
        self._process.wait(10)


@cache
def nursery(kind: str) -> Nursery:
    """The one of this process, started when it is first needed."""
    made = Nursery(kind)
    atexit.register(made.close)
    return made


class Forked:
    """A child of a nursery, with the part of Popen's methods that tests use."""

    def __init__(self, home: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._home = home
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.returncode = self._home.ask({"status": self.pid})
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("pytask", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    words: Sequence[str | bytes],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes],
    stderr: IO[bytes],
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Process:
    """Start `pytask` with these words."""
    words = [os.fsdecode(word) for word in words]
    if not FORKS:
        command = [sys.executable, "-m", "pytask", *words]
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=dict(environ))
    home = nursery("patched" if runs_a_node(words) else "plain")
    request = {"start": words, "cwd": str((cwd or Path()).resolve()), "environ": dict(environ)}
    with open(os.devnull, "rb") as nothing:
        streams = [nothing if stdin == subprocess.DEVNULL else stdin, stdout, stderr]
        return Forked(home, home.ask(request, [stream.fileno() for stream in streams]))


def run(
    words: Sequence[str | bytes],
    *,
    stdin: str = "",
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `pytask` with these words to its end; as `subprocess.run` with captured text."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        process = start(words, stdin=given, stdout=out, stderr=err, cwd=cwd, environ=environ)
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait(10)
        texts = [_text_of(file) for file in (out, err)]
    return subprocess.CompletedProcess(list(words), process.returncode, *texts)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")
