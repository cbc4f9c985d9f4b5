"""The examples of other libraries' documents, to the letter, and programs that are made of them.

`examples/<library>.md` holds the blocks, each below its name. What a test edits in them stands in a list of `Edit`
with the reasons; the same list stands on the page of the library in docs/coming-from/.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from conftest import HERE, wait_until

from pytask.embedded import EmbeddedServer

EXAMPLES = Path(__file__).parent / "examples"
PAGES = HERE.parent / "docs" / "coming-from"
HEAD = "| in the document | here | because |"


class Edit(NamedTuple):
    """In a block of the document: what stands there, what stands here, and why; `told`: how the page shows it."""

    block: str
    old: str
    new: str
    reason: str
    told: str = ""


def rows_of(edits: Iterable[Edit]) -> list[tuple[str, str, str]]:
    """The rows of the page's table of edits."""
    return list(dict.fromkeys((edit.told or edit.old, edit.new, edit.reason) for edit in edits))


def read_blocks(library: str) -> dict[str, str]:
    """The blocks by name."""
    found = re.findall(
        r"^## (\w+)\n\n```python\n(.*?)^```$", (EXAMPLES / f"{library}.md").read_text(), re.M | re.S
    )
    return dict(found)


def write_program(library: str, names: Sequence[str], edits: Sequence[Edit]) -> str:
    """The blocks one after the other, edited. Fails where an edit finds nothing to change."""
    blocks = read_blocks(library)
    for edit in edits:
        if edit.block in names:
            assert edit.old in blocks[edit.block], edit
            blocks[edit.block] = blocks[edit.block].replace(edit.old, edit.new)
    return "\n".join(blocks[name] for name in names)


def rows_on_page(library: str) -> list[tuple[str, str, str]]:
    """The same as they stand on the page."""
    lines = _page(library).partition(f"{HEAD}\n|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [(old.strip("`"), new.strip("`"), reason) for old, new, reason in cells]


class OpenServer(NamedTuple):
    """A server on a port of loopback, without a password, as the documents have it."""

    port: int
    url: str


@contextlib.contextmanager
def open_server() -> Iterator[OpenServer]:
    """One that is ended behind it."""
    with EmbeddedServer(tcp=True) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "")
        port = urlsplit(server.url).port or 0
        yield OpenServer(port, f"redis://127.0.0.1:{port}/0")


class Program:
    """A script that runs as a user starts it: `python name.py`."""

    def __init__(self, folder: Path, name: str, text: str, environ: Mapping[str, str]) -> None:
        self.file = folder / f"{name}.py"
        self.file.write_text('print("the program runs", flush=True)\n' + text)
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore::RuntimeWarning", str(self.file)],
                stdout=out,
                stderr=out,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1", **environ},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self, deadline: float = 40) -> int:
        wait_until(
            lambda: self.process.poll() is not None, lambda: f"the end of {self.file.name}:\n{self.text}", deadline
        )
        return self.process.returncode

    def end(self) -> None:
        """Whatever it does: nodes end with their program."""
        self.process.kill()
        self.process.wait()


def nodes_of(client: Any, queue: str) -> list[str]:
    """The ids of the nodes that serve the queue with this key."""
    return [node.decode() for node in client.hkeys("{" + queue + "}:nodes")]


def write_page_files(library: str, folder: Path) -> None:
    """Write the files of a page: its Python blocks that begin with `# name.py`."""
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", _page(library), re.M | re.S):
        (folder / name).write_text(text)


def run_page(library: str, client: Any, names: dict[str, Any]) -> None:
    """Run the other Python blocks of a page, which print what stands behind `# ->`; send its Redis commands."""
    for language, text in re.findall(r"^```(python|redis)\n(.*?)^```$", _page(library), re.M | re.S):
        if language == "redis":
            for line in text.splitlines():
                client.execute_command(*shlex.split(line))
        elif not re.match(r"# \w+\.py\n", text):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(text, names)
            assert printed.getvalue().splitlines() == re.findall(r"# -> (.*)", text)


def _page(library: str) -> str:
    return (PAGES / f"{library}.md").read_text()
