"""Logging of the daemon: stdlib loggers under `pytask`, as text or as JSON lines.

The root logger stays as it is where the program has set it up; else a daemon lets it write likewise.

Whatever a producer wrote reaches a log line only through `wire.shown`: quoted, ASCII, one line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

from pytask.errors import SettingError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS = ("text", "json")
LEVEL_VARIABLE, FORMAT_VARIABLE = "PYTASK_LOG_LEVEL", "PYTASK_LOG_FORMAT"
# Everything at which some reader breaks a line, but the line feed and the tab.
BREAKS = (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029)
CONTROLS = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in BREAKS}


class TextFormatter(logging.Formatter):
    """One entry begins at the start of a line; what follows of it is indented, so that no text can forge one."""

    def format(self, record: logging.LogRecord) -> str:
        """The entry: control characters escaped, further lines behind a bar."""
        text = super().format(record)
        return text.translate(CONTROLS).replace("\n", "\n    | ")


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, pid, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)


def setup_logging(level: str = "INFO", form: str = "text") -> None:
    """Let the `pytask` loggers write to standard error. Raises SettingError for an unknown level or format."""
    if level.upper() not in LEVELS:
        raise SettingError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    if form not in FORMATS:
        raise SettingError(f"log format {form!r} is none of {', '.join(FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(process)d %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter(text))
    logger = logging.getLogger("pytask")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def choose(level: str | None = None, form: str | None = None) -> tuple[str, str]:
    """Level and format: what is given, else what the environment says; an empty variable says nothing."""
    found = os.environ.get
    return level or found(LEVEL_VARIABLE) or "INFO", form or found(FORMAT_VARIABLE) or "text"


def ensure_logging() -> None:
    """Set logging up as the environment says, unless the program has in its own way. Raises SettingError."""
    if not logging.getLogger("pytask").hasHandlers():
        setup_logging(*choose())
        share_logging()


def share_logging() -> None:
    """Let what tasks log go where pytask's own lines go, unless the program has set the root logger up."""
    root, own = logging.getLogger(), logging.getLogger("pytask")
    if not root.handlers:
        root.handlers = list(own.handlers)
        root.setLevel(own.level)
