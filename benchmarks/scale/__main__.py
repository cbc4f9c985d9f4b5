"""The command line: `python -m scale`, in the directory `benchmarks`; see `--help`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import BenchmarkError, Progress

from scale import cluster, durability, flat, io_bound, memory, options, page

RESULTS = harness.HERE / "results" / "scale.json"
Step = Callable[[str], dict[str, Any]]


def steps_of(part: str) -> dict[str, Step]:
    """What is measured in one round of a part, by label; each step is given the kind of the server."""
    if part in flat.PARTS:
        measure, counts = flat.PARTS[part]
        return {str(count): lambda kind, n=count: measure(kind, n) for count in counts}
    if part == "io":
        return {case.label: lambda kind, c=case: io_bound.measure(kind, c) for case in io_bound.CASES}
    if part == "cluster":
        return {str(count): lambda kind, n=count: cluster.measure(kind, n) for count in cluster.MASTERS}
    if part == "options":
        return {variant.label: lambda kind, v=variant: options.measure(kind, v) for variant in options.VARIANTS}
    if part == "durable":
        return {label: lambda kind, d=durable: durability.measure(kind, d) for label, durable in durability.CASES}
    return {str(memory.COUNT): memory.measure}


PARTS = ("memory", "io", *flat.PARTS, "cluster", "options", "durable")


def run_round(part: str, kind: str, progress: Progress) -> dict[str, Any]:
    """One round of a part: its figures by label; a step that failed has `error` instead."""
    figures: dict[str, Any] = {}
    for label, step in steps_of(part).items():
        progress.begin(f"{part}: {label}")
        try:
            figures[label] = step(kind)
            progress.end(page.in_short(part, figures[label]))
        except BenchmarkError as error:
            figures[label] = {"error": str(error)}
            progress.end(f"failed: {error}")
    return figures


def run(names: list[str], kind: str, rounds: int, append: bool, path: Path) -> None:
    """All rounds of these parts in turns; the results are saved after each."""
    results = harness.load_json(path, {"parts": {}})
    if not append:
        results["parts"] = {name: part for name, part in results["parts"].items() if name not in names}
    progress = Progress(rounds * sum(len(steps_of(name)) for name in names))
    for _ in range(rounds):
        for name in names:
            part = results["parts"].setdefault(name, {"rounds": []})
            part["rounds"].append(run_round(name, kind, progress))
            part |= {"measured": harness.now(), "server": kind, "commit": harness.machine()["commit"]}
            results["machine"] = harness.machine()
            harness.save_json(path, results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scale", description="What a task costs, from one to many.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--append", action="store_true", help="keep the rounds that were measured before")
    parser.add_argument("--server", choices=("best", "redis", "valkey"), default="best", help="(%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="(%(default)s)")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing, write docs/scale.md from the results"
    )
    parser.add_argument("--no-page", action="store_true", help="write the results only")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return chosen


def main() -> None:
    chosen = parse()
    kind = harness.server_kinds()[0] if chosen.server == "best" else chosen.server
    if not chosen.page:
        names = [name for name in PARTS if name in (chosen.parts or PARTS)]
        run(names, kind, chosen.rounds, chosen.append, chosen.results)
    if not chosen.no_page:
        page.write(harness.load_json(chosen.results), harness.ROOT / "docs")


if __name__ == "__main__":
    main()
