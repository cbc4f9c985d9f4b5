"""Checks of numbers, durations and truth values that people write: in settings, and in the options of tasks.

Pure: a value in, the canonical value out, or a SettingError that shows the value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from pytask.names import refusal

YEARS_10 = 315_360_000.0  # seconds
INTEGER = re.compile(r"\s*[0-9]{1,18}\s*", re.ASCII)
DURATION = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?) ?(ms|s|m|h|d)?\s*", re.ASCII)
SECONDS: Mapping[str, Decimal | int] = {"ms": Decimal("0.001"), "s": 1, "m": 60, "h": 3600, "d": 86_400}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def check_integer(value: object, least: float, most: float, range_text: str) -> int:
    """A whole number, as a number or as text; `range_text` says the range in words."""
    number = read_integer(value)
    if number is None or not least <= number <= most:
        raise refusal(value, f"an integer, {range_text}")
    return int(number)


def read_integer(value: object) -> int | None:
    """The whole number, None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if INTEGER.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def check_duration(value: object, least: float, most: float, range_text: str) -> float:
    """Seconds, as a number or as text like `500ms`, `10s`, `5m`, `1h`, `7d`."""
    number = read_seconds(value)
    if number is None or not least <= number <= most:
        forms = "as a number of seconds or text like '500ms', '10s', '5m', '1h', '7d'"
        raise refusal(value, f"a duration, {range_text}, {forms}")
    return float(number) + 0.0  # never -0.0


def check_seconds(value: object) -> float:
    """A duration of any length, up to ten years."""
    return check_duration(value, 0, YEARS_10, f"0 to {YEARS_10:.0f} s")


def read_seconds(value: object) -> float | None:
    """The seconds of a duration, None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(Decimal(match[1]) * SECONDS[match[2] or "s"]) if match else None


def check_boolean(value: object) -> bool:
    """True or false, as text also yes, no, on, off, 1, 0."""
    if isinstance(value, bool):
        return value
    word = value.strip(" \t\r\n").lower() if isinstance(value, str) else ""
    if word not in TRUE + FALSE:
        raise refusal(value, "true or false (as text also yes, no, on, off, 1, 0)")
    return word in TRUE


def as_number(value: float) -> str:
    """The shortest text of a number."""
    return str(int(value)) if value == int(value) else str(value)
