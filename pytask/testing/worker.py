"""Worker: a real `pytask worker`, in a process of its own, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Self

from pytask import supervision
from pytask.app import PyTask
from pytask.errors import PyTaskError

READY_SECONDS = 30.0


class Worker:
    """`with Worker("shop.tasks:task_app", on=app):` runs a node on the server of `app`, for as long as the block.

    `options` are those of `pytask worker`; `path` is where the module is found. `node_id`, `pid` and `log`, its
    output so far, tell of it.
    """

    def __init__(self, where: str, *options: str, on: PyTask, path: str = ".") -> None:
        self.node_id = ""
        self._command = [sys.executable, "-m", "pytask", "worker", where, "--path", path, "-u", _url(on), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the block ends

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode("utf-8", "backslashreplace")

    def start(self) -> Self:
        """Start it and wait until it takes tasks. Raises PyTaskError with its output where it does not."""
        # A module that starts a worker of itself when it is imported would go on for ever.
        if supervision.CHILD_FD in os.environ:
            raise PyTaskError(
                "a worker starts no other one: the module of its app must not do so when it is imported"
            )
        reader, writer = os.pipe()
        try:
            environ = {**os.environ, **supervision.environment(writer)}
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                self._command, stdout=self._log, stderr=self._log, env=environ, pass_fds=(writer,)
            )
            os.close(writer)
            writer = -1
            self.node_id = self._read_id(reader)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return self

    def _read_id(self, reader: int) -> str:
        deadline = time.monotonic() + READY_SECONDS
        text = b""
        while not text.endswith(b"\n"):
            ready = select.select([reader], [], [], max(deadline - time.monotonic(), 0))[0]
            part = os.read(reader, 4096) if ready else b""
            if not part:
                self.kill()
                log = self.log
                self._log.close()
                raise PyTaskError(f"the worker did not start:\n{log}")
            text += part
        return text.decode().split("\n")[0]

    def stop(self, timeout: float = 40.0) -> int:
        """End it in order (SIGTERM), and kill it where that takes too long; returns its exit status."""
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return process.returncode

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


def _url(app: PyTask) -> str:
    given = app.url if app.is_embedded else app.settings.redis
    if not isinstance(given, str):
        raise PyTaskError("a worker needs an app whose server has a URL")
    return given
