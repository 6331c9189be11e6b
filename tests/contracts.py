"""Wrappers of every type, their codecs, and requests written by hand."""

import enum
import io
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from atomserve import Audio, AudioClip, Blob, Image, Tensor, Text, Video, Wrapper
from atomserve.codecs.codec import Codec
from atomserve.engine.jobs import Answer, Form, Payload
from atomserve.fields import VideoClip
from atomserve.signature import read_contract
from atomserve.specs import DTYPES


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


def whole(answer: Answer) -> bytes:
    """Join what an answer refers to."""
    return b"".join((answer.head, answer.body))


def as_json(answer: Answer) -> Payload:
    return Payload(body=b'{"x":' + bytes(answer.body) + b"}")


def as_msgpack(answer: Answer) -> Payload:
    return Payload(
        form="msgpack", body=msgspec.msgpack.encode({"x": msgspec.Raw(bytes(answer.body))})
    )


def as_raw(answer: Answer) -> Payload:
    form: Form = "npy" if answer.media_type == "application/x-npy" else "raw"
    return Payload(form=form, body=whole(answer), media_type=answer.media_type)


def as_part(answer: Answer) -> Payload:
    return form_body(("x", whole(answer), answer.media_type, True))


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
