"""One input of a model, read from whatever a request has for it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from math import isfinite
from typing import Annotated, Any

import msgspec

from atomserve.codecs.forms import Part
from atomserve.codecs.refusals import FOREIGN, at_path, refusal
from atomserve.codecs.tensors import from_npy
from atomserve.codecs.wire import read_body, read_bytes, read_json, read_packed
from atomserve.errors import AtomError, Invalid, UnsupportedMedia
from atomserve.schemas import Marker, unwrapped
from atomserve.signature import Contract, Field
from atomserve.specs import Spec, Tensor

NPY = ("application/x-npy", "application/octet-stream")


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

    def __init__(self, field: Field, info: msgspec.structs.FieldInfo) -> None:
        self.name = field.name
        self.path = f"$.{field.name}"
        self.scalar = field.scalar
        self.type = info.type
        self.optional = unwrapped(info.type) is not info.type
        self.spec, self.many = marked_spec(info.type)
        self.default = info.default
        self.default_factory = info.default_factory
        self._decode_json = msgspec.json.Decoder(info.type, dec_hook=read_json).decode

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
            return self._decode_json(text)
        except FOREIGN as exc:
            raise refusal(exc, at=self.path, text=text) from exc

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
            return self._told(read_bytes, self.spec, part.data, part.media_type)
        if not self.scalar:
            return self.from_json(part.data)
        try:
            return self.from_text(str(part.data, "utf-8"))
        except UnicodeDecodeError as exc:
            raise refusal(exc, at=self.path, form=f"form part {self.name}") from exc

    def from_body(self, data: memoryview, media_type: str, shape: str | None) -> Any:
        return self._told(read_body, self.spec, data, media_type, shape)

    def from_npy(self, data: memoryview) -> Any:
        if not isinstance(self.spec, Tensor):
            raise UnsupportedMedia(f"{self.path} is no tensor, which an npy file would be")
        return self._told(from_npy, self.spec, data)

    def from_packed(self, found: Any) -> Any:
        """Finish what msgpack's zero-copy type gave; UNSET and None stand for themselves."""
        if found is msgspec.UNSET:
            return self.fresh_default()
        return None if found is None else self._told(read_packed, self.spec, found)

    def joined(self, values: list[Any]) -> Any:
        """Make the list of several parts what the annotation asks for."""
        try:
            return msgspec.convert(values, self.type, dec_hook=lambda _, value: value)
        except FOREIGN as exc:
            raise refusal(exc, at=self.path) from exc

    def _told(self, read: Callable[..., Any], *args: Any) -> Any:
        try:
            return read(*args)
        except ValueError as exc:
            raise at_path(Invalid, self.path, exc) from exc
        except AtomError as exc:
            raise at_path(type(exc), self.path, exc) from exc


def inputs_of(contract: Contract) -> dict[str, Input]:
    """List a contract's inputs by their names."""
    infos = msgspec.structs.fields(contract.inputs)
    return {
        field.name: Input(field, info)
        for field, info in zip(contract.signature.inputs, infos, strict=True)
    }
