"""`make bench`: measures the project, its peers and the bare floor side by side, and writes docs/benchmarks.md.

In every round each scenario is measured with one contender after the other, so that a slow minute of the machine
hits all of them. Results are stored after every measurement; one that fails is stored with its reason, and the
rest goes on.

    make bench                                        # everything, three rounds: three quarters of an hour
    make bench ARGS="--only huey,pytask,floor --scenarios drain,io --rounds 5"
    make bench ARGS="--report"                        # the page and the plots again, from stored results
    make bench ARGS="--only huey --add"               # measure one anew, keep the rest
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import measuring
import report
from contenders import ENVIRONMENTS, SCENARIOS, Contender, all_contenders, create_environment, install
from harness import BenchmarkError

DOCS = harness.ROOT / "docs"
ROUNDS = 3
PLOTS = harness.HERE / "plots"

Results = dict[str, Any]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--only", metavar="NAMES", help="these contenders, with commas; see --list")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="with commas (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many tasks and seconds (%(default)s)")
    parser.add_argument(
        "--server", choices=("best", "redis", "valkey"), default="best", help="(redis, where it is)"
    )
    parser.add_argument("--add", action="store_true", help="keep stored results of what is not measured now")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing: write the page from stored results"
    )
    parser.add_argument(
        "--no-plots", action="store_true", help="do not draw, and do not install matplotlib for it"
    )
    parser.add_argument("--list", action="store_true", help="names of contenders")
    parser.add_argument("--results", type=Path, default=DOCS / "benchmarks" / "results.json", help="(%(default)s)")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md", help="(%(default)s)")
    options = parser.parse_args()
    options.contenders = choose(parser, options.only)
    options.scenarios = options.scenarios.split(",")
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return options


def choose(parser: argparse.ArgumentParser, only: str | None) -> list[Contender]:
    """The contenders with these names, in their usual order."""
    known = all_contenders()
    names = only.split(",") if only else list(known)
    if unknown := set(names) - set(known):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [one for name, one in known.items() if name in names]


def prepare(contenders: list[Contender]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the report says of each, and why some cannot be installed. Installs."""
    about, absent = {}, {}
    for one in contenders:
        about[one.name] = {
            "title": one.title,
            "peer": one.peer,
            "keeps": one.keeps,
            "settings": one.settings,
            "skipped": one.skipped,
            "versions": {},
        }
        try:
            about[one.name]["versions"] = install(one)
        except BenchmarkError as error:
            absent[one.name] = f"cannot be installed: {error}"
            print(f"{one.name}: {absent[one.name]}", file=sys.stderr)
    return about, absent


def start_results(options: argparse.Namespace) -> Results:
    """Stored results with `--add`, less what is measured now; else none yet."""
    results: Results = {"runs": [], "contenders": {}, "records": []}
    if options.add and (stored := harness.load_json(options.results)):
        names = {one.name for one in options.contenders}
        results = stored
        results["records"] = [
            row
            for row in stored["records"]
            if row["contender"] not in names or row["scenario"] not in options.scenarios
        ]
        used = {row["run"] for row in results["records"]}
        results["runs"] = [run for run in stored["runs"] if run["began"] in used]
    return results


def run(options: argparse.Namespace) -> Results:
    """Measure all that was asked for; stores as it goes."""
    results = start_results(options)
    about, absent = prepare(options.contenders)
    order = list(all_contenders())
    known = {**results["contenders"], **about}
    results["contenders"] = {name: known[name] for name in order if name in known}
    with harness.private_server(options.server) as server:
        kind = {"kind": server.kind, "version": server.version}
    began = harness.now()
    setup = {"rounds": options.rounds, "scale": options.scale, "command": " ".join(sys.argv[1:])}
    results["runs"].append({"began": began, "machine": harness.machine(), "server": kind, **setup})
    steps = [
        (number, scenario, one)
        for number in range(1, options.rounds + 1)
        for scenario in options.scenarios
        for one in options.contenders
        if scenario in one.scenarios
    ]
    progress = harness.Progress(len(steps))
    for number, scenario, one in steps:
        progress.begin(f"round {number}/{options.rounds}  {scenario:8} {one.name}")
        record = {"contender": one.name, "scenario": scenario, "round": number, "run": began}
        record |= attempt(one, scenario, absent, options)
        results["records"].append(record)
        harness.save_json(options.results, results)
        progress.end(describe(record))
    return results


def attempt(one: Contender, scenario: str, absent: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """The figures, or the error."""
    if one.name in absent:
        return {"error": absent[one.name]}
    try:
        return {"figures": measuring.measure(one, scenario, options.server, options.scale)}
    except BenchmarkError as error:
        return {"error": str(error)}


def describe(record: dict[str, Any]) -> str:
    """A few words on a measurement."""
    if "error" in record:
        return f"FAILED: {record['error'][:120]}"
    figures = record["figures"]
    if samples := figures.get("samples"):
        return f"p50 {harness.percentile(samples, 0.5):.2f} ms, p99 {harness.percentile(samples, 0.99):.2f} ms"
    if "kib" in figures:
        return f"{figures['kib']:.1f} KiB a task"
    if "one" in figures:
        return f"{report.number(figures['one'])}/s one at a time, {report.number(figures['many'])}/s in bulk"
    return f"{figures['rate']:,.0f} tasks/s"


def write_report(results: Results, options: argparse.Namespace) -> None:
    """The page, and the plots unless they are not wanted."""
    if not options.no_plots:
        draw(report.charts(results), options.results.parent)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(report.page(results))
    print(f"written: {options.page}", file=sys.stderr)


def draw(charts: list[dict[str, Any]], directory: Path) -> None:
    """Draw with matplotlib, in an environment of its own."""
    environment, requirements = ENVIRONMENTS / "plots", PLOTS / "requirements.txt"
    if not (environment / "installed").exists():
        create_environment(environment, requirements)
        (environment / "installed").touch()
    command = [environment / "bin" / "python", PLOTS / "draw.py", directory]
    subprocess.run(command, input=json.dumps(charts), text=True, check=True)


def main() -> None:
    """The command line's work."""
    options = parse()
    if options.list:
        print("\n".join(f"{one.name:18} {one.title}" for one in options.contenders))
        return
    results = harness.load_json(options.results) if options.report else run(options)
    if not results:
        raise SystemExit(f"no stored results at {options.results}")
    write_report(results, options)
    for target in report.targets(report.Figures(results)):
        print("{:70} {:>12}   {:18} {}".format(*target.row))


if __name__ == "__main__":
    main()
