"""Requests to a wrapper's arguments, and what it returns to answers; runs where the slot lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from atomserve.codecs.answers import Answers
from atomserve.codecs.defaults import complete, holds_defaults
from atomserve.codecs.documents import ItemReader, JsonReader, MsgpackReader
from atomserve.codecs.examples import example_json, example_values
from atomserve.codecs.forms import Part, split_form
from atomserve.codecs.inputs import Input, inputs_of
from atomserve.codecs.reading import Reader
from atomserve.codecs.refusals import at_path
from atomserve.engine.jobs import Form, Payload
from atomserve.errors import AtomError, BadRequest, Fault, Invalid, UnsupportedMedia
from atomserve.media.sources import Sources
from atomserve.schemas import Rebuild
from atomserve.signature import Contract

MAX_QUERY_FIELDS = 64


class Codec:
    """Everything that one contract's requests and answers need, compiled once.

    What requests name is opened as far as ``sources`` allows it: by default nothing is. Stateless
    after that: any thread may use it.
    """

    def __init__(self, contract: Contract, sources: Sources | None = None) -> None:
        self.contract = contract
        reader = Reader(Sources() if sources is None else sources)
        self.inputs = inputs_of(contract, reader)
        opens = bool(reader.sources.allowed)
        self.waits = opens and any(each.is_media for each in self.inputs.values())
        """Whether `decode` may wait for what a request names."""
        names = tuple(self.inputs)
        self._rebuilds = [
            (place, name, rebuild)
            for place, name in enumerate(names)
            for rebuild in (contract.rebuilds.get(name), self._completion(name))
            if rebuild is not None
        ]
        binary = contract.signature.binary_input
        self._binary = self.inputs[binary.name] if binary is not None else None
        self._json = JsonReader(contract.inputs, self.inputs, reader)
        self._msgpack = MsgpackReader(contract.inputs, self.inputs, reader)
        self._forms: dict[Form, Callable[[Payload], tuple[Any, ...]]] = {
            "json": self._from_json,
            "msgpack": self._from_msgpack,
            "multipart": self._from_multipart,
            "npy": self._from_raw,
            "raw": self._from_raw,
        }
        self._item = (
            ItemReader(next(iter(self.inputs.values())), reader)
            if contract.signature.takes == "session" and contract.request is None
            else None
        )
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

    def _completion(self, name: str) -> Rebuild | None:
        return complete if holds_defaults(self.inputs[name].type) else None

    def _from_json(self, payload: Payload) -> tuple[Any, ...]:
        return self._rebuilt(self._json.read(payload.body))

    def _from_msgpack(self, payload: Payload) -> tuple[Any, ...]:
        return self._rebuilt(self._msgpack.read(payload.body))

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
        lists: dict[str, list[Part]] = {}
        for part in split_form(payload.body, payload.media_type):
            each = self._known(part.name)
            if each.many and each.name not in values and not each.is_text(part):
                lists.setdefault(each.name, []).append(part)
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
