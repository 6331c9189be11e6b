"""Fields read from what requests have for them, and what is named instead opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from atomserve.codecs.deferred import Later, LaterMarker
from atomserve.codecs.pictures import decode_picture
from atomserve.codecs.pixels import Pixels, from_pixels
from atomserve.codecs.sounds import decode_sound
from atomserve.codecs.tensors import from_nested, from_npy, from_raw, view
from atomserve.errors import UnsupportedMedia
from atomserve.fields import VideoClip
from atomserve.media.encoded import from_base64
from atomserve.media.sources import Sources, named
from atomserve.schemas import Marker
from atomserve.specs import Spec, Tensor

FILM = re.compile(r"video/[a-z0-9][a-z0-9.+_-]*").fullmatch

NAMES = {
    dict: "an object",
    list: "an array",
    bool: "a boolean",
    type(None): "null",
    str: "a string",
    bytes: "bytes",
}


class BinaryTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor in msgpack; ``data`` is little-endian."""

    dtype: str
    shape: list[int]
    data: memoryview


def packed_type(spec: Spec) -> Any:
    """Return the type to decode a field's msgpack form to without copying its bytes."""
    return BinaryTensor if isinstance(spec, Tensor) else memoryview | dict[str, Any]


class Reader:
    """Reads fields, and what requests name instead of them, as far as ``sources`` opens it."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def pixels(self) -> Pixels:
        """Return the bounds on the pictures of one request or list."""
        settings = self.sources.settings
        return Pixels(settings.max_pixels, settings.max_list_pixels, settings.max_frames)

    def from_bytes(
        self, spec: Spec, data: memoryview, media_type: str = "", pixels: Pixels | None = None
    ) -> Any:
        """Read one field from its own bytes: a body, a file part, what was in a base64 string.

        Raises:
            ValueError: they are not such a field.
        """
        if isinstance(spec, Tensor):
            return from_npy(spec, data)
        if spec.kind == "image":
            return decode_picture(data, self.pixels() if pixels is None else pixels)
        if spec.kind == "audio":
            return decode_sound(data)
        if spec.kind == "video":
            return VideoClip(data, _film_type(media_type) or spec.media_type)
        return data

    def from_body(self, spec: Spec, data: memoryview, media_type: str, shape: str | None) -> Any:
        """Read the field that is a request's whole body; a tensor's is its bare numbers.

        Raises:
            ValueError: the body is not such a field.
        """
        if isinstance(spec, Tensor):
            return from_raw(spec, data, shape)
        return self.from_bytes(spec, data, media_type)

    def from_json(self, marker: type[Marker], found: Any) -> Any:
        """Read a field's JSON form; a hook for msgspec.

        Raises:
            ValueError: it is not such a field.
        """
        if isinstance(marker.spec, Tensor):
            return from_nested(marker.spec, found)
        if type(found) not in (str, dict):
            raise ValueError(f"expected a base64 string, got {NAMES.get(type(found), 'a number')}")
        return self._held(marker, found)

    def from_msgpack(self, marker: type[Marker], found: Any) -> Any:
        """Read a field's msgpack form; a hook for msgspec.

        Raises:
            ValueError: it is not such a field.
        """
        spec = marker.spec
        if not isinstance(spec, Tensor) and type(found) is dict:
            return self._held(marker, found)
        wanted = BinaryTensor if isinstance(spec, Tensor) else memoryview
        try:
            packed = msgspec.convert(found, wanted, builtin_types=(bytes, memoryview))
        except msgspec.ValidationError as exc:
            raise ValueError(str(exc)) from None
        if issubclass(marker, LaterMarker):
            return Later(packed)
        return self.from_packed(spec, packed)

    def from_packed(self, spec: Spec, found: Any) -> Any:
        """Read a field from what its `packed_type` gave.

        Raises:
            ValueError: it is not such a field.
        """
        if not isinstance(spec, Tensor):
            return self._inside(spec, found.toreadonly())
        if found.dtype != spec.dtype:
            raise ValueError(f"dtype {found.dtype[:40]!r}; expected {spec.dtype!r}")
        return view(spec, found.shape, found.data)

    def from_held(
        self, spec: Spec, later: Later, until: float = 0, pixels: Pixels | None = None
    ) -> Any:
        """Read what a document holds of a medium: text, bytes, or an object that names it.

        ``until`` is when what has to be opened must be there.

        Raises:
            ValueError: it is not such a medium.
            AtomError: what it names cannot be opened.
        """
        found = later.found
        if isinstance(found, dict):
            opened = self.sources.open(found, until)
            if opened.shape is not None:
                return self._raw_picture(spec, opened.data, opened.shape, pixels or self.pixels())
            return self._inside(spec, opened.data, pixels)
        if isinstance(found, str):
            return self._inside(spec, memoryview(from_base64(found)), pixels)
        data = memoryview(found).toreadonly()
        if later.media_type is not None:
            return self.from_bytes(spec, data, later.media_type, pixels)
        return self._inside(spec, data, pixels)

    def _held(self, marker: type[Marker], found: str | dict[str, Any]) -> Any:
        if issubclass(marker, LaterMarker):
            return Later(found)
        if is_reference(found):
            raise ValueError("expected base64: only an input itself, or a list, may name its media")
        return self.from_held(marker.spec, Later(found))

    def _inside(self, spec: Spec, data: memoryview, pixels: Pixels | None = None) -> Any:
        """Read bytes within a document, whose own type is right whatever they are."""
        try:
            return self.from_bytes(spec, data, pixels=pixels)
        except UnsupportedMedia as exc:
            raise ValueError(str(exc)) from None

    def _raw_picture(
        self, spec: Spec, data: memoryview, shape: tuple[int, int], pixels: Pixels
    ) -> Any:
        if spec.kind != "image":
            raise ValueError("a height and a width, which only a picture has")
        return from_pixels(data, *shape, pixels)


def is_reference(found: Any) -> bool:
    """Say whether ``found`` names something that would have to be opened."""
    return isinstance(found, Mapping) and named(found) != "base64"


def _film_type(media_type: str) -> str:
    """Return the film's type; what says of a film that it is a form or a page is not believed.

    A wrapper may answer with its film, and the answer would be of that type.
    """
    named = media_type.partition(";")[0].strip().lower()
    return named if FILM(named) else ""
