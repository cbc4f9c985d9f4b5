"""Commands of `pytask`, run from outside to their ends."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nursery

Ran = subprocess.CompletedProcess


def environment(**more: str) -> dict[str, str]:
    """This one, without what it says of Redis."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTASK_") and k != "REDIS_URL"}
    return {**kept, **more}


def run(*arguments: str | bytes, stdin: str = "", cwd: Path | None = None, **environ: str) -> Ran[str]:
    """A command to its end."""
    return nursery.run(arguments, stdin=stdin, cwd=cwd, environ=environment(**environ))


def objects(ran: Ran[str]) -> list[Any]:
    """What a command with --json has printed."""
    return [json.loads(line) for line in ran.stdout.splitlines()]
