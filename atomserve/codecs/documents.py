"""JSON and msgpack documents, checked and decoded to what a contract's inputs are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from atomserve.codecs.inputs import Input
from atomserve.codecs.reading import Reader, packed_type
from atomserve.codecs.refusals import FOREIGN, at_path, refusal
from atomserve.engine.jobs import Payload
from atomserve.errors import AtomError, BadRequest

Body = bytes | bytearray | memoryview


class JsonReader:
    """Reads the JSON object of one contract's inputs."""

    def __init__(
        self, struct: type[msgspec.Struct], inputs: Mapping[str, Input], reader: Reader
    ) -> None:
        self._media = [(n, each) for n, each in enumerate(inputs.values()) if each.is_media]
        held = _held_struct(struct, inputs) if self._media else struct
        self._decode = msgspec.json.Decoder(held, dec_hook=reader.from_json).decode
        self._keys = [json.dumps(name, ensure_ascii=False).encode() for name in inputs]
        # A member's name may hide behind escapes of its characters.
        self._escape = b"\\u00" if all(map(str.isascii, inputs)) else b"\\u"

    def read(self, body: Body) -> tuple[Any, ...]:
        """Return the inputs' values in their order.

        Raises:
            AtomError: the document is at fault.
        """
        if type(body) is memoryview:
            body = bytes(body)
        try:
            found = self._decode(body)
        except FOREIGN as exc:
            raise _first_refusal(exc, body, msgspec.json.decode, "JSON") from exc
        if self._may_repeat(body):
            _refuse_repeats(body)
        return _settled(msgspec.structs.astuple(found), self._media)

    def _may_repeat(self, body: Any) -> bool:
        for key in self._keys:
            if body.count(key) > 1:
                return True
        return self._escape in body


def _refuse_repeats(body: Any) -> None:
    """Refuse an object that names a member twice; msgspec would keep the last."""
    try:
        # Pairs stay pairs, so the outermost result is the outermost object's members.
        pairs = json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError as exc:
        raise refusal(exc) from exc
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise at_path(BadRequest, f"$.{name[:64]}", "stands twice in the object")
        seen.add(name)


class MsgpackReader:
    """Reads the msgpack map of one contract's inputs, leaving bytes where they lie in the body."""

    def __init__(
        self, struct: type[msgspec.Struct], inputs: Mapping[str, Input], reader: Reader
    ) -> None:
        self._packed = [
            (place, each)
            for place, each in enumerate(inputs.values())
            if each.spec is not None and not each.many
        ]
        self._media = [
            (place, each)
            for place, each in enumerate(inputs.values())
            if each.is_media and each.many
        ]
        self._decode = _msgpack_decoder(_packed_struct(struct, inputs), reader)

    def read(self, body: Body) -> tuple[Any, ...]:
        """Return the inputs' values in their order.

        Raises:
            AtomError: the document is at fault.
        """
        try:
            found = self._decode(body)
        except FOREIGN as exc:
            raise _first_refusal(exc, body, msgspec.msgpack.decode, "msgpack") from exc
        values = _settled(msgspec.structs.astuple(found), self._media)
        if not self._packed:
            return values
        unpacked = list(values)
        for place, each in self._packed:
            unpacked[place] = each.from_packed(unpacked[place])
        return tuple(unpacked)


class ItemReader:
    """Reads the items of a session whose wrapper takes bare values."""

    def __init__(self, item: Input, reader: Reader) -> None:
        self._settled = item.settled
        self._json = msgspec.json.Decoder(item.held, dec_hook=reader.from_json).decode
        self._msgpack = _msgpack_decoder(item.held, reader)

    def read(self, payload: Payload) -> Any:
        """Return one item.

        Raises:
            AtomError: it is at fault.
        """
        form, read, decode = (
            ("JSON", self._json, msgspec.json.decode)
            if payload.form == "json"
            else ("msgpack", self._msgpack, msgspec.msgpack.decode)
        )
        try:
            found = read(payload.body)
        except FOREIGN as exc:
            raise _first_refusal(exc, payload.body, decode, form) from exc
        return self._settled(found)


def _settled(values: tuple[Any, ...], media: list[tuple[int, Input]]) -> tuple[Any, ...]:
    if not media:
        return values
    settled = list(values)
    for place, each in media:
        settled[place] = each.settled(settled[place])
    return tuple(settled)


def _msgpack_decoder(annotation: Any, reader: Reader) -> Callable[[Body], Any]:
    return msgspec.msgpack.Decoder(
        annotation, dec_hook=reader.from_msgpack, ext_hook=_refuse_extension
    ).decode


def _held_struct(struct: type[msgspec.Struct], inputs: Mapping[str, Input]) -> type[msgspec.Struct]:
    """Define the Struct of inputs again, with the media to be read later."""
    members = [_member(info, inputs[info.name].held) for info in msgspec.structs.fields(struct)]
    return msgspec.defstruct(struct.__name__, members, kw_only=True, forbid_unknown_fields=True)


def _packed_struct(
    struct: type[msgspec.Struct], inputs: Mapping[str, Input]
) -> type[msgspec.Struct]:
    """Define the Struct of inputs again, with the fields' bytes as views of the body."""
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for info in msgspec.structs.fields(struct):
        each = inputs[info.name]
        if each.spec is None or each.many:
            members.append(_member(info, each.held))
            continue
        wanted: Any = packed_type(each.spec)
        if each.optional:
            wanted = wanted | None
        if each.required:
            members.append((info.name, wanted))
        else:
            members.append((info.name, wanted | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(struct.__name__, members, kw_only=True, forbid_unknown_fields=True)


def _member(info: msgspec.structs.FieldInfo, held: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.name, held, msgspec.field(default_factory=info.default_factory)
    if info.default is not msgspec.NODEFAULT:
        return info.name, held, info.default
    return info.name, held


def _first_refusal(error: Exception, body: Any, decode: Callable[..., Any], form: str) -> AtomError:
    """Prefer what is wrong with the document as such: msgspec stops at the first misfit."""
    if isinstance(error, msgspec.ValidationError):
        try:
            decode(body, type=msgspec.Raw)
        except FOREIGN as exc:
            error = exc
    return refusal(error, form=form, text=body if form == "JSON" else None)


def _refuse_extension(code: int, _: memoryview) -> NoReturn:
    raise msgspec.ValidationError(f"msgpack extension type {code}; expected plain values")
