"""The fleet: nodes, each a `pytask worker` process with its log in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import nursery

from chaos import journal

TESTS = Path(__file__).parent.parent
READY_SECONDS = 40.0


@dataclass
class Node:
    """One process."""

    process: nursery.Process
    log: Path
    frozen: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def ready(self) -> bool:
        """It has told what it serves: the last line of that."""
        return "local   " in self.text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready:
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start:\n{self.text()}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, whatever it does."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def freeze(self) -> None:
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.signal(signal.SIGCONT)


@dataclass
class Fleet:
    """Starts nodes. `settings` go to all of them, as environment variables."""

    url: str
    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    app: str = "chaos.app:app"
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self, *, url: str = "", wait: bool = False, **environ: str) -> Node:
        """Start a node. `environ`: more variables, in lower case without `PYTASK_`."""
        log = self.folder / f"node-{len(self.nodes)}.log"
        settings = {f"PYTASK_{name.upper()}": str(value) for name, value in {**self.settings, **environ}.items()}
        words = ["worker", self.app, "--path", str(TESTS), "-u", url or self.url]
        environ = {**os.environ, journal.FOLDER: str(self.folder), **self.environ, **settings}
        with log.open("wb") as out:
            process = nursery.start(words, stdout=out, stderr=out, environ=environ)
        node = Node(process, log)
        self.nodes.append(node)
        if wait:
            node.wait_until_ready()
        return node

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def stop(self, seconds: float = 40.0) -> list[int]:
        """SIGTERM to all; their exit statuses. One that does not end in time is killed: -9."""
        living = self.living
        for node in living:
            node.thaw()
            node.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for node in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(max(deadline - time.monotonic(), 0.1))
            if node.alive:
                node.kill()
        return [node.process.returncode for node in living]

    def close(self) -> None:
        """Kill what is left."""
        for node in self.living:
            node.kill()
