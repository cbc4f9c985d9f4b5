"""Reading the results: medians and ratios of a part's rounds, and tables of them."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]


class Part:
    """The rounds of one part, by label: in the order of `order`, else by their numbers."""

    def __init__(self, results: Figures, name: str, order: Sequence[str] = ()) -> None:
        self.name = name
        content = results["parts"].get(name, {})
        self.rounds = [
            {label: row for label, row in one.items() if "error" not in row} for one in content.get("rounds", ())
        ]
        measured = {label for one in self.rounds for label in one}
        self.labels = [label for label in order or sorted(measured, key=int) if label in measured]
        self.about = {key: content.get(key, "") for key in ("measured", "server", "commit")}

    def median(self, label: str, figure: str) -> float:
        """The middle one of all rounds."""
        return statistics.median(one[label][figure] for one in self.rounds if label in one)

    def ratio(self, label: str, figure: str, to: str | None = None) -> float:
        """The middle one of the rounds' ratios to another label (the first): each within its own round."""
        base = to or self.labels[0]
        return statistics.median(
            one[label][figure] / one[base][figure] for one in self.rounds if label in one and base in one
        )

    def column(self, figure: str) -> list[float]:
        """The medians of all labels."""
        return [self.median(label, figure) for label in self.labels]


def verdict(holds: bool) -> str:
    """For people."""
    return "yes" if holds else "no"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def wrapped(text: str) -> str:
    """Paragraphs in lines of at most 115 characters; headings and tables stay as they are."""
    return "\n\n".join(
        part if part.startswith(("#", "|")) else textwrap.fill(part, 115, break_on_hyphens=False)
        for part in text.strip().split("\n\n")
    )
