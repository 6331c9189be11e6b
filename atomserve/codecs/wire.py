"""How each field of an answer is written: base64, nested lists, binary, bytes."""

from __future__ import annotations

from typing import Any

from atomserve.codecs.pictures import encode_picture
from atomserve.codecs.sounds import encode_sound
from atomserve.codecs.tensors import checked_array, data_of, finite
from atomserve.errors import BadAnswer, MissingExtra, NotAcceptable
from atomserve.fields import VideoClip
from atomserve.specs import Spec, Tensor

NO_JSON = "the answer holds NaN or an infinity, which JSON has not: ask for application/msgpack"


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
