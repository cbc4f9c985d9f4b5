"""`make bench-quick`: did it become slower? Ratios against the bare floors of the same run, in under two minutes.

The floor and the project take turns, each on a server of its own, and nothing is installed. A ratio says more than
a figure on a shared machine, since a slow minute hits both. Ratios are compared with those of baseline.json; what
moved by more than 15 % is told. The exit status is 0 whatever the figures are: it prints, and does not judge.

    make bench-quick                                  # a small table
    make bench-quick ARGS="--json"                    # one line
    make bench-quick ARGS="--scenarios drain --rounds 9"
    make bench-quick ARGS="--save"                    # these ratios are the baseline from now on
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import harness
import measuring
import report
from contenders import FLOOR, all_contenders
from harness import BenchmarkError

OWN = report.OWN
SCENARIOS = ("drain", "io", "latency", "enqueue")
ROUNDS, SCALE = 3, 0.5
MOVED = 0.15  # parts of the baseline
BASELINE = harness.HERE / "baseline.json"

Ratios = dict[str, float]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="with commas (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--scale", type=float, default=SCALE, help="times as many as in make bench (%(default)s)")
    parser.add_argument("--server", choices=("best", "redis", "valkey"), default="valkey", help="(%(default)s)")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="ratios to compare with")
    parser.add_argument("--save", action="store_true", help="write the ratios there")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Results, as `make bench` has them, of the floor and the project."""
    contenders = {name: all_contenders()[name] for name in (FLOOR, OWN)}
    about = {name: {"title": one.title, "peer": one.peer} for name, one in contenders.items()}
    records: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        for scenario in options.scenarios.split(","):
            for name, one in contenders.items():
                if scenario in one.scenarios:
                    record: dict[str, Any] = {"contender": name, "scenario": scenario, "round": number}
                    try:
                        record["figures"] = measuring.measure(one, scenario, options.server, options.scale)
                    except BenchmarkError as error:
                        record["error"] = str(error)
                    records.append(record)
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    return {"contenders": about, "records": records}


def ratios(figures: report.Figures) -> dict[str, float | None]:
    """All of them are better the greater they are."""

    def start(part: float) -> float | None:
        floor, own = figures.start(FLOOR, part), figures.start(OWN, part)
        return floor / own if floor and own else None

    def rate(scenario: str, figure: str) -> float | None:
        return figures.ratio((OWN, scenario, figure), (FLOOR, scenario, figure))

    return {
        "drain": rate("drain", "rate"),
        "io": figures.ratio((OWN, "io", "rate"), (OWN, "io", "ideal")),
        "start p50": start(0.5),
        "start p90": start(0.9),
        "enqueue one": rate("enqueue", "one"),
        "enqueue bulk": rate("enqueue", "many"),
    }


def rows(figures: report.Figures, baseline: Ratios) -> list[dict[str, Any]]:
    """For each ratio: `name`, `floor` and `own` (a second, or ms), `ratio`, `baseline`, `moved` or None."""
    sources = {
        "drain": (figures.median(FLOOR, "drain", "rate"), figures.median(OWN, "drain", "rate")),
        "io": (figures.median(OWN, "io", "ideal"), figures.median(OWN, "io", "rate")),
        "start p50": (figures.start(FLOOR, 0.5), figures.start(OWN, 0.5)),
        "start p90": (figures.start(FLOOR, 0.9), figures.start(OWN, 0.9)),
        "enqueue one": (figures.median(FLOOR, "enqueue", "one"), figures.median(OWN, "enqueue", "one")),
        "enqueue bulk": (figures.median(FLOOR, "enqueue", "many"), figures.median(OWN, "enqueue", "many")),
    }
    found = []
    for name, ratio in ratios(figures).items():
        before = baseline.get(name)
        moved = ratio / before - 1 if ratio and before else None
        floor, own = sources[name]
        row = {"name": name, "floor": floor, "own": own, "ratio": ratio, "baseline": before, "moved": moved}
        found.append(row)
    return found


def describe(row: dict[str, Any]) -> str:
    """A line of the table."""
    digits = 2 if row["name"].startswith("start") else 0
    floor, own = report.number(row["floor"], digits), report.number(row["own"], digits)
    line = f"{row['name']:14} {floor:>10} {own:>10} {report.number(row['ratio'], 2):>7}"
    line += f" {report.number(row['baseline'], 2):>9}"
    if row["moved"] is not None and abs(row["moved"]) > MOVED:
        line += f"   {'better' if row['moved'] > 0 else 'WORSE'} by {abs(row['moved']):.0%}"
    return line


def main(arguments: list[str] | None = None) -> None:
    """The command line's work."""
    options = parse(arguments)
    results = run(options)
    figures = report.Figures(results)
    baseline = harness.load_json(options.baseline, {}).get("ratios", {})
    found = rows(figures, baseline)
    errors = {f"{name}, {scenario}": why for (name, scenario), why in figures.errors().items()}
    if options.json:
        print(json.dumps({"rows": found, "errors": errors, "machine": harness.machine()}))
    else:
        print(f"{'':14} {'floor':>10} {'pytask':>10} {'ratio':>7} {'baseline':>9}")
        print("\n".join(describe(row) for row in found if row["own"] is not None))
        print(
            "\n".join(f"not measured: {name}: {why}" for name, why in errors.items()), end="\n" if errors else ""
        )
    if options.save:
        kept = {row["name"]: round(row["ratio"], 3) for row in found if row["ratio"]}
        harness.save_json(options.baseline, {"ratios": {**baseline, **kept}, "machine": harness.machine()})


if __name__ == "__main__":
    main()
