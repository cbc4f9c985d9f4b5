"""docs/scale.md and its plots, made from the results alone: tables of medians, ratios, and whether they hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from scale import durability, flat, io_bound, memory, options, paper, words
from scale.figures import Figures, Part, table, verdict, wrapped
from scale.plot import chart

FLAT = 1.15  # how much more than the smallest a larger one may cost


def in_short(part: str, figures: Figures) -> str:
    """One step's figures in a few words, for the progress."""
    if part == "memory":
        return f"idle {figures['idle_mib']:.1f} MiB, {figures['each_kib']:.1f} KiB a task"
    if part == "io":
        return f"{figures['part']:.2f} of the ideal"
    if part == "durable":
        return f"{figures['rate']:,.0f}/s, one made in {figures['one_ms']:.2f} ms"
    return f"{figures['cpu_us']:6.1f} us a task, {figures['rate']:8,.0f}/s"


def number(text: str) -> str:
    """A label as people read numbers."""
    return f"{int(text):,}" if text.isdigit() else text


# One function a section.


def memory_section(part: Part) -> str:
    label = part.labels[0]
    idle, each = part.median(label, "idle_mib"), part.median(label, "each_kib")
    record, running = (part.median(label, f"server_{name}_bytes") for name in ("record", "running"))
    rows = [
        ["an idle node", f"{idle:.1f} MiB", f"< {memory.IDLE_MIB:g} MiB", verdict(idle < memory.IDLE_MIB)],
        [f"each of {number(label)} tasks that sleep", f"{each:.1f} KiB", f"<= {memory.EACH_KIB:g} KiB",
         verdict(each <= memory.EACH_KIB)],
        ["as many bare greenlets, each", f"{part.median(label, 'bare_kib'):.1f} KiB", "", ""],
        ["on the server: a record that waits", f"{record:.0f} bytes", "", ""],
        ["... and one that runs, with its claim", f"{running:.0f} bytes", "", ""],
    ]  # fmt: skip
    return table(["", "measured", "wanted", "holds"], rows)


def io_section(part: Part) -> str:
    rows = []
    for case in io_bound.CASES:
        if case.label in part.labels:
            share = part.median(case.label, "part")
            rows.append([
                case.label, f"{case.ideal:,.0f}", f"{part.median(case.label, 'rate'):,.0f}", f"{share:.2f}",
                f"{case.goal:g}", verdict(share >= case.goal), f"{part.median(case.label, 'cpu_us'):.0f}",
            ])  # fmt: skip
    return table(["tasks", "ideal /s", "measured /s", "part", "wanted", "holds", "us a task"], rows)


COSTS = ("rate", "node_us", "server_us", "cpu_us", "commands", "received", "sent")


def flat_section(part: Part) -> str:
    rows = []
    for label in part.labels:
        ratio = part.ratio(label, "cpu_us")
        rate, node, server, both, commands, received, sent = (part.median(label, name) for name in COSTS)
        rows.append([
            number(label), f"{node:.1f}", f"{server:.1f}", f"{both:.1f}", f"{ratio:.2f}", f"{commands:.1f}",
            f"{part.ratio(label, 'commands'):.2f}", f"{received:.0f}", f"{sent:.0f}", f"{rate:,.0f}",
        ])  # fmt: skip
    head = [part.name, "node us", "server us", "both", "to the first", "commands", "to the first", "bytes in",
            "bytes out", "tasks/s"]  # fmt: skip
    worst = {name: max(part.ratio(label, name) for label in part.labels) for name in ("cpu_us", "commands")}
    told = ", ".join(
        f"{what} {verdict(worst[name] <= FLAT)} (at most {worst[name]:.2f})"
        for name, what in (("cpu_us", "processor"), ("commands", "commands"))
    )
    return f"{table(head, rows)}\n\nWithin 15 %: {told}."


def idle_section(part: Part) -> str:
    rows = [
        [number(label), f"{100 * part.median(label, 'idle_node_core'):.2f} %",
         f"{100 * part.median(label, 'idle_server_core'):.2f} %", f"{part.median(label, 'idle_commands'):,.0f}",
         f"{part.median(label, 'idle_sent') / 1024:,.1f}"]
        for label in part.labels
    ]  # fmt: skip
    return table([part.name, "of a core, node", "of a core, server", "commands/s", "KiB/s out"], rows)


def cluster_section(part: Part) -> str:
    rows = []
    for label in part.labels:
        masters = [one[label]["by_master_us"] for one in part.rounds if label in one]
        each = [statistics.median(column) for column in zip(*masters, strict=True)]
        rows.append([
            "no cluster" if label == "0" else label, f"{part.median(label, 'rate'):,.0f}",
            f"{part.ratio(label, 'rate'):.2f}", f"{part.median(label, 'node_us'):.1f}",
            f"{part.median(label, 'server_us'):.1f}", " + ".join(f"{one:.1f}" for one in each),
            f"{part.median(label, 'commands'):.1f}", f"{part.median(label, 'received'):.0f}",
        ])  # fmt: skip
    head = ["masters", "tasks/s", "to no cluster", "node us", "servers us", "by master", "commands", "bytes in"]
    return table(head, rows)


def options_section(part: Part) -> str:
    plain = options.PLAIN.label
    rows = [
        [label, f"{part.median(label, 'rate'):,.0f}", f"{part.ratio(label, 'rate', plain):.2f}",
         f"{part.median(label, 'node_us'):.1f}", f"{part.median(label, 'server_us'):.1f}",
         f"{part.ratio(label, 'cpu_us', plain):.2f}", f"{part.median(label, 'commands'):.1f}",
         f"{part.median(label, 'received'):,.0f}"]
        for label in part.labels
    ]  # fmt: skip
    return table(
        ["task", "tasks/s", "to plain", "node us", "server us", "us to plain", "commands", "bytes in"], rows
    )


def durable_section(part: Part) -> str:
    rows = []
    for figure, words_of_it in durability.FIGURES.items():
        values = [part.median(label, figure) for label in part.labels]
        ratio = part.ratio(part.labels[-1], figure)
        rows.append([words_of_it, *[f"{value:,.2f}" for value in values], f"{ratio:.2f}"])
    return table(["", *part.labels, "ratio"], rows)


SECTIONS: dict[str, Callable[[Part], str]] = {
    "memory": memory_section,
    "io": io_section,
    **dict.fromkeys(flat.PARTS, flat_section),
    "cluster": cluster_section,
    "options": options_section,
    "durable": durable_section,
}
WITH_IDLE = ("running", "nodes")
ORDERS = {
    "io": [case.label for case in io_bound.CASES],
    "options": [variant.label for variant in options.VARIANTS],
    "durable": [label for label, _ in durability.CASES],
}


def section(results: Figures, name: str, plots: Path) -> str:
    """One section of the page, with its plot written where it has one."""
    part = Part(results, name, ORDERS.get(name, ()))
    lines = [f"## {words.TITLES[name]}", "", wrapped(words.TEXTS[name]), ""]
    if not part.labels:
        return "\n".join([*lines, "Not measured yet.", ""])
    lines += [SECTIONS[name](part), ""]
    if name in flat.PARTS:
        plots.mkdir(parents=True, exist_ok=True)
        costs = {"node": part.column("node_us"), "server": part.column("server_us")}
        picture = chart(f"{words.TITLES[name]}", [number(label) for label in part.labels], costs, "us a task")
        (plots / f"scale-{name}.svg").write_text(picture)
        lines += [f"![{words.TITLES[name]}]({plots.name}/scale-{name}.svg)", ""]
    if name in WITH_IDLE:
        lines += ["While no task ends:", "", idle_section(part), ""]
    about = part.about
    lines += [
        f"Rounds: {len(part.rounds)}; {about['server']}, commit {about['commit']}, {about['measured'][:16]} UTC."
    ]
    return "\n".join([*lines, ""])


def write(results: Figures, docs: Path) -> None:
    """The page and its plots."""
    plots = docs / "plots"
    machine = results.get("machine", {})
    parts = [wrapped(words.HEAD), "", wrapped(words.machine(machine)), ""]
    parts += [section(results, name, plots) for name in SECTIONS]
    parts += [paper.section(Part(results, "cluster"), Part(results, "nodes")), ""]
    (docs / "scale.md").write_text("\n".join(parts))
