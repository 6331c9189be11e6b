"""Answers are what the signature says, or told apart."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import pytest
from contracts import NUMBERS, PICTURE, Box, codec, codec_of
from PIL import Image as Pillow

from atomserve import Audio, AudioClip, Blob, Image, Tensor, Video
from atomserve.codecs.answers import Answers
from atomserve.engine.jobs import Payload
from atomserve.errors import (
    BadAnswer,
    NotAcceptable,
)
from atomserve.schemas import mark


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


def test_an_array_leaves_without_a_copy() -> None:
    echo = codec_of("tensor of float32", Annotated[np.ndarray, Tensor("float32")])
    array = np.ones(10, "float32")
    answer = echo.encode(array, "npy")
    assert len(answer.head) == 128
    assert np.shares_memory(np.frombuffer(answer.body, "uint8"), array)


@dataclass
class Point:
    x: int
    y: int = 5


class Table(TypedDict):
    a: int


class Named(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, 1),
        (int, "1"),
        (int, 1.5),
        (float, "1"),
        (bool, 1),
        (list[int], {"a": 1}),
        (dict[str, int], [1]),
        (Named, {"name": "a"}),
        (Point, Named("a")),
        (Annotated[str, msgspec.Meta(max_length=3)], b"a"),
        (str | None, 3),
        (None, "text"),
    ],
)
def test_a_plain_answer_of_another_type_is_told_apart(annotation: Any, value: Any) -> None:
    for form in ("json", "msgpack"):
        with pytest.raises(BadAnswer, match=f"the model answered {type(value).__name__}; expected"):
            Answers(mark(annotation)).encode(value, form)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (float, 1),
        (float, np.float32(0.5)),
        (int, np.int8(3)),
        (bool, np.bool_(True)),
        (list[float], np.zeros(2)),
        (list[int], (1, 2)),
        (tuple[int, ...], [1]),
        (str | None, None),
        (int | list[int], [1]),
        (Sequence[int], [1]),
        (Literal["a", 1], 1),
        (Table, {"a": 1}),
        (Point, Point(1)),
        (Any, 1),
        (object, 1),
    ],
)
def test_a_plain_answer_that_is_written_alike_is_taken(annotation: Any, value: Any) -> None:
    for form in ("json", "msgpack"):
        assert Answers(mark(annotation)).encode(value, form).body
