"""The answers of scripts, as tests compare them."""

from __future__ import annotations

from typing import Any


def spelt_out(answer: Any) -> Any:
    """An answer of `begin`, with all that stands in one of `run` where the script left out what is 0 or absent."""
    if isinstance(answer, list) and len(answer) == 3 and answer[0] == b"run":
        return [*answer, len(answer[2]), 1, 0, b"", 0, 0, b""]
    return answer
