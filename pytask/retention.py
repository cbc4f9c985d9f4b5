"""Retention: what settings and classes say of how long the records of ended tasks are kept."""

from __future__ import annotations

from collections.abc import Iterable

from pytask.options import check_class


def class_ttls(classes: Iterable[type]) -> str:
    """What classes say of `result_ttl` and `failure_ttl`, as cleanup.lua reads it; empty where none does."""
    words = []
    for task_class in classes:
        found = check_class(task_class)
        ttls = [found.get(name) for name in ("result_ttl", "failure_ttl")]
        if ttls != [None, None]:
            name: str = task_class.NAME  # type: ignore[attr-defined]
            words += [name, *("-" if ttl is None else f"{ttl:.3f}" for ttl in ttls)]
    return " ".join(words)
