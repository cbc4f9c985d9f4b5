"""The report: from stored results to a page in Markdown and to charts. Pure: measures nothing, opens nothing.

Results are a dict: `runs`, each with machine, server and settings; `contenders`, what is known of each; `records`,
one for each measurement: contender, scenario, round, run, and `figures` or `error`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from harness import Summary, percentile, summarize

OWN, TWO, FLOOR = "pytask", "pytask-2", "floor"
NOT_PEERS = (OWN, TWO, FLOOR)
WITH_RESULTS = ("dramatiq-results", "taskiq-results", "celery-results")
BUSY = 0.25  # cores that others used above which a round is marked

Results = dict[str, Any]
Row = list[str]


class Figures:
    """Results, asked for by contender, scenario and figure."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.contenders: dict[str, dict[str, Any]] = results["contenders"]

    def records(self, contender: str, scenario: str) -> list[dict[str, Any]]:
        """In the order of the rounds."""
        rows = [r for r in self.results["records"] if (r["contender"], r["scenario"]) == (contender, scenario)]
        return sorted(rows, key=lambda row: row["round"])

    def by_round(self, contender: str, scenario: str, figure: str) -> dict[tuple[Any, int], float]:
        """A figure, by run and round, of each round that has it."""
        rows = self.records(contender, scenario)
        values = {(row.get("run"), row["round"]): row.get("figures", {}).get(figure) for row in rows}
        return {key: value for key, value in values.items() if value is not None}

    def summary(self, contender: str, scenario: str, figure: str) -> Summary | None:
        """None where it was not measured."""
        values = self.by_round(contender, scenario, figure).values()
        return summarize(values) if values else None

    def median(self, contender: str, scenario: str, figure: str) -> float | None:
        found = self.summary(contender, scenario, figure)
        return found.median if found else None

    def samples(self, contender: str) -> list[float]:
        """Milliseconds of start latency, of all rounds together."""
        rows = self.records(contender, "latency")
        return [sample for row in rows for sample in row.get("figures", {}).get("samples", ())]

    def start(self, contender: str, part: float) -> float | None:
        """A percentile of the start latency."""
        samples = self.samples(contender)
        return percentile(samples, part) if samples else None

    def ratio(self, over: tuple[str, str, str], under: tuple[str, str, str]) -> float | None:
        """The median of the ratios of each round's pair, so that a slow minute hits both.

        None where they were never measured in the same run: such figures are not to be compared.
        """
        first, second = self.by_round(*over), self.by_round(*under)
        pairs = [first[key] / second[key] for key in first if second.get(key)]
        return statistics.median(pairs) if pairs else None

    def fastest(self, names: Iterable[str]) -> str | None:
        """The contender with the greatest median drain."""
        rates = {name: rate for name in names if (rate := self.median(name, "drain", "rate"))}
        return max(rates, key=lambda name: rates[name]) if rates else None

    @property
    def peers(self) -> list[str]:
        return [name for name in self.contenders if name not in NOT_PEERS]

    def errors(self) -> dict[tuple[str, str], str]:
        """Why a contender has no figure in a scenario, or not in all rounds."""
        rows = [row for row in self.results["records"] if "error" in row]
        return {(row["contender"], row["scenario"]): row["error"] for row in rows}


# What is to be reached.


class Target(NamedTuple):
    """A figure, what it should be, whether more of it is better."""

    what: str
    value: float | None
    wanted: float
    more: bool = True
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`reached`, or by how much it is missed."""
        if self.value is None:
            return "not measured"
        if (self.value >= self.wanted) if self.more else (self.value <= self.wanted):
            return "reached"
        part = abs(1 - self.value / self.wanted)
        return f"missed by {part:.0%}"

    @property
    def row(self) -> Row:
        value = "-" if self.value is None else f"{self.value:.2f}{self.unit}"
        sign = "at least" if self.more else "at most"
        return [self.what, value, f"{sign} {self.wanted:g}{self.unit}", self.verdict]


def targets(figures: Figures) -> list[Target]:
    """What this project has set itself, as far as these scenarios show it."""
    own = (OWN, "drain", "rate")
    fastest, kept = figures.fastest(figures.peers), figures.fastest(WITH_RESULTS)
    title = {name: figures.contenders[name]["title"] for name in figures.contenders}
    peer = figures.ratio(own, (fastest, "drain", "rate")) if fastest else None
    with_results = figures.ratio(own, (kept, "drain", "rate")) if kept else None
    one_trip = figures.ratio((FLOOR, "enqueue", "one"), (OWN, "enqueue", "one"))
    return [
        Target(f"drain against the fastest peer ({title.get(fastest or '', 'none')})", peer, 2.5),
        Target(f"drain against the fastest with results ({title.get(kept or '', 'none')})", with_results, 5),
        Target("drain against the bare floor", figures.ratio(own, (FLOOR, "drain", "rate")), 0.6),
        Target("drain with -p 2 against one process", figures.ratio((TWO, "drain", "rate"), own), 1.4),
        Target("500 at once, of the ideal", figures.ratio((OWN, "io", "rate"), (OWN, "io", "ideal")), 0.95),
        Target("start on an idle node, p50", figures.start(OWN, 0.5), 1.2, False, " ms"),
        Target("start on an idle node, p99", figures.start(OWN, 0.99), 3, False, " ms"),
        Target("enqueue in bulk against the bare floor", _bulk(figures), 0.6),
        Target("enqueue one against the bare round trip, time", one_trip, 1.5, False),
        Target("resident memory of an idle node", figures.median(OWN, "memory", "idle_mib"), 60, False, " MiB"),
    ]


def _bulk(figures: Figures) -> float | None:
    return figures.ratio((OWN, "enqueue", "many"), (FLOOR, "enqueue", "many"))


# Tables.


def table(head: Row, rows: Iterable[Row], left: int = 1) -> str:
    """A table in Markdown: the first `left` columns and those of WORDS to the left, figures to the right."""
    rules = ["---" if n < left or name in WORDS else "---:" for n, name in enumerate(head)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rules, *rows)) + "\n"


WORDS = ("keeps for a task", "why", "verdict", "setting", "versions", "scenario")


def number(value: float | None, digits: int = 0) -> str:
    """With thousands marked; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def overview(figures: Figures) -> str:
    """Everybody, fastest drain first."""
    order = sorted(figures.contenders, key=lambda name: -(figures.median(name, "drain", "rate") or 0))
    head = ["", "drain, tasks/s", "of ours", "500 x 100 ms, of the ideal", "start p50 / p99, ms", "KiB in flight"]
    head += ["enqueue one / bulk, /s", "keeps for a task"]
    return table(head, [_overview_row(figures, name) for name in order])


def _overview_row(figures: Figures, name: str) -> Row:
    def cell(scenario: str, text: str) -> str:
        return text if figures.records(name, scenario) else "-"

    own = figures.ratio((name, "drain", "rate"), (OWN, "drain", "rate"))
    part = figures.ratio((name, "io", "rate"), (name, "io", "ideal"))
    start = f"{number(figures.start(name, 0.5), 1)} / {number(figures.start(name, 0.99), 1)}"
    one, many = (number(figures.median(name, "enqueue", how)) for how in ("one", "many"))
    serial = any(row["figures"]["at_once"] == 1 for row in figures.records(name, "io") if "figures" in row)
    title = figures.contenders[name]["title"]
    return [
        f"**{title}**" if name in (OWN, TWO) else title,
        number(figures.median(name, "drain", "rate")),
        number(own, 2),
        "one at a time" if serial else number(part, 2),
        cell("latency", start),
        number(figures.median(name, "memory", "kib"), 1),
        cell("enqueue", f"{one} / {many}"),
        figures.contenders[name]["keeps"],
    ]


def details(figures: Figures, scenario: str, columns: dict[str, tuple[str, int]]) -> str:
    """One scenario: for each contender its figures' medians, with the least and the greatest of the first one."""
    main, *_ = columns
    names = [name for name in figures.contenders if figures.summary(name, scenario, main)]
    names.sort(key=lambda name: -(figures.median(name, scenario, main) or 0))
    head = ["", *(title for title, _ in columns.values()), "least to most", "spread", "rounds"]
    rows = []
    for name in names:
        found = figures.summary(name, scenario, main)
        assert found
        digits = columns[main][1]
        cells = [number(figures.median(name, scenario, key), d) for key, (_, d) in columns.items()]
        span = f"{number(found.least, digits)} to {number(found.most, digits)}"
        rows.append([figures.contenders[name]["title"], *cells, span, f"{found.spread:.0%}", str(found.rounds)])
    return table(head, rows)


def starts(figures: Figures) -> str:
    """Percentiles of the start latency."""
    names = [name for name in figures.contenders if figures.samples(name)]
    names.sort(key=lambda name: figures.start(name, 0.5) or 0)
    parts = (0, 0.5, 0.9, 0.99, 1)
    head = ["", "least, ms", "p50", "p90", "p99", "most", "samples"]
    rows = []
    for name in names:
        cells = [number(figures.start(name, part), 2) for part in parts]
        rows.append([figures.contenders[name]["title"], *cells, str(len(figures.samples(name)))])
    return table(head, rows)


def missing(figures: Figures) -> str:
    """Whatever has no figure, and why."""
    rows = []
    for (name, scenario), why in sorted(figures.errors().items()):
        measured = len([row for row in figures.records(name, scenario) if "figures" in row])
        note = f"{measured} other rounds succeeded; " if measured else ""
        rows.append([figures.contenders[name]["title"], scenario, note + _cell(why)])
    for about in figures.contenders.values():
        rows += [[about["title"], scenario, why] for scenario, why in about.get("skipped", {}).items()]
    return table(["", "scenario", "why"], rows) if rows else "Nothing is missing.\n"


def _cell(text: str) -> str:
    """Any text, fit for a cell."""
    return " ".join(text.replace("|", "/").replace("`", "'").split())[:300]


def setups(figures: Figures) -> str:
    """Versions and settings, a section for each peer."""
    parts = []
    for peer in dict.fromkeys(about["peer"] for about in figures.contenders.values()):
        rows = [about for about in figures.contenders.values() if about["peer"] == peer]
        about = rows[0]
        text = f"### {about['title'].split(',')[0]}\n\n"
        if about.get("versions"):
            names = sorted(about["versions"].items())
            text += ", ".join(f"{name} {version}" for name, version in names) + "\n\n"
        text += "\n".join(f"- `{key}`: {_cell(why)}" for key, why in about["settings"].items())
        parts.append(text.rstrip() + "\n")
    return "\n".join(parts)


# The page.

DRAIN = {"rate": ("tasks/s", 0), "worker_us": ("worker, us of CPU a task", 0), "server_us": ("server, us", 0)}
DRAIN["others"] = ("cores used by others", 2)
IO = {
    "rate": ("tasks/s", 0),
    "ideal": ("ideal", 0),
    "at_once": ("at once", 0),
    "others": ("cores used by others", 2),
}
MEMORY = {"kib": ("KiB a task", 1), "tasks": ("tasks in flight", 0), "idle_mib": ("MiB before", 0)}
ONE, MANY = {"one": ("one at a time, /s", 0)}, {"many": ("in bulk, /s", 0)}

EXPLAINED = {
    "drain": "No-op tasks that are already queued, until the last has ended, or, where something is kept of a "
    "task, until all of that is there. The first 5 % are not timed: the start of a worker and the opening of its "
    "connections are no part of the rate. A slower peer gets fewer tasks.",
    "io": "Tasks that sleep for 100 ms, 500 at once. From the first task's begin to the last one's end. The ideal "
    "is what the sleeping alone would allow. Those that run one task at a time get fewer.",
    "latency": "From the call of enqueue in the producer to the first line of the task in the worker, on one "
    "clock, one task at a time, at random moments. The floor: HSET and LPUSH, BLMOVE, claim, begin, a greenlet.",
    "memory": "Resident memory of the worker, its children included, with all tasks asleep, less that of an idle "
    "one that has room for ten, by their number: what is made at the start for all that may run counts as well.",
    "enqueue": "Making no-op tasks, while nobody runs them. In bulk: the peer's own way for many, else 50 calls "
    "at a time; a dash where there is none.",
}


def page(results: Results, plots: Callable[[str], str] = lambda name: f"![{name}](benchmarks/{name}.svg)") -> str:
    """The whole page."""
    figures = Figures(results)
    sections = [
        _head(results),
        "## What was to be reached\n\n" + _targets(figures),
        "## Overview\n\n" + overview(figures) + "\nGaps under 30 % mean nothing on a shared machine.\n",
        f"## Drain\n\n{EXPLAINED['drain']}\n\n{plots('drain')}\n\n" + details(figures, "drain", DRAIN),
        f"## IO-bound\n\n{EXPLAINED['io']}\n\n{plots('io')}\n\n" + details(figures, "io", IO),
        f"## Start latency\n\n{EXPLAINED['latency']}\n\n{plots('latency')}\n\n" + starts(figures),
        f"## Memory\n\n{EXPLAINED['memory']}\n\n{plots('memory')}\n\n" + details(figures, "memory", MEMORY),
        f"## Enqueue\n\n{EXPLAINED['enqueue']}\n\n{plots('enqueue')}\n\n" + details(figures, "enqueue", ONE),
        details(figures, "enqueue", MANY),
        "## What is missing, and why\n\n" + missing(figures),
        "## Versions and settings\n\n" + setups(figures),
    ]
    return "\n".join(sections)


def _targets(figures: Figures) -> str:
    head = ["", "measured", "wanted", "verdict"]
    text = "Ratios are medians of the ratios of each round, in which all took turns.\n\n"
    return text + table(head, [target.row for target in targets(figures)])


def _head(results: Results) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`, which measures this project, its peers and the bare floor in turns. The raw "
        "figures are in [results.json](benchmarks/results.json); how it is done is told in "
        "[benchmarks/README.md](../benchmarks/README.md).",
        "",
    ]
    when: dict[str, list[str]] = {}
    for run in results["runs"]:
        when.setdefault(_where(run), []).append(run["began"])
    for place, times in when.items():
        lines.append(f"- {times[0]}" + (f" to {times[-1]}" if len(times) > 1 else "") + f": {place}")
    if len(results["runs"]) > 1:
        lines += ["", "Measured in several runs: ratios are given only for what was measured in the same one."]
    return "\n".join(lines) + "\n"


def _where(run: dict[str, Any]) -> str:
    """What the figures of a run depend on."""
    about, server = run["machine"], run["server"]
    parts = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}",
        f"Python {about['python']}",
        f"{server['kind']} {server['version']} without persistence, on loopback",
        ", ".join(f"{name} {version}" for name, version in about["packages"].items()),
        f"commit {about['commit'] or 'unknown'}",
        f"rounds: {run['rounds']}",
    ]
    return "; ".join(parts) + (f", scale {run['scale']:g}" if run["scale"] != 1 else "")


# Charts.


def charts(results: Results) -> list[dict[str, Any]]:
    """What is to be drawn: `name`, `title`, `unit`, `log`, and rows of title, value, least, most, and kind."""
    figures = Figures(results)
    chart = _Chart(figures)
    return [
        chart.bars("drain", "No-op tasks a second", "drain", "rate"),
        chart.bars("io", "Tasks of 100 ms a second, 500 at once (ideal: 5,000)", "io", "rate", 100),
        chart.starts(),
        chart.bars("memory", "KiB of resident memory a task in flight", "memory", "kib", most_first=False),
        chart.bars("enqueue", "Tasks made a second, one at a time", "enqueue", "one"),
    ]


class _Chart:
    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def bars(
        self, name: str, title: str, scenario: str, figure: str, least: float = 0, most_first: bool = True
    ) -> dict[str, Any]:
        rows = []
        for contender in self.figures.contenders:
            found = self.figures.summary(contender, scenario, figure)
            if found and found.median >= least:
                rows.append([self._title(contender), found.median, found.least, found.most, self._kind(contender)])
        rows.sort(key=lambda row: row[1], reverse=most_first)
        return {"name": name, "title": title, "log": False, "rows": rows}

    def starts(self) -> dict[str, Any]:
        rows = []
        for contender in self.figures.contenders:
            if samples := self.figures.samples(contender):
                middle, high = percentile(samples, 0.5), percentile(samples, 0.99)
                rows.append([self._title(contender), middle, middle, high, self._kind(contender)])
        rows.sort(key=lambda row: row[1])
        return {"name": "latency", "title": "Start latency, ms: p50, and a line to p99", "log": True, "rows": rows}

    def _title(self, contender: str) -> str:
        return str(self.figures.contenders[contender]["title"])

    def _kind(self, contender: str) -> str:
        return "own" if contender in (OWN, TWO) else "floor" if contender == FLOOR else "peer"
