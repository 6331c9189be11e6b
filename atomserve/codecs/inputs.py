"""One input of a model, read from whatever a request has for it."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Annotated, Any

import msgspec

from atomserve.codecs.deferred import MEDIA, Later, deferred, filled, places
from atomserve.codecs.forms import Part
from atomserve.codecs.reading import Reader, is_reference
from atomserve.codecs.refusals import FOREIGN, at_path, refusal
from atomserve.codecs.tensors import from_npy
from atomserve.errors import AtomError, Invalid, UnsupportedMedia
from atomserve.schemas import Marker, unwrapped
from atomserve.signature import Contract, Field
from atomserve.specs import Spec, Tensor

NPY = ("application/x-npy", "application/octet-stream")

THREADS = 8
"""Media of one list that are opened and decoded at once."""
WORTH = 256 * 1024
"""Bytes of a list's media over which threads pay, where nothing has to be waited for."""


def marked_spec(annotation: Any) -> tuple[Spec | None, bool]:
    """Return the field that a decodable type stands for, and whether it is a list of them."""
    bare = unwrapped(annotation)
    while typing.get_origin(bare) is Annotated:
        bare = unwrapped(typing.get_args(bare)[0])
    if isinstance(bare, type) and issubclass(bare, Marker):
        return bare.spec, False
    if typing.get_origin(bare) in (list, tuple):
        return marked_spec(typing.get_args(bare)[0])[0], True
    return None, False


class Input:
    """What is known of one input; every reading names it in its errors."""

    def __init__(self, field: Field, info: msgspec.structs.FieldInfo, reader: Reader) -> None:
        self.name = field.name
        self.path = f"$.{field.name}"
        self.scalar = field.scalar
        self.type = info.type
        self.optional = unwrapped(info.type) is not info.type
        self.spec, self.many = marked_spec(info.type)
        self.is_media = self.spec is not None and self.spec.kind in MEDIA
        self.held = deferred(info.type) if self.is_media else info.type
        """The type to decode a document's member to; `settled` makes the value of that."""
        self.default = info.default
        self.default_factory = info.default_factory
        self._reader = reader
        self._decode_json = msgspec.json.Decoder(self.held, dec_hook=reader.from_json).decode

    @property
    def required(self) -> bool:
        return self.default is self.default_factory is msgspec.NODEFAULT

    def fresh_default(self) -> Any:
        if self.default_factory is not msgspec.NODEFAULT:
            return self.default_factory()
        return self.default

    def from_text(self, text: str) -> Any:
        """Read a scalar from plain text: a query's value, a form's text part."""
        if not self.scalar:
            raise at_path(Invalid, self.path, "has no plain text form; expected it in the body")
        try:
            value = msgspec.convert(text, self.type, strict=False)
        except FOREIGN as exc:
            raise refusal(exc, at=self.path) from exc
        if type(value) is float and not isfinite(value):
            raise at_path(Invalid, self.path, "expected a finite number")
        return value

    def from_json(self, text: memoryview) -> Any:
        try:
            found = self._decode_json(text)
        except FOREIGN as exc:
            raise refusal(exc, at=self.path, text=text) from exc
        return self.settled(found)

    def settled(self, found: Any) -> Any:
        """Read the media that a document holds or names in ``found``; those of a list together.

        Raises:
            AtomError: one is at fault, or cannot be opened; the error says which.
        """
        if type(found) is Later:
            if isinstance(found.found, dict):
                return self._read([(self.path, found)])[0]
            return self._told(self._reader.from_held, self.spec, found)
        waiting = list(places(found, self.path)) if self.many and self.is_media else ()
        return filled(found, iter(self._read(waiting))) if waiting else found

    def is_text(self, part: Part) -> bool:
        """Tell whether ``part`` is JSON text for a list rather than a file of it."""
        return part.media_type == "application/json" or (
            part.media_type in ("", "text/plain") and not part.is_file
        )

    def from_part(self, part: Part) -> Any:
        """Read a form's part: a file, plain text, or JSON text."""
        if part.media_type == "application/json" or (self.many and self.is_text(part)):
            return self.from_json(part.data)
        if self.spec is not None and (
            not isinstance(self.spec, Tensor) or part.media_type in NPY or part.is_file
        ):
            return self._told(self._reader.from_bytes, self.spec, part.data, part.media_type)
        if not self.scalar:
            return self.from_json(part.data)
        try:
            return self.from_text(str(part.data, "utf-8"))
        except UnicodeDecodeError as exc:
            raise refusal(exc, at=self.path, form=f"form part {self.name}") from exc

    def from_body(self, data: memoryview, media_type: str, shape: str | None) -> Any:
        return self._told(self._reader.from_body, self.spec, data, media_type, shape)

    def from_npy(self, data: memoryview) -> Any:
        if not isinstance(self.spec, Tensor):
            raise UnsupportedMedia(f"{self.path} is no tensor, which an npy file would be")
        return self._told(from_npy, self.spec, data)

    def from_packed(self, found: Any) -> Any:
        """Finish what msgpack's zero-copy type gave; UNSET and None stand for themselves."""
        if found is msgspec.UNSET:
            return self.fresh_default()
        if found is None:
            return None
        if isinstance(found, dict):
            return self.settled(Later(found))
        return self._told(self._reader.from_packed, self.spec, found)

    def joined(self, parts: list[Part]) -> Any:
        """Read the parts of a list, and make of them what the annotation asks for."""
        if self.is_media:
            values = self.settled([Later(part.data, part.media_type) for part in parts])
        else:
            values = [self.from_part(part) for part in parts]
        try:
            return msgspec.convert(values, self.type, dec_hook=lambda _, value: value)
        except FOREIGN as exc:
            raise refusal(exc, at=self.path) from exc

    def _read(self, waiting: Sequence[tuple[str, Later]]) -> list[Any]:
        """Read media in their order, several at once where that pays."""
        reader, until, pixels = self._reader, self._reader.sources.until(), self._reader.pixels()

        def read(place: tuple[str, Later]) -> Any:
            path, later = place
            return _told(path, reader.from_held, self.spec, later, until, pixels)

        opened = self._opened(waiting)
        if len(waiting) < 2 or not (opened or sum(map(_size, waiting)) > WORTH):
            return list(map(read, waiting))
        with ThreadPoolExecutor(min(len(waiting), THREADS), "atomserve-media") as pool:
            return list(pool.map(read, waiting))

    def _opened(self, waiting: Sequence[tuple[str, Later]]) -> int:
        """Count what has to be opened."""
        count = 0
        for path, later in waiting:
            count += _told(path, is_reference, later.found)
        if count > (most := self._reader.sources.settings.max_references):
            raise at_path(Invalid, self.path, f"names {count} sources; expected at most {most}")
        return count

    def _told(self, read: Callable[..., Any], *args: Any) -> Any:
        return _told(self.path, read, *args)


def _told(path: str, read: Callable[..., Any], *args: Any) -> Any:
    try:
        return read(*args)
    except ValueError as exc:
        raise at_path(Invalid, path, exc) from exc
    except AtomError as exc:
        raise at_path(type(exc), path, exc) from exc


def _size(place: tuple[str, Later]) -> int:
    found = place[1].found
    return 0 if isinstance(found, dict) else len(found)


def inputs_of(contract: Contract, reader: Reader) -> dict[str, Input]:
    """List a contract's inputs by their names."""
    infos = msgspec.structs.fields(contract.inputs)
    return {
        field.name: Input(field, info, reader)
        for field, info in zip(contract.signature.inputs, infos, strict=True)
    }
