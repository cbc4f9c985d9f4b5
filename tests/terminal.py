"""A program in a terminal of its own, as a person would run it: size, Ctrl-C, and what it wrote."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from conftest import wait_until

CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ON_ITS_TTY = 'exec "$@" <"$0" >"$0" 2>&1'  # whoever opens it first in a new session gets it as its terminal


class Terminal:
    """Runs a command; everything that it writes, standard error too, is in `raw`."""

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80, **environ: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            ["sh", "-c", ON_ITS_TTY, os.ttyname(slave), *command],
            start_new_session=True,
            env={**kept, "TERM": "xterm-256color", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._slave = slave  # kept open: what was written can be read after the end
        self.raw = ""

    def read(self) -> None:
        """Take in what is there now."""
        while select.select([self._master], [], [], 0)[0]:
            self.raw += os.read(self._master, 65536).decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        self.read()
        return CONTROL_SEQUENCE.sub("", self.raw)

    def wait_for(self, text: str, deadline: float = 20.0) -> None:
        wait_until(lambda: text in self.text, f"{text!r} on the terminal:\n{self.text}", deadline)

    def type(self, keys: str) -> None:
        """`\\x03` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait(self, deadline: float = 20.0) -> int:
        """The exit status."""

        def ended() -> bool:
            self.read()  # so that it can go on writing
            return self.process.poll() is not None

        wait_until(ended, f"the end of the program:\n{self.text}", deadline)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        os.close(self._master)
        os.close(self._slave)


def descendants(pid: int) -> list[int]:
    """The processes that this one started, and those that they started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [pid for child in found for pid in descendants(child)]


def lives(pid: int) -> bool:
    """Does this process run? One that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
