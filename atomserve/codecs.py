"""Requests to a wrapper's arguments, and what it returns to answers; runs where the slot lives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from atomserve.answers import Answers
from atomserve.errors import AtomError, BadRequest, Fault, Invalid, UnsupportedMedia
from atomserve.examples import example_json, example_values
from atomserve.forms import split_form
from atomserve.inputs import Input, inputs_of
from atomserve.jobs import Form, Payload
from atomserve.refusals import FOREIGN, at_path, refusal
from atomserve.signature import Contract
from atomserve.wire import packed_type, read_json, read_msgpack

MAX_QUERY_FIELDS = 64


class Codec:
    """Everything that one contract's requests and answers need, compiled once.

    Stateless after that: any thread may use it.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.inputs = inputs_of(contract)
        names = tuple(self.inputs)
        self._rebuilds = [
            (place, name, contract.rebuilds[name])
            for place, name in enumerate(names)
            if name in contract.rebuilds
        ]
        binary = contract.signature.binary_input
        self._binary = self.inputs[binary.name] if binary is not None else None
        self._keys = [json.dumps(name, ensure_ascii=False).encode() for name in names]
        self._escape = b"\\u00" if all(map(str.isascii, names)) else b"\\u"
        self._read_json = msgspec.json.Decoder(contract.inputs, dec_hook=read_json).decode
        self._packed = [
            (place, each)
            for place, each in enumerate(self.inputs.values())
            if each.spec is not None and not each.many
        ]
        self._read_msgpack = msgspec.msgpack.Decoder(
            _packed_struct(contract, self.inputs), dec_hook=read_msgpack, ext_hook=_refuse_extension
        ).decode
        self._forms: dict[Form, Callable[[Payload], tuple[Any, ...]]] = {
            "json": self._from_json,
            "msgpack": self._from_msgpack,
            "multipart": self._from_multipart,
            "npy": self._from_raw,
            "raw": self._from_raw,
        }
        bare = contract.signature.takes == "session" and contract.request is None
        self._item = _ItemReader(contract) if bare else None
        self.encode = Answers(contract.output).encode

    def decode(self, payload: Payload) -> tuple[Any, ...]:
        """Return the inputs' values in their order.

        Raises:
            AtomError: the request is at fault; the error says where and why.
        """
        return self._forms[payload.form](payload)

    def decode_item(self, payload: Payload) -> Any:
        """Return one item of a session; its body is the request's object or the bare value.

        Raises:
            AtomError: the item is at fault.
        """
        if self._item is None:
            return self.request(self.decode(payload))
        return self._rebuilt((self._item.read(payload),))[0]

    def request(self, values: tuple[Any, ...]) -> Any:
        """Build what `decode` returned into the class of a batch's request or session's item.

        Raises:
            Invalid: the class refuses the values.
        """
        if self.contract.request is None:
            return values[0]
        try:
            return self.contract.request(**dict(zip(self.inputs, values, strict=True)))
        except (TypeError, ValueError) as exc:
            raise at_path(Invalid, "$", exc) from exc

    def example_values(self, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return an example's inputs as `decode` would.

        Raises:
            ValueError: they do not fit the signature.
        """
        try:
            return self._assembled(example_values(self.inputs, inputs))
        except AtomError as exc:
            raise ValueError(str(exc)) from exc

    def example_json(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return an example's inputs in their JSON form.

        Raises:
            ValueError: they do not fit the signature.
        """
        values = dict(zip(self.inputs, self.example_values(inputs), strict=True))
        return example_json(self.contract, inputs, values)

    def _from_json(self, payload: Payload) -> tuple[Any, ...]:
        body = payload.body
        if type(body) is memoryview:
            body = bytes(body)
        try:
            found = self._read_json(body)
        except FOREIGN as exc:
            raise _first_refusal(exc, body, msgspec.json.decode, "JSON") from exc
        for key in self._keys:
            if body.count(key) > 1:
                _refuse_repeats(body)
                break
        else:
            if self._escape in body:
                _refuse_repeats(body)
        return self._rebuilt(msgspec.structs.astuple(found))

    def _from_msgpack(self, payload: Payload) -> tuple[Any, ...]:
        try:
            found = self._read_msgpack(payload.body)
        except FOREIGN as exc:
            raise _first_refusal(exc, payload.body, msgspec.msgpack.decode, "msgpack") from exc
        if not self._packed:
            return self._rebuilt(msgspec.structs.astuple(found))
        values = list(msgspec.structs.astuple(found))
        for place, each in self._packed:
            values[place] = each.from_packed(values[place])
        return self._rebuilt(tuple(values))

    def _from_raw(self, payload: Payload) -> tuple[Any, ...]:
        query = self._query(payload.query)
        binary = self._binary
        shape = None
        if binary is not None and "shape" not in self.inputs:
            shape = query.pop("shape", None)
        values = {name: self._known(name).from_text(text) for name, text in query.items()}
        if payload.body or payload.media_type:
            if binary is None:
                raise UnsupportedMedia("no input of this model is a body by itself")
            if binary.name in values:
                raise at_path(BadRequest, binary.path, "given twice")
            data = memoryview(payload.body).toreadonly()
            values[binary.name] = (
                binary.from_npy(data)
                if payload.form == "npy"
                else binary.from_body(data, payload.media_type, shape)
            )
        return self._assembled(values)

    def _query(self, text: str) -> dict[str, str]:
        if not text:
            return {}
        try:
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
            )
        except ValueError as exc:
            raise BadRequest(f"a malformed query string: {exc}") from exc
        query = dict(pairs)
        if len(query) < len(pairs):
            raise BadRequest("a name stands twice in the query string")
        return query

    def _from_multipart(self, payload: Payload) -> tuple[Any, ...]:
        values: dict[str, Any] = {}
        lists: dict[str, list[Any]] = {}
        for part in split_form(payload.body, payload.media_type):
            each = self._known(part.name)
            if each.many and each.name not in values and not each.is_text(part):
                lists.setdefault(each.name, []).append(each.from_part(part))
            elif each.name in values or each.name in lists:
                raise at_path(BadRequest, each.path, "given twice")
            else:
                values[each.name] = each.from_part(part)
        for name, several in lists.items():
            values[name] = self.inputs[name].joined(several)
        return self._assembled(values)

    def _known(self, name: str) -> Input:
        if name not in self.inputs:
            known = ", ".join(self.inputs)
            raise at_path(Invalid, f"$.{name[:64]}", f"unknown; expected of: {known}")
        return self.inputs[name]

    def _assembled(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        missing = [each for each in self.inputs.values() if each.required]
        missing = [each for each in missing if each.name not in values]
        if missing:
            faults = [Fault(each.path, "required and missing") for each in missing]
            names = ", ".join(each.path for each in missing)
            raise Invalid(f"{names}: required and missing", errors=faults)
        return self._rebuilt(
            tuple(
                values[name] if name in values else each.fresh_default()
                for name, each in self.inputs.items()
            )
        )

    def _rebuilt(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._rebuilds:
            return values
        built = list(values)
        for place, name, rebuild in self._rebuilds:
            try:
                built[place] = rebuild(built[place])
            except (TypeError, ValueError) as exc:
                raise at_path(Invalid, f"$.{name}", exc) from exc
        return tuple(built)


class _ItemReader:
    """Reads items of a session whose wrapper takes bare values."""

    def __init__(self, contract: Contract) -> None:
        (field,) = msgspec.structs.fields(contract.inputs)
        self._json = msgspec.json.Decoder(field.type, dec_hook=read_json).decode
        self._msgpack = msgspec.msgpack.Decoder(
            field.type, dec_hook=read_msgpack, ext_hook=_refuse_extension
        ).decode

    def read(self, payload: Payload) -> Any:
        form, read, decode = (
            ("JSON", self._json, msgspec.json.decode)
            if payload.form == "json"
            else ("msgpack", self._msgpack, msgspec.msgpack.decode)
        )
        try:
            return read(payload.body)
        except FOREIGN as exc:
            raise _first_refusal(exc, payload.body, decode, form) from exc


def _packed_struct(contract: Contract, inputs: Mapping[str, Input]) -> type[msgspec.Struct]:
    """Define the Struct of inputs again, with the fields' bytes as views of the body."""
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for info in msgspec.structs.fields(contract.inputs):
        each = inputs[info.name]
        if each.spec is None or each.many:
            members.append(_member(info))
            continue
        wanted: Any = packed_type(each.spec)
        if each.optional:
            wanted = wanted | None
        if each.required:
            members.append((info.name, wanted))
        else:
            members.append((info.name, wanted | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(
        contract.inputs.__name__, members, kw_only=True, forbid_unknown_fields=True
    )


def _member(info: msgspec.structs.FieldInfo) -> tuple[str, Any] | tuple[str, Any, Any]:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.name, info.type, msgspec.field(default_factory=info.default_factory)
    if info.default is not msgspec.NODEFAULT:
        return info.name, info.type, info.default
    return info.name, info.type


def _first_refusal(error: Exception, body: Any, decode: Callable[..., Any], form: str) -> AtomError:
    """Prefer what is wrong with the document as such: msgspec stops at the first misfit."""
    if isinstance(error, msgspec.ValidationError):
        try:
            decode(body, type=msgspec.Raw)
        except FOREIGN as exc:
            error = exc
    return refusal(error, form=form)


def _refuse_extension(code: int, _: memoryview) -> NoReturn:
    raise msgspec.ValidationError(f"msgpack extension type {code}; expected plain values")


def _refuse_repeats(body: bytes | bytearray) -> None:
    """Refuse a JSON object that names a member twice; msgspec would keep the last."""
    try:
        # Pairs stay pairs, so the outermost result is the outermost object's members.
        pairs = json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError as exc:
        raise refusal(exc) from exc
    names = [name for name, _ in pairs]
    for name in set(names):
        if names.count(name) > 1:
            raise at_path(BadRequest, f"$.{name[:64]}", "stands twice in the object")
