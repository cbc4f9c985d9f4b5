"""The rules for names that people choose: queues, namespaces, nodes, paths of Python functions.

Pure checks: a value in, the canonical name out, or a SettingError that shows the value and the rule.
Task ids are not names; keys are made elsewhere.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from pytask.errors import SettingError

DEFAULT_QUEUE = ""
"""Canonical name of the default queue, whose key is `new-task`."""

DEFAULT_QUEUE_WORD = "default"
"""How people write the default queue."""

_OTHERS = ("limit-", "unique-")
RESERVED_PREFIXES = ("task-", "new-task", "end-task", "node-", "schedule-", "workflow-", "service-", *_OTHERS)
"""No namespace begins so: its keys and channels would match patterns such as `task-*`, or be taken for others."""

TASK_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
"""What a `NAME` of a task looks like."""

_MOST_SLUG = 55  # characters; with a dash and eight more a name has at most 64
_SHOWN_MAX = 80
_ALPHABET = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RULE = "1 to 64 characters out of A-Z a-z 0-9 _ . -"


def check_queue_name(name: object) -> str:
    """The canonical form of a queue's name: `''` for the default queue, which may be written `'default'`."""
    if name in (DEFAULT_QUEUE, DEFAULT_QUEUE_WORD):
        return DEFAULT_QUEUE
    return _check_alphabet("queue name", name, f"{_RULE}, or 'default' for the default queue")


def queue_name_of(text: object) -> str:
    """The queue for a word of any characters: the text itself where that names one, else a readable name for it.

    Such a name is what queue names can hold of the text, and eight digits of a digest of it, so that no two words
    share a queue: `Größe XL` becomes `Grosse-XL-` and these. It is the same in every process and version. Raises
    SettingError for what is no text.
    """
    if not isinstance(text, str):
        raise SettingError(f"a queue is named by text, not {shown(text)}")
    if text in (DEFAULT_QUEUE, DEFAULT_QUEUE_WORD) or _ALPHABET.fullmatch(text):
        return check_queue_name(text)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{_slug(text)}-{digest}"


def _slug(text: str) -> str:
    """What is left of a text in A-Z a-z 0-9 _ . - for a name; `queue` where nothing is."""
    plain = (
        unicodedata.normalize("NFKD", text[:_MOST_SLUG].replace("\u00df", "ss")).encode("ascii", "ignore").decode()
    )
    kept = re.sub(r"[^A-Za-z0-9_.]+", "-", plain)[:_MOST_SLUG].strip("-")
    return kept or "queue"


def queue_label(name: str) -> str:
    """A canonical queue name as people write it: `'default'` for the default queue."""
    return name or DEFAULT_QUEUE_WORD


def check_service_name(name: object) -> str:
    """The name of a service."""
    return _check_alphabet("service name", name, _RULE)


def check_namespace(namespace: object) -> str:
    """The namespace, `''` for none."""
    if namespace == "":
        return ""
    text = _check_alphabet("namespace", namespace, f"{_RULE}, or empty for none")
    if text.startswith(RESERVED_PREFIXES):
        reserved = ", ".join(RESERVED_PREFIXES)
        raise SettingError(f"namespace {shown(text)} is not allowed: it must not begin with one of {reserved}")
    return text


def check_node_name(name: object) -> str:
    """The label of a node, `''` for the hostname."""
    if name == "":
        return ""
    return _check_alphabet("node name", name, f"{_RULE}, or empty for the hostname")


def check_python_paths(value: object) -> tuple[str, ...]:
    """Dotted paths out of a list, a tuple or text like `'shop.mail,shop.tasks'`; there may be none."""
    paths = read_list(value)
    if paths is None or not all(isinstance(path, str) and _is_dotted(path) for path in paths):
        raise refusal(value, "dotted Python paths, as text like 'shop.mail,shop.tasks' or as a list of text")
    return tuple(dict.fromkeys(paths))


def refusal(value: object, allowed: str) -> SettingError:
    """The error for a value; `allowed` completes "it must be"."""
    return SettingError(f"{shown(value)} is not allowed: it must be {allowed}")


def shown(value: object) -> str:
    """The value's repr for a message: at most 80 characters, whatever the value's size."""
    if isinstance(value, str | bytes):
        value = value[:_SHOWN_MAX]  # its repr is longer than that, so that the cut below still shows
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4300 digits; a list in a list in a list ...
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def _check_alphabet(what: str, name: object, rule: str) -> str:
    match = _ALPHABET.fullmatch(name) if isinstance(name, str) else None
    if match:
        return match[0]  # a plain str, also where a member of a str enum was given
    raise SettingError(f"{what} {shown(name)} is not allowed: it must be {rule}")


def read_list(value: object) -> list[Any] | None:
    """The items of a list, a tuple or text with commas; None for another type, or an empty item in text."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return None
    items = [item.strip(" ") for item in value.split(",")] if value.strip(" ") else []
    return items if all(items) else None


def importable_name(module: str) -> str:
    """The name by which others import a module: that of its file, where it is run as the program."""
    if module != "__main__":
        return module
    main = sys.modules[module]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return spec.name if spec else Path(file).stem if file else module


def _is_dotted(path: str) -> bool:
    return all(part.isidentifier() for part in path.split("."))
