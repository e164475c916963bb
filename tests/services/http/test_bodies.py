"""Bodies: what is read, and how all else is refused."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.services.http.bodies import MAX_DEPTH, parse_object
from tests.services.http.part import MAX_BYTES, ServedPart, Wire, head

BODY = b'{"a": [1, 2.5, "\xc3\xa9", null]}'
GOT = {"got": {"a": [1, 2.5, "é", None]}}


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.x+json",
        # What `curl -d` says.
        "application/x-www-form-urlencoded",
    ],
)
def test_json_is_read_whatever_its_name(wire: Wire, kind: str | None) -> None:
    headers = {} if kind is None else {"Content_Type": kind}
    assert wire.ask("POST /echo", BODY, **headers).json == GOT


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Content_Type": "text/plain"}, "text/plain"),
        (
            {"Content_Type": "application/x-www-form-urlencoded", "Origin": "http://page.example"},
            "Content-Type: application/json",
        ),
        ({"Content_Type": "multipart/form-data; boundary=x"}, "multipart/form-data"),
        ({"Content_Encoding": "gzip"}, "gzip"),
    ],
)
def test_another_kind_of_body_is_refused(wire: Wire, headers: dict[str, str], told: str) -> None:
    reply = wire.ask("POST /echo", BODY, **headers)
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
    assert told in reply.error["message"]
    assert wire.ask("POST /echo", BODY).json == GOT


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty"),
        (b"{", "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": 1} {}', "is not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b'{"a": %b}' % (b"9" * 900), None),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": "\\ud83d"}', "half of a character"),
        (b'{"\\ude00": 1}', "half of a character"),
        (b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", "nested too deeply"),
    ],
)
def test_what_is_almost_json_is_refused(wire: Wire, body: bytes, told: str | None) -> None:
    reply = wire.ask("POST /echo", body)
    if told is None:
        assert reply.status == 200
        return
    assert reply.status == 400
    assert told in reply.error["message"]
    assert wire.ask("GET /health").status == 200


@pytest.mark.parametrize("depth", [100_000, 5_000, MAX_DEPTH + 1])
def test_nesting_has_a_limit(depth: int) -> None:
    # The outermost is the object.
    inner = depth - 1
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        raw = '{"a":' + opening * inner + ("" if opening == "[" else "1") + closing * inner + "}"
        with pytest.raises(UsageError, match="nested too deeply"):
            parse_object(raw.encode())


def test_wide_is_not_deep() -> None:
    wide: dict[str, Any] = {"a": [[1]] * 1000, "b": [{} for _ in range(1000)]}
    assert parse_object(json.dumps(wide).encode()) == wide
    deep: Any = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert parse_object(json.dumps({"a": deep}).encode()) == {"a": deep}


def test_a_number_of_too_many_digits_says_nothing_of_python() -> None:
    with pytest.raises(UsageError, match="too many digits") as caught:
        parse_object(b'{"a": %b}' % (b"9" * 5000))
    assert "set_int" not in str(caught.value)


def test_characters_may_be_escaped_and_a_mark_may_stand_before_them() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00 \\u00e9"}') == {"a": "😀 é"}


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_bytes_are_an_object_or_refused(raw: bytes) -> None:
    try:
        found = parse_object(raw)
    except UsageError:
        return
    assert isinstance(found, dict)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _VALUES), st.booleans())
def test_every_object_is_read_as_it_was(value: dict[str, Any], is_ascii: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


def test_a_body_that_is_told_to_be_too_large_is_not_read(wire: Wire) -> None:
    wire.send(head("POST /echo", Content_Length="99999999999"))
    reply = wire.reply()
    assert (reply.status, reply.error["code"]) == (413, "too_large")
    assert f"at most {MAX_BYTES:,} bytes" in reply.error["message"]


@pytest.mark.parametrize("count", [MAX_BYTES - 8, MAX_BYTES - 7])
def test_the_limit_is_to_the_byte(wire: Wire, count: int) -> None:
    body = b'{"a":"%b"}' % (b"x" * count)
    status = 200 if len(body) <= MAX_BYTES else 413
    assert wire.ask("POST /echo", body).status == status
    # The rest of the body is not taken for a request.
    assert wire.ask("POST /echo", BODY).json == GOT


def test_a_chunked_body_has_the_same_limit(wire: Wire) -> None:
    chunk = b"200\r\n" + b"x" * 0x200 + b"\r\n"
    wire.send(head("POST /echo", Transfer_Encoding="chunked") + chunk)
    time.sleep(0.05)
    wire.send(chunk)
    assert wire.reply().status == 413


def test_a_body_may_come_byte_by_byte(wire: Wire) -> None:
    wire.send(head("POST /patient", BODY))
    for byte in BODY:
        wire.send(bytes([byte]))
        time.sleep(0.01)
    assert wire.reply().json == GOT


def test_a_body_that_stops_is_not_waited_for(wire: Wire) -> None:
    wire.send(head("POST /patient", BODY) + BODY[:10])
    begin = time.monotonic()
    reply = wire.reply()
    assert (reply.status, reply.error["code"]) == (408, "too_slow")
    assert 0.15 < time.monotonic() - begin < 2
    assert reply.headers["connection"] == "close"
    assert wire.rest() == b""


def test_a_client_that_leaves_in_its_body_is_no_defect(
    part: ServedPart, caplog: pytest.LogCaptureFixture
) -> None:
    with part.connect() as wire:
        wire.send(head("POST /echo", BODY) + BODY[:10])
        time.sleep(0.05)
    time.sleep(0.1)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_client_that_asks_first_is_told_to_go_on(wire: Wire) -> None:
    wire.send(head("POST /echo", BODY, Expect="100-continue"))
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(BODY)
    assert wire.reply().json == GOT
    wire.send(head("POST /echo", Content_Length="9999", Expect="100-continue"))
    assert wire.reply().status == 413
