"""A model's JSON Schemas under component names of its own, as JSON and as msgpack carry them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]

COMPONENTS = "#/components/schemas/"

# How `atomserve.schemas` describes a tensor; inside a list or a class nothing else tells it.
TENSOR = re.compile(r"(?P<dtype>\w+) tensor of (?:any shape|shape \[(?P<dims>[-0-9, ]*)\])")

# OpenAPI 3.1 would say this with contentMediaType alone; documentation pages and fuzzers know that
# a file is meant by the format.
BYTES: Schema = {"type": "string", "format": "binary"}


class Namespace:
    """Moves a model's definitions to names of its own: ``Page`` becomes ``ocr.Page``.

    Those that hold bytes exist twice, for msgpack needs no base64.
    """

    def __init__(self, model: str, definitions: Mapping[str, Any]) -> None:
        self._model = model
        self._definitions = definitions
        self._holders = _holding_bytes(definitions)

    def components(self) -> dict[str, Schema]:
        """Return the model's definitions by component name."""
        definitions = self._definitions
        return {
            **{self._name(name): self.moved(each) for name, each in definitions.items()},
            **{
                self._name(name, msgpack=True): self.moved(definitions[name], msgpack=True)
                for name in sorted(self._holders)
            },
        }

    def _name(self, definition: str, *, msgpack: bool = False) -> str:
        # A dot ends the model's name, which may itself hold dots: none may follow it.
        name = f"{self._model}.{definition.replace('.', '_')}"
        return f"{name}-msgpack" if msgpack else name

    def moved(self, node: Any, *, msgpack: bool = False) -> Any:
        """Return a copy of a schema with its references moved, and for msgpack its bytes bare."""
        if isinstance(node, list):
            return [self.moved(each, msgpack=msgpack) for each in node]
        if isinstance(node, str) and node.startswith(COMPONENTS):
            name = node.removeprefix(COMPONENTS)
            return COMPONENTS + self._name(name, msgpack=msgpack and name in self._holders)
        if not isinstance(node, dict):
            return node
        if msgpack and (packed := _packed(node)) is not None:
            return packed
        return {key: self.moved(value, msgpack=msgpack) for key, value in node.items()}


def _packed(schema: Schema) -> Schema | None:
    """Return the msgpack form of a field's schema; None: it is no field's."""
    if schema.get("contentEncoding") == "base64":
        rest = {key: value for key, value in schema.items() if key != "contentEncoding"}
        return rest | BYTES
    description = schema.get("description")
    tensor = TENSOR.fullmatch(description) if isinstance(description, str) else None
    if tensor is None:
        return None
    size = {"type": "integer", "minimum": 0}
    shape: Schema = {"type": "array", "items": size}
    if tensor["dims"] is not None:
        dims = json.loads(f"[{tensor['dims']}]")
        shape["prefixItems"] = [size if n == -1 else {"const": n} for n in dims]
        shape |= {"minItems": len(dims), "maxItems": len(dims)}
    return {
        "type": "object",
        "properties": {"dtype": {"const": tensor["dtype"]}, "shape": shape, "data": BYTES},
        "required": ["dtype", "shape", "data"],
        "additionalProperties": False,
        "description": f"{description}: little-endian bytes in C order",
    }


def _holding_bytes(definitions: Mapping[str, Any]) -> frozenset[str]:
    """Name the definitions that msgpack writes otherwise, by themselves or by what they hold."""
    texts = {name: msgspec.json.encode(schema).decode() for name, schema in definitions.items()}
    found = {
        name
        for name, text in texts.items()
        if '"contentEncoding":"base64"' in text or TENSOR.search(text)
    }
    while True:
        marks = [f'"{COMPONENTS}{name}"' for name in found]
        more = {name for name, text in texts.items() if any(mark in text for mark in marks)}
        if more <= found:
            return frozenset(found)
        found |= more
