"""`durable=True`, as `benchmarks/durable.py` measures it: a master and a replica on loopback."""

from __future__ import annotations

from typing import Any

import durable
from chaos.replicated import Replicated

CASES = (("without", False), ("durable", True))

FIGURES = {
    "batched": "made in batches, a second",
    "one_ms": "made one at a time, ms each",
    "rate": "drained, a second",
}


def measure(kind: str, waits: bool) -> dict[str, Any]:
    """Tasks made and drained a second, and milliseconds to make one."""
    with Replicated(kind, appendonly="no", appendfsync="no") as servers:
        figures = durable.run_round(servers, waits)
    return {name: figures[words] for name, words in FIGURES.items()}
