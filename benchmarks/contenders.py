"""Who is measured: each directory of `peers/` with its `peer.toml`, and its virtual environment under `.bench/`.

A `peer.toml` holds the title; `[scenarios]`, for each scenario how many tasks and how many at once (one that is
missing, or `false`, is not measured, and `skipped` says why); `[variants.NAME]` with the command of the worker,
the variables of `environ`, what it `keeps` for a task, its own `scenarios`, and `only` some of the scenarios; and
`[settings]`: every setting that is not the default, and why. In commands {python}, {bin}, {here}, {url}, {host},
{port}, {password}, {concurrency} are filled in."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness

PEERS = harness.HERE / "peers"
ENVIRONMENTS = harness.SCRATCH / "environments"
INSTALL_SECONDS = 600
SCENARIOS = ("drain", "io", "latency", "memory", "enqueue")
OWN = ("pytask", "pytask-2")
FLOOR = "floor"


@dataclass(frozen=True)
class Contender:
    """One variant of one peer."""

    name: str
    title: str
    peer: str
    keeps: str
    command: list[str]
    environ: dict[str, str]
    scenarios: dict[str, dict[str, Any]]
    settings: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    home: bool = False

    @property
    def directory(self) -> Path:
        return PEERS / self.peer

    @property
    def requirements(self) -> Path:
        return self.directory / "requirements.txt"

    @property
    def environment(self) -> Path:
        return ENVIRONMENTS / self.peer

    @property
    def python(self) -> Path:
        """The interpreter that runs its worker and its producer."""
        return Path(sys.executable) if self.home else self.environment / "bin" / "python"

    def worker_command(self, server: harness.Server, concurrency: int) -> list[str]:
        """The command line of a worker."""
        environ = server.environ
        words = {
            "python": str(self.python),
            "bin": str(self.python.parent),
            "here": str(self.directory),
            "url": server.url,
            "host": environ["BENCH_HOST"],
            "port": environ["BENCH_PORT"],
            "password": environ["BENCH_PASSWORD"],
            "concurrency": str(concurrency),
        }
        return [part.format(**words) for part in self.command]

    def agent_command(self, *arguments: object) -> list[str]:
        """The command line of a producer."""
        return [str(self.python), str(PEERS / "agent.py"), str(self.directory), *map(str, arguments)]


def all_contenders() -> dict[str, Contender]:
    """By name, the project and its floor first, then the peers by name."""
    found = [one for path in PEERS.glob("*/peer.toml") for one in load(path)]
    found.sort(key=lambda one: (one.peer != "pytask", one.peer != FLOOR, one.peer))
    return {one.name: one for one in found}


def load(path: Path) -> list[Contender]:
    """The variants of one peer."""
    content = tomllib.loads(path.read_text())
    return [_variant(path.parent.name, content, name, row) for name, row in content["variants"].items()]


def _variant(peer: str, content: dict[str, Any], name: str, row: dict[str, Any]) -> Contender:
    scenarios = {**content["scenarios"], **row.get("scenarios", {})}
    if "only" in row:
        scenarios = {scenario: scenarios[scenario] for scenario in row["only"]}
    return Contender(
        name=name,
        title=row.get("title", content["title"]),
        peer=peer,
        keeps=row["keeps"],
        command=row["command"],
        environ={key: str(value) for key, value in row.get("environ", {}).items()},
        scenarios={scenario: setup for scenario, setup in scenarios.items() if setup is not False},
        settings=content.get("settings", {}),
        skipped={**content.get("skipped", {}), **row.get("skipped", {})},
        home=content.get("home", False),
    )


def install(contender: Contender) -> dict[str, str]:
    """The versions in the peer's environment, which is made, or made anew when its requirements changed.

    Raises BenchmarkError where that fails; it is tried again the next time.
    """
    if contender.home:
        return {}
    mark = contender.environment / "installed"
    wanted = hashlib.sha256(contender.requirements.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        create_environment(contender.environment, contender.requirements)
        mark.write_text(wanted)
    return versions(contender.python)


def create_environment(directory: Path, requirements: Path) -> None:
    """A virtual environment with these packages. Blocks for a minute or so. Raises BenchmarkError."""
    print(f"installing {requirements.parent.name} into {directory}, once", file=sys.stderr, flush=True)
    harness.run_program([sys.executable, "-m", "venv", "--clear", directory], INSTALL_SECONDS)
    pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    harness.run_program([*pip, "-r", requirements], INSTALL_SECONDS)


def versions(python: Path) -> dict[str, str]:
    """The packages of an environment."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    rows = json.loads(subprocess.check_output(command, text=True))
    return {row["name"].lower(): row["version"] for row in rows if row["name"] not in ("pip", "setuptools")}
