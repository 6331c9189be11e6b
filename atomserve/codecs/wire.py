"""How each field is written: base64, nested lists, binary, bytes; and how it is read again."""

from __future__ import annotations

import binascii
import re
from typing import Any

import msgspec

from atomserve.codecs.pictures import decode_picture, encode_picture
from atomserve.codecs.sounds import decode_sound, encode_sound
from atomserve.codecs.tensors import (
    checked_array,
    data_of,
    finite,
    from_nested,
    from_npy,
    from_raw,
    view,
)
from atomserve.errors import BadAnswer, MissingExtra, NotAcceptable, UnsupportedMedia
from atomserve.fields import VideoClip
from atomserve.schemas import Marker
from atomserve.specs import Spec, Tensor

FILM = re.compile(r"video/[a-z0-9][a-z0-9.+_-]*").fullmatch

NO_JSON = "the answer holds NaN or an infinity, which JSON has not: ask for application/msgpack"


def read_bytes(spec: Spec, data: memoryview, media_type: str = "") -> Any:
    """Read one field from its own bytes: a body, a file part, what was in a base64 string.

    Raises:
        ValueError: they are not such a field.
    """
    if isinstance(spec, Tensor):
        return from_npy(spec, data)
    if spec.kind == "image":
        return decode_picture(data)
    if spec.kind == "audio":
        return decode_sound(data)
    if spec.kind == "video":
        return VideoClip(data, _film_type(media_type) or spec.media_type)
    return data


def _film_type(media_type: str) -> str:
    """Return the film's type; what says of a film that it is a form or a page is not believed.

    A wrapper may answer with its film, and the answer would be of that type.
    """
    named = media_type.partition(";")[0].strip().lower()
    return named if FILM(named) else ""


def read_body(spec: Spec, data: memoryview, media_type: str, shape: str | None) -> Any:
    """Read the field that is a request's whole body; a tensor's is its bare numbers.

    Raises:
        ValueError: the body is not such a field.
    """
    if isinstance(spec, Tensor):
        return from_raw(spec, data, shape)
    return read_bytes(spec, data, media_type)


def read_json(marker: type[Marker], found: Any) -> Any:
    """Read a field's JSON form; a hook for msgspec.

    Raises:
        ValueError: it is not such a field.
    """
    spec = marker.spec
    if isinstance(spec, Tensor):
        return from_nested(spec, found)
    if type(found) is not str:
        raise ValueError(f"expected a base64 string, got {_json_name(found)}")
    try:
        data = binascii.a2b_base64(found, strict_mode=True)
        _refuse_spare_bits(found, data)
    except ValueError as exc:
        raise ValueError(f"not base64 (standard alphabet, padded): {exc}") from None
    return _read_inside(spec, memoryview(data))


def _refuse_spare_bits(found: str, data: bytes) -> None:
    """Refuse bits after the last byte: what they say would be lost without a word."""
    rest = data[len(data) - len(data) % 3 :]
    if rest and not found.endswith(binascii.b2a_base64(rest, newline=False).decode()):
        raise ValueError("the bits after its last byte are not zero")


def _read_inside(spec: Spec, data: memoryview) -> Any:
    """Read bytes within a document, whose own type is right whatever they are."""
    try:
        return read_bytes(spec, data)
    except UnsupportedMedia as exc:
        raise ValueError(str(exc)) from None


def _json_name(found: Any) -> str:
    names = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}
    return names.get(type(found), "a number")


class BinaryTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor in msgpack; ``data`` is little-endian."""

    dtype: str
    shape: list[int]
    data: memoryview


def read_msgpack(marker: type[Marker], found: Any) -> Any:
    """Read a field's msgpack form; a hook for msgspec.

    Raises:
        ValueError: it is not such a field.
    """
    wanted = packed_type(marker.spec)
    try:
        return read_packed(
            marker.spec, msgspec.convert(found, wanted, builtin_types=(bytes, memoryview))
        )
    except msgspec.ValidationError as exc:
        raise ValueError(str(exc)) from None


def packed_type(spec: Spec) -> Any:
    """Return the type to decode a field's msgpack form to without copying its bytes."""
    return BinaryTensor if isinstance(spec, Tensor) else memoryview


def read_packed(spec: Spec, found: Any) -> Any:
    """Read a field from what its `packed_type` gave.

    Raises:
        ValueError: it is not such a field.
    """
    if not isinstance(spec, Tensor):
        return _read_inside(spec, found.toreadonly())
    if found.dtype != spec.dtype:
        raise ValueError(f"dtype {found.dtype[:40]!r}; expected {spec.dtype!r}")
    return view(spec, found.shape, found.data)


def write_json(spec: Spec, value: Any) -> Any:
    """Give what msgspec turns into the field's JSON form: bytes become base64.

    Raises:
        BadAnswer: ``value`` is not such a field.
        NotAcceptable: it has no JSON form.
    """
    if not isinstance(spec, Tensor):
        return write_bytes(spec, value)
    array = array_of(spec, value)
    if not finite(array):
        raise NotAcceptable(f"{NO_JSON} or application/x-npy")
    return array.tolist()


def write_msgpack(spec: Spec, value: Any) -> Any:
    """Give what msgspec turns into the field's msgpack form.

    Raises:
        BadAnswer: ``value`` is not such a field.
    """
    if not isinstance(spec, Tensor):
        return write_bytes(spec, value)
    array = array_of(spec, value)
    return {"dtype": spec.dtype, "shape": array.shape, "data": data_of(array)}


def write_bytes(spec: Spec, value: Any, media_type: str = "") -> bytes | memoryview:
    """Write the own bytes of a field that is no tensor, as ``media_type`` where it has several.

    Raises:
        BadAnswer: ``value`` is not such a field.
        NotAcceptable: ``media_type`` needs an extra that is not installed.
    """
    try:
        if spec.kind == "image":
            return encode_picture(value, media_type or spec.media_type)
        if spec.kind == "audio":
            return encode_sound(value, media_type or spec.media_type)
        if spec.kind == "video" and isinstance(value, VideoClip):
            return _bytes(value.data)
        if spec.kind == "video":
            raise ValueError(f"{type(value).__name__}; expected a VideoClip")
        return _bytes(value)
    except MissingExtra as exc:
        raise NotAcceptable(str(exc)) from exc
    except ValueError as exc:
        raise BadAnswer(f"the model answered {exc}") from exc


def array_of(spec: Tensor, value: Any) -> Any:
    """Return ``value`` as an array.

    Raises:
        BadAnswer: it is not as ``spec`` says.
    """
    try:
        return checked_array(spec, value)
    except ValueError as exc:
        raise BadAnswer(f"the model answered {exc}") from exc


def _bytes(value: Any) -> bytes | memoryview:
    if type(value) is bytes:
        return value
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError(f"{type(value).__name__}; expected bytes or a memoryview")
    whole = memoryview(value)
    return whole.cast("B") if whole.c_contiguous and whole.nbytes else whole.tobytes()
