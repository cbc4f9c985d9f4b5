"""What goes over the wire, as pure functions: ids, JSON, events, times, and text for logs.

Nothing here talks to a server. What a producer wrote is decoded with the standard library's parser
(ujson takes `NaN`, `-` and `01` for numbers); what we write is encoded with ujson.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, NoReturn

import ujson

from pytask.errors import InvalidInputError
from pytask.keys import flaw_of_id

MAX_DEPTH = 1000  # about where Python's own parser gives up

JSON = dict[str, Any]


class WireError(InvalidInputError):
    """What stands on the wire cannot be read, or a value cannot be written to it; the message says why."""


def id_to_bytes(task_id: str | bytes) -> bytes:
    """The id as it stands on the wire. Raises InvalidInputError where it can never be worked on."""
    raw = task_id if isinstance(task_id, bytes) else _encode_id(task_id)
    flaw = flaw_of_id(raw)
    if flaw:
        raise InvalidInputError(f"{flaw}: {shown(raw)}")
    return raw


def _encode_id(task_id: str) -> bytes:
    if not isinstance(task_id, str):
        raise InvalidInputError(f"an id is a str or bytes, not {type(task_id).__name__}")
    try:
        return task_id.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"an id must be encodable: {shown(task_id)}") from error


def id_to_str(task_id: bytes) -> str:
    """The id for people and callers; bytes that are not UTF-8 survive the way back."""
    return task_id.decode("utf-8", "surrogateescape")


def to_str(value: bytes) -> str:
    """Text of a record for callers; what is not UTF-8 is escaped."""
    return value.decode("utf-8", "backslashreplace")


def shown(value: str | bytes | object, limit: int = 80) -> str:
    """Anything a producer wrote, safe for a log line: quoted, ASCII, one line, at most `limit` characters."""
    if isinstance(value, bytes):
        value = value[: limit * 4].decode("utf-8", "backslashreplace")
    text = ascii(value[: limit * 4] if isinstance(value, str) else repr(value)[: limit * 4])
    return text if len(text) <= limit else text[: limit - 4] + "..." + text[-1]


def _refuse_constant(constant: str) -> NoReturn:
    raise WireError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise WireError(f"is not JSON: the number {shown(text)} is too large")
    return value


def decode_json(raw: bytes) -> Any:
    """The value of a JSON text. Raises WireError, in words, for anything that is none."""
    try:
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
            ujson.loads(raw)  # refuses depth without recursion
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise WireError(f"is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise WireError("is nested too deep") from error
    except ValueError as error:
        if isinstance(error, WireError):
            raise
        deep = "max depth" in str(error).lower() or "depth" in str(error).lower()
        raise WireError("is nested too deep" if deep else f"is not JSON: {error}") from error


def decode_object(raw: bytes) -> JSON:
    """The JSON object of a text. Raises WireError where it is something else."""
    value = decode_json(raw)
    if type(value) is not dict:
        raise WireError(f"is not a JSON object but {_json_type(value)}")
    return value


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def encode_json(value: Any, limit: int | None = None) -> bytes:
    """The value as JSON bytes.

    Raises WireError for what JSON cannot hold (NaN and infinities too), and for more than `limit` bytes.
    """
    if value is None:
        return b"null"
    try:
        raw = ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"cannot be written as JSON: {error}") from error
    if limit is not None and len(raw) > limit:
        raise WireError(f"has {len(raw)} bytes as JSON; the limit (max_data) is {limit}")
    return raw


def bytes_to_json(raw: bytes) -> str | JSON:
    """Bytes as JSON holds them, readable where they can be: text where they are UTF-8, else `{"base64": ...}`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def bytes_of_json(value: object) -> bytes:
    """The bytes that JSON holds so. Raises WireError for anything else."""
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and value.keys() == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
    except (TypeError, ValueError):  # a lone surrogate; no base64
        pass
    raise WireError(f'is neither text nor {{"base64": ...}}, but {shown(value)}')


def encode_event(event: str, data: bytes = b"null") -> bytes:
    """An event as it is published; `data` is JSON already."""
    return b'{"event":' + encode_json(event) + b',"data":' + data + b"}"


def decode_event(raw: bytes) -> tuple[str, Any]:
    """Name and data of an event. Raises WireError for what is none."""
    value = decode_object(raw)
    if not isinstance(value.get("event"), str):
        raise WireError("has no event name")
    return value["event"], value.get("data")


def encode_time(seconds: float) -> bytes:
    """Epoch seconds as decimal text."""
    return b"%.6f" % seconds
