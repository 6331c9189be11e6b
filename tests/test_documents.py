"""JSON and msgpack documents: what is malformed, what does not fit, and where."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from contracts import NUMBERS, PICTURE, Held, codec, codec_of
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve import Blob, Image, Tensor, Wrapper
from atomserve.codecs.codec import Codec
from atomserve.engine.jobs import Payload
from atomserve.errors import (
    AtomError,
    BadRequest,
    Invalid,
    TooLarge,
    UnsupportedMedia,
)
from atomserve.signature import read_contract


def malformed() -> Iterator[bytes]:
    good = b'{"n": 1, "m": [true, null, -1.5e+3, "a\\u00e9\\n", {"k": {}}]}'
    for end in range(len(good)):
        yield good[:end]
    for place in range(len(good)):
        for byte in b"\x00\x01\xff}]":
            broken = good[:place] + bytes([byte]) + good[place + 1 :]
            if not parses(broken):
                yield broken
    numbers = ["01", "+1", ".5", "1.", "1e", "-", "0x1", "1_0", "NaN", "Infinity", "-Infinity"]
    others = ["'a'", '"\\x"', '"\\u12"', '"\\ud800"', "tru", "nul", "undefined", "[1,]", "[,1]"]
    for text in [*numbers, *others, "{1:2}", '{"a"}', '{"a":}', "{,}", "//", "\ufeff1"]:
        yield b'{"n": ' + text.encode() + b"}"
        yield text.encode()
        yield b'{"n": 1}' + text.encode()


def parses(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def test_malformed_json_is_a_bad_request() -> None:
    corpus = [body for body in malformed() if not parses(body)]
    assert len(corpus) >= 300
    for body in corpus:
        for taker in (NUMBERS, PICTURE, codec_of("any", Any)):
            with pytest.raises((BadRequest, Invalid)) as caught:
                taker.decode(Payload(body=body))
            # A string is the one thing that is skipped unread after a misfit.
            assert caught.value.status == 400 or b"\xff" in body or b"\\ud8" in body, body


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'"\\\\ud800', "truncated"),
        (b"NaN", "malformed"),
        (b"-Infinity", "malformed"),
        (b"1e999", "out of range"),
        (b"1" * 1_000_000, "out of range"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"1} {}", "trailing"),
        (b'1, "x": 2', "twice"),
        (b'1, "\\u0078": 2', "twice"),
        (b'{"a": "\\"x\\""}, "x": 1', "twice"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_what_msgspec_does_not_call_malformed_is_a_bad_request(value: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        codec_of("any", Any).decode(Payload(body=b'{"x": ' + value + b"}"))


def test_a_name_inside_the_document_is_no_repetition() -> None:
    body = b'{"x": {"x": ["x", "\\"x\\"", "\\u0078"]}}'
    assert codec_of("any", Any).decode(Payload(body=body)) == ({"x": ["x", '"x"', "x"]},)


def test_a_repeated_name_beyond_ascii_is_found_behind_its_escape() -> None:
    class Other(Wrapper):
        def predict(self, 名: int) -> int:  # noqa: PLC2401 - its name is the point
            return 名

    other = Codec(read_contract(Other))
    assert other.decode(Payload(body='{"名": 1}'.encode())) == (1,)
    with pytest.raises(BadRequest, match="twice"):
        other.decode(Payload(body='{"名": 1, "\\u540d": 2}'.encode()))


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"x": ' + b"[" * 100_000, b"\x91" * 100_000])
def test_a_deep_document_is_refused_in_a_small_stack(body: bytes) -> None:
    caught: list[AtomError] = []

    def decode() -> None:
        for form in ("json", "msgpack"):
            try:
                codec_of("any", Any).decode(Payload(form=form, body=body))
            except AtomError as exc:
                caught.append(exc)

    codec_of("any", Any)
    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=decode)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert [error.status for error in caught] == [400, 400]


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        (b"{}", "$.n", "missing"),
        (b'{"n": 1, "k": 2}', "$.k", "unknown"),
        (b'{"n": "1"}', "$.n", "Expected `int`, got `str`"),
        (b'{"n": 1.5}', "$.n", "got `float`"),
        (b"[]", "$", "Expected `object`"),
        (b"null", "$", "Expected `object`"),
    ],
)
def test_json_that_does_not_fit_tells_where(body: bytes, path: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        NUMBERS.decode(Payload(body=body))
    assert caught.value.errors[0].path == path


def test_the_path_leads_into_what_holds_fields() -> None:
    body = b'{"x": {"boxes": [{"corners": [[1, 2], [1, "a"]]}], "mask": null, "data": {}}}'
    with pytest.raises(Invalid) as caught:
        codec_of("dataclass", Held).decode(Payload(body=body))
    assert caught.value.errors[0].path == "$.x.boxes[0].corners[1][1]"


@pytest.mark.parametrize(
    "text",
    [
        "YQ",
        "YQ=",
        "Y Q==",
        "YQ==\n",
        "_-==",
        "YQ==YQ==",
        "=YQ=",
        "é===",
        "YQ===",
        "Y",
        "Y\x00Q=",
        "YR==",
        "YWJ=",
    ],
)
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(Invalid, match="not base64"):
        codec_of("blob", Blob).decode(Payload(body=msgspec.json.encode({"x": text})))


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_medium_that_is_none_is_named_by_its_place(form: Any) -> None:
    encode = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
    for x, path in (
        ({"boxes": [], "mask": b"no picture", "data": {}}, "$.x.mask"),
        (b"no picture", "$.x"),
    ):
        taker = codec_of("dataclass", Held) if isinstance(x, dict) else codec_of("image", Image)
        with pytest.raises(Invalid, match="not a picture") as caught:
            taker.decode(Payload(form=form, body=encode({"x": x})))
        assert caught.value.errors[0].path == path


@dataclass(frozen=True)
class Options:
    size: int = 3
    names: tuple[str, ...] = ()


@dataclass
class Ask:
    text: str
    options: Options | None = None
    more: list[Options] = field(default_factory=list)


def test_an_input_that_is_answered_has_its_defaults() -> None:
    echo = codec(dict[str, Ask])
    sent = {"a": {"text": "t", "more": [{}]}, "b": {"text": "u", "options": {"size": 4}}}
    (found,) = echo.decode(Payload(body=msgspec.json.encode({"x": sent})))
    full = {"size": 3, "names": []}
    assert msgspec.json.decode(echo.encode(found, "json").body) == {
        "a": {"text": "t", "options": None, "more": [full]},
        "b": {"text": "u", "options": {"size": 4, "names": []}, "more": []},
    }


@pytest.mark.parametrize("value", [1, None, True, [], {}, 1.5])
def test_bytes_in_json_are_a_string(value: Any) -> None:
    with pytest.raises(Invalid, match="expected a base64 string"):
        codec_of("blob", Blob).decode(Payload(body=msgspec.json.encode({"x": value})))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadRequest),
        (b"\x81", BadRequest),
        (b"\xc1", BadRequest),
        (b"\x81\xa1n\x01\x01", BadRequest),
        (b"\x81\xa1\xff\x01", BadRequest),
        (b"\xdf\xff\xff\xff\xff", BadRequest),
        (b"\x91" * 100_000, BadRequest),
        (b"\x90", Invalid),
        (b"\x80", Invalid),
        (b"\x81\xa1k\x01", Invalid),
        (b"\x81\xa1n\xa11", Invalid),
        (b"\x81\x01\x01", Invalid),
        (msgspec.msgpack.encode({"n": msgspec.msgpack.Ext(5, b"x")}), Invalid),
        (msgspec.msgpack.encode({"n": datetime.fromisoformat("2020-01-01T00:00Z")}), Invalid),
    ],
)
def test_msgpack_that_does_not_fit_is_refused(body: bytes, error: type[AtomError]) -> None:
    with pytest.raises(error):
        NUMBERS.decode(Payload(form="msgpack", body=body))


def test_no_extension_reaches_a_wrapper() -> None:
    body = msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(5, b"x")})
    with pytest.raises(Invalid, match="extension type 5"):
        codec_of("any", Any).decode(Payload(form="msgpack", body=body))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"dtype": "float64", "shape": [1], "data": bytes(8)}, "dtype 'float64'"),
        ({"dtype": "float32", "shape": [2], "data": bytes(4)}, "4 bytes; expected 8"),
        ({"dtype": "float32", "shape": [-1], "data": bytes(4)}, "sizes >= 0"),
        ({"dtype": "float32", "shape": [2**62, 4], "data": b""}, "too large"),
        ({"dtype": "float32", "shape": [1.0], "data": bytes(4)}, "got `float`"),
        ({"dtype": "float32", "shape": "1", "data": bytes(4)}, "got `str`"),
        ({"dtype": "float32", "shape": [1], "data": "aaaa"}, "got `str`"),
        ({"dtype": "float32", "shape": [1]}, "missing required"),
        ({"dtype": "float32", "shape": [1], "data": bytes(4), "x": 1}, "unknown"),
        ([1.0], "got `array`"),
        (bytes(4), "got `bytes`"),
        (None, "got `(null|None)`"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_packed_tensor_is_checked(found: Any, reason: str, nested: bool) -> None:
    tensor = Annotated[np.ndarray, Tensor("float32")]
    echo = codec_of(f"packed {nested}", list[tensor] if nested else tensor)
    body = msgspec.msgpack.encode({"x": [found] if nested else found})
    with pytest.raises(Invalid, match=reason):
        echo.decode(Payload(form="msgpack", body=body))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_msgpack_does_more_than_be_refused(body: bytes) -> None:
    for echo in (codec_of("dataclass", Held), codec_of("any", Any), NUMBERS):
        with suppress(BadRequest, Invalid, UnsupportedMedia, TooLarge):
            echo.decode(Payload(form="msgpack", body=body))
