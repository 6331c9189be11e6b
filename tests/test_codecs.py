"""Requests in every form to a wrapper's arguments, and its answers in every form."""

import enum
import io
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from atomserve import Audio, AudioClip, Blob, Image, Tensor, Text, Video, Wrapper
from atomserve.codecs import Codec
from atomserve.errors import (
    AtomError,
    BadAnswer,
    BadRequest,
    Invalid,
    NotAcceptable,
    TooLarge,
    UnsupportedMedia,
)
from atomserve.fields import DTYPES, VideoClip
from atomserve.jobs import Answer, Form, Payload
from atomserve.signature import read_contract


def codec(annotation: Any, default: Any = msgspec.NODEFAULT) -> Codec:
    """Make the codec of a wrapper that takes and returns one value."""

    class Echo(Wrapper):
        def predict(self, x: Any) -> Any:
            return x

    Echo.predict.__annotations__.update({"x": annotation, "return": annotation})
    if default is not msgspec.NODEFAULT:
        Echo.predict.__defaults__ = (default,)
    return Codec(read_contract(Echo))


def form_body(*parts: tuple[str, bytes, str, bool]) -> Payload:
    """Write a multipart form of (name, data, media type, is file)."""
    body = b""
    for name, data, media_type, is_file in parts:
        extra = '; filename="f"' if is_file else ""
        kind = f"Content-Type: {media_type}\r\n" if media_type else ""
        body += (
            f'--B\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n{kind}\r\n'.encode()
        )
        body += data + b"\r\n"
    return Payload(
        form="multipart", body=body + b"--B--\r\n", media_type="multipart/form-data; boundary=B"
    )


def as_json(answer: Answer) -> Payload:
    return Payload(body=b'{"x":' + bytes(answer.body) + b"}")


def as_msgpack(answer: Answer) -> Payload:
    return Payload(
        form="msgpack", body=msgspec.msgpack.encode({"x": msgspec.Raw(bytes(answer.body))})
    )


def as_raw(answer: Answer) -> Payload:
    form: Form = "npy" if answer.media_type == "application/x-npy" else "raw"
    return Payload(form=form, body=answer.body, media_type=answer.media_type)


def as_part(answer: Answer) -> Payload:
    return form_body(("x", bytes(answer.body), answer.media_type, True))


def same(a: Any, b: Any) -> bool:  # noqa: PLR0911 - a table
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, AudioClip):
        return a.rate == b.rate and np.allclose(a.samples, b.samples, atol=1 / 32768)
    if isinstance(a, VideoClip):
        return bytes(a.data) == bytes(b.data) and a.media_type == b.media_type
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (Box, Held)):
        return type(a) is type(b) and all(
            same(getattr(a, name), getattr(b, name)) for name in a.__annotations__
        )
    return bool(a == b) and type(a) is type(b)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Box(msgspec.Struct):
    corners: Annotated[np.ndarray, Tensor("float32", (-1, 2))]
    label: str = "?"
    score: float | None = None


@dataclass
class Held:
    boxes: list[Box]
    mask: Image | None
    data: dict[str, Blob]


def arrays(dtype: str, shape: Any = None, **kwargs: Any) -> st.SearchStrategy[np.ndarray]:
    shape = shape if shape is not None else hnp.array_shapes(min_dims=0, max_dims=3)
    return hnp.arrays(dtype, shape, **kwargs)


PICTURES = arrays("uint8", st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))
BYTES = st.binary(max_size=200)
CLIPS = st.builds(
    AudioClip,
    arrays(
        "float32",
        st.tuples(st.integers(1, 3), st.integers(1, 50)),
        elements=st.floats(-1, 0.875, width=32),
    ),
    st.integers(8000, 48000),
)
FINITE = {"allow_nan": False, "allow_infinity": False}
BOXES = st.builds(
    Box,
    arrays(
        "float32",
        st.tuples(st.integers(1, 4), st.just(2)),
        elements=st.floats(width=32, **FINITE),
    ),
    st.text(),
    st.none() | st.floats(**FINITE),
)
TEXT = st.text(st.characters(codec="utf-8"))

PLAIN: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("int", int, st.integers(-(2**63), 2**63 - 1)),
    ("float", float, st.floats(**FINITE)),
    ("bool", bool, st.booleans()),
    ("str", str, TEXT),
    ("text", Text, TEXT),
    ("literal", Literal["a", "b"], st.sampled_from(["a", "b"])),
    ("enum", Color, st.sampled_from(Color)),
    ("optional", int | None, st.none() | st.integers(0, 5)),
    ("datetime", datetime, st.datetimes()),
    ("list", list[int], st.lists(st.integers(0, 255))),
    ("dict", dict[str, float], st.dictionaries(TEXT, st.floats(**FINITE))),
    ("any", Any, st.recursive(st.none() | st.booleans() | TEXT, st.lists)),
]
FIELDS: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("blob", Blob, BYTES.map(memoryview)),
    ("image", Image, PICTURES),
    ("audio", Audio, CLIPS),
    ("video", Video, BYTES.map(VideoClip)),
    *(
        (f"tensor of {dtype}", Annotated[np.ndarray, Tensor(dtype)], arrays(dtype))
        for dtype in DTYPES
    ),
]
HOLDERS: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("optional image", Image | None, st.none() | PICTURES),
    ("list of images", list[Image], st.lists(PICTURES, max_size=3)),
    ("tuple of blobs", tuple[Blob, ...], st.lists(BYTES.map(memoryview)).map(tuple)),
    ("struct", Box, BOXES),
    (
        "dataclass",
        Held,
        st.builds(
            Held,
            st.lists(BOXES, max_size=2),
            st.none() | PICTURES,
            st.dictionaries(TEXT, BYTES.map(memoryview), max_size=2),
        ),
    ),
]
CODECS: dict[str, Codec] = {}


def codec_of(name: str, annotation: Any) -> Codec:
    return CODECS.setdefault(name, codec(annotation))


def cases(table: list[tuple[str, Any, st.SearchStrategy[Any]]]) -> Any:
    return pytest.mark.parametrize(
        ("name", "annotation", "values"), table, ids=[name for name, *_ in table]
    )


@cases(PLAIN + FIELDS + HOLDERS)
@settings(max_examples=25)
@given(data=st.data())
def test_answers_come_back_as_requests(
    name: str, annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    echo, value = codec_of(name, annotation), data.draw(values)
    if not (isinstance(value, np.ndarray) and value.dtype.kind == "f") or np.isfinite(value).all():
        assert same(echo.decode(as_json(echo.encode(value, "json")))[0], value)
    else:
        with pytest.raises(NotAcceptable, match="msgpack"):
            echo.encode(value, "json")
    assert same(echo.decode(as_msgpack(echo.encode(value, "msgpack")))[0], value)


@cases(PLAIN + HOLDERS)
@settings(max_examples=10)
@given(data=st.data())
def test_json_parts_are_read_as_json(
    name: str, annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    echo, value = codec_of(name, annotation), data.draw(values)
    part = ("x", bytes(echo.encode(value, "json").body), "application/json", False)
    assert same(echo.decode(form_body(part))[0], value)


@cases(FIELDS)
@settings(max_examples=25)
@given(data=st.data())
def test_media_come_back_as_bodies_and_parts(
    name: str, annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    echo, value = codec_of(name, annotation), data.draw(values)
    answer = echo.encode(value, "npy" if name.startswith("tensor") else "media")
    assert same(echo.decode(as_raw(answer))[0], value)
    assert same(echo.decode(as_part(answer))[0], value)


@given(arrays("float32"))
def test_bare_numbers_come_back_with_their_shape(array: np.ndarray) -> None:
    echo = codec_of("tensor of float32", Annotated[np.ndarray, Tensor("float32")])
    shape = ",".join(map(str, array.shape))
    payload = Payload(form="raw", body=array.tobytes(), media_type="x", query=f"shape={shape}")
    assert same(echo.decode(payload)[0], array)


TEXT_PARTS = [
    (int, "5", 5),
    (float, "1.5", 1.5),
    (bool, "true", True),
    (str, "null", "null"),
    (str, "5", "5"),
    (Text, "é\n", "é\n"),
    (Literal["a"], "a", "a"),
    (Color, "red", Color.RED),
    (int | None, "null", None),
    (list[int], "[1, 2]", [1, 2]),
    (Annotated[int, msgspec.Meta(ge=1)], "1", 1),
]


@pytest.mark.parametrize(("annotation", "text", "value"), TEXT_PARTS)
def test_text_parts_are_read_as_annotated(annotation: Any, text: str, value: Any) -> None:
    assert codec(annotation).decode(form_body(("x", text.encode(), "", False))) == (value,)


class Picture(Wrapper):
    def predict(
        self, image: Image, n: int = 3, ratio: float = 0.5, label: str = "", on: bool = False
    ) -> Image:
        return image


class Two(Wrapper):
    def predict(self, a: Blob, b: Blob, n: int = 1) -> int:
        return n


class Numbers(Wrapper):
    def predict(self, n: int, m: int = 2) -> float:
        return n / m


PICTURE = Codec(read_contract(Picture))
TWO = Codec(read_contract(Two))
NUMBERS = Codec(read_contract(Numbers))


def png(
    mode: str = "RGB", size: tuple[int, int] = (4, 3), kind: str = "PNG", **kwargs: Any
) -> bytes:
    out = io.BytesIO()
    Pillow.new(mode, size, kwargs.pop("color", 0)).save(out, kind, **kwargs)
    return out.getvalue()


def test_scalars_stand_in_the_query_beside_a_body() -> None:
    payload = Payload(
        form="raw", body=png(), media_type="image/png", query="n=4&ratio=1e-1&label=a%20b&on=true"
    )
    image, *rest = PICTURE.decode(payload)
    assert image.shape == (3, 4, 3)
    assert rest == [4, 0.1, "a b", True]


def test_a_model_of_scalars_may_be_asked_by_query_alone() -> None:
    assert NUMBERS.decode(Payload(form="raw", query="n=4")) == (4, 2)


@pytest.mark.parametrize(
    ("payload", "error", "path"),
    [
        (Payload(form="raw", query="n=4&n=5"), BadRequest, None),
        (Payload(form="raw", query="n=4&k=5"), Invalid, "$.k"),
        (Payload(form="raw", query="n=x"), Invalid, "$.n"),
        (Payload(form="raw", query="n=%ff"), BadRequest, None),
        (Payload(form="raw", query="m=1"), Invalid, "$.n"),
        (Payload(form="raw", query="&".join(f"n{i}=1" for i in range(100))), BadRequest, None),
        (Payload(form="raw", body=b"x", media_type="text/plain"), UnsupportedMedia, None),
        (Payload(form="npy", body=b"x", media_type="x"), UnsupportedMedia, None),
        (Payload(form="multipart", body=b"", media_type="multipart/form-data"), BadRequest, None),
        (form_body(("k", b"1", "", False)), Invalid, "$.k"),
        (form_body(("n", b"1", "", False), ("n", b"1", "", False)), BadRequest, "$.n"),
        (form_body(("n", b"\xff", "", False)), BadRequest, None),
        (form_body(("m", b"1", "", False)), Invalid, "$.n"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(
    payload: Payload, error: type[AtomError], path: str | None
) -> None:
    with pytest.raises(error) as caught:
        NUMBERS.decode(payload)
    assert [fault.path for fault in caught.value.errors] == ([path] if path else [])


def test_every_missing_input_is_told() -> None:
    with pytest.raises(Invalid) as caught:
        TWO.decode(form_body(("n", b"1", "", False)))
    assert [fault.path for fault in caught.value.errors] == ["$.a", "$.b"]


def test_nan_is_no_scalar_in_a_query() -> None:
    with pytest.raises(Invalid, match="finite"):
        PICTURE.decode(Payload(form="raw", body=png(), media_type="image/png", query="ratio=nan"))


def test_what_is_encoded_by_a_medium_is_not_given_in_a_query() -> None:
    with pytest.raises(AtomError, match=r"image"):
        PICTURE.decode(Payload(form="raw", query="image=aaaa"))


def test_several_files_fill_a_list() -> None:
    echo = codec(list[Image])
    parts = [("x", png(size=(n, 1)), "image/png", True) for n in (1, 2, 3)]
    assert [image.shape for image in echo.decode(form_body(*parts))[0]] == [
        (1, 1, 3),
        (1, 2, 3),
        (1, 3, 3),
    ]
    assert len(echo.decode(form_body(parts[0]))[0]) == 1


def test_a_list_of_files_keeps_its_bounds() -> None:
    echo = codec(Annotated[list[Blob], msgspec.Meta(max_length=1)])
    with pytest.raises(Invalid, match="length"):
        echo.decode(form_body(("x", b"a", "", True), ("x", b"b", "", True)))


def test_a_tensor_part_is_an_npy_file_or_json_text() -> None:
    echo = codec(Annotated[np.ndarray, Tensor("int8")])
    assert echo.decode(form_body(("x", b"[1, 2]", "", False)))[0].tolist() == [1, 2]
    npy = bytes(echo.encode(np.array([1, 2], "int8"), "npy").body)
    for media_type in ("application/x-npy", "application/octet-stream"):
        assert echo.decode(form_body(("x", npy, media_type, True)))[0].tolist() == [1, 2]


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
def test_bytes_are_viewed_where_they_lie(kind: Callable[[bytes], Any]) -> None:
    whole = np.arange(100, dtype="uint8")
    blob = codec(Blob)
    for payload in (
        as_msgpack(blob.encode(whole.data, "msgpack")),
        as_part(blob.encode(whole.data, "media")),
        as_raw(blob.encode(whole.data, "media")),
    ):
        body = kind(bytes(payload.body))
        (found,) = blob.decode(msgspec.structs.replace(payload, body=body))
        assert found.readonly
        assert found == whole.data
        if not (payload.form == "multipart" and isinstance(body, memoryview)):
            assert np.shares_memory(np.frombuffer(found, "u1"), np.frombuffer(body, "u1"))


def test_a_packed_tensor_is_viewed_where_it_lies() -> None:
    echo = codec(Annotated[np.ndarray, Tensor("uint8")])
    payload = as_msgpack(echo.encode(np.arange(100, dtype="uint8"), "msgpack"))
    (found,) = echo.decode(payload)
    assert np.shares_memory(found, np.frombuffer(payload.body, "u1"))
    assert not found.flags.writeable


@pytest.mark.parametrize("form", ["json", "msgpack", "multipart", "raw"])
def test_defaults_stand_for_what_is_left_out(form: Form) -> None:
    echo = codec(list[Blob], [])
    body = {"json": b"{}", "msgpack": b"\x80"}.get(form, b"")
    payload = Payload(form=form, body=body) if form != "multipart" else form_body()
    if form == "multipart":
        payload = msgspec.structs.replace(payload, body=b"--B--\r\n")
    (first,), (second,) = echo.decode(payload), echo.decode(payload)
    assert first == []
    assert first is not second


@pytest.mark.parametrize(
    "annotation", [Blob | None, Image | None, Annotated[np.ndarray, Tensor("int8")] | None]
)
def test_an_optional_field_may_be_null_or_left_out(annotation: Any) -> None:
    echo = codec(annotation, None)
    assert echo.decode(Payload(body=b'{"x":null}')) == (None,)
    assert echo.decode(Payload(body=b"{}")) == (None,)
    assert echo.decode(Payload(form="msgpack", body=b"\x81\xa1x\xc0")) == (None,)
    assert echo.decode(Payload(form="msgpack", body=b"\x80")) == (None,)
    assert echo.encode(None, "media").body == b"null"
    with pytest.raises(NotAcceptable):
        echo.encode(None, "media", "image/png")


# JSON documents.


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
        (b'"\\ud800"', "malformed"),
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
    ["YQ", "YQ=", "Y Q==", "YQ==\n", "_-==", "YQ==YQ==", "=YQ=", "é===", "YQ===", "Y", "Y\x00Q="],
)
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(Invalid, match="not base64"):
        codec_of("blob", Blob).decode(Payload(body=msgspec.json.encode({"x": text})))


@pytest.mark.parametrize("value", [1, None, True, [], {}, 1.5])
def test_bytes_in_json_are_a_string(value: Any) -> None:
    with pytest.raises(Invalid, match="expected a base64 string"):
        codec_of("blob", Blob).decode(Payload(body=msgspec.json.encode({"x": value})))


# msgpack documents.


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


@given(st.binary(max_size=60))
def test_no_msgpack_does_more_than_be_refused(body: bytes) -> None:
    for echo in (codec_of("dataclass", Held), codec_of("any", Any), NUMBERS):
        with suppress(BadRequest, Invalid, UnsupportedMedia, TooLarge):
            echo.decode(Payload(form="msgpack", body=body))


# Answers.


@pytest.mark.parametrize("value", [float("nan"), [1, {"a": float("inf")}], np.float32("nan")])
def test_nan_never_becomes_null(value: Any) -> None:
    echo = codec_of("any", Any)
    with pytest.raises(NotAcceptable, match="msgpack"):
        echo.encode(value, "json")
    assert echo.encode(value, "msgpack").media_type == "application/msgpack"
    assert echo.encode([None, "null"], "json").body == b'[null,"null"]'


def test_nan_beside_a_picture_is_found() -> None:
    box = Box(np.zeros((1, 2), "float32"), score=float("nan"))
    with pytest.raises(NotAcceptable):
        codec_of("struct", Box).encode(box, "json")


def test_numpy_values_in_plain_places_are_written() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": [np.bool_(True), np.int8(1)]}
    expected = {"a": 0.5, "b": [0, 1, 2], "c": [True, 1]}
    echo = codec_of("any", Any)
    assert msgspec.json.decode(echo.encode(value, "json").body) == expected
    assert msgspec.msgpack.decode(echo.encode(value, "msgpack").body) == expected


class Opaque:
    pass


DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[np.ndarray, Tensor("float32")], [1.0]),
        (Annotated[np.ndarray, Tensor("float32")], np.zeros(1)),
        (Annotated[np.ndarray, Tensor("float32", (2,))], np.zeros(1, "float32")),
        (Image, np.zeros((2, 2, 3), "float32")),
        (Image, np.zeros((2, 2, 5), "uint8")),
        (Image, np.zeros((0, 2, 3), "uint8")),
        (Image, "a"),
        (Audio, np.zeros(1)),
        (Audio, AudioClip(np.zeros((2, 2)), 8000)),
        (Audio, AudioClip(np.zeros((0, 2), "float32"), 8000)),
        (Audio, AudioClip(np.zeros(2, "float32"), 8000)),
        (Video, b"x"),
        (Blob, "x"),
        (Blob, None),
        (Box, {"label": "x"}),
        (Box, None),
        (list[Image], 5),
        (Any, Opaque()),
        (Any, "\ud800"),
        (Any, {Opaque(): 3}),
        (Any, DEEP),
    ],
)
def test_an_answer_that_is_not_as_annotated_is_told_apart(annotation: Any, value: Any) -> None:
    echo = codec(annotation)
    for form in ("json", "msgpack"):
        with pytest.raises(BadAnswer, match="answer"):
            echo.encode(value, form)


def test_a_picture_is_written_as_the_client_asks() -> None:
    image = np.zeros((3, 4, 3), "uint8")
    for media_type in ("image/png", "image/jpeg", "image/webp"):
        answer = PICTURE.encode(image, "media", media_type)
        assert answer.media_type == media_type
        assert Pillow.open(io.BytesIO(answer.body)).get_format_mimetype() == media_type
    assert PICTURE.encode(image, "media").media_type == "image/png"


def test_a_film_keeps_its_media_type() -> None:
    echo = codec_of("video", Video)
    payload = Payload(form="raw", body=b"x", media_type="video/webm")
    (clip,) = echo.decode(payload)
    assert clip.media_type == "video/webm"
    assert echo.encode(clip, "media").media_type == "video/webm"


def test_a_plain_answer_is_no_medium() -> None:
    with pytest.raises(NotAcceptable):
        NUMBERS.encode(1.0, "media")


def test_an_array_leaves_in_one_copy() -> None:
    echo = codec_of("tensor of float32", Annotated[np.ndarray, Tensor("float32")])
    body = echo.encode(np.ones(10, "float32"), "npy").body
    assert type(body) is bytes
    assert len(body) == 128 + 40


# Sessions, batches.


class Ask(msgspec.Struct):
    image: Image
    n: int = 1

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n is negative")


class Asked(Wrapper):
    def predict_batch(self, requests: list[Ask]) -> list[int]:
        return [ask.n for ask in requests]


class Sums(Wrapper):
    def session(self, inputs: Iterator[int]) -> Iterator[int]:
        yield from inputs


class Held2(Wrapper):
    def session(self, inputs: Iterator[Ask]) -> Iterator[Ask]:
        yield from inputs


def test_the_items_of_a_session_are_bare_values() -> None:
    sums = Codec(read_contract(Sums))
    assert sums.decode_item(Payload(body=b"5")) == 5
    assert sums.decode_item(Payload(form="msgpack", body=b"\x05")) == 5
    for payload in (Payload(body=b'"a"'), Payload(form="msgpack", body=b"\xa1a")):
        with pytest.raises(Invalid):
            sums.decode_item(payload)
    with pytest.raises(BadRequest):
        sums.decode_item(Payload(body=b"[5"))


@pytest.mark.parametrize("wrapper", [Asked, Held2])
def test_a_request_class_is_built_of_its_fields(wrapper: type[Wrapper]) -> None:
    asked = Codec(read_contract(wrapper))
    body = b'{"n": 3, "image": "' + b64encode(png()) + b'"}'
    ask = asked.decode_item(Payload(body=body))
    assert type(ask) is Ask
    assert (ask.image.shape, ask.n) == ((3, 4, 3), 3)
    with pytest.raises(Invalid, match="n is negative"):
        asked.request((ask.image, -1))


def test_a_class_that_refuses_its_values_names_the_input() -> None:
    body = b'{"x": {"n": -3, "image": "' + b64encode(png()) + b'"}}'
    with pytest.raises(Invalid, match="n is negative") as caught:
        codec(Ask).decode(Payload(body=body))
    assert caught.value.errors[0].path == "$.x"


# Examples.


def test_an_example_gives_a_file_by_its_path_or_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    for given_image in (path, png(), np.zeros((3, 4, 3), "uint8")):
        image, n, *_ = PICTURE.example_values({"image": given_image, "n": 7})
        assert (image.shape, n) == ((3, 4, 3), 7)
    written = PICTURE.example_json({"image": path, "n": 7})
    assert written == {"image": b64encode(png()).decode(), "n": 7}
    assert PICTURE.decode(Payload(body=msgspec.json.encode(written)))[1] == 7


def test_an_example_is_written_as_a_client_would(tmp_path: Path) -> None:
    held = Held(
        [Box(np.ones((1, 2), "float32"), "a", 0.5)], np.zeros((1, 2, 3), "uint8"), {"k": b"x"}
    )
    echo = codec_of("dataclass", Held)
    (found,) = echo.example_values({"x": held})
    assert type(found) is Held
    assert found.boxes[0].corners.tolist() == [[1, 1]]
    written = msgspec.json.encode(echo.example_json({"x": held}))
    assert same(echo.decode(Payload(body=written))[0], found)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"image": b"", "n": 7}, "image"),
        ({"n": 7}, "missing"),
        ({"image": png(), "k": 1}, "unknown input 'k'"),
        ({"image": png(), "n": "x"}, r"\$\.n"),
        ({"image": Path("nowhere.png")}, "nowhere"),
        ({"image": np.zeros((2, 2, 3))}, "expected encoded bytes"),
        ({"image": 5}, "expected encoded bytes"),
    ],
)
def test_an_example_that_does_not_fit_is_told(inputs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PICTURE.example_values(inputs)


def test_examples_take_clips_and_arrays_as_they_are() -> None:
    clip = AudioClip(np.zeros((1, 5), "float32"), 8000)
    assert codec_of("audio", Audio).example_values({"x": clip}) == (clip,)
    tensor = codec_of("tensor of int8", Annotated[np.ndarray, Tensor("int8")])
    assert tensor.example_values({"x": [1, 2]})[0].tolist() == [1, 2]
    assert tensor.example_json({"x": np.array([1], "int8")}) == {"x": [1]}
    with pytest.raises(ValueError, match="int8"):
        tensor.example_values({"x": np.zeros(2)})
