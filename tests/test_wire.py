"""What goes over the wire: ids, JSON in all its bad forms, events, and text that is safe for a log line."""

from __future__ import annotations

import json
import math

import pytest

from pytask import wire
from pytask.errors import InvalidInputError
from pytask.keys import MAX_ID
from pytask.wire import WireError

HOSTILE = [
    "a\nb",
    "a\r\nb",
    "\x1b[31mred",
    "\x00",
    "\u2028new line\u2029",
    "\x85",
    "ü",
    "\ud800",
    "'\"\\",
    "\U0001f600",
    b"\xff\xfe\n",
    b"a\nb",
    b"\x1b]0;title\x07",
]

# Ids.


@pytest.mark.parametrize(
    ("given", "raw"),
    [
        ("a", b"a"),
        (b"a", b"a"),
        ("ü", "ü".encode()),
        ("with space\n*[ab]{x}", b"with space\n*[ab]{x}"),
        (b"\xff\x00\xfe", b"\xff\x00\xfe"),
        ("-controls", b"-controls"),
        ("x" * MAX_ID, b"x" * MAX_ID),
    ],
)
def test_an_id_goes_to_the_wire_and_comes_back(given, raw):
    assert wire.id_to_bytes(given) == raw
    assert wire.id_to_bytes(wire.id_to_str(raw)) == raw


def test_every_byte_survives_the_way_to_text_and_back():
    raw = bytes(range(256))
    text = wire.id_to_str(raw)
    assert isinstance(text, str)
    assert wire.id_to_bytes(text) == raw


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "empty"),
        (b"", "empty"),
        ("x" * (MAX_ID + 1), "512 bytes, this one has 513"),
        ("ü" * 257, "this one has 514"),
        ("a-control", "-control"),
        (b"-control", "-control"),
        ("\ud800", "encodable"),
        (5, "not int"),
        (None, "not NoneType"),
        (bytearray(b"a"), "not bytearray"),
    ],
)
def test_an_id_that_can_never_be_worked_on_is_refused_with_the_reason(given, why):
    with pytest.raises(InvalidInputError, match=why):
        wire.id_to_bytes(given)


def test_the_refusal_of_an_id_is_short_and_printable():
    with pytest.raises(InvalidInputError) as caught:
        wire.id_to_bytes("\x1b\n" * 100_000)
    message = str(caught.value)
    assert len(message) < 250
    assert message.isprintable()


def test_text_of_a_record_that_is_not_utf8_is_escaped():
    assert wire.to_str(b"a\xffb") == "a\\xffb"
    assert wire.to_str("ü".encode()) == "ü"


# Text for logs.


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_what_a_producer_wrote_is_shown_quoted_in_ascii_on_one_line(value):
    text = wire.shown(value)
    assert text.isascii()
    assert text.isprintable()
    assert text[0] == text[-1]
    assert text[0] in "'\""


@pytest.mark.parametrize("limit", [10, 80, 200])
@pytest.mark.parametrize("value", [*HOSTILE, "x" * 1_000_000, b"\xff" * 1_000_000, "\ud800" * 5000], ids=range(16))
def test_what_is_shown_is_never_longer_than_its_limit(value, limit):
    many = value * 50
    assert len(wire.shown(many, limit)) <= limit
    assert wire.shown(many, limit).isprintable()


def test_a_text_that_was_cut_shows_it_and_keeps_its_quotes():
    assert wire.shown("x" * 200, 20) == "'" + "x" * 15 + "...'"
    assert wire.shown("x" * 18, 20) == "'" + "x" * 18 + "'"


# JSON that comes in.


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, "\xc3\xbc", null, true, {}]}\n', {"a": [1, 2.5, "ü", None, True, {}]}),
        (b'{"big": 123456789012345678901234567890}', {"big": 123456789012345678901234567890}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\\u0000"}', {"a": "\x00"}),
        (b'{"\\ud83d\\ude00": 1}', {"\U0001f600": 1}),
        (b'{"a/b": "\\/"}', {"a/b": "/"}),
    ],
)
def test_json_objects_are_decoded(raw, value):
    assert wire.decode_object(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"\x00",
        b"hello",
        b"nul",
        b"None",
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a": 1',
        b'{"a": 1} x',
        b'{"a": 1}{"b": 2}',
        b'{"a": 1,}',
        b"[1,]",
        b"-",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b'"\x01"',
        b'"\\x41"',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"// comment\n{}",
        b"\xef\xbb\xbf{}",
        b"1" * 5000,
        b"[" + b"{}," * 2000 + b"]",
        b"[" + b"{}," * 2000 + b"NaN]",
        b"[" + b"{}," * 2000 + b"-]",
        b"[" + b"{}," * 2000 + b"01]",
    ],
    ids=lambda raw: ascii(raw[:12]) + str(len(raw)),
)
def test_what_is_not_json_is_refused_in_words(raw):
    with pytest.raises(WireError, match="is not JSON"):
        wire.decode_json(raw)


@pytest.mark.parametrize("raw", [b"\xff", b'{"a": "\xff"}', '{"a": 1}'.encode("utf-16"), b'"\xed\xa0\x80"'])
def test_what_is_not_utf8_is_refused_with_the_place(raw):
    with pytest.raises(WireError, match=r"is not UTF-8 \(byte \d+\)"):
        wire.decode_json(raw)


@pytest.mark.parametrize("depth", [2_000, 100_000, 1_000_000])
@pytest.mark.parametrize(("head", "tail"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_what_is_nested_too_deep_is_refused_without_harm(depth, head, tail):
    for raw in (head * depth + b"1" + tail * depth, head * depth):
        with pytest.raises(WireError, match="nested too deep"):
            wire.decode_json(raw)


def test_what_is_nested_in_reason_is_decoded():
    value = wire.decode_json(b"[" * 500 + b"]" * 500)
    for _ in range(499):
        (value,) = value
    assert value == []


def test_many_brackets_that_are_not_nested_are_no_depth():
    assert wire.decode_json(b'"' + b"[{" * 5000 + b'"') == "[{" * 5000
    assert wire.decode_json(b"[" + b"{}," * 5000 + b"1]")[-1] == 1


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"[]", "an array"),
        (b'"{}"', "a string"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
    ],
)
def test_json_that_is_no_object_is_refused_by_its_kind(raw, what):
    with pytest.raises(WireError, match=f"is not a JSON object but {what}"):
        wire.decode_object(raw)


# JSON that goes out.


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, "", "ü/\x00\n\"'", [], {}, {"a": {"b": [1, None]}}, 2**70, "\U0001f600", [[[]]]],
    ids=ascii,
)
def test_what_is_encoded_can_be_decoded_again(value):
    raw = wire.encode_json(value)
    assert json.loads(raw) == value
    assert wire.decode_json(raw) == value


def test_json_is_written_short_and_readable():
    assert wire.encode_json({"url": "http://ü/a", "n": 1}) == '{"url":"http://ü/a","n":1}'.encode()


def _circle() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


def _deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        {"a": [b"bytes"]},
        math.nan,
        [math.inf],
        {"a": -math.inf},
        "\ud800",
        {"\udfff": 1},
        range(3),
        print,
        ValueError("x"),
        _circle(),
        _deep(5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_refused_in_words(value):
    with pytest.raises(WireError, match="cannot be written as JSON"):
        wire.encode_json(value)


def test_an_output_above_the_limit_is_refused_with_both_sizes():
    assert wire.encode_json("x" * 8, limit=10) == b'"xxxxxxxx"'
    with pytest.raises(WireError, match=r"has 11 bytes as JSON; the limit .* is 10"):
        wire.encode_json("x" * 9, limit=10)
    with pytest.raises(WireError, match="has 12 bytes"):
        wire.encode_json("ü" * 5, limit=11)


def test_a_wire_error_is_an_error_of_input():
    assert issubclass(WireError, InvalidInputError)
    assert issubclass(WireError, ValueError)


# Events and times.


@pytest.mark.parametrize("data", [None, 1, "x\n", {"done": 1, "total": [2]}, []])
def test_an_event_carries_its_name_and_data(data):
    raw = wire.encode_event("progress", wire.encode_json(data))
    assert json.loads(raw) == {"event": "progress", "data": data}
    assert wire.decode_event(raw) == ("progress", data)


def test_an_event_without_data_has_null():
    assert wire.encode_event("stopped") == b'{"event":"stopped","data":null}'


def test_the_name_of_an_event_cannot_break_out_of_its_quotes():
    name = 'x","data":1,"y":"\n'
    assert json.loads(wire.encode_event(name)) == {"event": name, "data": None}


@pytest.mark.parametrize("raw", [b"", b"1", b"[]", b"{}", b'{"event": 1}', b'{"data": 1}', b"stop", b"\xff"])
def test_what_is_no_event_is_refused(raw):
    with pytest.raises(WireError):
        wire.decode_event(raw)


def test_a_time_is_decimal_text_without_an_exponent():
    assert wire.encode_time(1795000000.25) == b"1795000000.250000"
    assert wire.encode_time(0) == b"0.000000"
    assert float(wire.encode_time(1e15)) == 1e15


# Bytes in JSON.


@pytest.mark.parametrize(
    "raw", [b"", b"{}", "größe".encode(), b"\x00\n", b"\xff\xfe", bytes(range(256)), b"\xed\xa0\x80"]
)
def test_any_bytes_come_back_out_of_json(raw):
    value = wire.decode_json(wire.encode_json(wire.bytes_to_json(raw)))
    assert wire.bytes_of_json(value) == raw


def test_bytes_that_are_text_can_be_read_by_people():
    assert wire.bytes_to_json('{"größe": 1}'.encode()) == '{"größe": 1}'
    assert wire.bytes_to_json(b"\xff\x00") == {"base64": "/wA="}


@pytest.mark.parametrize(
    "value",
    [None, 5, ["a"], {}, {"base64": 5}, {"base64": "="}, {"base64": "a b="}, {"base64": "", "more": 1}, "\ud800",
     {"base64": "\u00fc"}, float("nan"), "x" * 10 + "\ud800" * 1_000_000],
)  # fmt: skip
def test_what_holds_no_bytes_is_refused(value):
    with pytest.raises(WireError, match="is neither text nor"):
        wire.bytes_of_json(value)
