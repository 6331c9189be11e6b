"""Requests in every form come to a wrapper's arguments, and its answers back again."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from contracts import (
    FIELDS,
    HOLDERS,
    NUMBERS,
    PICTURE,
    PLAIN,
    TWO,
    Color,
    arrays,
    as_json,
    as_msgpack,
    as_part,
    as_raw,
    codec,
    codec_of,
    form_body,
    png,
    same,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve import Blob, Image, Tensor, Text, Wrapper
from atomserve.codecs.codec import Codec
from atomserve.engine.jobs import Form, Payload
from atomserve.errors import (
    AtomError,
    BadRequest,
    Invalid,
    NotAcceptable,
    UnsupportedMedia,
)
from atomserve.signature import read_contract


def cases(table: list[tuple[str, Any, st.SearchStrategy[Any]]]) -> Any:
    return pytest.mark.parametrize(
        ("name", "annotation", "values"), table, ids=[name for name, *_ in table]
    )


@cases(PLAIN + FIELDS + HOLDERS)
@settings(max_examples=25, deadline=None)
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
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_json_parts_are_read_as_json(
    name: str, annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    echo, value = codec_of(name, annotation), data.draw(values)
    part = ("x", bytes(echo.encode(value, "json").body), "application/json", False)
    assert same(echo.decode(form_body(part))[0], value)


@cases(FIELDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_media_come_back_as_bodies_and_parts(
    name: str, annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    echo, value = codec_of(name, annotation), data.draw(values)
    answer = echo.encode(value, "npy" if name.startswith("tensor") else "media")
    assert same(echo.decode(as_raw(answer))[0], value)
    assert same(echo.decode(as_part(answer))[0], value)


@settings(deadline=None)
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
    npy = whole(echo.encode(np.array([1, 2], "int8"), "npy"))
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


class Passed(Wrapper):
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


@pytest.mark.parametrize("wrapper", [Asked, Passed])
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
