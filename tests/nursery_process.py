"""The program of a nursery: imports what a command of pytask needs, once, and forks a child for each request.

    python nursery_process.py patched|plain FD

A request comes on the socket FD, as JSON behind its length, with the child's standard streams as descriptors:
`{"start": [words of the command], "cwd": ..., "environ": {...}}` is answered by the child's id, `{"status": ID}`
by its exit status, as Popen gives it, once it has ended. A child is what `python -m pytask` is once its
imports are done; it runs to the ordinary end of the interpreter. The end of the socket ends them all.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import posix  # its fork is the system's, also where gevent has patched
import signal
import socket
import struct
import sys
import time
from typing import Any

PACKAGES = {"patched": ("pytask.node", "pytask.tasks"), "plain": ("pytask.cli",)}


def import_all(kind: str) -> None:
    if kind == "patched":
        from gevent import monkey

        monkey.patch_all()
    importlib.import_module("pytask.cli.worker")
    for name in PACKAGES[kind]:
        for found in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(found.name)


def serve(own: socket.socket) -> list[str]:
    """Answer until the socket ends; returns in a child, with its words."""
    children: set[int] = set()
    while True:
        length, streams, *_ = socket.recv_fds(own, 4, 3)
        if not length:
            end(children)
        request = json.loads(receive(own, struct.unpack("!I", length)[0]))
        if "start" in request:
            pid = posix.fork()
            if not pid:
                own.close()
                become(request, streams)
                return request["start"]
            children.add(pid)
            for stream in streams:
                os.close(stream)
            answer: Any = pid
        else:
            answer = status_of(request["status"], children)
        own.sendall(json.dumps(answer).encode() + b"\n")


def receive(own: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += own.recv(count - len(found))
    return found


def status_of(pid: int, children: set[int]) -> int:
    _, status = posix.waitpid(pid, 0)
    children.discard(pid)
    return os.waitstatus_to_exitcode(status)


def end(children: set[int]) -> None:
    for pid in children:
        posix.kill(pid, signal.SIGKILL)
    os._exit(0)


def folders() -> list[str]:
    """What PYTHONPATH adds to the path of imports."""
    return [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Take on the streams, the folder, the environment and the command line of the request."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(streams) + 1)
    os.chdir(request["cwd"])
    given = len(folders())
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    sys.path[: 1 + given] = [request["cwd"], *folders()]  # as `python -m` has it, and what follows
    sys.modules["__main__"].__package__ = "pytask"
    sys.argv = [sys.modules["pytask"].__path__[0] + "/__main__.py", *request["start"]]
    sys.orig_argv = [sys.executable, "-m", "pytask", *request["start"]]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = socket.socket(fileno=int(sys.argv[2]))
    import_all(sys.argv[1])
    serve(own)
    from pytask.__main__ import main as command

    command()


if __name__ == "__main__":
    main()
