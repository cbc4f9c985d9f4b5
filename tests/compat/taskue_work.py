"""What the tasks of the tests call, on a runner."""

from __future__ import annotations

import logging
import time


def tell(*words: str, sign: str = "!") -> str:
    logging.getLogger("shop").info("telling %s words", len(words))
    return " ".join(words) + sign


def fail(reason: str = "no luck") -> None:
    raise ValueError(reason)


def stay(seconds: float = 60.0) -> str:
    time.sleep(seconds)
    return "stayed"


def give(value: object) -> object:
    return value
