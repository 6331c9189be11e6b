"""A wrapper's fields as the contract by which it is called over the native surface."""

from __future__ import annotations

import inspect
import keyword
import re
from typing import Any, NamedTuple

import msgspec

from atomserve.compat.aiges.declared import Declared, key_of, kind_of
from atomserve.compat.aiges.schema import schema_v2
from atomserve.fields import Blob, Text
from atomserve.signature import Contract, Field, read_contract
from atomserve.wrapper import Wrapper

PARAMETER, PAYLOAD, STATUS = "parameter", "payload", "status"
"""The inputs of a wrapper without fields, and what a session's item may say of its place."""
PATCH = "res_id"
"""What names a personal resource: the header of a request, and an input of the native surface."""

Scalar = str | int | float | bool | None


class Native(NamedTuple):
    """One input of the native surface, and what it is to the wrapper."""

    name: str
    key: str
    type: int | None
    """What the data are; None: it is a parameter."""
    json: bool = False
    """Its data are a JSON document."""


class Described(NamedTuple):
    """A wrapper's contract, and the inputs that its fields have become."""

    contract: Contract
    inputs: tuple[Native, ...]


def describe(
    wrapper: Declared, name: str, *, once: bool, stream: bool, resources: bool = False
) -> Described:
    """Make the contract of ``wrapper``, which is served as ``name`` and may load ``resources``.

    Whatever a parameter says of its values is in the signature and not enforced: that is for
    `Parameters` to decide.
    """
    inputs = tuple(_inputs(wrapper))
    parameters = [_parameter(wrapper, each, required=not stream) for each in inputs]
    if wrapper.open:
        parameters += [
            _keyword(PARAMETER, dict[str, Scalar], {}),
            _keyword(PAYLOAD, dict[str, Any], {}),
        ]
    taken = {each.name for each in parameters}
    if stream and STATUS not in taken:
        parameters.append(_keyword(STATUS, int | None, None))
    if resources and PATCH not in taken:
        parameters.append(_keyword(PATCH, str | int | None, None))
    contract = read_contract(_stand_in(wrapper, parameters), plugin=name)
    signature = contract.signature
    schemas = _schemas(wrapper, inputs)
    fields = tuple(
        msgspec.structs.replace(field, schema=schemas.get(field.name, field.schema))
        for field in signature.inputs
    )
    described = msgspec.structs.replace(
        signature,
        inputs=fields,
        output=_output(wrapper, signature.output),
        streams=not once,
        sessions=stream,
    )
    return Described(msgspec.structs.replace(contract, signature=described), inputs)


def _inputs(wrapper: Declared) -> list[Native]:
    taken: set[str] = set()
    found = []
    for field in wrapper.fields.inputs:
        key = key_of(field)
        json = not hasattr(field, "encoding") or getattr(field, "format", "") == "json"
        is_json = kind_of(field) == "text" and json
        found.append(Native(_name(key, taken), key, field.data_type, is_json))
    for field in wrapper.fields.params:
        key = key_of(field)
        found.append(Native(_name(key, taken), key, None))
    return found


def _name(key: str, taken: set[str]) -> str:
    """Make a name of ``key`` that a parameter in Python may have."""
    name = re.sub(r"\W", "_", key) or "_"
    if name[0].isdigit() or keyword.iskeyword(name) or name == "self":
        name = f"_{name}"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _parameter(wrapper: Declared, native: Native, *, required: bool) -> inspect.Parameter:
    if native.type is None:
        return _keyword(native.name, Scalar, None)
    kind: Any = Any if native.json else Text if native.type == 0 else Blob
    if required:
        return _keyword(native.name, kind, inspect.Parameter.empty)
    return _keyword(native.name, kind | None, None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _stand_in(wrapper: Declared, parameters: list[inspect.Parameter]) -> type[Wrapper]:
    """Make a class of our own kind that asks for what the wrapper's fields ask for."""

    def predict(self: Any, **_: Any) -> Any:
        raise NotImplementedError

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(predict)["__signature__"] = inspect.Signature([own, *parameters])
    predict.__annotations__ = {each.name: each.annotation for each in parameters}
    predict.__annotations__["return"] = dict[str, Any]
    members = {
        "predict": predict,
        "version": wrapper.version or "1",
        "__doc__": f"The AIGES wrapper {wrapper.service_id}.",
    }
    return type("AigesWrapper", (Wrapper,), members)


def _schemas(wrapper: Declared, inputs: tuple[Native, ...]) -> dict[str, Any]:
    service = schema_v2(wrapper)["schemainput"]["properties"][PARAMETER]["properties"]
    said = service[wrapper.service_id]["properties"]
    return {each.name: said[each.key] for each in inputs if each.type is None}


def _output(wrapper: Declared, field: Field) -> Field:
    properties = {}
    for accept in wrapper.fields.accepts:
        text = {"type": "string"}
        binary = {"type": "string", "contentEncoding": "base64"}
        properties[key_of(accept)] = text if kind_of(accept) == "text" else binary
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    if properties:
        schema["properties"] = properties
    return msgspec.structs.replace(field, schema=schema)
