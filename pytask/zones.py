"""Time zones as text: names such as `Europe/Berlin`, and offsets such as `+09:00`.

Pure, but for the zone files and `local_zone`.

A schedule is stored, and any node may have to read it: of a tzinfo object only a name or an offset can be kept.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from pytask.errors import InvalidInputError
from pytask.names import shown

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
OFFSET = re.compile(r"([+-])(\d\d):?([0-5]\d)(?::?([0-5]\d))?", re.ASCII)
DAY = timedelta(days=1)
FORMS = "a name such as 'Europe/Berlin', or an offset such as '+09:00'"


def read_zone(text: str) -> tzinfo:
    """The zone of a text. Raises InvalidInputError."""
    if text in ("UTC", "Z"):
        return UTC
    if match := OFFSET.fullmatch(text):
        sign, hours, minutes, seconds = match.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds or 0))
        if distance < DAY:
            return timezone(-distance if sign == "-" else distance)
    elif NAME.fullmatch(text):
        try:
            return ZoneInfo(text)
        except (KeyError, ValueError, OSError):  # no such zone; no zone file; the name of a directory
            pass
    raise InvalidInputError(f"{shown(text)} is no time zone that is known here: give {FORMS}")


def write_zone(zone: object) -> str:
    """The text of a zone that Python code gives: as text, or as a tzinfo object. Raises InvalidInputError.

    Of an object it is its name (`key` of zoneinfo, `zone` of pytz), else its offset where that is fixed.
    """
    if isinstance(zone, str):
        read_zone(zone)
        return zone
    if not isinstance(zone, tzinfo):
        raise InvalidInputError(f"tz is {FORMS}, or a tzinfo object, not {shown(zone)}")
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str):
        read_zone(name)
        return name
    offset = zone.utcoffset(None)
    if offset is None:
        raise InvalidInputError(
            f"the time zone {shown(zone)} has neither a name nor a fixed offset for nodes to read: give {FORMS}"
        )
    return _offset_text(offset)


def local_zone() -> str:
    """The text of this machine's zone: its name, as `TZ` or the link `/etc/localtime` tells it.

    Where these name none it is the offset of now, which knows of no change of clocks.
    """
    link = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    name = os.environ.get("TZ", link).removeprefix(":")
    with contextlib.suppress(InvalidInputError):
        read_zone(name)
        return name
    return write_zone(datetime.now().astimezone().tzinfo)


def _offset_text(offset: timedelta) -> str:
    if offset.microseconds:
        raise InvalidInputError(f"the offset {offset} of the time zone has a fraction of a second")
    sign = "-" if offset < timedelta(0) else "+"
    minutes, seconds = divmod(int(abs(offset).total_seconds()), 60)
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" + (f":{seconds:02d}" if seconds else "")
